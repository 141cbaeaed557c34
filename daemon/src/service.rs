//! What the HTTP handlers share.

use std::{io, path::PathBuf, sync::Arc, time::Instant};

use dsk_daemon_engine::Usage;
use dsk_registry::{Client, ClientConfig, ClientError, Limits, Store, StoreError, StoreLock};

use crate::{
    config::Config,
    hardware::Monitor,
    index::{Index, IndexError, Run},
    logs::Ring,
    metrics::Metrics,
    pins::LockFile,
    runner::{Launch, ProcessLauncher},
    scheduler::{LoadNote, Scheduler, Settings},
    transfers::{RegistryMover, Transfers},
};

/// The parts of a running daemon. Handlers get it as `Arc<Service>`.
#[derive(Debug)]
pub struct Service {
    /// What it runs with.
    pub config: Config,
    /// Blobs and manifests. Blocking; async callers use `spawn_blocking`.
    pub store: Store,
    /// Resident models.
    pub scheduler: Scheduler,
    /// Pulls and pushes.
    pub transfers: Transfers,
    /// Pins what is pulled.
    pub lock_file: Option<LockFile>,
    /// What asks registries.
    pub registry: Client,
    /// What the models are, and how much they were used.
    pub index: Index,
    /// The last lines of the log.
    pub(crate) logs: Ring,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// What the machine has.
    pub machine: Monitor,
    /// When it started.
    pub started: Instant,
    /// One process owns a store, as long as this lives.
    _lock: StoreLock,
}

/// Why the parts cannot be brought up.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Another process owns the store.
    #[error(
        "the models folder {path} is in use by process {pid}: stop that daemon, or choose another \
         folder with DSK_MODELS"
    )]
    Locked {
        /// The models folder.
        path: PathBuf,
        /// Who owns it.
        pid: u32,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(StoreError),
    /// The index cannot be opened.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The registry client cannot be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Runners cannot be started.
    #[error("cannot prepare to start runners: {0}")]
    Runner(#[source] io::Error),
}

impl Service {
    /// Opens the store and the index and starts the scheduler. Blocking, inside a runtime.
    pub fn open(config: Config, logs: Ring) -> Result<Arc<Service>, ServiceError> {
        let launcher = ProcessLauncher::new(config.runner.clone(), config.runner_timeout);
        let launcher = launcher.map_err(ServiceError::Runner)?.with_groups();
        Service::assemble(config, logs, Arc::new(launcher))
    }

    /// [`Service::open`] with runners of the test's choice and a log of its own.
    #[cfg(test)]
    pub(crate) fn with_launcher(
        config: Config,
        launcher: Arc<dyn Launch>,
    ) -> Result<Arc<Service>, ServiceError> {
        Service::assemble(config, Ring::default(), launcher)
    }

    fn assemble(
        config: Config,
        logs: Ring,
        launcher: Arc<dyn Launch>,
    ) -> Result<Arc<Service>, ServiceError> {
        let (store, lock) = open_store(&config)?;
        let index = Index::open(&config.index_path())?;
        let about = ClientConfig {
            registry: config.registry.clone(),
            registries: config.registries.clone(),
            private_hosts: config.private_hosts.clone(),
            keyring: config.keyring.clone(),
            trust: config.trust.clone(),
            ..ClientConfig::default()
        };
        let limits = Limits { rate: config.limit_rate, ..Limits::default() };
        let client = Client::with_limits(about, limits)?;
        let lock_file = config.lock_file.clone().map(LockFile::new);
        let metrics = Arc::<Metrics>::default();
        let machine = Monitor::new(store.root().to_owned());
        Ok(Arc::new(Service {
            scheduler: Scheduler::counted(
                Settings { loaded: noting(index.clone()), ..Settings::new(&config) },
                launcher,
                Arc::clone(&metrics),
            ),
            transfers: Transfers::new(
                RegistryMover {
                    client: client.clone(),
                    store: store.clone(),
                    machine: machine.clone(),
                    index: index.clone(),
                    lock_file: lock_file.clone(),
                },
                Arc::clone(&metrics),
            ),
            logs,
            metrics,
            machine,
            registry: client,
            lock_file,
            started: Instant::now(),
            config,
            store,
            index,
            _lock: lock,
        }))
    }
}

/// Notes in the index how long loads take; the scheduler does not wait for it.
fn noting(index: Index) -> LoadNote {
    Box::new(move |spec, loaded, load| {
        let run = Run {
            model: spec.model_digest,
            file_bytes: spec.model_bytes,
            loaded: loaded.clone(),
            load: Some(load),
            usage: Usage::default(),
            resident: None,
        };
        let index = index.clone();
        tokio::spawn(async move {
            if let Err(error) = index.record_run(run).await {
                tracing::warn!(%error, "a load was not noted");
            }
        });
    })
}

fn open_store(config: &Config) -> Result<(Store, StoreLock), ServiceError> {
    let path = &config.models;
    let store = Store::open_in_place(path, &config.home, config.adopt);
    let store = store.map_err(ServiceError::Store)?;
    if !store.is_writable() {
        tracing::info!(
            models = %path.display(),
            "another program filled the models folder: it is only read; --adopt lets dsk write to it"
        );
    }
    let lock = store.lock().map_err(|error| match error {
        StoreError::Locked { pid, .. } => ServiceError::Locked { path: path.clone(), pid },
        error => ServiceError::Store(error),
    })?;
    Ok((store, lock))
}
