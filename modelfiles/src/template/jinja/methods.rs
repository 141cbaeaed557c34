//! Python's methods of strings, lists and maps, which templates call freely.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

use super::meter::Meter;
use super::text;

pub(super) fn call(
    meter: &Meter,
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    meter.charge_shallow(value)?;
    arguments.iter().try_for_each(|argument| meter.charge_shallow(argument))?;
    match (value.as_str(), method, arguments) {
        (Some(text), "replace", [from, to, rest @ ..]) => {
            let count = rest.first().and_then(Value::as_usize);
            let (from, to) = (required(from, method)?, required(to, method)?);
            text::replace(meter, text, from, to, count).map(Value::from)
        }
        (Some(separator), "join", [parts]) => {
            text::join(meter, parts, separator, None).map(Value::from)
        }
        // A field's width is a number in the text, and could ask for gigabytes.
        (Some(text), "format", _) if text.contains(':') => {
            let message = "format() with a format specification is not supported";
            Err(Error::new(ErrorKind::InvalidOperation, message))
        }
        (Some(_), "format", _) => {
            arguments.iter().try_for_each(|argument| meter.charge_deep(argument))?;
            paid(meter, pycompat::unknown_method_callback(state, value, method, arguments)?)
        }
        (None, "count", _) if value.kind() == ValueKind::Seq => {
            meter.charge_deep(value)?;
            pycompat::unknown_method_callback(state, value, method, arguments)
        }
        _ => paid(meter, pycompat::unknown_method_callback(state, value, method, arguments)?),
    }
}

fn paid(meter: &Meter, made: Value) -> Result<Value, Error> {
    meter.charge_shallow(&made)?;
    Ok(made)
}

fn required<'a>(argument: &'a Value, method: &str) -> Result<&'a str, Error> {
    argument
        .as_str()
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("{method}() needs strings")))
}
