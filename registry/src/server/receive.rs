//! Request bodies, bounded in size and in time.

use super::error::{Code, Problem};
use crate::{pump::Pump, store::Upload};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use std::time::Duration;

/// The next bytes of a body, None at its end.
async fn next(body: &mut Body, idle: Duration) -> Result<Option<Bytes>, Problem> {
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await;
        let frame = frame.map_err(|_| Problem::new(Code::Timeout, "the request's body stalled"))?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => {
                return Err(Problem::new(
                    Code::UploadInvalid,
                    format!("the body broke off: {error}"),
                ));
            }
            // Trailers say nothing that matters here.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(_) => continue,
            },
        }
    }
}

/// A small body whole.
pub(super) async fn small(mut body: Body, max: usize, idle: Duration) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    while let Some(data) = next(&mut body, idle).await? {
        if bytes.len() + data.len() > max {
            let message = format!("a manifest has at most {max} bytes");
            return Err(Problem::new(Code::ManifestTooLarge, message));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Adds a body to an upload. When the body breaks off the upload comes back with what arrived, so that
/// the client can go on; when the store fails it is gone.
pub(super) async fn into_upload(
    mut body: Body,
    upload: Upload,
    idle: Duration,
) -> Result<(Upload, Result<(), Problem>), Problem> {
    let pump = Pump::start(upload, Upload::write);
    let outcome = loop {
        match next(&mut body, idle).await {
            Ok(Some(data)) => {
                if !pump.send(data).await {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(problem) => break Err(problem),
        }
    };
    let (upload, written) = pump.finish().await;
    written?;
    Ok((upload, outcome))
}
