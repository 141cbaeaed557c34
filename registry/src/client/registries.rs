//! What is configured about registries, and the HTTP clients that follow from it.

use super::{
    ClientConfig, ClientError, Limits, POOL_IDLE, address::Guard, endpoint,
    endpoint::canonical_host, error::chain,
};
use crate::trust::{RegistryTrust, Trust, TrustConfig};
use reqwest::{Certificate, ClientBuilder};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Once,
    time::Duration,
};
use url::Url;

/// Largest file of certificates, in bytes.
const CA_BYTES_MAX: u64 = 4 << 20;

/// Bytes that may be on their way in one request over HTTP/2: with a round trip of 100 ms, 80 MB/s.
const H2_STREAM_BYTES: u32 = 8 << 20;
/// The same for all requests of a connection, 320 MB/s. It is also the memory that they may take while
/// nobody reads.
const H2_CONNECTION_BYTES: u32 = 32 << 20;
/// The largest frame that is taken.
const H2_FRAME_BYTES: u32 = 64 << 10;
/// All requests share a connection over HTTP/2: one that has died is found out before they have all
/// failed on it.
const H2_PING: Duration = Duration::from_secs(10);

/// What is configured about one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Plain HTTP is allowed.
    pub insecure: bool,
    /// A PEM file of the certificates that sign its own, beside those of the system.
    pub ca: Option<PathBuf>,
    /// Asked first, in this order, for what is pulled; they get none of the registry's credentials.
    pub mirrors: Vec<Url>,
    /// Hosts that may give tokens for it, beside itself.
    pub realms: Vec<String>,
    /// How it is reached.
    pub proxy: Proxy,
    /// What is asked of the signatures of its models.
    pub trust: RegistryTrust,
}

/// How a registry is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// As the environment says.
    #[default]
    System,
    /// Through none.
    Direct,
    /// Through this one.
    Through(Url),
}

/// How the registry of one host is talked to.
#[derive(Clone, Debug, Default)]
pub(super) struct Route {
    pub(super) config: RegistryConfig,
    pub(super) guard: Guard,
    /// What is asked of signatures.
    pub(super) trust: Trust,
    /// For hosts elsewhere.
    remote: reqwest::Client,
    /// For this machine, never through a proxy.
    local: reqwest::Client,
}

impl Route {
    pub(super) fn http(&self, url: &Url) -> &reqwest::Client {
        if endpoint::is_loopback(url) { &self.local } else { &self.remote }
    }
}

/// The routes to all registries.
#[derive(Debug)]
pub(super) struct Registries {
    /// By [`canonical_host`].
    configured: BTreeMap<String, Route>,
    other: Route,
}

impl Registries {
    pub(super) fn new(config: &ClientConfig, limits: &Limits) -> Result<Registries, ClientError> {
        let builder = Builder::new(config, limits)?;
        let default = RegistryConfig::default();
        let mut configured = BTreeMap::new();
        for (host, registry) in &config.registries {
            let route = builder.route(host, registry)?;
            if configured.insert(canonical_host(host), route).is_some() {
                let error = format!("registries.\"{host}\"");
                let reason = "there is another table for the same registry; keep one".to_owned();
                return Err(ClientError::Setting { key: error, reason });
            }
        }
        // Whoever names the registry by its address means what it says, inside this network or not.
        if let Some(host) = config.registry.as_ref().map(endpoint::host_of) {
            let route = builder.route(&host, &default)?;
            configured.entry(canonical_host(&host)).or_insert(route);
        }
        Ok(Registries { configured, other: builder.route("", &default)? })
    }

    /// The route to a host, by its name with its port when it has one, in any spelling.
    pub(super) fn of(&self, host: &str) -> &Route {
        self.configured.get(&canonical_host(host)).unwrap_or(&self.other)
    }

    /// The policy that a host's own table states, if it states any.
    pub(super) fn stated_trust(&self, host: &str) -> Option<&Trust> {
        let route = self.configured.get(&canonical_host(host))?;
        route.config.trust.signatures.map(|_| &route.trust)
    }
}

/// Makes the clients of all routes.
struct Builder<'a> {
    agent: &'a str,
    limits: &'a Limits,
    local: reqwest::Client,
    /// Hosts that may be inside this network wherever they come up.
    inside: Vec<String>,
    trust: &'a TrustConfig,
}

impl<'a> Builder<'a> {
    fn new(config: &'a ClientConfig, limits: &'a Limits) -> Result<Builder<'a>, ClientError> {
        static PROVIDER: Once = Once::new();
        // An error means that the program has chosen a provider already, which is as good.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let agent = match config.user_agent.as_str() {
            "" => concat!("dsk/", env!("CARGO_PKG_VERSION")),
            agent => agent,
        };
        let hosts = config.private_hosts.iter().map(|host| host.to_ascii_lowercase());
        let inside = hosts.chain(proxies_of_environment()).collect();
        let local = build(|| base(agent, limits).no_proxy())?;
        Ok(Builder { agent, limits, local, inside, trust: &config.trust })
    }

    fn route(&self, host: &str, config: &RegistryConfig) -> Result<Route, ClientError> {
        let proxy = match &config.proxy {
            Proxy::Through(url) => Some(reqwest::Proxy::all(url.clone()).map_err(|error| {
                setting(host, "proxy", &format!("cannot be used: {}", chain(&error)))
            })?),
            Proxy::System | Proxy::Direct => None,
        };
        let certificates = config.ca.as_deref().map(|path| certificates(host, path)).transpose()?;
        let certificates = certificates.unwrap_or_default();
        let guard = self.guard(host, config);
        let trust = Trust::load(self.trust, &config.trust)
            .map_err(|reason| setting(host, "trusted_keys", &reason))?;
        let remote = build(|| {
            let mut builder = base(self.agent, self.limits).dns_resolver(guard.clone());
            if !certificates.is_empty() {
                builder = builder.tls_certs_merge(certificates.clone());
            }
            match (&config.proxy, &proxy) {
                (Proxy::Direct, _) => builder.no_proxy(),
                (_, Some(proxy)) => builder.proxy(proxy.clone()),
                _ => builder,
            }
        })?;
        let local = match certificates.is_empty() {
            true => self.local.clone(),
            false => build(|| {
                base(self.agent, self.limits).no_proxy().tls_certs_merge(certificates.clone())
            })?,
        };
        Ok(Route { config: config.clone(), guard, trust, remote, local })
    }

    /// A registry that is configured may be inside this network, and so may what it was given.
    fn guard(&self, host: &str, config: &RegistryConfig) -> Guard {
        let proxy = match &config.proxy {
            Proxy::Through(url) => url.host_str(),
            Proxy::System | Proxy::Direct => None,
        };
        let realms = config.realms.iter().map(|realm| without_port(realm));
        let canonical = canonical_host(host);
        let alone = [without_port(&canonical)];
        let names = endpoint::aliases(alone[0]).unwrap_or(&alone);
        let own = realms.chain(names.iter().copied()).chain(proxy).map(str::to_ascii_lowercase);
        Guard::new(own.chain(self.inside.iter().cloned()))
    }
}

/// Redirects are followed by hand (see `session`), so that credentials and schemes are looked at.
fn base(agent: &str, limits: &Limits) -> ClientBuilder {
    ClientBuilder::new()
        .user_agent(agent)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(limits.connect)
        .pool_idle_timeout(POOL_IDLE)
        .http2_initial_stream_window_size(H2_STREAM_BYTES)
        .http2_initial_connection_window_size(H2_CONNECTION_BYTES)
        .http2_keep_alive_interval(H2_PING)
        .http2_keep_alive_timeout(H2_PING)
        .http2_max_frame_size(H2_FRAME_BYTES)
}

fn build(builder: impl Fn() -> ClientBuilder) -> Result<reqwest::Client, ClientError> {
    let built = builder().build().or_else(|error| {
        // A bare container has no root certificates. That is no reason to refuse plain HTTP to this
        // machine: without roots, every https connection fails and says so.
        tracing::warn!(error = chain(&error), "no https: the system has no certificates");
        builder().tls_certs_only([]).build()
    });
    built.map_err(|error| ClientError::Unreachable {
        host: "any registry".to_owned(),
        reason: format!("the HTTP client cannot start: {}", chain(&error)),
    })
}

fn certificates(host: &str, path: &Path) -> Result<Vec<Certificate>, ClientError> {
    let wrong = |reason: &str| setting(host, "ca", &format!("{}: {reason}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| wrong(&error.to_string()))?.len();
    if length > CA_BYTES_MAX {
        return Err(wrong("more bytes than certificates have"));
    }
    let bytes = std::fs::read(path).map_err(|error| wrong(&error.to_string()))?;
    match Certificate::from_pem_bundle(&bytes) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(wrong("no certificate in PEM form")),
        Err(error) => Err(wrong(&chain(&error))),
    }
}

/// A setting that cannot be used: of one registry, or of all that have none of their own.
fn setting(host: &str, key: &str, reason: &str) -> ClientError {
    let key = match host {
        "" => key.to_owned(),
        host => format!("registries.\"{host}\".{key}"),
    };
    ClientError::Setting { key, reason: reason.to_owned() }
}

/// The hosts of the proxies that the environment names: the user's choice, and mostly inside.
fn proxies_of_environment() -> Vec<String> {
    let names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let names = names.iter().flat_map(|name| [(*name).to_owned(), name.to_ascii_lowercase()]);
    let values = names.filter_map(|name| std::env::var(name).ok());
    values.filter_map(|value| proxy_host(&value)).collect()
}

/// The host of a proxy as the environment gives it, with a scheme or without.
fn proxy_host(value: &str) -> Option<String> {
    let url = match value.contains("://") {
        true => Url::parse(value),
        false => Url::parse(&format!("http://{value}")),
    };
    Some(url.ok()?.host_str()?.to_ascii_lowercase())
}

fn without_port(host: &str) -> &str {
    let port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match host.rsplit_once(':') {
        Some((name, digits)) if port(digits) && (!name.contains(':') || name.ends_with(']')) => {
            name
        }
        _ => host,
    }
}

/// Mirrors are addresses without credentials, over plain HTTP only where that is allowed.
pub(super) fn check_mirror(mirror: &Url, insecure: bool) -> Result<(), ClientError> {
    endpoint::check_registry(mirror)?;
    endpoint::check_plain_http(mirror, insecure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: &str, config: RegistryConfig) -> Result<Route, ClientError> {
        let registries = BTreeMap::from([(host.to_owned(), config)]);
        let config = ClientConfig { registries, ..ClientConfig::default() };
        Registries::new(&config, &Limits::default()).map(|all| all.of(host).clone())
    }

    #[test]
    fn what_is_configured_may_be_inside() {
        let config = RegistryConfig {
            realms: vec!["auth.lan:8443".to_owned()],
            proxy: Proxy::Through(Url::parse("http://proxy.lan:3128").unwrap()),
            ..RegistryConfig::default()
        };
        let route = route("Registry.lan:5000", config).unwrap();
        for host in ["registry.lan", "auth.lan", "proxy.lan"] {
            assert!(route.guard.allows(host), "{host}");
        }
        assert!(!route.guard.allows("other.lan"));
    }

    #[test]
    fn a_table_holds_for_every_spelling_of_its_host() {
        let of = |tables: &[&str]| {
            let named = |host: &&str| {
                let realms = vec![format!("auth.{host}")];
                ((*host).to_owned(), RegistryConfig { realms, ..RegistryConfig::default() })
            };
            let registries = tables.iter().map(named).collect();
            let config = ClientConfig { registries, ..ClientConfig::default() };
            Registries::new(&config, &Limits::default())
        };
        for (table, spellings) in [
            ("docker.io", ["registry-1.docker.io", "index.docker.io", "Docker.io:443"]),
            ("registry-1.docker.io", ["docker.io", "index.docker.io", "docker.io"]),
            ("huggingface.co", ["hf.co", "HF.co", "huggingface.co:443"]),
            ("LAN.", ["lan", "lan:80", "lan:443"]),
        ] {
            let all = of(&[table]).unwrap();
            for host in spellings {
                let route = all.of(host);
                assert_eq!(route.config.realms, [format!("auth.{table}")], "{table} {host}");
                assert!(route.guard.allows(without_port(host)), "{table} {host}");
            }
            assert!(all.of("lan:5000").config.realms.is_empty());
        }
        let error = of(&["lan", "lan:443"]).unwrap_err().to_string();
        assert!(error.starts_with("registries.\"lan:443\": there is another table"), "{error}");
    }

    #[test]
    fn files_of_certificates_are_read_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let ca = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let config = RegistryConfig { ca: Some(path.clone()), ..RegistryConfig::default() };
            route("r.example", config).map(drop).map_err(|error| error.to_string())
        };
        let error = ca("nothing of the kind").unwrap_err();
        assert!(error.starts_with("registries.\"r.example\".ca: "), "{error}");
        assert!(error.ends_with("no certificate in PEM form"), "{error}");
        assert!(ca("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
        std::fs::remove_file(&path).unwrap();
        let config = RegistryConfig { ca: Some(path), ..RegistryConfig::default() };
        assert!(route("r.example", config).is_err());
    }

    #[test]
    fn hosts_and_ports() {
        assert_eq!(without_port("a.example:5000"), "a.example");
        assert_eq!(without_port("a.example"), "a.example");
        assert_eq!(without_port("[::1]:5000"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
        assert_eq!(proxy_host("proxy.lan:3128").as_deref(), Some("proxy.lan"));
        assert_eq!(proxy_host("http://u:p@proxy.lan:3128/").as_deref(), Some("proxy.lan"));
    }
}
