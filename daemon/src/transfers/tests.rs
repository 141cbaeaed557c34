//! Transfers of a scripted mover, on paused time.

use dsk_registry::Digest;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep};

use super::*;

/// Ten steps of a second each; a model called `absent` fails in the middle.
#[derive(Clone, Default)]
struct Slow {
    log: Arc<Mutex<Vec<String>>>,
    resumed: Arc<AtomicU64>,
}

const STEPS: u64 = 10;

impl Slow {
    async fn steps(self, job: Job) -> Result<(), TransferError> {
        (job.progress)(Progress::Manifest);
        let digest = Digest::of(b"blob");
        let from = self.resumed.load(Ordering::SeqCst);
        for completed in from..STEPS {
            (job.progress)(Progress::Blob { digest, total: STEPS, completed });
            if job.what.name.model() == "absent" && completed == 3 {
                return Err(ClientError::NotFound { name: job.what.name.to_string() }.into());
            }
            tokio::select! {
                () = sleep(Duration::from_secs(1)) => {}
                () = job.cancel.cancelled() => {
                    // Letting go of the files takes a while.
                    sleep(Duration::from_secs(1)).await;
                    self.resumed.store(completed, Ordering::SeqCst);
                    return Err(ClientError::Cancelled.into());
                }
            }
        }
        (job.progress)(Progress::WritingManifest);
        (job.progress)(Progress::Success);
        Ok(())
    }
}

impl Mover for Slow {
    fn run(&self, job: Job) -> BoxFuture<'static, Result<(), TransferError>> {
        let slow = self.clone();
        async move {
            let name = job.what.name.model().to_owned();
            slow.log.lock().unwrap().push(format!("{name} begins"));
            let result = slow.clone().steps(job).await;
            let end = if result.is_ok() { "ends" } else { "fails" };
            slow.log.lock().unwrap().push(format!("{name} {end}"));
            result
        }
        .boxed()
    }
}

fn world() -> (Transfers, Slow) {
    let slow = Slow::default();
    (Transfers::new(slow.clone(), Arc::default()), slow)
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn shown(line: &Result<Progress, Arc<TransferError>>) -> String {
    match line {
        Ok(Progress::Blob { completed, .. }) => completed.to_string(),
        Ok(Progress::Manifest) => "manifest".to_owned(),
        Ok(Progress::WritingManifest) => "writing".to_owned(),
        Ok(Progress::Success) => "success".to_owned(),
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    }
}

async fn all(transfer: Transfer) -> String {
    transfer.map(|line| shown(&line)).collect::<Vec<_>>().await.join(" ")
}

#[tokio::test(start_paused = true)]
async fn callers_join_and_hear_where_it_stands() {
    let (transfers, slow) = world();
    let first = tokio::spawn(all(transfers.pull(name("m"), Pull::default())));
    sleep(Duration::from_millis(5500)).await;
    let second = transfers.pull(name("m"), Pull::default());
    assert_eq!(transfers.running(), [(Direction::Pull, name("m"))]);
    assert_eq!(all(second).await, "manifest 5 6 7 8 9 writing success");
    assert_eq!(first.await.unwrap(), "manifest 0 1 2 3 4 5 6 7 8 9 writing success");
    assert_eq!(*slow.log.lock().unwrap(), ["m begins", "m ends"]);
    assert!(transfers.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_outlives_the_caller_that_began_it_and_not_the_last() {
    let (transfers, slow) = world();
    let first = transfers.pull(name("m"), Pull::default());
    let second = transfers.pull(name("m"), Pull::default());
    sleep(Duration::from_millis(1500)).await;
    drop(first);
    sleep(Duration::from_millis(1000)).await;
    assert_eq!(*slow.log.lock().unwrap(), ["m begins"]);
    drop(second);
    // The next one waits until the cancelled one has let go, and goes on from there.
    let again = transfers.pull(name("m"), Pull::default());
    assert_eq!(all(again).await, "manifest 2 3 4 5 6 7 8 9 writing success");
    assert_eq!(*slow.log.lock().unwrap(), ["m begins", "m fails", "m begins", "m ends"]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_ends_it_for_everyone_and_the_next_pull_goes_on() {
    let (transfers, slow) = world();
    assert!(!transfers.pause(&name("m")).await);
    let both = [0, 1].map(|_| tokio::spawn(all(transfers.pull(name("m"), Pull::default()))));
    let other = tokio::spawn(all(transfers.pull(name("other"), Pull::default())));
    sleep(Duration::from_millis(2500)).await;
    assert!(transfers.pause(&name("m")).await && transfers.is_paused(&name("m")));
    // It has let go of its files by now.
    assert_eq!(slow.log.lock().unwrap().last().unwrap(), "m fails");
    for one in both {
        let heard = one.await.unwrap();
        let end = "the pull of m:latest was paused; dsk pull m:latest goes on from here";
        assert_eq!(heard, format!("manifest 0 1 2 {end}"));
    }
    let again = transfers.pull(name("m"), Pull::default());
    assert!(!transfers.is_paused(&name("m")));
    assert_eq!(all(again).await, "manifest 2 3 4 5 6 7 8 9 writing success");
    assert!(other.await.unwrap().ends_with("success"));
}

#[tokio::test(start_paused = true)]
async fn an_error_reaches_everyone() {
    let (transfers, _) = world();
    let both = [0, 1].map(|_| tokio::spawn(all(transfers.pull(name("absent"), Pull::default()))));
    for one in both {
        let heard = one.await.unwrap();
        assert_eq!(
            heard,
            "manifest 0 1 2 3 model absent:latest was not found; check its name and tag"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_read_holds_up_nobody() {
    let (transfers, _) = world();
    let mut lazy = transfers.pull(name("m"), Pull::default());
    let started = Instant::now();
    let eager = all(transfers.pull(name("m"), Pull::default())).await;
    assert!(eager.ends_with("success"));
    assert_eq!(started.elapsed().as_secs(), STEPS);
    assert_eq!(shown(&lazy.next().await.unwrap()), "manifest");
}

#[tokio::test(start_paused = true)]
async fn a_push_and_a_pull_of_one_model_are_two_transfers() {
    let (transfers, _) = world();
    let (pull, push) =
        (transfers.pull(name("m"), Pull::default()), transfers.push(name("m"), Push::default()));
    let running = transfers.running();
    assert_eq!(running, [(Direction::Pull, name("m")), (Direction::Push, name("m"))]);
    drop((pull, push));
    transfers.stop().await;
    assert!(transfers.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn figures_come_at_most_every_interval() {
    let board = Arc::new(Running {
        id: 0,
        board: Board::default(),
        seats: AtomicU64::new(1),
        cancel: CancellationToken::new(),
        pausing: AtomicBool::new(false),
        finished: CancellationToken::new(),
    });
    let (sender, mut lines) = mpsc::channel(UNREAD_MAX);
    tokio::spawn(relay(Arc::clone(&board), sender));
    let digest = Digest::of(b"blob");
    for completed in 0..600 {
        board.board.put(Progress::Blob { digest, total: 600, completed });
        sleep(Duration::from_millis(1)).await;
    }
    board.board.end(Ok(()));
    board.finished.cancel();
    let mut heard = Vec::new();
    while let Some(line) = lines.recv().await {
        heard.push(shown(&line));
    }
    assert!((8..=12).contains(&heard.len()), "{heard:?}");
    assert_eq!(heard.last().unwrap(), "599");
}

#[tokio::test(start_paused = true)]
async fn pulls_are_counted() {
    let slow = Slow::default();
    let metrics = Arc::<Metrics>::default();
    let transfers = Transfers::new(slow, Arc::clone(&metrics));
    let look = || {
        let text = metrics.render(&[]);
        let of_pulls = text.lines().filter(|line| line.starts_with("dsk_pull"));
        of_pulls.map(|line| format!("{line}\n")).collect::<String>()
    };
    let (good, bad) = (name("good"), name("absent"));
    let good = transfers.pull(good, Pull::default()).collect::<Vec<_>>();
    let bad = transfers.pull(bad, Pull::default()).collect::<Vec<_>>();
    sleep(Duration::from_millis(500)).await;
    assert!(look().contains("dsk_pulls_running 2"), "{}", look());
    tokio::join!(good, bad);
    expect_test::expect![[r#"
        dsk_pulled_bytes_total 12
        dsk_pulls_running 0
        dsk_pulls_total{outcome="cancelled"} 0
        dsk_pulls_total{outcome="failed"} 1
        dsk_pulls_total{outcome="ok"} 1
    "#]]
    .assert_eq(&look());
}
