//! A share in a resident model.

use std::{sync::Arc, time::Duration};

use dsk_daemon_engine::{Loaded, Request};
use tokio::{sync::mpsc, time::Instant};

use super::actor::Ask;
use crate::runner::{EventStream, Runner};

/// A share in a resident model: while it or one of its streams lives, the model stays.
#[derive(Debug)]
pub struct Lease {
    share: Arc<Share>,
    /// How long the request waited for the model: loading, queueing, making room.
    pub load_duration: Duration,
}

/// What the lease and its streams hold together; the scheduler hears of its end.
#[derive(Debug)]
struct Share {
    slot: u64,
    runner: Arc<Runner>,
    pid: Option<u32>,
    asks: mpsc::UnboundedSender<Ask>,
    since: Instant,
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = self.asks.send(Ask::Released { slot: self.slot, held: self.since.elapsed() });
    }
}

impl Lease {
    pub(super) fn new(
        slot: u64,
        runner: Arc<Runner>,
        pid: Option<u32>,
        asks: mpsc::UnboundedSender<Ask>,
        load_duration: Duration,
    ) -> Lease {
        let share = Share { slot, runner, pid, asks, since: Instant::now() };
        Lease { share: Arc::new(share), load_duration }
    }

    /// Sends a request. The stream ends with `Done` or `Failed`; dropping it earlier cancels the
    /// request in the runner. It keeps the model resident by itself.
    pub fn submit(&mut self, request: Request) -> EventStream {
        self.share.runner.submit(request).keep(Arc::clone(&self.share) as _)
    }

    /// The runner's process, where there is one.
    pub fn pid(&self) -> Option<u32> {
        self.share.pid
    }

    /// Facts of the loaded model.
    pub fn loaded(&self) -> &Loaded {
        self.share.runner.loaded()
    }
}
