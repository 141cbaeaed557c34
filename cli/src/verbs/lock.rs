//! `dsk pull --lock FILE`: a project's own pins, beside those that the daemon may keep.

use std::path::Path;

use dsk_daemon::pins::LockFile;
use dsk_daemon_api::ollama::PullRequest;
use dsk_daemon_api::{Client, ClientError, ErrorCode};
use dsk_registry::{Digest, DigestError, Name};

use crate::exit::Exit;
use crate::failure::Failure;

/// A pull by a lock file.
#[derive(Debug)]
pub(crate) struct Locked {
    lock_file: LockFile,
    name: Name,
    /// What the name was pinned to before.
    pin: Option<Digest>,
    may_move: bool,
}

impl Locked {
    /// Makes the request one for what is pinned, where something is.
    pub(crate) fn open(file: &Path, request: &mut PullRequest) -> anyhow::Result<Locked> {
        let lock_file = LockFile::new(file);
        let (text, digest) = match request.model.split_once('@') {
            Some((name, digest)) => (name, Some(parsed(digest)?)),
            None => (request.model.as_str(), None),
        };
        let name = Name::parse(text).map_err(|error| Failure::usage(error.to_string()))?;
        let may_move = request.update_lock;
        let pin = match may_move {
            true => None,
            false => lock_file.pin(&name)?,
        };
        if pin.is_some()
            && let Some(wanted) = lock_file.wanted(&name, digest, request.quant.as_deref())?
        {
            request.model = format!("{name}@{wanted}");
            request.quant = None;
        }
        Ok(Locked { lock_file, name, pin, may_move })
    }

    /// Pins what was pulled.
    pub(crate) async fn note(
        &self,
        client: &Client,
        pulled: anyhow::Result<Exit>,
    ) -> anyhow::Result<Exit> {
        let exit = pulled.map_err(|error| self.explained(error))?;
        let models = client.tags().await?.models;
        let wanted = self.name.to_string();
        let here = models.iter().find(|model| model.name == wanted);
        let here = here.and_then(|model| format!("sha256:{}", model.digest).parse().ok());
        let here = here.ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("{wanted} was pulled, and is gone by now"))
        })?;
        self.lock_file.note(&self.name, here, self.may_move)?;
        Ok(exit)
    }

    /// What is not there under a digest that is pinned was there once.
    fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        let missing = matches!(
            error.downcast_ref::<ClientError>(),
            Some(ClientError::Api { code: Some(ErrorCode::ManifestNotFound), .. })
        );
        match self.pin {
            Some(pin) if missing => self.lock_file.gone(&self.name, pin).into(),
            _ => error,
        }
    }
}

fn parsed(digest: &str) -> Result<Digest, Failure> {
    let parsed: Result<Digest, DigestError> = digest.parse();
    parsed.map_err(|error| Failure::usage(format!("invalid digest format: {error}")))
}
