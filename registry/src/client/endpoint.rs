//! Where a name is served: which scheme, which host, and what a redirect may lead to.

use super::{
    ClientError,
    address::{Guard, Reach, stated},
};
use crate::{DEFAULT_HOST, Name};
use url::{Position, Url};

/// Registries that go by several names. The first is the one that they are filed under.
const ALIASES: [&[&str]; 2] =
    [&["docker.io", "index.docker.io", "registry-1.docker.io"], &["hf.co", "huggingface.co"]];
/// The host that serves the names of Docker's registry.
const DOCKER_SERVER: &str = "registry-1.docker.io";

/// What a registry is filed under, however its host is written: what the configuration says of one must
/// hold for every spelling that leads to it. In lower case, an address in its usual form, a well-known
/// registry by one of its names, and without a port that goes without saying under either scheme, since
/// one host may be tried under both.
pub fn canonical_host(host: &str) -> String {
    let url = Url::parse(&format!("https://{host}/")).ok();
    let url = url.filter(|url| is_plain(url) && &url[Position::AfterPort..] == "/");
    let Some((url, host)) = url.as_ref().and_then(|url| Some((url, url.host_str()?))) else {
        return host.to_ascii_lowercase();
    };
    let host = host.trim_end_matches('.');
    match url.port() {
        Some(port) if port != 80 => format!("{host}:{port}"),
        _ => aliases(host).map_or(host, |names| names[0]).to_owned(),
    }
}

/// All names of a registry that has several.
pub(super) fn aliases(host: &str) -> Option<&'static [&'static str]> {
    ALIASES.into_iter().find(|names| names.contains(&host))
}

/// The URLs under which the registry of `name` may be, best first. There are two only for a host whose
/// scheme nobody stated, when plain HTTP is allowed.
pub(super) fn candidates(
    registry: Option<&Url>,
    name: &Name,
    insecure: bool,
    guard: &Guard,
) -> Result<Vec<Url>, ClientError> {
    if let Some(registry) = registry.filter(|_| name.host() == DEFAULT_HOST) {
        check_plain_http(registry, insecure)?;
        return Ok(vec![registry.clone()]);
    }
    let host = match canonical_host(name.host()).as_str() {
        "docker.io" => DOCKER_SERVER,
        _ => name.host(),
    };
    let https = url_of("https", host)?;
    let http = url_of("http", host)?;
    // Whoever writes an address of this network means it, but these are never a registry.
    if stated(&https) == Some(Reach::Local) && !allows(guard, &https) {
        return Err(private(&https, &https));
    }
    Ok(match (is_loopback(&https), insecure) {
        (true, _) => vec![http],
        (false, true) => vec![https, http],
        (false, false) => vec![https],
    })
}

/// The URL has no name or password in it.
pub(super) fn is_plain(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}

fn allows(guard: &Guard, url: &Url) -> bool {
    url.host_str().is_some_and(|host| guard.allows(host))
}

fn private(from: &Url, to: &Url) -> ClientError {
    let address = to.host_str().unwrap_or_default().to_owned();
    ClientError::PrivateAddress { host: host_of(from), target: host_of(to), address }
}

/// A configured registry is an `http` or `https` URL without credentials.
pub(super) fn check_registry(registry: &Url) -> Result<(), ClientError> {
    let http = matches!(registry.scheme(), "http" | "https");
    if http && registry.has_host() && is_plain(registry) {
        return Ok(());
    }
    Err(ClientError::Protocol {
        host: host_of(registry),
        reason: "a registry is given as http://HOST or https://HOST, without credentials"
            .to_owned(),
    })
}

/// A file is fetched from an `http` or `https` URL without credentials. Unlike the host of a name, one
/// inside this network needs a word in the configuration: a URL comes from a page as often as by hand.
pub(super) fn check_file(url: &Url, insecure: bool, guard: &Guard) -> Result<(), ClientError> {
    let wrong = |reason: &str| Err(ClientError::Address { reason: reason.to_owned() });
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return wrong("it is no http or https address");
    }
    if !is_plain(url) {
        return wrong("it has a user or a password in it, which would end up in logs");
    }
    match stated(url) {
        Some(Reach::Private | Reach::Local) if !allows(guard, url) => Err(private(url, url)),
        _ => check_plain_http(url, insecure),
    }
}

fn url_of(scheme: &str, host: &str) -> Result<Url, ClientError> {
    Url::parse(&format!("{scheme}://{host}/")).map_err(|error| ClientError::Unreachable {
        host: host.to_owned(),
        reason: error.to_string(),
    })
}

/// The host with its port, for people.
pub(super) fn host_of(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => url.scheme().to_owned(),
    }
}

/// Whether the URL leads to this machine for sure.
pub(super) fn is_loopback(url: &Url) -> bool {
    stated(url) == Some(Reach::Loopback)
}

pub(super) fn check_plain_http(url: &Url, insecure: bool) -> Result<(), ClientError> {
    if url.scheme() == "https" || is_loopback(url) || insecure {
        return Ok(());
    }
    Err(ClientError::Insecure { host: host_of(url) })
}

/// Decides about a redirect; `Err` says why it is not followed. A name that it leads to is looked at once
/// its addresses are known, by the [`Guard`] that looks it up.
pub(super) fn check_redirect(
    from: &Url,
    to: &Url,
    insecure: bool,
    guard: &Guard,
) -> Result<(), ClientError> {
    let refuse = |reason: &str| {
        let reason = format!("it redirects to {}, {reason}", host_of(to));
        Err(ClientError::Protocol { host: host_of(from), reason })
    };
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return refuse("from https to plain http"),
        _ => return refuse("which is not an HTTP address"),
    }
    check_inward(from, to, guard)?;
    check_plain_http(to, insecure)
}

/// A registry leads no further in than it is itself, unless the configuration allows it.
pub(super) fn check_inward(from: &Url, to: &Url, guard: &Guard) -> Result<(), ClientError> {
    let outward = match stated(to) {
        None | Some(Reach::Public) => true,
        Some(Reach::Loopback) => is_loopback(from),
        Some(Reach::Private) => matches!(stated(from), Some(Reach::Private | Reach::Loopback)),
        Some(Reach::Local) => false,
    };
    if outward || allows(guard, to) { Ok(()) } else { Err(private(from, to)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn resolved(name: &str, registry: Option<&str>, insecure: bool, expected: Expect) {
        let registry = registry.map(|url| Url::parse(url).unwrap());
        let name = Name::parse(name).unwrap();
        let answer = match candidates(registry.as_ref(), &name, insecure, &Guard::default()) {
            Ok(urls) => urls.iter().map(Url::as_str).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&answer);
    }

    #[test]
    fn plain_http_is_for_loopback_or_by_request() {
        resolved("x", None, false, expect!["https://registry.ollama.ai/"]);
        resolved("localhost:5000/a/b", None, false, expect!["http://localhost:5000/"]);
        resolved("[::1]:5000/a/b", None, false, expect!["http://[::1]:5000/"]);
        resolved("127.9.9.9/a/b", None, false, expect!["http://127.9.9.9/"]);
        resolved("lan:5000/a/b", None, false, expect!["https://lan:5000/"]);
        resolved("lan:5000/a/b", None, true, expect!["https://lan:5000/ http://lan:5000/"]);
        resolved("x", Some("http://127.0.0.1:80/"), false, expect!["http://127.0.0.1/"]);
        resolved("x", Some("http://lan/"), true, expect!["http://lan/"]);
        resolved(
            "x",
            Some("http://lan:81/"),
            false,
            expect!["lan:81 would be spoken to over plain HTTP; allow it with --insecure"],
        );
        resolved("docker.io/ai/b", None, false, expect!["https://registry-1.docker.io/"]);
        resolved("10.0.0.1/a/b", None, false, expect!["https://10.0.0.1/"]);
        resolved(
            "169.254.169.254/a/b",
            None,
            true,
            expect![[
                r#"169.254.169.254 is inside this network (169.254.169.254); if that is right, allow it with a table [registries."169.254.169.254"] in the configuration"#
            ]],
        );
        // The configured registry stands in for the default host only.
        resolved("hf.co/a/b", Some("http://127.0.0.1/"), false, expect!["https://hf.co/"]);
    }

    #[test]
    fn a_registry_is_filed_under_one_spelling() {
        for (canonical, spellings) in [
            (
                "localhost",
                "localhost LOCALHOST localhost. localhost:80 localhost:443 localhost:080",
            ),
            ("lan:5000", "lan:5000 LAN:5000 lan.:5000 lan:05000"),
            ("127.0.0.1:5000", "127.0.0.1:5000 127.1:5000 0x7f.1:5000 2130706433:5000"),
            ("[::1]", "[::1] [0:0:0:0:0:0:0:1]:443 [::0.0.0.1]:80"),
            ("docker.io", "docker.io Docker.io:443 index.docker.io registry-1.docker.io."),
            ("docker.io:5000", "docker.io:5000"),
            ("hf.co", "hf.co HF.co huggingface.co huggingface.co:443"),
            ("registry.ollama.ai", "registry.ollama.ai Registry.Ollama.AI:443"),
            ("a/b", "A/b"),
            ("ada@lan", "ada@lan"),
        ] {
            for host in spellings.split(' ') {
                assert_eq!(canonical_host(host), canonical, "{host}");
            }
            assert_eq!(canonical_host(canonical), canonical);
        }
        resolved("Docker.io:443/ai/b", None, false, expect!["https://registry-1.docker.io/"]);
    }

    #[test]
    fn redirects_lead_neither_inwards_nor_to_plain_http() {
        let guard = Guard::new(["10.7.7.7".to_owned()]);
        let verdict = |from: &str, to: &str, insecure| {
            let [from, to] = [from, to].map(|url| Url::parse(url).unwrap());
            check_redirect(&from, &to, insecure, &guard).is_ok()
        };
        assert!(verdict("https://a.example/", "https://b.example/", false));
        assert!(verdict("http://127.0.0.1:1/", "http://127.0.0.1:2/", false));
        assert!(verdict("http://a.example/", "http://b.example/", true));
        assert!(verdict("https://10.0.0.1/", "https://10.0.0.2/", false));
        assert!(verdict("https://a.example/", "https://10.7.7.7/", false));
        assert!(!verdict("https://10.0.0.1/", "https://127.0.0.1/", false));
        assert!(!verdict("http://127.0.0.1:1/", "http://169.254.169.254/", true));
        assert!(!verdict("http://127.0.0.1:1/", "http://b.example/", false));
        for to in [
            "http://b.example/",
            "file:///etc/passwd",
            "https://169.254.169.254/",
            "https://127.0.0.1/",
            "https://localhost/",
            "https://10.0.0.1/",
            "https://[::1]/",
            "https://[fe80::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://0.0.0.0/",
        ] {
            assert!(!verdict("https://a.example/", to, true), "{to}");
        }
    }

    #[test]
    fn files_come_from_plain_addresses_outside() {
        let guard = Guard::new(["10.7.7.7".to_owned()]);
        let check = |url: &str, insecure| {
            let checked = check_file(&Url::parse(url).unwrap(), insecure, &guard);
            checked.map_err(|error| error.to_string())
        };
        for good in ["https://h.example/a.gguf", "http://127.0.0.1:1/a", "https://10.7.7.7/a"] {
            assert_eq!(check(good, false), Ok(()), "{good}");
        }
        assert_eq!(check("http://h.example/a", true), Ok(()));
        for (bad, reason) in [
            ("http://h.example/a", "--insecure"),
            ("https://ada:secret@h.example/a", "a user or a password"),
            ("https://ada@h.example/a", "a user or a password"),
            ("ftp://h.example/a", "no http or https"),
            ("file:///etc/passwd", "no http or https"),
            ("https://10.0.0.1/a", "inside this network"),
            ("https://192.168.1.1/a", "inside this network"),
            ("https://169.254.169.254/a", "inside this network"),
            ("https://[fe80::1]/a", "inside this network"),
        ] {
            let error = check(bad, false).unwrap_err();
            assert!(error.contains(reason) && !error.contains("secret"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_registry_url_has_no_credentials() {
        let ok = |url: &str| check_registry(&Url::parse(url).unwrap()).is_ok();
        assert!(ok("http://127.0.0.1:5000") && ok("https://r.example/prefix"));
        assert!(!ok("ftp://r.example") && !ok("https://user:secret@r.example") && !ok("file:///x"));
    }
}
