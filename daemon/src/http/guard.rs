//! Who may talk to the daemon: the Host and Origin headers of every request, and CORS answers.
//!
//! A web page cannot be kept from sending requests to 127.0.0.1, so the daemon looks at what a page
//! cannot forge. **Host** must name this machine: a page that points its own name at 127.0.0.1 (DNS
//! rebinding) sends that name. **Origin**, which a browser adds when one site calls another, must be
//! on the list. Either refusal comes before any handler runs, on simple requests too.
//!
//! Unlike Ollama, `file://` and `null` origins are off (any sandboxed frame has them) until the
//! user lists them, and the Host check stays on whatever the address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dsk_daemon_api::{ApiError, ErrorCode};

use super::reply::error_for_path;
use crate::Peer;

/// Schemes of programs that embed a browser; whatever host follows them is theirs.
const APP_SCHEMES: &[&str] = &[
    "app",
    "tauri",
    "vscode-webview",
    "vscode-file",
    "chrome-extension",
    "moz-extension",
    "safari-web-extension",
];
/// Hosts whose pages may call, over http and https, on any port.
const LOCAL_HOSTS: &[&str] = &["localhost", "127.0.0.1", "0.0.0.0", "[::1]"];
const ALLOWED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, User-Agent, Accept, X-Requested-With, \
    X-Request-Id, OpenAI-Beta, x-stainless-arch, x-stainless-async, \
    x-stainless-custom-poll-interval, x-stainless-helper-method, x-stainless-lang, \
    x-stainless-os, x-stainless-package-version, x-stainless-poll-helper, \
    x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, \
    x-stainless-timeout, x-api-key, anthropic-version, anthropic-beta, \
    anthropic-dangerous-direct-browser-access";
/// How long a browser may remember a preflight's answer.
const PREFLIGHT_SECONDS: &str = "43200";

/// The rules of one daemon.
#[derive(Debug)]
pub(crate) struct Guard {
    listens_on: SocketAddr,
    hostname: String,
    origins: Vec<String>,
}

impl Guard {
    /// The rules for a daemon that listens on this address, on the machine of this name, with these
    /// origins besides the usual ones.
    pub(crate) fn new(listens_on: SocketAddr, hostname: &str, origins: &[String]) -> Guard {
        let lower = |text: &String| text.trim().trim_end_matches('/').to_ascii_lowercase();
        Guard {
            listens_on,
            hostname: hostname.to_ascii_lowercase(),
            origins: origins.iter().map(lower).filter(|origin| !origin.is_empty()).collect(),
        }
    }

    /// Whether a Host header names this machine.
    fn host_allowed(&self, host: &str) -> bool {
        let Some(host) = without_port(host) else { return false };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => self.address_allowed(address),
            Err(_) => {
                host == "localhost"
                    || host.ends_with(".localhost")
                    || (!self.hostname.is_empty() && host == self.hostname)
            }
        }
    }

    /// An address in the Host header is no rebinding, which needs a name; but a daemon on the
    /// loopback interface has no reason to be called by any other.
    fn address_allowed(&self, address: IpAddr) -> bool {
        let listens_on = self.listens_on.ip();
        address.is_loopback()
            || address.is_unspecified()
            || address == listens_on
            || !listens_on.is_loopback()
    }

    /// Whether pages of this origin may call. `host` is the request's own, already allowed.
    fn origin_allowed(&self, origin: &str, host: Option<&str>) -> bool {
        let origin = origin.trim_end_matches('/').to_ascii_lowercase();
        if self.origins.iter().any(|pattern| matches(pattern, &origin)) {
            return true;
        }
        let Some((scheme, rest)) = origin.split_once("://") else { return false };
        if APP_SCHEMES.contains(&scheme) {
            return true;
        }
        let web = matches!(scheme, "http" | "https");
        let local = without_port(rest).is_some_and(|host| LOCAL_HOSTS.contains(&host));
        // The daemon's own page, by whatever name it was opened.
        let same = host.is_some_and(|host| host.eq_ignore_ascii_case(rest));
        web && (local || same)
    }
}

/// A pattern with `*` for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts = rest.split('*').collect::<Vec<_>>();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(end)
}

/// The host of `host`, `host:port`, `[v6]` or `[v6]:port`; `None` when it is none of these.
fn without_port(authority: &str) -> Option<&str> {
    let (host, port) = match authority.rfind(']') {
        Some(end) => authority.split_at(end + 1),
        None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    let numeric = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    (numeric && !host.is_empty()).then_some(host)
}

/// Refuses what the rules refuse, answers preflights, and adds CORS headers to the rest.
pub(crate) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    // No browser reaches the Unix socket, and a Host means nothing there.
    let over_socket = request.extensions().get::<Peer>() == Some(&Peer::Unix);
    let path = request.uri().path().to_owned();
    if !over_socket && let Err(error) = check_host(&guard, &request) {
        return error_for_path(&path, error);
    }
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
        return next.run(request).await;
    };
    if let Err(error) = check_origin(&guard, &origin, request.headers()) {
        return error_for_path(&path, error);
    }
    let mut response = match is_preflight(&request) {
        true => preflight(),
        false => next.run(request).await,
    };
    allow_origin(response.headers_mut(), origin);
    response
}

fn check_host(guard: &Guard, request: &Request) -> Result<(), ApiError> {
    let header = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    // A request without a Host comes from no browser.
    for host in header.into_iter().chain(target) {
        let text = String::from_utf8_lossy(host);
        if !guard.host_allowed(&text) {
            let message = format!(
                "this daemon does not answer for the host {text:?}; \
                 call it by localhost, its address or this machine's name"
            );
            return Err(ApiError::new(ErrorCode::Forbidden, message));
        }
    }
    Ok(())
}

fn check_origin(guard: &Guard, origin: &HeaderValue, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = String::from_utf8_lossy(origin.as_bytes());
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if guard.origin_allowed(&text, host) {
        return Ok(());
    }
    let message = format!(
        "pages of {text:?} may not call this daemon; add it to DSK_ORIGINS or OLLAMA_ORIGINS to allow it"
    );
    Err(ApiError::new(ErrorCode::Forbidden, message))
}

fn is_preflight(request: &Request) -> bool {
    let asks = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    request.method() == Method::OPTIONS && asks
}

fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
        // Chrome asks before a public page reaches a private address.
        (HeaderName::from_static("access-control-allow-private-network"), "true"),
    ];
    (StatusCode::NO_CONTENT, headers, Body::empty()).into_response()
}

fn allow_origin(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let exposed = HeaderValue::from_static("X-Request-Id");
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(listens_on: &str) -> Guard {
        let origins = ["https://chat.example.com/".to_owned(), "http://*.lan:8080".to_owned()];
        Guard::new(listens_on.parse().unwrap(), "Workbench", &origins)
    }

    #[test]
    fn hosts_of_a_daemon_on_loopback() {
        let guard = guard("127.0.0.1:11434");
        for host in ["localhost", "LOCALHOST:11434", "a.localhost", "127.0.0.1:1", "127.9.9.9"] {
            assert!(guard.host_allowed(host), "{host}");
        }
        for host in ["[::1]:11434", "0.0.0.0", "workbench:11434", "localhost."] {
            assert!(guard.host_allowed(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "192.168.1.2"] {
            assert!(!guard.host_allowed(host), "{host}");
        }
        for host in ["", "localhost:x", "localhost:1:2", "evil.example:11434", ":80", "[::1"] {
            assert!(!guard.host_allowed(host), "{host}");
        }
    }

    #[test]
    fn hosts_of_a_daemon_on_every_interface() {
        let guard = guard("0.0.0.0:11434");
        assert!(guard.host_allowed("192.168.1.2:11434"));
        assert!(!guard.host_allowed("evil.example:11434"));
    }

    #[test]
    fn origins() {
        let guard = guard("127.0.0.1:11434");
        for origin in ["http://localhost", "https://127.0.0.1:3000", "http://[::1]:5", "app://x"] {
            assert!(guard.origin_allowed(origin, None), "{origin}");
        }
        for origin in ["vscode-webview://1a2b", "https://chat.example.com", "http://pi.lan:8080"] {
            assert!(guard.origin_allowed(origin, None), "{origin}");
        }
        for origin in ["null", "file://", "https://evil.example", "http://localhost.evil.example"] {
            assert!(!guard.origin_allowed(origin, None), "{origin}");
        }
        assert!(!guard.origin_allowed("http://pi.lan:8080.evil.example", None));
        assert!(guard.origin_allowed("http://workbench:11434", Some("workbench:11434")));
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("*", "https://anything"));
        assert!(matches("http://*.a.*:1", "http://x.a.y:1"));
        assert!(!matches("http://*.a.*:1", "http://x.b.y:1"));
        assert!(!matches("ab*ba", "aba"));
    }
}
