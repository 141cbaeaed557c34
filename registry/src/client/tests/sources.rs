//! Where a registry may be, and where it may lead: mirrors, redirects, addresses inside this network.

use super::{
    script::{Asked, Reply, Script, good},
    *,
};
use crate::fixture::{manifest_of, scratch};

const WEIGHTS: &[u8] = b"weights that several servers have";

fn host(script: &Script) -> String {
    script.url.strip_prefix("http://").unwrap().to_owned()
}

fn model(asked: &Asked) -> Reply {
    match asked {
        asked if asked.is_blob(WEIGHTS) => Reply::new("200 OK", "", WEIGHTS),
        asked => good(asked, &manifest_of(WEIGHTS)),
    }
}

/// Pulls from a registry that has mirrors.
async fn pull_by(script: &Script, mirrors: &[&Script]) -> Result<StoredManifest, ClientError> {
    let mirrors = mirrors.iter().map(|mirror| Url::parse(&mirror.url).unwrap());
    pull_by_urls(script, mirrors.collect()).await
}

async fn pull_by_urls(script: &Script, mirrors: Vec<Url>) -> Result<StoredManifest, ClientError> {
    let config = RegistryConfig { mirrors, ..RegistryConfig::default() };
    let registries = BTreeMap::from([(host(script), config)]);
    let config = ClientConfig { registries, ..ClientConfig::default() };
    let client = Client::with_limits(config, quick()).unwrap();
    pull(&client, &scratch().store, &format!("{}/library/m", host(script))).await
}

#[tokio::test]
async fn the_first_mirror_that_has_it_serves_it() {
    let registry = Script::start(model).await;
    let empty = Script::start(|_| Reply::new("404 Not Found", "", b"")).await;
    let full = Script::start(model).await;
    pull_by(&registry, &[&empty, &full]).await.unwrap();
    assert_eq!((empty.requests().len(), full.requests().len()), (1, 4));
    assert!(registry.requests().is_empty());
}

#[tokio::test]
async fn what_a_mirror_fails_at_the_registry_does() {
    let registry = Script::start(model).await;
    for broken in [
        Reply::new("500 Internal Server Error", "", b""),
        Reply::new("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
        Reply::new("302 Found", "Location: http://169.254.169.254/\r\n", b""),
    ] {
        let before = registry.requests().len();
        // Its manifest is good, and its blobs are not.
        let mirror = Script::start(move |asked| match asked.is_manifest() {
            true => model(asked),
            false => broken.clone(),
        })
        .await;
        pull_by(&registry, &[&mirror]).await.unwrap();
        let asked = registry.requests().split_off(before);
        assert!(asked.iter().all(|head| head.contains("/blobs/")), "{asked:?}");
        assert!(mirror.requests().len() <= 4, "a mirror that failed is not asked twice for a blob");
    }
    // One that is not there at all.
    let mut gone = registry.clone();
    gone.url = "http://127.0.0.1:9".to_owned();
    pull_by(&registry, &[&gone]).await.unwrap();
}

#[tokio::test]
async fn a_mirror_gets_no_credentials_of_the_registry() {
    let registry = Script::start(model).await;
    let mirror = Script::start(|_| {
        Reply::new("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"")
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"YWRhOnNlY3JldA=="}}}}}}"#, host(&registry));
    std::fs::write(&path, auths).unwrap();
    let mirrors = vec![Url::parse(&mirror.url).unwrap()];
    let registries = RegistryConfig { mirrors, ..RegistryConfig::default() };
    let config = ClientConfig {
        registries: BTreeMap::from([(host(&registry), registries)]),
        keyring: Keyring::of_files(Some(path), None, None),
        ..ClientConfig::default()
    };
    let client = Client::with_limits(config, quick()).unwrap();
    pull(&client, &scratch().store, &format!("{}/library/m", host(&registry))).await.unwrap();
    assert!(mirror.requests().iter().all(|head| !head.contains("uthorization")));
}

/// Two mirrors at these paths of one server, of which only the second has the model, with its blobs or
/// without; how often the server and the registry were asked.
async fn pull_by_paths(first: &str, second: &'static str, blobs: bool) -> (usize, usize) {
    let registry = Script::start(model).await;
    let server = Script::start(move |asked| {
        let here = asked.line.contains(&format!(" {}/v2/", second.trim_end_matches('/')));
        match here && (blobs || asked.is_manifest()) {
            true => model(asked),
            false => Reply::new("404 Not Found", "", b""),
        }
    })
    .await;
    let mirrors = [first, second].map(|path| Url::parse(&format!("{}{path}", server.url)).unwrap());
    pull_by_urls(&registry, mirrors.to_vec()).await.unwrap();
    (server.requests().len(), registry.requests().len())
}

#[tokio::test]
async fn mirrors_may_share_a_host() {
    for (first, second) in [("/m1", "/m2"), ("/", "/m2"), ("/m", "/m/2"), ("/m2", "/")] {
        // The manifest of both, the blobs of the second one.
        assert_eq!(pull_by_paths(first, second, true).await, (5, 0), "{first} {second}");
        let (server, registry) = pull_by_paths(first, second, false).await;
        assert!(
            (3..=5).contains(&server) && registry == 3,
            "{first} {second}: {server} {registry}"
        );
    }
}

#[test]
fn plain_mirrors_elsewhere_must_be_allowed() {
    let config = |url: &str, insecure| {
        let mirror = RegistryConfig { insecure, ..RegistryConfig::default() };
        let mirrors = vec![Url::parse(url).unwrap()];
        let registry = RegistryConfig { mirrors, ..RegistryConfig::default() };
        let registries = [("r.example", registry), ("mirror.example:81", mirror)];
        let registries = registries.map(|(host, config)| (host.to_owned(), config)).into();
        Client::new(ClientConfig { registries, ..ClientConfig::default() }).map(drop)
    };
    assert!(config("https://mirror.example:81", false).is_ok());
    assert!(config("http://mirror.example:81", true).is_ok());
    assert!(config("http://127.0.0.1:81", false).is_ok());
    assert!(matches!(config("http://mirror.example:81", false), Err(ClientError::Insecure { .. })));
    assert!(config("https://user:secret@mirror.example:81", true).is_err());
}

#[tokio::test]
async fn fault_13_redirects_do_not_lead_into_this_network() {
    for (location, refused) in [
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254"),
        ("https://169.254.169.254/", "169.254.169.254"),
        ("http://[fe80::1]/", "[fe80::1]"),
        ("http://0.0.0.0:80/", "0.0.0.0"),
        ("http://2852039166/", "169.254.169.254"),
        ("file:///etc/passwd", "not an HTTP address"),
        ("gopher://127.0.0.1/", "not an HTTP address"),
    ] {
        let headers = format!("Location: {location}\r\n");
        let script = Script::start(move |_| Reply::new("307 Moved", &headers, b"")).await;
        let name = format!("{}/library/m", host(&script));
        let client = Client::with_limits(ClientConfig::default(), quick()).unwrap();
        let error = pull(&client, &scratch().store, &name).await.unwrap_err().to_string();
        assert!(error.contains(refused), "{location}: {error}");
        assert_eq!(script.requests().len(), 1, "{location}");
    }
}

/// A name that means this machine and does not say so, as a rebinding one would.
fn rebound(script: &Script) -> String {
    script.url.replace("127.0.0.1", "rebound.test")
}

#[tokio::test]
async fn fault_13_a_name_with_an_inside_address_is_refused_after_it_was_looked_up() {
    let inside = Script::start(model).await;
    let target = rebound(&inside);
    let location = format!("Location: {target}/\r\n");
    let script = Script::start(move |_| Reply::new("307 Moved", &location, b"")).await;
    let name = format!("{}/library/m", host(&script));
    let insecure = TransferOptions { insecure: true, ..TransferOptions::default() };
    let pulled = async |config: ClientConfig, name: &str| {
        // These servers wait for the end of a request when they are spoken to over TLS.
        let limits = Limits { connect: Duration::from_millis(500), ..quick() };
        let client = Client::with_limits(config, limits).unwrap();
        let (here, name) = (scratch(), crate::fixture::name(name));
        client.pull(&here.store, &name, &insecure, |_| {}, &CancellationToken::new()).await
    };
    let error = pulled(ClientConfig::default(), &name).await.unwrap_err();
    assert!(matches!(error, ClientError::PrivateAddress { .. }), "{error}");
    assert!(error.to_string().contains("add it to private_hosts"), "{error}");
    assert!(inside.requests().is_empty());
    // The same as the name of a registry, until there is a table for it.
    let hidden = target.strip_prefix("http://").unwrap();
    let name = format!("{hidden}/library/m");
    let error = pulled(ClientConfig::default(), &name).await.unwrap_err();
    assert!(matches!(error, ClientError::PrivateAddress { .. }), "{error}");
    assert!(error.to_string().contains(&format!("[registries.\"{hidden}\"]")), "{error}");
    assert!(inside.requests().is_empty());
    let registries = BTreeMap::from([(hidden.to_owned(), RegistryConfig::default())]);
    let allowed = ClientConfig { registries, ..ClientConfig::default() };
    pulled(allowed, &name).await.unwrap();
    let private_hosts = vec!["rebound.test".to_owned()];
    let allowed = ClientConfig { private_hosts, ..ClientConfig::default() };
    pulled(allowed, &name).await.unwrap();
}
