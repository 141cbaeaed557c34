//! dsk's own endpoints: `/api/dsk/version` and `/api/dsk/status`.

use serde::{Deserialize, Serialize};

/// The answer of `GET /api/dsk/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DskVersion {
    /// dsk's own version.
    pub version: String,
    /// The version of Ollama whose API it speaks.
    pub ollama: String,
}

/// The answer of `GET /api/dsk/status`: how the daemon is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// dsk's own version.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
    /// Since it started.
    pub uptime_seconds: u64,
    /// Where models lie.
    pub models_path: String,
    /// Memory of the machine and of the daemon.
    pub memory: Memory,
    /// How many models the store has.
    pub models: u64,
    /// How many of them are in memory.
    pub loaded: u64,
    /// How many requests hold a loaded model: answered now, or next in its queue.
    pub running: u64,
}

/// Bytes of memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The machine's RAM.
    pub total_bytes: u64,
    /// What could be had without swapping.
    pub available_bytes: u64,
    /// Resident in the daemon's own process; runners count apart.
    pub daemon_bytes: u64,
    /// Held by loaded models.
    pub loaded_bytes: u64,
}

/// One line of `GET /api/dsk/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Counts up by one; a gap is lines that were lost, or that are about other models.
    pub number: u64,
    /// When it was written, RFC 3339.
    pub time: String,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: String,
    /// Where it comes from: a module, `dsk_runner`, or a kind of event such as `dsk_request`.
    pub target: String,
    /// The model it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The message, and the event's other fields as `name=value`.
    pub text: String,
}

/// The answer of `GET /api/dsk/ps`: what is in memory, who waits, and why.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Residents {
    /// Models in memory, or on their way in or out.
    pub models: Vec<ResidentModel>,
    /// Requests that wait for a model, the next one first.
    pub waiting: Vec<WaitingRequest>,
    /// Names of pinned models, resident or not.
    pub pinned: Vec<String>,
    /// The memory was given away with `dsk yield`; nothing is loaded before `dsk yield --resume`.
    pub yielded: bool,
    /// Other programs need memory; nothing is loaded until they need less.
    pub pressed: bool,
    /// The machine's memory, as the scheduler sees it.
    pub memory: MemoryBudget,
    /// What a person should know of all models: why no GPU is used, for example.
    pub notes: Vec<String>,
}

/// Bytes of memory, as the scheduler counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryBudget {
    /// The machine's.
    pub total_bytes: u64,
    /// What could be had without swapping.
    pub available_bytes: u64,
    /// Promised to resident models and not touched by them yet.
    pub promised_bytes: u64,
    /// Left to other programs.
    pub reserve_bytes: u64,
}

/// A model in memory, or on its way in or out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResidentModel {
    /// Its shortest name, tag included.
    pub name: String,
    /// The manifest's digest, bare hex.
    pub digest: String,
    /// `loading`, `ready` or `stopping`.
    pub state: String,
    /// How much of it is read, from 0 to 1, while it loads.
    pub load_progress: Option<f32>,
    /// How long its load took; while it loads, how long it will take.
    pub load_seconds: f64,
    /// It stays until it is unpinned or stopped.
    pub pinned: bool,
    /// Seconds until it leaves if nobody uses it; `None` is never.
    pub keep_alive_seconds: Option<f64>,
    /// Seconds since its last request began or ended.
    pub idle_seconds: f64,
    /// Tokens of context that were allocated; 0 while it loads.
    pub context_length: u64,
    /// Tokens of context it was made for; 0 while it loads.
    pub context_length_max: u64,
    /// Bytes by device.
    pub devices: Vec<DeviceBytes>,
    /// The bytes its process has touched, where the system says.
    pub measured_bytes: Option<u64>,
    /// What runs the arithmetic; empty while it loads.
    pub executor: String,
    /// How its process is confined, such as `confined`; `None` while it loads.
    pub confinement: Option<String>,
    /// Requests it answers at once.
    pub slots: Slots,
    /// Requests that wait for it or for their turn in it.
    pub waiting: u64,
    /// Tokens whose keys and values its requests hold.
    pub kv_tokens_used: u64,
    /// Tokens there is room for.
    pub kv_tokens_limit: u64,
    /// Tokens a second of the last requests' prompts.
    pub prompt_tokens_per_second: Option<f64>,
    /// Tokens a second of the last requests' answers.
    pub output_tokens_per_second: Option<f64>,
    /// Tokens of all prompts that it read since the daemon started.
    pub prompt_tokens: u64,
    /// Tokens that it made since the daemon started.
    pub output_tokens: u64,
}

/// What a model holds on one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceBytes {
    /// `cpu`, or a GPU's name.
    pub device: String,
    /// Weights.
    pub weights_bytes: u64,
    /// Keys and values of all slots.
    pub kv_bytes: u64,
    /// The rest; while a model loads, the whole estimate.
    pub other_bytes: u64,
}

impl DeviceBytes {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(self.other_bytes)
    }
}

/// Requests that are answered at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slots {
    /// Whose prompt is read or answer made.
    pub in_use: u64,
    /// How many there can be.
    pub total: u64,
}

/// A request that waits for its model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitingRequest {
    /// The model.
    pub model: String,
    /// From 1, in the order of arrival.
    pub position: u64,
    /// How long it has waited.
    pub waited_seconds: f64,
    /// How long it will wait from now, an estimate.
    pub expected_seconds: f64,
}

/// The body of `POST /api/dsk/pin` and `/api/dsk/unpin`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PinRequest {
    /// The model's name.
    pub model: String,
}

/// The answer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinResponse {
    /// The model's name.
    pub model: String,
    /// Whether it is pinned now.
    pub pinned: bool,
    /// Whether that is new.
    pub changed: bool,
}

/// The body of `POST /api/dsk/yield`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct YieldRequest {
    /// Seconds after which running requests are cut off; `None` lets them end.
    pub within_seconds: Option<f64>,
}

/// The answer to it, when all models are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct YieldResponse {
    /// How many models left.
    pub models: u64,
    /// The bytes they held.
    pub bytes: u64,
}

/// The answer of `POST /api/dsk/resume`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeResponse {
    /// Whether the memory had been given away.
    pub resumed: bool,
}
