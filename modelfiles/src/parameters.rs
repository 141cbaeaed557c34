//! Every parameter of Ollama's Modelfiles and requests: its type and its default.
//!
//! Names and defaults are an interface that clients rely on. What a parameter does is the
//! engine's business; here is only what may be written.

use serde_json::{Number, Value};

/// The type of a parameter's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// `true` or `false`.
    Bool,
    /// A list of strings; each `PARAMETER` line adds one.
    StringList,
}

/// What a parameter is when nobody sets it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Default {
    /// This whole number.
    Int(i64),
    /// This number.
    Float(f64),
    /// This truth.
    Bool(bool),
    /// An empty list.
    Empty,
    /// Chosen by the program when it loads the model.
    Automatic,
}

/// One parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its default.
    pub default: Default,
    /// Still accepted so that old files work, and without effect.
    pub deprecated: bool,
}

const fn now(name: &'static str, kind: Kind, default: Default) -> Parameter {
    Parameter { name, kind, default, deprecated: false }
}

const fn old(name: &'static str, kind: Kind) -> Parameter {
    Parameter { name, kind, default: Default::Automatic, deprecated: true }
}

/// Every parameter, by name within each group.
static PARAMETERS: [Parameter; 31] = [
    // Sampling: may change with each request.
    now("draft_num_predict", Kind::Int, Default::Int(4)),
    now("frequency_penalty", Kind::Float, Default::Float(0.0)),
    now("min_p", Kind::Float, Default::Float(0.0)),
    now("num_keep", Kind::Int, Default::Int(4)),
    now("num_predict", Kind::Int, Default::Int(-1)),
    now("presence_penalty", Kind::Float, Default::Float(0.0)),
    now("repeat_last_n", Kind::Int, Default::Int(64)),
    now("repeat_penalty", Kind::Float, Default::Float(1.0)),
    now("seed", Kind::Int, Default::Int(-1)),
    now("stop", Kind::StringList, Default::Empty),
    now("temperature", Kind::Float, Default::Float(0.8)),
    now("top_k", Kind::Int, Default::Int(40)),
    now("top_p", Kind::Float, Default::Float(0.9)),
    now("typical_p", Kind::Float, Default::Float(1.0)),
    // Loading: a change of these loads the model anew.
    now("main_gpu", Kind::Int, Default::Int(0)),
    now("num_batch", Kind::Int, Default::Int(512)),
    now("num_ctx", Kind::Int, Default::Automatic),
    now("num_gpu", Kind::Int, Default::Int(-1)),
    now("num_thread", Kind::Int, Default::Automatic),
    now("use_mmap", Kind::Bool, Default::Automatic),
    // Without effect.
    old("f16_kv", Kind::Bool),
    old("logits_all", Kind::Bool),
    old("low_vram", Kind::Bool),
    old("mirostat", Kind::Int),
    old("mirostat_eta", Kind::Float),
    old("mirostat_tau", Kind::Float),
    old("numa", Kind::Bool),
    old("penalize_newline", Kind::Bool),
    old("tfs_z", Kind::Float),
    old("use_mlock", Kind::Bool),
    old("vocab_only", Kind::Bool),
];

/// Why a value is not a parameter's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// There is no parameter of this name.
    #[error("unknown parameter `{name}`")]
    Unknown {
        /// The name given.
        name: String,
    },
    /// The value has another type. The words are the ones Ollama's clients know.
    #[error("option \"{name}\" must be of type {expected}")]
    Type {
        /// The parameter.
        name: &'static str,
        /// The type it must have.
        expected: &'static str,
    },
}

/// Every parameter that is known.
pub fn all() -> &'static [Parameter] {
    &PARAMETERS
}

/// The parameter of this name.
pub fn find(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|parameter| parameter.name == name)
}

/// Reads a value as a Modelfile writes it. A list's value is one of its elements, as a list.
pub fn parse_text(name: &str, text: &str) -> Result<Value, ParameterError> {
    let parameter = known(name)?;
    let value = match parameter.kind {
        Kind::Int => text.trim().parse::<i64>().ok().map(Value::from),
        Kind::Float => text.trim().parse::<f32>().ok().and_then(finite),
        Kind::Bool => truth(text.trim()).map(Value::from),
        Kind::StringList => Some(Value::from(vec![text])),
    };
    value.ok_or_else(|| parameter.wrong_type())
}

/// Checks a value as a request gives it. A whole number written as a fraction (`4.0`) becomes one.
pub fn check_json(name: &str, value: &Value) -> Result<Value, ParameterError> {
    let parameter = known(name)?;
    let checked = match parameter.kind {
        Kind::Int => whole(value).map(Value::from),
        Kind::Float => value.is_number().then(|| value.clone()),
        Kind::Bool => value.is_boolean().then(|| value.clone()),
        Kind::StringList => is_string_list(value).then(|| value.clone()),
    };
    checked.ok_or_else(|| parameter.wrong_type())
}

fn known(name: &str) -> Result<&'static Parameter, ParameterError> {
    find(name).ok_or_else(|| ParameterError::Unknown { name: String::from(name) })
}

impl Parameter {
    fn wrong_type(&self) -> ParameterError {
        let expected = match self.kind {
            Kind::Int => "integer",
            Kind::Float => "float32",
            Kind::Bool => "boolean",
            Kind::StringList => "array of strings",
        };
        ParameterError::Type { name: self.name, expected }
    }
}

/// A number as JSON, by its shortest text: 0.6 stays 0.6 and does not become 0.60000002.
fn finite(number: f32) -> Option<Value> {
    let shortest: f64 = number.to_string().parse().ok()?;
    Number::from_f64(shortest).map(Value::Number)
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn whole(value: &Value) -> Option<i64> {
    /// Beyond this a double no longer tells neighbouring whole numbers apart.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0 && number.abs() <= EXACT_MAX).then_some(number as i64)
    })
}

fn is_string_list(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Value::is_string))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_have_their_parameter_s_type() {
        for parameter in all() {
            let fits = match parameter.default {
                Default::Int(_) => parameter.kind == Kind::Int,
                Default::Float(_) => parameter.kind == Kind::Float,
                Default::Bool(_) => parameter.kind == Kind::Bool,
                Default::Empty => parameter.kind == Kind::StringList,
                Default::Automatic => true,
            };
            assert!(fits, "{}", parameter.name);
            assert_eq!(find(parameter.name), Some(parameter), "a name is there twice");
        }
    }

    #[test]
    fn text_becomes_its_type() {
        for (name, text, want) in [
            ("num_ctx", "4096", json!(4096)),
            ("temperature", "0.6", json!(0.6)),
            ("temperature", "1", json!(1.0)),
            ("use_mmap", "true", json!(true)),
            ("stop", " </s> ", json!([" </s> "])),
        ] {
            assert_eq!(parse_text(name, text), Ok(want), "{name} {text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for (name, text) in [
            ("num_ctx", "4k"),
            ("num_ctx", "1.5"),
            ("temperature", "hot"),
            ("temperature", "NaN"),
            ("top_p", "inf"),
            ("use_mmap", "yes"),
        ] {
            assert!(parse_text(name, text).is_err(), "{name} {text}");
        }
    }

    #[test]
    fn json_of_another_type_is_refused_with_the_type_that_is_meant() {
        let message = |name, value: Value| check_json(name, &value).unwrap_err().to_string();
        assert_eq!(message("top_k", json!("4")), "option \"top_k\" must be of type integer");
        assert_eq!(message("top_k", json!(4.5)), "option \"top_k\" must be of type integer");
        assert_eq!(message("top_p", json!(true)), "option \"top_p\" must be of type float32");
        assert_eq!(message("use_mmap", json!(1)), "option \"use_mmap\" must be of type boolean");
        assert_eq!(message("stop", json!([1])), "option \"stop\" must be of type array of strings");
        assert_eq!(message("nonsense", json!(1)), "unknown parameter `nonsense`");
        assert_eq!(check_json("top_k", &json!(4.0)), Ok(json!(4)));
        assert_eq!(check_json("temperature", &json!(1)), Ok(json!(1)));
    }
}
