//! Signing in, against registries that ask for it in every way: who gets which secret, and who none.

use super::{
    script::{Asked, Reply, Script, good},
    *,
};
use crate::{
    client::auth::{TEST_KEY, write_program},
    fixture::{Scratch, manifest_of, name, put_model, scratch},
};
use std::path::PathBuf;
use tempfile::TempDir;

const WEIGHTS: &[u8] = b"weights that not everybody may have";
/// `ada:secret`.
const BASIC: &str = "Basic YWRhOnNlY3JldA==";

/// A user with credentials for `host`, or with a key, or both.
pub(super) struct User {
    _folder: TempDir,
    pub(super) keyring: Keyring,
}

pub(super) fn user(docker: Option<String>, with_key: bool) -> User {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = folder.path().join(file);
        std::fs::write(&path, text).unwrap();
        path
    };
    let docker = docker.map(|text| write("config.json", &text));
    let key: Option<PathBuf> = with_key.then(|| write("id_ed25519", TEST_KEY));
    let keyring = Keyring::of_files(docker, Some(folder.path().to_owned()), key);
    User { _folder: folder, keyring }
}

/// Docker's file with one entry for a host.
pub(super) fn entry(host: &str, entry: &str) -> Option<String> {
    Some(format!(r#"{{"auths": {{"{host}": {entry}}}}}"#))
}

pub(super) fn client_of(user: &User, registries: BTreeMap<String, RegistryConfig>) -> Client {
    let keyring = user.keyring.clone();
    let config = ClientConfig { keyring, registries, ..ClientConfig::default() };
    Client::with_limits(config, quick()).unwrap()
}

pub(super) fn host(script: &Script) -> &str {
    script.url.strip_prefix("http://").unwrap()
}

async fn pull_as(user: &User, script: &Script, here: &Scratch) -> Result<(), ClientError> {
    let client = client_of(user, BTreeMap::new());
    pull(&client, &here.store, &format!("{}/library/m", host(script))).await.map(drop)
}

/// The model, for whoever shows `wanted`; anybody else gets the challenge, with HOST in it filled in.
fn for_whoever_shows(asked: &Asked, wanted: &str, challenge: &str) -> Reply {
    if asked.header("authorization") == Some(wanted) {
        return match asked {
            asked if asked.is_blob(WEIGHTS) => Reply::new("200 OK", "", WEIGHTS),
            asked => good(asked, &manifest_of(WEIGHTS)),
        };
    }
    let host = asked.header("host").unwrap();
    let challenge = format!("WWW-Authenticate: {}\r\n", challenge.replace("HOST", host));
    Reply::new("401 Unauthorized", &challenge, b"")
}

const REALM: &str = r#"Bearer realm="http://HOST/token",service="s""#;

/// A registry whose token server gives the token `good` when `judge` likes the request.
async fn with_tokens(judge: impl Fn(&Asked) -> bool + Send + Sync + 'static) -> Script {
    Script::start(move |asked| match asked.line.contains(" /token") {
        true if judge(asked) => Reply::new("200 OK", "", br#"{"token":"good","expires_in":600}"#),
        true => Reply::new("403 Forbidden", "", b""),
        false => for_whoever_shows(asked, "Bearer good", REALM),
    })
    .await
}

fn count(script: &Script, what: &str) -> usize {
    script.requests().iter().filter(|head| head.contains(what)).count()
}

#[tokio::test]
async fn a_password_goes_to_its_registry() {
    let script =
        Script::start(|asked| for_whoever_shows(asked, BASIC, "Basic realm=\"here\"")).await;
    let ada = user(entry(host(&script), r#"{"auth": "YWRhOnNlY3JldA=="}"#), false);
    pull_as(&ada, &script, &scratch()).await.unwrap();
    // One refusal: what got a request through gets the next ones through.
    assert_eq!(script.requests().iter().filter(|head| !head.contains(BASIC)).count(), 1);
}

#[tokio::test]
async fn a_helper_has_the_password() {
    let script = Script::start(|asked| for_whoever_shows(asked, BASIC, "Basic realm=\"x\"")).await;
    let ada = user(Some(r#"{"credsStore": "test"}"#.to_owned()), false);
    let answer = r#"read -r host || true
        test "$host" = "HOST" && printf '{"Username":"ada","Secret":"secret"}'"#;
    let program = ada._folder.path().join("docker-credential-test");
    write_program(&program, &answer.replace("HOST", host(&script)));
    pull_as(&ada, &script, &scratch()).await.unwrap();
}

#[tokio::test]
async fn a_token_is_exchanged_for_and_kept() {
    let script = with_tokens(|asked| asked.header("authorization") == Some(BASIC)).await;
    let ada = user(entry(host(&script), r#"{"username": "ada", "password": "secret"}"#), false);
    let client = client_of(&ada, BTreeMap::new());
    let model = format!("{}/library/m", host(&script));
    for _ in 0..2 {
        pull(&client, &scratch().store, &model).await.unwrap();
    }
    assert_eq!(count(&script, "GET /token?service=s&scope=repository%3Alibrary%2Fm%3Apull "), 1);
    // Another repository is another token.
    let _ = pull(&client, &scratch().store, &model.replace("/m", "/n")).await;
    assert_eq!(count(&script, "GET /token?"), 2);
}

#[tokio::test]
async fn a_push_asks_for_more_than_a_pull() {
    let script = with_tokens(|_| true).await;
    let here = scratch();
    let model = format!("{}/library/m", host(&script));
    put_model(&here.store, &model, WEIGHTS);
    let client = client_of(&user(None, false), BTreeMap::new());
    let (options, cancel) = (TransferOptions::default(), CancellationToken::new());
    let _ = client.push(&here.store, &name(&model), &options, |_| {}, &cancel).await;
    assert_eq!(count(&script, "scope=repository%3Alibrary%2Fm%3Apull%2Cpush "), 1);
}

#[tokio::test]
async fn an_identity_token_is_posted() {
    let script = with_tokens(|asked| {
        let body = String::from_utf8(asked.body.clone()).unwrap();
        asked.line.starts_with("POST /token")
            && !asked.line.contains('?')
            && body.contains("grant_type=refresh_token")
            && body.contains("refresh_token=long+lived")
            && body.contains("service=s")
    })
    .await;
    let ada = user(entry(host(&script), r#"{"identitytoken": "long lived"}"#), false);
    pull_as(&ada, &script, &scratch()).await.unwrap();
}

#[tokio::test]
async fn a_key_signs_for_a_token_once_nobody_gets_one_for_nothing() {
    let script = with_tokens(|asked| {
        let signed = asked.header("authorization").and_then(|shown| shown.split_once(':'));
        let url = asked.line.contains("&ts=") && asked.line.contains("&nonce=");
        url && signed.is_some_and(|(key, signature)| {
            // base64 of 51 bytes of an OpenSSH public key, and of 64 bytes of signature
            key.starts_with("AAAAC3NzaC1lZDI1NTE5AAAAI") && key.len() == 68 && signature.len() == 88
        })
    })
    .await;
    pull_as(&user(None, true), &script, &scratch()).await.unwrap();
    let tokens: Vec<String> =
        script.requests().into_iter().filter(|head| head.starts_with("GET /token")).collect();
    assert_eq!(tokens.len(), 2);
    assert!(!tokens[0].to_ascii_lowercase().contains("authorization"));
}

#[tokio::test]
async fn a_token_that_has_expired_is_renewed() {
    // The first token is good for the manifest, and the blobs are refused with it.
    let script = Script::start(|asked| {
        if asked.line.contains(" /token") {
            let answer = format!(r#"{{"token":"t{}","expires_in":600}}"#, asked.count);
            return Reply::new("200 OK", "", answer.as_bytes());
        }
        let wanted = if asked.is_manifest() { "Bearer t0" } else { "Bearer t1" };
        for_whoever_shows(asked, wanted, REALM)
    })
    .await;
    pull_as(&user(None, false), &script, &scratch()).await.unwrap();
    // However many requests were refused at once, one of them renews it.
    assert_eq!(count(&script, "GET /token"), 2);
}

#[tokio::test]
async fn what_is_not_enough_is_an_error_that_says_what_to_do() {
    let script = with_tokens(|_| false).await;
    let error = pull_as(&user(None, false), &script, &scratch()).await.unwrap_err();
    let host = host(&script);
    let expected = format!(
        "{host} does not allow this: sign in with `docker login {host}` or `podman login {host}`"
    );
    assert_eq!(error.to_string(), expected);
    let ada = user(entry(host, r#"{"auth": "YWRhOnNlY3JldA=="}"#), true);
    let error = pull_as(&ada, &script, &scratch()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unauthorized { .. }), "{error}");
    assert!(script.requests().len() < 12, "{}", script.requests().len());
    let error = pull_as(&user(Some("[".to_owned()), false), &script, &scratch()).await.unwrap_err();
    assert!(error.to_string().contains("config.json is malformed"), "{error}");
    // A registry that refuses whatever it gave a token for is left in peace.
    let never = Script::start(|asked| match asked.line.contains(" /token") {
        true => Reply::new("200 OK", "", br#"{"token":"good"}"#),
        false => for_whoever_shows(asked, "none", REALM),
    })
    .await;
    let error = pull_as(&user(None, true), &never, &scratch()).await.unwrap_err();
    assert!(error.to_string().contains("what was shown is not enough"), "{error}");
    assert!(never.requests().len() < 8, "{}", never.requests().len());
}

/// The registry's blobs lie on another origin; the host differs as well, since the port does.
#[tokio::test]
async fn fault_11_a_redirect_to_another_host_gets_no_credentials() {
    let blobs = Script::of_model(WEIGHTS, |_| Reply::new("200 OK", "", WEIGHTS)).await;
    let elsewhere = blobs.url.clone();
    let script = Script::start(move |asked| {
        if asked.header("authorization") == Some(BASIC) && !asked.is_manifest() {
            let path = asked.line.trim_start_matches("GET ");
            let location = format!("Location: {elsewhere}{path}\r\nSet-Cookie: a=b\r\n");
            return Reply::new("307 Temporary Redirect", &location, b"");
        }
        for_whoever_shows(asked, BASIC, "Basic realm=\"here\"")
    })
    .await;
    let ada = user(entry(host(&script), r#"{"auth": "YWRhOnNlY3JldA=="}"#), true);
    pull_as(&ada, &script, &scratch()).await.unwrap();
    assert_eq!(blobs.requests().len(), 3);
    for head in blobs.requests() {
        let head = head.to_ascii_lowercase();
        assert!(!head.contains("authorization") && !head.contains("cookie"), "{head}");
    }
    // Neither is it answered when that host asks for some.
    let curious = Script::start(|_| {
        Reply::new("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"")
    })
    .await;
    let elsewhere = curious.url.clone();
    let script = Script::start(move |_| {
        Reply::new("302 Found", &format!("Location: {elsewhere}/\r\n"), b"")
    })
    .await;
    let ada = user(entry(host(&script), r#"{"auth": "YWRhOnNlY3JldA=="}"#), true);
    let error = pull_as(&ada, &script, &scratch()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unauthorized { .. }), "{error}");
    assert_eq!(curious.requests().len(), 1);
}

#[tokio::test]
async fn fault_12_a_token_server_elsewhere_is_not_asked_unless_it_is_configured() {
    let tokens = Script::start(|_| Reply::new("200 OK", "", br#"{"token":"good"}"#)).await;
    // By another name, which is another host.
    let realm = tokens.url.replace("127.0.0.1", "localhost");
    let challenge = format!(r#"Bearer realm="{realm}/token",service="s""#);
    let script =
        Script::start(move |asked| for_whoever_shows(asked, "Bearer good", &challenge)).await;
    let ada = user(entry(host(&script), r#"{"auth": "YWRhOnNlY3JldA=="}"#), true);
    let error = pull_as(&ada, &script, &scratch()).await.unwrap_err().to_string();
    assert!(error.contains("another host; if that is right, add the host to realms"), "{error}");
    assert!(tokens.requests().is_empty());
    let realms = vec!["localhost".to_owned()];
    let config = RegistryConfig { realms, ..RegistryConfig::default() };
    let client = client_of(&ada, BTreeMap::from([(host(&script).to_owned(), config)]));
    let model = format!("{}/library/m", host(&script));
    pull(&client, &scratch().store, &model).await.unwrap();
    let asked = tokens.requests();
    assert!(asked.len() == 1 && asked[0].contains(BASIC), "{asked:?}");
}

#[tokio::test]
async fn fault_12_a_token_server_gets_no_password_over_plain_http() {
    let tokens = Script::start(|_| Reply::new("200 OK", "", br#"{"token":"good"}"#)).await;
    let realm = tokens.url.replace("127.0.0.1", "tokens.test");
    let challenge = format!(r#"Bearer realm="{realm}/token",service="s""#);
    let script =
        Script::start(move |asked| for_whoever_shows(asked, "Bearer good", &challenge)).await;
    let ada = user(entry(host(&script), r#"{"auth": "YWRhOnNlY3JldA=="}"#), true);
    let pulled = async |insecure| {
        let realms = vec!["tokens.test".to_owned()];
        let config = RegistryConfig { realms, insecure, ..RegistryConfig::default() };
        let client = client_of(&ada, BTreeMap::from([(host(&script).to_owned(), config)]));
        pull(&client, &scratch().store, &format!("{}/library/m", host(&script))).await
    };
    let error = pulled(false).await.unwrap_err();
    assert!(matches!(error, ClientError::Insecure { .. }), "{error}");
    assert!(error.to_string().starts_with("tokens.test:"), "{error}");
    assert!(tokens.requests().is_empty());
    pulled(true).await.unwrap();
    assert_eq!(count(&tokens, BASIC), 1);
}

#[tokio::test]
async fn fault_12_a_signature_is_for_the_registrys_own_host_only() {
    let tokens = Script::start(|_| Reply::new("403 Forbidden", "", b"")).await;
    let realm = tokens.url.replace("127.0.0.1", "localhost");
    let challenge = format!(r#"Bearer realm="{realm}/token""#);
    let script =
        Script::start(move |asked| for_whoever_shows(asked, "Bearer good", &challenge)).await;
    let realms = vec!["localhost".to_owned()];
    let config = RegistryConfig { realms, ..RegistryConfig::default() };
    // The folder with the key goes with the value.
    let ada = user(None, true);
    assert!(ada.keyring.signing_key().unwrap().is_some());
    let client = client_of(&ada, BTreeMap::from([(host(&script).to_owned(), config)]));
    let model = format!("{}/library/m", host(&script));
    let error = pull(&client, &scratch().store, &model).await.unwrap_err();
    assert!(matches!(error, ClientError::Unauthorized { .. }), "{error}");
    assert_eq!(tokens.requests().len(), 1, "one anonymous try and no signed one");
}

/// Hugging Face's token is for its two names over https and for nobody else.
#[test]
fn the_hubs_token_is_the_hubs() {
    let keyring = Keyring::of_user(|name| (name == "HF_TOKEN").then(|| "hf_x".to_owned()));
    let config = ClientConfig { keyring, ..ClientConfig::default() };
    let client = Client::with_limits(config, quick()).unwrap();
    let shown = |host: &str, url: &str| {
        let base = Url::parse(&format!("https://{host}/")).unwrap();
        let origin = session::Origin::new(&client, "a/b", base, false, session::Purpose::Pull);
        origin.sign_in.header_for(&origin, &Url::parse(url).unwrap()).is_some()
    };
    assert!(shown("hf.co", "https://hf.co/v2/a/b/manifests/latest"));
    assert!(shown("hf.co", "https://huggingface.co/a"));
    for (host, url) in [
        ("hf.co", "http://hf.co/v2/"),
        ("hf.co", "https://cdn-lfs.hf.co/x"),
        ("hf.co", "https://evil.example/hf.co"),
        ("r.example", "https://r.example/v2/"),
        ("r.example", "https://hf.co/v2/"),
    ] {
        assert!(!shown(host, url), "{host} {url}");
    }
}
