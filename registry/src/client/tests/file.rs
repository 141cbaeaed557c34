//! One file of a server that is no registry.

use super::{
    script::{Asked, Reply, Script},
    *,
};
use crate::fixture::{assert_whole, name, scratch, weights};

const PATH: &str = "/files/m-Q4_0.gguf";

fn quick_client(config: ClientConfig) -> Client {
    let limits = Limits { range_bytes: 1 << 20, ..quick() };
    Client::with_limits(config, limits).unwrap()
}

fn file(url: &str, bytes: &[u8]) -> WebFile {
    WebFile { url: Url::parse(url).unwrap(), digest: Digest::of(bytes) }
}

async fn fetch(client: &Client, store: &Store, file: &WebFile) -> Result<Fetched, ClientError> {
    let (model, options) = (name("m"), TransferOptions::default());
    client.fetch(store, (&model, file), &options, |_| {}, &CancellationToken::new()).await
}

/// A server of one file.
async fn server(bytes: &'static [u8]) -> Script {
    Script::start(move |asked| match asked.line.as_str() {
        "GET /files/m-Q4_0.gguf" => Reply::ranged(bytes, asked),
        _ => Reply::new("404 Not Found", "", b""),
    })
    .await
}

fn large() -> &'static [u8] {
    weights(11, 5 << 20).leak()
}

#[tokio::test]
async fn it_comes_in_ranges_and_is_verified() {
    let (bytes, here) = (large(), scratch());
    let script = server(bytes).await;
    let wanted = file(&format!("{}{PATH}#top", script.url), bytes);
    let client = quick_client(ClientConfig::default());
    let fetched = fetch(&client, &here.store, &wanted).await.unwrap();
    assert_eq!((fetched.blob.digest, fetched.blob.size), (wanted.digest, bytes.len() as u64));
    let asked = script.requests();
    assert!(asked[0].contains("bytes=0-0"), "{}", asked[0]);
    assert_eq!(asked.len(), 6, "the size, then a range for each MiB: {asked:?}");
    assert_whole(&here.store);
    // Until a manifest names it, it is shown as what it is for, and nothing takes it.
    let unfinished = here.store.unfinished().unwrap();
    assert_eq!((unfinished[0].name.clone(), unfinished[0].bytes_here), (name("m"), 5 << 20));
    here.store.gc(&crate::GcOptions::default()).unwrap();
    assert!(here.store.has(&wanted.digest));
    // What is here is not asked for again.
    fetch(&client, &here.store, &wanted).await.unwrap();
    assert_eq!(script.requests().len(), 6);
}

#[tokio::test]
async fn it_goes_on_where_it_stopped() {
    let (bytes, here) = (large(), scratch());
    let broken = Script::start(move |asked| match asked.range() {
        Some((first, _)) if first >= 3 << 20 => Reply::new("503 Busy", "", b""),
        _ => Reply::ranged(bytes, asked),
    })
    .await;
    let client = quick_client(ClientConfig::default());
    let wanted = file(&format!("{}{PATH}", broken.url), bytes);
    let error = fetch(&client, &here.store, &wanted).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    let script = server(bytes).await;
    fetch(&client, &here.store, &file(&format!("{}{PATH}", script.url), bytes)).await.unwrap();
    let asked = script.requests();
    assert!(asked.len() <= 4 && !asked.iter().any(|head| head.contains("bytes=1048576-")));
    assert_whole(&here.store);
}

#[tokio::test]
async fn servers_without_ranges_are_streamed() {
    let (bytes, here) = (large(), scratch());
    let script = Script::start(move |_| Reply::new("200 OK", "", bytes)).await;
    let wanted = file(&format!("{}{PATH}", script.url), bytes);
    fetch(&quick_client(ClientConfig::default()), &here.store, &wanted).await.unwrap();
    assert_whole(&here.store);
}

#[tokio::test]
async fn wrong_bytes_are_no_blob() {
    let (bytes, here) = (large(), scratch());
    let script = Script::start(move |asked| Reply::ranged(bytes, asked)).await;
    let wanted = file(&format!("{}{PATH}", script.url), b"what was pinned");
    let client = quick_client(ClientConfig::default());
    let error = fetch(&client, &here.store, &wanted).await.unwrap_err();
    let ClientError::Integrity(IntegrityError::Digest { expected, got, .. }) = error else {
        panic!("{error}")
    };
    assert_eq!((expected, got), (wanted.digest, Digest::of(bytes)));
    assert!(!here.store.has(&wanted.digest) && !here.store.has(&got));
    assert!(here.store.list().unwrap().is_empty());
}

#[tokio::test]
async fn answers_that_are_no_file() {
    let cases: Vec<(Reply, &str)> = vec![
        (Reply::new("404 Not Found", "", b""), "has no file /files/m-Q4_0.gguf"),
        (Reply::new("410 Gone", "", b""), "has no file /files/m-Q4_0.gguf"),
        (Reply::new("403 Forbidden", "", b""), "does not allow this"),
        (Reply::new("200 OK", "Content-Type: text/html; charset=utf-8\r\n", b"<p>"), "a web page"),
        (Reply::new("200 OK", "Content-Encoding: gzip\r\n", b"x"), "compresses"),
        (Reply::raw("200 OK", "", b"no length"), "how large"),
        (Reply::new("200 OK", "", b""), "how large"),
        (Reply::new("206 Partial", "Content-Range: bytes 0-0/*\r\n", b"x"), "how large"),
        (
            Reply::new("206 Partial", "Content-Range: bytes 0-0/99999999999999\r\n", b"x"),
            "how large",
        ),
        (Reply::new("206 Partial", "Content-Range: bytes 0-0/9999999999999\r\n", b"x"), "no space"),
        (Reply::new("302 Found", "Location: http://169.254.169.254/\r\n", b""), "inside this"),
    ];
    for (reply, expected) in cases {
        let here = scratch();
        let script = Script::start(move |_| reply.clone()).await;
        let wanted = file(&format!("{}{PATH}?X-Signature=s3cret", script.url), b"x");
        let client = quick_client(ClientConfig::default());
        let error = fetch(&client, &here.store, &wanted).await.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("s3cret"), "{expected}: {error}");
        assert!(!format!("{wanted:?}").contains("s3cret"));
    }
}

#[tokio::test]
async fn credentials_stay_with_the_servers_origin() {
    let (bytes, here) = (large(), scratch());
    let elsewhere = Script::start(move |asked| Reply::ranged(bytes, asked)).await;
    let location = format!("Location: {}/signed?x=1\r\n", elsewhere.url);
    let script = Script::start(move |asked: &Asked| match asked.header("authorization") {
        Some("Basic YWRhOnNlY3JldA==") => Reply::new("302 Found", &location, b""),
        _ => Reply::new("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let host = script.url.strip_prefix("http://").unwrap();
    let auths = format!(r#"{{"auths":{{"{host}":{{"auth":"YWRhOnNlY3JldA=="}}}}}}"#);
    std::fs::write(&path, auths).unwrap();
    let keyring = Keyring::of_files(Some(path), None, None);
    let client = quick_client(ClientConfig { keyring, ..ClientConfig::default() });
    let wanted = file(&format!("{}{PATH}", script.url), bytes);
    fetch(&client, &here.store, &wanted).await.unwrap();
    assert!(elsewhere.requests().iter().all(|head| !head.contains("uthorization")));
    assert!(elsewhere.requests().len() > 4, "the bytes come from where we were sent");
}

#[tokio::test]
async fn fault_13_a_file_is_not_fetched_from_inside_this_network() {
    let bytes = large();
    let script = server(bytes).await;
    let hidden = script.url.replace("127.0.0.1", "rebound.test");
    let options = TransferOptions { insecure: true, ..TransferOptions::default() };
    let fetched = async |config: ClientConfig, url: &str| {
        let (client, here, wanted) = (quick_client(config), scratch(), file(url, bytes));
        let cancel = CancellationToken::new();
        client.fetch(&here.store, (&name("m"), &wanted), &options, |_| {}, &cancel).await.map(drop)
    };
    for url in [format!("{hidden}{PATH}"), "http://10.255.255.1/x.gguf".to_owned()] {
        let error = fetched(ClientConfig::default(), &url).await.unwrap_err();
        assert!(matches!(error, ClientError::PrivateAddress { .. }), "{url}: {error}");
    }
    assert!(script.requests().is_empty());
    let private_hosts = vec!["rebound.test".to_owned()];
    let allowed = ClientConfig { private_hosts, ..ClientConfig::default() };
    fetched(allowed, &format!("{hidden}{PATH}")).await.unwrap();
}
