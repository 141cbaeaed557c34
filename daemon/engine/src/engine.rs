//! A model in memory and the one thread that runs its requests.
//!
//! `submit` and `cancel` put commands into an inbox; the thread (`engine/turns.rs`) empties it
//! between two steps, so a request that was cancelled costs at most the step that runs already.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use dsk_kernels::kv::KvType;
use serde::{Deserialize, Serialize};

use crate::conversation::Request;
use crate::demand::Demand;
use crate::event::{Event, Failure, FailureKind};
use crate::executor::{self, Bytes, Executor, ExecutorError, ExecutorKind};
use crate::model::{Model, ModelError};
use crate::prompt::{self, Prompter};

mod inbox;
mod running;
mod turns;

use inbox::{Command, Inbox, Pending};

pub use inbox::Sink;
pub(crate) use turns::panic_text;

/// Requests that may wait; one more is refused as busy.
pub const WAITING_MAX: usize = 512;

/// How to load a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadOptions {
    /// Tokens of context; `None` takes 4096, or the model's own limit where that is less.
    pub context_length: Option<u32>,
    /// A template that takes the place of the one in the file.
    pub template: Option<String>,
    /// Threads for arithmetic; `None` takes as many as there are cores that this process may use.
    pub threads: Option<usize>,
    /// Requests that are answered at once, each with a context of its own; `None` takes one.
    pub sequences: Option<usize>,
    /// How keys and values are kept.
    pub kv: KvFormat,
    /// Takes the memory of a full context when the model is loaded, and not as it fills.
    pub reserve: bool,
    /// In which form weights are kept.
    pub weights: WeightForm,
    /// The instruction set, by its name; `None` takes the fastest that the processor has.
    pub isa: Option<String>,
    /// Which code runs the arithmetic.
    pub executor: ExecutorKind,
}

/// In which form weights are kept in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightForm {
    /// As in the file, with their order changed. Their inputs are rounded to 8 bits.
    #[default]
    Stored,
    /// As f32, so that nothing is rounded; up to eight times the memory. To compare with other
    /// implementations, and to tell what rounding costs.
    F32,
}

/// How the keys and values of a context are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvFormat {
    /// Single precision: nothing is rounded. To compare with other implementations.
    F32,
    /// Half precision.
    #[default]
    F16,
    /// 8-bit blocks: half the memory, and very little accuracy lost.
    Q8_0,
}

impl KvFormat {
    pub(crate) fn kernel_type(self) -> KvType {
        match self {
            KvFormat::F32 => KvType::F32,
            KvFormat::F16 => KvType::F16,
            KvFormat::Q8_0 => KvType::Q8_0,
        }
    }
}

/// Where the template of a loaded model came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateOrigin {
    /// [`LoadOptions::template`].
    Given,
    /// The GGUF's metadata.
    File,
    /// There is none: the turns' contents are joined by empty lines.
    None,
}

/// Facts of a loaded model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// The model's family.
    pub architecture: String,
    /// Tokens of context that requests have.
    pub context_length: u32,
    /// Tokens of context that the model was made for.
    pub model_context_length: u32,
    /// Memory, computed from the file and the context.
    pub bytes: Bytes,
    /// Which template makes the prompts.
    pub template: TemplateOrigin,
    /// The model thinks before it answers, unless told not to.
    pub thinking: bool,
    /// The template can declare tools.
    pub tools: bool,
    /// [`crate::Prompt::Fill`] works.
    pub fill: bool,
    /// What runs the arithmetic.
    pub executor: String,
    /// How keys and values are kept.
    #[serde(default)]
    pub kv: KvFormat,
    /// What it takes for other contexts, where the executor works by a plan.
    #[serde(default)]
    pub demand: Option<Demand>,
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is no model that can be run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// [`LoadOptions::template`] does not compile.
    #[error("the template given with the model is broken: {0}")]
    Template(String),
    /// The executor refused the model.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// [`LoadOptions::context_length`] is of no use.
    #[error("a context of {got} tokens is too short, {least} is the least")]
    ContextLength {
        /// Tokens asked for.
        got: u32,
        /// Tokens that are the least.
        least: u32,
    },
    /// [`LoadOptions::isa`] is not there.
    #[error("this processor cannot run instruction set {asked:?}; it has {available}")]
    InstructionSet {
        /// The name asked for.
        asked: String,
        /// The names that can be asked for.
        available: String,
    },
    /// The system gave no thread.
    #[error("cannot start the engine's thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// Names a request of one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// What an engine is doing and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Requests that wait.
    pub queued: u32,
    /// Requests that have a sequence.
    pub running: u32,
    /// Requests that ended, well or not.
    pub finished: u64,
    /// Tokens of the prompts of finished requests.
    pub prompt_tokens: u64,
    /// Tokens that finished requests generated.
    pub output_tokens: u64,
}

/// A loaded model that serves requests. Dropping it stops them and frees the model.
#[derive(Debug)]
pub struct Engine {
    loaded: Loaded,
    inbox: Arc<Inbox>,
    next_id: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Reads the model in the files at `paths` and starts its thread. `progress` hears fractions from 0 to 1.
    pub fn load(
        paths: &[impl AsRef<Path>],
        options: &LoadOptions,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Engine, LoadError> {
        progress(0.0);
        let template = prompt::compile(options.template.as_deref())?;
        let (model, executor) =
            Model::open_while(paths, |network| executor::open(network, options, progress))?;
        let executor = executor?;
        let mut engine = Engine::start(Prompter::new(Arc::new(model), template), executor)?;
        engine.loaded.kv = options.kv;
        progress(1.0);
        Ok(engine)
    }

    /// The engine over a prompter and an executor that are ready.
    fn start(prompter: Prompter, executor: Box<dyn Executor>) -> Result<Engine, LoadError> {
        let loaded = describe(&prompter, executor.as_ref());
        let inbox = Arc::new(Inbox::default());
        let work = Arc::clone(&inbox);
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || turns::run(&work, &prompter, executor))
            .map_err(LoadError::Thread)?;
        Ok(Engine { loaded, inbox, next_id: AtomicU64::new(1), thread: Some(thread) })
    }

    /// What was loaded.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Queues a request. `sink` hears its events, on this thread or the engine's, until one of
    /// [`Event::Done`] and [`Event::Failed`]; a sink that panics cancels its request.
    pub fn submit(&self, request: Request, mut sink: Sink) -> RequestId {
        let id = RequestId(self.next_id.fetch_add(1, Ordering::Relaxed));
        match self.inbox.reserve(WAITING_MAX) {
            Err(refusal) => {
                inbox::deliver(&mut sink, Event::Failed(refusal));
            }
            Ok(position) => {
                let alive = position == 0
                    || inbox::deliver(&mut sink, Event::Queued { position: position as u32 });
                let pending = Pending { id, request, sink, submitted: Instant::now(), alive };
                self.inbox.push(Command::Submit(Box::new(pending)));
            }
        }
        id
    }

    /// Stops a request: it fails as cancelled before its next step. One that ended is left alone.
    pub fn cancel(&self, id: RequestId) {
        self.inbox.push(Command::Cancel(id));
    }

    /// Counts, at this moment.
    pub fn stats(&self) -> Stats {
        self.inbox.stats()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.inbox.close();
        if let Some(thread) = self.thread.take() {
            // The loop catches panics of steps and sinks; one of its own was printed already.
            let _ = thread.join();
        }
    }
}

fn describe(prompter: &Prompter, executor: &dyn Executor) -> Loaded {
    let model = prompter.model();
    let features = prompter.features();
    Loaded {
        architecture: model.architecture().to_owned(),
        context_length: executor.context_length() as u32,
        model_context_length: model.context_length(),
        bytes: executor.bytes(),
        template: prompter.origin(),
        thinking: features.thinking,
        tools: features.tools,
        fill: prompter.can_fill(),
        executor: executor.name().to_owned(),
        kv: KvFormat::default(),
        demand: executor.demand().cloned(),
    }
}

/// The failure of a request whose engine has stopped.
fn stopped() -> Failure {
    Failure::new(FailureKind::Cancelled, "the model was unloaded")
}

#[cfg(test)]
mod tests;
