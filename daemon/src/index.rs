//! The model index: what `tags` and `show` tell of a model, without opening its file at every call.
//!
//! One SQLite file under the daemon's home. Everything in `models` is derived from the manifests and
//! the headers of the model files, which are the truth: a row is read anew when its manifest's file is
//! another one ([`seen`]), and the whole file is made anew when it is missing, broken or of another version.
//! `usage` and `measurements` are counted here and nowhere else, so losing them costs only statistics.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use dsk_daemon_engine::Usage;
use dsk_registry::{Digest, Name, Stamp, Store, StoreError, StoredManifest};
use rusqlite::{Connection, Row, params};

mod describe;
mod measurements;
mod open;
mod seen;
#[cfg(test)]
mod tests;

pub use measurements::{Run, Seen};

use describe::Details;
use seen::Damage;

/// The model index and the usage counts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Index {
    connection: Arc<Mutex<Connection>>,
    damage: Arc<Mutex<Damage>>,
}

/// A model as the index knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexedModel {
    /// Its name.
    pub name: Name,
    /// The digest of its manifest.
    pub digest: Digest,
    /// When its manifest was written.
    pub modified: SystemTime,
    /// The bytes of all its layers.
    pub size: u64,
    /// `gguf` or `safetensors`.
    pub format: String,
    /// The architecture.
    pub family: String,
    /// The architectures of all parts.
    pub families: Vec<String>,
    /// The number of parameters, for people: `134.52M`.
    pub parameter_size: String,
    /// The quantization: `Q4_K_M`.
    pub quantization: String,
    /// The context the model was made for.
    pub context_length: Option<u64>,
    /// The width of an embedding.
    pub embedding_length: Option<u64>,
    /// `completion`, `tools`, `insert`, `thinking`, …
    pub capabilities: Vec<String>,
    /// Whether a file of it is missing.
    pub damaged: bool,
}

/// How much a model was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelUsage {
    /// The model.
    pub name: Name,
    /// When its last request ended.
    pub last_used: SystemTime,
    /// Requests that ended well.
    pub times: u64,
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub output_tokens: u64,
}

/// Why the index cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The database failed.
    #[error("the model index failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// The database's file or folder cannot be used.
    #[error("the model index {path} cannot be used: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store cannot be listed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blocking task was cut short.
    #[error("the model index was cut short")]
    Interrupted,
}

impl Index {
    /// Opens the file, or makes it anew when it is missing, broken or of another version.
    /// A broken one is moved aside. Blocking.
    pub fn open(path: &Path) -> Result<Index, IndexError> {
        let connection = open::open(path)?;
        Ok(Index { connection: Arc::new(Mutex::new(connection)), damage: Arc::default() })
    }

    /// Brings the index up to the files and lists it. Only what changed is read.
    pub async fn refresh(&self, store: &Store) -> Result<Vec<IndexedModel>, IndexError> {
        let (store, damage) = (store.clone(), Arc::clone(&self.damage));
        self.blocking(move |connection| {
            let changed = refresh(connection, &store)?;
            let mut models = list(connection)?;
            let mut damage = damage.lock().unwrap_or_else(PoisonError::into_inner);
            damage.mark(&mut models, connection, &store, changed)?;
            Ok(models)
        })
        .await
    }

    /// What the index knows, without a look at the files.
    pub async fn models(&self) -> Result<Vec<IndexedModel>, IndexError> {
        self.blocking(|connection| list(connection)).await
    }

    /// Counts a request that ended well.
    pub async fn record_use(&self, name: &Name, usage: &Usage) -> Result<(), IndexError> {
        let (name, usage) = (name.full(), *usage);
        self.blocking(move |connection| {
            connection.execute(
                "INSERT INTO usage (name, last_used, times, prompt_tokens, output_tokens)
                 VALUES (?1, ?2, 1, ?3, ?4)
                 ON CONFLICT (name) DO UPDATE SET last_used = ?2, times = times + 1,
                     prompt_tokens = prompt_tokens + ?3, output_tokens = output_tokens + ?4",
                params![
                    name,
                    nanoseconds(SystemTime::now()),
                    usage.prompt_tokens,
                    usage.output_tokens
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// The usage of every model, the last used first.
    pub async fn usage(&self) -> Result<Vec<ModelUsage>, IndexError> {
        self.blocking(|connection| {
            let mut query = connection.prepare(
                "SELECT name, last_used, times, prompt_tokens, output_tokens
                 FROM usage ORDER BY last_used DESC",
            )?;
            let rows = query.query_map([], |row| {
                Ok(ModelUsage {
                    name: parsed(row, 0)?,
                    last_used: time(row.get(1)?),
                    times: row.get::<_, i64>(2)?.unsigned_abs(),
                    prompt_tokens: row.get::<_, i64>(3)?.unsigned_abs(),
                    output_tokens: row.get::<_, i64>(4)?.unsigned_abs(),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let connection = Arc::clone(&self.connection);
        tokio::task::spawn_blocking(move || work(&mut lock(&connection)))
            .await
            .unwrap_or(Err(IndexError::Interrupted))
    }
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    // A transaction that was cut short is rolled back when its guard is dropped.
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads what changed and forgets what is gone, in one transaction; whether there was anything.
fn refresh(connection: &mut Connection, store: &Store) -> Result<bool, IndexError> {
    let mut known = seen::known(connection)?;
    let mut changed = Vec::new();
    for stamp in store.stamps()? {
        if known.remove(&stamp.name.full()).as_deref() == Some(&*seen::text(&stamp)) {
            continue;
        }
        changed.push(Look::take(store, stamp));
    }
    if changed.is_empty() && known.is_empty() {
        return Ok(false);
    }
    let transaction = connection.transaction()?;
    for name in known.keys() {
        forget(&transaction, name)?;
    }
    for Look { stamp, described, lasts } in &changed {
        forget(&transaction, &stamp.name.full())?;
        let stored = described.as_ref().map(|(_, stored)| stored);
        seen::insert(&transaction, stamp, stored, *lasts)?;
        if let Some((details, stored)) = described {
            insert(&transaction, stored, details)?;
        }
    }
    transaction.commit()?;
    Ok(true)
}

/// What one look at a manifest and its model showed.
struct Look {
    stamp: Stamp,
    /// None for a manifest that cannot be read: it is no row.
    described: Option<(Details, StoredManifest)>,
    /// It holds until the manifest changes. What failed for another reason is looked at again.
    lasts: bool,
}

impl Look {
    fn take(store: &Store, stamp: Stamp) -> Look {
        let stored = match store.manifest(&stamp.name) {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(name = %stamp.name, %error, "skipping a manifest");
                let lasts = matches!(error, StoreError::Corrupt { .. });
                return Look { stamp, described: None, lasts };
            }
        };
        let Some(stored) = stored else { return Look { stamp, described: None, lasts: true } };
        let (details, lasts) = Details::read(store, &stored);
        Look { stamp, described: Some((details, stored)), lasts }
    }
}

fn forget(connection: &Connection, name: &str) -> Result<(), IndexError> {
    connection.execute("DELETE FROM models WHERE name = ?1", [name])?;
    connection.execute("DELETE FROM seen WHERE name = ?1", [name])?;
    Ok(())
}

fn insert(
    connection: &Connection,
    stored: &StoredManifest,
    details: &Details,
) -> Result<(), IndexError> {
    connection.execute(
        "INSERT OR REPLACE INTO models (name, digest, modified, size, format, family, families,
             parameter_size, quantization, context_length, embedding_length, capabilities)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            stored.name.full(),
            stored.digest.to_string(),
            nanoseconds(stored.modified),
            i64::try_from(stored.size()).unwrap_or(i64::MAX),
            details.format,
            details.family,
            details.families.join(","),
            details.parameter_size,
            details.quantization,
            details.context_length.and_then(|length| i64::try_from(length).ok()),
            details.embedding_length.and_then(|length| i64::try_from(length).ok()),
            details.capabilities.join(","),
        ],
    )?;
    Ok(())
}

fn list(connection: &Connection) -> Result<Vec<IndexedModel>, IndexError> {
    let mut query = connection.prepare(
        "SELECT name, digest, modified, size, format, family, families, parameter_size,
             quantization, context_length, embedding_length, capabilities
         FROM models ORDER BY modified DESC, name",
    )?;
    let rows = query.query_map([], |row| {
        Ok(IndexedModel {
            name: parsed(row, 0)?,
            digest: parsed(row, 1)?,
            modified: time(row.get(2)?),
            size: row.get::<_, i64>(3)?.unsigned_abs(),
            format: row.get(4)?,
            family: row.get(5)?,
            families: words(row.get(6)?),
            parameter_size: row.get(7)?,
            quantization: row.get(8)?,
            context_length: row.get::<_, Option<i64>>(9)?.map(i64::unsigned_abs),
            embedding_length: row.get::<_, Option<i64>>(10)?.map(i64::unsigned_abs),
            capabilities: words(row.get(11)?),
            damaged: false,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A column whose text is a name or a digest. The file is ours, but it may have been edited.
fn parsed<T: std::str::FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error: T::Err| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
    })
}

fn words(text: String) -> Vec<String> {
    text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Nanoseconds since 1970; earlier times count as then.
fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn time(nanoseconds: i64) -> SystemTime {
    UNIX_EPOCH + std::time::Duration::from_nanos(nanoseconds.unsigned_abs())
}
