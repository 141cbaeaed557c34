//! A registry that answers every request as a test says, byte for byte.

use crate::{Digest, Manifest, fixture};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// One answer.
#[derive(Clone)]
pub(super) struct Reply {
    head: String,
    body: Vec<u8>,
    /// Keeps the connection open and silent after the body.
    stalls: bool,
    /// Sends one byte at a time, this far apart.
    drips: Option<Duration>,
    /// Thinks this long before it says anything.
    thinks: Duration,
}

impl Reply {
    /// A head without a Content-Length: the end of the connection ends the body.
    pub(super) fn raw(status: &str, headers: &str, body: &[u8]) -> Reply {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
        Reply { head, body: body.to_vec(), stalls: false, drips: None, thinks: Duration::ZERO }
    }

    /// A well-formed answer.
    pub(super) fn new(status: &str, headers: &str, body: &[u8]) -> Reply {
        Reply::raw(status, &format!("Content-Length: {}\r\n{headers}", body.len()), body)
    }

    /// The right part of `bytes` for a request with `Range: bytes=<first>-`.
    pub(super) fn part(bytes: &[u8], first: usize) -> Reply {
        let range = format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len());
        let headers = format!("Content-Range: {range}\r\n");
        Reply::new("206 Partial Content", &headers, &bytes[first..])
    }

    /// What a good server answers about a blob: the range that is asked for, or all of it.
    pub(super) fn ranged(bytes: &[u8], asked: &Asked) -> Reply {
        let Some((first, last)) = asked.range() else { return Reply::new("200 OK", "", bytes) };
        let headers = format!("Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
        Reply::new("206 Partial Content", &headers, &bytes[first..=last])
    }

    /// Cut off after `count` bytes of the body, though the head promises all.
    pub(super) fn cut(mut self, count: usize) -> Reply {
        self.body.truncate(count);
        self
    }

    /// With one more header.
    pub(super) fn with(mut self, header: &str) -> Reply {
        let end = self.head.len() - 2;
        self.head.insert_str(end, &format!("{header}\r\n"));
        self
    }

    pub(super) fn dripping(mut self, pause: Duration) -> Reply {
        self.drips = Some(pause);
        self
    }

    pub(super) fn after(mut self, pause: Duration) -> Reply {
        self.thinks = pause;
        self
    }

    /// With one byte of the body changed.
    pub(super) fn flipped(mut self) -> Reply {
        let middle = self.body.len() / 2;
        self.body[middle] ^= 1;
        self
    }

    pub(super) fn then_stall(mut self) -> Reply {
        self.stalls = true;
        self
    }
}

/// A request as the script sees it.
pub(super) struct Asked {
    /// The method and the path.
    pub(super) line: String,
    head: String,
    /// How many requests of the same method and path came before.
    pub(super) count: usize,
    /// What it sends.
    pub(super) body: Vec<u8>,
}

impl Asked {
    /// A header's value; the name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
        self.head.lines().find(named)?.split_once(':').map(|(_, value)| value.trim())
    }

    /// The first and the last byte of the range that is asked for.
    pub(super) fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    }

    pub(super) fn is_manifest(&self) -> bool {
        self.line.contains("/manifests/")
    }

    pub(super) fn is_blob(&self, bytes: &[u8]) -> bool {
        self.line.ends_with(&format!("/blobs/{}", Digest::of(bytes)))
    }
}

/// The running script: its address, and the requests that it saw.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Script {
    pub(super) async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Script {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Script { url, heads: Arc::default() };
        let (running, answer) = (script.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, answer) = (running.clone(), Arc::clone(&answer));
                tokio::spawn(async move { script.converse(stream, &*answer).await });
            }
        });
        script
    }

    /// A registry with one good model, whose model file is answered for by `answer`.
    pub(super) async fn of_model(
        weights: &'static [u8],
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Script {
        Script::start(move |asked| match asked {
            asked if asked.is_blob(weights) => answer(asked),
            asked => good(asked, &fixture::manifest_of(weights)),
        })
        .await
    }

    async fn converse(&self, mut stream: TcpStream, answer: &(dyn Fn(&Asked) -> Reply + Sync)) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap();
        // A body that nobody reads would reset the connection under the answer.
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        let count =
            self.requests().iter().filter(|seen| seen.starts_with(&format!("{line} "))).count();
        self.heads.lock().unwrap().push(head.clone());
        let reply = answer(&Asked { line, head, count, body });
        tokio::time::sleep(reply.thinks).await;
        let _ = stream.write_all(reply.head.as_bytes()).await;
        match reply.drips {
            None => drop(stream.write_all(&reply.body).await),
            Some(pause) => {
                for byte in &reply.body {
                    if stream.write_u8(*byte).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
        let _ = stream.flush().await;
        if reply.stalls {
            std::future::pending::<()>().await;
        }
        let _ = stream.shutdown().await;
    }

    /// The heads of the requests for a blob.
    pub(super) fn requests_for(&self, bytes: &[u8]) -> Vec<String> {
        let path = format!("/blobs/{}", Digest::of(bytes));
        self.requests().into_iter().filter(|head| head.contains(&path)).collect()
    }

    /// The heads of all requests so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// What a good registry answers about a model of the fixture's making.
pub(super) fn good(asked: &Asked, manifest: &Manifest) -> Reply {
    if asked.is_manifest() {
        return Reply::new("200 OK", "", &manifest.to_json());
    }
    for blob in [fixture::LICENSE, fixture::CONFIG] {
        if asked.is_blob(blob) {
            return Reply::new("200 OK", "", blob);
        }
    }
    Reply::new("404 Not Found", "", b"")
}
