//! One transfer's talk with one registry and its mirrors: redirects, time limits, and what a status means.

use super::{
    Client, ClientError, Limits, TransferOptions, WebFile, address, endpoint,
    error::{causes, chain},
    probe::distrust,
    retry::{self, Failure, FailureKind},
    sign_in::{self, SignIn, Tries},
    variants::hub,
};
use crate::{Digest, Name, digest::excerpt, trust::Trust};
use bytes::Bytes;
use reqwest::{
    Body, Method, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION},
};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::sync::OnceCell;
use url::Url;

/// Redirects followed in a row.
const REDIRECTS_MAX: usize = 5;
/// Bytes read of the text that explains an error.
const ERROR_BYTES_MAX: usize = 4 << 10;

/// A request that can be sent again: after a redirect, after a challenge, after a failure.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// Makes the body anew for each sending.
    pub(super) body: Option<&'a (dyn Fn() -> Body + Send + Sync)>,
    /// None when the caller watches the time itself, as an upload does.
    pub(super) timeout: Option<Duration>,
    /// A redirect is followed; otherwise it comes back as the answer.
    pub(super) follows: bool,
}

/// What a session is for; a registry asks who we are by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Pull,
    Push,
}

/// The source of one name: its registry, or a server that only has files.
#[derive(Debug)]
pub(super) struct Session<'a> {
    client: &'a Client,
    pub(super) name: &'a Name,
    /// Where the blobs are that the source does not file by their digests.
    files: Mutex<BTreeMap<Digest, Url>>,
    /// What Hugging Face lists of the repository, once it was asked.
    listed: OnceCell<Vec<hub::Entry>>,
    purpose: Purpose,
    /// The mirrors in their order, and last the registry itself.
    origins: Vec<Origin<'a>>,
    /// The first of them that is still believed in.
    current: AtomicUsize,
}

/// One server that has the name's repository.
#[derive(Debug)]
pub(super) struct Origin<'a> {
    pub(super) base: Url,
    pub(super) route: &'a super::registries::Route,
    /// Plain HTTP is allowed.
    pub(super) insecure: bool,
    pub(super) sign_in: SignIn,
}

impl<'a> Session<'a> {
    /// Finds out under which URL the registry is, for a pull.
    pub(super) async fn open(
        client: &'a Client,
        name: &'a Name,
        options: &TransferOptions,
    ) -> Result<Session<'a>, ClientError> {
        let mut origins = Vec::new();
        for mirror in &client.route_of(name).config.mirrors {
            let repository = repository(name);
            origins.push(Origin::new(client, &repository, mirror.clone(), false, Purpose::Pull));
        }
        Session::with(client, name, options, Purpose::Pull, origins).await
    }

    /// The same for a push, which no mirror takes.
    pub(super) async fn open_to_push(
        client: &'a Client,
        name: &'a Name,
        options: &TransferOptions,
    ) -> Result<Session<'a>, ClientError> {
        Session::with(client, name, options, Purpose::Push, Vec::new()).await
    }

    async fn with(
        client: &'a Client,
        name: &'a Name,
        options: &TransferOptions,
        purpose: Purpose,
        mut origins: Vec<Origin<'a>>,
    ) -> Result<Session<'a>, ClientError> {
        let registry = client.registry.as_ref();
        let route = client.route_of(name);
        let insecure = options.insecure || route.config.insecure;
        let urls = endpoint::candidates(registry, name, insecure, &route.guard)?;
        let [first, others @ ..] = urls.as_slice() else {
            let reason = "its name gives no address".to_owned();
            return Err(ClientError::Unreachable { host: name.host().to_owned(), reason });
        };
        let repository = repository(name);
        let origin = |base: &Url| Origin::new(client, &repository, base.clone(), insecure, purpose);
        let mut own = origin(first);
        for other in others {
            let probe = Session::of(client, name, purpose, vec![own]);
            own = if probe.speaks_tls().await? {
                origin(first)
            } else {
                tracing::warn!(host = name.host(), "no https there, going on with plain http");
                origin(other)
            };
        }
        origins.push(own);
        Ok(Session::of(client, name, purpose, origins))
    }

    /// A session with a server that has one file of the model, and is no registry.
    pub(super) fn of_file(
        client: &'a Client,
        name: &'a Name,
        file: &WebFile,
        options: &TransferOptions,
    ) -> Result<Session<'a>, ClientError> {
        let route = client.registries.of(&endpoint::host_of(&file.url));
        let insecure = options.insecure || route.config.insecure;
        endpoint::check_file(&file.url, insecure, &route.guard)?;
        let mut base = file.url.clone();
        base.set_path("/");
        base.set_query(None);
        base.set_fragment(None);
        let path = file.url.path().trim_start_matches('/');
        let origin = Origin::new(client, path, base, insecure, Purpose::Pull);
        let session = Session::of(client, name, Purpose::Pull, vec![origin]);
        session.know(file.digest, file.url.clone());
        Ok(session)
    }

    fn of(
        client: &'a Client,
        name: &'a Name,
        purpose: Purpose,
        origins: Vec<Origin<'a>>,
    ) -> Session<'a> {
        let (files, listed, current) = (Mutex::default(), OnceCell::new(), AtomicUsize::new(0));
        Session { client, name, files, listed, purpose, origins, current }
    }

    /// Notes where a blob is that is not filed by its digest.
    pub(super) fn know(&self, digest: Digest, url: Url) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, url);
    }

    /// The GGUF files of a repository at Hugging Face.
    pub(super) async fn files_of_hub(&self) -> Result<&[hub::Entry], ClientError> {
        Ok(self.listed.get_or_try_init(|| hub::list(self)).await?)
    }

    pub(super) fn limits(&self) -> &'a Limits {
        &self.client.limits
    }

    /// What is asked of the signatures of the name's models, whichever mirror has them.
    pub(super) fn trust(&self) -> &'a Trust {
        self.client.trust_of(self.name)
    }

    /// Runs `ask` for what a mirror may lack although it has the model: it is believed in afterwards as
    /// before.
    pub(super) async fn aside<T>(&self, ask: impl Future<Output = T>) -> T {
        let at = self.current.load(Ordering::Relaxed);
        let answer = ask.await;
        self.current.store(at, Ordering::Relaxed);
        answer
    }

    fn at(&self) -> usize {
        self.current.load(Ordering::Relaxed).min(self.origins.len() - 1)
    }

    /// Where the name's repository is believed to be.
    pub(super) fn origin(&self) -> &Origin<'a> {
        &self.origins[self.at()]
    }

    pub(super) fn host(&self) -> String {
        endpoint::host_of(&self.origin().base)
    }

    /// The URL of a resource of the repository, such as `manifests/latest`.
    pub(super) fn url(&self, resource: &str) -> Url {
        let origin = self.origin();
        let (mut url, prefix) = (origin.base.clone(), origin.prefix());
        let (namespace, model) = (self.name.namespace(), self.name.model());
        url.set_path(&format!("{prefix}/v2/{namespace}/{model}/{resource}"));
        url
    }

    pub(super) fn blob_url(&self, digest: &Digest) -> Url {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.get(digest).cloned();
        drop(files);
        file.unwrap_or_else(|| self.url(&format!("blobs/{digest}")))
    }

    pub(super) fn get(&self, url: Url) -> Call<'static> {
        self.call(Method::GET, url)
    }

    pub(super) fn call(&self, method: Method, url: Url) -> Call<'static> {
        let timeout = Some(self.limits().stall);
        Call { method, url, headers: HeaderMap::new(), body: None, timeout, follows: true }
    }

    /// Sends a request and follows redirects; any status that is none comes back. What a mirror does not
    /// give is asked of the next one, and of the registry itself in the end.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Response, Failure> {
        let (mut at, mut url) = (self.at_for(&call.url), call.url.clone());
        loop {
            let origin = &self.origins[at];
            let sent = self.send_to(origin, call, &url).await;
            let failed = sent.as_ref().map_or(true, |response| !is_answer(response.status()));
            match self.origins.get(at + 1).and_then(|next| origin.moved(&url, next)) {
                Some(next) if failed => url = next,
                _ => return sent,
            }
            at += 1;
            self.current.fetch_max(at, Ordering::Relaxed);
            tracing::warn!(mirror = %origin.base, name = %self.name, "the mirror does not have it");
        }
    }

    /// Which origin a URL belongs to. Several may be on one server: the one that says most of the path.
    fn at_for(&self, url: &Url) -> usize {
        let at = self.at();
        let origins = self.origins.iter().enumerate().filter(|(_, origin)| origin.is_own(url));
        let best = origins.max_by_key(|(index, origin)| (origin.shares(url), *index == at));
        best.map_or(at, |(index, _)| index)
    }

    async fn send_to(
        &self,
        origin: &Origin<'a>,
        call: &Call<'_>,
        url: &Url,
    ) -> Result<Response, Failure> {
        let (mut url, mut redirects, mut tries) = (url.clone(), 0, Tries::default());
        loop {
            let shown = origin.sign_in.header_for(origin, &url);
            let response = self.send_once(origin, call, &url, shown.as_ref()).await?;
            match response.status() {
                StatusCode::UNAUTHORIZED if origin.is_own(&url) => {
                    sign_in::answer(self, origin, &response, shown, &mut tries).await?;
                }
                status
                    if call.follows
                        && status.is_redirection()
                        && status != StatusCode::NOT_MODIFIED =>
                {
                    redirects += 1;
                    url = self.redirected(origin, call, &url, &response, redirects)?;
                }
                _ => return Ok(response),
            }
        }
    }

    async fn send_once(
        &self,
        origin: &Origin<'_>,
        call: &Call<'_>,
        url: &Url,
        shown: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let mut request = origin.route.http(url).request(call.method.clone(), url.clone());
        request = request.headers(call.headers.clone());
        if let Some(shown) = shown {
            request = request.header(AUTHORIZATION, shown.clone());
        }
        if let Some(body) = call.body {
            request = request.body(body());
        }
        self.timed(request, call.timeout).await
    }

    /// Sends one request as it is, without redirects and without signing in.
    pub(super) async fn timed(
        &self,
        request: RequestBuilder,
        timeout: Option<Duration>,
    ) -> Result<Response, Failure> {
        let sent = match timeout {
            None => request.send().await,
            Some(limit) => tokio::time::timeout(limit, request.send())
                .await
                .map_err(|_| self.unreachable(format!("no answer within {limit:?}")))?,
        };
        sent.map_err(|error| self.broken(&error))
    }

    fn redirected(
        &self,
        origin: &Origin<'_>,
        call: &Call<'_>,
        from: &Url,
        response: &Response,
        redirects: usize,
    ) -> Result<Url, Failure> {
        let status = response.status();
        let keeps_method = matches!(status.as_u16(), 307 | 308);
        if !keeps_method && !matches!(call.method, Method::GET | Method::HEAD) {
            return Err(self
                .protocol(format!("it redirects a {} with {status}", call.method))
                .into());
        }
        if redirects > REDIRECTS_MAX {
            return Err(self.protocol(format!("more than {REDIRECTS_MAX} redirects")).into());
        }
        let to = self.location_from(origin, from, response, &[LOCATION])?;
        to.ok_or_else(|| self.protocol(format!("{status} without a Location to go to")).into())
    }

    /// Where an answer to a request to `from` sends us by the first of these headers that it has; an
    /// error when we may not go there.
    pub(super) fn location(
        &self,
        from: &Url,
        response: &Response,
        headers: &[HeaderName],
    ) -> Result<Option<Url>, ClientError> {
        self.location_from(self.origin(), from, response, headers)
    }

    fn location_from(
        &self,
        origin: &Origin<'_>,
        from: &Url,
        response: &Response,
        headers: &[HeaderName],
    ) -> Result<Option<Url>, ClientError> {
        let Some(value) = headers.iter().find_map(|name| response.headers().get(name)) else {
            return Ok(None);
        };
        let to = value.to_str().ok().and_then(|location| from.join(location).ok());
        let to = to.ok_or_else(|| self.protocol("it sends us to what is no address".to_owned()))?;
        endpoint::check_redirect(from, &to, origin.insecure, &origin.route.guard)?;
        Ok(Some(to))
    }

    /// Reads a small body whole; None when it is larger than `max` bytes.
    pub(super) async fn body(
        &self,
        mut response: Response,
        max: usize,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            if body.len() + chunk.len() > max {
                return Ok(None);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body))
    }

    /// The next bytes of a body, if they come in time; None at its end.
    pub(super) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Failure> {
        let limit = self.limits().stall;
        match tokio::time::timeout(limit, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(self.broken(&error)),
            Err(_) => Err(self.unreachable(format!("no byte for {limit:?}"))),
        }
    }

    /// What a status other than the hoped-for one means.
    pub(super) async fn refused(&self, response: Response) -> Failure {
        let status = response.status();
        match status.as_u16() {
            401 | 403 => sign_in::refused(self.origin()).into(),
            // To a push it is about what was sent, or a repository that is to be made first.
            404 if self.purpose == Purpose::Pull => {
                ClientError::NotFound { name: self.name.to_string() }.into()
            }
            408 | 429 | 500 | 502 | 503 | 504 => {
                let error = ClientError::Unreachable {
                    host: self.host(),
                    reason: format!("it answers {status}"),
                };
                let pause = retry::retry_after(response.headers(), SystemTime::now());
                Failure { error, kind: FailureKind::Again(pause) }
            }
            _ => {
                let body = self.body(response, ERROR_BYTES_MAX).await.ok().flatten();
                let text = String::from_utf8_lossy(body.as_deref().unwrap_or_default());
                self.protocol(format!("{status} {}", excerpt(text.trim()))).into()
            }
        }
    }

    pub(super) fn protocol(&self, reason: String) -> ClientError {
        ClientError::Protocol { host: self.host(), reason }
    }

    pub(super) fn unreachable(&self, reason: String) -> Failure {
        Failure::again(ClientError::Unreachable { host: self.host(), reason })
    }

    /// A connection that did not come about, or broke. The URL is left out: it may be a signed one.
    pub(super) fn broken(&self, error: &reqwest::Error) -> Failure {
        if let Some(refused) = refused_address(error) {
            let address::Refused { host, address } = refused;
            let own = self.origin().base.host_str() == Some(host);
            let target = if own { self.host() } else { host.clone() };
            let address = address.to_string();
            return ClientError::PrivateAddress { host: self.host(), target, address }.into();
        }
        if let Some(reason) = distrust(error, &self.host()) {
            return self.unreachable(reason);
        }
        let cause =
            std::error::Error::source(error).map_or_else(|| "it broke off".to_owned(), chain);
        self.unreachable(cause)
    }
}

/// The guard's refusal, if it is among the causes.
pub(super) fn refused_address(error: &reqwest::Error) -> Option<&address::Refused> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

impl<'a> Origin<'a> {
    pub(super) fn new(
        client: &'a Client,
        repository: &str,
        base: Url,
        insecure: bool,
        purpose: Purpose,
    ) -> Origin<'a> {
        let route = client.registries.of(&endpoint::host_of(&base));
        let insecure = insecure || route.config.insecure;
        let sign_in = SignIn::new(client, &base, repository, purpose);
        Origin { base, route, insecure, sign_in }
    }

    /// The same origin as the server: nobody else gets what it gave us, or what is meant for it.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// What of a URL's path is this origin's own part.
    fn prefix(&self) -> &str {
        self.base.path().trim_end_matches('/')
    }

    /// How long the part of the path is that a URL shares with all of this origin; none for a URL of
    /// another one.
    fn shares(&self, url: &Url) -> Option<usize> {
        let rest = url.path().strip_prefix(self.prefix())?;
        (rest.starts_with('/') && self.is_own(url)).then_some(self.prefix().len())
    }

    /// The URL of the same resource at `next`.
    fn moved(&self, url: &Url, next: &Origin<'_>) -> Option<Url> {
        self.shares(url)?;
        let resource = url.path().strip_prefix(self.prefix())?;
        let mut moved = next.base.clone();
        moved.set_path(&format!("{}{resource}", next.prefix()));
        moved.set_query(url.query());
        Some(moved)
    }
}

/// What sign-ins call the repository of a name.
fn repository(name: &Name) -> String {
    format!("{}/{}", name.namespace(), name.model())
}

/// Whether a mirror has answered for the registry: what it gave, or that the bytes end earlier.
fn is_answer(status: StatusCode) -> bool {
    status.is_success()
        || matches!(status, StatusCode::NOT_MODIFIED | StatusCode::RANGE_NOT_SATISFIABLE)
}
