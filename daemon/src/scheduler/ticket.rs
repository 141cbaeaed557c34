//! A place in the queue.

use tokio::sync::{mpsc, oneshot, watch};

use super::{Lease, Place, SchedulerError, actor::Ask};

/// A place in the queue. Dropping it gives the place up.
#[derive(Debug)]
pub struct Ticket {
    pub(super) answer: oneshot::Receiver<Result<Lease, SchedulerError>>,
    pub(super) place: watch::Receiver<Place>,
    pub(super) asks: mpsc::UnboundedSender<Ask>,
    /// The answer came: there is no place to give up.
    pub(super) answered: bool,
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
    pub async fn lease(mut self) -> Result<Lease, SchedulerError> {
        let answer = (&mut self.answer).await;
        self.answered = true;
        answer.unwrap_or(Err(SchedulerError::ShuttingDown))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.answer.close();
            let _ = self.asks.send(Ask::GaveUp);
        }
    }
}
