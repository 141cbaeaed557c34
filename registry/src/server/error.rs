//! The one table of wire errors, in the form that OCI Distribution gives them.

use crate::StoreError;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// What a client that lacks a token is told to send: the token as the password of any user. A bearer
/// token is taken as well; its challenge would promise a token server.
const CHALLENGE: &str = "Basic realm=\"dsk registry\"";

/// Everything that can be wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    NotFound,
    NameInvalid,
    NameUnknown,
    TagInvalid,
    DigestInvalid,
    ManifestInvalid,
    ManifestTooLarge,
    ManifestUnknown,
    ManifestBlobUnknown,
    BlobUnknown,
    UploadInvalid,
    UploadUnknown,
    UploadBusy,
    RangeInvalid,
    SizeInvalid,
    TooManyUploads,
    Timeout,
    Unauthorized,
    Denied,
    Unsupported,
    InUse,
    TooManyFetches,
    UpstreamFailed,
    NoSpace,
    Internal,
}

impl Code {
    /// The code on the wire and the status that goes with it.
    fn wire(self) -> (&'static str, u16) {
        match self {
            Code::NotFound => ("NAME_UNKNOWN", 404),
            Code::NameInvalid => ("NAME_INVALID", 400),
            Code::NameUnknown => ("NAME_UNKNOWN", 404),
            Code::TagInvalid => ("TAG_INVALID", 400),
            Code::DigestInvalid => ("DIGEST_INVALID", 400),
            Code::ManifestInvalid => ("MANIFEST_INVALID", 400),
            Code::ManifestTooLarge => ("MANIFEST_INVALID", 413),
            Code::ManifestUnknown => ("MANIFEST_UNKNOWN", 404),
            Code::ManifestBlobUnknown => ("MANIFEST_BLOB_UNKNOWN", 404),
            Code::BlobUnknown => ("BLOB_UNKNOWN", 404),
            Code::UploadInvalid => ("BLOB_UPLOAD_INVALID", 400),
            Code::UploadUnknown => ("BLOB_UPLOAD_UNKNOWN", 404),
            Code::UploadBusy => ("BLOB_UPLOAD_INVALID", 409),
            Code::RangeInvalid => ("BLOB_UPLOAD_INVALID", 416),
            Code::SizeInvalid => ("SIZE_INVALID", 400),
            Code::TooManyUploads => ("TOOMANYREQUESTS", 429),
            Code::Timeout => ("BLOB_UPLOAD_INVALID", 408),
            Code::Unauthorized => ("UNAUTHORIZED", 401),
            Code::Denied => ("DENIED", 403),
            Code::Unsupported => ("UNSUPPORTED", 405),
            Code::InUse => ("DENIED", 409),
            Code::TooManyFetches => ("TOOMANYREQUESTS", 429),
            Code::UpstreamFailed => ("UNKNOWN", 502),
            Code::NoSpace => ("DENIED", 507),
            Code::Internal => ("UNKNOWN", 500),
        }
    }
}

/// A refused request: a code and a sentence for people.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) code: Code,
    message: String,
}

impl Problem {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Problem {
        Problem { code, message: message.into() }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// A failure of ours. Its text goes to the log: it names paths, which are nobody else's business.
    pub(super) fn internal(error: &dyn std::error::Error) -> Problem {
        tracing::error!(%error, "the registry failed");
        Problem::new(Code::Internal, "the registry failed; its log says why")
    }

    /// The same problem, seen from a manifest that names a missing blob.
    pub(super) fn in_manifest(self) -> Problem {
        match self.code {
            Code::BlobUnknown => Problem { code: Code::ManifestBlobUnknown, ..self },
            _ => self,
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        let code = match &error {
            StoreError::NotFound { .. } => Code::BlobUnknown,
            StoreError::DigestMismatch { .. } => Code::DigestInvalid,
            StoreError::SizeMismatch { .. } | StoreError::Manifest(_) => Code::ManifestInvalid,
            StoreError::NoSpace { .. } => {
                tracing::error!(%error, "the registry's disk is full");
                return Problem::new(Code::NoSpace, "the registry's disk is full");
            }
            _ => return Problem::internal(&error),
        };
        Problem::new(code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (code, status) = self.code.wire();
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let error = serde_json::json!({ "code": code, "message": self.message, "detail": null });
        let body = serde_json::json!({ "errors": [error] }).to_string();
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if self.code == Code::Unauthorized {
            let challenge = HeaderValue::from_static(CHALLENGE);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
