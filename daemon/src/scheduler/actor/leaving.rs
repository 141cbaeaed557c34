//! How models leave: for being idle, when told to, and at the end; and pins, which keep them.

use std::time::Duration;

use dsk_registry::Name;
use tokio::{sync::oneshot, time::Instant};

use super::{
    super::{SchedulerError, Unloaded, slot::State},
    Actor, PINNED_MAX,
};
use crate::{keep_alive::KeepAlive, metrics::Eviction};

impl Actor {
    pub(super) fn unload(&mut self, name: &Name) -> (Unloaded, oneshot::Receiver<()>) {
        let (sender, gone) = oneshot::channel();
        let mut sender = Some(sender);
        let mut unloaded = Unloaded { was_pinned: self.unpin(name), was_resident: false };
        for slot in self.slots.iter_mut().filter(|slot| slot.names.contains(name)) {
            unloaded.was_resident = true;
            slot.keep_alive = KeepAlive::For(Duration::ZERO);
            slot.retiring |= matches!(slot.state, State::Ready(_));
            if slot.is_idle() {
                slot.leave_for(Eviction::Asked);
            }
            if matches!(slot.state, State::Leaving) {
                slot.watchers.extend(sender.take());
            }
        }
        (unloaded, gone)
    }

    /// `false` when there are too many.
    pub(super) fn pin(&mut self, name: Name) -> bool {
        if self.pinned.len() >= PINNED_MAX && !self.pinned.contains(&name) {
            return false;
        }
        self.pinned.insert(name);
        self.mark_pinned();
        true
    }

    /// `false` when it was not pinned. Its keep_alive counts from now.
    pub(super) fn unpin(&mut self, name: &Name) -> bool {
        let was_pinned = self.pinned.remove(name);
        if was_pinned {
            let released = self.slots.iter_mut().filter(|slot| slot.names.contains(name));
            released.for_each(|slot| slot.last_used = Instant::now());
            self.mark_pinned();
        }
        was_pinned
    }

    /// A model is pinned while one of its names is.
    pub(super) fn mark_pinned(&mut self) {
        for slot in &mut self.slots {
            slot.pinned = slot.names.iter().any(|name| self.pinned.contains(name));
        }
    }

    pub(super) fn released(&mut self, id: u64, held: Duration) {
        self.means.served(held);
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == id) else { return };
        slot.leases = slot.leases.saturating_sub(1);
        slot.last_used = Instant::now();
        if slot.leases == 0 && slot.retiring {
            // Who asked for it left nothing to stay for; else others need its memory.
            let asked = slot.yielding || slot.keep_alive == KeepAlive::For(Duration::ZERO);
            slot.leave_for(if asked { Eviction::Asked } else { Eviction::Room });
        }
    }

    /// Lets go of what nobody uses or waits for any more.
    pub(super) fn expire(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            // A load whose keep_alive is 0 still serves those it was made for.
            let due = slot.expiry().is_some_and(|expiry| expiry <= now);
            if due && (slot.retiring || !self.awaited(slot)) {
                self.slots[index].leave_for(Eviction::Idle);
            }
        }
    }

    /// Gives up every load, and ends every model after its running requests.
    pub(super) fn retire_all(&mut self) {
        for slot in &mut self.slots {
            slot.retiring = true;
            if slot.leases == 0 {
                slot.leave_for(Eviction::Asked);
            }
        }
    }

    pub(super) fn drain(&mut self, reply: oneshot::Sender<()>) {
        for waiter in self.pending.drain(..) {
            waiter.fail(SchedulerError::ShuttingDown);
        }
        self.restoring.clear();
        self.retire_all();
        self.draining.get_or_insert_default().push(reply);
    }

    pub(super) fn finish_drain(&mut self) {
        if let (true, Some(waiting)) = (self.slots.is_empty(), &mut self.draining) {
            for reply in waiting.drain(..) {
                let _ = reply.send(());
            }
        }
    }
}
