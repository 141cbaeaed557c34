//! The lock file: what each name was when it was first pulled.
//!
//! A name in it is fetched by its digest, whatever its tag means at the registry by now, until somebody
//! says that the pin may move. It is a TOML file of names and digests, sorted, written whole and
//! atomically; one that cannot be read is an error, and is never written over.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use dsk_registry::{Digest, Name};
use rustix::fs::{FlockOperation, flock};
use toml::de::{DeTable, DeValue};

#[cfg(test)]
mod tests;

/// Largest lock file, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
const HEAD: &str =
    "# What each name was when dsk first pulled it. `dsk pull --update-lock NAME` moves one.\n";

/// A lock file, there already or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockFile {
    path: PathBuf,
}

/// Why a pin cannot be read, kept or written.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The file is not one.
    #[error(
        "{}:{line}: {reason}; mend that line or delete it, and whatever it pinned is pinned anew by \
         the next pull", path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The file cannot be read or written.
    #[error("the lock file {} {what}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        what: &'static str,
        /// How.
        error: io::Error,
    },
    /// Something else was asked for than what is pinned.
    #[error(
        "{} pins {name} to {digest}, and {asked} was asked for; if it should move, pull it with \
         --update-lock", path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// The model.
        name: Box<Name>,
        /// What it is pinned to.
        digest: Digest,
        /// What was asked for.
        asked: String,
    },
    /// The registry has not what is pinned.
    #[error(
        "{} no longer has {digest}, which {} pins {name} to; if it should be what the registry has \
         now, pull it with --update-lock", name.host(), path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
        /// The model.
        name: Box<Name>,
        /// What it is pinned to.
        digest: Digest,
    },
    /// A blocking task was cut short.
    #[error("the task that read the lock file was cut short")]
    Interrupted,
}

type Pins = BTreeMap<Name, Digest>;

impl LockFile {
    /// The lock file at `path`; nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> LockFile {
        LockFile { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a name is pinned to. Blocking.
    pub fn pin(&self, name: &Name) -> Result<Option<Digest>, PinError> {
        Ok(self.read()?.get(name).copied())
    }

    /// What a pull must fetch for a name, when `digest` or the quantization `quant` is asked for besides.
    /// Blocking.
    pub fn wanted(
        &self,
        name: &Name,
        digest: Option<Digest>,
        quant: Option<&str>,
    ) -> Result<Option<Digest>, PinError> {
        let Some(pin) = self.pin(name)? else { return Ok(digest) };
        let asked = match (digest, quant) {
            (Some(digest), _) if digest != pin => digest.to_string(),
            (None, Some(quant)) => quant.to_owned(),
            _ => return Ok(Some(pin)),
        };
        Err(self.other(name, pin, asked))
    }

    /// [`LockFile::wanted`] off the async threads.
    pub(crate) async fn wanted_async(
        &self,
        name: &Name,
        digest: Option<Digest>,
        quant: Option<String>,
    ) -> Result<Option<Digest>, PinError> {
        let (lock_file, name) = (self.clone(), name.clone());
        blocking(move || lock_file.wanted(&name, digest, quant.as_deref())).await
    }

    /// [`LockFile::note`] off the async threads.
    pub(crate) async fn note_async(
        &self,
        name: &Name,
        digest: Digest,
        may_move: bool,
    ) -> Result<(), PinError> {
        let (lock_file, name) = (self.clone(), name.clone());
        blocking(move || lock_file.note(&name, digest, may_move)).await
    }

    /// What is pinned is not at the registry any more.
    pub fn gone(&self, name: &Name, digest: Digest) -> PinError {
        PinError::Gone { path: self.path.clone(), name: Box::new(name.clone()), digest }
    }

    fn other(&self, name: &Name, digest: Digest, asked: String) -> PinError {
        let (path, name) = (self.path.clone(), Box::new(name.clone()));
        PinError::Other { path, name, digest, asked }
    }

    /// Notes what a name was pulled as. A pin that is there stays, unless it may move: the pull that
    /// wrote it meanwhile came first. Blocking.
    pub fn note(&self, name: &Name, digest: Digest, may_move: bool) -> Result<(), PinError> {
        let failed = |what| move |error| PinError::Io { path: self.path.clone(), what, error };
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let folder = File::open(folder).map_err(failed("has no folder"))?;
        // Until it is written, nobody else reads it in order to write.
        let locked = flock(&folder, FlockOperation::LockExclusive).map_err(io::Error::from);
        locked.map_err(failed("cannot be locked"))?;
        let mut pins = self.read()?;
        match pins.get(name) {
            Some(pin) if *pin == digest => return Ok(()),
            Some(pin) if !may_move => return Err(self.other(name, *pin, digest.to_string())),
            _ => pins.insert(name.clone(), digest),
        };
        self.write(&pins, &folder).map_err(failed("cannot be written"))
    }

    fn read(&self) -> Result<Pins, PinError> {
        let failed =
            |error| PinError::Io { path: self.path.clone(), what: "cannot be read", error };
        let text = match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
                let message = format!("{} bytes are more than {FILE_BYTES_MAX}", metadata.len());
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, message)));
            }
            Ok(_) => fs::read_to_string(&self.path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Pins::new()),
            Err(error) => return Err(failed(error)),
        };
        parse(&text).map_err(|(offset, reason)| PinError::Malformed {
            path: self.path.clone(),
            line: text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1,
            reason,
        })
    }

    fn write(&self, pins: &Pins, folder: &File) -> io::Result<()> {
        let mut text = HEAD.to_owned();
        // Names and digests have no character that TOML would want escaped.
        let lines = pins.iter().map(|(name, digest)| format!("\"{name}\" = \"{digest}\"\n"));
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        text.extend(lines);
        let mut fresh = self.path.clone().into_os_string();
        fresh.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(fresh);
        let mut file = File::create(&fresh)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let renamed = written.and_then(|()| fs::rename(&fresh, &self.path));
        if renamed.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        renamed.and_then(|()| folder.sync_all())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PinError> + Send + 'static,
) -> Result<T, PinError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(PinError::Interrupted))
}

/// The pins of a text; an error is where it stands and what is wrong.
fn parse(text: &str) -> Result<Pins, (usize, String)> {
    let table = DeTable::parse(text)
        .map_err(|error| (error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
    let mut pins = Pins::new();
    for (key, value) in table.get_ref() {
        let at = key.span().start;
        let wrong = |reason: String| (at, reason);
        let name = Name::parse(key.get_ref()).map_err(|error| wrong(error.to_string()))?;
        let DeValue::String(digest) = value.get_ref() else {
            return Err(wrong(format!("write \"{name}\" = \"sha256:...\"")));
        };
        let digest: Digest =
            digest.parse().map_err(|error: dsk_registry::DigestError| wrong(error.to_string()))?;
        if pins.insert(name, digest).is_some() {
            return Err(wrong("the same model is pinned twice".to_owned()));
        }
    }
    Ok(pins)
}
