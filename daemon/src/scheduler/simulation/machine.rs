//! A machine with memory, and runners that take it as real ones do: promised at the start of a
//! load, touched little by little, given back when the process is gone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use dsk_daemon_engine::{Bytes, LoadOptions, Prompt, Request};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::sleep,
};

use super::{Random, model};
use crate::{
    hardware::Memory,
    runner::{
        Command, Death, DeathKind, Launch, Link, PATIENCE, Report,
        scripted::{CONTEXT, CONTEXT_MAX, done, loaded},
    },
};

/// All the memory there is.
const TOTAL: u64 = 100 << 30;

/// The machine, shared by the scheduler, its runners and the test.
#[derive(Clone)]
pub(super) struct Machine(Arc<Mutex<Inside>>);

struct Inside {
    children: BTreeMap<u32, Held>,
    /// What other programs use.
    others: u64,
    random: Random,
    next_pid: u32,
    /// Models that must not leave.
    pinned: BTreeSet<String>,
    /// Requests may be cut off: a yield with a limit is on.
    may_cut: bool,
    deaths: bool,
    broken: Vec<String>,
    loads: u64,
}

#[derive(Default)]
struct Held {
    promised: u64,
    touched: u64,
    leaving: bool,
}

impl Machine {
    pub(super) fn new(random: Random, deaths: bool) -> Machine {
        let inside = Inside {
            children: BTreeMap::new(),
            others: 0,
            random,
            next_pid: 1,
            pinned: BTreeSet::new(),
            may_cut: false,
            deaths,
            broken: Vec::new(),
            loads: 0,
        };
        Machine(Arc::new(Mutex::new(inside)))
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    pub(super) fn memory(&self) -> Memory {
        let inside = self.lock();
        let touched: u64 = inside.children.values().map(|held| held.touched).sum();
        let available = TOTAL.saturating_sub(inside.others + touched);
        Memory { total: TOTAL, available, ..Memory::default() }
    }

    pub(super) fn touched(&self, pid: u32) -> Option<u64> {
        self.lock().children.get(&pid).map(|held| held.touched)
    }

    pub(super) fn alive(&self) -> usize {
        self.lock().children.len()
    }

    pub(super) fn loads(&self) -> u64 {
        self.lock().loads
    }

    pub(super) fn set_others(&self, bytes: u64) {
        self.lock().others = bytes;
    }

    pub(super) fn set_pinned(&self, label: &str, pinned: bool) {
        let mut inside = self.lock();
        match pinned {
            true => inside.pinned.insert(label.to_owned()),
            false => inside.pinned.remove(label),
        };
    }

    pub(super) fn set_may_cut(&self, may_cut: bool) {
        self.lock().may_cut = may_cut;
    }

    /// What must never be and was.
    pub(super) fn broken(&self) -> Vec<String> {
        self.lock().broken.clone()
    }

    fn chance(&self, percent: u64) -> bool {
        self.lock().random.chance(percent)
    }

    fn between(&self, least: u64, most: u64) -> u64 {
        self.lock().random.between(least, most)
    }

    fn blame(&self, what: String) {
        self.lock().broken.push(what);
    }

    /// A load begins: everything promised to anybody must fit.
    fn promise(&self, pid: u32, label: &str, bytes: u64) {
        let mut inside = self.lock();
        inside.loads += 1;
        inside.children.entry(pid).or_default().promised = bytes;
        let promised: u64 = inside
            .children
            .values()
            .map(|held| if held.leaving { held.touched } else { held.promised.max(held.touched) })
            .sum();
        if promised + inside.others > TOTAL {
            let others = inside.others;
            let what = format!("loading {label} promises {promised} beside {others} of {TOTAL}");
            inside.broken.push(what);
        }
    }

    fn touch(&self, pid: u32, bytes: u64) {
        let mut inside = self.lock();
        let held = inside.children.entry(pid).or_default();
        held.touched = held.touched.max(bytes.min(held.promised));
    }

    /// A runner was told to end.
    fn stopped(&self, pid: u32, label: &str, running: usize) {
        let mut inside = self.lock();
        inside.children.entry(pid).or_default().leaving = true;
        if running > 0 && !inside.may_cut {
            inside.broken.push(format!("{label} was evicted with {running} running"));
        }
        if inside.pinned.contains(label) && !inside.may_cut {
            inside.broken.push(format!("{label} was evicted though pinned"));
        }
    }
}

impl Launch for Machine {
    fn launch(&self, label: &str, _bytes: u64) -> io::Result<Link> {
        let (commands, received) = mpsc::unbounded_channel();
        let (sender, reports) = mpsc::channel(64);
        let (say_death, died) = oneshot::channel();
        let pid = {
            let mut inside = self.lock();
            inside.next_pid += 1;
            let pid = inside.next_pid;
            inside.children.insert(pid, Held::default());
            pid
        };
        let child = Child { machine: self.clone(), pid, label: label.to_owned(), reports: sender };
        tokio::spawn(async move {
            let machine = child.machine.clone();
            let death = child.run(received).await;
            machine.lock().children.remove(&pid);
            let _ = say_death.send(death);
        });
        Ok(Link { commands, reports, died, hang: None, pid: Some(pid), patience: PATIENCE })
    }
}

struct Child {
    machine: Machine,
    pid: u32,
    label: String,
    reports: mpsc::Sender<Report>,
}

impl Child {
    async fn run(self, mut commands: mpsc::UnboundedReceiver<Command>) -> Death {
        let mut running: HashMap<u64, AbortHandle> = HashMap::new();
        while let Some(command) = commands.recv().await {
            running.retain(|_, task| !task.is_finished());
            match command {
                Command::Load { options, .. } => {
                    if let Some(death) = self.load(&options, &commands).await {
                        return death;
                    }
                }
                Command::Submit { id, request } => match milliseconds(&request) {
                    Some(time) => {
                        let answer = self.answer(id, time);
                        running.insert(id, tokio::spawn(answer).abort_handle());
                    }
                    None => {
                        running.values().for_each(AbortHandle::abort);
                        return Death::new(DeathKind::Signal(9), "was killed by signal 9");
                    }
                },
                Command::Cancel { id } => {
                    running.remove(&id).iter().for_each(AbortHandle::abort);
                }
                Command::Ping => {
                    let _ = self.reports.send(Report::Pong).await;
                }
                Command::Stop => {
                    self.machine.stopped(self.pid, &self.label, running.len());
                    break;
                }
            }
        }
        running.values().for_each(AbortHandle::abort);
        let exit = self.machine.between(0, 1500);
        sleep(Duration::from_millis(exit)).await;
        Death::new(DeathKind::Stopped, "ended")
    }

    async fn load(
        &self,
        options: &LoadOptions,
        commands: &mpsc::UnboundedReceiver<Command>,
    ) -> Option<Death> {
        let context = options.context_length.unwrap_or(CONTEXT).min(CONTEXT_MAX);
        let model = model(&self.label);
        let bytes = model.bytes(context);
        self.machine.promise(self.pid, &self.label, bytes);
        for step in 1..=4u64 {
            sleep(model.load_time / 4).await;
            if commands.is_closed() {
                return Some(Death::new(DeathKind::Stopped, "ended"));
            }
            self.machine.touch(self.pid, model.weights * step / 4);
            let _ = self.reports.send(Report::Loading { progress: step as f32 / 4.0 }).await;
            if self.machine.lock().deaths && self.machine.chance(1) {
                return Some(Death::new(DeathKind::Signal(11), "was killed by signal 11"));
            }
        }
        let mut loaded = loaded(context);
        loaded.bytes = Bytes { weights: model.weights, kv: bytes - model.weights, ..loaded.bytes };
        let _ = self.reports.send(Report::Loaded(loaded)).await;
        None
    }

    fn answer(&self, id: u64, time: Duration) -> impl Future<Output = ()> + Send + use<> {
        let (machine, pid, reports) = (self.machine.clone(), self.pid, self.reports.clone());
        let touched = machine.touched(pid).unwrap_or(0) + (machine.between(0, 3) << 30);
        async move {
            sleep(time / 2).await;
            machine.touch(pid, touched);
            sleep(time / 2).await;
            let _ = reports.send(Report::Event { id, event: done(1) }).await;
        }
    }
}

/// How long a request runs; `None` kills the runner.
fn milliseconds(request: &Request) -> Option<Duration> {
    match &request.prompt {
        Prompt::Raw(text) => text.parse().ok().map(Duration::from_millis),
        _ => None,
    }
}

impl Machine {
    /// For the test's own findings.
    pub(super) fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.blame(what());
        }
    }
}
