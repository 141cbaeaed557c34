//! What is durable of the blobs that are arriving, and the marks of those that have ([`super::marks`]).
//!
//! One small SQLite file beside the blobs. An entry is made before the first byte of its partial file is
//! written, and a range enters it only after the disk has the range; so what the journal says is there, is
//! there after a crash. It is never the truth about the bytes: a blob is published by its digest alone. A
//! journal that is lost or damaged is made anew, and costs some bytes that are fetched again.

use super::{StoreError, durable, guard};
use crate::{Digest, digest::HashState, extents::Extents};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

/// For another handle of this process to end its transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest validator that is kept; a longer one counts as none.
const VALIDATOR_BYTES_MAX: usize = 512;

/// What is known of one partial file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// The blob's size in bytes.
    pub(super) size: u64,
    /// What the source said of the version that the bytes are of.
    pub(super) validator: Option<String>,
    /// What the disk has.
    pub(super) durable: Extents,
}

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Journal {
    pub(super) fn open(path: &Path) -> Result<Journal, StoreError> {
        let connection = match connect(path) {
            Err(error) if is_damage(&error) => renew(path)?,
            other => other.map_err(|error| sorted(path, &error))?,
        };
        Ok(Journal { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    /// The blobs with an entry.
    pub(super) fn digests(&self) -> Result<Vec<Digest>, StoreError> {
        self.all("SELECT digest FROM partials")
    }

    pub(super) fn load(&self, digest: &Digest) -> Result<Option<Entry>, StoreError> {
        let row = self.run(|connection| {
            let query = "SELECT size, validator, durable FROM partials WHERE digest = ?1";
            let read = |row: &rusqlite::Row<'_>| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, Option<String>>(1)?,
                    row.get::<_, String>(2)?,
                ))
            };
            connection.query_row(query, [digest.to_string()], read).optional()
        })?;
        // An entry that makes no sense is none.
        Ok(row.and_then(|(size, validator, durable)| {
            let size = u64::try_from(size).ok()?;
            Some(Entry { size, validator, durable: Extents::parse(&durable)? })
        }))
    }

    /// Makes or replaces an entry; it is durable when this returns.
    pub(super) fn save(&self, digest: &Digest, entry: &Entry) -> Result<(), StoreError> {
        #[cfg(test)]
        durable::observe(&self.path, || super::disk::Op::Journal(*digest, Some(entry.clone())))?;
        let validator = entry.validator.as_ref().filter(|text| text.len() <= VALIDATOR_BYTES_MAX);
        let size = i64::try_from(entry.size).unwrap_or(i64::MAX);
        self.run(|connection| {
            let insert = "INSERT OR REPLACE INTO partials (digest, size, validator, durable) \
                          VALUES (?1, ?2, ?3, ?4)";
            let values = params![digest.to_string(), size, validator, entry.durable.to_string()];
            connection.execute(insert, values).map(drop)
        })
    }

    pub(super) fn forget(&self, digest: &Digest) -> Result<(), StoreError> {
        #[cfg(test)]
        durable::observe(&self.path, || super::disk::Op::Journal(*digest, None))?;
        self.run(|connection| {
            let delete = "DELETE FROM partials WHERE digest = ?1";
            connection.execute(delete, [digest.to_string()]).map(drop)
        })
    }

    /// The blobs with marks.
    pub(super) fn marked(&self) -> Result<Vec<Digest>, StoreError> {
        self.all("SELECT digest FROM marks")
    }

    /// Where the hash of a blob stood on its way; none where nobody knows.
    pub(super) fn marks(&self, digest: &Digest) -> Result<Vec<HashState>, StoreError> {
        let states = self.run(|connection| {
            let query = "SELECT states FROM marks WHERE digest = ?1";
            let read = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0);
            connection.query_row(query, [digest.to_string()], read).optional()
        })?;
        Ok(states.and_then(|states| HashState::split(&states)).unwrap_or_default())
    }

    pub(super) fn save_marks(
        &self,
        digest: &Digest,
        marks: &[HashState],
    ) -> Result<(), StoreError> {
        let (digest, states) = (digest.to_string(), HashState::join(marks));
        self.run(|connection| {
            let insert = "INSERT OR REPLACE INTO marks (digest, states) VALUES (?1, ?2)";
            connection.execute(insert, params![digest, states]).map(drop)
        })
    }

    pub(super) fn forget_marks(&self, digest: &Digest) -> Result<(), StoreError> {
        self.run(|connection| {
            let delete = "DELETE FROM marks WHERE digest = ?1";
            connection.execute(delete, [digest.to_string()]).map(drop)
        })
    }

    fn all(&self, query: &str) -> Result<Vec<Digest>, StoreError> {
        self.run(|connection| {
            let mut query = connection.prepare(query)?;
            let rows = query.query_map([], |row| row.get::<_, String>(0))?;
            Ok(rows.flatten().filter_map(|text| text.parse().ok()).collect())
        })
    }

    /// Runs one statement; on a journal that turns out to be damaged, once more on a new one.
    fn run<T>(
        &self,
        work: impl Fn(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let mut connection = guard(&self.connection);
        match work(&connection) {
            Err(error) if is_damage(&error) => {
                *connection = renew(&self.path)?;
                work(&connection).map_err(|error| sorted(&self.path, &error))
            }
            other => other.map_err(|error| sorted(&self.path, &error)),
        }
    }
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // FULL: a commit waits for the disk, so that an entry is as durable as what it speaks of.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE IF NOT EXISTS partials (
             digest TEXT PRIMARY KEY NOT NULL, size INTEGER NOT NULL, validator TEXT,
             durable TEXT NOT NULL) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS marks (digest TEXT PRIMARY KEY NOT NULL, states BLOB NOT NULL);
         SELECT digest, size, validator, durable FROM partials LIMIT 0;
         SELECT digest, states FROM marks LIMIT 0;",
    )?;
    Ok(connection)
}

/// A new journal in place of a damaged one.
fn renew(path: &Path) -> Result<Connection, StoreError> {
    tracing::warn!(path = %path.display(), "the journal of transfers is damaged; it is made anew");
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        durable::remove(Path::new(&name))?;
    }
    connect(path).map_err(|error| sorted(path, &error))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::InvalidColumnType(..) => true,
        // A table of another shape: another program's file, or another version's.
        rusqlite::Error::SqlInputError { msg, .. } => msg.contains("no such"),
        other => matches!(
            other.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ),
    }
}

fn sorted(path: &Path, error: &rusqlite::Error) -> StoreError {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ErrorKind::StorageFull,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => ErrorKind::PermissionDenied,
        _ => ErrorKind::Other,
    };
    StoreError::io(path, std::io::Error::new(kind, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn entry(durable: &str) -> Entry {
        let validator = Some("host \"tag\"".to_owned());
        Entry { size: 1 << 40, validator, durable: Extents::parse(durable).unwrap() }
    }

    #[test]
    fn an_entry_outlives_the_handle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let digest = Digest::of(b"x");
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.load(&digest).unwrap(), None);
        journal.save(&digest, &entry("0-5")).unwrap();
        journal.save(&digest, &entry("0-5 9-12")).unwrap();
        drop(journal);
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.load(&digest).unwrap(), Some(entry("0-5 9-12")));
        assert_eq!(journal.digests().unwrap(), [digest]);
        journal.forget(&digest).unwrap();
        assert_eq!(journal.load(&digest).unwrap(), None);
    }

    #[test]
    fn a_damaged_journal_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let digest = Digest::of(b"x");
        for bytes in [vec![b'x'; 5000], b"SQLite format 3\0 and nothing that follows".to_vec()] {
            fs::write(&path, bytes).unwrap();
            let journal = Journal::open(&path).unwrap();
            assert_eq!(journal.load(&digest).unwrap(), None);
            journal.save(&digest, &entry("0-5")).unwrap();
            assert_eq!(journal.load(&digest).unwrap(), Some(entry("0-5")));
        }
        // Another program's table of the same name.
        fs::remove_file(&path).unwrap();
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE partials (a)").unwrap();
        let journal = Journal::open(&path).unwrap();
        journal.save(&digest, &entry("0-5")).unwrap();
    }

    #[test]
    fn an_entry_that_makes_no_sense_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("journal")).unwrap();
        let digest = Digest::of(b"x");
        journal.save(&digest, &entry("0-5")).unwrap();
        for change in ["durable = '5-0'", "size = -1"] {
            let update = format!("UPDATE partials SET {change}");
            journal.run(|connection| connection.execute(&update, [])).unwrap();
            assert_eq!(journal.load(&digest).unwrap(), None, "{change}");
        }
    }
}
