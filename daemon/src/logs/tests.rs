use expect_test::expect;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

/// What a program with this ring logs while `work` runs.
fn logged(work: impl FnOnce()) -> Ring {
    let ring = Ring::default();
    let subscriber = tracing_subscriber::registry().with(ring.clone());
    tracing::subscriber::with_default(subscriber, work);
    ring
}

fn texts(lines: &[Line]) -> String {
    let text = |line: &Line| {
        let model = line.model.as_deref().unwrap_or("-");
        format!("{} {} {} {model}: {}\n", line.number, line.level, line.target, line.text)
    };
    lines.iter().map(text).collect()
}

#[test]
fn lines_have_their_fields() {
    let ring = logged(|| {
        tracing::info!(target: "t", model = "m:latest", tokens = 3, cause = "x y", "loaded");
        tracing::warn!(target: "t", model = %"n", "two {}", 2);
        tracing::error!(target: "u", "three");
    });
    expect![[r#"
        1 INFO t m:latest: loaded tokens=3 cause=x y
        2 WARN t n: two 2
        3 ERROR u -: three
    "#]]
    .assert_eq(&texts(&ring.tail(10, None).0));
    assert_eq!(texts(&ring.tail(1, None).0), "3 ERROR u -: three\n");
    assert_eq!(texts(&ring.tail(9, Some("n")).0), "2 WARN t n: two 2\n");
    assert_eq!(ring.since(2, None).0.len(), 1);
    assert_eq!(ring.since(2, Some("n")), (Vec::new(), 3));
}

#[test]
fn it_is_bounded_in_lines_and_bytes() {
    let ring = logged(|| {
        for number in 0..3 * LINES_MAX {
            tracing::info!(number, "line");
        }
    });
    assert_eq!(ring.lines().kept.len(), LINES_MAX);
    assert_eq!(ring.tail(1, None).1, 3 * LINES_MAX as u64);
    let ring = logged(|| {
        let long = "é".repeat(LINE_BYTES_MAX);
        for _ in 0..LINES_MAX {
            tracing::info!("{long}");
        }
    });
    let lines = ring.lines();
    assert!(lines.kept.iter().all(|line| line.text.len() <= LINE_BYTES_MAX + 3));
    assert!(lines.bytes <= BYTES_MAX && lines.kept.len() > BYTES_MAX / (2 * LINE_BYTES_MAX));
    assert_eq!(lines.bytes, lines.kept.iter().map(Line::bytes).sum::<usize>());
}

#[tokio::test]
async fn followers_hear_of_new_lines() {
    let ring = Ring::default();
    let mut changes = ring.changes();
    changes.borrow_and_update();
    let subscriber = tracing_subscriber::registry().with(ring.clone());
    tracing::subscriber::with_default(subscriber, || tracing::info!("news"));
    changes.changed().await.unwrap();
    assert_eq!(*changes.borrow(), 1);
}
