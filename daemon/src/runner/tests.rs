//! The real child loop and the real link over a socket pair; only the engine is scripted.

use std::{io::Write, os::unix::net::UnixStream, thread::JoinHandle, time::Duration};

use futures_util::StreamExt;

use super::{
    frame::FrameError,
    process::connect,
    scripted::{ScriptedBackend, request},
    *,
};

type Served = JoinHandle<Result<(), FrameError>>;

/// A link to `serve` on a thread. Its death is what the socket's end looked like.
fn child() -> (Link, Served) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let served = std::thread::spawn(move || {
        child::serve::<ScriptedBackend>(theirs, |_| scripted::confined())
    });
    (link(ours), served)
}

fn link(socket: UnixStream) -> Link {
    connect(socket, |ended| async move { Death::of(&ended.await.unwrap(), None, None, "") })
        .unwrap()
}

async fn load(link: Link, model: &str) -> Result<Runner, SpawnError> {
    let options = LoadOptions { context_length: Some(1000), ..LoadOptions::default() };
    Runner::load(link, "tiny", vec![PathBuf::from(model)], options, |_| {}).await
}

fn text(events: &[Event]) -> String {
    events
        .iter()
        .map(|event| match event {
            Event::Content(text) => text.clone(),
            Event::Done(done) => format!("done {}", done.usage.output_tokens),
            Event::Failed(failure) => format!("{:?}: {failure}", failure.kind),
            other => format!("{other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn requests_run_side_by_side_over_a_socket() {
    let (link, served) = child();
    let runner = load(link, "tiny.gguf").await.unwrap();
    assert_eq!(runner.loaded().context_length, 1000);
    let (one, two) = (runner.submit(request("3")), runner.submit(request("0")));
    assert_eq!(text(&two.collect::<Vec<_>>().await), "done 0");
    assert_eq!(text(&one.collect::<Vec<_>>().await), "0 1 2 done 3");
    let died = runner.died();
    drop(runner);
    assert_eq!(died.await.to_string(), "was stopped");
    served.join().unwrap().unwrap();
}

#[tokio::test]
async fn a_dropped_stream_cancels_its_request_and_leaves_the_others() {
    let (link, _served) = child();
    let runner = load(link, "tiny.gguf").await.unwrap();
    let mut endless = runner.submit(request("hang"));
    assert!(matches!(endless.next().await, Some(Event::Content(_))));
    drop(endless);
    assert!(runner.shared.requests().is_empty());
    assert_eq!(text(&runner.submit(request("1")).collect::<Vec<_>>().await), "0 done 1");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_told() {
    let (link, _served) = child();
    let runner = load(link, "tiny.gguf").await.unwrap();
    let endless = runner.submit(request("hang"));
    while !runner.shared.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let events: Vec<_> = endless.collect().await;
    assert_eq!(events.len(), EVENTS_BEHIND_MAX + 1);
    let last = text(&events[EVENTS_BEHIND_MAX..]);
    assert!(last.starts_with("Cancelled: cancelled: the client was more than"), "{last}");
    assert_eq!(text(&runner.submit(request("1")).collect::<Vec<_>>().await), "0 done 1");
}

#[tokio::test]
async fn a_failed_load_says_why() {
    let (link, served) = child();
    let Err(SpawnError::Load(failure)) = load(link, "/models/broken.gguf").await else {
        panic!("it must not load");
    };
    assert_eq!(failure.kind, LoadFailureKind::Corrupt);
    assert_eq!(failure.to_string(), "/models/broken.gguf is broken");
    served.join().unwrap().unwrap();
}

#[tokio::test]
async fn garbage_ends_the_runner_and_its_requests() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let link = link(ours);
    let reports = Report::Loaded(scripted::loaded(1));
    frame::write(&mut theirs, &reports).unwrap();
    let runner = load(link, "tiny.gguf").await.unwrap();
    let stream = runner.submit(request("1"));
    theirs.write_all(b"\x03\0\0\0{{{").unwrap();
    let events: Vec<_> = stream.collect().await;
    let shown = text(&events);
    assert!(
        shown.starts_with("RunnerDied: the runner of tiny was killed because it sent"),
        "{shown}"
    );
    // Whoever comes later hears it, too, and does not wait.
    let late: Vec<_> = runner.submit(request("1")).collect().await;
    assert!(text(&late).starts_with("RunnerDied"));
}

#[tokio::test]
async fn a_process_that_is_no_runner_is_told_apart() {
    let launcher = ProcessLauncher::new(Some("/bin/sh".into()), PATIENCE).unwrap();
    // `sh runner`: there is no such script, and sh says so on stderr.
    let link = launcher.launch("tiny", 0).unwrap();
    let Err(SpawnError::Died(death)) = load(link, "tiny.gguf").await else {
        panic!("it must not load");
    };
    let cause = death.to_string();
    assert!(cause.starts_with("ended with exit code 2; its last words:"), "{cause}");
    assert!(cause.contains("runner"), "{cause}");

    let absent = ProcessLauncher::new(Some("/nonexistent/dsk".into()), PATIENCE).unwrap();
    let error = absent.launch("tiny", 0).unwrap_err().to_string();
    assert!(error.starts_with("cannot start /nonexistent/dsk runner"), "{error}");
}
