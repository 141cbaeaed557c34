//! A typed client of the native API, over TCP or a Unix socket.
//!
//! Every call is one request; those that answer with lines return [`Lines`], a stream of them. An
//! error the daemon reports inside a stream ends it with the same [`ClientError::Api`] as one it
//! reports by status.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::io::ReaderStream;
use url::Url;

use crate::error::ErrorCode;
use crate::fit::{FitRequest, FitResponse, PullChoice};
use crate::ndjson::{LINE_BYTES_MAX, LineDecoder};
use crate::ollama::{
    ChatLine, ChatRequest, CopyRequest, CreateRequest, DeleteRequest, GenerateLine,
    GenerateRequest, ProgressLine, PsResponse, PullRequest, PushRequest, ShowRequest, ShowResponse,
    TagsResponse, VersionResponse,
};
use crate::status::{
    DaemonStatus, DskVersion, LogLine, PinRequest, PinResponse, Residents, ResumeResponse,
    YieldRequest, YieldResponse,
};

use crate::store::{
    BringRequest, DfResponse, FilesRequest, FilesResponse, GcRequest, GcResponse, PartialsResponse,
    PauseRequest, PauseResponse, RemovePartialRequest, RemovedResponse, VerifyLine, VerifyRequest,
};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take that needs no model and moves no layer.
const SHORT_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of an error's body is read.
const ERROR_BODY_BYTES_MAX: usize = 64 << 10;

/// Where the daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://127.0.0.1:11434`
    Tcp(Url),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the endpoint.
    #[error("no dsk daemon answers at {endpoint}: {reason}")]
    Unreachable {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        reason: String,
    },
    /// The daemon answered with an error.
    #[error("{message}")]
    Api {
        /// The HTTP status; 200 when the error came inside a stream.
        status: u16,
        /// The daemon's text.
        message: String,
        /// The error's code, when the daemon is one that sends codes.
        code: Option<ErrorCode>,
    },
    /// The answer is not one of this API, or it broke off.
    #[error("the answer of {endpoint} makes no sense: {reason}")]
    Protocol {
        /// Who answered.
        endpoint: Endpoint,
        /// What was wrong.
        reason: String,
    },
    /// A file to be uploaded cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl ClientError {
    /// The error's code, when the daemon sent one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Api { code, .. } => *code,
            _ => None,
        }
    }
}

/// A client of one daemon. Cloning is cheap; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
    base: String,
}

impl Client {
    /// A client of the daemon at `endpoint`. Nothing is sent yet.
    pub fn connect(endpoint: &Endpoint) -> Result<Client, ClientError> {
        let base = match endpoint {
            Endpoint::Tcp(url) => url.as_str().trim_end_matches('/').to_owned(),
            // The host is only there because HTTP wants one.
            Endpoint::Unix(_) => "http://localhost".to_owned(),
        };
        let http = http_client(endpoint).map_err(|error| ClientError::Unreachable {
            endpoint: endpoint.clone(),
            reason: chain(&error),
        })?;
        Ok(Client { http, endpoint: endpoint.clone(), base })
    }

    /// Where this client's daemon listens.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The Ollama version whose API the daemon speaks; also the cheapest sign of life.
    pub async fn version(&self) -> Result<VersionResponse, ClientError> {
        self.short(self.request(Method::GET, "/api/version")).await
    }

    /// dsk's own version.
    pub async fn dsk_version(&self) -> Result<DskVersion, ClientError> {
        self.short(self.request(Method::GET, "/api/dsk/version")).await
    }

    /// How the daemon is.
    pub async fn status(&self) -> Result<DaemonStatus, ClientError> {
        self.short(self.request(Method::GET, "/api/dsk/status")).await
    }

    /// The last `count` lines of the daemon's log, about `model` or about anything; with `follow`
    /// the lines that come as well, until the daemon ends.
    pub async fn logs(
        &self,
        count: usize,
        model: Option<&str>,
        follow: bool,
    ) -> Result<Lines<LogLine>, ClientError> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("n", &count.to_string());
        query.append_pair("follow", if follow { "1" } else { "0" });
        query.extend_pairs(model.map(|model| ("model", model)));
        let path = format!("/api/dsk/logs?{}", query.finish());
        self.read_lines(self.request(Method::GET, &path)).await
    }

    /// What the daemon's machine has: processor, memory, GPUs, disk, as `dsk fit --machine` reads it.
    pub async fn machine(&self) -> Result<Value, ClientError> {
        self.short(self.request(Method::GET, "/api/dsk/machine")).await
    }

    /// What is in memory, and who waits for it.
    pub async fn residents(&self) -> Result<Residents, ClientError> {
        self.short(self.request(Method::GET, "/api/dsk/ps")).await
    }

    /// Keeps a model in memory until it is unpinned or stopped.
    pub async fn pin(&self, model: &str) -> Result<PinResponse, ClientError> {
        let body = PinRequest { model: model.to_owned() };
        self.short(self.request(Method::POST, "/api/dsk/pin").json(&body)).await
    }

    /// Lets a pinned model leave again as others do.
    pub async fn unpin(&self, model: &str) -> Result<PinResponse, ClientError> {
        let body = PinRequest { model: model.to_owned() };
        self.short(self.request(Method::POST, "/api/dsk/unpin").json(&body)).await
    }

    /// Gives the memory of all models away. Returns when it is free, which running requests can
    /// delay; after `within` they are cut off.
    pub async fn yield_memory(
        &self,
        within: Option<Duration>,
    ) -> Result<YieldResponse, ClientError> {
        let body = YieldRequest { within_seconds: within.map(|time| time.as_secs_f64()) };
        self.whole(self.request(Method::POST, "/api/dsk/yield").json(&body)).await
    }

    /// Takes the memory back.
    pub async fn resume(&self) -> Result<ResumeResponse, ClientError> {
        self.short(self.request(Method::POST, "/api/dsk/resume")).await
    }

    /// The models in the store.
    pub async fn tags(&self) -> Result<TagsResponse, ClientError> {
        self.short(self.request(Method::GET, "/api/tags")).await
    }

    /// The models in memory.
    pub async fn ps(&self) -> Result<PsResponse, ClientError> {
        self.short(self.request(Method::GET, "/api/ps")).await
    }

    /// What a model is.
    pub async fn show(&self, request: &ShowRequest) -> Result<ShowResponse, ClientError> {
        self.short(self.request(Method::POST, "/api/show").json(request)).await
    }

    /// Gives a model a second name.
    pub async fn copy(&self, source: &str, destination: &str) -> Result<(), ClientError> {
        let body = CopyRequest { source: source.to_owned(), destination: destination.to_owned() };
        self.done(self.request(Method::POST, "/api/copy").json(&body)).await
    }

    /// Takes a model out of the store.
    pub async fn delete(&self, model: &str) -> Result<(), ClientError> {
        let body = DeleteRequest { model: model.to_owned(), ..DeleteRequest::default() };
        self.done(self.request(Method::DELETE, "/api/delete").json(&body)).await
    }

    /// Fetches a model from its registry.
    pub async fn pull(&self, request: &PullRequest) -> Result<Lines<ProgressLine>, ClientError> {
        self.lines("/api/pull", request).await
    }

    /// Says what a pull would fetch, and fetches nothing.
    pub async fn pull_choice(&self, request: &PullRequest) -> Result<PullChoice, ClientError> {
        let request = PullRequest { dry_run: true, ..request.clone() };
        self.asked("/api/pull", &request).await
    }

    /// What a machine can run.
    pub async fn fit(&self, request: &FitRequest) -> Result<FitResponse, ClientError> {
        self.asked("/api/dsk/fit", request).await
    }

    /// Sends a model to its registry.
    pub async fn push(&self, request: &PushRequest) -> Result<Lines<ProgressLine>, ClientError> {
        self.lines("/api/push", request).await
    }

    /// Makes a model of blobs the daemon has, or of another model.
    pub async fn create(
        &self,
        request: &CreateRequest,
    ) -> Result<Lines<ProgressLine>, ClientError> {
        self.lines("/api/create", request).await
    }

    /// The next message of a conversation.
    pub async fn chat(&self, request: &ChatRequest) -> Result<Lines<ChatLine>, ClientError> {
        self.lines("/api/chat", request).await
    }

    /// The continuation of a prompt.
    pub async fn generate(
        &self,
        request: &GenerateRequest,
    ) -> Result<Lines<GenerateLine>, ClientError> {
        self.lines("/api/generate", request).await
    }

    /// Deletes what no model needs.
    pub async fn gc(&self, request: &GcRequest) -> Result<GcResponse, ClientError> {
        self.asked("/api/dsk/gc", request).await
    }

    /// What takes how much of the disk.
    pub async fn df(&self) -> Result<DfResponse, ClientError> {
        self.short(self.request(Method::GET, "/api/dsk/df")).await
    }

    /// The pulls that have not ended.
    pub async fn partials(&self) -> Result<PartialsResponse, ClientError> {
        self.short(self.request(Method::GET, "/api/dsk/partials")).await
    }

    /// Ends a pull for all who attend it; the next one goes on from there.
    pub async fn pause(&self, model: &str) -> Result<PauseResponse, ClientError> {
        let body = PauseRequest { model: model.to_owned() };
        self.short(self.request(Method::POST, "/api/dsk/pause").json(&body)).await
    }

    /// Gives a pull up that has not ended.
    pub async fn remove_partial(&self, model: &str) -> Result<RemovedResponse, ClientError> {
        let body = RemovePartialRequest { model: model.to_owned() };
        self.short(self.request(Method::DELETE, "/api/dsk/partials").json(&body)).await
    }

    /// Reads models again, and repairs them if that is asked for.
    pub async fn verify(&self, request: &VerifyRequest) -> Result<Lines<VerifyLine>, ClientError> {
        self.lines("/api/dsk/verify", request).await
    }

    /// Makes a model of a file on the daemon's machine, which stays where it is.
    pub async fn link(&self, request: &BringRequest) -> Result<Lines<ProgressLine>, ClientError> {
        self.lines("/api/dsk/link", request).await
    }

    /// Makes a model of a file on the daemon's machine, which is copied.
    pub async fn import(&self, request: &BringRequest) -> Result<Lines<ProgressLine>, ClientError> {
        self.lines("/api/dsk/import", request).await
    }

    /// What a model is made of.
    pub async fn files(&self, model: &str) -> Result<FilesResponse, ClientError> {
        let body = FilesRequest { model: model.to_owned() };
        self.short(self.request(Method::POST, "/api/dsk/files").json(&body)).await
    }

    /// The bytes of a blob as they come. Nobody has checked them: that is for who writes them down.
    pub async fn blob(
        &self,
        digest: &str,
    ) -> Result<impl Stream<Item = Result<bytes::Bytes, ClientError>> + use<>, ClientError> {
        let request = self.request(Method::GET, &format!("/api/dsk/blobs/{digest}"));
        let response = self.checked(self.answer(request).await?).await?;
        let endpoint = self.endpoint.clone();
        Ok(response.bytes_stream().map_err(move |error| {
            let reason = chain(&error);
            ClientError::Protocol { endpoint: endpoint.clone(), reason }
        }))
    }

    /// Whether the daemon has the blob of this digest.
    pub async fn blob_exists(&self, digest: &str) -> Result<bool, ClientError> {
        let request = self.request(Method::HEAD, &format!("/api/blobs/{digest}"));
        let response = self.answer(request.timeout(SHORT_TIMEOUT)).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => self.checked(response).await.map(|_| true),
        }
    }

    /// Uploads a file as the blob of this digest; `progress` hears how many bytes are sent.
    pub async fn upload_blob(
        &self,
        digest: &str,
        path: &Path,
        mut progress: impl FnMut(u64) + Send + Sync + 'static,
    ) -> Result<(), ClientError> {
        let unreadable = |source| ClientError::File { path: path.to_owned(), source };
        let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        let length = file.metadata().await.map_err(unreadable)?.len();
        let mut sent = 0;
        let pieces = ReaderStream::with_capacity(file, 256 << 10).inspect_ok(move |piece| {
            sent += piece.len() as u64;
            progress(sent);
        });
        let request = self
            .request(Method::POST, &format!("/api/blobs/{digest}"))
            .header(reqwest::header::CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(pieces));
        let response = self.answer(request).await?;
        self.checked(response).await.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// A call that answers soon, with one object.
    async fn short<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        self.whole(request.timeout(SHORT_TIMEOUT)).await
    }

    /// A call that answers with one object, sooner or later.
    async fn whole<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.answer(request).await?;
        let body = self.checked(response).await?.bytes().await;
        let body = body.map_err(|error| self.protocol(chain(&error)))?;
        serde_json::from_slice(&body).map_err(|error| self.protocol(error.to_string()))
    }

    /// A call whose answer may have to be asked for at a registry, so that nothing limits its time here.
    async fn asked<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let response = self.answer(self.request(Method::POST, path).json(body)).await?;
        let body = self.checked(response).await?.bytes().await;
        let body = body.map_err(|error| self.protocol(chain(&error)))?;
        serde_json::from_slice(&body).map_err(|error| self.protocol(error.to_string()))
    }

    /// A call that answers soon, with nothing.
    async fn done(&self, request: RequestBuilder) -> Result<(), ClientError> {
        let response = self.answer(request.timeout(SHORT_TIMEOUT)).await?;
        self.checked(response).await.map(drop)
    }

    /// A call that answers with lines.
    async fn lines<T>(&self, path: &str, body: &impl Serialize) -> Result<Lines<T>, ClientError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.read_lines(self.request(Method::POST, path).json(body)).await
    }

    async fn read_lines<T>(&self, request: RequestBuilder) -> Result<Lines<T>, ClientError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let response = self.checked(self.answer(request).await?).await?;
        Ok(Lines::new(response.bytes_stream(), self.endpoint.clone()))
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        request.send().await.map_err(|error| {
            let reason = chain(&error);
            let endpoint = self.endpoint.clone();
            match error.is_connect() {
                true => ClientError::Unreachable { endpoint, reason },
                false => ClientError::Protocol { endpoint, reason },
            }
        })
    }

    /// The response, unless its status is an error.
    async fn checked(&self, response: Response) -> Result<Response, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let mut body = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(Ok(piece)) = pieces.next().await {
            body.extend_from_slice(&piece);
            if body.len() > ERROR_BODY_BYTES_MAX {
                break;
            }
        }
        Err(error_of_body(status, &body))
    }

    fn protocol(&self, reason: String) -> ClientError {
        ClientError::Protocol { endpoint: self.endpoint.clone(), reason }
    }
}

/// The HTTP client for an endpoint. A proxy is never asked: the daemon is the user's own.
fn http_client(endpoint: &Endpoint) -> Result<reqwest::Client, reqwest::Error> {
    // Fails when another part of the program has chosen a provider, which does as well.
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT);
    match endpoint {
        Endpoint::Unix(path) => builder.unix_socket(path.as_path()).tls_certs_only([]).build(),
        Endpoint::Tcp(url) if url.scheme() == "https" => builder.build(),
        // Reading the system's roots takes longer than the whole call.
        Endpoint::Tcp(_) => builder.tls_certs_only([]).build(),
    }
}

/// An error and its causes, on one line; reqwest's own text names only the URL.
fn chain(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

/// The error in the body of an answer whose status is an error.
fn error_of_body(status: StatusCode, body: &[u8]) -> ClientError {
    let object = serde_json::from_slice::<Value>(body).unwrap_or_default();
    api_error(status.as_u16(), &object).unwrap_or_else(|| {
        let text = String::from_utf8_lossy(body).trim().to_owned();
        let message =
            if text.is_empty() { status.to_string() } else { format!("{status}: {text}") };
        ClientError::Api { status: status.as_u16(), message, code: None }
    })
}

/// The error an object reports, if it reports one.
fn api_error(status: u16, object: &Value) -> Option<ClientError> {
    let message = object.get("error")?.as_str()?.to_owned();
    let code = object.get("code").and_then(Value::as_str).and_then(ErrorCode::from_name);
    Some(ClientError::Api { status, message, code })
}

/// The body of an answer, in pieces of any size.
type Pieces = Pin<Box<dyn Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>;

/// The lines of an answer as they come. Dropping it ends the request.
pub struct Lines<T> {
    pieces: Pieces,
    decoder: LineDecoder,
    endpoint: Endpoint,
    ended: bool,
    line: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    fn new(
        pieces: impl Stream<Item = reqwest::Result<bytes::Bytes>> + Send + 'static,
        endpoint: Endpoint,
    ) -> Lines<T> {
        Lines {
            pieces: Box::pin(pieces),
            decoder: LineDecoder::new(LINE_BYTES_MAX),
            endpoint,
            ended: false,
            line: std::marker::PhantomData,
        }
    }

    /// The next line, or `None` after the last.
    pub async fn next(&mut self) -> Option<Result<T, ClientError>> {
        StreamExt::next(self).await
    }

    /// Reads to the end and returns the last line.
    pub async fn last(mut self) -> Result<Option<T>, ClientError> {
        let mut last = None;
        while let Some(line) = self.next().await {
            last = Some(line?);
        }
        Ok(last)
    }

    /// A line that is already here.
    fn buffered(&mut self) -> Option<Result<T, ClientError>> {
        match self.decoder.next_line() {
            Ok(line) => line.map(|line| self.parse(&line)),
            Err(too_long) => Some(Err(self.broken(too_long.to_string()))),
        }
    }

    fn parse(&mut self, line: &[u8]) -> Result<T, ClientError> {
        let value: Value =
            serde_json::from_slice(line).map_err(|error| self.broken(error.to_string()))?;
        if let Some(error) = api_error(StatusCode::OK.as_u16(), &value) {
            self.ended = true;
            return Err(error);
        }
        serde_json::from_value(value).map_err(|error| self.broken(error.to_string()))
    }

    /// Nothing after the first broken line can be trusted.
    fn broken(&mut self, reason: String) -> ClientError {
        self.ended = true;
        ClientError::Protocol { endpoint: self.endpoint.clone(), reason }
    }
}

impl<T: DeserializeOwned> Stream for Lines<T> {
    type Item = Result<T, ClientError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let lines = self.get_mut();
        loop {
            if lines.ended {
                return Poll::Ready(None);
            }
            if let Some(line) = lines.buffered() {
                return Poll::Ready(Some(line));
            }
            match std::task::ready!(lines.pieces.poll_next_unpin(cx)) {
                Some(Ok(piece)) => lines.decoder.push(&piece),
                Some(Err(error)) => return Poll::Ready(Some(Err(lines.broken(chain(&error))))),
                None => {
                    lines.ended = true;
                    let rest = lines.decoder.finish();
                    return Poll::Ready(rest.map(|line| lines.parse(&line)));
                }
            }
        }
    }
}

impl<T> fmt::Debug for Lines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
