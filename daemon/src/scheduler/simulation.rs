//! A long random life of the scheduler, on paused time: five models, room for about two.
//!
//! `DSK_SIMULATION_SEEDS=500 cargo test -p dsk-daemon simulation` tries that many seeds more.

use std::collections::BTreeMap;

use dsk_registry::Digest;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::{
    http::testing,
    runner::scripted::{CONTEXT_MAX, request},
};

mod machine;

use machine::Machine;

/// Requests of one life.
const ARRIVALS: usize = 10_000;
/// The longest that a request runs.
const REQUEST_MAX: Duration = Duration::from_secs(10);
const QUEUE_MAX: usize = 48;
/// Left to other programs.
const RESERVE: u64 = 2 << 30;
/// Every life ends within this time after its last arrival.
const END_MAX: Duration = Duration::from_secs(3600);

/// Seeds that found something, and what it was.
const FOUND: &[(u64, &str)] =
    &[(5, "a load that was given up was forgotten while its process still took memory")];

/// Random numbers from a seed: splitmix64.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.between(1, 100) <= percent
    }
}

/// One of the five.
struct Model {
    weights: u64,
    /// Bytes of a token of context.
    token: u64,
    load_time: Duration,
}

impl Model {
    fn footprint(&self) -> Footprint {
        let (weights, token) = (self.weights, self.token);
        // Nothing is gained by keeping keys and values in 8 bits.
        Footprint { weights, token, token_q8: token, context_max: CONTEXT_MAX }
    }

    fn bytes(&self, context: u32) -> u64 {
        self.weights + self.token * u64::from(context)
    }
}

/// With contexts they take about 20, 30, 40, 45 and 60 of 100 GiB; the largest context adds 8 to 16.
fn model(label: &str) -> Model {
    let (weights, per_2048, seconds) = match &label[..1] {
        "a" => (18, 2, 2),
        "b" => (28, 2, 4),
        "c" => (37, 3, 8),
        "d" => (42, 3, 10),
        _ => (55, 4, 15),
    };
    let load_time = Duration::from_secs(seconds);
    Model { weights: weights << 30, token: (per_2048 << 30) / 2048, load_time }
}

fn spec(name: &str) -> ModelSpec {
    let digest = Digest::of(name.as_bytes());
    ModelSpec {
        name: Name::parse(name).unwrap(),
        digest,
        model_digest: digest,
        size: 0,
        model_bytes: model(name).weights,
        ..testing::spec()
    }
}

/// What kind of life a seed leads.
#[derive(Debug, Clone, Copy)]
struct Temper {
    /// Mean milliseconds between two requests.
    pace: u64,
    deaths: bool,
    pins: bool,
    yields: bool,
    others: bool,
    contexts: bool,
}

impl Temper {
    fn of(random: &mut Random) -> Temper {
        let pace = [200, 800, 2000, 6000][random.between(0, 3) as usize];
        let mut one = |percent| random.chance(percent);
        Temper {
            pace,
            deaths: one(50),
            pins: one(50),
            yields: one(30),
            others: one(50),
            contexts: one(60),
        }
    }

    /// The longest that a request may wait when nothing forbids loads: a turn for each of the
    /// five models, its reload with a larger context included.
    fn wait_max(self) -> Duration {
        let turn = slot::RESIDENCY_MAX + REQUEST_MAX + Duration::from_secs(15 + 2);
        turn * if self.contexts { 10 } else { 5 }
    }
}

/// What became of the requests.
#[derive(Debug, Default)]
struct Tally {
    outcomes: BTreeMap<&'static str, usize>,
    longest: Duration,
}

struct Life {
    scheduler: Scheduler,
    machine: Machine,
    tally: std::sync::Mutex<Tally>,
    temper: Temper,
}

impl Life {
    fn start(temper: Temper, random: Random) -> Arc<Life> {
        let machine = Machine::new(random, temper.deaths);
        let (memory, touched) = (machine.clone(), machine.clone());
        let settings = Settings {
            keep_alive: KeepAlives {
                default: KeepAlive::DEFAULT,
                min: KeepAlive::For(Duration::ZERO),
                max: KeepAlive::Forever,
            },
            pinned: Vec::new(),
            max_loaded: None,
            max_queue: QUEUE_MAX,
            context_length: None,
            memory_reserve: Some(RESERVE),
            memory: Box::new(move || memory.memory()),
            footprint: Arc::new(|spec| model(spec.name.model()).footprint()),
            touched: Box::new(move |pid| touched.touched(pid)),
            loaded: Box::new(|_, _, _| ()),
        };
        let scheduler = Scheduler::start(settings, Arc::new(machine.clone()));
        Arc::new(Life { scheduler, machine, tally: Default::default(), temper })
    }

    fn count(&self, outcome: &'static str, waited: Duration) {
        let mut tally = self.tally.lock().unwrap();
        *tally.outcomes.entry(outcome).or_default() += 1;
        tally.longest = tally.longest.max(waited);
    }

    /// One client: it waits, asks, reads or leaves.
    async fn client(self: Arc<Life>, mut random: Random) {
        let name = ["a", "a", "b", "b", "c", "c", "d", "e"][random.between(0, 7) as usize];
        let wants = wants(&mut random, self.temper.contexts && name != "a");
        let patience = match random.chance(15) {
            true => Duration::from_millis(random.between(1, 30_000)),
            false => END_MAX,
        };
        let arrived = Instant::now();
        let (spec, scheduler) = (spec(name), self.scheduler.clone());
        let Ok(lease) = timeout(patience, scheduler.acquire(&spec, &wants)).await else {
            return self.count("left the queue", arrived.elapsed().min(self.temper.wait_max()));
        };
        let waited = arrived.elapsed();
        self.machine.check(waited <= self.temper.wait_max(), || {
            format!("a request for {name} waited {waited:?}")
        });
        let mut lease = match lease {
            Ok(lease) => lease,
            Err(error) => return self.count(kind(&error), waited),
        };
        let script = match self.temper.deaths && random.chance(1) {
            true => "die".to_owned(),
            false => random.between(20, REQUEST_MAX.as_millis() as u64).to_string(),
        };
        let stream = lease.submit(request(&script));
        drop(lease);
        let leaves = Duration::from_millis(random.between(1, 20_000));
        let patience = if random.chance(10) { leaves } else { END_MAX };
        let ended = timeout(patience, stream.collect::<Vec<_>>()).await;
        self.count(if ended.is_ok() { "answered" } else { "left the answer" }, waited);
    }

    /// Now and then somebody else decides.
    async fn meddle(self: Arc<Life>, mut random: Random) {
        let name = Name::parse("a").unwrap();
        match random.between(0, 5) {
            0 if self.temper.pins => {
                self.scheduler.pin(&name).await;
                self.machine.set_pinned("a:latest", true);
            }
            1 | 2 if self.temper.pins => {
                self.machine.set_pinned("a:latest", false);
                self.scheduler.unpin(&name).await;
            }
            3 => {
                let name = Name::parse(["b", "c", "d", "e"][random.between(0, 3) as usize]);
                self.scheduler.unload(&name.unwrap()).await;
            }
            4 if self.temper.others => {
                let bytes = [0, 0, 0, 20, 60, 97][random.between(0, 5) as usize] << 30;
                self.machine.set_others(bytes);
                // Nobody keeps the machine full for ever.
                sleep(Duration::from_secs(random.between(1, 40))).await;
                self.machine.set_others(0);
            }
            5 if self.temper.yields => {
                self.machine.set_may_cut(true);
                let within = random.chance(50).then(|| Duration::from_secs(random.between(0, 8)));
                self.scheduler.yield_now(within).await;
                sleep(Duration::from_secs(random.between(0, 20))).await;
                self.scheduler.resume().await;
                self.machine.set_may_cut(false);
            }
            _ => {}
        }
    }

    /// What holds at every moment.
    async fn look(&self) {
        let Some(status) = self.scheduler.status().await else { return };
        let running: usize = status.residents.iter().map(|one| one.in_use).sum();
        let waiting = status.waiting.len();
        self.machine
            .check(waiting + running <= QUEUE_MAX, || format!("{waiting} wait and {running} run"));
        let places = status.waiting.iter().map(|one| one.place.position);
        self.machine.check(places.eq(1..=waiting), || "places are not 1, 2, 3 …".to_owned());
    }
}

fn wants(random: &mut Random, contexts: bool) -> Wants {
    let context = [2048, 4096, 8192][random.between(0, 2) as usize];
    let seconds = |seconds| Some(KeepAlive::For(Duration::from_secs(seconds)));
    let keep_alive = match random.between(0, 9) {
        0 => seconds(0),
        1 => seconds(10),
        2 => Some(KeepAlive::Forever),
        _ => None,
    };
    Wants { context_length: (contexts && random.chance(50)).then_some(context), keep_alive }
}

fn kind(error: &SchedulerError) -> &'static str {
    match error {
        SchedulerError::Busy { .. } => "busy",
        SchedulerError::Timeout { .. } => "timeout",
        SchedulerError::InsufficientMemory { .. } => "does not fit",
        SchedulerError::Pressure { .. } => "pressure",
        SchedulerError::Yielded { .. } => "yielded",
        SchedulerError::RunnerDied { .. } | SchedulerError::CrashLoop { .. } => "died",
        _ => "other",
    }
}

/// Leads one life and says what was wrong with it.
async fn live(seed: u64, arrivals: usize) -> (Vec<String>, String) {
    let mut random = Random(seed);
    let temper = Temper::of(&mut random);
    let life = Life::start(temper, Random(random.next()));
    let mut clients = tokio::task::JoinSet::new();
    let mut meddling = tokio::task::JoinSet::new();
    for arrival in 0..arrivals {
        sleep(Duration::from_millis(random.between(0, 2 * temper.pace))).await;
        clients.spawn(Arc::clone(&life).client(Random(random.next())));
        while clients.try_join_next().is_some() {}
        if random.chance(2) && meddling.try_join_next().is_some() | meddling.is_empty() {
            meddling.spawn(Arc::clone(&life).meddle(Random(random.next())));
        }
        if arrival % 4 == 0 {
            life.look().await;
        }
    }
    let end = async {
        while meddling.join_next().await.is_some() {}
        while clients.join_next().await.is_some() {}
        life.machine.set_pinned("a:latest", false);
        life.scheduler.drain().await;
    };
    let ended = timeout(END_MAX, end).await.is_ok();
    sleep(Duration::from_secs(20)).await;
    life.machine.check(ended, || "it does not end".to_owned());
    let alive = life.machine.alive();
    life.machine.check(alive == 0, || format!("{alive} runners outlive it"));
    let tally = life.tally.lock().unwrap();
    let report = format!("{temper:?} loads: {} {tally:?}", life.machine.loads());
    (life.machine.broken(), report)
}

fn run(seed: u64, arrivals: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let (broken, report) = runtime.block_on(live(seed, arrivals));
    let first: Vec<_> = broken.iter().take(5).collect();
    assert!(broken.is_empty(), "seed {seed}: {} things: {first:#?}\n{report}", broken.len());
    eprintln!("seed {seed}: {report}");
}

#[test]
fn a_long_life_keeps_every_promise() {
    run(1, ARRIVALS);
    for (seed, _what_it_was) in FOUND {
        run(*seed, ARRIVALS);
    }
    let more = std::env::var("DSK_SIMULATION_SEEDS").ok().and_then(|text| text.parse().ok());
    for seed in 2..2 + more.unwrap_or(0u64) {
        run(seed, ARRIVALS);
    }
}
