//! Which manifests the rows were made from, and which models lack a file: without reading either.
//!
//! A manifest's file is known by its time, length and inode; the one that is known is not opened. The
//! blobs that a model needs are kept with it, so that a look at the names in the folders tells whether one
//! is missing, and that look is only taken when a folder changed.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, SystemTime},
};

use dsk_registry::{Digest, Stamp, Store, StoredManifest};
use rusqlite::{Connection, params};

use super::{IndexError, IndexedModel, nanoseconds};

/// Beside `models`, so that a version that does not know it can use the file.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS seen (
        name TEXT PRIMARY KEY,
        stamp TEXT NOT NULL,  -- of the manifest's file
        blobs TEXT NOT NULL   -- hex digests, joined by commas
    ) WITHOUT ROWID;
";
/// A folder that changed this long ago may change again without another time: clocks of file systems tick
/// every few milliseconds.
const SETTLED: Duration = Duration::from_secs(1);

/// A stamp in one word.
pub(super) fn text(stamp: &Stamp) -> String {
    format!("{} {} {}", nanoseconds(stamp.modified), stamp.bytes, stamp.inode)
}

/// The stamp of every manifest that was looked at, by the model's full name.
pub(super) fn known(connection: &Connection) -> Result<BTreeMap<String, String>, IndexError> {
    // A row that was lost, or that another version wrote, is made again.
    let mut query = connection.prepare(
        "SELECT seen.name, stamp, blobs = '' OR models.name IS NOT NULL
         FROM seen LEFT JOIN models ON models.name = seen.name
         UNION SELECT name, '', TRUE FROM models WHERE name NOT IN (SELECT name FROM seen)",
    )?;
    let rows = query.query_map([], |row| {
        let stamp: String = row.get(1)?;
        Ok((row.get(0)?, if row.get(2)? { stamp } else { String::new() }))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Notes what a row was made from; without a manifest, that the file holds none. One that does not last is
/// made again at the next look.
pub(super) fn insert(
    connection: &Connection,
    stamp: &Stamp,
    stored: Option<&StoredManifest>,
    lasts: bool,
) -> Result<(), IndexError> {
    let blobs = stored.map(|stored| stored.manifest.blobs()).unwrap_or_default();
    let blobs: Vec<String> = blobs.iter().map(|blob| blob.digest.hex()).collect();
    connection.execute(
        "INSERT OR REPLACE INTO seen (name, stamp, blobs) VALUES (?1, ?2, ?3)",
        params![
            stamp.name.full(),
            if lasts { text(stamp) } else { String::new() },
            blobs.join(",")
        ],
    )?;
    Ok(())
}

/// The models that lack a file, as of the folders' last change.
#[derive(Debug, Default)]
pub(super) struct Damage {
    names: HashSet<String>,
    /// When the folders had changed last; `None` is not to be relied on.
    as_of: Option<SystemTime>,
}

impl Damage {
    /// Marks the models that lack a file. `changed` says that other models are listed than before.
    pub(super) fn mark(
        &mut self,
        models: &mut [IndexedModel],
        connection: &Connection,
        store: &Store,
        changed: bool,
    ) -> Result<(), IndexError> {
        let at = store.blobs_changed()?;
        if changed || self.as_of != Some(at) {
            self.names = damaged(connection, &store.digests()?)?;
            let settled = SystemTime::now().duration_since(at).is_ok_and(|age| age > SETTLED);
            self.as_of = settled.then_some(at);
        }
        if !self.names.is_empty() {
            for model in models {
                model.damaged = self.names.contains(&model.name.full());
            }
        }
        Ok(())
    }
}

fn damaged(
    connection: &Connection,
    present: &HashSet<Digest>,
) -> Result<HashSet<String>, IndexError> {
    let mut query = connection.prepare("SELECT name, blobs FROM seen")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut names = HashSet::new();
    for row in rows {
        let (name, blobs): (String, String) = row?;
        let is_here = |hex: &str| {
            format!("sha256:{hex}").parse().is_ok_and(|digest| present.contains(&digest))
        };
        if !blobs.split(',').filter(|hex| !hex.is_empty()).all(is_here) {
            names.insert(name);
        }
    }
    Ok(names)
}
