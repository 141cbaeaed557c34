//! What was measured: how long loads and requests take, and what a process has touched.

use std::{collections::HashMap, time::Duration};

use dsk_registry::Digest;

/// Load times remembered.
const MODELS_MAX: usize = 1024;
/// Bytes loaded in a second, before any load was measured: a modest SSD.
const LOAD_RATE: f64 = 500e6;
/// How long a request runs, before any was measured, in seconds.
const REQUEST: f64 = 5.0;
/// What a new measurement counts against the mean so far.
const NEW_WEIGHT: f64 = 0.25;
/// A load takes at least this long: a process starts.
const LOAD_MIN: Duration = Duration::from_millis(50);

/// Running means, for estimates of how long a request will wait.
#[derive(Debug)]
pub(super) struct Means {
    loads: HashMap<Digest, Duration>,
    /// Bytes a second.
    rate: f64,
    /// Seconds.
    request: f64,
}

impl Default for Means {
    fn default() -> Means {
        Means { loads: HashMap::new(), rate: LOAD_RATE, request: REQUEST }
    }
}

impl Means {
    pub(super) fn loaded(&mut self, model: Digest, bytes: u64, took: Duration) {
        if self.loads.len() >= MODELS_MAX {
            self.loads.clear();
        }
        self.loads.insert(model, took);
        let rate = bytes as f64 / took.max(LOAD_MIN).as_secs_f64();
        self.rate += NEW_WEIGHT * (rate - self.rate);
    }

    pub(super) fn served(&mut self, held: Duration) {
        self.request += NEW_WEIGHT * (held.as_secs_f64() - self.request);
    }

    /// How long this model will take to load: as long as last time, else by its size.
    pub(super) fn load(&self, model: Digest, bytes: u64) -> Duration {
        let by_size = || Duration::from_secs_f64((bytes as f64 / self.rate.max(1e6)).min(3600.0));
        self.loads.get(&model).copied().unwrap_or_else(by_size).max(LOAD_MIN)
    }

    /// How long a request holds its model.
    pub(super) fn request(&self) -> Duration {
        Duration::from_secs_f64(self.request.clamp(0.0, 3600.0))
    }
}

/// The bytes of its own that a process has touched; pages of files are the system's to take back.
pub(crate) fn touched_bytes(pid: u32) -> Option<u64> {
    own_bytes(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn own_bytes(status: &str) -> Option<u64> {
    let kibibytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (anonymous, shared) = (kibibytes("RssAnon:")?, kibibytes("RssShmem:").unwrap_or(0));
    Some(anonymous.saturating_add(shared).saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_judged_by_the_last_time_and_new_models_by_their_size() {
        let mut means = Means::default();
        let (known, new) = (Digest::of(b"known"), Digest::of(b"new"));
        assert_eq!(means.load(new, 1_000_000_000), Duration::from_secs(2));
        for _ in 0..30 {
            means.loaded(known, 2_000_000_000, Duration::from_secs(1));
        }
        assert_eq!(means.load(known, 1), Duration::from_secs(1));
        assert_eq!(means.load(new, 4_000_000_000).as_secs_f64().round(), 2.0);
        assert_eq!(means.load(new, 0), LOAD_MIN);
        assert_eq!(means.load(new, u64::MAX).as_secs(), 3600);
    }

    #[test]
    fn requests_move_their_mean() {
        let mut means = Means::default();
        (0..30).for_each(|_| means.served(Duration::from_secs(60)));
        assert_eq!(means.request().as_secs_f64().round(), 60.0);
    }

    #[test]
    fn a_process_has_its_own_pages_and_shared_memory() {
        let status = "VmRSS:\t 900 kB\nRssAnon:\t 100 kB\nRssFile:\t 700 kB\nRssShmem:\t 28 kB\n";
        assert_eq!(own_bytes(status), Some(128 << 10));
        assert_eq!(own_bytes("RssAnon:\t 1 kB\n"), Some(1024));
        assert_eq!(own_bytes("Name:\tx\n"), None);
        assert!(touched_bytes(std::process::id()).is_none_or(|bytes| bytes > 0));
    }
}
