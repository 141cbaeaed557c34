//! The pump over scripted events, with time paused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dsk_daemon_engine::FinishReason;
use expect_test::{Expect, expect};

use super::*;
use crate::http::testing::{died, done, start, text, unqueued};

/// Writes events in one letter each.
struct Letters;

impl Dialect for Letters {
    const STREAM_TYPE: &'static str = "text/plain";
    fn opening(&self) -> Option<Bytes> {
        Some("open ".into())
    }
    fn text(&self, text: Text, _: &Moment) -> Bytes {
        match text {
            Text::Thinking(text) => format!("t:{text} ").into(),
            Text::Content(text) => format!("c:{text} ").into(),
        }
    }
    fn done(&self, done: &Done, moment: &Moment) -> Bytes {
        format!("done:{:?} load:{:?}", done.reason, moment.load).into()
    }
    fn ping(&self, moment: &Moment) -> Bytes {
        match moment.place {
            Some(place) => format!("ping:{}:{:?} ", place.position, place.expected_wait).into(),
            None => "ping ".into(),
        }
    }
    fn failed(&self, error: &ApiError) -> Bytes {
        format!("failed:{error}").into()
    }
    fn whole(&self, whole: Whole, _: &Moment) -> Response {
        reply::json(&(whole.thinking, whole.content, whole.done.context))
    }
}

fn content(text: &str) -> Event {
    Event::Content(text.to_owned())
}

async fn check(events: Vec<Event>, streamed: bool, expected: Expect) {
    let answer = answer(start(events), Letters, streamed).await;
    expected.assert_eq(&match answer {
        Ok(response) => text(response).await,
        Err(error) => format!("{} {error}", error.code.status()),
    });
}

#[tokio::test(start_paused = true)]
async fn events_become_frames() {
    let events = vec![
        Event::Queued { position: 1 },
        Event::Prefill { done: 3, total: 5 },
        Event::Thinking("hm".to_owned()),
        content("a"),
        content("b"),
        Event::Done(done(FinishReason::Stop)),
        content("never"),
    ];
    check(events.clone(), true, expect!["open t:hm c:a c:b done:Stop load:0ns"]).await;
    check(events, false, expect![[r#"["hm","ab",[1,2,3]]"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_a_status_first_and_a_frame_later() {
    check(vec![died()], true, expect!["500 the runner of m was killed"]).await;
    check(vec![content("a"), died()], true, expect!["open c:a failed:the runner of m was killed"])
        .await;
    check(vec![content("a"), died()], false, expect!["500 the runner of m was killed"]).await;
    check(vec![content("a")], true, expect!["open c:a failed:the model's process ended unexpectedly; the next request starts it again"]).await;
}

/// A start that takes `delay`, and events that take it as well.
fn slow(delay: Duration, ends: Result<Vec<Event>, ApiError>) -> Start {
    unqueued(async move {
        tokio::time::sleep(delay).await;
        let events = stream::iter(ends?).then(move |event| async move {
            tokio::time::sleep(delay).await;
            event
        });
        Ok(Started { events: events.boxed(), load: delay })
    })
}

#[tokio::test(start_paused = true)]
async fn a_cold_model_is_held_and_then_kept_alive() {
    let events = vec![content("a"), Event::Done(done(FinishReason::Length))];
    let cold = slow(Duration::from_secs(25), Ok(events));
    let response = answer(cold, Letters, true).await.unwrap();
    // 10 s held, then the stream opens and says something every 10 s of silence.
    expect!["open ping ping ping ping c:a ping ping done:Length load:25s"]
        .assert_eq(&text(response).await);
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_the_queue_hears_where_it_stands() {
    let events = vec![content("a"), Event::Done(done(FinishReason::Stop))];
    let (told, place) = watch::channel(Place::default());
    tokio::spawn(async move {
        for (position, seconds) in [(2, 30), (2, 20), (1, 10)] {
            told.send_replace(Place { position, expected_wait: Duration::from_secs(seconds) });
            tokio::time::sleep(Duration::from_secs(9)).await;
        }
    });
    let waiting = Start { place, ..slow(Duration::from_secs(28), Ok(events)) };
    let response = answer(waiting, Letters, true).await.unwrap();
    expect!["open ping:2:20s ping:1:10s ping ping ping c:a ping ping done:Stop load:28s"]
        .assert_eq(&text(response).await);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_within_the_hold_is_a_status_and_after_it_a_frame() {
    let refused = || Err(ApiError::new(ErrorCode::OutOfMemory, "too big"));
    let soon = answer(slow(Duration::from_secs(9), refused()), Letters, true).await;
    assert_eq!(soon.unwrap_err().code.status(), 503);
    let late = answer(slow(Duration::from_secs(11), refused()), Letters, true).await.unwrap();
    expect!["open ping failed:too big"].assert_eq(&text(late).await);
}

/// Sets a flag when it is dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn dropping_the_body_drops_the_events() {
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Flag(Arc::clone(&dropped));
    let events = stream::iter([content("a")]).chain(stream::pending()).inspect(move |_| {
        let _held = &flag;
    });
    let started = Started { events: events.boxed(), load: Duration::ZERO };
    let ready = unqueued(async { Ok(started) });
    let response = answer(ready, Letters, true).await.unwrap();
    let mut body = response.into_body().into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), "open ");
    assert_eq!(body.next().await.unwrap().unwrap(), "c:a ");
    assert!(!dropped.load(Ordering::SeqCst));
    drop(body);
    assert!(dropped.load(Ordering::SeqCst));
}
