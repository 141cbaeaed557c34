//! The functions a Go template may call: Go's own, and those Ollama adds.

use std::cmp::Ordering;

use super::value::Value;
use crate::template::TemplateError;

/// Digits of a width or precision in `printf`.
const PRINTF_WIDTH_MAX: usize = 1000;

/// Every function but `and` and `or`, which the machine evaluates as far as needed.
const NAMES: [&str; 23] = [
    "and",
    "or",
    "not",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "len",
    "index",
    "slice",
    "print",
    "printf",
    "println",
    "html",
    "js",
    "urlquery",
    "json",
    "currentDate",
    "yesterdayDate",
    "toTypeScriptType",
    "toJson",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function with all its arguments.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
    let wrong = || TemplateError::failed(format!("wrong arguments for `{name}`"));
    match (name, arguments) {
        ("not", [value]) => Ok(Value::Bool(!value.is_true())),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            let equal = |other: &Value| first.compare(other) == Some(Ordering::Equal);
            Ok(Value::Bool(others.iter().any(equal)))
        }
        ("ne", [a, b]) => Ok(Value::Bool(a.compare(b) != Some(Ordering::Equal))),
        ("lt", [a, b]) => Ok(Value::Bool(order(a, b)?.is_lt())),
        ("le", [a, b]) => Ok(Value::Bool(order(a, b)?.is_le())),
        ("gt", [a, b]) => Ok(Value::Bool(order(a, b)?.is_gt())),
        ("ge", [a, b]) => Ok(Value::Bool(order(a, b)?.is_ge())),
        ("len", [value]) => {
            let len = value.len().and_then(|len| i64::try_from(len).ok());
            len.map(Value::Integer).ok_or_else(wrong)
        }
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), index),
        ("slice", [value, bounds @ ..]) if bounds.len() <= 2 => slice(value, bounds),
        ("print", _) => Ok(Value::text(&print(arguments))),
        ("println", _) => {
            let words: Vec<String> = arguments.iter().map(Value::print).collect();
            Ok(Value::text(&(words.join(" ") + "\n")))
        }
        ("printf", [Value::Text(format), rest @ ..]) => Ok(Value::text(&printf(format, rest)?)),
        ("json" | "toJson", [value]) => Ok(Value::text(&value.json())),
        ("html", _) => Ok(Value::text(&html(&print(arguments)))),
        ("js", _) => {
            let quoted = Value::text(&print(arguments)).json();
            Ok(Value::text(quoted.trim_matches('"')))
        }
        ("urlquery", _) => Ok(Value::text(&url_query(&print(arguments)))),
        ("currentDate", []) => Ok(Value::text(&date(0))),
        ("yesterdayDate", []) => Ok(Value::text(&date(1))),
        ("toTypeScriptType", [value]) => Ok(Value::text(&type_script(value))),
        _ => Err(wrong()),
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering, TemplateError> {
    a.compare(b).ok_or_else(|| TemplateError::failed("values of different types are compared"))
}

fn index(value: Value, key: &Value) -> Result<Value, TemplateError> {
    match (&value, key) {
        (Value::List(..), Value::Integer(at)) => usize::try_from(*at)
            .ok()
            .and_then(|at| value.items().get(at).cloned())
            .ok_or_else(|| TemplateError::failed(format!("index {at} is out of range"))),
        (Value::Map(_), Value::Text(name)) => Ok(value.field(name)),
        _ => Err(TemplateError::failed("`index` of a value that has no elements")),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, TemplateError> {
    let len = value.len().unwrap_or(0);
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Some(default),
        Some(Value::Integer(number)) => usize::try_from(*number).ok().filter(|n| *n <= len),
        Some(_) => None,
    };
    let out_of_range = || TemplateError::failed("`slice` is out of range");
    let (from, to) = bound(0, 0).zip(bound(1, len)).ok_or_else(out_of_range)?;
    match value {
        Value::List(items, range) if from <= to => {
            Ok(Value::List(items.clone(), range.start + from..range.start + to))
        }
        Value::Text(text) => text.get(from..to).map(Value::text).ok_or_else(out_of_range),
        _ => Err(out_of_range()),
    }
}

/// Go puts a blank between two values when neither is a text.
fn print(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        if at > 0 && !is_text(value) && !is_text(&values[at - 1]) {
            out.push(' ');
        }
        out.push_str(&value.print());
    }
    out
}

fn printf(format: &str, values: &[Value]) -> Result<String, TemplateError> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let flags = after.find(|c: char| !matches!(c, '-' | '+' | '0'..='9' | '.' | '#' | ' '));
        let at = flags.ok_or_else(|| TemplateError::failed("`printf` ends in `%`"))?;
        let verb = after[at..].chars().next().unwrap_or('%');
        rest = &after[at + verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
        } else {
            let value = values.next().cloned().unwrap_or_default();
            out.push_str(&directive(&after[..at], verb, &value)?);
        }
    }
    Ok(out + rest)
}

fn directive(flags: &str, verb: char, value: &Value) -> Result<String, TemplateError> {
    let (width, precision) = match flags.split_once('.') {
        Some((width, precision)) => (width, precision.parse::<usize>().ok()),
        None => (flags, None),
    };
    let left = width.starts_with('-');
    let zeros = width.starts_with('0');
    let width = width.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().unwrap_or(0);
    if width.max(precision.unwrap_or(0)) > PRINTF_WIDTH_MAX {
        return Err(TemplateError::limit(format!("{PRINTF_WIDTH_MAX} characters in `printf`")));
    }
    let text = match (verb, value) {
        ('q', value) => Value::text(&value.print()).json(),
        ('f', Value::Float(number)) => format!("{number:.*}", precision.unwrap_or(6)),
        ('f', Value::Integer(number)) => format!("{:.*}", precision.unwrap_or(6), *number as f64),
        ('x', Value::Integer(number)) => format!("{number:x}"),
        ('s' | 'v', value) => match precision {
            Some(precision) => value.print().chars().take(precision).collect(),
            None => value.print(),
        },
        ('d' | 't' | 'g', value) => value.print(),
        (verb, _) => return Err(TemplateError::failed(format!("`printf` knows no `%{verb}`"))),
    };
    Ok(match (left, zeros) {
        (true, _) => format!("{text:<width$}"),
        (_, true) => format!("{text:0>width$}"),
        _ => format!("{text:>width$}"),
    })
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn url_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The date of today, or of so many days before.
fn date(days_ago: i64) -> String {
    let now = jiff::Zoned::now().date();
    let date = now.checked_sub(jiff::Span::new().days(days_ago)).unwrap_or(now);
    date.to_string()
}

/// A JSON schema's type as TypeScript names it.
fn type_script(value: &Value) -> String {
    let one = |name: &str| {
        String::from(match name {
            "string" => "string",
            "integer" | "number" => "number",
            "boolean" => "boolean",
            "array" => "any[]",
            "object" => "Record<string, any>",
            "null" => "null",
            _ => "any",
        })
    };
    match value {
        Value::Text(name) => one(name),
        Value::List(..) => {
            let names: Vec<String> = value.items().iter().map(|item| one(&item.print())).collect();
            names.join(" | ")
        }
        Value::Map(_) => type_script(&value.field("Type")),
        _ => one(""),
    }
}
