//! Options: the defaults, beneath the model's own parameters, beneath the request's.

use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_daemon_engine::Options;
use dsk_modelfiles::parameters;
use serde_json::{Map, Value};

use crate::KeepAlive;

/// What the layers of options come to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Merged {
    /// For the sampler.
    pub(crate) options: Options,
    /// `num_ctx`, which is decided when the model is loaded.
    pub(crate) context_length: Option<u32>,
}

/// Lays the model's parameters and then the request's options over `defaults`.
///
/// A model that comes with a parameter nobody understands still runs; a request with a wrong type
/// or value is refused. Names nobody knows are logged and ignored, as clients of other servers
/// send theirs.
pub(crate) fn merge(
    defaults: Options,
    model: &Map<String, Value>,
    request: &Map<String, Value>,
) -> Result<Merged, ApiError> {
    let mut merged = Merged { options: defaults, context_length: None };
    for (name, value) in model {
        if let Err(error) = merged.set(name, value) {
            tracing::warn!(parameter = name, %error, "a parameter of the model is ignored");
        }
    }
    for (name, value) in request {
        merged.set(name, value)?;
    }
    merged.options.check().map_err(invalid)?;
    Ok(merged)
}

impl Merged {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), ApiError> {
        // Go's reader takes null for "not given".
        if value.is_null() {
            return Ok(());
        }
        if parameters::find(name).is_none() {
            tracing::debug!(option = name, "an option nobody knows is ignored");
            return Ok(());
        }
        let value = parameters::check_json(name, value).map_err(invalid)?;
        self.set_checked(name, &value)
    }

    /// Sets an option whose value has its type. Those of the loader that dsk decides itself
    /// (`num_gpu`, `num_thread`, ...) and the deprecated ones change nothing.
    fn set_checked(&mut self, name: &str, value: &Value) -> Result<(), ApiError> {
        let options = &mut self.options;
        match name {
            "temperature" => options.temperature = float(value),
            "top_p" => options.top_p = float(value),
            "min_p" => options.min_p = float(value),
            "typical_p" => options.typical_p = float(value),
            "repeat_penalty" => options.repeat_penalty = float(value),
            "presence_penalty" => options.presence_penalty = float(value),
            "frequency_penalty" => options.frequency_penalty = float(value),
            "top_k" => options.top_k = integer(name, value)?.max(0).try_into().unwrap_or(u32::MAX),
            "repeat_last_n" => options.repeat_last_n = within_i32(name, value)?,
            "num_predict" => options.num_predict = integer(name, value)?,
            // A negative seed means: another each time.
            "seed" => options.seed = integer(name, value)?.try_into().ok(),
            "stop" => options.stop = texts(value),
            "num_ctx" => self.context_length = context_length(integer(name, value)?)?,
            _ => tracing::debug!(option = name, "this option has no effect in dsk"),
        }
        Ok(())
    }
}

fn float(value: &Value) -> f32 {
    // An f64 beyond f32 becomes infinite, which Options::check refuses.
    value.as_f64().map_or(f32::NAN, |number| number as f32)
}

fn integer(name: &str, value: &Value) -> Result<i64, ApiError> {
    value.as_i64().ok_or_else(|| invalid(format!("option \"{name}\" must be of type integer")))
}

fn within_i32(name: &str, value: &Value) -> Result<i32, ApiError> {
    let number = integer(name, value)?;
    number.try_into().map_err(|_| invalid(format!("option \"{name}\" is out of range: {number}")))
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts = texts.iter().filter_map(Value::as_str);
    texts.filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

/// 0 leaves the context to the planner.
fn context_length(tokens: i64) -> Result<Option<u32>, ApiError> {
    match u32::try_from(tokens) {
        Ok(0) => Ok(None),
        Ok(tokens) => Ok(Some(tokens)),
        Err(_) => Err(invalid(format!("option \"num_ctx\" is out of range: {tokens}"))),
    }
}

/// The `keep_alive` of a request.
pub(crate) fn keep_alive(value: Option<&Value>) -> Result<Option<KeepAlive>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let parsed = match value {
        Value::String(text) if text.is_empty() => return Ok(None),
        other => serde_json::from_value(other.clone()),
    };
    parsed.map(Some).map_err(|error| invalid(format!("keep_alive: {error}")))
}

fn invalid(reason: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, reason.to_string())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    fn refused(request: Value, expected: Expect) {
        let error = merge(Options::default(), &Map::new(), &map(request)).unwrap_err();
        assert_eq!(error.code.status(), 400);
        expected.assert_eq(&error.message);
    }

    #[test]
    fn the_request_lies_over_the_model_which_lies_over_the_defaults() {
        let model = map(json!({"temperature": 0.6, "top_p": 0.95, "stop": ["a"], "num_ctx": 4096}));
        let request = map(json!({"temperature": 0, "stop": ["b", ""], "seed": 7, "top_k": null}));
        let merged = merge(Options::default(), &model, &request).unwrap();
        let wanted = Options {
            temperature: 0.0,
            top_p: 0.95,
            stop: vec!["b".to_owned()],
            seed: Some(7),
            ..Options::default()
        };
        assert_eq!(merged, Merged { options: wanted, context_length: Some(4096) });
    }

    #[test]
    fn wrong_types_and_values_are_refused_by_name() {
        refused(
            json!({"temperature": "hot"}),
            expect![[r#"option "temperature" must be of type float32"#]],
        );
        refused(json!({"top_k": 1.5}), expect![[r#"option "top_k" must be of type integer"#]]);
        refused(json!({"use_mmap": 1}), expect![[r#"option "use_mmap" must be of type boolean"#]]);
        refused(
            json!({"stop": [1]}),
            expect![[r#"option "stop" must be of type array of strings"#]],
        );
        refused(json!({"top_p": 2}), expect![[r#"option "top_p" must be between 0 and 1, got 2"#]]);
        refused(json!({"num_ctx": -1}), expect![[r#"option "num_ctx" is out of range: -1"#]]);
        refused(
            json!({"repeat_last_n": 1e10 as i64}),
            expect![[r#"option "repeat_last_n" is out of range: 10000000000"#]],
        );
    }

    #[test]
    fn a_model_with_odd_parameters_still_runs() {
        let model = map(json!({"temperature": "hot", "new": 1, "top_k": 5}));
        let merged = merge(Options::default(), &model, &Map::new()).unwrap();
        assert_eq!(merged.options, Options { top_k: 5, ..Options::default() });
    }

    #[test]
    fn negative_seeds_and_zero_contexts_mean_whatever_you_like() {
        let request = map(json!({"seed": -1, "num_ctx": 0, "unknown": {}}));
        let merged = merge(Options::default(), &Map::new(), &request).unwrap();
        assert_eq!((merged.options.seed, merged.context_length), (None, None));
    }

    #[test]
    fn keep_alive_is_seconds_or_a_duration() {
        for value in [json!(300), json!("5m")] {
            assert_eq!(keep_alive(Some(&value)).unwrap(), Some(KeepAlive::DEFAULT), "{value}");
        }
        assert_eq!(keep_alive(Some(&json!(-1))).unwrap(), Some(KeepAlive::Forever));
        assert_eq!(keep_alive(None).unwrap(), None);
        assert!(keep_alive(Some(&json!("soon"))).unwrap_err().message.contains("\"soon\""));
    }
}
