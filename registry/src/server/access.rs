//! Who may do what: tokens for pulling and for pushing, and what a web page may never do.

use super::{
    App,
    error::{Code, Problem},
};
use crate::Digest;
use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};

/// Shortest token, in characters: a shorter one could be guessed.
const TOKEN_CHARS_MIN: usize = 16;
/// Longest token, in characters.
const TOKEN_CHARS_MAX: usize = 1024;
/// Most tokens of a list.
const TOKENS_MAX: usize = 1000;

/// The tokens that a registry knows, hashed. Without one for pulling, everybody may pull; whoever may
/// push may pull as well.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    pull: Vec<Digest>,
    push: Vec<Digest>,
}

/// Why a text is no list of tokens. It never repeats one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// A line that is neither empty, nor a comment, nor a right and a token.
    #[error("line {0}: expected `pull TOKEN` or `push TOKEN`")]
    Line(usize),
    /// A token that is too short, too long, or not plain text.
    #[error(
        "line {0}: a token has {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} visible ASCII characters"
    )]
    Token(usize),
    /// More tokens than can be meant.
    #[error("more than {TOKENS_MAX} tokens")]
    TooMany,
}

impl Tokens {
    /// Reads lines of `pull TOKEN` and `push TOKEN`; empty lines and those that begin with `#` are
    /// skipped.
    pub fn parse(text: &str) -> Result<Tokens, TokensError> {
        let mut tokens = Tokens::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let (right, token) =
                line.split_once(char::is_whitespace).ok_or(TokensError::Line(number))?;
            let token = token.trim_start();
            let plain = token.bytes().all(|byte| byte.is_ascii_graphic());
            if !plain || !(TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&token.len()) {
                return Err(TokensError::Token(number));
            }
            match right {
                "pull" => tokens.pull.push(Digest::of(token.as_bytes())),
                "push" => tokens.push.push(Digest::of(token.as_bytes())),
                _ => return Err(TokensError::Line(number)),
            }
        }
        let few = tokens.pull.len() + tokens.push.len() <= TOKENS_MAX;
        if few { Ok(tokens) } else { Err(TokensError::TooMany) }
    }

    /// Whether there are none, so that everybody may do everything.
    pub fn is_empty(&self) -> bool {
        self.pull.is_empty() && self.push.is_empty()
    }

    /// Refuses a request without a token for what it does. Hashes are compared, so how long it takes
    /// says nothing of the tokens.
    fn check(&self, headers: &HeaderMap, writes: bool) -> Result<(), Problem> {
        if self.is_empty() || (!writes && self.pull.is_empty()) {
            return Ok(());
        }
        let Some(token) = presented(headers) else {
            return Err(Problem::new(Code::Unauthorized, "this registry wants a token"));
        };
        let digest = Digest::of(token.as_bytes());
        match (self.push.contains(&digest), self.pull.contains(&digest)) {
            (true, _) => Ok(()),
            (false, true) if !writes => Ok(()),
            (false, true) => Err(Problem::new(Code::Denied, "this token is for pulling only")),
            (false, false) => {
                Err(Problem::new(Code::Unauthorized, "this registry does not know the token"))
            }
        }
    }
}

/// The token of a request: a bearer token, or the password of any user.
fn presented(headers: &HeaderMap) -> Option<String> {
    let (scheme, value) =
        headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64_STANDARD.decode(value.trim()).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// Whether the request only reads.
pub(super) fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Refuses writes to a read-only registry, writes that a web page makes in someone's browser, and
/// whoever lacks the token.
pub(super) fn allow(app: &App, request: &Request) -> Result<(), Problem> {
    let (method, headers) = (request.method(), request.headers());
    app.options.tokens.check(headers, !reads(method))?;
    if reads(method) {
        return Ok(());
    }
    if app.read_only() {
        return Err(Problem::new(Code::Unsupported, "this registry is read-only"));
    }
    if headers.contains_key(header::ORIGIN) {
        return Err(Problem::new(Code::Denied, "a web page may not write to this registry"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PULL: &str = "pull-pull-pull-pull";
    const PUSH: &str = "push-push-push-push";

    fn verdict(tokens: &str, authorization: &str, writes: bool) -> Option<Code> {
        let mut headers = HeaderMap::new();
        if !authorization.is_empty() {
            headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        }
        let tokens = Tokens::parse(tokens).unwrap();
        tokens.check(&headers, writes).err().map(|problem| problem.code)
    }

    #[test]
    fn a_token_gives_its_right_and_pushing_includes_pulling() {
        let both = format!("# who may\n\npull {PULL}\n  push\t{PUSH}  \n");
        let bearer = |token: &str| format!("Bearer {token}");
        let basic =
            |token: &str| format!("basic {}", BASE64_STANDARD.encode(format!("anyone:{token}")));
        let (unknown, denied) = (Some(Code::Unauthorized), Some(Code::Denied));
        for shape in [&bearer as &dyn Fn(&str) -> String, &basic] {
            assert_eq!(verdict(&both, &shape(PULL), false), None);
            assert_eq!(verdict(&both, &shape(PULL), true), denied);
            assert_eq!(verdict(&both, &shape(PUSH), false), None);
            assert_eq!(verdict(&both, &shape(PUSH), true), None);
            assert_eq!(verdict(&both, &shape("guess"), false), unknown);
            assert_eq!(verdict(&format!("push {PUSH}"), &shape("guess"), true), unknown);
        }
        for junk in ["", "Bearer", "Digest x", "Basic !!", "Basic eA=="] {
            assert_eq!(verdict(&both, junk, false), unknown, "{junk}");
        }
    }

    #[test]
    fn without_a_token_for_pulling_everybody_may_pull() {
        assert_eq!(verdict("", "", true), None);
        assert_eq!(verdict(&format!("push {PUSH}"), "", false), None);
        assert_eq!(verdict(&format!("push {PUSH}"), "", true), Some(Code::Unauthorized));
        // A registry with tokens for pulling only takes no push.
        assert_eq!(verdict(&format!("pull {PULL}"), "", true), Some(Code::Unauthorized));
    }

    #[test]
    fn a_list_that_is_none_says_where_and_repeats_no_token() {
        let refused = |text: &str| Tokens::parse(text).unwrap_err();
        assert_eq!(refused("\nadmin sesame-sesame-sesame"), TokensError::Line(2));
        assert_eq!(refused("sesame-sesame-sesame"), TokensError::Line(1));
        assert_eq!(refused("pull short"), TokensError::Token(1));
        assert_eq!(refused(&format!("pull {PULL} {PUSH}")), TokensError::Token(1));
        assert_eq!(refused(&format!("pull {}", "x".repeat(2000))), TokensError::Token(1));
        assert_eq!(refused(&format!("pull {PULL}\n").repeat(1001)), TokensError::TooMany);
    }
}
