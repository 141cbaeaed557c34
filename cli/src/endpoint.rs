//! Where the daemon is: `--host`, else `DSK_HOST`, else `OLLAMA_HOST`, else its Unix socket where
//! one answers, else the default port on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use dsk_daemon_api::Endpoint;
use url::{Host, Url};

use crate::failure::Failure;

/// Ollama's port, so that its clients find dsk.
pub(crate) const PORT_DEFAULT: u16 = 11434;

/// An endpoint, and whether somebody chose it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    /// The flag or variable that named it; `None` for the defaults.
    pub(crate) origin: Option<&'static str>,
}

impl Target {
    /// Whether the endpoint is on this machine, so that `dsk run` may start a daemon there.
    pub(crate) fn is_local(&self) -> bool {
        match &self.endpoint {
            Endpoint::Unix(_) => true,
            Endpoint::Tcp(url) => match url.host() {
                Some(Host::Ipv4(ip)) => ip.is_loopback(),
                Some(Host::Ipv6(ip)) => ip.is_loopback(),
                Some(Host::Domain(name)) => name == "localhost",
                None => false,
            },
        }
    }
}

/// Finds the daemon's endpoint.
pub(crate) fn resolve(
    flag: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Target, Failure> {
    let named = flag.map(|host| ("--host", host.to_owned())).or_else(|| {
        ["DSK_HOST", "OLLAMA_HOST"].into_iter().find_map(|name| {
            let value = env(name)?;
            let value = value.trim().trim_matches(['"', '\'']).trim().to_owned();
            (!value.is_empty()).then_some((name, value))
        })
    });
    if let Some((origin, text)) = named {
        let endpoint = parse(&text).map_err(|reason| {
            Failure::usage(format!("{origin} is not an address: {text:?}: {reason}"))
                .hint("write HOST:PORT, http://HOST:PORT or unix:/path/to/socket")
        })?;
        return Ok(Target { endpoint, origin: Some(origin) });
    }
    if let Some(path) = crate::folders::sockets(env).into_iter().find(|path| answers(path)) {
        return Ok(Target { endpoint: Endpoint::Unix(path), origin: None });
    }
    let endpoint = parse("127.0.0.1").map_err(Failure::usage)?;
    Ok(Target { endpoint, origin: None })
}

/// Whether somebody listens on a socket; a file that a killed daemon left behind does not.
fn answers(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}

/// Parses an address as people write it in `OLLAMA_HOST`. The error is the reason.
fn parse(text: &str) -> Result<Endpoint, String> {
    let socket = text.strip_prefix("unix:").map(|path| path.strip_prefix("//").unwrap_or(path));
    if let Some(path) = socket.or_else(|| text.starts_with('/').then_some(text)) {
        return match Path::new(path).is_absolute() {
            true => Ok(Endpoint::Unix(PathBuf::from(path))),
            false => Err("the path of a socket must be absolute".to_owned()),
        };
    }
    let url = if text.contains("://") { text.to_owned() } else { with_scheme(text) };
    let mut url = Url::parse(&url).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("the scheme {} is neither http nor https", url.scheme()));
    }
    if let Some(loopback) = url.host().and_then(unspecified) {
        url.set_ip_host(loopback).map_err(|()| "it names no host".to_owned())?;
    }
    Ok(Endpoint::Tcp(url))
}

/// `host`, `host:port`, `:port`, `::1` and `[::1]:port` as a URL; the port is Ollama's unless given.
fn with_scheme(text: &str) -> String {
    if text.parse::<Ipv6Addr>().is_ok() {
        return format!("http://[{text}]:{PORT_DEFAULT}");
    }
    let (authority, path) = match text.find('/') {
        Some(slash) => text.split_at(slash),
        None => (text, ""),
    };
    let authority = match authority.strip_prefix(':') {
        Some(port) => format!("127.0.0.1:{port}"),
        None => authority.to_owned(),
    };
    let host_end = authority.rfind(']').unwrap_or(0);
    let port = if authority[host_end..].contains(':') {
        String::new()
    } else {
        format!(":{PORT_DEFAULT}")
    };
    format!("http://{authority}{port}{path}")
}

/// A server's "every address" is no address for a client; this machine's loopback is meant.
fn unspecified(host: Host<&str>) -> Option<IpAddr> {
    match host {
        Host::Ipv4(ip) if ip.is_unspecified() => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Host::Ipv6(ip) if ip.is_unspecified() => Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        match parse(text) {
            Ok(endpoint) => endpoint.to_string(),
            Err(reason) => format!("refused: {reason}"),
        }
    }

    #[test]
    fn addresses_as_people_write_them() {
        let cases = [
            ("127.0.0.1:4000", "http://127.0.0.1:4000"),
            ("example.com", "http://example.com:11434"),
            (":8080", "http://127.0.0.1:8080"),
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("0.0.0.0:99", "http://127.0.0.1:99"),
            ("[::]:99", "http://[::1]:99"),
            ("::1", "http://[::1]:11434"),
            ("[::1]", "http://[::1]:11434"),
            ("http://h", "http://h"),
            ("https://h/dsk/", "https://h/dsk"),
            ("h:1/dsk", "http://h:1/dsk"),
            ("unix:/run/dsk.sock", "unix:/run/dsk.sock"),
            ("unix:///run/dsk.sock", "unix:/run/dsk.sock"),
            ("/run/dsk.sock", "unix:/run/dsk.sock"),
            ("unix:dsk.sock", "refused: the path of a socket must be absolute"),
            ("ftp://h", "refused: the scheme ftp is neither http nor https"),
            ("h:99999", "refused: invalid port number"),
        ];
        for (text, expected) in cases {
            assert_eq!(parsed(text), expected, "{text}");
        }
    }

    #[test]
    fn the_flag_beats_dsk_host_beats_ollama_host() {
        let both = |name: &str| match name {
            "DSK_HOST" => Some(" \"dsk:1\" ".to_owned()),
            "OLLAMA_HOST" => Some("ollama:2".to_owned()),
            _ => None,
        };
        let only_ollama = |name: &str| both(name).filter(|_| name == "OLLAMA_HOST");
        let target = |flag, env: &dyn Fn(&str) -> Option<String>| {
            let target = resolve(flag, env).unwrap();
            (target.endpoint.to_string(), target.origin)
        };
        assert_eq!(target(Some("flag:3"), &both), ("http://flag:3".into(), Some("--host")));
        assert_eq!(target(None, &both), ("http://dsk:1".into(), Some("DSK_HOST")));
        assert_eq!(target(None, &only_ollama), ("http://ollama:2".into(), Some("OLLAMA_HOST")));
    }

    #[test]
    fn a_socket_is_taken_only_while_somebody_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dsk.sock");
        let runtime = folder.path().to_string_lossy().into_owned();
        let env = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| runtime.clone());
        let found = || resolve(None, &env).unwrap().endpoint.to_string();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(found(), format!("unix:{}", path.display()));
        drop(listener);
        assert!(path.exists(), "the file stays, as after kill -9");
        assert_ne!(found(), format!("unix:{}", path.display()));
    }

    #[test]
    fn a_bad_address_names_its_origin() {
        let failure = resolve(Some("ftp://x"), &|_| None).unwrap_err();
        assert_eq!(failure.exit, crate::exit::Exit::Usage);
        assert!(failure.message.starts_with("--host is not an address"), "{failure}");
    }

    #[test]
    fn only_this_machine_is_local() {
        for (text, local) in [("localhost:1", true), ("[::1]:1", true), ("10.0.0.1", false)] {
            let target = resolve(Some(text), &|_| None).unwrap();
            assert_eq!(target.is_local(), local, "{text}");
        }
    }
}
