//! Runners for tests: no process and no model, but the same commands and reports.
//!
//! A request's raw prompt is its script: `3` makes three tokens, one each 100 ms; `die` ends the
//! runner; `hang` goes on until it is cancelled, `read` stays at its prompt until
//! then. The last message of a chat can be `hang` or `read` as well.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dsk_daemon_engine::{
    Bytes, Done, Event, Failure, FailureKind, FinishReason, KvFormat, LoadOptions, Loaded, Options,
    Prompt, Request, RequestId, TemplateOrigin, Usage,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use super::{
    Command, Death, DeathKind, Launch, Link, LoadFailure, LoadFailureKind, PATIENCE, Report,
    child::Backend,
    sandbox::{Confinement, Enforced},
};

/// What every scripted model takes.
pub(crate) const BYTES: u64 = 1 << 30;
/// The context it was made for.
pub(crate) const CONTEXT_MAX: u32 = 8192;
/// The context it gets by default.
pub(crate) const CONTEXT: u32 = 2048;

/// How a load goes.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Loads,
    Fails(LoadFailureKind),
    Dies,
}

/// Starts scripted runners and remembers what they did.
#[derive(Debug, Clone)]
pub(crate) struct Scripted {
    pub(crate) load_time: Duration,
    outcomes: Arc<Mutex<HashMap<String, Outcome>>>,
    log: Arc<Mutex<Vec<String>>>,
    live: Arc<AtomicUsize>,
}

impl Scripted {
    pub(crate) fn new(load_time: Duration) -> Scripted {
        let (outcomes, log, live) = Default::default();
        Scripted { load_time, outcomes, log, live }
    }

    pub(crate) fn set(&self, label: &str, outcome: Outcome) {
        self.outcomes.lock().unwrap().insert(label.to_owned(), outcome);
    }

    /// What happened since the last call, in order.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// How many runners are alive.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    fn note(&self, what: String) {
        self.log.lock().unwrap().push(what);
    }
}

impl Launch for Scripted {
    fn launch(&self, label: &str, _bytes: u64) -> io::Result<Link> {
        let (commands, received) = mpsc::unbounded_channel();
        let (sender, reports) = mpsc::channel(64);
        let (say_death, died) = oneshot::channel();
        self.live.fetch_add(1, Ordering::SeqCst);
        let child = Child { world: self.clone(), label: label.to_owned(), reports: sender };
        tokio::spawn(async move {
            let (world, label) = (child.world.clone(), child.label.clone());
            let death = child.run(received).await;
            world.live.fetch_sub(1, Ordering::SeqCst);
            world.note(format!("{label} gone"));
            let _ = say_death.send(death);
        });
        Ok(Link { commands, reports, died, hang: None, pid: None, patience: PATIENCE })
    }
}

struct Child {
    world: Scripted,
    label: String,
    reports: mpsc::Sender<Report>,
}

impl Child {
    async fn run(self, mut commands: mpsc::UnboundedReceiver<Command>) -> Death {
        let mut running: HashMap<u64, AbortHandle> = HashMap::new();
        while let Some(command) = commands.recv().await {
            match command {
                Command::Load { options, .. } => {
                    if let Err(death) = self.load(&options).await {
                        return death;
                    }
                }
                Command::Submit { id, request } => match script(&request) {
                    "die" => {
                        running.values().for_each(AbortHandle::abort);
                        return Death::new(
                            DeathKind::Signal(9),
                            "was killed by signal 9 (out of memory?)",
                        );
                    }
                    script => {
                        let answer = answer(id, script.to_owned(), self.reports.clone());
                        running.insert(id, tokio::spawn(answer).abort_handle());
                    }
                },
                Command::Cancel { id } => {
                    self.world.note(format!("{} cancel", self.label));
                    if let Some(task) = running.remove(&id) {
                        task.abort();
                    }
                }
                Command::Ping => {
                    let _ = self.reports.send(Report::Pong).await;
                }
                Command::Stop => break,
            }
        }
        running.values().for_each(AbortHandle::abort);
        Death::new(DeathKind::Stopped, "ended")
    }

    async fn load(&self, options: &LoadOptions) -> Result<(), Death> {
        let context = options.context_length.unwrap_or(CONTEXT);
        self.world.note(format!("{} load {context}", self.label));
        tokio::time::sleep(self.world.load_time).await;
        let outcome = self.world.outcomes.lock().unwrap().get(&self.label).cloned();
        match outcome.unwrap_or(Outcome::Loads) {
            Outcome::Loads => {
                let _ = self.reports.send(Report::Loaded(loaded(context))).await;
                Ok(())
            }
            Outcome::Fails(kind) => {
                let failure = LoadFailure { kind, message: "as scripted".to_owned() };
                let _ = self.reports.send(Report::LoadFailed(failure)).await;
                Err(Death::new(DeathKind::Stopped, "ended"))
            }
            Outcome::Dies => Err(Death::new(DeathKind::Signal(11), "was killed by signal 11")),
        }
    }
}

fn script(request: &Request) -> &str {
    match &request.prompt {
        Prompt::Raw(text) => text,
        Prompt::Chat(chat) => match chat.messages.last().map(|last| last.content.as_str()) {
            Some(text @ ("hang" | "read")) => text,
            _ => "1",
        },
        _ => "1",
    }
}

async fn answer(id: u64, script: String, reports: mpsc::Sender<Report>) {
    if script == "read" {
        let event = Event::Prefill { done: 1, total: 2 };
        let _ = reports.send(Report::Event { id, event }).await;
        return std::future::pending().await;
    }
    let tokens = script.parse().unwrap_or(usize::MAX);
    for token in 0..tokens {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let event = Event::Content(format!("{token} "));
        let _ = reports.send(Report::Event { id, event }).await;
    }
    let _ = reports.send(Report::Event { id, event: done(tokens as u32) }).await;
}

/// The end of a request that made so many tokens.
pub(crate) fn done(output_tokens: u32) -> Event {
    let usage = Usage { output_tokens, ..Usage::default() };
    Event::Done(Done { reason: FinishReason::Stop, usage, context: Vec::new() })
}

/// What a child says that is confined as intended.
pub(crate) fn confined() -> Confinement {
    Confinement { files: Enforced::Full, calls: Enforced::Full, limits: Enforced::Full }
}

/// A request whose script is `text`.
pub(crate) fn request(text: &str) -> Request {
    let prompt = Prompt::Raw(text.to_owned());
    Request { prompt, options: Options::default(), truncate: true }
}

pub(crate) fn loaded(context_length: u32) -> Loaded {
    Loaded {
        architecture: "llama".to_owned(),
        context_length: context_length.min(CONTEXT_MAX),
        model_context_length: CONTEXT_MAX,
        bytes: Bytes { weights: BYTES, kv: 0, other: 0, runtime: 0 },
        template: TemplateOrigin::None,
        thinking: false,
        tools: false,
        fill: false,
        executor: "script".to_owned(),
        kv: KvFormat::default(),
        demand: None,
    }
}

/// The child's side without an engine; a request's events come from a thread of its own.
pub(crate) struct ScriptedBackend {
    loaded: Loaded,
    cancelled: Arc<Mutex<Vec<RequestId>>>,
    ids: AtomicUsize,
}

impl Backend for ScriptedBackend {
    fn load(
        model: &[PathBuf],
        options: &LoadOptions,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Self, LoadFailure> {
        progress(0.5);
        if let Some(broken) = model.iter().find(|file| file.ends_with("broken.gguf")) {
            let message = format!("{} is broken", broken.display());
            return Err(LoadFailure { kind: LoadFailureKind::Corrupt, message });
        }
        let loaded = loaded(options.context_length.unwrap_or(CONTEXT));
        Ok(ScriptedBackend { loaded, cancelled: Arc::default(), ids: AtomicUsize::new(0) })
    }

    fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    fn submit(&self, request: Request, mut sink: Box<dyn FnMut(Event) + Send>) -> RequestId {
        let id = RequestId(self.ids.fetch_add(1, Ordering::SeqCst) as u64);
        let cancelled = Arc::clone(&self.cancelled);
        std::thread::spawn(move || {
            let tokens = script(&request).parse().unwrap_or(usize::MAX);
            for token in 0..tokens {
                if cancelled.lock().unwrap().contains(&id) {
                    sink(Event::Failed(Failure::new(FailureKind::Cancelled, "cancelled")));
                    return;
                }
                sink(Event::Content(format!("{token} ")));
            }
            sink(done(tokens as u32));
        });
        id
    }

    fn cancel(&self, id: RequestId) {
        self.cancelled.lock().unwrap().push(id);
    }
}
