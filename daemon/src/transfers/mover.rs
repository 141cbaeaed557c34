//! What moves the bytes of transfers: the registry's client over the daemon's store.

use dsk_daemon_api::ollama::CreateRequest;
use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_registry::{
    Client, ClientError, Digest, Fetched, Name, Progress, Reference, Store, TransferOptions,
    WebFile,
};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{Direction, Job, Key, Mover, TransferError};
use crate::create::Recipe;
use crate::hardware::Monitor;
use crate::index::Index;
use crate::pins::LockFile;
use crate::variants::{Asked, Source};

/// The registry's client over the daemon's store.
#[derive(Debug, Clone)]
pub(crate) struct RegistryMover {
    pub(crate) client: Client,
    pub(crate) store: Store,
    pub(crate) machine: Monitor,
    /// Knows how fast models ran here.
    pub(crate) index: Index,
    /// Pins what is pulled.
    pub(crate) lock_file: Option<LockFile>,
}

impl Mover for RegistryMover {
    fn run(&self, job: Job) -> BoxFuture<'static, Result<(), TransferError>> {
        let mover = self.clone();
        Box::pin(async move {
            match (job.what.direction, job.what.file.clone()) {
                (Direction::Pull, Some(file)) => mover.fetch(job, &file).await,
                (Direction::Pull, None) => mover.pull(job).await,
                (Direction::Push, _) => {
                    let Job { what, limit_rate, progress, cancel } = job;
                    let Key { name, insecure, format, .. } = what;
                    let options = TransferOptions { insecure, from: None, limit_rate, format };
                    Ok(mover.client.push(&mover.store, &name, &options, progress, &cancel).await?)
                }
            }
        })
    }
}

impl RegistryMover {
    /// Fetches what the lock file pins, what the request names by its digest, or the variant that suits
    /// the machine where the name leaves it open; says which and why.
    async fn pull(&self, job: Job) -> Result<(), TransferError> {
        let Job { what, limit_rate, progress, cancel } = job;
        let wanted = match (&self.lock_file, what.update_lock) {
            (Some(lock_file), false) => {
                lock_file.wanted_async(&what.name, what.digest, what.quant.clone()).await?
            }
            _ => what.digest,
        };
        let from = match wanted {
            Some(digest) => {
                progress(Progress::Note(format!("{} is pulled as {digest}", what.name)));
                Some(Reference::Digest(digest))
            }
            None => self.choose(&what, &progress, &cancel).await?,
        };
        let options = TransferOptions { insecure: what.insecure, from, limit_rate, format: None };
        // The end is told once the pin is on the disk as well.
        let told = |line| {
            if line != Progress::Success {
                progress(line);
            }
        };
        let pulled = self.client.pull(&self.store, &what.name, &options, told, &cancel).await;
        let pulled = pulled.map_err(|error| self.explained(error, &what, wanted))?;
        if let Some(lock_file) = &self.lock_file {
            lock_file.note_async(&what.name, pulled.digest, what.update_lock).await?;
        }
        progress(Progress::Success);
        Ok(())
    }

    async fn choose(
        &self,
        what: &Key,
        progress: &(dyn Fn(Progress) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Option<Reference>, TransferError> {
        let source = Source { client: &self.client, name: &what.name, insecure: what.insecure };
        let choose = async {
            let asked = Asked::here(what.quant.clone(), &self.machine, &self.index).await;
            source.choose(&asked).await
        };
        let choice = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(ClientError::Cancelled.into()),
            choice = choose => choice?,
        };
        for line in &choice.lines {
            progress(Progress::Note(line.clone()));
        }
        Ok(choice.from)
    }

    /// What is not there under the digest that is pinned was there once.
    fn explained(&self, error: ClientError, what: &Key, wanted: Option<Digest>) -> TransferError {
        match (&self.lock_file, wanted, error) {
            (Some(lock_file), Some(digest), ClientError::NotFound { .. })
                if what.digest.is_none() =>
            {
                lock_file.gone(&what.name, digest).into()
            }
            (_, _, error) => error.into(),
        }
    }

    /// Fetches a file and makes a model of it.
    async fn fetch(&self, job: Job, file: &WebFile) -> Result<(), TransferError> {
        let Job { what: Key { name, insecure, .. }, limit_rate, progress, cancel } = job;
        let options = TransferOptions { insecure, limit_rate, ..TransferOptions::default() };
        let told = |step| progress(step);
        let fetched = self.client.fetch(&self.store, (&name, file), &options, told, &cancel);
        let fetched = fetched.await?;
        progress(Progress::WritingManifest);
        let store = self.store.clone();
        let made = tokio::task::spawn_blocking(move || make(&store, &name, fetched)).await;
        let made = made.unwrap_or_else(|error| Err(ApiError::logged(ErrorCode::Internal, error)));
        made.map_err(TransferError::Unusable)?;
        progress(Progress::Success);
        Ok(())
    }
}

/// Makes a model of a file that was fetched for it. One that is no model is not kept. Blocking.
fn make(store: &Store, name: &Name, fetched: Fetched) -> Result<(), ApiError> {
    let files = [("model.gguf".to_owned(), fetched.blob.digest.to_string())].into();
    let request = CreateRequest { files, ..CreateRequest::default() };
    let made = Recipe::parse(name.clone(), request)?.make(store);
    drop(fetched.pin);
    if matches!(&made, Err(error) if error.code == ErrorCode::InvalidModel)
        && let Err(error) = store.remove_unfinished(name)
    {
        tracing::warn!(%name, %error, "a file that is no model stays until the next collection");
    }
    made.map(drop)
}
