//! `GET /api/dsk/logs`: the last lines of the log, and with `follow=1` those that come.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use dsk_daemon_api::status::LogLine;
use dsk_daemon_api::{ApiError, ErrorCode};
use futures_util::{Stream, stream};
use serde::Deserialize;
use tokio::sync::watch;

use crate::http::ollama::{NDJSON, rfc3339};
use crate::http::reply::{self, Native};
use crate::http::{Http, parse_name};
use crate::logs::{Line, Ring};

/// Lines of an answer that does not say how many.
const LINES_DEFAULT: usize = 100;

/// What a request asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Wanted {
    /// The last lines, as many as this.
    n: Option<usize>,
    /// Only lines about this model.
    model: Option<String>,
    /// Whether to go on with new lines.
    follow: u8,
}

/// The handler.
pub(crate) async fn logs(
    State(http): State<Arc<Http>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Native {
    let Query(wanted) =
        wanted.map_err(|error| ApiError::new(ErrorCode::InvalidRequest, error.body_text()))?;
    let model = wanted.model.as_deref().map(parse_name).transpose()?;
    let model = model.map(|name| name.to_string());
    let ring = http.service.logs.clone();
    // Before the first look, so that nothing falls between it and the first change.
    let changes = ring.changes();
    let (lines, last) = ring.tail(wanted.n.unwrap_or(LINES_DEFAULT), model.as_deref());
    let changes = (wanted.follow != 0).then_some(changes);
    let reader = Reader { ring, model, lines: lines.into(), last, changes };
    Ok(reply::stream(NDJSON, reader.frames()))
}

/// One reader of the log.
struct Reader {
    ring: Ring,
    model: Option<String>,
    /// Read and not sent yet.
    lines: VecDeque<Line>,
    last: u64,
    /// `None` ends with the lines there are.
    changes: Option<watch::Receiver<u64>>,
}

impl Reader {
    fn frames(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut reader| async move {
            let line = reader.next().await?;
            Some((reply::line(&wire(line)), reader))
        })
    }

    async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            let last = self.last;
            self.changes.as_mut()?.wait_for(|newest| *newest > last).await.ok()?;
            let (lines, last) = self.ring.since(last, self.model.as_deref());
            (self.lines, self.last) = (lines.into(), last);
        }
    }
}

fn wire(line: Line) -> LogLine {
    LogLine {
        number: line.number,
        time: rfc3339(line.time),
        level: line.level.to_owned(),
        target: line.target,
        model: line.model,
        text: line.text,
    }
}
