//! The functions, filters and operators a chat template finds, each paying for what it makes.

use std::fmt::Write as _;
use std::sync::LazyLock;

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, context, filters, functions, tests};

use super::meter::{Meter, Refusal, limit_hit};
use super::ordered::Ordered;
use super::text::{self, JsonStyle};
use super::{methods, program};

/// Numbers one `range` may count; a conversation has fewer messages.
const RANGE_MAX: usize = 10_000;
/// Spaces `indent` may put before a line.
const INDENT_MAX: usize = 1000;

pub(super) fn build(meter: &Meter) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_unknown_method_callback({
        let meter = meter.clone();
        move |state, value, method, arguments| {
            methods::call(&meter, state, value, method, arguments)
        }
    });
    environment.set_formatter({
        let meter = meter.clone();
        move |output, _, value| {
            let printed = text::python(&meter, value)?;
            meter.charge_output(printed.len())?;
            output.write_str(&printed).map_err(Error::from)
        }
    });
    add_operators(&mut environment, meter);
    add_functions(&mut environment, meter);
    replace_filters(&mut environment, meter);
    replace_tests(&mut environment, meter);
    environment
}

/// Computes an operator in an environment that has nothing else to offer.
fn plain(expression: &'static str, a: Value, b: Value) -> Result<Value, Error> {
    static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(Environment::empty);
    PLAIN.compile_expression(expression)?.eval(context! { a, b })
}

type Operator = fn(&Meter, Value, Value) -> Result<Value, Error>;

const OPERATORS: [(&str, Operator); 7] = [
    (program::ADD, |meter, a, b| {
        meter.charge_shallow(&a)?;
        meter.charge_shallow(&b)?;
        match (a.as_str(), b.as_str()) {
            (Some(left), Some(right)) => Ok(Value::from([left, right].concat())),
            _ => plain("a + b", a, b),
        }
    }),
    (program::CONCAT, |meter, a, b| {
        let joined = text::python(meter, &a)? + &text::python(meter, &b)?;
        meter.charge(joined.len())?;
        Ok(Value::from(joined))
    }),
    (program::MULTIPLY, |meter, a, b| {
        for (value, times) in [(&a, &b), (&b, &a)] {
            let times = times.as_usize().unwrap_or(0);
            if matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Iterable) {
                meter.charge_times(value, times)?;
            }
        }
        plain("a * b", a, b)
    }),
    (program::POWER, |_, a, b| plain("a ** b", a, b)),
    (program::EQUAL, |meter, a, b| Ok(Value::from(equal(meter, &a, &b)?))),
    (program::UNEQUAL, |meter, a, b| Ok(Value::from(!equal(meter, &a, &b)?))),
    (program::CONTAINS, |meter, a, b| {
        match b.as_str() {
            Some(text) => meter.charge(text.len())?,
            None if b.kind() == ValueKind::Map => meter.charge_deep(&a)?,
            None => meter.charge_deep(&b)?,
        }
        plain("a in b", a, b)
    }),
];

/// Equality, after paying for the smaller side or, of containers, for both.
fn equal(meter: &Meter, a: &Value, b: &Value) -> Result<bool, Error> {
    match (a.as_str(), b.as_str()) {
        (Some(left), Some(right)) => meter.charge(left.len().min(right.len()))?,
        (None, None) => {
            meter.charge_deep(a)?;
            meter.charge_deep(b)?;
        }
        _ => {}
    }
    Ok(a == b)
}

fn add_operators(environment: &mut Environment<'static>, meter: &Meter) {
    for (name, operator) in OPERATORS {
        let meter = meter.clone();
        environment.add_function(name, move |a: Value, b: Value| operator(&meter, a, b));
    }
    let paid = meter.clone();
    environment.add_function(program::LIST, move |items: Rest<Value>| {
        let list = Value::from(items.0);
        paid.charge_deep(&list)?;
        Ok::<_, Error>(list)
    });
    let paid = meter.clone();
    environment.add_function(program::MAP, move |items: Rest<Value>| {
        let mut map = Ordered::default();
        for [key, value] in items.as_chunks::<2>().0 {
            map.set(key.clone(), value.clone());
        }
        let map = map.finish();
        paid.charge_deep(&map)?;
        Ok::<_, Error>(map)
    });
    let paid = meter.clone();
    environment.add_function(
        program::SLICE,
        move |value: Value, start: Value, stop: Value, step: Value| {
            paid.charge_shallow(&value)?;
            slice(value, start, stop, step)
        },
    );
}

fn slice(value: Value, start: Value, stop: Value, step: Value) -> Result<Value, Error> {
    static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(Environment::empty);
    let expression = if step.is_none() { "value[start:stop]" } else { "value[start:stop:step]" };
    PLAIN.compile_expression(expression)?.eval(context! { value, start, stop, step })
}

fn add_functions(environment: &mut Environment<'static>, meter: &Meter) {
    environment.remove_global("debug");
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        let error = Error::new(ErrorKind::InvalidOperation, message.clone());
        Err(error.with_source(Refusal(message)))
    });
    environment.add_function("strftime_now", |format: String| {
        jiff::fmt::strtime::format(&format, &jiff::Zoned::now())
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
    });
    let paid = meter.clone();
    environment.add_function(
        "range",
        move |lower: isize, upper: Option<isize>, step: Option<isize>| {
            let counted = functions::range(lower, upper, step)
                .map_err(|_| limit_hit(format!("{RANGE_MAX} numbers in a range")))?;
            if counted.len().is_none_or(|count| count > RANGE_MAX) {
                return Err(limit_hit(format!("{RANGE_MAX} numbers in a range")));
            }
            paid.charge_shallow(&counted)?;
            Ok(counted)
        },
    );
    for (name, function) in [
        ("namespace", Value::from_function(functions::namespace)),
        ("dict", Value::from_function(functions::dict)),
    ] {
        let paid = meter.clone();
        environment.add_function(
            name,
            move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
                let arguments = arguments.into_values();
                paid.charge_namespace()?;
                arguments.iter().try_for_each(|argument| paid.charge_deep(argument))?;
                function.call(state, &arguments)
            },
        );
    }
}

/// Filters that read a value's elements all the way down.
const DEEP: [&str; 10] =
    ["sort", "unique", "min", "max", "sum", "groupby", "dictsort", "select", "reject", "map"];
/// Filters no chat template needs and whose cost does not follow from their input.
const REMOVED: [&str; 6] = ["batch", "slice", "chain", "zip", "pprint", "format"];

fn replace_filters(environment: &mut Environment<'static>, meter: &Meter) {
    for name in REMOVED {
        environment.remove_filter(name);
    }
    for (name, filter) in kept_filters() {
        let meter = meter.clone();
        let deep = DEEP.contains(&name);
        environment.add_filter(
            name,
            move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
                let arguments = arguments.into_values();
                for argument in &arguments {
                    if deep {
                        meter.charge_deep(argument)?
                    } else {
                        meter.charge_shallow(argument)?
                    }
                }
                let made = filter.call(state, &arguments)?;
                meter.charge_shallow(&made)?;
                Ok::<_, Error>(made)
            },
        );
    }
    replace_text_filters(environment, meter);
}

/// minijinja's own filters that are used as they are, for a price.
fn kept_filters() -> Vec<(&'static str, Value)> {
    vec![
        ("capitalize", Value::from_function(filters::capitalize)),
        ("dictsort", Value::from_function(filters::dictsort)),
        ("first", Value::from_function(filters::first)),
        ("groupby", Value::from_function(filters::groupby)),
        ("int", Value::from_function(filters::int)),
        ("items", Value::from_function(filters::items)),
        ("last", Value::from_function(filters::last)),
        ("lines", Value::from_function(filters::lines)),
        ("list", Value::from_function(filters::list)),
        ("lower", Value::from_function(filters::lower)),
        ("map", Value::from_function(filters::map)),
        ("max", Value::from_function(filters::max)),
        ("min", Value::from_function(filters::min)),
        ("reject", Value::from_function(filters::reject)),
        ("reverse", Value::from_function(filters::reverse)),
        ("select", Value::from_function(filters::select)),
        ("sort", Value::from_function(filters::sort)),
        ("split", Value::from_function(filters::split)),
        ("sum", Value::from_function(filters::sum)),
        ("title", Value::from_function(filters::title)),
        ("trim", Value::from_function(filters::trim)),
        ("unique", Value::from_function(filters::unique)),
        ("upper", Value::from_function(filters::upper)),
    ]
}

/// Filters whose result may be much larger than their input: these are ours.
fn replace_text_filters(environment: &mut Environment<'static>, meter: &Meter) {
    let paid = meter.clone();
    environment.add_filter("tojson", move |value: Value, options: Kwargs| {
        let style = JsonStyle::from_kwargs(&options)?;
        options.assert_all_used()?;
        text::json(&paid, &value, &style)
    });
    let paid = meter.clone();
    environment.add_filter("string", move |value: Value| text::python(&paid, &value));
    let paid = meter.clone();
    environment.add_filter("replace", move |value: Value, from: String, to: String| {
        let value = text::python(&paid, &value)?;
        text::replace(&paid, &value, &from, &to, None)
    });
    let paid = meter.clone();
    environment.add_filter(
        "join",
        move |value: Value, separator: Option<String>, attribute: Option<String>| {
            let separator = separator.unwrap_or_default();
            text::join(&paid, &value, &separator, attribute.as_deref())
        },
    );
    let paid = meter.clone();
    environment.add_filter(
        "indent",
        move |value: String, width: Option<usize>, first: Option<bool>, blank: Option<bool>| {
            let width = width.unwrap_or(4);
            if width > INDENT_MAX {
                return Err(limit_hit(format!("{INDENT_MAX} spaces of indent")));
            }
            let lines = value.split('\n').count();
            paid.charge(value.len().saturating_add(lines.saturating_mul(width)))?;
            Ok(indent(&value, width, first.unwrap_or(false), blank.unwrap_or(false)))
        },
    );
}

/// Puts spaces before lines: the first and blank ones only when asked to.
fn indent(value: &str, width: usize, first: bool, blank: bool) -> String {
    let mut out = String::with_capacity(value.len());
    for (number, line) in value.split('\n').enumerate() {
        if number > 0 {
            out.push('\n');
        }
        let wanted = if number == 0 { first } else { blank || !line.is_empty() };
        let width = if wanted { width } else { 0 };
        // Writing into a string cannot fail.
        let _ = write!(out, "{:width$}{line}", "");
    }
    out
}

/// Tests that compare; they stand in `select` and its kin as well.
fn replace_tests(environment: &mut Environment<'static>, meter: &Meter) {
    for (names, test) in [
        (&["eq", "equalto", "=="][..], Value::from_function(tests::is_eq)),
        (&["ne", "!="], Value::from_function(tests::is_ne)),
        (&["lt", "lessthan", "<"], Value::from_function(tests::is_lt)),
        (&["le", "<="], Value::from_function(tests::is_le)),
        (&["gt", "greaterthan", ">"], Value::from_function(tests::is_gt)),
        (&["ge", ">="], Value::from_function(tests::is_ge)),
        (&["in"], Value::from_function(tests::is_in)),
    ] {
        for name in names {
            let (meter, test) = (meter.clone(), test.clone());
            environment.add_test(*name, move |state: &mut State<'_, '_>, a: Value, b: Value| {
                meter.charge_deep(&a)?;
                meter.charge_deep(&b)?;
                Ok::<_, Error>(test.call(state, &[a, b])?.is_true())
            });
        }
    }
}
