//! The registry as a client over loopback sees it.

mod conformance;

use super::*;
use crate::{
    Digest, Manifest,
    fixture::{CONFIG, LICENSE, Scratch, manifest_of, name, put_model, scratch},
};
use expect_test::{Expect, expect};
use reqwest::{RequestBuilder, header::HeaderMap};

pub(super) struct Registry {
    pub(super) scratch: Scratch,
    pub(super) url: String,
    http: reqwest::Client,
}

impl Registry {
    pub(super) async fn start(options: ServerOptions) -> Registry {
        let scratch = scratch();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, scratch.store.clone(), options, std::future::pending()));
        // The process-wide TLS provider is the client's business; making one client installs it.
        crate::Client::new(crate::ClientConfig::default()).unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Registry { scratch, url, http }
    }

    pub(super) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let url = if path.starts_with('/') { path } else { &format!("/v2/{path}") };
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.http.request(method, format!("{}{url}", self.url))
    }

    pub(super) async fn get(&self, path: &str) -> Seen {
        seen(self.request("GET", path)).await
    }

    /// Opens an upload; returns its path.
    async fn open(&self, repository: &str) -> String {
        let opened = seen(self.request("POST", &format!("{repository}/blobs/uploads/"))).await;
        assert_eq!(opened.status, 202);
        opened.header("location").to_owned()
    }
}

pub(super) struct Seen {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: String,
}

pub(super) async fn seen(request: RequestBuilder) -> Seen {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Seen { status, headers, body: response.text().await.unwrap() }
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The status and the code of the error, as one line.
    pub(super) fn problem(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        format!("{} {}", self.status, body["errors"][0]["code"].as_str().unwrap_or("-"))
    }
}

async fn problems(registry: &Registry, requests: &[(&str, &str)], expected: Expect) {
    let mut lines = String::new();
    for (method, path) in requests {
        let problem = seen(registry.request(method, path)).await.problem();
        lines += &format!("{method} {path}: {problem}\n");
    }
    expected.assert_eq(&lines);
}

#[tokio::test]
async fn a_stored_model_is_served_as_it_is() {
    let registry = Registry::start(ServerOptions::default()).await;
    let stored = put_model(&registry.scratch.store, "me/m:q8", b"0123456789");
    assert_eq!(
        registry.get("/v2/").await.header("docker-distribution-api-version"),
        "registry/2.0"
    );
    for reference in ["q8".to_owned(), stored.digest.to_string()] {
        let manifest = registry.get(&format!("me/m/manifests/{reference}")).await;
        assert_eq!(manifest.body.as_bytes(), stored.bytes);
        assert_eq!(manifest.header("content-type"), crate::media_type::MANIFEST);
        assert_eq!(manifest.header("docker-content-digest"), stored.digest.to_string());
        let path = format!("me/m/manifests/{reference}");
        let head = seen(registry.request("HEAD", &path)).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), stored.bytes.len().to_string());
    }
}

#[tokio::test]
async fn blobs_are_served_whole_and_in_parts() {
    let registry = Registry::start(ServerOptions::default()).await;
    let digest = registry.scratch.store.put_blob(b"0123456789").unwrap();
    let path = format!("me/m/blobs/{digest}");
    let cases = [
        ("", "200 0123456789 "),
        ("bytes=3-5", "206 345 bytes 3-5/10"),
        ("bytes=7-", "206 789 bytes 7-9/10"),
        ("bytes=-2", "206 89 bytes 8-9/10"),
        ("bytes=10-", "416  bytes */10"),
        ("bytes=0-1,3-4", "200 0123456789 "),
    ];
    for (range, expected) in cases {
        let part = seen(registry.request("GET", &path).header("range", range)).await;
        let range = part.header("content-range");
        assert_eq!(format!("{} {} {range}", part.status, part.body), expected);
        assert_eq!(part.header("accept-ranges"), "bytes");
    }
    let etag = format!("\"{digest}\"");
    let part = registry.request("GET", &path).header("range", "bytes=3-5");
    assert_eq!(seen(part.try_clone().unwrap().header("if-range", etag)).await.status, 206);
    assert_eq!(seen(part.header("if-range", "\"other\"")).await.status, 200);
    let head = seen(registry.request("HEAD", &path)).await;
    assert_eq!((head.status, head.header("content-length")), (200, "10"));
    let escaped = path.replace(':', "%3A");
    assert_eq!(registry.get(&escaped).await.status, 200);
}

#[tokio::test]
async fn a_blob_arrives_in_chunks() {
    let registry = Registry::start(ServerOptions::default()).await;
    let digest = Digest::of(b"0123456789");
    let upload = registry.open("me/m").await;
    let patch = |range: &'static str, body: &'static str| {
        seen(registry.request("PATCH", &upload).header("content-range", range).body(body))
    };
    let first = patch("0-3", "0123").await;
    assert_eq!((first.status, first.header("range")), (202, "0-3"));
    // Where it does not belong, a chunk changes nothing.
    assert_eq!(patch("2-5", "2345").await.problem(), "416 BLOB_UPLOAD_INVALID");
    assert_eq!(registry.get(&upload).await.header("range"), "0-3");
    assert_eq!(patch("4-6", "456").await.status, 202);
    let done =
        seen(registry.request("PUT", &format!("{upload}?digest={digest}")).body("789")).await;
    assert_eq!(done.status, 201);
    assert_eq!(done.header("location"), format!("/v2/me/m/blobs/{digest}"));
    assert_eq!(registry.get(done.header("location")).await.body, "0123456789");
    assert_eq!(registry.get(&upload).await.problem(), "404 BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn a_blob_arrives_at_once_or_is_there() {
    let registry = Registry::start(ServerOptions::default()).await;
    let digest = Digest::of(b"whole");
    let path = format!("me/m/blobs/uploads/?digest={digest}");
    assert_eq!(seen(registry.request("POST", &path).body("whole")).await.status, 201);
    let mount = format!("me/other/blobs/uploads/?mount={digest}&from=me/m");
    assert_eq!(seen(registry.request("POST", &mount)).await.status, 201);
    let absent = format!("me/other/blobs/uploads/?mount={}&from=me/m", Digest::of(b"x"));
    assert_eq!(seen(registry.request("POST", &absent)).await.status, 202);
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_forgotten() {
    let registry = Registry::start(ServerOptions::default()).await;
    let digest = Digest::of(b"right");
    let upload = registry.open("me/m").await;
    let put = registry.request("PUT", &format!("{upload}?digest={digest}")).body("wrong");
    assert_eq!(seen(put).await.problem(), "400 DIGEST_INVALID");
    let post = registry.request("POST", &format!("me/m/blobs/uploads/?digest={digest}"));
    assert_eq!(seen(post.body("wrong")).await.problem(), "400 DIGEST_INVALID");
    let blobs = registry.scratch.folder.path().join("blobs");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
}

#[tokio::test]
async fn uploads_are_counted_and_expire() {
    let options = ServerOptions { uploads_max: 2, ..ServerOptions::default() };
    let registry = Registry::start(options).await;
    let first = registry.open("me/m").await;
    registry.open("me/m").await;
    let third = || seen(registry.request("POST", "me/m/blobs/uploads/"));
    assert_eq!(third().await.problem(), "429 TOOMANYREQUESTS");
    assert_eq!(seen(registry.request("DELETE", &first)).await.status, 204);
    assert_eq!(third().await.status, 202);

    let brief = ServerOptions { uploads_max: 1, upload_idle: Duration::ZERO, ..Default::default() };
    let registry = Registry::start(brief).await;
    registry.open("me/m").await;
    registry.open("me/m").await;
    let blobs = registry.scratch.folder.path().join("blobs");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 1);
}

#[tokio::test]
async fn an_upload_belongs_to_its_repository() {
    let registry = Registry::start(ServerOptions::default()).await;
    let upload = registry.open("me/m").await;
    let elsewhere = upload.replace("me/m", "you/m");
    assert_eq!(registry.get(&elsewhere).await.problem(), "404 BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn manifests_are_checked_before_they_are_stored() {
    let registry = Registry::start(ServerOptions::default()).await;
    let bytes = manifest_of(b"weights").to_json();
    let put = |reference: &str, bytes: &[u8]| {
        let path = format!("me/m/manifests/{reference}");
        seen(registry.request("PUT", &path).body(bytes.to_vec()))
    };
    assert_eq!(put("latest", &bytes).await.problem(), "404 MANIFEST_BLOB_UNKNOWN");
    for blob in [b"weights".as_slice(), LICENSE, CONFIG] {
        registry.scratch.store.put_blob(blob).unwrap();
    }
    assert_eq!(put("latest", b"{}").await.problem(), "400 MANIFEST_INVALID");
    let large = vec![b' '; Manifest::BYTES_MAX + 1];
    assert_eq!(put("latest", &large).await.problem(), "413 MANIFEST_INVALID");
    let other = Digest::of(b"other").to_string();
    assert_eq!(put(&other, &bytes).await.problem(), "400 DIGEST_INVALID");

    let digest = Digest::of(&bytes).to_string();
    let stored = put("latest", &bytes).await;
    assert_eq!((stored.status, stored.header("docker-content-digest")), (201, digest.as_str()));
    assert!(registry.scratch.store.manifest(&name("me/m")).unwrap().is_some());
    assert_eq!(put(&digest, &bytes).await.status, 201);
    assert_eq!(registry.get("me/m/tags/list").await.body, r#"{"name":"me/m","tags":["latest"]}"#);

    let by_digest = format!("me/m/manifests/{digest}");
    assert_eq!(seen(registry.request("DELETE", &by_digest)).await.status, 202);
    assert_eq!(registry.get("me/m/manifests/latest").await.problem(), "404 MANIFEST_UNKNOWN");
    assert!(!registry.scratch.store.has(&Digest::of(b"weights")));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let registry = Registry::start(ServerOptions::default()).await;
    for model in ["m:a", "m:b", "m:c", "me/other", "hf.co/u/r"] {
        put_model(&registry.scratch.store, model, b"w");
    }
    let catalog = registry.get("_catalog").await;
    assert_eq!(catalog.body, r#"{"repositories":["library/m","me/other"]}"#);
    let page = registry.get("library/m/tags/list?n=2").await;
    assert_eq!(page.body, r#"{"name":"library/m","tags":["a","b"]}"#);
    let link = page.header("link");
    assert_eq!(link, r#"</v2/library/m/tags/list?n=2&last=b>; rel="next""#);
    let rest = registry.get("m/tags/list?n=2&last=b").await;
    assert_eq!(
        (rest.body.as_str(), rest.header("link")),
        (r#"{"name":"library/m","tags":["c"]}"#, "")
    );
}

#[tokio::test]
async fn bad_requests_have_their_codes() {
    let registry = Registry::start(ServerOptions::default()).await;
    let requests = [
        ("GET", "a/b/c/tags/list"),
        ("GET", "a/b/tags/list"),
        ("GET", "_catalog?n=x"),
        ("GET", "a/b/manifests/latest"),
        ("GET", "a/b/manifests/.hidden"),
        ("GET", "a/..%2f..%2fetc/manifests/passwd"),
        ("GET", "a/b/blobs/sha256:00"),
        ("GET", "a/b/blobs/sha256:..%2f..%2fetc%2fpasswd"),
        ("GET", "a/b/blobs/sha512:00"),
        ("PUT", "a/b/manifests/.hidden"),
        ("DELETE", "a/b/manifests/latest"),
        ("PATCH", "a/b/blobs/uploads/none"),
        ("PUT", "a/b/blobs/uploads/none"),
        ("DELETE", "a/b/tags/list"),
        ("GET", "/"),
        ("GET", "nothing"),
    ];
    problems(
        &registry,
        &requests,
        expect![[r#"
        GET a/b/c/tags/list: 400 NAME_INVALID
        GET a/b/tags/list: 404 NAME_UNKNOWN
        GET _catalog?n=x: 400 NAME_INVALID
        GET a/b/manifests/latest: 404 MANIFEST_UNKNOWN
        GET a/b/manifests/.hidden: 404 MANIFEST_UNKNOWN
        GET a/..%2f..%2fetc/manifests/passwd: 400 NAME_INVALID
        GET a/b/blobs/sha256:00: 400 DIGEST_INVALID
        GET a/b/blobs/sha256:..%2f..%2fetc%2fpasswd: 404 NAME_UNKNOWN
        GET a/b/blobs/sha512:00: 400 DIGEST_INVALID
        PUT a/b/manifests/.hidden: 400 TAG_INVALID
        DELETE a/b/manifests/latest: 404 MANIFEST_UNKNOWN
        PATCH a/b/blobs/uploads/none: 404 BLOB_UPLOAD_UNKNOWN
        PUT a/b/blobs/uploads/none: 400 DIGEST_INVALID
        DELETE a/b/tags/list: 405 UNSUPPORTED
        GET /: 404 NAME_UNKNOWN
        GET nothing: 404 NAME_UNKNOWN
    "#]],
    )
    .await;
    let unknown = Digest::of(b"unknown");
    let blob = registry.get(&format!("a/b/blobs/{unknown}")).await;
    assert_eq!(blob.problem(), "404 BLOB_UNKNOWN");
}

#[tokio::test]
async fn writes_can_be_closed_off() {
    let options = ServerOptions { read_only: true, ..ServerOptions::default() };
    let closed = Registry::start(options).await;
    put_model(&closed.scratch.store, "m", b"w");
    assert_eq!(closed.get("m/manifests/latest").await.status, 200);
    let requests = [
        ("POST", "m/blobs/uploads/"),
        ("PUT", "m/manifests/latest"),
        ("DELETE", "m/manifests/latest"),
    ];
    let expected = expect![[r#"
        POST m/blobs/uploads/: 405 UNSUPPORTED
        PUT m/manifests/latest: 405 UNSUPPORTED
        DELETE m/manifests/latest: 405 UNSUPPORTED
    "#]];
    problems(&closed, &requests, expected).await;
    let open = Registry::start(ServerOptions::default()).await;
    let page = open.request("POST", "m/blobs/uploads/").header("origin", "https://evil.example");
    assert_eq!(seen(page).await.problem(), "403 DENIED");
}

#[tokio::test]
async fn what_a_shared_store_has_need_not_be_sent() {
    let shared = scratch();
    let stored = put_model(&shared.store, "me/m", b"weights");
    let options = ServerOptions { shared: Some(shared.store.clone()), ..Default::default() };
    let registry = Registry::start(options).await;
    let put = |path: String| registry.request("PUT", &path).body(stored.bytes.clone());
    for blob in stored.manifest.blobs() {
        let head = registry.request("HEAD", &format!("me/other/blobs/{}", blob.digest));
        assert_eq!(seen(head).await.status, 200);
    }
    // What has rotted there is not taken over.
    let weights = shared.store.blob_path(&Digest::of(b"weights"));
    std::fs::write(&weights, "weightz").unwrap();
    assert_eq!(seen(put("me/other/manifests/1".to_owned())).await.problem(), "500 UNKNOWN");
    std::fs::write(&weights, "weights").unwrap();
    for reference in ["1".to_owned(), stored.digest.to_string()] {
        let put = seen(put(format!("me/other/manifests/{reference}"))).await;
        assert_eq!(put.status, 201, "{}", put.body);
    }
    // It is this registry's own now, whatever its owner does.
    shared.store.remove(&name("me/m")).unwrap();
    let blob = registry.get(&format!("me/other/blobs/{}", Digest::of(b"weights"))).await;
    assert_eq!((blob.status, blob.body.as_str()), (200, "weights"));
    let blobs = std::fs::read_dir(registry.scratch.folder.path().join("blobs")).unwrap();
    assert_eq!(blobs.count(), 3);
}

#[tokio::test]
async fn a_stalled_body_is_given_up() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let options = ServerOptions { body_idle: Duration::from_millis(100), ..Default::default() };
    let registry = Registry::start(options).await;
    let upload = registry.open("me/m").await;
    let address = registry.url.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head =
        format!("PATCH {upload} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 9\r\n\r\nabc");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    // What arrived is kept, and the upload goes on from there.
    assert_eq!(registry.get(&upload).await.header("range"), "0-2");
}

#[tokio::test]
async fn serving_ends_when_it_is_told_to() {
    let scratch = scratch();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move { drop(stopped.await) };
    let store = scratch.store.clone();
    let serving = tokio::spawn(serve(listener, store, ServerOptions::default(), shutdown));
    stop.send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), serving).await;
    ended.expect("it ends in time").unwrap().unwrap();
}
