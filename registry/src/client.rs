//! The registry client: pull and push of whole models over HTTP.
//!
//! A transfer is one future. It waits with limits, retries what may pass, resumes what is on disk, and
//! stops at the next await when it is cancelled or dropped; a partial file stays for the next try.

mod address;
mod auth;
mod clock;
mod download;
mod endpoint;
mod error;
mod fetch;
mod file;
mod header;
mod manifest;
mod probe;
mod pull;
mod push;
mod registries;
pub(crate) mod relay;
mod retry;
mod session;
mod sign_in;
mod signatures;
#[cfg(test)]
mod tests;
mod variants;

pub use auth::Keyring;
pub use endpoint::canonical_host;
pub use error::{ClientError, IntegrityError};
pub use file::{Fetched, WebFile};
pub use header::Header;
pub use registries::{Proxy, RegistryConfig};
pub use variants::{Hints, SourceVariant};

use crate::{
    DEFAULT_HOST, Descriptor, Digest, ManifestFormat, Name, Store, StoredManifest,
    trust::{Trust, TrustConfig},
};
use auth::Grants;
use download::Budget;
use registries::{Registries, Route};
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use url::Url;

/// How long a connection is kept for the next request.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// What a client is made from.
#[derive(Clone, Debug, Default)]
pub struct ClientConfig {
    /// The endpoint that serves the names under [`crate::DEFAULT_HOST`], instead of that host itself.
    pub registry: Option<Url>,
    /// How the client introduces itself; empty for `dsk/<version>`.
    pub user_agent: String,
    /// What is configured about single registries, by host, with its port when it has one; a table holds
    /// for every spelling of its host.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Hosts that may have addresses of this network although no registry is configured there.
    pub private_hosts: Vec<String>,
    /// Who the user is.
    pub keyring: Keyring,
    /// What is asked of signatures, where a registry has nothing of its own.
    pub trust: TrustConfig,
}

/// What one transfer may do.
#[derive(Clone, Debug, Default)]
pub struct TransferOptions {
    /// Allows plain HTTP to hosts other than this machine.
    pub insecure: bool,
    /// What to pull instead of the name's own tag; the model still gets the name.
    pub from: Option<Reference>,
    /// Bytes per second that it may move, below the client's own limit; none for no other limit.
    pub limit_rate: Option<u64>,
    /// The format to push a model in; none for the one that it is stored in.
    pub format: Option<ManifestFormat>,
}

/// A manifest of a repository, as its registry files it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// Under a tag.
    Tag(String),
    /// Under what its bytes hash to.
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => f.write_str(tag),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

/// How long a client waits and how often it tries.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Without a byte for this long, a request counts as failed.
    pub stall: Duration,
    /// For a connection to open.
    pub connect: Duration,
    /// Tries in a row that bring nothing; after the last one the transfer fails.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub backoff: Duration,
    /// The longest such pause.
    pub backoff_max: Duration,
    /// The longest pause that a registry can ask for.
    pub retry_after_max: Duration,
    /// Requests for bytes of blobs, or with them, that a transfer has running at once.
    pub connections: usize,
    /// The most bytes that one of them asks for. What has arrived and is not durable never exceeds this
    /// for each connection, so neither does what a crash makes us fetch again.
    pub range_bytes: u64,
    /// The memory that a pull's bytes may take on their way to the disk and through the hash, in bytes.
    pub memory_bytes: u64,
    /// Bytes per second that all transfers of a client together may move; none for no limit.
    pub rate: Option<u64>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            stall: Duration::from_secs(30),
            connect: Duration::from_secs(15),
            attempts: 6,
            backoff: Duration::from_millis(500),
            backoff_max: Duration::from_secs(10),
            retry_after_max: Duration::from_secs(60),
            connections: 8,
            range_bytes: 16 << 20,
            memory_bytes: 64 << 20,
            rate: None,
        }
    }
}

/// What a transfer is doing. A pull ends with `Success` after `WritingManifest`, a push after
/// `PushingManifest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// What there is to say of the transfer: what was chosen and why, or why bytes are fetched again.
    Note(String),
    /// Asking the registry for the manifest.
    Manifest,
    /// A blob is arriving, or was there already.
    Blob {
        /// Which.
        digest: Digest,
        /// Its size in bytes.
        total: u64,
        /// The bytes that are there.
        completed: u64,
    },
    /// A blob is complete and is being verified and made durable.
    Verifying {
        /// Which.
        digest: Digest,
    },
    /// All blobs are there; the model gets its name.
    WritingManifest,
    /// Deleting blobs that only the old manifest of the name used.
    RemovingUnused,
    /// A blob is being sent, or the registry had it.
    Pushing {
        /// Which.
        digest: Digest,
        /// Its size in bytes.
        total: u64,
        /// The bytes that the registry has.
        completed: u64,
    },
    /// The registry has all blobs and gets the manifest.
    PushingManifest,
    /// Done.
    Success,
}

/// How transfers report; called often, so it should only note and return.
type Report<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// A client of registries; a clone shares its connections.
#[derive(Clone, Debug)]
pub struct Client {
    registry: Option<Url>,
    registries: Arc<Registries>,
    keyring: Arc<Keyring>,
    grants: Grants,
    limits: Limits,
    /// Keeps all pulls together to the limit on their rate.
    pace: Arc<download::rate::Pace>,
}

impl Client {
    /// A client with the default [`Limits`].
    pub fn new(config: ClientConfig) -> Result<Client, ClientError> {
        Client::with_limits(config, Limits::default())
    }

    /// A client with other limits.
    pub fn with_limits(config: ClientConfig, limits: Limits) -> Result<Client, ClientError> {
        if let Some(registry) = &config.registry {
            endpoint::check_registry(registry)?;
        }
        let registries = Registries::new(&config, &limits)?;
        for mirror in config.registries.values().flat_map(|registry| &registry.mirrors) {
            let insecure = registries.of(&endpoint::host_of(mirror)).config.insecure;
            registries::check_mirror(mirror, insecure)?;
        }
        Ok(Client {
            registries: Arc::new(registries),
            registry: config.registry,
            keyring: Arc::new(config.keyring),
            grants: Grants::default(),
            pace: Arc::new(download::rate::Pace::new(limits.rate)),
            limits,
        })
    }

    /// How the registry of a name is talked to.
    fn route_of(&self, name: &Name) -> &Route {
        match self.registry.as_ref().filter(|_| name.host() == DEFAULT_HOST) {
            Some(registry) => self.registries.of(&endpoint::host_of(registry)),
            None => self.registries.of(name.host()),
        }
    }

    /// What is asked of the signatures of a name's models. A registry that stands in for another one
    /// does not lower what was stated for that.
    fn trust_of(&self, name: &Name) -> &Trust {
        let serving = &self.route_of(name).trust;
        let named = self.registries.stated_trust(name.host());
        named.filter(|named| named.policy > serving.policy).unwrap_or(serving)
    }

    /// Fetches a model into the store. Blobs that are there are not fetched again, partial ones are
    /// resumed, and the name changes only once everything is complete.
    pub async fn pull(
        &self,
        store: &Store,
        name: &Name,
        options: &TransferOptions,
        progress: impl Fn(Progress) + Send + Sync,
        cancel: &CancellationToken,
    ) -> Result<StoredManifest, ClientError> {
        let budget = pull::budget(self, options);
        let run = pull::run(self, store, name, (options, &budget), &progress);
        settled(run, &budget, cancel).await
    }

    /// Fetches one file from any web server into the store, as the blob of its digest, for a model that is
    /// to get the name. It is resumed and verified as a blob of a registry is; what it means, and the
    /// model's manifest, is the caller's affair.
    pub async fn fetch(
        &self,
        store: &Store,
        (name, file): (&Name, &WebFile),
        options: &TransferOptions,
        progress: impl Fn(Progress) + Send + Sync,
        cancel: &CancellationToken,
    ) -> Result<Fetched, ClientError> {
        let budget = pull::budget(self, options);
        let run = file::run(self, store, (name, file), (options, &budget), &progress);
        settled(run, &budget, cancel).await
    }

    /// Fetches the blobs that a model of the store lacks, and nothing else: those of the manifest that the
    /// store has, whatever the registry files under the name by now.
    pub async fn repair(
        &self,
        store: &Store,
        name: &Name,
        options: &TransferOptions,
        progress: impl Fn(Progress) + Send + Sync,
        cancel: &CancellationToken,
    ) -> Result<StoredManifest, ClientError> {
        let budget = pull::budget(self, options);
        let run = pull::repair(self, store, name, (options, &budget), &progress);
        settled(run, &budget, cancel).await
    }

    /// What the source offers for a name that leaves the quantization open, smallest first: the
    /// entries of an index, else the tags that add one to the name's, else the files of a repository
    /// at Hugging Face. Empty when it offers one thing only, or nothing.
    pub async fn variants(
        &self,
        name: &Name,
        options: &TransferOptions,
        hints: &Hints,
    ) -> Result<Vec<SourceVariant>, ClientError> {
        let session = session::Session::open(self, name, options).await?;
        variants::of(&session, hints).await
    }

    /// What one reference of the name's repository leads to; none is the name's own tag.
    pub async fn variant(
        &self,
        name: &Name,
        options: &TransferOptions,
    ) -> Result<SourceVariant, ClientError> {
        let session = session::Session::open(self, name, options).await?;
        variants::literal(&session, options.from.as_ref()).await
    }

    /// The first bytes of a blob, by ranged reads that grow until `enough` says so, never past
    /// `bytes_max`.
    pub async fn header(
        &self,
        name: &Name,
        options: &TransferOptions,
        blob: &Descriptor,
        bytes_max: u64,
        enough: impl Fn(&[u8]) -> bool + Send + Sync,
    ) -> Result<Header, ClientError> {
        let session = session::Session::open(self, name, options).await?;
        match header::read(&session, blob, bytes_max, &enough).await {
            // Hugging Face files by their digests only what it makes manifests of.
            Err(ClientError::Protocol { .. })
                if variants::hub::is_hub(name.host())
                    && variants::hub::learn_all(&session).await? =>
            {
                header::read(&session, blob, bytes_max, &enough).await
            }
            read => read,
        }
    }

    /// Sends a model of the store to the registry that its name says.
    pub async fn push(
        &self,
        store: &Store,
        name: &Name,
        options: &TransferOptions,
        progress: impl Fn(Progress) + Send + Sync,
        cancel: &CancellationToken,
    ) -> Result<(), ClientError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ClientError::Cancelled),
            result = push::run(self, store, name, options, &progress) => result,
        }
    }
}

/// Runs a transfer until it ends or is cancelled, then waits until its threads have let go of their files:
/// whoever is told of the end may remove them.
async fn settled<T>(
    run: impl Future<Output = Result<T, ClientError>>,
    budget: &Budget,
    cancel: &CancellationToken,
) -> Result<T, ClientError> {
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ClientError::Cancelled),
        result = run => result,
    };
    budget.settle().await;
    result
}
