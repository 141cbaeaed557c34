//! What the service manager hears: ready, stopping, alive. Nothing when there is no manager.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::scheduler::Scheduler;

/// Requests are accepted from now on.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The daemon drains.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing running requests")]);
}

/// Tells the manager twice per interval that the daemon is alive, but only after the scheduler
/// answered: a daemon whose scheduler hangs is restarted.
pub(crate) async fn watchdog(scheduler: Scheduler) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    beat(interval, &scheduler, || tell(&[NotifyState::Watchdog])).await;
}

async fn beat(interval: Duration, scheduler: &Scheduler, alive: impl Fn()) {
    let mut ticks = tokio::time::interval(interval / 2);
    loop {
        ticks.tick().await;
        if scheduler.self_check(interval / 4).await {
            alive();
        } else {
            tracing::error!("the scheduler does not answer; the watchdog is not fed");
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager was not told");
    }
}
