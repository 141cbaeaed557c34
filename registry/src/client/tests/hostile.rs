//! Against a registry that breaks, lies or stalls: a pull ends with the right bytes or with none.

use super::{
    script::{Asked, Reply, Script},
    *,
};
use crate::{
    Manifest,
    fixture::{manifest_of, name, scratch},
};

const WEIGHTS: &[u8] = b"these forty bytes are the model's weights";

/// Pulls the scripted model; on success its bytes must be right, on failure nothing may be published.
async fn pull_from(script: &Script, partial: &[u8]) -> Result<(), ClientError> {
    let here = scratch();
    let digest = Digest::of(WEIGHTS);
    if !partial.is_empty() {
        here.store.ingest(&digest).unwrap().write(partial).unwrap();
    }
    let pulled = pull(&client(&script.url), &here.store, "m").await;
    match &pulled {
        Ok(_) => assert_eq!(here.store.read_blob(&digest, 100).unwrap(), WEIGHTS),
        Err(_) => {
            assert!(!here.store.has(&digest));
            assert!(here.store.list().unwrap().is_empty());
        }
    }
    pulled.map(drop)
}

fn first_of(asked: &Asked) -> usize {
    let range = asked.header("range").expect("a range is asked for");
    let (first, last) = range.trim_start_matches("bytes=").split_once('-').unwrap();
    assert_eq!(last, (WEIGHTS.len() - 1).to_string());
    first.parse().unwrap()
}

#[tokio::test]
async fn a_resume_asks_for_the_rest_only() {
    let script = Script::of_model(WEIGHTS, |asked| Reply::part(WEIGHTS, first_of(asked))).await;
    pull_from(&script, &WEIGHTS[..10]).await.unwrap();
    let ranged = script.requests().iter().filter(|head| head.contains("bytes=10-")).count();
    assert_eq!(ranged, 1);
}

#[tokio::test]
async fn a_broken_body_is_continued() {
    let script = Script::of_model(WEIGHTS, |asked| match asked.count {
        0 => Reply::new("200 OK", "", WEIGHTS).cut(10),
        1 => {
            assert_eq!(first_of(asked), 10);
            Reply::part(WEIGHTS, 10).cut(5)
        }
        _ => Reply::part(WEIGHTS, first_of(asked)),
    })
    .await;
    pull_from(&script, b"").await.unwrap();
}

#[tokio::test]
async fn a_registry_without_ranges_starts_over() {
    let script = Script::of_model(WEIGHTS, |_| Reply::new("200 OK", "", WEIGHTS)).await;
    pull_from(&script, &WEIGHTS[..10]).await.unwrap();
}

#[tokio::test]
async fn a_wrong_part_is_not_written() {
    for headers in [
        "Content-Range: bytes 0-30/41\r\n",
        "Content-Range: bytes 10-50/41\r\n",
        "Content-Range: bytes 10-39/41\r\n",
        "Content-Range: bytes=10-\r\n",
        "",
    ] {
        let script = Script::of_model(WEIGHTS, move |asked| match asked.header("range") {
            Some(_) => Reply::new("206 Partial Content", headers, &WEIGHTS[10..]),
            None => Reply::new("200 OK", "", WEIGHTS),
        })
        .await;
        pull_from(&script, &WEIGHTS[..10]).await.unwrap();
    }
}

#[tokio::test]
async fn a_part_of_another_total_is_another_blob() {
    let headers = "Content-Range: bytes 10-40/99\r\n";
    let script = Script::of_model(WEIGHTS, move |_| {
        Reply::new("206 Partial Content", headers, &WEIGHTS[10..])
    })
    .await;
    let error = pull_from(&script, &WEIGHTS[..10]).await.unwrap_err();
    let size = |error: &ClientError| {
        matches!(error, ClientError::Integrity(IntegrityError::Size { expected: 41, got: 99, .. }))
    };
    assert!(size(&error), "{error}");
}

#[tokio::test]
async fn an_unsatisfiable_range_starts_over() {
    let script = Script::of_model(WEIGHTS, |asked| match asked.header("range") {
        Some(_) => Reply::new("416 Range Not Satisfiable", "", b""),
        None => Reply::new("200 OK", "", WEIGHTS),
    })
    .await;
    pull_from(&script, &WEIGHTS[..10]).await.unwrap();
}

#[tokio::test]
async fn wrong_bytes_are_an_integrity_error() {
    let flipped: Vec<u8> = WEIGHTS.iter().map(|byte| byte ^ 1).collect();
    let script = Script::of_model(WEIGHTS, move |_| Reply::new("200 OK", "", &flipped)).await;
    let error = pull_from(&script, b"").await.unwrap_err();
    assert!(matches!(error, ClientError::Integrity(IntegrityError::Digest { .. })), "{error}");
    // A resumed one gets a second chance, from the first byte.
    let flipped: Vec<u8> = WEIGHTS.iter().map(|byte| byte ^ 1).collect();
    let script = Script::of_model(WEIGHTS, move |asked| match asked.header("range") {
        Some(_) => Reply::ranged(&flipped, asked),
        None => Reply::new("200 OK", "", WEIGHTS),
    })
    .await;
    pull_from(&script, &WEIGHTS[..10]).await.unwrap();
}

#[tokio::test]
async fn more_bytes_than_the_descriptor_are_refused() {
    let extra = [WEIGHTS, b"and more"].concat();
    let announced = extra.clone();
    let script = Script::of_model(WEIGHTS, move |_| Reply::new("200 OK", "", &announced)).await;
    let error = pull_from(&script, b"").await.unwrap_err();
    assert!(
        matches!(error, ClientError::Integrity(IntegrityError::Size { got: 49, .. })),
        "{error}"
    );
    let script = Script::of_model(WEIGHTS, move |_| Reply::raw("200 OK", "", &extra)).await;
    let error = pull_from(&script, b"").await.unwrap_err();
    assert!(matches!(error, ClientError::Integrity(IntegrityError::Size { .. })), "{error}");
}

#[tokio::test]
async fn fewer_bytes_and_nothing_more_is_unreachable() {
    let script = Script::of_model(WEIGHTS, |_| Reply::raw("200 OK", "", &WEIGHTS[..10])).await;
    let error = pull_from(&script, b"").await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_stall_is_noticed_and_resumed() {
    let script = Script::of_model(WEIGHTS, |asked| match asked.count {
        0 => Reply::new("200 OK", "", WEIGHTS).cut(10).then_stall(),
        _ => Reply::part(WEIGHTS, first_of(asked)),
    })
    .await;
    pull_from(&script, b"").await.unwrap();
    let silent = Script::of_model(WEIGHTS, |_| Reply::raw("200 OK", "", b"").then_stall()).await;
    let error = pull_from(&silent, b"").await.unwrap_err();
    assert!(error.to_string().contains("no byte for 300ms"), "{error}");
}

#[tokio::test]
async fn passing_failures_pass() {
    let script = Script::of_model(WEIGHTS, |asked| match asked.count {
        0 => Reply::new("503 Service Unavailable", "Retry-After: 3600\r\n", b""),
        1 => Reply::new("429 Too Many Requests", "Retry-After: 0\r\n", b""),
        _ => Reply::new("200 OK", "", WEIGHTS),
    })
    .await;
    pull_from(&script, b"").await.unwrap();
    let script = Script::start(|_| Reply::new("500 Internal Server Error", "", b"")).await;
    let error = pull_from(&script, b"").await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert_eq!(script.requests().len(), 3);
}

#[tokio::test]
async fn a_blob_that_is_not_there_is_the_registrys_fault() {
    let script = Script::of_model(WEIGHTS, |_| Reply::new("404 Not Found", "", b"")).await;
    let error = pull_from(&script, b"").await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    let compressed =
        Script::of_model(WEIGHTS, |_| Reply::new("200 OK", "Content-Encoding: gzip\r\n", WEIGHTS))
            .await;
    let error = pull_from(&compressed, b"").await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn impossible_manifests_are_refused() {
    let mut two_sizes = manifest_of(WEIGHTS);
    two_sizes.layers.push(crate::Layer::new("x", Digest::of(WEIGHTS), 7));
    let deep = format!(r#"{{"schemaVersion":2,"x":{}"#, "[".repeat(1 << 20));
    for body in [
        vec![b' '; Manifest::BYTES_MAX + 1],
        b"<html>".to_vec(),
        deep.into_bytes(),
        two_sizes.to_json(),
    ] {
        let script = Script::start(move |_| Reply::raw("200 OK", "", &body)).await;
        let error = pull_from(&script, b"").await.unwrap_err();
        let refused = matches!(error, ClientError::Integrity(IntegrityError::Manifest { .. }));
        assert!(refused, "{error}");
    }
    let script = Script::start(|_| {
        let headers = format!("Docker-Content-Digest: {}\r\n", Digest::of(b"another"));
        Reply::new("200 OK", &headers, &manifest_of(WEIGHTS).to_json())
    })
    .await;
    let error = pull_from(&script, b"").await.unwrap_err();
    let lied = matches!(error, ClientError::Integrity(IntegrityError::ManifestDigest { .. }));
    assert!(lied, "{error}");
}

/// A registry that wants the token `secret`, which it gives itself, and keeps its blobs at `elsewhere`.
async fn guarded(elsewhere: String) -> Script {
    Script::start(move |asked| {
        if asked.line.starts_with("GET /token") {
            return Reply::new("200 OK", "", br#"{"token":"secret"}"#);
        }
        if asked.header("authorization") != Some("Bearer secret") {
            let host = asked.header("host").unwrap();
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"repository:library/m:pull\"\r\n"
            );
            return Reply::new("401 Unauthorized", &challenge, b"");
        }
        if asked.is_manifest() {
            return Reply::new("200 OK", "", &manifest_of(WEIGHTS).to_json());
        }
        let path = asked.line.trim_start_matches("GET ");
        Reply::new("307 Temporary Redirect", &format!("Location: {elsewhere}{path}\r\n"), b"")
    })
    .await
}

#[tokio::test]
async fn a_token_stays_with_the_registry_that_gave_it() {
    let blobs = Script::of_model(WEIGHTS, |_| Reply::new("200 OK", "", WEIGHTS)).await;
    let registry = guarded(blobs.url.clone()).await;
    pull_from(&registry, b"").await.unwrap();
    assert_eq!(blobs.requests().len(), 3);
    for head in blobs.requests() {
        assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
    }
    let asked = registry.requests();
    let tokens: Vec<&String> = asked.iter().filter(|head| head.starts_with("GET /token")).collect();
    assert_eq!(tokens.len(), 1);
    assert!(tokens[0].contains("service=s&scope=repository%3Alibrary%2Fm%3Apull"), "{}", tokens[0]);
}

#[tokio::test]
async fn a_foreign_realm_learns_nothing() {
    let foreign = Script::start(|_| Reply::new("200 OK", "", br#"{"token":"x"}"#)).await;
    let realm = foreign.url.replace("127.0.0.1", "localhost");
    let script = Script::start(move |_| {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}/token\"\r\n");
        Reply::new("401 Unauthorized", &challenge, b"")
    })
    .await;
    let error = pull_from(&script, b"").await.unwrap_err();
    let host = script.url.trim_start_matches("http://").to_owned();
    assert!(matches!(&error, ClientError::Unauthorized { host: h, .. } if *h == host), "{error}");
    assert!(foreign.requests().is_empty());
}

#[tokio::test]
async fn redirects_end() {
    for location in ["/again", "http://example.invalid/x", "file:///etc/passwd", ""] {
        let headers = format!("Location: {location}\r\n");
        let script = Script::start(move |_| Reply::new("302 Found", &headers, b"")).await;
        let error = pull_from(&script, b"").await.unwrap_err();
        let refused = matches!(error, ClientError::Protocol { .. } | ClientError::Insecure { .. });
        assert!(refused, "{location}: {error}");
        assert!(script.requests().len() <= 6);
    }
}

#[tokio::test]
async fn pulls_that_share_a_blob_fetch_it_once() {
    let script = Script::of_model(WEIGHTS, |_| Reply::new("200 OK", "", WEIGHTS)).await;
    let (here, client) = (scratch(), client(&script.url));
    let pulls = ["a", "b", "c", "d"].map(|model| pull(&client, &here.store, model));
    for result in futures_util::future::join_all(pulls).await {
        result.unwrap();
    }
    assert_eq!(here.store.list().unwrap().len(), 4);
    let blob = format!("/blobs/{}", Digest::of(WEIGHTS));
    assert_eq!(script.requests().iter().filter(|head| head.contains(&blob)).count(), 1);
}

#[tokio::test]
async fn a_stalled_pull_stops_at_once_when_cancelled() {
    let script = Script::start(|_| Reply::raw("200 OK", "", b"").then_stall()).await;
    let here = scratch();
    let registry = Some(Url::parse(&script.url).unwrap());
    let client = Client::new(ClientConfig { registry, ..ClientConfig::default() }).unwrap();
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.cancel();
    });
    let (started, options) = (std::time::Instant::now(), TransferOptions::default());
    let stopped = client.pull(&here.store, &name("m"), &options, |_| {}, &cancel).await;
    assert!(matches!(stopped, Err(ClientError::Cancelled)));
    assert!(started.elapsed() < Duration::from_secs(1));
}
