//! Against a registry that offers HTTP/2 over TLS: many ranges at once on one connection.
//!
//! `tls/` holds a key that nothing else trusts, and its certificate for localhost and
//! tls.test, good for a hundred years.

use super::*;
use crate::fixture::{CONFIG, LICENSE, manifest_of, scratch, weights};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response, Version, body::Frame, body::Incoming, header::RANGE, service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/client/tests/tls");
const MIB: usize = 1 << 20;

/// What the server has seen.
#[derive(Debug, Default)]
struct Log {
    connections: AtomicUsize,
    others_than_h2: AtomicUsize,
    ranges: AtomicUsize,
    running: AtomicUsize,
    running_most: AtomicUsize,
}

impl Log {
    /// Until two ranges have been under way at once, or it is clear that they never are.
    async fn wait_for_two(&self) {
        for _ in 0..300 {
            if self.running_most.load(Ordering::SeqCst) >= 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A registry with one model over TLS; the first range that begins at `stalls` stops after half of it.
async fn registry(weights: Bytes, stalls: Option<usize>) -> (String, Arc<Log>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let (log, stalled) = (Arc::new(Log::default()), Arc::new(AtomicBool::new(stalls.is_none())));
    let (noted, acceptor) = (Arc::clone(&log), acceptor(&[b"h2", b"http/1.1"]));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, weights) = (acceptor.clone(), weights.clone());
            let (log, stalled) = (Arc::clone(&noted), Arc::clone(&stalled));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                log.connections.fetch_add(1, Ordering::SeqCst);
                let answer = service_fn(move |request| {
                    let (weights, log) = (weights.clone(), Arc::clone(&log));
                    let stalled = Arc::clone(&stalled);
                    async move {
                        let first = first_of(&request);
                        let stall =
                            stalls == first && !stalled.swap(stalls == first, Ordering::SeqCst);
                        Ok::<_, Infallible>(answer(&request, weights, &log, stall))
                    }
                });
                let io = TokioIo::new(stream);
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(io, answer).await;
            });
        }
    });
    (url, log)
}

/// The file of the servers' certificate.
pub(super) fn certificate() -> PathBuf {
    Path::new(FOLDER).join("cert.pem")
}

/// A server's side of TLS, with these protocols on offer.
pub(super) fn acceptor(protocols: &[&[u8]]) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(certificate()).unwrap();
    let key = PrivateKeyDer::from_pem_file(Path::new(FOLDER).join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = config.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

fn first_of(request: &Request<Incoming>) -> Option<usize> {
    let range = request.headers().get(RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
}

fn answer(
    request: &Request<Incoming>,
    weights: Bytes,
    log: &Arc<Log>,
    stall: bool,
) -> Response<BoxBody<Bytes, Infallible>> {
    if request.version() != Version::HTTP_2 {
        log.others_than_h2.fetch_add(1, Ordering::SeqCst);
    }
    let path = request.uri().path();
    let whole = |bytes: Vec<u8>| Response::new(Full::new(bytes.into()).boxed());
    if path.contains("/manifests/") {
        return whole(manifest_of(&weights).to_json());
    }
    if !path.ends_with(&Digest::of(&weights).to_string()) {
        let small = if path.ends_with(&Digest::of(CONFIG).to_string()) { CONFIG } else { LICENSE };
        return whole(small.to_vec());
    }
    log.ranges.fetch_add(1, Ordering::SeqCst);
    let running = log.running.fetch_add(1, Ordering::SeqCst) + 1;
    log.running_most.fetch_max(running, Ordering::SeqCst);
    let range = request.headers()[RANGE].to_str().unwrap().trim_start_matches("bytes=");
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let end = if stall { (first + last) / 2 } else { last + 1 };
    let pieces: Vec<Bytes> = (first..end)
        .step_by(64 << 10)
        .map(|at| weights.slice(at..end.min(at + (64 << 10))))
        .collect();
    let (done, company) = (Arc::clone(log), Arc::clone(log));
    let pieces = stream::iter(pieces).enumerate().then(move |(number, piece)| {
        let company = Arc::clone(&company);
        async move {
            if number == 1 {
                company.wait_for_two().await;
            }
            piece
        }
    });
    let pieces = pieces.chain(stream::once(async move {
        if stall {
            std::future::pending::<()>().await;
        }
        done.running.fetch_sub(1, Ordering::SeqCst);
        Bytes::new()
    }));
    let body = StreamBody::new(pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
    Response::builder()
        .status(206)
        .header("content-range", format!("bytes {first}-{last}/{}", weights.len()))
        .header("content-length", last + 1 - first)
        .body(BoxBody::new(body))
        .unwrap()
}

/// A client that trusts the server's certificate.
fn trusting(url: &str, limits: Limits) -> Client {
    let ca = Some(certificate());
    let host = url.strip_prefix("https://").unwrap().to_owned();
    let registry = RegistryConfig { ca, ..RegistryConfig::default() };
    let registries = BTreeMap::from([(host, registry)]);
    let registry = Some(Url::parse(url).unwrap());
    Client::with_limits(ClientConfig { registry, registries, ..ClientConfig::default() }, limits)
        .unwrap()
}

fn limits() -> Limits {
    // Patient enough for a machine that has other things to do.
    let stall = Duration::from_secs(5);
    Limits { range_bytes: MIB as u64, connections: 4, stall, attempts: 6, ..quick() }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_come_side_by_side_over_one_connection_of_http_2() {
    let (bytes, here) = (weights(81, 16 * MIB), scratch());
    let (url, log) = registry(bytes.clone().into(), None).await;
    pull(&trusting(&url, limits()), &here.store, "m").await.unwrap();
    assert!(here.store.read_blob(&Digest::of(&bytes), bytes.len() as u64).unwrap() == bytes);
    assert_eq!(log.others_than_h2.load(Ordering::SeqCst), 0);
    assert_eq!(log.connections.load(Ordering::SeqCst), 1);
    // A slow one may have been divided.
    let ranges = log.ranges.load(Ordering::SeqCst);
    assert!((16..64).contains(&ranges), "{ranges}");
    let most = log.running_most.load(Ordering::SeqCst);
    assert!((2..=4).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_stands_still_does_not_hold_up_the_others_of_its_connection() {
    let (bytes, here) = (weights(82, 8 * MIB), scratch());
    let (url, log) = registry(bytes.clone().into(), Some(3 * MIB)).await;
    let began = std::time::Instant::now();
    pull(&trusting(&url, limits()), &here.store, "m").await.unwrap();
    assert!(here.store.read_blob(&Digest::of(&bytes), bytes.len() as u64).unwrap() == bytes);
    assert_eq!(log.others_than_h2.load(Ordering::SeqCst), 0);
    assert_eq!(log.connections.load(Ordering::SeqCst), 1);
    // Somebody else brought what it owed, before it counted as failed and all was over.
    let ranges = log.ranges.load(Ordering::SeqCst);
    assert!((9..64).contains(&ranges), "{ranges}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}
