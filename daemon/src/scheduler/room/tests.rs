use expect_test::expect;
use proptest::prelude::*;

use super::*;

/// `I3` is an idle model of 3 bytes, `H` is held, `L` loads, `D` departs; a `!` pins it, and `3/1`
/// has touched 1 of its 3 bytes. The regret falls from left to right.
fn occupants(text: &str) -> Vec<Occupant> {
    let parse = |(at, word): (usize, &str)| {
        let standing = match &word[..1] {
            "I" => Standing::Idle,
            "H" => Standing::Held,
            "L" => Standing::Loading,
            _ => Standing::Leaving,
        };
        let digits = word[1..].trim_end_matches('!');
        let (promised, measured) = digits.split_once('/').unwrap_or((digits, digits));
        Occupant {
            promised: promised.parse().unwrap(),
            measured: measured.parse().unwrap(),
            standing,
            pinned: word.ends_with('!'),
            regret: 100.0 - at as f64,
        }
    };
    text.split_whitespace().enumerate().map(parse).collect()
}

#[test]
fn who_leaves_for_whom() {
    let mut shown = String::new();
    for (about, free, limit, resident, needs) in [
        ("nobody is there", 4, None, "", &[4][..]),
        ("more than there is", 4, None, "", &[5]),
        ("more than there is even with all gone", 4, None, "I2 H3 L4/0", &[14]),
        ("beside idle models", 4, None, "I2 I2", &[4]),
        ("one idle model is enough: the cheapest", 4, None, "I2 I2", &[5]),
        ("the cheapest is not enough", 4, None, "I9 I2", &[8]),
        ("both together", 4, None, "I2 I2", &[8]),
        ("two cheap ones are dearer than the one that is enough", 0, None, "I4 I2 I2", &[4]),
        ("an idle one goes before a held one", 0, None, "I4 H4", &[4]),
        ("a held one must go too", 0, None, "I4 H4", &[6]),
        ("a loading one must go too", 4, None, "L4/0", &[3]),
        ("what leaves already is enough", 0, None, "D4 I4", &[4]),
        ("what leaves already is not enough", 0, None, "D4 I4", &[5]),
        ("the limit of models", 9, Some(2), "I1 I1", &[1]),
        ("the limit, all held", 9, Some(2), "H1 H1", &[1]),
        ("a promise not yet touched is not free", 4, None, "H4/1", &[2]),
        ("it comes back with its model", 4, None, "I4/1", &[5]),
        ("pinned models stay", 0, None, "I4! I4", &[4]),
        ("pinned models stay, whatever is needed", 1, None, "I4! I4", &[6]),
        ("every place is pinned", 9, Some(1), "I1!", &[1]),
        ("two want the same room", 0, None, "I4 I4", &[4, 4]),
        ("the third waits for the first two", 0, None, "I4 I4", &[4, 4, 4]),
        ("the second may not take what the first waits for", 2, None, "H4", &[6, 2]),
        ("the second takes what the first leaves over", 3, None, "H4", &[6, 1]),
        ("two that fit", 4, None, "", &[2, 2]),
        ("two that do not fit together", 4, None, "", &[3, 2]),
        ("a place is booked too", 9, Some(2), "I1 H1", &[1, 1]),
    ] {
        let mut ledger = Ledger::new(occupants(resident), limit, free);
        let decided: Vec<_> = needs.iter().map(|needed| ledger.decide(*needed)).collect();
        shown += &format!("{about}: {decided:?}\n");
    }
    expect![[r#"
        nobody is there: [Fits]
        more than there is: [Never { available: 4, pinned: 0 }]
        more than there is even with all gone: [Never { available: 13, pinned: 0 }]
        beside idle models: [Fits]
        one idle model is enough: the cheapest: [Evict([1])]
        the cheapest is not enough: [Evict([0])]
        both together: [Evict([1, 0])]
        two cheap ones are dearer than the one that is enough: [Evict([0])]
        an idle one goes before a held one: [Evict([0])]
        a held one must go too: [Wait([1, 0])]
        a loading one must go too: [Wait([0])]
        what leaves already is enough: [Wait([])]
        what leaves already is not enough: [Evict([1])]
        the limit of models: [Evict([1])]
        the limit, all held: [Wait([1])]
        a promise not yet touched is not free: [Wait([0])]
        it comes back with its model: [Evict([0])]
        pinned models stay: [Evict([1])]
        pinned models stay, whatever is needed: [Never { available: 5, pinned: 4 }]
        every place is pinned: [AllPinned { limit: 1 }]
        two want the same room: [Evict([1]), Evict([0])]
        the third waits for the first two: [Evict([1]), Evict([0]), Wait([])]
        the second may not take what the first waits for: [Wait([0]), Wait([])]
        the second takes what the first leaves over: [Wait([0]), Fits]
        two that fit: [Fits, Fits]
        two that do not fit together: [Fits, Wait([])]
        a place is booked too: [Evict([0]), Wait([1])]
    "#]]
    .assert_eq(&shown);
}

#[test]
fn regret_is_the_load_that_may_be_needed_again() {
    let seconds = Duration::from_secs;
    let regret = |load, idle, forever| regret(seconds(load), seconds(idle), forever);
    assert_eq!(regret(10, 0, false), 10.0);
    assert_eq!(regret(10, 60, false), 5.0);
    // A large model idle for long goes before a small one used just now …
    assert!(regret(20, 300, false) < regret(5, 0, false));
    // … and before any that was to be kept for ever.
    assert!(regret(20, 0, false) < regret(5, 300, true));
}

fn any_occupant() -> impl Strategy<Value = Occupant> {
    let standing = prop_oneof![
        3 => Just(Standing::Idle),
        2 => Just(Standing::Held),
        1 => Just(Standing::Loading),
        1 => Just(Standing::Leaving),
    ];
    (0..100u64, 0..110u64, standing, 0..5u8, 0..20u8).prop_map(
        |(promised, measured, standing, pinned, regret)| Occupant {
            promised,
            measured,
            standing,
            pinned: pinned == 0,
            regret: f64::from(regret),
        },
    )
}

/// What is free when `gone` have left, by the definition.
fn free_without(occupants: &[Occupant], gone: &[usize], free: i128) -> i128 {
    let gone = |at: usize| gone.contains(&at) || occupants[at].standing == Standing::Leaving;
    let each = occupants.iter().enumerate();
    each.fold(free, |free, (at, one)| match gone(at) {
        true => free + i128::from(one.measured),
        false => free - i128::from(one.promised.saturating_sub(one.measured)),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 512 }))]

    #[test]
    fn what_is_decided_is_enough_and_touches_nobody_who_must_stay(
        occupants in prop::collection::vec(any_occupant(), 0..18),
        limit in prop::option::of(1..12usize),
        free in -50..200i128,
        needed in 0..400u64,
    ) {
        let mut ledger = Ledger::new(occupants.clone(), limit, free);
        let decided = ledger.decide(needed);
        let allowed = |count: usize| limit.is_none_or(|limit| count < limit);
        let leaving = occupants.iter().filter(|one| one.standing == Standing::Leaving).count();
        let enough = |gone: &[usize]| {
            i128::from(needed) <= free_without(&occupants, gone, free)
                && allowed(occupants.len() - leaving - gone.len())
        };
        match decided {
            Room::Fits => {
                let reserved: i128 = occupants.iter().map(|one| i128::from(one.reserved())).sum();
                prop_assert!(i128::from(needed) <= free - reserved && allowed(occupants.len()));
            }
            Room::Evict(victims) => {
                prop_assert!(enough(&victims) && !victims.is_empty());
                for at in &victims {
                    prop_assert_eq!(occupants[*at].standing, Standing::Idle);
                    prop_assert!(!occupants[*at].pinned);
                    let fewer: Vec<_> = victims.iter().copied().filter(|one| one != at).collect();
                    prop_assert!(!enough(&fewer), "{} could stay", at);
                }
            }
            Room::Wait(slots) => {
                // To wait for nothing in particular, something must be on its way.
                let loads = occupants.iter().any(|one| one.standing == Standing::Loading);
                prop_assert!(enough(&slots) || (slots.is_empty() && loads));
                prop_assert!(slots.iter().all(|at| !occupants[*at].pinned));
                let idle: Vec<_> = (0..occupants.len())
                    .filter(|at| occupants[*at].standing == Standing::Idle)
                    .filter(|at| !occupants[*at].pinned)
                    .collect();
                prop_assert!(slots.is_empty() || !enough(&idle), "the idle ones would do");
            }
            Room::Never { available, .. } => {
                let unpinned: Vec<_> =
                    (0..occupants.len()).filter(|at| !occupants[*at].pinned).collect();
                let loading = unpinned.iter().filter(|at| occupants[**at].standing == Standing::Loading);
                let unseen: i128 = loading.map(|at| i128::from(occupants[*at].reserved())).sum();
                let most = free_without(&occupants, &unpinned, free) + unseen;
                prop_assert!(i128::from(needed) > most);
                prop_assert_eq!(i128::from(available), most.max(0));
            }
            Room::AllPinned { limit } => {
                let pinned = occupants.iter().filter(|one| one.pinned).count();
                prop_assert!(pinned >= limit);
            }
        }
    }

    #[test]
    fn several_requests_never_take_more_than_there_is(
        occupants in prop::collection::vec(any_occupant(), 0..8),
        free in 0..200i128,
        needs in prop::collection::vec(0..150u64, 1..8),
    ) {
        let mut ledger = Ledger::new(occupants.clone(), None, free);
        let (mut loads, mut gone, mut taken) = (0i128, Vec::new(), 0i128);
        let now: i128 = occupants.iter().map(|one| i128::from(one.reserved())).sum();
        for needed in needs {
            match ledger.decide(needed) {
                Room::Fits => {
                    loads += i128::from(needed);
                    taken += i128::from(needed);
                    prop_assert!(loads <= free - now, "more is loaded than is free");
                }
                Room::Evict(victims) | Room::Wait(victims) if !victims.is_empty() => {
                    taken += i128::from(needed);
                    for at in victims {
                        prop_assert!(!gone.contains(&at), "{at} leaves twice");
                        gone.push(at);
                    }
                }
                _ => {}
            }
            prop_assert!(gone.is_empty() || taken <= free_without(&occupants, &gone, free));
        }
    }
}
