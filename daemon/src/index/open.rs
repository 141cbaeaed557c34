//! The index's file: opened, checked, and made anew when it is of no use.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::Connection;

use super::IndexError;

/// The version of the tables below, kept in SQLite's `user_version`.
const VERSION: i64 = 2;
/// How long a statement waits for another process, such as a backup.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS models (
        name TEXT PRIMARY KEY,
        digest TEXT NOT NULL,
        modified INTEGER NOT NULL, -- of the manifest, ns since 1970
        size INTEGER NOT NULL,     -- of all layers, in bytes
        format TEXT NOT NULL,
        family TEXT NOT NULL,
        families TEXT NOT NULL,    -- joined by commas
        parameter_size TEXT NOT NULL,
        quantization TEXT NOT NULL,
        context_length INTEGER,
        embedding_length INTEGER,
        capabilities TEXT NOT NULL -- joined by commas
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS usage (
        name TEXT PRIMARY KEY,
        last_used INTEGER NOT NULL, -- ns since 1970
        times INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL
    ) WITHOUT ROWID;
";

/// Opens the database at `path`; a useless file is moved aside first.
pub(super) fn open(path: &Path) -> Result<Connection, IndexError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|source| file_error(path, source))?;
    }
    match connect(path) {
        Ok(connection) => Ok(connection),
        Err(error) if useless(&error) => {
            let aside = move_aside(path).map_err(|source| file_error(path, source))?;
            tracing::warn!(%error, aside = %aside.display(), "the model index is made anew");
            connect(path)
        }
        Err(error) => Err(error),
    }
}

fn connect(path: &Path) -> Result<Connection, IndexError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What a power cut takes is derived again.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if sound != "ok" || !(0..=VERSION).contains(&version) {
        let message = format!("version {version} of the tables, check: {sound}");
        return Err(corrupt(message).into());
    }
    if version == 1 {
        // Its measurements lack what loads are judged by, and are soon made again.
        connection.execute_batch("DROP TABLE IF EXISTS measurements")?;
    }
    connection.execute_batch(TABLES)?;
    connection.execute_batch(super::measurements::TABLE)?;
    connection.execute_batch(super::seen::TABLE)?;
    // A table of the right name and other columns is found out here, not at the first request.
    super::list(&connection)?;
    super::seen::known(&connection)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    Ok(connection)
}

fn corrupt(message: String) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some(message))
}

/// Whether the file is at fault rather than the disk or the rights to it.
fn useless(error: &IndexError) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, Unknown};
    match error {
        IndexError::Database(error @ rusqlite::Error::SqliteFailure(..)) => {
            matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase | Unknown))
        }
        IndexError::Database(_) => true,
        _ => false,
    }
}

/// Renames the file and drops its journals, which mean nothing without it.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let aside = with_suffix(path, &format!(".broken-{}", now.as_secs()));
    fs::rename(path, &aside)?;
    for suffix in ["-wal", "-shm"] {
        match fs::remove_file(with_suffix(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn file_error(path: &Path, source: io::Error) -> IndexError {
    IndexError::File { path: path.to_owned(), source }
}
