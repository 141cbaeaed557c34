//! Uploads: sessions that collect a blob until its digest is named.
//!
//! A session's bytes go to a temporary file of the store and are hashed on the way. Sessions are few and
//! short-lived: they are counted, and one that rests too long is thrown away with its file.

use super::{
    Answer, App, Body, Response, StatusCode,
    error::{Code, Problem},
    finish, header, located, query, receive,
    route::{parse_digest, repository},
};
use crate::{Digest, Name, pump::blocking, store::Upload};
use axum::extract::Request;
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The open sessions.
#[derive(Debug)]
pub(super) struct Uploads {
    sessions: Mutex<HashMap<String, Session>>,
    max: usize,
    idle: Duration,
}

#[derive(Debug)]
struct Session {
    repository: Name,
    /// None while a request is adding to it.
    upload: Option<Upload>,
    offset: u64,
    touched: Instant,
}

impl Uploads {
    pub(super) fn new(max: usize, idle: Duration) -> Uploads {
        Uploads { sessions: Mutex::default(), max, idle }
    }

    /// The sessions, less those that rested too long: they go with their files before anybody asks for one.
    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = self.idle;
        sessions.retain(|_, session| session.upload.is_none() || session.touched.elapsed() < idle);
        sessions
    }

    /// Throws away what rested too long.
    pub(super) fn expire(&self) {
        drop(self.sessions());
    }

    fn insert(&self, repository: Name, upload: Upload) -> Result<String, Problem> {
        let mut sessions = self.sessions();
        if sessions.len() >= self.max {
            return Err(Problem::new(Code::TooManyUploads, "too many uploads are open; try later"));
        }
        let id = random_id();
        let touched = Instant::now();
        let session = Session { repository, upload: Some(upload), offset: 0, touched };
        sessions.insert(id.clone(), session);
        Ok(id)
    }

    /// Takes the upload out for one request; [`Uploads::put_back`] or [`Uploads::remove`] must follow.
    fn take(&self, repository: &Name, id: &str) -> Result<Upload, Problem> {
        let mut sessions = self.sessions();
        let session = sessions.get_mut(id).filter(|session| session.repository == *repository);
        let session = session.ok_or_else(unknown)?;
        session.upload.take().ok_or_else(|| {
            Problem::new(Code::UploadBusy, "another request is adding to this upload")
        })
    }

    fn put_back(&self, id: &str, upload: Upload) -> u64 {
        let offset = upload.offset();
        if let Some(session) = self.sessions().get_mut(id) {
            session.offset = offset;
            session.touched = Instant::now();
            session.upload = Some(upload);
        }
        offset
    }

    fn remove(&self, id: &str) {
        self.sessions().remove(id);
    }

    fn offset(&self, repository: &Name, id: &str) -> Result<u64, Problem> {
        let sessions = self.sessions();
        let session = sessions.get(id).filter(|session| session.repository == *repository);
        session.map(|session| session.offset).ok_or_else(unknown)
    }
}

fn unknown() -> Problem {
    Problem::new(Code::UploadUnknown, "no such upload; it may have expired")
}

/// 128 bits that nobody can guess: the keys of `RandomState` come from the system.
fn random_id() -> String {
    let word = || RandomState::new().hash_one(0);
    format!("{:016x}{:016x}", word(), word())
}

/// `POST`: opens a session, or stores a whole blob at once, or finds that it is there.
pub(super) async fn start(app: Arc<App>, repository: Name, request: Request) -> Answer {
    if let Some(digest) = query(request.uri(), "mount") {
        let digest = parse_digest(&digest)?;
        // Blobs belong to the whole store, so it makes no difference from where one is mounted.
        app.recent.hold(&app.store, &digest);
        if app.store.has(&digest) {
            return created(&repository, &digest);
        }
    }
    let digest = query(request.uri(), "digest").map(|text| parse_digest(&text)).transpose()?;
    let store = app.store.clone();
    let upload = blocking(move || store.upload()).await?;
    match digest {
        Some(digest) => {
            let idle = app.options.body_idle;
            let (upload, outcome) = receive::into_upload(request.into_body(), upload, idle).await?;
            outcome?;
            commit(&app, upload, &repository, digest).await
        }
        None => {
            let id = app.uploads.insert(repository.clone(), upload)?;
            progress(StatusCode::ACCEPTED, &repository, &id, 0)
        }
    }
}

/// `GET`: how far it is.
pub(super) fn status(app: &App, repository: &Name, id: &str) -> Answer {
    let offset = app.uploads.offset(repository, id)?;
    progress(StatusCode::NO_CONTENT, repository, id, offset)
}

/// `DELETE`: throws the session away.
pub(super) fn cancel(app: &App, repository: &Name, id: &str) -> Answer {
    drop(app.uploads.take(repository, id)?);
    app.uploads.remove(id);
    finish(Response::builder().status(StatusCode::NO_CONTENT))
}

/// `PATCH`: adds bytes.
pub(super) async fn append(
    app: Arc<App>,
    repository: Name,
    id: String,
    request: Request,
) -> Answer {
    let (name, key) = (repository.clone(), id.clone());
    let offset = detached(async move { receive_into(&app, &name, &key, request).await }).await?;
    progress(StatusCode::ACCEPTED, &repository, &id, offset)
}

/// `PUT`: adds the last bytes, if any, and publishes the blob under the digest in the query.
pub(super) async fn complete(
    app: Arc<App>,
    repository: Name,
    id: String,
    request: Request,
) -> Answer {
    let digest = query(request.uri(), "digest")
        .ok_or_else(|| Problem::new(Code::DigestInvalid, "the query lacks digest="))?;
    let digest = parse_digest(&digest)?;
    detached(async move {
        receive_into(&app, &repository, &id, request).await?;
        let upload = app.uploads.take(&repository, &id)?;
        // Right or wrong, the session is over: its bytes are either published or thrown away.
        app.uploads.remove(&id);
        commit(&app, upload, &repository, digest).await
    })
    .await
}

/// Runs to its end even when the client hangs up: then the body ends with an error, and the session gets
/// its upload back instead of losing it with the request.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(work).await.map_err(|error| Problem::internal(&error))?
}

/// Adds a request's body to a session; returns how far that is.
async fn receive_into(
    app: &App,
    repository: &Name,
    id: &str,
    request: Request,
) -> Result<u64, Problem> {
    let upload = app.uploads.take(repository, id)?;
    if let Err(problem) = check_offset(&request, upload.offset()) {
        app.uploads.put_back(id, upload);
        return Err(problem);
    }
    let received = receive::into_upload(request.into_body(), upload, app.options.body_idle).await;
    let (upload, outcome) = received.inspect_err(|_| app.uploads.remove(id))?;
    let offset = app.uploads.put_back(id, upload);
    outcome.map(|()| offset)
}

/// A chunk that says where it goes must go to the end of what is there, and be as long as it says.
fn check_offset(request: &Request, offset: u64) -> Result<(), Problem> {
    let headers = request.headers();
    let Some(header) = headers.get(header::CONTENT_RANGE) else { return Ok(()) };
    let range = header.to_str().ok().and_then(|range| {
        let range = range.strip_prefix("bytes ").unwrap_or(range);
        let (first, rest) = range.split_once('-')?;
        let last = rest.split_once('/').map_or(rest, |(last, _)| last);
        Some((first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?))
    });
    let Some((first, last)) = range.filter(|(first, _)| *first == offset) else {
        let message = format!("the upload has {offset} bytes, and the next chunk starts there");
        return Err(Problem::new(Code::RangeInvalid, message));
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|text| text.parse::<u64>().ok());
    if last < first || length.is_some_and(|length| length != last - first + 1) {
        let message = "the chunk's length is not that of its Content-Range";
        return Err(Problem::new(Code::SizeInvalid, message));
    }
    Ok(())
}

async fn commit(app: &App, upload: Upload, repository: &Name, digest: Digest) -> Answer {
    app.recent.hold(&app.store, &digest);
    blocking(move || upload.commit(&digest)).await?;
    created(repository, &digest)
}

fn created(name: &Name, digest: &Digest) -> Answer {
    let location = format!("/v2/{}/blobs/{digest}", repository(name));
    located(StatusCode::CREATED, &location, Some(digest))
}

/// An answer about an open session. The range's end is the last byte's index, so nothing yet is `0-0`
/// as well; that is how the protocol has it.
fn progress(status: StatusCode, name: &Name, id: &str, offset: u64) -> Answer {
    let response = Response::builder()
        .status(status)
        .header(header::LOCATION, format!("/v2/{}/blobs/uploads/{id}", repository(name)))
        .header(header::RANGE, format!("0-{}", offset.saturating_sub(1)))
        .header("docker-upload-uuid", id);
    super::finish_with(response, Body::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture::{name, scratch},
        server::ServerOptions,
    };
    use std::{
        fs::{self, File},
        time::SystemTime,
    };

    #[test]
    fn a_session_and_its_file_go_together() {
        let scratch = scratch();
        let files = || -> Vec<_> {
            let entries = fs::read_dir(scratch.folder.path().join("blobs")).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        let open = |upload_idle| {
            let options = ServerOptions { upload_idle, ..ServerOptions::default() };
            let app = App::new(scratch.store.clone(), options);
            let upload = scratch.store.upload().unwrap();
            let id = app.uploads.insert(name("me/m"), upload).unwrap();
            (app, id)
        };
        // One that may go on keeps its file, however long ago a byte of it came.
        let (app, id) = open(Duration::from_secs(60));
        let year = SystemTime::now() - Duration::from_secs(365 * 24 * 3600);
        File::options().write(true).open(&files()[0]).unwrap().set_modified(year).unwrap();
        app.collect();
        assert!(app.uploads.offset(&name("me/m"), &id).is_ok());
        let mut upload = app.uploads.take(&name("me/m"), &id).unwrap();
        upload.write(b"late").unwrap();
        upload.commit(&Digest::of(b"late")).unwrap();
        scratch.store.remove_unused([Digest::of(b"late")]).unwrap();
        // One that rested too long is unknown, and takes no space: before it is asked for and after.
        let (app, _) = open(Duration::ZERO);
        app.collect();
        assert_eq!(files(), Vec::<std::path::PathBuf>::new());
        let (app, id) = open(Duration::ZERO);
        assert!(app.uploads.offset(&name("me/m"), &id).is_err());
        let (app, id) = open(Duration::ZERO);
        assert!(app.uploads.take(&name("me/m"), &id).is_err());
        assert_eq!(files(), Vec::<std::path::PathBuf>::new());
    }
}
