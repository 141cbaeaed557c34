//! A daemon in this process, over real sockets, with scripted runners.

use std::collections::BTreeMap;

use axum::routing::get;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use super::*;
use crate::{config::*, runner::scripted::Scripted};

fn config(folder: &tempfile::TempDir) -> Config {
    let home = folder.path().display().to_string();
    let env = BTreeMap::from([("DSK_HOME".to_owned(), home)]);
    Config::load(&Overrides::default(), &env, &Files::default()).unwrap()
}

fn service(config: Config) -> Arc<Service> {
    Service::with_launcher(config, Arc::new(Scripted::new(Duration::ZERO))).unwrap()
}

async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Takes a second to answer, says who asked.
fn router() -> Router {
    Router::new().route(
        "/slow",
        get(async |peer: axum::Extension<Peer>| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            match peer.0 {
                Peer::Tcp { client, .. } => format!("tcp {}", client.ip()),
                Peer::Unix => "unix".to_owned(),
            }
        }),
    )
}

#[tokio::test]
async fn it_serves_until_told_and_lets_requests_finish() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("dsk.sock");
    let env = BTreeMap::from([
        ("DSK_HOME".to_owned(), folder.path().display().to_string()),
        ("DSK_SOCKET".to_owned(), socket.display().to_string()),
        ("DSK_HOST".to_owned(), "127.0.0.1:0".to_owned()),
    ]);
    let config = Config::load(&Overrides::default(), &env, &Files::default()).unwrap();
    let listeners = Listeners::bind(&config).await.unwrap();
    let address = listeners.addresses()[0];
    let (stop, stopped) = oneshot::channel::<()>();
    let daemon = tokio::spawn(serve(service(config.clone()), router(), listeners, async {
        let _ = stopped.await;
    }));

    let mut tcp = TcpStream::connect(address).await.unwrap();
    let mut unix = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let running =
        tokio::spawn(async move { (ask(&mut tcp, "/slow").await, ask(&mut unix, "/slow").await) });
    let mut idle = TcpStream::connect(address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stop.send(()).unwrap();
    let (tcp, unix) = running.await.unwrap();
    assert!(tcp.ends_with("tcp 127.0.0.1"), "{tcp}");
    assert!(unix.ends_with("unix"), "{unix}");
    // A connection without a request does not hold up the end.
    tokio::time::timeout(Duration::from_secs(10), daemon).await.unwrap().unwrap();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(!socket.exists());
    // The store is free again.
    drop(service(config));
}

#[tokio::test]
async fn requests_that_do_not_end_are_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    config.drain = Duration::from_millis(100);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endless = Router::new().route("/", get(async || std::future::pending::<()>().await));
    let (stop, stopped) = oneshot::channel::<()>();
    let listeners = Listeners::from_tcp(listener);
    let daemon = tokio::spawn(serve(service(config), endless, listeners, async {
        let _ = stopped.await;
    }));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let asking = tokio::spawn(async move { ask(&mut stream, "/").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.send(()).unwrap();
    assert_eq!(asking.await.unwrap(), "");
    daemon.await.unwrap();
}

#[tokio::test]
async fn two_daemons_do_not_share_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let first = service(config(&folder));
    let launcher = Arc::new(Scripted::new(Duration::ZERO));
    let error = Service::with_launcher(config(&folder), launcher).unwrap_err().to_string();
    let pid = std::process::id();
    assert!(error.contains(&format!("in use by process {pid}")), "{error}");
    drop(first);
}

#[tokio::test]
async fn a_manifest_from_outside_reaches_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(config(&folder));
    let watching = tokio::spawn(watch::watch(Arc::downgrade(&service)));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let weights = service.store.put_blob(b"weights").unwrap();
    let config = service.store.put_blob(b"{}").unwrap();
    let layer = dsk_registry::Layer::new(dsk_registry::media_type::MODEL, weights, 7);
    let config = dsk_registry::Layer::new(dsk_registry::media_type::CONFIG, config, 2);
    let manifest = dsk_registry::Manifest::new(config.descriptor(), vec![layer]).to_json();
    let path = service.store.root().join("manifests/registry.ollama.ai/library/m/latest");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, manifest).unwrap();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if service.index.models().await.unwrap().len() == 1 {
            watching.abort();
            return;
        }
    }
    panic!("the index did not notice");
}
