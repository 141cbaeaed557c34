//! One transfer's talk with one registry: redirects, tokens, time limits, and what a status means.

use super::{
    Client, ClientError, Limits, TransferOptions,
    auth::{self, Challenge},
    endpoint,
    error::chain,
    retry::{self, Failure, FailureKind},
};
use crate::{Digest, Name, digest::excerpt};
use bytes::Bytes;
use reqwest::{
    Body, Method, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap, LOCATION, WWW_AUTHENTICATE},
};
use std::{
    sync::Mutex,
    sync::PoisonError,
    time::{Duration, SystemTime},
};
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
}

/// The registry of one name.
#[derive(Debug)]
pub(super) struct Session<'a> {
    client: &'a Client,
    pub(super) name: &'a Name,
    base: Url,
    insecure: bool,
    /// The anonymous token, once the registry has asked for one.
    token: Mutex<Option<String>>,
}

impl<'a> Session<'a> {
    /// Finds out under which URL the registry is.
    pub(super) async fn open(
        client: &'a Client,
        name: &'a Name,
        options: &TransferOptions,
    ) -> Result<Session<'a>, ClientError> {
        let urls = endpoint::candidates(client.registry.as_ref(), name, options.insecure)?;
        let [first, others @ ..] = urls.as_slice() else {
            let reason = "its name gives no address".to_owned();
            return Err(ClientError::Unreachable { host: name.host().to_owned(), reason });
        };
        let session = |base: &Url| Session {
            client,
            name,
            base: base.clone(),
            insecure: options.insecure,
            token: Mutex::default(),
        };
        for other in others {
            // Any answer at all will do: this only asks whether someone speaks TLS there.
            if session(first).send(&session(first).get(first.clone())).await.is_err() {
                tracing::warn!(host = name.host(), "no https there, going on with plain http");
                return Ok(session(other));
            }
        }
        Ok(session(first))
    }

    pub(super) fn limits(&self) -> &'a Limits {
        &self.client.limits
    }

    pub(super) fn insecure(&self) -> bool {
        self.insecure
    }

    pub(super) fn host(&self) -> String {
        endpoint::host_of(&self.base)
    }

    /// The URL of a resource of the repository, such as `manifests/latest`.
    pub(super) fn url(&self, resource: &str) -> Url {
        let mut url = self.base.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        let (namespace, model) = (self.name.namespace(), self.name.model());
        url.set_path(&format!("{prefix}/v2/{namespace}/{model}/{resource}"));
        url
    }

    pub(super) fn blob_url(&self, digest: &Digest) -> Url {
        self.url(&format!("blobs/{digest}"))
    }

    pub(super) fn get(&self, url: Url) -> Call<'static> {
        self.call(Method::GET, url)
    }

    pub(super) fn call(&self, method: Method, url: Url) -> Call<'static> {
        let timeout = Some(self.limits().stall);
        Call { method, url, headers: HeaderMap::new(), body: None, timeout }
    }

    /// Sends a request and follows redirects; any status that is none comes back.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Response, Failure> {
        let (mut url, mut redirects, mut challenged) = (call.url.clone(), 0, false);
        loop {
            let response = self.send_once(call, &url).await?;
            match response.status() {
                StatusCode::UNAUTHORIZED if !challenged && self.is_own(&url) => {
                    challenged = true;
                    self.authenticate(&response).await?;
                }
                status if status.is_redirection() && status != StatusCode::NOT_MODIFIED => {
                    redirects += 1;
                    url = self.redirected(call, &url, &response, redirects)?;
                }
                _ => return Ok(response),
            }
        }
    }

    /// The same origin as the registry: nobody else gets the token.
    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    async fn send_once(&self, call: &Call<'_>, url: &Url) -> Result<Response, Failure> {
        let mut request = self.http(url).request(call.method.clone(), url.clone());
        request = request.headers(call.headers.clone());
        if self.is_own(url)
            && let Some(token) = self.token()
        {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(body) = call.body {
            request = request.body(body());
        }
        self.timed(request, call.timeout).await
    }

    fn http(&self, url: &Url) -> &'a reqwest::Client {
        if endpoint::is_loopback(url) { &self.client.local } else { &self.client.remote }
    }

    async fn timed(
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
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let to = location.and_then(|location| from.join(location).ok());
        let to =
            to.ok_or_else(|| self.protocol(format!("{status} without a Location to go to")))?;
        endpoint::check_redirect(from, &to, self.insecure)?;
        Ok(to)
    }

    /// Gets an anonymous token as the 401 asks; the caller then tries again.
    async fn authenticate(&self, refused: &Response) -> Result<(), Failure> {
        let unauthorized = || ClientError::Unauthorized { host: self.host() };
        let header = refused.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let challenge = header.and_then(Challenge::parse).ok_or_else(unauthorized)?;
        let url = challenge.token_url(&self.base).ok_or_else(unauthorized)?;
        let request = self.http(&url).get(url);
        let response = self.timed(request, Some(self.limits().stall)).await?;
        if !response.status().is_success() {
            return Err(unauthorized().into());
        }
        let answer = self.body(response, auth::ANSWER_BYTES_MAX).await?;
        let token = answer.as_deref().and_then(auth::token_in).ok_or_else(unauthorized)?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    fn token(&self) -> Option<String> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
            401 | 403 => ClientError::Unauthorized { host: self.host() }.into(),
            404 => ClientError::NotFound { name: self.name.to_string() }.into(),
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
    fn broken(&self, error: &reqwest::Error) -> Failure {
        let cause =
            std::error::Error::source(error).map_or_else(|| "it broke off".to_owned(), chain);
        self.unreachable(cause)
    }
}
