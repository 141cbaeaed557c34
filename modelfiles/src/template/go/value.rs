//! Values of a Go template: how they print, compare and turn into JSON.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::ops::Range;
use std::rc::Rc;

use crate::template::json_text;

/// A value. Texts and lists are shared, so that to copy one costs nothing.
#[derive(Debug, Clone, Default)]
pub(super) enum Value {
    #[default]
    Nil,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Rc<str>),
    /// A list, or a part of one.
    List(Rc<Vec<Value>>, Range<usize>),
    Map(Rc<Vec<Entry>>),
}

/// A field of a struct or an element of a map.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The name in a template: Go's for a struct's field, the key for a map's.
    pub(super) name: Rc<str>,
    /// The key in JSON; `None` leaves the field out.
    pub(super) key: Option<Rc<str>>,
    pub(super) value: Value,
}

impl Value {
    pub(super) fn text(text: &str) -> Value {
        Value::Text(Rc::from(text))
    }

    pub(super) fn list(items: Vec<Value>) -> Value {
        let range = 0..items.len();
        Value::List(Rc::new(items), range)
    }

    pub(super) fn items(&self) -> &[Value] {
        match self {
            Value::List(items, range) => items.get(range.clone()).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// A field by its name; nothing when there is none.
    pub(super) fn field(&self, name: &str) -> Value {
        match self {
            Value::Map(entries) => entries
                .iter()
                .find(|entry| &*entry.name == name)
                .map(|entry| entry.value.clone())
                .unwrap_or_default(),
            _ => Value::Nil,
        }
    }

    /// What `if` asks: neither zero nor empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(truth) => *truth,
            Value::Integer(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::List(_, range) => !range.is_empty(),
            Value::Map(entries) => !entries.is_empty(),
        }
    }

    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Value::Text(text) => Some(text.len()),
            Value::List(_, range) => Some(range.len()),
            Value::Map(entries) => Some(entries.len()),
            _ => None,
        }
    }

    /// How values of one kind compare; nothing across kinds.
    pub(super) fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::Integer(a), Value::Integer(b)) => Some(a.cmp(b)),
            (Value::Integer(a), Value::Float(b)) => (*a as f64).partial_cmp(b),
            (Value::Float(a), Value::Integer(b)) => a.partial_cmp(&(*b as f64)),
            (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Value::Nil, Value::Nil) => Some(Ordering::Equal),
            _ => None,
        }
    }

    /// As `{{ . }}` prints it. Lists and maps print as JSON: all that a prompt's data holds do.
    pub(super) fn print(&self) -> String {
        match self {
            Value::Nil => String::new(),
            Value::Text(text) => String::from(&**text),
            Value::Float(number) => format!("{number}"),
            other => other.json(),
        }
    }

    /// As Go's `json.Marshal` writes it: no blanks, and `<`, `>`, `&` escaped.
    pub(super) fn json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    fn write_json(&self, out: &mut String) {
        // Writing into a string cannot fail.
        let _ = match self {
            Value::Nil => out.write_str("null"),
            Value::Bool(truth) => write!(out, "{truth}"),
            Value::Integer(number) => write!(out, "{number}"),
            Value::Float(number) => write!(out, "{number}"),
            Value::Text(text) => {
                write_json_text(out, text);
                Ok(())
            }
            Value::List(..) => {
                out.push('[');
                for (index, item) in self.items().iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    item.write_json(out);
                }
                out.write_str("]")
            }
            Value::Map(entries) => {
                out.push('{');
                let mut first = true;
                for entry in entries.iter() {
                    let Some(key) = &entry.key else { continue };
                    out.push_str(if first { "" } else { "," });
                    first = false;
                    write_json_text(out, key);
                    out.push(':');
                    entry.value.write_json(out);
                }
                out.write_str("}")
            }
        };
    }
}

impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Nil,
            serde_json::Value::Bool(truth) => Value::Bool(*truth),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(integer) => Value::Integer(integer),
                None => Value::Float(number.as_f64().unwrap_or(f64::MAX)),
            },
            serde_json::Value::String(text) => Value::text(text),
            serde_json::Value::Array(items) => Value::list(items.iter().map(Value::from).collect()),
            serde_json::Value::Object(map) => {
                let entry = |(key, value): (&String, &serde_json::Value)| {
                    let name: Rc<str> = Rc::from(key.as_str());
                    Entry { name: name.clone(), key: Some(name), value: Value::from(value) }
                };
                Value::Map(Rc::new(map.iter().map(entry).collect()))
            }
        }
    }
}

/// Go escapes what HTML would take for markup, and the line ends of JavaScript.
fn write_json_text(out: &mut String, text: &str) {
    let escape = |c| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
    json_text::write_string(out, text, escape);
}
