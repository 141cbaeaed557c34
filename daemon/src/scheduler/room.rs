//! Whether a model fits beside the resident ones, and who must leave if not. Pure.

use tokio::time::Instant;

/// A resident model, as far as room is concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Occupant {
    pub(super) bytes: u64,
    pub(super) state: Occupancy,
    pub(super) last_used: Instant,
}

/// What an occupant is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occupancy {
    /// Its bytes may not be allocated yet.
    Loading,
    Idle,
    Busy,
    /// Its bytes come back when its process is gone.
    Leaving,
}

/// What must happen before a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Nothing.
    Fits,
    /// This occupant leaves: the idle one that was used longest ago.
    Evict(usize),
    /// Somebody finishes; the one used longest ago would be first to go.
    Wait { first: Option<usize> },
    /// It does not fit even alone; this many bytes are all there are.
    Never { available: u64 },
}

/// Decides for a load of `needed` bytes with `available` bytes free right now.
pub(super) fn room(
    occupants: &[Occupant],
    max_loaded: Option<usize>,
    needed: u64,
    available: u64,
) -> Room {
    let bytes_of = |state| {
        let of_state = occupants.iter().filter(|one| one.state == state);
        of_state.map(|one| one.bytes).fold(0, u64::saturating_add)
    };
    let free = available.saturating_sub(bytes_of(Occupancy::Loading));
    let everything = [Occupancy::Idle, Occupancy::Busy, Occupancy::Leaving]
        .into_iter()
        .fold(available, |sum, state| sum.saturating_add(bytes_of(state)));
    if needed > everything {
        return Room::Never { available: everything };
    }
    if needed <= free && max_loaded.is_none_or(|limit| occupants.len() < limit) {
        return Room::Fits;
    }
    if occupants.iter().any(|one| one.state == Occupancy::Leaving) {
        return Room::Wait { first: None };
    }
    let oldest = |state| {
        let indices = 0..occupants.len();
        indices
            .filter(|index| occupants[*index].state == state)
            .min_by_key(|index| occupants[*index].last_used)
    };
    match oldest(Occupancy::Idle) {
        Some(index) => Room::Evict(index),
        None => Room::Wait { first: oldest(Occupancy::Busy) },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_idle_model_used_longest_ago_leaves_first_and_only_when_that_can_help() {
        use Occupancy::{Busy, Idle, Leaving, Loading};
        let start = Instant::now();
        type Case = (&'static [Occupancy], Option<usize>, u64, u64, Room);
        let cases: &[Case] = &[
            (&[], None, 2, 4, Room::Fits),
            (&[], None, 5, 4, Room::Never { available: 4 * GIB }),
            (&[Idle, Idle], None, 2, 4, Room::Fits),
            (&[Idle, Idle], Some(2), 2, 4, Room::Evict(0)),
            (&[Busy, Idle], Some(2), 2, 4, Room::Evict(1)),
            (&[Busy, Busy], Some(2), 2, 4, Room::Wait { first: Some(0) }),
            (&[Idle, Leaving], Some(2), 2, 4, Room::Wait { first: None }),
            (&[Idle, Busy], None, 4, 3, Room::Evict(0)),
            // Two models of 1 GiB each beside 3 GiB free: never 6.
            (&[Idle, Busy], None, 6, 3, Room::Never { available: 5 * GIB }),
            // What loads has not taken its memory yet.
            (&[Loading], None, 4, 4, Room::Wait { first: None }),
            (&[Loading], None, 3, 4, Room::Fits),
        ];
        for (states, max_loaded, needed, available, expected) in cases {
            let occupants: Vec<_> = states
                .iter()
                .enumerate()
                .map(|(index, state)| Occupant {
                    bytes: GIB,
                    state: *state,
                    last_used: start + Duration::from_secs(index as u64),
                })
                .collect();
            let decided = room(&occupants, *max_loaded, needed * GIB, available * GIB);
            assert_eq!(decided, *expected, "{states:?} {max_loaded:?} {needed} {available}");
        }
    }
}
