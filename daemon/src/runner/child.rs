//! The child's side: `dsk runner` reads commands from its socket and runs them on an engine.
//!
//! No tokio here: one thread reads and answers pings, the first one loads and hands out requests,
//! the engine's writes events. The socket is the child's standard input; when the daemon is gone its
//! end is read, and the process exits, in the middle of a step if need be.

use std::{
    collections::HashMap,
    io::{self, Read},
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use dsk_daemon_engine::{
    Engine, Event, ExecutorError, LoadError, LoadOptions, Loaded, Request, RequestId,
    gguf::GgufError, model::ModelError, tokenizer::TokenizerError,
};

use super::{
    frame::{self, FrameError},
    protocol::{Command, LoadFailure, LoadFailureKind, Report},
    sandbox::{self, Confinement},
};

/// What the child runs requests on: the engine, or a script in tests.
pub(crate) trait Backend: Sized {
    fn load(
        model: &[PathBuf],
        options: &LoadOptions,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Self, LoadFailure>;
    fn loaded(&self) -> &Loaded;
    fn submit(&self, request: Request, sink: Box<dyn FnMut(Event) + Send>) -> RequestId;
    fn cancel(&self, id: RequestId);
}

impl Backend for Engine {
    fn load(
        model: &[PathBuf],
        options: &LoadOptions,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Self, LoadFailure> {
        Engine::load(model, options, progress).map_err(|error| describe(&error))
    }

    fn loaded(&self) -> &Loaded {
        self.loaded()
    }

    fn submit(&self, request: Request, sink: Box<dyn FnMut(Event) + Send>) -> RequestId {
        self.submit(request, sink)
    }

    fn cancel(&self, id: RequestId) {
        self.cancel(id);
    }
}

/// The life of a runner process. Its socket is standard input.
///
/// The daemon's death ends it: the kernel kills it then, and should that request have come too
/// late, the socket's end is read.
pub fn child_main() -> ExitCode {
    let signal = rustix::process::Signal::KILL;
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(signal)) {
        tracing::warn!(%error, "the kernel will not end this runner with its daemon");
    }
    let socket = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let ended = socket
        .map_err(FrameError::from)
        .and_then(|socket| serve::<Engine>(socket, sandbox::confine));
    match ended {
        // A runner is stopped in the middle of whatever its engine does.
        Ok(()) => std::process::exit(0),
        Err(error) => {
            tracing::error!(%error, "the runner's socket failed");
            std::process::exit(1)
        }
    }
}

/// Serves one model until the other side closes the socket or says `Stop`. `confine` is called once
/// the model's files are known and before the first byte of them is read.
pub(crate) fn serve<B: Backend>(
    socket: UnixStream,
    confine: impl FnOnce(&[&Path]) -> Confinement,
) -> Result<(), FrameError> {
    let reports = Reports(Arc::new(Mutex::new(socket.try_clone()?)));
    let mut commands = io::BufReader::new(socket);
    let Some(Command::Load { model, options }) = frame::read(&mut commands)? else {
        return Ok(());
    };
    let readable: Vec<&Path> = model.iter().map(PathBuf::as_path).collect();
    reports.send(&Report::Confined(confine(&readable)));
    let commands = listen(commands, reports.clone())?;
    let loading = &mut |progress| reports.send(&Report::Loading { progress });
    let backend = match B::load(&model, &options, loading) {
        Ok(backend) => backend,
        Err(failure) => {
            reports.send(&Report::LoadFailed(failure));
            return Ok(());
        }
    };
    reports.send(&Report::Loaded(backend.loaded().clone()));
    run(&backend, &reports, &commands)
}

type Commands = mpsc::Receiver<Result<Command, FrameError>>;

/// Reads commands on a thread of its own: a ping is answered while a model loads. The channel closes
/// where the socket ends.
fn listen(mut socket: impl Read + Send + 'static, reports: Reports) -> io::Result<Commands> {
    let (sender, commands) = mpsc::channel();
    let listen = move || {
        while let Some(command) = frame::read(&mut socket).transpose() {
            if let Ok(Command::Ping) = command {
                reports.send(&Report::Pong);
                continue;
            }
            let broken = command.is_err();
            if sender.send(command).is_err() || broken {
                return;
            }
        }
    };
    std::thread::Builder::new().name("commands".to_owned()).spawn(listen)?;
    Ok(commands)
}

fn run<B: Backend>(backend: &B, reports: &Reports, commands: &Commands) -> Result<(), FrameError> {
    let running = Running::default();
    for command in commands {
        match command? {
            Command::Submit { id, request } => {
                running.lock().insert(id, None);
                let (ids, reports) = (running.clone(), reports.clone());
                let sink = Box::new(move |event: Event| {
                    if matches!(event, Event::Done(_) | Event::Failed(_)) {
                        ids.lock().remove(&id);
                    }
                    reports.send(&Report::Event { id, event });
                });
                let request = backend.submit(*request, sink);
                // The entry is gone when the request ended before its id was known.
                if let Some(slot) = running.lock().get_mut(&id) {
                    *slot = Some(request);
                }
            }
            Command::Cancel { id } => {
                let request = running.lock().get(&id).copied().flatten();
                if let Some(request) = request {
                    backend.cancel(request);
                }
            }
            Command::Load { .. } => tracing::warn!("a second model for one runner is refused"),
            // Answered where it was read.
            Command::Ping => {}
            Command::Stop => break,
        }
    }
    Ok(())
}

/// The daemon's ids of the running requests, with the engine's own.
#[derive(Debug, Clone, Default)]
struct Running(Arc<Mutex<HashMap<u64, Option<RequestId>>>>);

impl Running {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Option<RequestId>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writing half of the socket. The daemon always reads, so a write never waits for long.
#[derive(Debug, Clone)]
struct Reports(Arc<Mutex<UnixStream>>);

impl Reports {
    fn send(&self, report: &Report) {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A socket that cannot be written is about to be read as ended, which stops the process.
        if let Err(error) = frame::write(&mut *socket, report) {
            tracing::debug!(%error, "a report was lost");
        }
    }
}

fn model_kind(error: &ModelError) -> LoadFailureKind {
    match error {
        ModelError::Gguf(GgufError::Open { .. }) => LoadFailureKind::Unreadable,
        ModelError::Gguf(
            GgufError::Version(_) | GgufError::BigEndian | GgufError::UnknownFormat { .. },
        )
        | ModelError::Tokenizer(
            TokenizerError::Model { .. } | TokenizerError::PreTokenizer { .. },
        )
        | ModelError::Architecture { .. }
        | ModelError::Feature { .. }
        | ModelError::Format { .. }
        | ModelError::UnknownTensor { .. } => LoadFailureKind::Unsupported,
        _ => LoadFailureKind::Corrupt,
    }
}

fn describe(error: &LoadError) -> LoadFailure {
    let kind = match error {
        LoadError::Model(error) => model_kind(error),
        LoadError::Template(_) => LoadFailureKind::Template,
        LoadError::Executor(ExecutorError::Unsupported(_)) => LoadFailureKind::Unsupported,
        LoadError::Executor(ExecutorError::Weights(_)) => LoadFailureKind::Corrupt,
        LoadError::Executor(ExecutorError::Memory(_)) => LoadFailureKind::OutOfMemory,
        LoadError::Executor(_) | LoadError::Thread(_) => LoadFailureKind::Internal,
        LoadError::ContextLength { .. } | LoadError::InstructionSet { .. } => {
            LoadFailureKind::Options
        }
    };
    LoadFailure { kind, message: error.to_string() }
}
