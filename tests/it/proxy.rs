//! A counting proxy: it passes requests on to one registry, slowly enough to be killed in between, and
//! notes which bytes of which blob went where.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes passed on at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Longest head of a request or an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Part of a blob, from its first byte to the one after its last.
type Span = (u64, u64);

/// The running proxy; its threads end with the test's process.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: String,
    upstream: String,
    /// Before each chunk: what limits the rate of one connection.
    pause: Duration,
    passed: Arc<Mutex<Passed>>,
}

/// What went through.
#[derive(Default)]
struct Passed {
    /// What has been passed on of each blob, in spans that neither touch nor overlap.
    covered: BTreeMap<String, Vec<Span>>,
    /// Bytes passed on that had been before.
    again: u64,
}

impl Proxy {
    pub(crate) fn start(upstream: &str, pause: Duration) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let passed = Arc::default();
        let proxy = Proxy { address, upstream: upstream.to_owned(), pause, passed };
        let running = proxy.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let proxy = running.clone();
                // A client that was killed breaks its connections off; that is what this is for.
                thread::spawn(move || proxy.converse(stream).ok());
            }
        });
        proxy
    }

    /// The bytes that were passed on a second time since the last call.
    pub(crate) fn taken_again(&self) -> u64 {
        std::mem::take(&mut self.passed().again)
    }

    /// Forgets what was passed on: the next fetch is a first one.
    pub(crate) fn forget(&self) {
        *self.passed() = Passed::default();
    }

    fn passed(&self) -> MutexGuard<'_, Passed> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request, one answer, one connection on either side.
    fn converse(&self, mut client: TcpStream) -> std::io::Result<()> {
        let request = head(&mut client)?;
        let mut server = TcpStream::connect(&self.upstream)?;
        let kept =
            request.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let kept: String = kept.map(|line| format!("{line}\r\n")).collect();
        server.write_all(format!("{kept}Connection: close\r\n\r\n").as_bytes())?;
        let answer = head(&mut server)?;
        client.write_all(format!("{answer}\r\n\r\n").as_bytes())?;
        let blob = request.split_once("/blobs/").and_then(|(_, rest)| rest.split(' ').next());
        let blob = blob.filter(|_| answer.split(' ').nth(1).is_some_and(|s| s.starts_with("20")));
        let mut at = content_range_start(&answer);
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = server.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if blob.is_some() {
                thread::sleep(self.pause);
            }
            client.write_all(&buffer[..count])?;
            let next = at + count as u64;
            if let Some(blob) = blob {
                self.note(blob, (at, next));
            }
            at = next;
        }
    }

    fn note(&self, blob: &str, span: Span) {
        let mut passed = self.passed();
        let again = cover(passed.covered.entry(blob.to_owned()).or_default(), span);
        passed.again += again;
    }
}

/// Adds a span to what is covered; returns how many of its bytes were already.
fn cover(covered: &mut Vec<Span>, (mut first, mut end): Span) -> u64 {
    let mut again = 0;
    covered.retain(|&(from, to)| {
        let apart = to < first || end < from;
        if !apart {
            again += to.min(end).saturating_sub(from.max(first));
        }
        apart || {
            first = first.min(from);
            end = end.max(to);
            false
        }
    });
    covered.push((first, end));
    again
}

/// Everything up to the empty line, without it.
fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") && bytes.len() < HEAD_BYTES_MAX {
        stream.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// Where in the blob an answer begins.
fn content_range_start(head: &str) -> u64 {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-range:"));
    let first = line.and_then(|line| line.split_once("bytes ")?.1.split('-').next()?.parse().ok());
    first.unwrap_or(0)
}

#[test]
fn what_is_covered_twice_is_counted_once_for_each_time_more() {
    let mut covered = Vec::new();
    let spans = [(0, 10), (20, 30), (5, 25), (30, 40), (0, 40), (50, 60)];
    let again: Vec<u64> = spans.map(|span| cover(&mut covered, span)).into();
    assert_eq!(again, [0, 0, 10, 0, 40, 0]);
    covered.sort();
    assert_eq!(covered, [(0, 40), (50, 60)]);
}
