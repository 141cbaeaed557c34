//! One server's challenge answered: which ways there are, and the next one that has not failed yet.
//!
//! Who we are goes to the registry's own origin, to its token server and nowhere else: no redirect is
//! followed with it, and a token server on a host that nobody vouched for is not asked.

use super::{
    Client, ClientError, Keyring, Limits,
    auth::{
        self, ANSWER_BYTES_MAX, Bearer, Challenge, Credential, Grant, Place, Realm, Secret, State,
        token_in,
    },
    endpoint::{self, host_of},
    retry::Failure,
    session::{Origin, Purpose, Session},
};
use crate::DEFAULT_HOST;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD},
};
use reqwest::{
    RequestBuilder, Response,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use url::{Url, form_urlencoded};

/// Challenges of one request that are looked at; after that it is refused.
const CHALLENGES_MAX: usize = 6;
/// Bytes of a signed request's nonce.
const NONCE_BYTES: usize = 16;

/// Signing in at one server, for one repository and one purpose.
#[derive(Debug)]
pub(super) struct SignIn {
    keyring: Arc<Keyring>,
    state: Arc<State>,
    repository: String,
    purpose: Purpose,
    /// The user's token, at Hugging Face.
    hub: Option<HeaderValue>,
}

/// What has become of one request so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tries {
    /// Challenges that it met.
    challenges: usize,
    /// Those that it answered itself; others had been answered meanwhile for another request.
    answers: usize,
}

/// A way to answer a challenge.
#[derive(Debug)]
enum Way {
    /// This header with every request.
    Header(String),
    /// A token for everybody, or for whoever has the credential.
    Token(Url, Option<Credential>),
    /// A token for whoever can sign for it.
    Signed(Url, Box<auth::SigningKey>),
}

impl SignIn {
    pub(super) fn new(client: &Client, base: &Url, repository: &str, purpose: Purpose) -> SignIn {
        let repository = repository.to_owned();
        let origin = base.origin().ascii_serialization();
        let state = client.grants.of(&origin, &repository, actions(purpose));
        let token = is_hub(base).then(|| client.keyring.hub_token()).flatten();
        let hub = token.and_then(|Secret(token)| {
            let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
            header.set_sensitive(true);
            Some(header)
        });
        SignIn { keyring: Arc::clone(&client.keyring), state, repository, purpose, hub }
    }

    /// What a request to `url` shows; nothing when that is another origin.
    pub(super) fn header_for(&self, origin: &Origin<'_>, url: &Url) -> Option<HeaderValue> {
        let held = self.state.header().filter(|_| origin.is_own(url));
        held.or_else(|| self.hub.clone().filter(|_| is_hub(url)))
    }
}

fn actions(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Pull => "pull",
        Purpose::Push => "pull,push",
    }
}

/// Hugging Face goes by two names; its token is for both, and over https only.
fn is_hub(url: &Url) -> bool {
    url.scheme() == "https" && matches!(url.host_str(), Some("hf.co" | "huggingface.co"))
}

/// Answers a 401 of the server's own, which came in spite of `shown` and of what was tried before. The
/// caller then tries again.
pub(super) async fn answer(
    session: &Session<'_>,
    origin: &Origin<'_>,
    response: &Response,
    shown: Option<HeaderValue>,
    tries: &mut Tries,
) -> Result<(), Failure> {
    let state = &origin.sign_in.state;
    let _turn = state.turn.lock().await;
    tries.challenges += 1;
    if tries.challenges > CHALLENGES_MAX {
        return Err(refused(origin).into());
    }
    let held = origin.sign_in.header_for(origin, &origin.base);
    if held.is_some() && held != shown {
        // Another request has signed in meanwhile.
        return Ok(());
    }
    let ways = match Challenge::of(response.headers()) {
        Some(challenge) => ways(origin, &challenge).await?,
        None => Vec::new(),
    };
    // The first refusal may only mean that a token is too old; a second one asks for something better.
    let first = if tries.answers == 0 { state.way() } else { state.way() + 1 };
    tries.answers += 1;
    for (index, way) in ways.into_iter().enumerate().skip(first) {
        if let Some(grant) = grant(session, origin, way).await? {
            state.hold(grant, index);
            return Ok(());
        }
    }
    let error = refused(origin);
    state.drop_grant();
    Err(error.into())
}

/// The ways to answer, the one that shows least first.
async fn ways(origin: &Origin<'_>, challenge: &Challenge) -> Result<Vec<Way>, ClientError> {
    let SignIn { keyring, repository, .. } = &origin.sign_in;
    let host = host_of(&origin.base);
    let unusable =
        |reason: String| ClientError::Unauthorized { host: host.clone(), remedy: reason };
    let place = Place { host: &host, repository };
    let credential = keyring.credential(place).await.map_err(&unusable)?;
    let bearer = match (challenge, &credential) {
        (_, Some(Credential::Token(Secret(token)))) => {
            return Ok(vec![Way::Header(format!("Bearer {token}"))]);
        }
        (Challenge::Basic, _) => {
            return Ok(basic(credential).map(Way::Header).into_iter().collect());
        }
        (Challenge::Bearer(bearer), _) => bearer,
    };
    let (url, own) = match bearer.realm(&origin.base, &origin.route.config.realms) {
        Realm::Own(url) => (url, true),
        Realm::Allowed(url) => (url, false),
        Realm::Foreign(realm) => return Err(unusable(foreign(&realm, &host))),
    };
    endpoint::check_inward(&origin.base, &url, &origin.route.guard)?;
    endpoint::check_plain_http(&url, origin.insecure)?;
    let signing = if own { keyring.signing_key().map_err(&unusable)? } else { None };
    let url = asking(&url, bearer, &origin.sign_in);
    let signed = signable(url.clone());
    let mut ways = vec![Way::Token(url, credential)];
    ways.extend(signing.map(|key| Way::Signed(signed, Box::new(key))));
    Ok(ways)
}

fn foreign(realm: &str, host: &str) -> String {
    format!(
        "it wants a token from {realm}, which is another host; if that is right, add the host to \
         realms under [registries.\"{host}\"] in the configuration"
    )
}

fn basic(credential: Option<Credential>) -> Option<String> {
    let Some(Credential::Password { user, password: Secret(password) }) = credential else {
        return None;
    };
    Some(format!("Basic {}", BASE64.encode(format!("{user}:{password}"))))
}

/// The token server's URL with what the challenge asks for.
fn asking(realm: &Url, bearer: &Bearer, sign_in: &SignIn) -> Url {
    let mut url = realm.clone();
    if let Some(service) = &bearer.service {
        url.query_pairs_mut().append_pair("service", service);
    }
    let own = || format!("repository:{}:{}", sign_in.repository, actions(sign_in.purpose));
    url.query_pairs_mut().append_pair("scope", &bearer.scope.clone().unwrap_or_else(own));
    url
}

/// A URL that nobody has signed before.
fn signable(mut url: Url) -> Url {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut nonce = [0; NONCE_BYTES];
    let random = rustls::crypto::ring::default_provider().secure_random;
    // Without randomness the time alone makes it new.
    let _ = random.fill(&mut nonce);
    let nonce = URL_SAFE_NO_PAD.encode(nonce);
    url.query_pairs_mut().append_pair("ts", &seconds.to_string()).append_pair("nonce", &nonce);
    url
}

/// Goes one way; None when it leads nowhere.
async fn grant(
    session: &Session<'_>,
    origin: &Origin<'_>,
    way: Way,
) -> Result<Option<Grant>, Failure> {
    let request = match way {
        Way::Header(header) => return Ok(Grant::new(&header, None)),
        Way::Token(url, credential) => token_request(origin, url, credential),
        Way::Signed(url, key) => {
            let Some(signature) = key.authorization(&url) else { return Ok(None) };
            origin.route.http(&url).get(url).header(AUTHORIZATION, secret(&signature))
        }
    };
    let limits: &Limits = session.limits();
    let response = session.timed(request, Some(limits.stall)).await?;
    match response.status() {
        status if status.is_success() => {}
        status if status.is_server_error() || matches!(status.as_u16(), 408 | 429) => {
            return Err(session.refused(response).await);
        }
        _ => return Ok(None),
    }
    let answer = session.body(response, ANSWER_BYTES_MAX).await?;
    let token = answer.as_deref().and_then(token_in);
    Ok(token.and_then(|(token, life)| Grant::new(&format!("Bearer {token}"), Some(life))))
}

fn token_request(origin: &Origin<'_>, url: Url, credential: Option<Credential>) -> RequestBuilder {
    let http = origin.route.http(&url);
    match credential {
        Some(Credential::Identity(Secret(token))) => {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.extend_pairs(url.query_pairs());
            form.append_pair("grant_type", "refresh_token").append_pair("client_id", "dsk");
            let body = form.append_pair("refresh_token", &token).finish();
            let mut url = url;
            url.set_query(None);
            http.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
        }
        credential => match basic(credential) {
            Some(header) => http.get(url).header(AUTHORIZATION, secret(&header)),
            None => http.get(url),
        },
    }
}

/// A header that no log shows; an unsendable one becomes an empty one, which is refused.
fn secret(text: &str) -> HeaderValue {
    let mut header = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}

/// What to tell whoever is refused by the server.
pub(super) fn refused(origin: &Origin<'_>) -> ClientError {
    let host = host_of(&origin.base);
    let shown = origin.sign_in.header_for(origin, &origin.base).is_some();
    let remedy = match origin.base.host_str().unwrap_or_default() {
        _ if is_hub(&origin.base) => "sign in with a token of an account that may, in HF_TOKEN or \
             ~/.cache/huggingface/token"
            .to_owned(),
        DEFAULT_HOST => {
            "sign in with an ed25519 key of an account that may, at ~/.config/dsk/id_ed25519 or \
             ~/.ollama/id_ed25519"
                .to_owned()
        }
        _ => format!("sign in with `docker login {host}` or `podman login {host}`"),
    };
    let remedy = if shown { format!("what was shown is not enough; {remedy}") } else { remedy };
    ClientError::Unauthorized { host, remedy }
}
