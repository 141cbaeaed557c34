//! The client against a scripted server: real sockets, no daemon.

use std::time::Duration;

use expect_test::expect;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::*;

/// Reads one request's head and sends `answer`.
async fn serve(mut socket: impl AsyncReadExt + AsyncWriteExt + Unpin, answer: &str) -> String {
    let mut head = vec![0; 8192];
    let read = socket.read(&mut head).await.unwrap();
    socket.write_all(answer.as_bytes()).await.unwrap();
    socket.flush().await.unwrap();
    String::from_utf8_lossy(&head[..read]).into_owned()
}

/// A client of a server that gives one answer.
async fn client_of(answer: &'static str) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        serve(socket, answer).await
    });
    Client::connect(&Endpoint::Tcp(url.parse().unwrap())).unwrap()
}

const STREAM: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn lines_come_one_by_one_and_an_error_line_ends_them() {
    let answer = concat!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        "{\"status\":\"pulling manifest\"}\n",
        "{\"error\":\"disk full\",\"code\":\"no_space\"}\n",
        "{\"status\":\"success\"}\n",
    );
    let client = client_of(answer).await;
    let mut lines = client.pull(&PullRequest::default()).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap().status, "pulling manifest");
    let error = lines.next().await.unwrap().unwrap_err();
    assert_eq!((error.to_string().as_str(), error.code()), ("disk full", Some(ErrorCode::NoSpace)));
    assert!(lines.next().await.is_none());
}

#[tokio::test]
async fn a_line_that_is_not_json_is_a_protocol_error() {
    assert!(STREAM.ends_with("\r\n\r\n"));
    let client = client_of("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>\n").await;
    let error = client.pull(&PullRequest::default()).await.unwrap().last().await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn a_status_becomes_an_api_error() {
    let client = client_of(
        "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n{\"error\":\"model 'm' not found\"}",
    )
    .await;
    let error = client.show(&ShowRequest::default()).await.unwrap_err();
    expect![[r#"
        Api {
            status: 404,
            message: "model 'm' not found",
            code: None,
        }
    "#]]
    .assert_debug_eq(&error);
}

#[tokio::test]
async fn nobody_there_is_unreachable_over_both_kinds_of_socket() {
    let tcp = Endpoint::Tcp("http://127.0.0.1:1".parse().unwrap());
    let unix = Endpoint::Unix("/nonexistent/dsk.sock".into());
    for endpoint in [tcp, unix] {
        let error = Client::connect(&endpoint).unwrap().version().await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { .. }), "{endpoint}: {error:?}");
        assert!(error.to_string().contains(&endpoint.to_string()));
    }
}

#[tokio::test]
async fn speaks_http_over_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("dsk-api-client-{}.sock", std::process::id()));
    let _absent = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        serve(socket, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"version\":\"0.12.6\"}").await
    });
    let client = Client::connect(&Endpoint::Unix(path.clone())).unwrap();
    let version = tokio::time::timeout(Duration::from_secs(5), client.version()).await.unwrap();
    assert_eq!(version.unwrap().version, "0.12.6");
    assert!(server.await.unwrap().starts_with("GET /api/version HTTP/1.1\r\n"));
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn a_blob_that_is_not_there_is_no_error() {
    let client = client_of("HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n").await;
    assert!(!client.blob_exists("sha256:00").await.unwrap());
}
