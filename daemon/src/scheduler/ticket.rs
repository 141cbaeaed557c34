//! A place in the queue.

use tokio::sync::{oneshot, watch};

use super::{Lease, Place, SchedulerError};

/// A place in the queue. Dropping it gives the place up.
#[derive(Debug)]
pub struct Ticket {
    pub(super) answer: oneshot::Receiver<Result<Lease, SchedulerError>>,
    pub(super) place: watch::Receiver<Place>,
}

impl Ticket {
    /// Where the request stands now.
    pub fn place(&self) -> Place {
        *self.place.borrow()
    }

    /// Hears of every change of the place, also while [`Ticket::lease`] is awaited.
    pub fn places(&self) -> watch::Receiver<Place> {
        self.place.clone()
    }

    /// Waits for the model.
    pub async fn lease(self) -> Result<Lease, SchedulerError> {
        self.answer.await.unwrap_or(Err(SchedulerError::ShuttingDown))
    }
}
