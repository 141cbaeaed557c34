//! The challenges of a 401, and where they may send us for a token.

use crate::client::endpoint::{self, host_of};
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use url::Url;

/// Longest header that is read, in bytes.
const HEADER_BYTES_MAX: usize = 8 << 10;

/// Token servers on another host than their registry's, where both are known to belong together.
const KNOWN_REALMS: [(&str, &str); 2] =
    [("registry-1.docker.io", "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];

/// A way to sign in that a registry offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) enum Challenge {
    /// A name and a password with every request.
    Basic,
    /// A token from a token server.
    Bearer(Bearer),
}

/// A `WWW-Authenticate: Bearer` challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) struct Bearer {
    realm: String,
    pub(in crate::client) service: Option<String>,
    pub(in crate::client) scope: Option<String>,
}

/// Where a token is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) enum Realm {
    /// At the registry's own host.
    Own(Url),
    /// At a host that is known or configured to be the registry's token server.
    Allowed(Url),
    /// At one that nobody has vouched for, or not over HTTP at all; as the registry wrote it.
    Foreign(String),
}

impl Challenge {
    /// The challenge to answer: a token if the registry gives any, else a password.
    pub(in crate::client) fn of(headers: &HeaderMap) -> Option<Challenge> {
        let texts =
            headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<Challenge> = texts.flat_map(parse).collect();
        let bearer = all.iter().find(|one| matches!(one, Challenge::Bearer(_)));
        bearer.or(all.first()).cloned()
    }
}

impl Bearer {
    /// Where to ask. Another host would learn what we pull and could be a machine inside this network,
    /// so the registry at `base` can name itself, and else only one of `realms`.
    pub(in crate::client) fn realm(&self, base: &Url, realms: &[String]) -> Realm {
        let foreign = || Realm::Foreign(crate::digest::excerpt(&self.realm));
        let Ok(url) = Url::parse(&self.realm) else { return foreign() };
        let as_safe = url.scheme() == "https" || url.scheme() == base.scheme();
        if !as_safe || !matches!(url.scheme(), "http" | "https") || !endpoint::is_plain(&url) {
            return foreign();
        }
        if url.host() == base.host() {
            return Realm::Own(url);
        }
        let (own, host) = (base.host_str().unwrap_or_default(), url.host_str().unwrap_or_default());
        let known = KNOWN_REALMS.contains(&(own, host));
        let listed = realms.iter().any(|realm| *realm == host || *realm == host_of(&url));
        if known || listed { Realm::Allowed(url) } else { foreign() }
    }
}

/// Every challenge of a header that dsk can answer.
fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Bearer)> = Vec::new();
    let mut rest = if header.len() > HEADER_BYTES_MAX { "" } else { header };
    while let Some((token, value, after)) = next(rest) {
        rest = after;
        match (value, found.last_mut()) {
            (None, _) => {
                let empty = Bearer { realm: String::new(), service: None, scope: None };
                found.push((token.to_ascii_lowercase(), empty));
            }
            (Some(value), Some((_, bearer))) => bearer.set(token, value),
            (Some(_), None) => {}
        }
    }
    let known = found.into_iter().filter_map(|(scheme, bearer)| match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" if !bearer.realm.is_empty() => Some(Challenge::Bearer(bearer)),
        _ => None,
    });
    known.collect()
}

impl Bearer {
    fn set(&mut self, key: &str, value: String) {
        match key.to_ascii_lowercase().as_str() {
            "realm" => self.realm = value,
            "service" => self.service = Some(value),
            "scope" => self.scope = Some(value),
            _ => {}
        }
    }
}

/// The next scheme, or the next `key=value` or `key="value"`, and what comes after it.
fn next(text: &str) -> Option<(&str, Option<String>, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let end = text.find([' ', '\t', ',', '=']).unwrap_or(text.len());
    let (token, rest) = text.split_at(end);
    if text.is_empty() {
        return None;
    }
    let Some(value) = rest.strip_prefix('=') else { return Some((token, None, rest)) };
    let Some(quoted) = value.strip_prefix('"') else {
        let end = value.find([' ', '\t', ',']).unwrap_or(value.len());
        return Some((token, Some(value[..end].to_owned()), &value[end..]));
    };
    let (value, rest) = unquoted(quoted)?;
    Some((token, Some(value), rest))
}

/// A quoted text up to its end, which a header may lack.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn read(header: &str, expected: Expect) {
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, header.parse().unwrap());
        expected.assert_eq(&match Challenge::of(&headers) {
            Some(Challenge::Bearer(Bearer { realm, service, scope })) => {
                format!("{realm} {service:?} {scope:?}")
            }
            other => format!("{other:?}"),
        });
    }

    #[test]
    fn challenges_in_every_form() {
        read(
            r#"Bearer realm="https://r.example/token",service="r",scope="repository:a/b:pull,push""#,
            expect![[r#"https://r.example/token Some("r") Some("repository:a/b:pull,push")"#]],
        );
        read("bearer realm=https://r.example/t", expect!["https://r.example/t None None"]);
        read(
            r#"Basic realm="a, b", Bearer realm="https://r.example/t""#,
            expect!["https://r.example/t None None"],
        );
        read(r#"Negotiate, Basic realm="a \" Bearer realm=x""#, expect!["Some(Basic)"]);
        read("Negotiate abc==", expect!["None"]);
        read(r#"Bearer service="r""#, expect!["None"]);
        read(r#"Bearer realm="https://r.example"#, expect!["None"]);
        read(&format!("Basic realm={}", "a".repeat(HEADER_BYTES_MAX)), expect!["None"]);
    }

    fn realm_of(realm: &str, base: &str, realms: &[&str]) -> String {
        let bearer = Bearer { realm: realm.to_owned(), service: None, scope: None };
        let realms: Vec<String> = realms.iter().map(|&realm| realm.to_owned()).collect();
        match bearer.realm(&Url::parse(base).unwrap(), &realms) {
            Realm::Own(_) => "own".to_owned(),
            Realm::Allowed(_) => "allowed".to_owned(),
            Realm::Foreign(_) => "foreign".to_owned(),
        }
    }

    #[test]
    fn only_known_hosts_may_give_tokens() {
        let base = "https://r.example/";
        for (realm, expected) in [
            ("https://r.example/token", "own"),
            ("https://r.example:8443/token", "own"),
            ("https://auth.example/t", "allowed"),
            ("https://port.example:7/t", "allowed"),
            ("https://port.example/t", "foreign"),
            ("https://evil.example/", "foreign"),
            ("https://r.example.evil.example/", "foreign"),
            ("https://r.example@evil.example/", "foreign"),
            ("https://me:x@r.example/", "foreign"),
            ("http://r.example/", "foreign"),
            ("http://auth.example/", "foreign"),
            ("file:///r.example", "foreign"),
            ("/token", "foreign"),
            ("", "foreign"),
        ] {
            let allowed = ["auth.example", "port.example:7"];
            assert_eq!(realm_of(realm, base, &allowed), expected, "{realm}");
        }
        assert_eq!(realm_of("http://127.0.0.1:2/t", "http://127.0.0.1:1/", &[]), "own");
        let hub = "https://registry-1.docker.io/";
        assert_eq!(realm_of("https://auth.docker.io/token", hub, &[]), "allowed");
        assert_eq!(realm_of("https://auth.docker.io/token", base, &[]), "foreign");
    }

    proptest! {
        #[test]
        fn any_header_is_read_to_its_end(text in "[ -~]{0,60}|(Bearer|Basic) ([a-z]=\"?\\\\?,? ?){0,9}") {
            parse(&text);
        }
    }
}
