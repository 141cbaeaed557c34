//! Where plain HTTP is allowed: who is still spoken to over TLS, and who is not spoken to at all.

use super::{
    http2::{acceptor, certificate},
    script::{Asked, Reply, Script, good},
    sign_in::{entry, user},
    *,
};
use crate::fixture::{manifest_of, scratch};
use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

const WEIGHTS: &[u8] = b"weights on a server that may speak TLS";
/// The first byte of whoever begins with TLS.
const HANDSHAKE: u8 = 22;

/// Connections to a server, by what they begin with.
#[derive(Debug, Default)]
struct Seen {
    tls: AtomicUsize,
    plain: AtomicUsize,
}

/// A server that takes plain HTTP to the script, and does with TLS what it is told to.
async fn server(script: &Script, tls: Tls) -> (String, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tls.test:{}", listener.local_addr().unwrap().port());
    let plain = script.url.strip_prefix("http://").unwrap().to_owned();
    let seen = Arc::new(Seen::default());
    let noted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (plain, noted) = (plain.clone(), Arc::clone(&noted));
            tokio::spawn(async move {
                let mut first = [0];
                if !matches!(stream.peek(&mut first).await, Ok(1)) {
                    return;
                }
                if first[0] == HANDSHAKE {
                    noted.tls.fetch_add(1, Ordering::SeqCst);
                    return tls.meet(stream).await;
                }
                noted.plain.fetch_add(1, Ordering::SeqCst);
                let mut to = TcpStream::connect(&plain).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut to).await;
            });
        }
    });
    (host, seen)
}

/// What a server does with somebody who begins with TLS.
#[derive(Clone, Copy, Debug)]
enum Tls {
    /// It says in plain text that this is no HTTP.
    Text,
    Closes,
    /// It waits for the end of what it takes for a request.
    Waits,
    /// It asks for a password, over TLS, whatever the request.
    Asks,
}

impl Tls {
    async fn meet(self, mut stream: TcpStream) {
        match self {
            Tls::Text => {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\nwhat?").await;
            }
            Tls::Closes => {}
            Tls::Waits => std::future::pending().await,
            Tls::Asks => {
                let Ok(mut stream) = acceptor(&[b"http/1.1"]).accept(stream).await else { return };
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\
                              Content-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    }
}

/// A pull with `--insecure`, by somebody who has a password for the host.
async fn pull_insecurely(host: &str, ca: Option<PathBuf>) -> Result<StoredManifest, ClientError> {
    let ada = user(entry(host, r#"{"auth": "YWRhOnNlY3JldA=="}"#), false);
    let config = RegistryConfig { ca, ..RegistryConfig::default() };
    let config = ClientConfig {
        keyring: ada.keyring.clone(),
        registries: BTreeMap::from([(host.to_owned(), config)]),
        ..ClientConfig::default()
    };
    // Long enough for a handshake on a busy machine, and short for one that never comes about.
    let limits = Limits { connect: Duration::from_secs(2), ..quick() };
    let client = Client::with_limits(config, limits).unwrap();
    let (here, name) = (scratch(), crate::fixture::name(&format!("{host}/library/m")));
    let insecure = TransferOptions { insecure: true, ..TransferOptions::default() };
    client.pull(&here.store, &name, &insecure, |_| {}, &CancellationToken::new()).await
}

fn model(asked: &Asked) -> Reply {
    match asked {
        asked if asked.is_blob(WEIGHTS) => Reply::new("200 OK", "", WEIGHTS),
        asked => good(asked, &manifest_of(WEIGHTS)),
    }
}

#[tokio::test]
async fn where_nobody_speaks_tls_plain_http_goes_on() {
    for tls in [Tls::Text, Tls::Closes, Tls::Waits] {
        let script = Script::start(model).await;
        let (host, seen) = server(&script, tls).await;
        pull_insecurely(&host, None).await.unwrap();
        assert!(seen.tls.load(Ordering::SeqCst) > 0, "{tls:?}");
    }
}

#[tokio::test]
async fn whoever_answers_over_tls_is_not_spoken_to_without_it() {
    let script = Script::start(model).await;
    let (host, seen) = server(&script, Tls::Asks).await;
    let error = pull_insecurely(&host, Some(certificate())).await.unwrap_err();
    assert!(matches!(error, ClientError::Unauthorized { .. }), "{error}");
    assert!(seen.tls.load(Ordering::SeqCst) > 1);
    // Nor is one whose certificate nobody here has signed, and it is said what would help.
    let error = pull_insecurely(&host, None).await.unwrap_err().to_string();
    assert!(error.contains("its certificate is not trusted (invalid peer certificate"), "{error}");
    assert!(error.contains(&format!("as ca under [registries.\"{host}\"]")), "{error}");
    assert_eq!(seen.plain.load(Ordering::SeqCst), 0);
    assert!(script.requests().is_empty());
}
