//! The scheduler on paused time, with scripted runners of 1 GiB each.

use dsk_daemon_engine::{Event, FailureKind};
use dsk_registry::Digest;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    http::testing,
    runner::{
        LoadFailureKind,
        scripted::{BYTES, CONTEXT_MAX, Outcome, Scripted, request},
    },
};

const LOAD: Duration = Duration::from_secs(20);

struct World {
    scheduler: Scheduler,
    runners: Scripted,
}

/// A machine with room for `room` models.
fn world(room: u64, change: impl FnOnce(&mut Settings)) -> World {
    let runners = Scripted::new(LOAD);
    let live = runners.clone();
    let available = move || (room - live.live() as u64) * BYTES;
    let mut settings = Settings {
        keep_alive: KeepAlives {
            default: KeepAlive::DEFAULT,
            min: KeepAlive::For(Duration::ZERO),
            max: KeepAlive::Forever,
        },
        pinned: Vec::new(),
        memory_reserve: Some(0),
        touched: Box::new(|_| None),
        loaded: Box::new(|_, _, _| ()),
        max_loaded: None,
        max_queue: 16,
        context_length: None,
        memory: Box::new(move || Memory {
            total: room * BYTES,
            available: available(),
            ..Memory::default()
        }),
        footprint: Arc::new(|spec| Footprint {
            weights: spec.model_bytes,
            token: 0,
            token_q8: 0,
            context_max: CONTEXT_MAX,
        }),
    };
    change(&mut settings);
    let scheduler = Scheduler::start(settings, Arc::new(runners.clone()));
    World { scheduler, runners }
}

fn spec(name: &str) -> ModelSpec {
    let digest = Digest::of(name.as_bytes());
    ModelSpec {
        name: Name::parse(name).unwrap(),
        digest,
        model_digest: digest,
        size: BYTES,
        model_bytes: BYTES,
        ..testing::spec()
    }
}

fn keep(keep_alive: KeepAlive) -> Wants {
    Wants { keep_alive: Some(keep_alive), ..Wants::default() }
}

fn context(tokens: u32) -> Wants {
    Wants { context_length: Some(tokens), ..Wants::default() }
}

impl World {
    async fn acquire(&self, name: &str, wants: Wants) -> Result<Lease, SchedulerError> {
        self.scheduler.acquire(&spec(name), &wants).await
    }

    /// Acquires in the background.
    fn spawn(
        &self,
        name: &str,
        wants: Wants,
    ) -> tokio::task::JoinHandle<Result<Lease, SchedulerError>> {
        let (scheduler, spec) = (self.scheduler.clone(), spec(name));
        tokio::spawn(async move { scheduler.acquire(&spec, &wants).await })
    }

    /// Acquires and lets go.
    async fn touch(&self, name: &str, wants: Wants) {
        self.acquire(name, wants).await.unwrap();
    }

    async fn names(&self) -> String {
        let mut shown: Vec<_> = self
            .scheduler
            .resident()
            .await
            .iter()
            .map(|one| format!("{}:{:?}:{}", one.name.model(), one.state, one.in_use))
            .collect();
        shown.sort();
        shown.join(" ")
    }

    fn log(&self) -> String {
        self.runners.log().join(", ").replace(":latest", "")
    }
}

fn error<T>(result: Result<T, SchedulerError>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.to_string(),
    }
}

async fn last(stream: crate::runner::EventStream) -> Event {
    stream.collect::<Vec<_>>().await.pop().unwrap()
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_share_one_load() {
    let world = world(4, |_| {});
    let tasks: Vec<_> = (0..5).map(|_| world.spawn("a", Wants::default())).collect();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.names().await, "a:Loading:0");
    let mut leases = Vec::new();
    for task in tasks {
        leases.push(task.await.unwrap().unwrap());
    }
    assert_eq!(world.names().await, "a:Ready:5");
    assert_eq!(world.log(), "a load 8192");
    assert!(leases[0].load_duration >= LOAD);
    let again = world.acquire("a", Wants::default()).await.unwrap();
    assert_eq!(again.load_duration, Duration::ZERO);
    let resident = world.scheduler.resident().await;
    assert_eq!((resident[0].size_bytes, resident[0].context_length), (BYTES, 8192));
}

#[tokio::test(start_paused = true)]
async fn a_load_does_not_block_ready_models() {
    let world = world(4, |_| {});
    world.touch("a", Wants::default()).await;
    let loading = world.spawn("b", Wants::default());
    sleep(Duration::from_secs(1)).await;
    let lease = world.acquire("a", Wants::default()).await.unwrap();
    assert_eq!(lease.load_duration, Duration::ZERO);
    assert_eq!(world.names().await, "a:Ready:1 b:Loading:0");
    assert!(loading.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_load_survives_the_caller_that_left() {
    let world = world(4, |_| {});
    let caller = world.spawn("a", Wants::default());
    sleep(Duration::from_secs(1)).await;
    caller.abort();
    sleep(LOAD).await;
    assert_eq!(world.names().await, "a:Ready:0");
    let lease = world.acquire("a", Wants::default()).await.unwrap();
    assert_eq!(lease.load_duration, Duration::ZERO);
    assert_eq!(world.log(), "a load 8192");
}

#[tokio::test(start_paused = true)]
async fn idle_models_leave_by_their_keep_alive() {
    let seconds = |seconds| keep(KeepAlive::For(Duration::from_secs(seconds)));
    for (wants, stays, gone) in [
        (Wants::default(), Some(299), Some(301)),
        (seconds(60), Some(59), Some(61)),
        (seconds(0), None, Some(1)),
        (keep(KeepAlive::Forever), Some(1_000_000), None),
    ] {
        let world = world(4, |_| {});
        let lease = world.acquire("a", wants).await.unwrap();
        // It is not idle while somebody holds it.
        sleep(Duration::from_secs(1000)).await;
        assert_eq!(world.names().await, "a:Ready:1", "{wants:?}");
        drop(lease);
        let released = Instant::now();
        let at = |second| tokio::time::sleep_until(released + Duration::from_secs(second));
        if let Some(second) = stays {
            at(second).await;
            assert_eq!(world.names().await, "a:Ready:0", "{wants:?} after {second} s");
        }
        if let Some(second) = gone {
            at(second).await;
            assert_eq!(world.names().await, "", "{wants:?} after {second} s");
            assert_eq!(world.runners.live(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_latest_request_decides_the_keep_alive() {
    let world = world(4, |_| {});
    world.touch("a", keep(KeepAlive::Forever)).await;
    assert_eq!(world.scheduler.resident().await[0].expires_at, None);
    world.touch("a", keep(KeepAlive::For(Duration::from_secs(5)))).await;
    assert!(world.scheduler.resident().await[0].expires_at.is_some());
    sleep(Duration::from_secs(6)).await;
    assert_eq!(world.names().await, "");
}

#[tokio::test(start_paused = true)]
async fn the_limit_evicts_the_model_used_longest_ago() {
    let world = world(9, |settings| settings.max_loaded = Some(2));
    world.touch("a", Wants::default()).await;
    world.touch("b", Wants::default()).await;
    sleep(Duration::from_secs(1)).await;
    world.touch("a", Wants::default()).await;
    world.touch("c", Wants::default()).await;
    assert_eq!(world.names().await, "a:Ready:0 c:Ready:0");
    assert_eq!(world.log(), "a load 8192, b load 8192, b gone, c load 8192");
}

#[tokio::test(start_paused = true)]
async fn memory_evicts_and_refuses() {
    let world = world(2, |_| {});
    world.touch("a", Wants::default()).await;
    world.touch("b", Wants::default()).await;
    world.touch("c", Wants::default()).await;
    assert_eq!(world.names().await, "b:Ready:0 c:Ready:0");

    let mut huge = spec("huge");
    huge.model_bytes = 5 * BYTES;
    let refused = world.scheduler.acquire(&huge, &Wants::default()).await;
    assert_eq!(
        error(refused),
        "model huge:latest needs about 5.0 GiB of memory and 2.0 GiB can be had: choose a smaller \
         model, quantization or num_ctx"
    );
    // Nobody left for a model that would not have fitted.
    assert_eq!(world.names().await, "b:Ready:0 c:Ready:0");
}

#[tokio::test(start_paused = true)]
async fn a_model_in_constant_use_yields_in_the_end() {
    let world = Arc::new(world(1, |_| {}));
    world.touch("a", Wants::default()).await;
    // Two clients of `a` overlap for ever.
    for offset in [0, 500] {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            sleep(Duration::from_millis(offset)).await;
            while let Ok(lease) = world.acquire("a", Wants::default()).await {
                sleep(Duration::from_millis(1000)).await;
                drop(lease);
            }
        });
    }
    sleep(Duration::from_secs(1)).await;
    let lease = world.acquire("b", Wants::default()).await.unwrap();
    // It has served its time by then, which is longer than a busy model's grace.
    assert!(lease.load_duration < slot::RESIDENCY_MAX + LOAD + Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_in_ollamas_words() {
    let world = world(1, |settings| settings.max_queue = 2);
    let first = world.spawn("a", Wants::default());
    let second = world.spawn("a", Wants::default());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        error(world.acquire("a", Wants::default()).await),
        "server busy, please try again.  maximum pending requests exceeded"
    );
    drop((first.await, second.await));
    assert!(world.acquire("a", Wants::default()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn waiting_for_room_is_bounded() {
    let world = world(1, |_| {});
    let _busy = world.acquire("a", Wants::default()).await.unwrap();
    let waited = Instant::now();
    assert_eq!(
        error(world.acquire("b", Wants::default()).await),
        "model b:latest waited 300 s for running requests to end; try again"
    );
    assert_eq!(waited.elapsed().as_secs(), actor::WAIT_MAX.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_larger_context_reloads_when_idle_and_a_smaller_one_does_not() {
    let world = world(4, |_| {});
    let lease = world.acquire("a", context(4096)).await.unwrap();
    let small = world.acquire("a", context(1024)).await.unwrap();
    assert_eq!(small.loaded().context_length, 4096);
    let large = world.spawn("a", context(6000));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.names().await, "a:Stopping:2");
    drop((lease, small));
    let large = large.await.unwrap().unwrap();
    assert_eq!(large.loaded().context_length, 6000);
    drop(large);
    // More than the model was made for is clamped once, and then reused.
    for _ in 0..2 {
        let most = world.acquire("a", context(1_000_000)).await.unwrap();
        assert_eq!(most.loaded().context_length, CONTEXT_MAX);
    }
    let log = world.log();
    assert_eq!(log, "a load 4096, a gone, a load 6000, a gone, a load 8192");
}

#[tokio::test(start_paused = true)]
async fn one_load_serves_the_largest_context_asked_for() {
    let world = world(4, |_| {});
    let tasks = [100, 4000, 300].map(|tokens| world.spawn("a", context(tokens)));
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().loaded().context_length, 4000);
    }
    assert_eq!(world.log(), "a load 4000");
}

#[tokio::test(start_paused = true)]
async fn a_runners_death_is_an_error_for_its_requests_and_nothing_more() {
    let world = world(4, |_| {});
    world.touch("b", Wants::default()).await;
    let mut lease = world.acquire("a", Wants::default()).await.unwrap();
    let victim = lease.submit(request("hang"));
    drop(lease.submit(request("die")));
    let Event::Failed(failure) = last(victim).await else { panic!("it must fail") };
    assert_eq!(failure.kind, FailureKind::RunnerDied);
    assert_eq!(failure.message, "the runner of a:latest was killed by signal 9 (out of memory?)");
    drop(lease);
    assert_eq!(world.names().await, "b:Ready:0");
    let mut lease = world.acquire("a", Wants::default()).await.unwrap();
    assert!(matches!(last(lease.submit(request("1"))).await, Event::Done(_)));
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_refused_for_a_while() {
    let world = world(4, |_| {});
    world.runners.set("a:latest", Outcome::Dies);
    for _ in 0..2 {
        assert_eq!(
            error(world.acquire("a", Wants::default()).await),
            "the runner of a:latest was killed by signal 11"
        );
    }
    let _ = world.acquire("a", Wants::default()).await;
    assert_eq!(world.log().matches("load").count(), 3);
    // Three deaths took three loads: the first is just within the minute.
    assert_eq!(
        error(world.acquire("a", Wants::default()).await),
        "the runner of a:latest died 3 times within a minute (the last one was killed by signal \
         11); it is started again in 30 s"
    );
    assert_eq!(world.log(), "");
    world.runners.set("a:latest", Outcome::Loads);
    sleep(Duration::from_secs(31)).await;
    assert!(world.acquire("a", Wants::default()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn everyone_who_waited_hears_why_a_load_failed() {
    let world = world(4, |_| {});
    world.runners.set("a:latest", Outcome::Fails(LoadFailureKind::Unsupported));
    let tasks = [0, 1].map(|_| world.spawn("a", Wants::default()));
    for task in tasks {
        let error = task.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "cannot load model a:latest: as scripted");
        let SchedulerError::Load { failure, .. } = error else { panic!("{error}") };
        assert_eq!(failure.kind, LoadFailureKind::Unsupported);
    }
    assert_eq!(world.names().await, "");
    world.runners.set("a:latest", Outcome::Loads);
    assert!(world.acquire("a", Wants::default()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn unload_waits_for_the_process_of_an_idle_model_and_not_for_requests() {
    let world = world(4, |_| {});
    let name = Name::parse("a").unwrap();
    assert_eq!(world.scheduler.unload(&name).await, Unloaded::default());
    world.touch("a", Wants::default()).await;
    assert!(world.scheduler.unload(&name).await.was_resident);
    assert_eq!((world.names().await.as_str(), world.runners.live()), ("", 0));

    let mut lease = world.acquire("a", Wants::default()).await.unwrap();
    let stream = lease.submit(request("20"));
    drop(lease);
    assert!(world.scheduler.unload(&name).await.was_resident);
    assert_eq!(world.names().await, "a:Stopping:1");
    assert!(matches!(last(stream).await, Event::Done(_)));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.names().await, "");
}

#[tokio::test(start_paused = true)]
async fn a_copied_model_shares_the_runner() {
    let world = world(4, |_| {});
    world.touch("a", Wants::default()).await;
    let copy = ModelSpec { name: Name::parse("copy").unwrap(), ..spec("a") };
    let lease = world.scheduler.acquire(&copy, &Wants::default()).await.unwrap();
    assert_eq!(lease.load_duration, Duration::ZERO);
    drop(lease);
    assert!(world.scheduler.unload(&copy.name).await.was_resident);
    assert_eq!(world.names().await, "");
}

#[tokio::test(start_paused = true)]
async fn a_model_made_anew_replaces_its_idle_predecessor() {
    let world = world(4, |_| {});
    world.touch("a", keep(KeepAlive::Forever)).await;
    let newer = ModelSpec { digest: Digest::of(b"newer"), ..spec("a") };
    world.scheduler.acquire(&newer, &Wants::default()).await.unwrap();
    let resident = world.scheduler.resident().await;
    assert_eq!(resident.iter().map(|one| one.digest).collect::<Vec<_>>(), [newer.digest]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_frees_its_slot() {
    let world = world(4, |_| {});
    let mut lease = world.acquire("a", keep(KeepAlive::For(Duration::ZERO))).await.unwrap();
    let stream = lease.submit(request("hang"));
    drop(lease);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.names().await, "a:Ready:1");
    drop(stream);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(world.names().await, "");
    assert_eq!(world.log(), "a load 8192, a cancel, a gone");
}

#[tokio::test(start_paused = true)]
async fn drain_lets_requests_finish_and_refuses_new_ones() {
    let world = world(4, |_| {});
    world.touch("b", Wants::default()).await;
    let mut lease = world.acquire("a", Wants::default()).await.unwrap();
    let stream = lease.submit(request("30"));
    drop(lease);
    let waiting = world.spawn("c", Wants::default());
    sleep(Duration::from_millis(100)).await;
    let draining = {
        let scheduler = world.scheduler.clone();
        tokio::spawn(async move { scheduler.drain().await })
    };
    assert_eq!(error(waiting.await.unwrap()), "the daemon is shutting down");
    assert_eq!(error(world.acquire("a", Wants::default()).await), "the daemon is shutting down");
    assert!(!draining.is_finished());
    assert!(matches!(last(stream).await, Event::Done(_)));
    draining.await.unwrap();
    // The load that was given up ends by itself.
    sleep(LOAD).await;
    assert_eq!(world.runners.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_self_check_answers_during_a_load() {
    let world = world(4, |_| {});
    let _load = world.spawn("a", Wants::default());
    sleep(Duration::from_secs(1)).await;
    assert!(world.scheduler.self_check(Duration::from_millis(10)).await);
}

mod residency;
