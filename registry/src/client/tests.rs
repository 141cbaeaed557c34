//! The client against the embedded registry, and against one that does everything wrong.

mod downgrade;
mod embedded;
mod faults;
mod file;
mod formats;
mod header;
mod hostile;
mod http2;
mod hub;
mod power;
mod push;
mod repair;
mod script;
mod sign_in;
mod signatures;
mod sources;
mod variants;

use super::*;
use std::sync::Mutex;

/// Limits that make a failing test fast.
fn quick() -> Limits {
    Limits {
        stall: Duration::from_millis(300),
        connect: Duration::from_secs(5),
        attempts: 3,
        backoff: Duration::from_millis(2),
        backoff_max: Duration::from_millis(10),
        retry_after_max: Duration::from_millis(50),
        ..Limits::default()
    }
}

/// A client whose default host is served at `registry`.
fn client(registry: &str) -> Client {
    client_with(registry, quick())
}

fn client_with(registry: &str, limits: Limits) -> Client {
    let registry = Some(Url::parse(registry).unwrap());
    Client::with_limits(ClientConfig { registry, ..ClientConfig::default() }, limits).unwrap()
}

/// A pull without options, progress or cancellation.
async fn pull(client: &Client, store: &Store, name: &str) -> Result<StoredManifest, ClientError> {
    let name = crate::fixture::name(name);
    client.pull(store, &name, &TransferOptions::default(), |_| {}, &CancellationToken::new()).await
}

/// Collects what a transfer reports.
#[derive(Default)]
struct Seen(Mutex<Vec<Progress>>);

impl Seen {
    fn note(&self, progress: Progress) {
        self.0.lock().unwrap().push(progress);
    }

    /// The kinds in order, repetitions once.
    fn kinds(&self) -> String {
        let seen = self.0.lock().unwrap();
        let kind = |progress: &Progress| {
            format!("{progress:?}").split([' ', '{']).next().unwrap().to_owned()
        };
        let mut kinds: Vec<String> = seen.iter().map(kind).collect();
        kinds.dedup();
        kinds.join(" ")
    }

    /// What was said in words.
    fn notes(&self) -> String {
        let seen = self.0.lock().unwrap();
        let notes = seen.iter().filter_map(|progress| match progress {
            Progress::Note(text) => Some(text.as_str()),
            _ => None,
        });
        notes.collect::<Vec<_>>().join("\n")
    }

    /// The first report about bytes of a blob.
    fn first_of(&self, wanted: &Digest) -> Option<u64> {
        self.0.lock().unwrap().iter().find_map(|progress| match progress {
            Progress::Blob { digest, completed, .. } if digest == wanted => Some(*completed),
            _ => None,
        })
    }
}
