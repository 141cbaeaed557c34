//! Values as text: as Python prints them, and as its `json.dumps` writes them.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::meter::{Meter, limit_hit};
use crate::template::json_text;

/// Spaces per level that `tojson(indent=…)` may ask for.
const JSON_INDENT_MAX: usize = 64;
/// What each place of a replacement is taken to cost.
const PLACE_BYTES: usize = 16;
/// Bytes of a separator that `tojson(separators=…)` may ask for.
const SEPARATOR_BYTES_MAX: usize = 64;

/// How `tojson` was asked to write.
#[derive(Debug)]
pub(super) struct JsonStyle {
    ascii: bool,
    indent: Option<usize>,
    sort_keys: bool,
    item_separator: String,
    key_separator: String,
}

impl JsonStyle {
    pub(super) fn from_kwargs(options: &Kwargs) -> Result<JsonStyle, Error> {
        let indent: Option<usize> = options.get("indent")?;
        if indent.is_some_and(|indent| indent > JSON_INDENT_MAX) {
            return Err(limit_hit(format!("{JSON_INDENT_MAX} spaces of indent")));
        }
        let separators: Option<Vec<String>> = options.get("separators")?;
        let (item, key) = match separators.as_deref() {
            Some([item, key]) => (item.clone(), key.clone()),
            Some(_) => {
                let message = "separators must be a pair of strings";
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
            None if indent.is_some() => (",".into(), ": ".into()),
            None => (", ".into(), ": ".into()),
        };
        if item.len() + key.len() > SEPARATOR_BYTES_MAX {
            return Err(limit_hit(format!("{SEPARATOR_BYTES_MAX} bytes of separators")));
        }
        Ok(JsonStyle {
            ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
            indent,
            sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
            item_separator: item,
            key_separator: key,
        })
    }
}

/// JSON as `json.dumps(value, ensure_ascii=False)` writes it.
pub(super) fn json(meter: &Meter, value: &Value, style: &JsonStyle) -> Result<String, Error> {
    meter.charge_deep(value)?;
    let mut out = String::new();
    write_json(meter, &mut out, value, style, 0)?;
    meter.charge(out.len())?;
    Ok(out)
}

fn write_json(
    meter: &Meter,
    out: &mut String,
    value: &Value,
    style: &JsonStyle,
    depth: usize,
) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => write_json_string(out, value.as_str().unwrap_or(""), style.ascii),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (index, item) in value.try_iter()?.enumerate() {
                begin_item(meter, out, style, depth, index)?;
                write_json(meter, out, &item, style, depth + 1)?;
            }
            end_items(meter, out, style, depth, ']')?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sort_keys {
                keys.sort();
            }
            out.push('{');
            for (index, key) in keys.iter().enumerate() {
                begin_item(meter, out, style, depth, index)?;
                write_json_string(out, &python(meter, key)?, style.ascii);
                out.push_str(&style.key_separator);
                write_json(meter, out, &value.get_item(key)?, style, depth + 1)?;
            }
            end_items(meter, out, style, depth, '}')?;
        }
        kind => {
            let message = format!("a value of type {kind} has no JSON");
            return Err(Error::new(ErrorKind::BadSerialization, message));
        }
    }
    Ok(())
}

fn begin_item(
    meter: &Meter,
    out: &mut String,
    style: &JsonStyle,
    depth: usize,
    index: usize,
) -> Result<(), Error> {
    if index > 0 {
        out.push_str(&style.item_separator);
    }
    new_line(meter, out, style, depth + 1)
}

fn end_items(
    meter: &Meter,
    out: &mut String,
    style: &JsonStyle,
    depth: usize,
    close: char,
) -> Result<(), Error> {
    // An empty list or map stays on its line.
    if !out.ends_with(['[', '{']) {
        new_line(meter, out, style, depth)?;
    }
    out.push(close);
    Ok(())
}

fn new_line(meter: &Meter, out: &mut String, style: &JsonStyle, depth: usize) -> Result<(), Error> {
    let Some(indent) = style.indent else { return Ok(()) };
    let width = indent * depth;
    meter.charge(width)?;
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', width));
    Ok(())
}

fn write_json_string(out: &mut String, text: &str, ascii: bool) {
    json_text::write_string(out, text, |c| ascii && (!c.is_ascii() || c == '\u{7f}'));
}

/// A value as Python's `str` gives it: `None`, `True`, `['a']`; a string as it is.
pub(super) fn python(meter: &Meter, value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        meter.charge(text.len())?;
        return Ok(String::from(text));
    }
    meter.charge_deep(value)?;
    let mut out = String::new();
    write_python(&mut out, value)?;
    meter.charge(out.len())?;
    Ok(out)
}

fn write_python(out: &mut String, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => write_quoted(out, value.as_str().unwrap_or("")),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (index, item) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_python(out, &item)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_python(out, &key)?;
                out.push_str(": ");
                write_python(out, &value.get_item(&key)?)?;
            }
            out.push('}');
        }
        kind => {
            let message = format!("a value of type {kind} cannot be printed");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    }
    Ok(())
}

/// A string within a list, as Python's `repr` quotes it.
fn write_quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// A number as Python prints it: floats keep their point, and exponents their sign.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(float) = f64::try_from(value.clone()) else { return value.to_string() };
    if float.is_nan() {
        return String::from("NaN");
    }
    if float.is_infinite() {
        return String::from(if float > 0.0 { "Infinity" } else { "-Infinity" });
    }
    let size = float.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{float:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{float:?}")
}

/// Replaces, after counting what that will make.
pub(super) fn replace(
    meter: &Meter,
    text: &str,
    from: &str,
    to: &str,
    count: Option<usize>,
) -> Result<String, Error> {
    meter.charge(text.len())?;
    let count = count.unwrap_or(usize::MAX).min(text.matches(from).count());
    // To find a place and to go on behind it costs more than the bytes put there.
    meter.charge(text.len().saturating_add(count.saturating_mul(to.len() + PLACE_BYTES)))?;
    Ok(text.replacen(from, to, count))
}

/// Joins the elements of a list, or one attribute of each.
pub(super) fn join(
    meter: &Meter,
    value: &Value,
    separator: &str,
    attribute: Option<&str>,
) -> Result<String, Error> {
    let mut out = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            meter.charge(separator.len())?;
            out.push_str(separator);
        }
        let item = match attribute {
            Some(name) => item.get_attr(name)?,
            None => item,
        };
        out.push_str(&python(meter, &item)?);
    }
    meter.charge(out.len())?;
    Ok(out)
}
