//! Anonymous tokens: a registry may want one even for what everybody may read.

use url::Url;

/// Longest token, in bytes; registries give about two kilobytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Longest answer with a token in it, in bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A `WWW-Authenticate: Bearer` challenge.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Challenge {
    /// Reads `Bearer realm="...",service="...",scope="..."`; None for any other scheme.
    pub(super) fn parse(header: &str) -> Option<Challenge> {
        let (scheme, mut rest) = header.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        while let Some((key, value, after)) = parameter(rest) {
            match key.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
            rest = after;
        }
        Some(Challenge { realm: realm?, service, scope })
    }

    /// Where to ask for a token. The registry at `base` can only name itself: another realm would learn
    /// what we pull, and could be a machine inside this network.
    pub(super) fn token_url(&self, base: &Url) -> Option<Url> {
        let mut url = Url::parse(&self.realm).ok()?;
        let same_host = url.host() == base.host();
        let as_safe = url.scheme() == "https" || url.scheme() == base.scheme();
        if !same_host || !as_safe || !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let fields = [("service", &self.service), ("scope", &self.scope)];
        for (key, value) in fields {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(key, value);
            }
        }
        Some(url)
    }
}

/// The next `key="value"` or `key=value`, and what comes after it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (key, rest) = text.trim_start_matches([' ', ',']).split_once('=')?;
    let (value, rest) = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => rest.split_once(',').unwrap_or((rest, "")),
    };
    Some((key.trim(), value.to_owned(), rest))
}

/// The token in a token server's answer.
pub(super) fn token_in(answer: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let token = answer.token.or(answer.access_token)?;
    let plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    (plain && !token.is_empty() && token.len() <= TOKEN_BYTES_MAX).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token_url(header: &str, base: &str) -> Option<String> {
        let url = Challenge::parse(header)?.token_url(&Url::parse(base).unwrap())?;
        Some(url.to_string())
    }

    #[test]
    fn a_challenge_becomes_the_url_to_ask() {
        let header = r#"Bearer realm="https://r.example/token",service="r.example",scope="repository:a/b:pull""#;
        let expected = "https://r.example/token?service=r.example&scope=repository%3Aa%2Fb%3Apull";
        assert_eq!(token_url(header, "https://r.example/").as_deref(), Some(expected));
        assert!(token_url("bearer realm=https://r.example/t", "https://r.example/").is_some());
    }

    #[test]
    fn only_the_registrys_own_host_may_give_tokens() {
        let asked =
            |realm: &str| token_url(&format!(r#"Bearer realm="{realm}""#), "https://r.example/");
        assert!(asked("https://r.example:8443/token").is_some());
        for realm in
            ["https://evil.example/", "http://r.example/", "file:///r.example", "/token", ""]
        {
            assert_eq!(asked(realm), None, "{realm}");
        }
        assert_eq!(token_url("Basic realm=\"https://r.example/\"", "https://r.example/"), None);
    }

    #[test]
    fn tokens_are_short_plain_text() {
        assert_eq!(token_in(br#"{"token":"abc","expires_in":60}"#).as_deref(), Some("abc"));
        assert_eq!(token_in(br#"{"access_token":"abc"}"#).as_deref(), Some("abc"));
        let long = format!(r#"{{"token":"{}"}}"#, "a".repeat(TOKEN_BYTES_MAX + 1));
        for bad in [br#"{"token":"a\r\nb"}"#.as_slice(), br#"{"token":""}"#, b"[]", long.as_bytes()]
        {
            assert_eq!(token_in(bad), None);
        }
    }
}
