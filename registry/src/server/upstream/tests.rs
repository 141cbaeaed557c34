//! A cache before an upstream that is real, slow, wrong or gone.

use super::*;
use crate::{
    Store,
    fixture::{CONFIG, Scratch, manifest_of, name, put_model, scratch, weights},
    server::{
        ServerOptions, serve,
        tests::{Registry, seen},
    },
};
use futures_util::StreamExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

fn quick() -> Limits {
    Limits {
        stall: Duration::from_secs(5),
        backoff: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
        ..Limits::default()
    }
}

/// A cache before the registry at `url`.
async fn cache(url: &str) -> Registry {
    let upstream = Upstream::with_limits(Url::parse(url).unwrap(), false, quick()).unwrap();
    Registry::start(ServerOptions { upstream: Some(upstream), ..Default::default() }).await
}

/// An upstream with one blob. It sends the first half, waits to be let on, and sends the second.
#[derive(Clone)]
struct Slow {
    url: String,
    /// What it sends in place of the blob it has.
    bytes: Arc<Vec<u8>>,
    go_on: Arc<Semaphore>,
    /// Hangs up after the first half of this many requests.
    hang_ups: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Slow {
    async fn start(bytes: Vec<u8>) -> Slow {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let slow = Slow {
            url: format!("http://{}", listener.local_addr().unwrap()),
            bytes: Arc::new(bytes),
            go_on: Arc::new(Semaphore::new(0)),
            hang_ups: Arc::default(),
            heads: Arc::default(),
        };
        let running = slow.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let slow = running.clone();
                tokio::spawn(async move { slow.converse(stream).await });
            }
        });
        slow
    }

    async fn converse(&self, mut stream: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        guard(&self.heads).push(head.clone());
        let first = head
            .split_once("range: bytes=")
            .map_or(0, |(_, range)| range.split_once('-').unwrap().0.parse::<usize>().unwrap());
        let (total, half) = (self.bytes.len(), first.max(self.bytes.len() / 2));
        let status = if first > 0 { "206 Partial Content" } else { "200 OK" };
        let reply = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Range: bytes {first}-{}/{total}\r\n\r\n",
            total - first,
            total - 1
        );
        let _ = stream.write_all(reply.as_bytes()).await;
        if head.starts_with("head") {
            return;
        }
        let _ = stream.write_all(&self.bytes[first..half]).await;
        let left = |left: usize| left.checked_sub(1);
        if self.hang_ups.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok() {
            return;
        }
        self.go_on.acquire().await.unwrap().forget();
        let _ = stream.write_all(&self.bytes[half..]).await;
    }

    fn requests(&self) -> Vec<String> {
        guard(&self.heads).clone()
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("me/m/blobs/{digest}")
}

/// A real registry as the upstream, which ends when told.
async fn real(store: &Store) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (store, options) = (store.clone(), ServerOptions::default());
    let serving = tokio::spawn(async move {
        serve(listener, store, options, std::future::pending()).await.unwrap();
    });
    (url, serving)
}

#[tokio::test]
async fn fault_34_fifty_clients_of_one_blob_cause_one_fetch_and_read_as_it_arrives() {
    let bytes = weights(1, 2_000_000);
    let (digest, slow) = (Digest::of(&bytes), Slow::start(bytes.clone()).await);
    let cache = cache(&slow.url).await;
    let mut bodies = Vec::new();
    for _ in 0..50 {
        let response = cache.request("GET", &blob_path(&digest)).send().await.unwrap();
        assert_eq!(response.headers()["content-length"], "2000000");
        bodies.push(response.bytes_stream());
    }
    // All of them see bytes while the upstream still keeps the second half back.
    let mut begun = Vec::new();
    for body in &mut bodies {
        begun.push(body.next().await.unwrap().unwrap().to_vec());
    }
    // The first one hanging up ends nothing for the others.
    drop(bodies.remove(0));
    begun.remove(0);
    assert!(!cache.scratch.store.has(&digest));
    slow.go_on.add_permits(1);
    for (body, mut whole) in bodies.into_iter().zip(begun) {
        let mut body = body;
        while let Some(chunk) = body.next().await {
            whole.extend_from_slice(&chunk.unwrap());
        }
        assert!(whole == bytes);
    }
    assert_eq!(slow.requests().len(), 1);
    assert!(cache.scratch.store.has(&digest));
    // From now on it comes from here.
    assert_eq!(cache.get(&blob_path(&digest)).await.status, 200);
    assert_eq!(slow.requests().len(), 1);
}

#[tokio::test]
async fn a_range_waits_for_its_bytes_and_head_fetches_none() {
    let slow = Slow::start(b"0123456789".to_vec()).await;
    let digest = Digest::of(b"0123456789");
    let cache = cache(&slow.url).await;
    let path = blob_path(&digest);
    let head = seen(cache.request("HEAD", &path)).await;
    assert_eq!((head.status, head.header("content-length")), (200, "10"));
    assert!(slow.requests().iter().all(|head| head.starts_with("head ")));
    let early = seen(cache.request("GET", &path).header("range", "bytes=1-3")).await;
    assert_eq!((early.status, early.body.as_str()), (206, "123"));
    assert_eq!(early.header("content-range"), "bytes 1-3/10");
    let outside = seen(cache.request("GET", &path).header("range", "bytes=10-")).await;
    assert_eq!(outside.status, 416);
    let late = cache.request("GET", &path).header("range", "bytes=8-").send().await.unwrap();
    slow.go_on.add_permits(1);
    assert_eq!(late.text().await.unwrap(), "89");
}

#[tokio::test]
async fn fault_07_wrong_bytes_of_the_upstream_never_make_a_whole_blob() {
    let slow = Slow::start(b"wrong bytes".to_vec()).await;
    slow.go_on.add_permits(9);
    let digest = Digest::of(b"right bytes");
    let cache = cache(&slow.url).await;
    let response = cache.request("GET", &blob_path(&digest)).send().await;
    // The fetch may have ended before the answer began.
    match response.unwrap() {
        response if response.status() == 200 => assert!(response.bytes().await.is_err()),
        response => assert_eq!(response.status(), 502),
    }
    assert!(!cache.scratch.store.has(&digest));
    let blobs = cache.scratch.folder.path().join("blobs");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
}

#[tokio::test]
async fn a_fetch_that_breaks_off_goes_on_where_it_was() {
    let bytes = weights(2, 1_000_000);
    let slow = Slow::start(bytes.clone()).await;
    slow.hang_ups.store(2, Ordering::SeqCst);
    slow.go_on.add_permits(1);
    let digest = Digest::of(&bytes);
    let cache = cache(&slow.url).await;
    let body = cache.request("GET", &blob_path(&digest)).send().await.unwrap().bytes().await;
    assert!(body.unwrap() == bytes);
    let ranges: Vec<bool> =
        slow.requests().iter().map(|head| head.contains("range: bytes=500000-")).collect();
    assert_eq!(ranges, [false, true, true]);
}

#[tokio::test]
async fn tags_are_asked_about_again_and_answered_from_here_when_nobody_is_there() {
    let there = scratch();
    let first = put_model(&there.store, "me/m", b"version 1");
    let (url, serving) = real(&there.store).await;
    let cache = cache(&url).await;
    let tag = "me/m/manifests/latest";
    assert_eq!(cache.get(tag).await.body.as_bytes(), first.bytes);
    let weights = cache.get(&blob_path(&Digest::of(b"version 1"))).await;
    assert_eq!(weights.body, "version 1");
    // It is no model of the cache's store, and its blobs are in use all the same.
    assert!(cache.scratch.store.list().unwrap().is_empty());
    assert_eq!(cache.scratch.store.remove_unused([Digest::of(b"version 1")]).unwrap(), 0);

    let second = put_model(&there.store, "me/m", b"version 2");
    assert_eq!(cache.get(tag).await.body.as_bytes(), second.bytes);
    assert_eq!(cache.get("me/m/tags/list").await.body, r#"{"name":"me/m","tags":["latest"]}"#);
    there.store.remove(&name("me/m")).unwrap();
    assert_eq!(cache.get(tag).await.problem(), "404 MANIFEST_UNKNOWN");

    put_model(&there.store, "me/m", b"version 3");
    let third = cache.get(tag).await.body;
    serving.abort();
    let _ = serving.await;
    // Open connections may outlive the listener for a request or two; what is here is right anyway.
    assert_eq!(cache.get(tag).await.body, third);
    assert_eq!(cache.get("me/m/tags/list").await.body, r#"{"name":"me/m","tags":["latest"]}"#);
    let digest = cache.get(tag).await.header("docker-content-digest").to_owned();
    assert_eq!(cache.get(&format!("me/m/manifests/{digest}")).await.body, third);
}

#[tokio::test]
async fn without_an_upstream_only_what_is_here_is_answered_and_quickly() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cache = cache(&format!("http://{gone}")).await;
    let Scratch { store, .. } = &cache.scratch;
    let stored = put_model(store, "me/own", b"own");
    let own = cache.get("me/own/manifests/latest").await;
    assert_eq!(own.body.as_bytes(), stored.bytes);
    assert_eq!(cache.get(&format!("me/own/blobs/{}", Digest::of(CONFIG))).await.status, 200);
    assert_eq!(cache.get("me/m/manifests/latest").await.problem(), "502 UNKNOWN");
    assert_eq!(cache.get(&blob_path(&Digest::of(b"absent"))).await.problem(), "502 UNKNOWN");
}

#[tokio::test]
async fn a_shared_store_is_read_and_never_written() {
    let (there, shared) = (scratch(), scratch());
    put_model(&there.store, "me/m", b"upstream");
    let own = put_model(&shared.store, "me/own", b"own");
    let before = files(&shared);
    let (url, _serving) = real(&there.store).await;
    let upstream = Upstream::with_limits(Url::parse(&url).unwrap(), false, quick()).unwrap();
    let options = ServerOptions {
        upstream: Some(upstream),
        shared: Some(shared.store.clone()),
        ..Default::default()
    };
    let cache = Registry::start(options).await;
    assert_eq!(cache.get("me/own/manifests/latest").await.body.as_bytes(), own.bytes);
    let blob = cache.get(&format!("me/own/blobs/{}", Digest::of(b"own"))).await;
    assert_eq!(blob.body, "own");
    let manifest = cache.get("me/m/manifests/latest").await;
    assert_eq!(manifest.body.as_bytes(), manifest_of(b"upstream").to_json());
    assert_eq!(cache.get(&blob_path(&Digest::of(b"upstream"))).await.body, "upstream");
    for (method, path) in [("POST", "me/m/blobs/uploads/"), ("PUT", "me/m/manifests/latest")] {
        assert_eq!(seen(cache.request(method, path)).await.problem(), "405 UNSUPPORTED");
    }
    assert_eq!(files(&shared), before);
}

/// Every file of a store.
fn files(scratch: &Scratch) -> Vec<std::path::PathBuf> {
    let mut found = vec![scratch.folder.path().to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        let entries = std::fs::read_dir(path).into_iter().flatten();
        found.extend(entries.map(|entry| entry.unwrap().path()));
        at += 1;
    }
    found.sort();
    found
}
