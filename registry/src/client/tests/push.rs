//! Pushes: what is sent, how often, in which form, and to whom.

use super::{
    embedded::served,
    script::{Asked, Reply, Script},
    sign_in::{client_of, entry, host, user},
    *,
};
use crate::{
    Manifest, ManifestFormat, ModelConfig,
    fixture::{LICENSE, Scratch, manifest_of, name, put_model, scratch, weights},
    media_type,
};
use expect_test::expect;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Pieces of 64 KiB.
fn small_pieces() -> Limits {
    Limits { range_bytes: 16 << 10, stall: Duration::from_secs(2), ..quick() }
}

async fn push_as(
    client: &Client,
    from: &Scratch,
    model: &str,
    options: TransferOptions,
) -> Result<Seen, ClientError> {
    let (seen, cancel) = (Seen::default(), CancellationToken::new());
    let note = |progress| seen.note(progress);
    client.push(&from.store, &name(model), &options, note, &cancel).await?;
    Ok(seen)
}

async fn push(client: &Client, from: &Scratch, model: &str) -> Result<Seen, ClientError> {
    push_as(client, from, model, TransferOptions::default()).await
}

/// A way to a server that counts what goes there, and breaks off once after so many bytes.
async fn cut_once(to: &str, after: u64) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (to, sent) = (to.strip_prefix("http://").unwrap().to_owned(), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&to).await.unwrap();
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let ((mut from, mut back), (mut answers, mut on)) =
                    (client.into_split(), server.into_split());
                let answers = tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut answers, &mut back).await;
                });
                let mut buffer = vec![0; 8 << 10];
                while let Ok(count @ 1..) = from.read(&mut buffer).await {
                    let before = counter.fetch_add(count as u64, Ordering::SeqCst);
                    if on.write_all(&buffer[..count]).await.is_err()
                        || before < after && before + count as u64 >= after
                    {
                        break;
                    }
                }
                answers.abort();
            });
        }
    });
    (url, sent)
}

#[tokio::test]
async fn a_push_cut_in_the_middle_of_a_piece_goes_on_from_there() {
    let (here, there) = (scratch(), scratch());
    let bytes = weights(61, 600_000);
    put_model(&here.store, "m", &bytes);
    let (url, sent) = cut_once(&served(&there.store).await, 300_000).await;
    let seen = push(&client_with(&url, small_pieces()), &here, "m").await.unwrap();
    assert_eq!(there.store.read_blob(&Digest::of(&bytes), 600_000).unwrap(), bytes);
    // Everything once, the headers, and at most what was on its way when the connection broke.
    let sent = sent.load(Ordering::SeqCst);
    assert!((600_000..600_000 + 40_000).contains(&sent), "{sent}");
    assert!(seen.kinds().ends_with("PushingManifest Success"), "{}", seen.kinds());
    // What was told of the weights never went back.
    let seen = seen.0.into_inner().unwrap();
    let told: Vec<u64> = seen
        .iter()
        .filter_map(|progress| match progress {
            Progress::Pushing { digest, completed, .. } if *digest == Digest::of(&bytes) => {
                Some(*completed)
            }
            _ => None,
        })
        .collect();
    assert!(told.is_sorted() && told.last() == Some(&600_000), "{told:?}");
}

#[tokio::test]
async fn what_the_registry_has_is_not_sent() {
    let (here, there) = (scratch(), scratch());
    let bytes = weights(62, 100_000);
    put_model(&here.store, "m", &bytes);
    put_model(&there.store, "other", &bytes);
    let (url, sent) = cut_once(&served(&there.store).await, u64::MAX).await;
    let client = client_with(&url, small_pieces());
    push(&client, &here, "m").await.unwrap();
    assert!(sent.load(Ordering::SeqCst) < 10_000);
    // The second time the manifest is there, and asking for it is all.
    sent.store(0, Ordering::SeqCst);
    let seen = push(&client, &here, "m").await.unwrap();
    assert_eq!(seen.kinds(), "Pushing Success");
    assert!(sent.load(Ordering::SeqCst) < 500, "{sent:?}");
}

#[tokio::test]
async fn a_push_keeps_to_its_rate() {
    let (here, there) = (scratch(), scratch());
    put_model(&here.store, "m", &weights(63, 300_000));
    let options = TransferOptions { limit_rate: Some(500_000), ..TransferOptions::default() };
    let began = std::time::Instant::now();
    push_as(&client(&served(&there.store).await), &here, "m", options).await.unwrap();
    assert!(began.elapsed() > Duration::from_millis(450), "{:?}", began.elapsed());
}

/// Below the rate at which a registry would count as stalled.
#[tokio::test]
async fn a_push_may_be_slower_than_a_stall() {
    let (here, there) = (scratch(), scratch());
    put_model(&here.store, "m", &weights(66, 60_000));
    let limits = Limits { stall: Duration::from_millis(100), attempts: 1, ..quick() };
    let options = TransferOptions { limit_rate: Some(60_000), ..TransferOptions::default() };
    let began = std::time::Instant::now();
    let client = client_with(&served(&there.store).await, limits);
    push_as(&client, &here, "m", options).await.unwrap();
    assert!(began.elapsed() > Duration::from_millis(850), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_registry_has_time_to_read_again_what_it_got_whole() {
    // At 20 MiB/s the registry may take 0.6 s over this much, beside the 0.3 s of any answer.
    let count = 12 << 20;
    for (pause, good) in [(600, true), (2000, false)] {
        let (here, _) = here(count);
        let script = registry("Location: /up\r\n", move |asked| {
            let reply = Reply::new("201 Created", "", b"");
            let large = asked.body.len() == count && asked.count == 0;
            reply.after(Duration::from_millis(if large { pause } else { 0 }))
        })
        .await;
        let client = client_with(&script.url, Limits { attempts: 1, ..quick() });
        let pushed = push(&client, &here, "m").await.map(drop).map_err(|error| error.to_string());
        assert_eq!(pushed.is_ok(), good, "{pause}: {pushed:?}");
        let said = pushed.err().unwrap_or_default();
        assert!(good || said.contains("to all 12582912 bytes"), "{said}");
    }
}

#[tokio::test]
async fn what_a_registry_does_not_find_in_a_push_is_told_in_its_words() {
    const TEXT: &[u8] =
        br#"{"errors":[{"code":"UNKNOWN","message":"make project library first"}]}"#;
    for refused in ["POST", "PUT"] {
        let (here, _) = here(1000);
        let script = Script::start(move |asked| match asked.line.split(' ').next().unwrap() {
            "HEAD" => Reply::new("404 Not Found", "", b""),
            "POST" if refused == "POST" => Reply::new("404 Not Found", "", TEXT),
            "POST" => Reply::new("202 Accepted", "Location: /up\r\n", b""),
            _ if asked.is_manifest() => Reply::new("404 Not Found", "", TEXT),
            _ => Reply::new("201 Created", "", b""),
        })
        .await;
        let error = push(&client(&script.url), &here, "m").await.err().unwrap();
        assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("404 Not Found") && text.contains("make project library"), "{text}");
    }
}

/// The heads of the requests of a method, without the query's digest.
fn lines(script: &Script, method: &str) -> Vec<String> {
    let requests = script.requests();
    let lines = requests.iter().map(|head| head.lines().next().unwrap().to_owned());
    lines.filter(|line| line.starts_with(method)).collect()
}

/// A registry that takes uploads: `open` is its answer to the POST, `take` to everything after that.
async fn registry(
    open: &'static str,
    take: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> Script {
    Script::start(move |asked| match asked.line.split(' ').next().unwrap() {
        "HEAD" => Reply::new("404 Not Found", "", b""),
        "POST" => Reply::new("202 Accepted", open, b""),
        _ if asked.is_manifest() => Reply::new("201 Created", "", b""),
        _ => take(asked),
    })
    .await
}

fn here(count: usize) -> (Scratch, Vec<u8>) {
    let (here, bytes) = (scratch(), weights(64, count));
    put_model(&here.store, "m", &bytes);
    (here, bytes)
}

#[tokio::test]
async fn a_registry_that_takes_no_pieces_gets_a_blob_whole() {
    for refusal in ["405 Method Not Allowed", "501 Not Implemented"] {
        let (here, bytes) = here(200_000);
        let script =
            registry("Location: /up\r\n", move |asked| match asked.line.starts_with("PATCH") {
                true => Reply::new(refusal, "", b""),
                false => Reply::new("201 Created", "", b""),
            })
            .await;
        push(&client_with(&script.url, small_pieces()), &here, "m").await.unwrap();
        assert_eq!(lines(&script, "PATCH").len(), 1);
        let length = format!("content-length: {}\r\n", bytes.len());
        assert_eq!(script.requests().iter().filter(|head| head.contains(&length)).count(), 1);
    }
}

#[tokio::test]
async fn the_smallest_piece_that_a_registry_takes_is_respected() {
    let (here, _) = here(200_000);
    let script = registry("Location: /up\r\nOCI-Chunk-Min-Length: 90000\r\n", |asked| {
        let patch = asked.line.starts_with("PATCH");
        Reply::new(if patch { "202 Accepted" } else { "201 Created" }, "Location: /up\r\n", b"")
    })
    .await;
    push(&client_with(&script.url, small_pieces()), &here, "m").await.unwrap();
    let requests = script.requests();
    let ranges = requests.iter().flat_map(|head| head.lines());
    let ranges: Vec<_> = ranges.filter_map(|line| line.strip_prefix("content-range: ")).collect();
    assert_eq!(ranges, ["0-89999", "90000-179999", "180000-199999"]);
}

#[tokio::test]
async fn a_busy_registry_is_waited_for_and_asked_how_far_it_is() {
    let (here, _) = here(200_000);
    let script = registry("Location: /up\r\n", |asked| {
        let range = asked.header("content-range").unwrap_or_default().to_owned();
        match asked.line.split(' ').next().unwrap() {
            // Half of the second piece, then nothing for a while.
            "PATCH" if range.starts_with("65536-") => {
                Reply::new("503 Service Unavailable", "Retry-After: 1\r\n", b"")
            }
            "GET" if asked.count == 0 => Reply::new("500 Oh", "", b""),
            "GET" => Reply::new("204 No Content", "Range: 0-99999\r\nLocation: /on\r\n", b""),
            "PATCH" => Reply::new("202 Accepted", "Location: /up\r\n", b""),
            _ => Reply::new("201 Created", "", b""),
        }
    })
    .await;
    push(&client_with(&script.url, small_pieces()), &here, "m").await.unwrap();
    let patches = lines(&script, "PATCH");
    assert_eq!(patches[2], "PATCH /on HTTP/1.1", "{patches:?}");
    assert!(script.requests().iter().any(|head| head.contains("content-range: 100000-165535")));
}

#[tokio::test]
async fn an_upload_that_is_lost_is_begun_again_once() {
    let (here, _) = here(200_000);
    let script = registry("Location: /up\r\n", |asked| match asked.line.starts_with("PATCH") {
        true if !asked.header("content-range").unwrap().starts_with("0-") => {
            Reply::new("404 Not Found", "", b"")
        }
        true => Reply::new("202 Accepted", "", b""),
        false => Reply::new("201 Created", "", b""),
    })
    .await;
    let error = push(&client_with(&script.url, small_pieces()), &here, "m").await.err().unwrap();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    assert_eq!(lines(&script, "PATCH").len(), 4);
}

#[tokio::test]
async fn a_blob_is_mounted_from_another_repository_of_the_registry() {
    for mounts in [true, false] {
        let (here, bytes) = here(1000);
        put_model(&here.store, "me/copy", &bytes);
        let weights = Digest::of(&bytes).to_string();
        let script = Script::start(move |asked| match asked.line.split(' ').next().unwrap() {
            "HEAD" => Reply::new("404 Not Found", "", b""),
            "POST" if asked.line.contains("mount=") && mounts => Reply::new("201 Created", "", b""),
            "POST" => Reply::new("202 Accepted", "Location: /up\r\n", b""),
            _ => Reply::new("201 Created", "", b""),
        })
        .await;
        push(&client(&script.url), &here, "me/copy").await.unwrap();
        let asked = format!("mount={}&from=library%2Fm ", weights.replace(':', "%3A"));
        assert!(lines(&script, "POST").iter().any(|line| line.contains(&asked)));
        // A registry that does not has opened an ordinary upload with the same answer.
        assert_eq!(lines(&script, "POST").len(), 3);
        assert_eq!(lines(&script, "PUT /up").len(), if mounts { 0 } else { 3 });
    }
}

/// Ollama's registry: it sends each piece on to a store of its own, which must learn nothing of us, and
/// names the whole by the sums of the pieces.
#[tokio::test]
async fn ollamas_registry_sends_pieces_on_to_a_store_that_gets_no_credentials() {
    const BASIC: &str = "Basic YWRhOnNlY3JldA==";
    let bytes = weights(65, 200_000);
    let store = Script::start(|asked| match asked.count {
        // The first try at the second piece fails.
        0 if asked.line.ends_with("/1") => Reply::new("503 Busy", "", b""),
        _ => Reply::new("200 OK", "ETag: \"x\"\r\n", b""),
    })
    .await;
    let elsewhere = store.url.clone();
    let script = Script::start(move |asked| {
        if asked.header("authorization") != Some(BASIC) {
            let challenge = "WWW-Authenticate: Basic realm=\"here\"\r\n";
            return Reply::new("401 Unauthorized", challenge, b"");
        }
        match asked.line.split(' ').next().unwrap() {
            "HEAD" => Reply::new("404 Not Found", "", b""),
            "POST" => Reply::new("202 Accepted", "Docker-Upload-Location: /up?s=1\r\n", b""),
            "PATCH" => {
                assert_eq!(asked.header("x-redirect-uploads"), Some("1"));
                let first = asked.header("content-range").unwrap().split('-').next().unwrap();
                let piece = first.parse::<u64>().unwrap() / 65_536;
                let headers = format!(
                    "Docker-Upload-Location: /up?s=2\r\nLocation: {elsewhere}/signed/{piece}\r\n"
                );
                Reply::new("307 Temporary Redirect", &headers, b"")
            }
            _ => Reply::new("201 Created", "", b""),
        }
    })
    .await;
    let here = scratch();
    let model = format!("{}/library/m", host(&script));
    put_model(&here.store, &model, &bytes);
    let ada = user(entry(host(&script), r#"{"auth": "YWRhOnNlY3JldA=="}"#), false);
    let client = Client { limits: small_pieces(), ..client_of(&ada, BTreeMap::new()) };
    push(&client, &here, &model).await.unwrap();
    // Four pieces of the weights, one of them twice, and the two small blobs.
    assert_eq!(store.requests().len(), 7);
    for head in store.requests() {
        assert!(head.starts_with("PUT /signed/"), "{head}");
        assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
    }
    let ends = lines(&script, "PUT /up?s=2&digest=");
    let of = |bytes: &[u8]| {
        let digest = Digest::of(bytes).to_string().replace(':', "%3A");
        ends.iter().find(|line| line.contains(&digest)).unwrap().split("etag=").nth(1).unwrap()
    };
    // By Python's hashlib, piece by piece.
    assert_eq!(of(&bytes), "e331469e3e14361087a83adb71cb9d07-4 HTTP/1.1");
    assert_eq!(of(LICENSE), "856e2f57cb57442e6537197516272b83-1 HTTP/1.1");
}

/// A model with a layer of every kind that matters.
fn rich(template: &[u8]) -> Scratch {
    let here = scratch();
    let blobs: [(&str, &[u8]); 5] = [
        (media_type::MODEL, b"weights"),
        (media_type::LICENSE, LICENSE),
        (media_type::TEMPLATE, template),
        (media_type::SYSTEM, b"You are terse."),
        (media_type::PARAMS, b"{}"),
    ];
    let config =
        br#"{"model_format":"gguf","model_family":"llama","model_type":"135M","file_type":"Q8_0"}"#;
    let mut manifest = manifest_of(b"weights");
    manifest.config.digest = Digest::of(config);
    manifest.config.size = config.len() as u64;
    let layer = |(media_type, bytes): &(&str, &[u8])| {
        here.store.put_blob(bytes).unwrap();
        crate::Layer::new(media_type, Digest::of(bytes), bytes.len() as u64)
    };
    manifest.layers = blobs.iter().map(layer).collect();
    here.store.put_blob(config).unwrap();
    here.store.put_manifest(&name("rich"), &manifest.to_json()).unwrap();
    here
}

async fn pushed_as(from: &Scratch, format: ManifestFormat) -> (Scratch, Manifest, String) {
    let there = scratch();
    let options = TransferOptions { format: Some(format), ..TransferOptions::default() };
    let client = client(&served(&there.store).await);
    let seen = push_as(&client, from, "rich", options).await.unwrap();
    let stored = there.store.manifest(&name("rich")).unwrap().unwrap();
    (there, stored.manifest, seen.notes())
}

fn kinds(manifest: &Manifest) -> String {
    let short = |kind: &str| kind.rsplit('.').next().unwrap().to_owned();
    manifest.layers.iter().map(|layer| short(layer.kind())).collect::<Vec<_>>().join(" ")
}

fn config_of(there: &Scratch, manifest: &Manifest) -> ModelConfig {
    let bytes = there.store.read_blob(&manifest.config.digest, 10_000).unwrap();
    ModelConfig::from_json(&bytes).unwrap()
}

#[tokio::test]
async fn a_model_goes_out_in_each_format_and_comes_back() {
    let here = rich(b"{{ .Prompt }}");
    let (packed, manifest, notes) = pushed_as(&here, ManifestFormat::ModelPack).await;
    assert_eq!(manifest.config.media_type, media_type::MODELPACK_CONFIG);
    assert_eq!(kinds(&manifest), "model license template system params");
    assert_eq!(notes, "");
    // And from that back to Ollama's, which knows as much as before.
    let (back, manifest, notes) = pushed_as(&packed, ManifestFormat::Ollama).await;
    assert_eq!(kinds(&manifest), "model license template system params");
    assert_eq!((manifest.content_type(), notes.as_str()), (media_type::MANIFEST, ""));
    let config = config_of(&back, &manifest);
    let facts = [&config.model_format, &config.model_family, &config.model_type, &config.file_type];
    assert_eq!(facts, ["gguf", "llama", "135M", "Q8_0"]);
    assert_eq!(back.store.read_blob(&Digest::of(b"weights"), 100).unwrap(), b"weights");

    // Docker's templates are in Jinja.
    let (_, manifest, _) = pushed_as(&rich(b"{% set x = 1 %}"), ManifestFormat::Docker).await;
    assert_eq!(kinds(&manifest), "model license template");
    let (docker, manifest, notes) = pushed_as(&here, ManifestFormat::Docker).await;
    assert_eq!(kinds(&manifest), "model license");
    assert_eq!(manifest.content_type(), media_type::OCI_MANIFEST);
    assert_eq!(config_of(&docker, &manifest).model_type, "135M");
    expect![[r#"
        template is left out: the format has no place for it
        system is left out: the format has no place for it
        params is left out: the format has no place for it"#]]
    .assert_eq(&notes);
    // What is in the format already goes as it is.
    let (_, again, notes) = pushed_as(&docker, ManifestFormat::Docker).await;
    assert_eq!((again, notes.as_str()), (manifest, ""));
}

#[tokio::test]
async fn bytes_that_cannot_be_read_are_the_stores_fault() {
    let (here, bytes) = here(200_000);
    let path = here.store.blob_path(&Digest::of(&bytes));
    let script = registry("Location: /up\r\n", move |asked| {
        // The file shrinks under the push.
        std::fs::write(&path, b"short").unwrap();
        let patch = asked.line.starts_with("PATCH");
        Reply::new(if patch { "202 Accepted" } else { "201 Created" }, "", b"")
    })
    .await;
    let error = push(&client_with(&script.url, small_pieces()), &here, "m").await.err().unwrap();
    assert!(matches!(error, ClientError::Store(_)), "{error}");
}
