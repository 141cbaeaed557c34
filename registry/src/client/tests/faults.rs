//! The faults of transfers, by number, on a blob of several ranges that arrive side by side.

use super::{
    script::{Asked, Reply, Script, good},
    *,
};
use crate::fixture::{assert_whole, manifest_of, name, scratch, weights};
use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

const SIZE: usize = 300_000;
const RANGE: usize = 64 << 10;
const CONNECTIONS: usize = 4;
const RANGES: usize = SIZE.div_ceil(RANGE);

static WEIGHTS: LazyLock<Vec<u8>> = LazyLock::new(|| weights(11, SIZE));

fn limits() -> Limits {
    let stall = Duration::from_secs(1);
    Limits { range_bytes: RANGE as u64, connections: CONNECTIONS, attempts: 4, stall, ..quick() }
}

/// Pulls the model; on success its bytes must be right, on failure nothing may be published.
async fn pull_from(script: &Script) -> (Result<(), ClientError>, Seen) {
    let (here, seen) = (scratch(), Seen::default());
    let (options, cancel) = (TransferOptions::default(), CancellationToken::new());
    let note = |progress| seen.note(progress);
    let client = client_with(&script.url, limits());
    let pulled = client.pull(&here.store, &name("m"), &options, note, &cancel).await;
    assert_whole(&here.store);
    assert_eq!(here.store.has(&Digest::of(&WEIGHTS)), pulled.is_ok(), "{pulled:?}");
    assert_eq!(here.store.list().unwrap().is_empty(), pulled.is_err());
    (pulled.map(drop), seen)
}

async fn registry(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Script {
    Script::of_model(&WEIGHTS, answer).await
}

fn right(asked: &Asked) -> Reply {
    Reply::ranged(&WEIGHTS, asked)
}

fn tagged(asked: &Asked, tag: &str) -> Reply {
    right(asked).with(&format!("ETag: \"{tag}\""))
}

/// Whether the request is for the n-th range.
fn is_range(asked: &Asked, n: usize) -> bool {
    asked.range().is_some_and(|(first, _)| first / RANGE == n)
}

/// Answers wrongly the first time that `wrong` has an answer.
fn once(
    wrong: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static,
) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    let done = AtomicUsize::new(0);
    move |asked| match wrong(asked) {
        Some(reply) if done.fetch_add(1, SeqCst) == 0 => reply,
        _ => right(asked),
    }
}

#[tokio::test]
async fn a_good_registry_is_asked_for_each_range_once() {
    let script = registry(right).await;
    pull_from(&script).await.0.unwrap();
    assert_eq!(script.requests_for(&WEIGHTS).len(), RANGES);
}

#[tokio::test]
async fn fault_07_wrong_bytes_once_are_fetched_again_and_said() {
    let script = registry(once(|asked| is_range(asked, 2).then(|| right(asked).flipped()))).await;
    let (pulled, seen) = pull_from(&script).await;
    pulled.unwrap();
    assert!(seen.notes().contains("its bytes were wrong"), "{}", seen.notes());
    assert_eq!(script.requests_for(&WEIGHTS).len(), 2 * RANGES);
}

#[tokio::test]
async fn fault_07_wrong_bytes_each_time_are_never_published() {
    let flip =
        |asked: &Asked| if is_range(asked, 2) { right(asked).flipped() } else { right(asked) };
    let script = registry(flip).await;
    let error = pull_from(&script).await.0.unwrap_err();
    let host = script.url.trim_start_matches("http://");
    let named = |h: &str, digest: &Digest| h == host && *digest == Digest::of(&WEIGHTS);
    assert!(
        matches!(&error, ClientError::Integrity(IntegrityError::Digest { host, expected, .. })
            if named(host, expected)),
        "{error}"
    );
    assert_eq!(script.requests_for(&WEIGHTS).len(), 2 * RANGES, "one fresh start and no more");
}

#[tokio::test]
async fn fault_07_what_an_earlier_pull_left_is_doubted_first() {
    let here = scratch();
    let partial = here.store.partial(&Digest::of(&WEIGHTS), SIZE as u64, true).unwrap();
    let mut bad = WEIGHTS[..RANGE].to_vec();
    bad[100] ^= 1;
    partial.write(0, &bad).unwrap();
    partial.sync().unwrap();
    drop(partial);
    let script = registry(right).await;
    pull(&client_with(&script.url, limits()), &here.store, "m").await.unwrap();
    assert_whole(&here.store);
    // The ranges that were missing, then the one that was there: none twice.
    assert_eq!(script.requests_for(&WEIGHTS).len(), RANGES);
}

#[tokio::test]
async fn fault_07_a_range_cut_short_is_continued() {
    let script = registry(once(|asked| is_range(asked, 1).then(|| right(asked).cut(1000)))).await;
    pull_from(&script).await.0.unwrap();
    let rest = format!("bytes={}-{}", RANGE + 1000, 2 * RANGE - 1);
    assert!(script.requests().iter().any(|head| head.contains(&rest)));
}

#[tokio::test]
async fn fault_07_more_bytes_than_the_range_are_refused() {
    let long = |asked: &Asked| {
        let (first, last) = asked.range()?;
        let headers = format!("Content-Range: bytes {first}-{last}/{SIZE}\r\n");
        let end = (last + 1001).min(SIZE);
        is_range(asked, 1)
            .then(|| Reply::raw("206 Partial Content", &headers, &WEIGHTS[first..end]))
    };
    let script = registry(once(long)).await;
    let (pulled, seen) = pull_from(&script).await;
    pulled.unwrap();
    assert!(seen.notes().contains("more bytes than the part has"), "{}", seen.notes());
}

#[tokio::test]
async fn fault_08_a_registry_that_ignores_ranges_is_streamed_on_one_connection() {
    let script = registry(|_| Reply::new("200 OK", "", &WEIGHTS)).await;
    pull_from(&script).await.0.unwrap();
    let asked = script.requests_for(&WEIGHTS);
    assert_eq!(asked.len(), 2, "once with a range, once without");
    assert!(!asked[1].to_ascii_lowercase().contains("range:"), "{}", asked[1]);
}

#[tokio::test]
async fn fault_08_answers_about_other_bytes_are_not_written() {
    let wrong: [fn(&Asked) -> Reply; 5] = [
        |_| Reply::new("200 OK", "", &WEIGHTS),
        |_| Reply::new("416 Range Not Satisfiable", "", b""),
        |_| Reply::new("206 Partial Content", "", &WEIGHTS[RANGE..2 * RANGE]),
        |_| {
            let range = format!("Content-Range: bytes 0-{}/{SIZE}\r\n", RANGE - 1);
            Reply::new("206 Partial Content", &range, &WEIGHTS[..RANGE])
        },
        |_| {
            let headers = "Content-Type: multipart/byteranges; boundary=x\r\n";
            Reply::new("206 Partial Content", headers, b"--x\r\n\r\n--x--")
        },
    ];
    for wrong in wrong {
        let script = registry(once(move |asked| is_range(asked, 1).then(|| wrong(asked)))).await;
        let (pulled, seen) = pull_from(&script).await;
        pulled.unwrap();
        assert!(seen.notes().contains("again"), "{}", seen.notes());
    }
}

#[tokio::test]
async fn fault_08_a_blob_that_changes_is_begun_again() {
    let tag = AtomicUsize::new(0);
    let script = registry(move |asked| {
        let count = tag.fetch_add(1, SeqCst);
        tagged(asked, if count < 3 { "one" } else { "two" })
    })
    .await;
    let (pulled, seen) = pull_from(&script).await;
    pulled.unwrap();
    assert!(seen.notes().contains("changed while it was fetched"), "{}", seen.notes());
    assert_eq!(seen.notes().lines().count(), 1);
    // One that never says the same twice is read in one answer.
    let tag = AtomicUsize::new(0);
    let script = registry(move |asked| tagged(asked, &tag.fetch_add(1, SeqCst).to_string())).await;
    pull_from(&script).await.0.unwrap();
}

#[tokio::test]
async fn fault_08_a_blob_that_changed_since_an_earlier_pull_is_begun_again() {
    let script = registry(|asked| tagged(asked, "now")).await;
    let here = scratch();
    let partial = here.store.partial(&Digest::of(&WEIGHTS), SIZE as u64, true).unwrap();
    partial.write(0, &WEIGHTS[..2 * RANGE]).unwrap();
    partial.set_validator(Some(format!("{} \"then\"", script.url.trim_start_matches("http://"))));
    partial.sync().unwrap();
    drop(partial);
    pull(&client_with(&script.url, limits()), &here.store, "m").await.unwrap();
    assert!(script.requests_for(&WEIGHTS).len() > RANGES, "the beginning was fetched as well");
}

#[tokio::test]
async fn fault_09_a_burst_of_refusals_passes_and_an_endless_one_ends() {
    let count = AtomicUsize::new(0);
    let script = registry(move |asked| match count.fetch_add(1, SeqCst) {
        1 | 3 => Reply::new("429 Too Many Requests", "Retry-After: 0\r\n", b""),
        2 | 4 => Reply::new("503 Service Unavailable", "Retry-After: 3600\r\n", b""),
        5 => Reply::new("500 Internal Server Error", "", b""),
        _ => right(asked),
    })
    .await;
    pull_from(&script).await.0.unwrap();
    let script = registry(|_| Reply::new("503 Service Unavailable", "", b"")).await;
    let error = pull_from(&script).await.0.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert_eq!(script.requests_for(&WEIGHTS).len(), limits().attempts as usize);
}

#[tokio::test]
async fn fault_09_when_one_connection_is_asked_for_quiet_all_keep_it() {
    let refused = Arc::new(Mutex::new(None::<Instant>));
    let (clock, early) = (Arc::clone(&refused), Arc::new(AtomicUsize::new(0)));
    let too_early = Arc::clone(&early);
    let script = registry(move |asked| {
        let mut refused = clock.lock().unwrap();
        match *refused {
            Some(at) if at.elapsed() < limits().retry_after_max * 4 / 5 => {
                too_early.fetch_add(1, SeqCst);
            }
            None if is_range(asked, 1) => {
                *refused = Some(Instant::now());
                return Reply::new("429 Too Many Requests", "Retry-After: 3600\r\n", b"");
            }
            _ => {}
        }
        right(asked)
    })
    .await;
    // With two connections the other one would go on with the ranges that are left.
    let (here, limits) = (scratch(), Limits { connections: 2, ..limits() });
    pull(&client_with(&script.url, limits.clone()), &here.store, "m").await.unwrap();
    assert!(refused.lock().unwrap().unwrap().elapsed() >= limits.retry_after_max);
    // One request was under way already.
    assert!(early.load(SeqCst) <= 1, "{} requests", early.load(SeqCst));
}

#[tokio::test]
async fn fault_10_a_range_that_stands_still_or_drips_is_taken_over() {
    let slow: [fn(Reply) -> Reply; 2] =
        [|reply| reply.cut(1000).then_stall(), |reply| reply.dripping(Duration::from_millis(20))];
    for slow in slow {
        let script =
            registry(once(move |asked| is_range(asked, 1).then(|| slow(right(asked))))).await;
        let started = Instant::now();
        pull_from(&script).await.0.unwrap();
        // At a byte every 20 ms the range would take 20 minutes.
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn fault_10_a_registry_that_falls_silent_for_good_is_unreachable() {
    let script = registry(|asked| right(asked).cut(0).then_stall()).await;
    let started = Instant::now();
    let error = pull_from(&script).await.0.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// A registry that sends whoever asks for the weights to a signed URL at `elsewhere`.
async fn redirecting(elsewhere: String) -> Script {
    let signatures = AtomicUsize::new(0);
    Script::start(move |asked| {
        if asked.line.starts_with("GET /token") {
            return Reply::new("200 OK", "", br#"{"token":"secret"}"#);
        }
        if asked.header("authorization") != Some("Bearer secret") {
            let host = asked.header("host").unwrap();
            let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"\r\n");
            return Reply::new("401 Unauthorized", &challenge, b"");
        }
        if !asked.is_blob(&WEIGHTS) {
            return good(asked, &manifest_of(&WEIGHTS));
        }
        let signature = signatures.fetch_add(1, SeqCst);
        let location = format!("Location: {elsewhere}/signed?signature={signature}\r\n");
        Reply::new("307 Temporary Redirect", &location, b"")
    })
    .await
}

#[tokio::test]
async fn fault_11_a_signed_url_is_used_until_it_expires_and_gets_no_credentials() {
    // Each signature is good for two requests.
    let uses = Mutex::new(std::collections::HashMap::<String, usize>::new());
    let storage = Script::start(move |asked| {
        let mut uses = uses.lock().unwrap();
        let used = uses.entry(asked.line.clone()).or_default();
        *used += 1;
        if *used <= 2 { right(asked) } else { Reply::new("403 Forbidden", "", b"<Error/>") }
    })
    .await;
    let registry = redirecting(storage.url.clone()).await;
    pull_from(&registry).await.0.unwrap();
    for head in storage.requests() {
        assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
    }
    let resolved = registry.requests_for(&WEIGHTS).len();
    assert!((RANGES / 2..=RANGES + 1).contains(&resolved), "{resolved}");
}

#[tokio::test]
async fn fault_11_a_signed_url_that_lasts_is_asked_for_once() {
    let storage = Script::start(right).await;
    let registry = redirecting(storage.url.clone()).await;
    pull_from(&registry).await.0.unwrap();
    assert_eq!(storage.requests().len(), RANGES);
    // Unauthenticated requests and their repetition are not counted twice: one token serves all.
    let resolved = registry.requests_for(&WEIGHTS);
    assert_eq!(resolved.iter().filter(|head| head.contains("Bearer secret")).count(), 1);
}

#[tokio::test]
async fn fault_14_sizes_and_digests_that_cannot_be_are_refused() {
    let total = |asked: &Asked| {
        let (first, last) = asked.range().unwrap_or((0, SIZE - 1));
        let headers = format!("Content-Range: bytes {first}-{last}/{}\r\n", SIZE + 1);
        Reply::new("206 Partial Content", &headers, &WEIGHTS[first..=last])
    };
    let script = registry(total).await;
    let error = pull_from(&script).await.0.unwrap_err();
    assert!(
        matches!(error, ClientError::Integrity(IntegrityError::Size { expected, got, .. })
            if expected == SIZE as u64 && got == expected + 1),
        "{error}"
    );
    assert_eq!(script.requests_for(&WEIGHTS).len(), 1, "before a byte was fetched");
    let digest = Digest::of(&WEIGHTS).to_string();
    let json = String::from_utf8(manifest_of(&WEIGHTS).to_json()).unwrap();
    let unknown = json.replace(&digest, &digest.replace("sha256", "sha512"));
    let script = Script::start(move |_| Reply::new("200 OK", "", unknown.as_bytes())).await;
    let error = pull_from(&script).await.0.unwrap_err();
    assert!(matches!(error, ClientError::Integrity(IntegrityError::Manifest { .. })), "{error}");
}

#[tokio::test]
async fn fault_34_fifty_pulls_of_a_blob_are_one_download_that_outlives_the_first() {
    let script = registry(right).await;
    let here = scratch();
    // Slow enough that the first caller leaves in the middle.
    let limits = Limits { rate: Some(600_000), stall: Duration::from_secs(30), ..limits() };
    let client = client_with(&script.url, limits);
    let leave = CancellationToken::new();
    let pulls = (0..50).map(|caller| {
        let (client, here, leave) = (&client, &here, leave.clone());
        async move {
            let cancel = if caller == 0 { leave.clone() } else { CancellationToken::new() };
            let note = |progress| match progress {
                Progress::Blob { total, completed, .. }
                    if completed > total / 3 && total > 1000 =>
                {
                    leave.cancel();
                }
                _ => {}
            };
            let (name, options) = (name(&format!("m{caller}")), TransferOptions::default());
            client.pull(&here.store, &name, &options, note, &cancel).await
        }
    });
    let results = futures_util::future::join_all(pulls).await;
    assert!(matches!(results[0], Err(ClientError::Cancelled)), "{:?}", results[0]);
    results.into_iter().skip(1).for_each(|result| drop(result.unwrap()));
    assert_eq!(here.store.list().unwrap().len(), 49);
    assert_whole(&here.store);
    // What the first one had under way is asked for again, and nothing else.
    let asked = script.requests_for(&WEIGHTS).len();
    assert!(asked <= RANGES + CONNECTIONS, "{asked} requests for {RANGES} ranges");
}

#[tokio::test]
async fn a_limit_on_the_rate_holds_for_all_connections_together() {
    let script = registry(right).await;
    let here = scratch();
    let client = client_with(&script.url, limits());
    let options = TransferOptions { limit_rate: Some(300_000), ..TransferOptions::default() };
    let (started, cancel) = (Instant::now(), CancellationToken::new());
    client.pull(&here.store, &name("m"), &options, |_| {}, &cancel).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
}

#[tokio::test]
async fn whoever_cancels_a_pull_may_remove_its_files_at_once() {
    let script = registry(|asked| right(asked).cut(RANGE / 2).then_stall()).await;
    let client = client_with(&script.url, Limits { stall: Duration::from_secs(60), ..limits() });
    for _ in 0..20 {
        let (here, cancel) = (scratch(), CancellationToken::new());
        let begun = |progress| {
            let weights = Digest::of(&WEIGHTS);
            if matches!(progress, Progress::Blob { digest, completed: 1.., .. } if digest == weights)
            {
                cancel.cancel();
            }
        };
        let options = TransferOptions::default();
        let pulled = client.pull(&here.store, &name("m"), &options, begun, &cancel).await;
        assert!(matches!(pulled, Err(ClientError::Cancelled)), "{pulled:?}");
        here.store.remove_unfinished(&name("m")).unwrap();
        let left = std::fs::read_dir(here.store.root().join("blobs")).unwrap().count();
        assert_eq!(left, 0);
    }
}
