//! Tokens: read out of a token server's answer, and kept until they expire.

use reqwest::header::HeaderValue;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Longest token, in bytes; registries give about two kilobytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Longest answer with a token in it, in bytes.
pub(in crate::client) const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long a token lasts whose giver does not say.
const LIFE_DEFAULT: Duration = Duration::from_secs(60);
/// The longest that one is believed to last.
const LIFE_MAX: Duration = Duration::from_secs(3600);
/// A token is not used any more this long before it expires.
const MARGIN: Duration = Duration::from_secs(5);
/// Repositories whose tokens are remembered; those of no transfer under way go first.
const STATES_MAX: usize = 256;

/// What gets requests through.
#[derive(Clone, Debug)]
pub(in crate::client) struct Grant {
    /// The `Authorization` header; marked so that no log shows it.
    header: HeaderValue,
    /// None for what does not expire.
    expires: Option<Instant>,
}

impl Grant {
    /// None when the text cannot stand in a header.
    pub(in crate::client) fn new(text: &str, life: Option<Duration>) -> Option<Grant> {
        let mut header = HeaderValue::from_str(text).ok()?;
        header.set_sensitive(true);
        Some(Grant { header, expires: life.map(|life| Instant::now() + life) })
    }
}

/// How far signing in for one repository has come.
#[derive(Debug, Default)]
pub(in crate::client) struct State {
    held: Mutex<Held>,
    /// Whoever holds it is asking for a token; the others wait and use that one.
    pub(in crate::client) turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Held {
    grant: Option<Grant>,
    /// Which of the ways to sign in the grant came by.
    way: usize,
}

impl State {
    /// The `Authorization` header of the next request.
    pub(in crate::client) fn header(&self) -> Option<HeaderValue> {
        let held = guard(&self.held);
        let grant = held.grant.as_ref()?;
        let fresh = grant.expires.is_none_or(|expires| Instant::now() < expires);
        fresh.then(|| grant.header.clone())
    }

    /// The way by which a grant was had last.
    pub(in crate::client) fn way(&self) -> usize {
        guard(&self.held).way
    }

    pub(in crate::client) fn hold(&self, grant: Grant, way: usize) {
        *guard(&self.held) = Held { grant: Some(grant), way };
    }

    pub(in crate::client) fn drop_grant(&self) {
        *guard(&self.held) = Held::default();
    }
}

/// The states of all repositories, shared by the transfers of one client.
#[derive(Clone, Debug, Default)]
pub(in crate::client) struct Grants(Arc<Mutex<HashMap<String, Arc<State>>>>);

impl Grants {
    /// The state for an origin, a repository there and what is to be done with it.
    pub(in crate::client) fn of(
        &self,
        origin: &str,
        repository: &str,
        actions: &str,
    ) -> Arc<State> {
        let mut states = guard(&self.0);
        if states.len() >= STATES_MAX {
            states.retain(|_, state| Arc::strong_count(state) > 1);
        }
        let key = format!("{origin} {repository} {actions}");
        Arc::clone(states.entry(key).or_default())
    }
}

/// The token in a token server's answer, and how long it lasts.
pub(in crate::client) fn token_in(answer: &[u8]) -> Option<(String, Duration)> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
    }
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let token = answer.token.or(answer.access_token)?;
    let plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    let life = answer.expires_in.map_or(LIFE_DEFAULT, Duration::from_secs).min(LIFE_MAX);
    let known = plain && !token.is_empty() && token.len() <= TOKEN_BYTES_MAX;
    known.then(|| (token, life.saturating_sub(MARGIN)))
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_short_plain_text() {
        let read = |answer: &[u8]| token_in(answer).map(|(token, life)| (token, life.as_secs()));
        assert_eq!(read(br#"{"token":"abc","expires_in":300}"#), Some(("abc".to_owned(), 295)));
        assert_eq!(read(br#"{"access_token":"abc"}"#), Some(("abc".to_owned(), 55)));
        assert_eq!(read(br#"{"token":"a","expires_in":2}"#), Some(("a".to_owned(), 0)));
        let ages = br#"{"token":"a","expires_in":18446744073709551615}"#;
        assert_eq!(read(ages), Some(("a".to_owned(), 3595)));
        let long = format!(r#"{{"token":"{}"}}"#, "a".repeat(TOKEN_BYTES_MAX + 1));
        for bad in [br#"{"token":"a\r\nb"}"#.as_slice(), br#"{"token":""}"#, b"[]", long.as_bytes()]
        {
            assert_eq!(read(bad), None);
        }
    }

    #[test]
    fn a_grant_is_held_until_it_expires_and_never_shown() {
        let state = State::default();
        assert_eq!(state.header(), None);
        state.hold(Grant::new("Bearer secret", Some(Duration::from_secs(60))).unwrap(), 1);
        assert_eq!(state.header().unwrap(), "Bearer secret");
        assert!(!format!("{state:?}").contains("secret"));
        state.hold(Grant::new("Bearer secret", Some(Duration::ZERO)).unwrap(), 1);
        assert_eq!((state.header(), state.way()), (None, 1));
    }

    #[test]
    fn states_that_nobody_uses_are_forgotten() {
        let grants = Grants::default();
        let used = grants.of("https://a", "library/m", "pull");
        used.hold(Grant::new("Bearer x", None).unwrap(), 0);
        for number in 0..2 * STATES_MAX {
            grants.of("https://a", &number.to_string(), "pull");
        }
        assert!(guard(&grants.0).len() <= STATES_MAX);
        assert!(grants.of("https://a", "library/m", "pull").header().is_some());
        assert!(grants.of("https://a", "library/m", "pull,push").header().is_none());
        assert!(grants.of("https://b", "library/m", "pull").header().is_none());
    }
}
