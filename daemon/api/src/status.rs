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
