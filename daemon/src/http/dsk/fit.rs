//! `POST /api/dsk/fit`: what this machine, or another, can run.

use std::sync::Arc;

use axum::extract::{Request, State};
use dsk_daemon_api::fit::{FitRequest, FitResponse};
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_daemon_engine::KvFormat;
use dsk_modelfiles::library;
use serde_json::Value;

use crate::fit::Ask;
use crate::hardware::Machine;
use crate::http::reply::{self, Native};
use crate::http::{Http, body, failure, parse_name};
use crate::index::Seen;
use crate::variants::{self, Table};

/// The longest context that is planned for; no model was made for as much.
const CONTEXT_MAX: u32 = 1 << 24;

/// `POST /api/dsk/fit`
pub(crate) async fn fit(State(http): State<Arc<Http>>, request: Request) -> Native {
    let request: FitRequest = body::json(request, body::SMALL_BYTES_MAX).await?;
    Ok(reply::json(&answer(&http, request).await?))
}

async fn answer(http: &Http, request: FitRequest) -> Result<FitResponse, ApiError> {
    let ask = ask(&request)?;
    // What ran here says nothing of another machine.
    let (machine, seen) = match request.machine {
        Some(machine) => (Arc::new(machine_of(machine)?), Seen::default()),
        None => {
            let machine = http.service.machine.machine().await;
            let seen = http.service.index.seen(machine.cpu.threads).await;
            (machine, seen.map_err(|error| failure::of_index(&error))?)
        }
    };
    let table = Table {
        store: &http.service.store,
        registry: &http.service.registry,
        insecure: request.insecure,
        ask: Ask { calibration: seen.calibration, ..ask },
        seen,
        machine,
    };
    let model = request.model.trim();
    let response = match (model, library::find(model).filter(|_| !model.contains(':'))) {
        ("", _) => table.everything().await,
        (_, Some(family)) => table.family(family).await,
        (model, None) => table.model(&parse_name(model)?).await,
    };
    let response = response.map_err(|error| failure::of_variant(&error))?;
    if response.rows.is_empty() && table.ask.quant.is_some() {
        let quant = table.ask.quant.as_deref().unwrap_or_default();
        let message = format!("no variant of '{model}' that is known of is {quant}");
        return Err(ApiError::new(ErrorCode::ManifestNotFound, message));
    }
    Ok(response)
}

fn ask(request: &FitRequest) -> Result<Ask, ApiError> {
    let invalid = |message: String| Err(ApiError::new(ErrorCode::InvalidRequest, message));
    if let Some(context) = request.context.filter(|context| !(1..=CONTEXT_MAX).contains(context)) {
        return invalid(format!("`context` is {context}, not one of 1 to {CONTEXT_MAX}"));
    }
    let kv = match request.kv.as_deref() {
        None => None,
        Some("f32") => Some(KvFormat::F32),
        Some("f16") => Some(KvFormat::F16),
        Some("q8_0") => Some(KvFormat::Q8_0),
        Some(other) => return invalid(format!("`kv` is \"{other}\", not one of f16, q8_0, f32")),
    };
    let quant = request.quant.as_deref().map(variants::canonical);
    Ok(Ask { context: request.context, kv, quant, ..Ask::default() })
}

/// The machine that a request describes.
pub(crate) fn machine_of(value: Value) -> Result<Machine, ApiError> {
    variants::machine_from(&value.to_string())
        .map_err(|error| ApiError::new(ErrorCode::InvalidRequest, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::Daemon;
    use dsk_daemon_api::fit::FitVerdict;
    use serde_json::json;

    fn machine(bytes: u64) -> Value {
        json!({"cpu": {"name": "", "threads": 8}, "memory": {"total": bytes, "available": bytes}})
    }

    async fn rows(daemon: &Daemon, body: Value) -> FitResponse {
        let (status, text) = daemon.send("POST", "/api/dsk/fit", &body.to_string()).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    #[tokio::test]
    async fn a_family_a_size_a_variant_and_everything() {
        let daemon = Daemon::with_model().await;
        let machine = machine(16_000_000_000);
        let all = rows(&daemon, json!({"model": "deepseek-r1", "machine": machine})).await;
        let models: std::collections::BTreeSet<_> = all.rows.iter().map(|row| &row.model).collect();
        assert_eq!((models.len(), all.rows.len(), all.one_model), (7, 32, false));
        let size = json!({"model": "deepseek-r1:7b", "machine": machine});
        let size = rows(&daemon, size).await;
        assert!(size.one_model && size.rows.iter().filter(|row| row.chosen).count() == 1);
        let one = json!({"model": "deepseek-r1:7b", "machine": machine, "quant": "q6_k"});
        let one = rows(&daemon, one).await.rows;
        assert_eq!((one.len(), one[0].quant.as_str()), (1, "Q6_K"));
        let everything = rows(&daemon, json!({"machine": machine})).await.rows;
        let models: Vec<_> = everything.iter().map(|row| (row.model.as_str(), row.local)).collect();
        let library =
            [("deepseek-r1:7b", false), ("qwen2.5-coder:7b", false), ("smollm2:1.7b", false)];
        assert_eq!(models[..3], library);
        assert_eq!(models[3..], [("m:latest", true)]);
    }

    #[tokio::test]
    async fn a_local_model_by_its_own_header() {
        let daemon = Daemon::with_model().await;
        let answer = rows(&daemon, json!({"model": "m", "machine": machine(1 << 30)})).await;
        let row = &answer.rows[0];
        assert!(row.exact && row.local && row.chosen && row.verdict == FitVerdict::RamOnly);
        assert_eq!(row.devices.iter().map(|share| share.total()).sum::<u64>(), row.memory_bytes);
        assert_eq!(row.context, 512);
        let answer = rows(&daemon, json!({"model": "m", "machine": machine(1000)})).await;
        assert_eq!(answer.rows[0].verdict, FitVerdict::DoesNotFit);
        assert!(answer.rows[0].shortfall_bytes > 1_000_000 && answer.one_model);
        // This machine has room for so little.
        let here = rows(&daemon, json!({"model": "m"})).await;
        assert_ne!(here.rows[0].verdict, FitVerdict::DoesNotFit);
    }

    #[tokio::test]
    async fn a_size_that_does_not_fit_names_one_that_does() {
        let daemon = Daemon::new();
        let body = json!({"model": "deepseek-r1:70b", "machine": machine(16_000_000_000)});
        let answer = rows(&daemon, body).await;
        assert_eq!(answer.smaller.as_deref(), Some("deepseek-r1:14b"));
        assert!(answer.rows.iter().all(|row| row.verdict == FitVerdict::DoesNotFit));
    }

    #[tokio::test]
    async fn bad_requests_name_the_field() {
        let daemon = Daemon::new();
        for (body, status, text) in [
            (json!({"context": 0}), 400, "`context` is 0"),
            (json!({"context": 1 << 30}), 400, "`context` is"),
            (json!({"kv": "f8"}), 400, "`kv` is"),
            (json!({"machine": 3}), 400, "the machine cannot be read"),
            (json!({"machine": machine(0)}), 400, "`memory.total` is 0"),
            (json!({"model": "a/b/c/d"}), 400, "invalid model name"),
            (json!({"model": "deepseek-r1:7b", "quant": "Q9"}), 404, "is Q9"),
            (json!({"model": "absent:7b"}), 502, "cannot reach"),
        ] {
            let answer = daemon.send("POST", "/api/dsk/fit", &body.to_string()).await;
            assert!(answer.0 == status && answer.1.contains(text), "{body}: {answer:?}");
        }
    }
}
