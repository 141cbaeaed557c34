//! `GET /api/dsk/ps`: everything about what is in memory and who waits for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use dsk_daemon_api::status::{
    DeviceBytes, MemoryBudget, ResidentModel, Residents, Slots, WaitingRequest,
};
use dsk_daemon_api::{ApiError, ErrorCode};

use super::metrics::state;
use crate::hardware::Gpu;
use crate::http::Http;
use crate::http::reply::{self, Native};
use crate::metrics::Metrics;
use crate::scheduler::{Resident, Status, Waiting};

/// Requests that a runner answers at once; the daemon asks its engine for no more.
const SEQUENCES: u64 = 1;
/// The device whose bytes every model holds in this version.
const CPU: &str = "cpu";

/// The handler.
pub(crate) async fn ps(State(http): State<Arc<Http>>) -> Native {
    let status = http.service.scheduler.status().await;
    let status = status
        .ok_or_else(|| ApiError::new(ErrorCode::Overloaded, "the daemon is shutting down"))?;
    let machine = http.service.machine.machine().await;
    Ok(reply::json(&residents(&status, &http.service.metrics, &machine.gpus)))
}

fn residents(status: &Status, metrics: &Metrics, gpus: &[Gpu]) -> Residents {
    Residents {
        models: status.residents.iter().map(|one| resident(one, metrics)).collect(),
        waiting: status.waiting.iter().map(waiting).collect(),
        pinned: status.pinned.iter().map(ToString::to_string).collect(),
        yielded: status.yielded,
        pressed: status.pressed,
        memory: MemoryBudget {
            total_bytes: status.memory.total,
            available_bytes: status.memory.available,
            promised_bytes: status.reserved_bytes,
            reserve_bytes: status.reserve_bytes,
        },
        notes: gpu_note(gpus).into_iter().chain(confinement_notes(&status.residents)).collect(),
    }
}

fn resident(one: &Resident, metrics: &Metrics) -> ResidentModel {
    let counts = metrics.model(&one.name);
    let speed = counts.speed();
    let loaded = one.loaded.as_ref();
    let count = |count: i64| u64::try_from(count).unwrap_or_default();
    let leased = one.in_use as u64;
    ResidentModel {
        name: one.name.to_string(),
        digest: one.digest.hex(),
        state: state(one.state).to_owned(),
        load_progress: one.load_progress,
        load_seconds: one.load_time.as_secs_f64(),
        pinned: one.pinned,
        keep_alive_seconds: one.expires_at.map(|at| until(at).as_secs_f64()),
        idle_seconds: one.idle.as_secs_f64(),
        context_length: one.context_length.into(),
        context_length_max: loaded.map_or(0, |loaded| loaded.model_context_length.into()),
        devices: vec![device(one)],
        measured_bytes: one.measured_bytes,
        executor: loaded.map(|loaded| loaded.executor.clone()).unwrap_or_default(),
        confinement: one.confinement.as_ref().map(ToString::to_string),
        slots: Slots { in_use: leased.min(SEQUENCES), total: SEQUENCES },
        // In the scheduler, and for a turn in the runner.
        waiting: one.waiting as u64 + leased.saturating_sub(SEQUENCES),
        kv_tokens_used: count(counts.kv_tokens.get()),
        kv_tokens_limit: u64::from(one.context_length) * SEQUENCES,
        prompt_tokens_per_second: speed.prompt,
        output_tokens_per_second: speed.output,
        prompt_tokens: counts.prompt_tokens.get(),
        output_tokens: counts.generated_tokens.get(),
    }
}

/// What a model holds; while it loads the kinds are not known.
pub(super) fn device(one: &Resident) -> DeviceBytes {
    let device = CPU.to_owned();
    match &one.loaded {
        Some(loaded) => DeviceBytes {
            device,
            weights_bytes: loaded.bytes.weights,
            kv_bytes: loaded.bytes.kv,
            other_bytes: loaded.bytes.other.saturating_add(loaded.bytes.runtime),
        },
        None => DeviceBytes { device, other_bytes: one.size_bytes, ..DeviceBytes::default() },
    }
}

fn until(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::now()).unwrap_or_default()
}

fn waiting(one: &Waiting) -> WaitingRequest {
    WaitingRequest {
        model: one.name.to_string(),
        position: one.place.position as u64,
        waited_seconds: one.waited.as_secs_f64(),
        expected_seconds: one.place.expected_wait.as_secs_f64(),
    }
}

fn gpu_note(gpus: &[Gpu]) -> Option<String> {
    let names: Vec<&str> = gpus.iter().map(|gpu| gpu.name.as_str()).collect();
    let names = names.join(", ");
    let note = || format!("runs on the CPU: this version has no GPU executor (present: {names})");
    (!gpus.is_empty()).then(note)
}

/// Of the processes that are not confined as they should be.
fn confinement_notes(residents: &[Resident]) -> impl Iterator<Item = String> {
    residents.iter().filter_map(|one| {
        let confinement = one.confinement.as_ref().filter(|confinement| !confinement.is_full())?;
        Some(format!("the process of {} is {confinement}", one.name))
    })
}
