//! Who stays: pins, limits of keep_alive, turns, yields, pressure from others.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_pinned_model_stays_until_it_is_unpinned_or_unloaded() {
    let world = world(2, |settings| settings.pinned = vec![name("a")]);
    world.touch("a", keep(KeepAlive::For(Duration::ZERO))).await;
    sleep(Duration::from_secs(10_000)).await;
    assert_eq!(world.names().await, "a:Ready:0");
    let resident = world.scheduler.resident().await;
    assert!(resident[0].pinned && resident[0].expires_at.is_none());
    // The others take turns beside it.
    world.touch("b", Wants::default()).await;
    world.touch("c", Wants::default()).await;
    assert_eq!(world.names().await, "a:Ready:0 c:Ready:0");
    assert!(world.scheduler.unpin(&name("a")).await);
    assert!(!world.scheduler.unpin(&name("a")).await);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.names().await, "c:Ready:0");

    assert!(world.scheduler.pin(&name("c")).await);
    let unloaded = world.scheduler.unload(&name("c")).await;
    assert_eq!(unloaded, Unloaded { was_resident: true, was_pinned: true });
    assert_eq!(world.names().await, "");
}

#[tokio::test(start_paused = true)]
async fn what_pinned_models_leave_no_room_for_is_refused_at_once() {
    let world = world(1, |settings| settings.pinned = vec![name("a")]);
    world.touch("a", Wants::default()).await;
    assert_eq!(
        error(world.acquire("b", Wants::default()).await),
        "model b:latest needs about 1.0 GiB of memory and 0.0 GiB can be had beside the pinned \
         models (1.0 GiB): choose a smaller model, quantization or num_ctx"
    );
    assert_eq!(world.names().await, "a:Ready:0");
}

#[tokio::test(start_paused = true)]
async fn the_server_bounds_the_keep_alive_of_requests() {
    let seconds = |seconds| KeepAlive::For(Duration::from_secs(seconds));
    for (asked, stays) in [(seconds(0), 10), (seconds(20), 20), (KeepAlive::Forever, 60)] {
        let world = world(4, |settings| {
            settings.keep_alive.min = seconds(10);
            settings.keep_alive.max = seconds(60);
        });
        world.touch("a", keep(asked)).await;
        sleep(Duration::from_secs(stays - 1)).await;
        assert_eq!(world.names().await, "a:Ready:0", "{asked:?}");
        sleep(Duration::from_secs(2)).await;
        assert_eq!(world.names().await, "", "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn models_that_take_turns_serve_longer_than_they_load() {
    let world = Arc::new(world(1, |_| {}));
    let served = Arc::new(AtomicU64::new(0));
    // A client of each asks again and again.
    for model in ["a", "b"] {
        let (world, served) = (Arc::clone(&world), Arc::clone(&served));
        tokio::spawn(async move {
            while let Ok(lease) = world.acquire(model, Wants::default()).await {
                sleep(Duration::from_millis(500)).await;
                drop(lease);
                served.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    sleep(Duration::from_secs(1000)).await;
    let loads = world.log().matches("load").count();
    // A load takes 20 s and the residency is 30 s: 20 turns, each of some 60 requests.
    assert!((18..=20).contains(&loads), "{loads} loads");
    assert!(served.load(Ordering::SeqCst) > 1000, "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn one_client_that_uses_two_models_in_turn_waits_only_for_the_loads() {
    let world = world(1, |_| {});
    let started = Instant::now();
    for model in ["a", "b", "a", "b"] {
        world.touch(model, Wants::default()).await;
    }
    assert!(started.elapsed() < LOAD * 4 + slot::QUIET * 4, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_larger_context_wins_and_stays() {
    let world = world(2, |_| {});
    for tokens in [1000, 6000, 1000, 6000] {
        world.touch("a", context(tokens)).await;
    }
    // It leaves, and comes back as large for the smaller request.
    world.scheduler.unload(&name("a")).await;
    for tokens in [1000, 6000] {
        world.touch("a", context(tokens)).await;
    }
    assert_eq!(world.log(), "a load 1000, a gone, a load 6000, a gone, a load 6000");
}

#[tokio::test(start_paused = true)]
async fn a_large_model_is_not_overtaken_for_ever_by_small_ones() {
    let world = Arc::new(world(2, |_| {}));
    world.touch("x", Wants::default()).await;
    let busy = world.acquire("x", Wants::default()).await.unwrap();
    let mut large = spec("large");
    large.model_bytes = 2 * BYTES;
    let scheduler = world.scheduler.clone();
    let large = tokio::spawn(async move { scheduler.acquire(&large, &Wants::default()).await });
    sleep(Duration::from_secs(1)).await;
    // There is room for a small one, but the large one waits for it.
    let small = world.spawn("small", Wants::default());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.names().await, "x:Ready:1");
    let status = world.scheduler.status().await.unwrap();
    let waiting: Vec<_> =
        status.waiting.iter().map(|one| (one.name.model(), one.place.position)).collect();
    assert_eq!(waiting, [("large", 1), ("small", 2)]);
    assert!(status.waiting[1].place.expected_wait > status.waiting[0].place.expected_wait);
    drop(busy);
    drop(large.await.unwrap().unwrap());
    assert!(small.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_ticket_tells_its_place_and_a_full_queue_when_to_come_back() {
    let world = world(1, |settings| settings.max_queue = 2);
    let first = world.scheduler.queue(&spec("a"), &Wants::default());
    let second = world.scheduler.queue(&spec("b"), &Wants::default());
    let mut places = second.places();
    places.changed().await.unwrap();
    assert_eq!((first.place().position, second.place().position), (1, 2));
    let Err(busy) = world.acquire("c", Wants::default()).await else { panic!("it is full") };
    let SchedulerError::Busy { position, .. } = busy else { panic!("{busy}") };
    assert_eq!(position, 3);
    assert!(busy.retry_after().is_some_and(|seconds| (1..=300).contains(&seconds)));
    drop((first.lease().await, second.lease().await));
}

#[tokio::test(start_paused = true)]
async fn a_yield_frees_everything_and_a_resume_brings_it_back() {
    let world = world(3, |_| {});
    for model in ["a", "b"] {
        world.touch(model, keep(KeepAlive::Forever)).await;
        sleep(Duration::from_secs(1)).await;
    }
    let mut lease = world.acquire("a", Wants::default()).await.unwrap();
    let stream = lease.submit(request("30"));
    drop(lease);
    sleep(Duration::from_secs(1)).await;
    let loading = world.spawn("c", Wants::default());
    sleep(Duration::from_millis(100)).await;
    world.log();
    let yielding = {
        let scheduler = world.scheduler.clone();
        tokio::spawn(async move { scheduler.yield_now(None).await })
    };
    let refused = "model c:latest is not loaded: dsk yielded its memory; take it back: dsk yield \
                   --resume";
    assert_eq!(error(loading.await.unwrap()), refused);
    assert!(error(world.acquire("a", Wants::default()).await).contains("dsk yield --resume"));
    assert!(matches!(last(stream).await, Event::Done(_)));
    let freed = yielding.await.unwrap();
    assert_eq!(freed.models, 3);
    assert_eq!((world.names().await.as_str(), world.runners.live()), ("", 0));
    assert!(world.scheduler.status().await.unwrap().yielded);

    world.log();
    assert!(world.scheduler.resume().await);
    assert!(!world.scheduler.resume().await);
    sleep(LOAD * 4).await;
    assert_eq!(world.names().await, "a:Ready:0 b:Ready:0 c:Ready:0");
    // The one used last comes first.
    assert_eq!(world.log(), "c load 8192, a load 8192, b load 8192");
}

#[tokio::test(start_paused = true)]
async fn a_yield_cuts_off_what_runs_too_long() {
    let world = world(3, |_| {});
    let mut lease = world.acquire("a", Wants::default()).await.unwrap();
    let stream = lease.submit(request("hang"));
    let began = Instant::now();
    assert_eq!(world.scheduler.yield_now(Some(Duration::from_secs(7))).await.models, 1);
    assert_eq!(began.elapsed().as_secs(), 7);
    assert!(matches!(last(stream).await, Event::Failed(_)));
}

#[tokio::test(start_paused = true)]
async fn others_that_need_memory_get_it_and_nothing_is_loaded_meanwhile() {
    let others = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&others);
    let world = world(4, |settings| {
        let ours = std::mem::replace(&mut settings.memory, Box::new(Memory::default));
        settings.memory_reserve = Some(BYTES);
        settings.memory = Box::new(move || {
            let memory = ours();
            let others = seen.load(Ordering::SeqCst);
            Memory { available: memory.available.saturating_sub(others), ..memory }
        });
    });
    let busy = world.acquire("a", Wants::default()).await.unwrap();
    world.touch("b", Wants::default()).await;
    world.touch("c", Wants::default()).await;
    // 1 GiB is left, which is the reserve. Half a GiB less, and one must go.
    others.store(BYTES / 2, Ordering::SeqCst);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(world.names().await, "a:Ready:1 c:Ready:0");
    // Everything that can go goes, the busy one does not, and nothing new comes.
    others.store(3 * BYTES, Ordering::SeqCst);
    sleep(Duration::from_secs(12)).await;
    assert_eq!(world.names().await, "a:Ready:1");
    assert!(world.scheduler.status().await.unwrap().pressed);
    assert_eq!(
        error(world.acquire("b", Wants::default()).await),
        "model b:latest is not loaded: 0.0 GiB of memory is left, and 1.0 GiB is kept free for \
         other programs (memory_reserve); try again when they use less"
    );
    assert!(world.acquire("a", Wants::default()).await.is_ok());
    others.store(0, Ordering::SeqCst);
    assert!(world.acquire("b", Wants::default()).await.is_ok());
    drop(busy);
}

/// Who leaves when is decided by [`Instant`], which the wall clock does not move; the one place
/// that reads the wall clock tells people a time.
#[test]
fn only_what_people_read_comes_from_the_wall_clock() {
    let sources = [
        include_str!("../actor.rs"),
        include_str!("../actor/judge.rs"),
        include_str!("../actor/leaving.rs"),
        include_str!("../actor/loads.rs"),
        include_str!("../actor/pressure.rs"),
        include_str!("../actor/queue.rs"),
        include_str!("../actor/yielding.rs"),
        include_str!("../crashes.rs"),
        include_str!("../room.rs"),
        include_str!("../slot.rs"),
    ];
    let reads = sources.map(|source| source.matches("SystemTime::now").count());
    assert_eq!(reads.iter().sum::<usize>(), 1);
}
