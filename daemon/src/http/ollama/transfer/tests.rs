//! Lines of a transfer, word for word, and when they become a status instead.

use dsk_daemon_api::ErrorCode;
use expect_test::{Expect, expect};

use super::*;
use crate::http::testing::text;

fn steps(direction: Direction) -> Vec<Progress> {
    let digest = Digest::of(b"x");
    match direction {
        Direction::Pull => vec![
            Progress::Manifest,
            Progress::Blob { digest, total: 9, completed: 0 },
            Progress::Blob { digest, total: 9, completed: 9 },
            Progress::Verifying { digest },
            Progress::WritingManifest,
            Progress::RemovingUnused,
            Progress::Success,
        ],
        Direction::Push => vec![
            Progress::Manifest,
            Progress::Pushing { digest, total: 9, completed: 9 },
            Progress::PushingManifest,
            Progress::Success,
        ],
    }
}

fn script(steps: Vec<Result<Progress, ApiError>>, direction: Direction) -> Lines {
    lines(stream::iter(steps).boxed(), direction)
}

async fn check(direction: Direction, streamed: bool, expected: Expect) {
    let steps = steps(direction).into_iter().map(Ok).collect();
    let response = answer(script(steps, direction), streamed).await.unwrap();
    expected.assert_eq(&text(response).await);
}

#[tokio::test]
async fn a_pull() {
    check(Direction::Pull, true, expect![[r#"
        {"status":"pulling manifest"}
        {"status":"pulling 2d711642b726","digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","total":9,"completed":0}
        {"status":"pulling 2d711642b726","digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","total":9,"completed":9}
        {"status":"verifying sha256 digest"}
        {"status":"writing manifest"}
        {"status":"removing unused layers"}
        {"status":"success"}
    "#]]).await;
    check(Direction::Pull, false, expect![[r#"{"status":"success"}"#]]).await;
}

#[tokio::test]
async fn a_push() {
    check(Direction::Push, true, expect![[r#"
        {"status":"retrieving manifest"}
        {"status":"pushing 2d711642b726","digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","total":9,"completed":9}
        {"status":"pushing manifest"}
        {"status":"success"}
    "#]]).await;
}

fn missing() -> ApiError {
    ErrorCode::ManifestNotFound.into()
}

#[tokio::test]
async fn a_model_that_is_nowhere_is_a_404() {
    for streamed in [true, false] {
        let lines = script(vec![Ok(Progress::Manifest), Err(missing())], Direction::Pull);
        assert_eq!(answer(lines, streamed).await.unwrap_err().code.status(), 404);
    }
}

#[tokio::test]
async fn a_failure_after_the_first_blob_is_the_last_line() {
    let blob = Progress::Blob { digest: Digest::of(b"x"), total: 9, completed: 1 };
    let full = ApiError::new(ErrorCode::NoSpace, "full");
    let lines = script(vec![Ok(Progress::Manifest), Ok(blob), Err(full)], Direction::Pull);
    let all = text(answer(lines, true).await.unwrap()).await;
    expect![[r#"{"error":"full","code":"no_space"}"#]].assert_eq(all.lines().last().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_slow_registry_does_not_hold_the_first_line_for_ever() {
    let steps = stream::iter([Ok(Progress::Manifest)]).chain(stream::pending());
    let mut response = answer(lines(steps.boxed(), Direction::Pull), true).await.unwrap();
    let first = StreamExt::next(&mut std::mem::take(response.body_mut()).into_data_stream()).await;
    expect![[r#"
        {"status":"pulling manifest"}
    "#]]
    .assert_eq(std::str::from_utf8(&first.unwrap().unwrap()).unwrap());
}
