//! Every error a client can see: its code, HTTP status and text, in one table.
//!
//! ```text
//! native   HTTP <status>  {"error": "<text>", "code": "<code>"}
//! OpenAI   HTTP <status>  {"error": {"message": "<text>", "type": "<kind>", "param": null, "code": "<code>"}}
//! ```
//!
//! Once a stream has begun its status is sent; an error is then its last line (native) or its last
//! event (OpenAI), with the same body. The text is for the client; what only the log should see
//! (paths, causes) is [`ApiError::internal`].

use std::fmt;

use serde_json::{Value, json};

/// What went wrong, for a program to branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request is not what the endpoint takes: a field is absent, of a wrong type or value.
    InvalidRequest,
    /// The body is not JSON.
    InvalidJson,
    /// Not the name of a model.
    InvalidName,
    /// Not a digest.
    InvalidDigest,
    /// Bytes that do not hash to the digest they came under.
    DigestMismatch,
    /// A field dsk knows but does not honour yet.
    Unsupported,
    /// The model cannot do what was asked of it.
    Incapable,
    /// The conversation is longer than the context.
    ContextLengthExceeded,
    /// A model file that cannot be used: truncated, hostile, of an unknown architecture.
    InvalidModel,
    /// A model that is whole, but of a kind this version cannot run.
    UnsupportedModel,
    /// The Host or Origin header is not one the daemon answers.
    Forbidden,
    /// The registry wants credentials.
    Unauthorized,
    /// No such model here.
    ModelNotFound,
    /// No such model at the registry.
    ManifestNotFound,
    /// No such blob here.
    BlobNotFound,
    /// No such endpoint.
    RouteNotFound,
    /// The endpoint is there, but not for this method.
    MethodNotAllowed,
    /// The body is longer than the endpoint takes.
    BodyTooLarge,
    /// The body stopped coming.
    BodyTimeout,
    /// Somebody else is writing the same blob.
    Busy,
    /// The client went away.
    Cancelled,
    /// The daemon is at fault.
    Internal,
    /// The model could not be loaded.
    LoadFailed,
    /// The model's process ended.
    RunnerDied,
    /// What the registry sent is not what its digests promise.
    IntegrityFailed,
    /// The registry answered, but not as a registry does.
    RegistryProtocol,
    /// No registry answered.
    RegistryUnreachable,
    /// The registry is not safe to talk to, and `insecure` was not given.
    RegistryInsecure,
    /// The queue is full.
    Overloaded,
    /// Not enough memory for the model.
    OutOfMemory,
    /// The models' memory was given to somebody else.
    Yielded,
    /// The model does not fit the machine, and waiting does not help.
    DoesNotFit,
    /// The disk is full.
    NoSpace,
    /// The models folder is another program's, and only read.
    NotAdopted,
    /// A file that a model is linked to changed or is gone.
    LinkBroken,
    /// The model is not signed as the configuration demands.
    UntrustedModel,
    /// The lock file pins the model to something else, or to what is no longer there.
    Pinned,
    /// The lock file cannot be read or written.
    InvalidLockFile,
    /// The registry, or what it leads to, is inside this network, and nobody has allowed that.
    RegistryPrivate,
}

/// One row of [`TABLE`].
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The error.
    pub code: ErrorCode,
    /// Its code on the wire.
    pub name: &'static str,
    /// Its HTTP status.
    pub status: u16,
    /// Its `type` in OpenAI's shape.
    pub openai: &'static str,
    /// What it says when there is nothing more particular to say.
    pub text: &'static str,
}

const REQUEST: &str = "invalid_request_error";
const NOT_FOUND: &str = "not_found_error";
const API: &str = "api_error";

/// The table: every code once, in the order of [`ErrorCode`].
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row(ErrorCode::InvalidRequest, "invalid_request", 400, REQUEST, "invalid request"),
    row(ErrorCode::InvalidJson, "invalid_json", 400, REQUEST, "the body is not valid JSON"),
    row(ErrorCode::InvalidName, "invalid_name", 400, REQUEST, "invalid model name"),
    row(ErrorCode::InvalidDigest, "invalid_digest", 400, REQUEST, "invalid digest format"),
    row(ErrorCode::DigestMismatch, "digest_mismatch", 400, REQUEST, "digest mismatch"),
    row(ErrorCode::Unsupported, "unsupported", 400, REQUEST, "not supported yet"),
    row(ErrorCode::Incapable, "incapable", 400, REQUEST, "the model cannot do this"),
    row(ErrorCode::ContextLengthExceeded, "context_length_exceeded", 400, REQUEST, "the prompt is longer than the context length"),
    row(ErrorCode::InvalidModel, "invalid_model", 400, REQUEST, "the model file cannot be used"),
    row(ErrorCode::UnsupportedModel, "unsupported_model", 400, REQUEST, "this version cannot run the model"),
    row(ErrorCode::Forbidden, "forbidden", 403, REQUEST, "forbidden"),
    row(ErrorCode::Unauthorized, "unauthorized", 401, REQUEST, "the registry refuses access"),
    row(ErrorCode::ModelNotFound, "model_not_found", 404, NOT_FOUND, "model not found"),
    row(ErrorCode::ManifestNotFound, "manifest_not_found", 404, NOT_FOUND, "pull model manifest: file does not exist"),
    row(ErrorCode::BlobNotFound, "blob_not_found", 404, NOT_FOUND, "blob not found"),
    row(ErrorCode::RouteNotFound, "route_not_found", 404, NOT_FOUND, "no such endpoint"),
    row(ErrorCode::MethodNotAllowed, "method_not_allowed", 405, REQUEST, "method not allowed"),
    row(ErrorCode::BodyTooLarge, "body_too_large", 413, REQUEST, "the body is too large"),
    row(ErrorCode::BodyTimeout, "body_timeout", 408, REQUEST, "the body stopped coming"),
    row(ErrorCode::Busy, "busy", 409, REQUEST, "another request is doing the same"),
    row(ErrorCode::Cancelled, "cancelled", 499, API, "request canceled"),
    row(ErrorCode::Internal, "internal", 500, API, "internal error; the daemon's log has the cause"),
    row(ErrorCode::LoadFailed, "load_failed", 500, API, "the model could not be loaded"),
    row(ErrorCode::RunnerDied, "runner_died", 500, API, "the model's process ended unexpectedly; the next request starts it again"),
    row(ErrorCode::IntegrityFailed, "integrity_failed", 502, API, "what the registry sent does not match its digest"),
    row(ErrorCode::RegistryProtocol, "registry_protocol", 502, API, "the registry gave an answer that makes no sense"),
    row(ErrorCode::RegistryUnreachable, "registry_unreachable", 502, API, "the registry cannot be reached"),
    row(ErrorCode::RegistryInsecure, "registry_insecure", 400, REQUEST, "the registry speaks plain HTTP; allow it with insecure"),
    row(ErrorCode::Overloaded, "overloaded", 503, API, "server busy, please try again.  maximum pending requests exceeded"),
    row(ErrorCode::OutOfMemory, "out_of_memory", 503, API, "not enough memory for the model"),
    row(ErrorCode::Yielded, "yielded", 503, API, "the models' memory was yielded; take it back: dsk yield --resume"),
    row(ErrorCode::DoesNotFit, "does_not_fit", 422, REQUEST, "the model does not fit this machine"),
    row(ErrorCode::NoSpace, "no_space", 507, API, "no space left on the disk of the models folder"),
    row(ErrorCode::NotAdopted, "not_adopted", 409, REQUEST, "the models folder belongs to another program and is only read"),
    row(ErrorCode::LinkBroken, "link_broken", 409, REQUEST, "a linked file changed or is gone"),
    row(ErrorCode::UntrustedModel, "untrusted_model", 403, REQUEST, "the model is not signed as the configuration demands"),
    row(ErrorCode::Pinned, "pinned", 409, REQUEST, "the lock file pins the model to something else"),
    row(ErrorCode::InvalidLockFile, "invalid_lock_file", 500, API, "the lock file cannot be used"),
    row(ErrorCode::RegistryPrivate, "registry_private", 400, REQUEST, "the registry is inside this network; allow it in the configuration"),
];

const fn row(
    code: ErrorCode,
    name: &'static str,
    status: u16,
    openai: &'static str,
    text: &'static str,
) -> Row {
    Row { code, name, status, openai, text }
}

impl ErrorCode {
    /// The error's row.
    #[must_use]
    pub fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.code == self).expect("a test finds every code in the table")
    }

    /// Its HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        self.row().status
    }

    /// Its code on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The code that has this name on the wire.
    #[must_use]
    pub fn from_name(name: &str) -> Option<ErrorCode> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.code)
    }
}

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Decides the status.
    pub code: ErrorCode,
    /// What the client reads.
    pub message: String,
    /// What only the log shows.
    pub internal: Option<String>,
    /// When it makes sense to try again, in seconds: the `Retry-After` header.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// An error that says what was wrong.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError { code, message: message.into(), internal: None, retry_after: None }
    }

    /// An error whose cause is for the log; the client reads the table's text.
    pub fn logged(code: ErrorCode, cause: impl fmt::Display) -> ApiError {
        let message = code.row().text.to_owned();
        ApiError { code, message, internal: Some(cause.to_string()), retry_after: None }
    }

    /// The body in the native shape.
    #[must_use]
    pub fn native(&self) -> Value {
        let mut body = json!({"error": self.message, "code": self.code.name()});
        self.say_when(&mut body);
        body
    }

    /// The body in OpenAI's shape.
    #[must_use]
    pub fn openai(&self) -> Value {
        let mut error = json!({
            "message": self.message,
            "type": self.code.row().openai,
            "param": null,
            "code": self.code.name(),
        });
        self.say_when(&mut error);
        json!({"error": error})
    }

    /// In the body too: an error in the middle of a stream has no header.
    fn say_when(&self, body: &mut Value) {
        if let Some(seconds) = self.retry_after {
            body["retry_after"] = seconds.into();
        }
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> ApiError {
        ApiError::new(code, code.row().text)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.internal.iter().try_for_each(|cause| write!(f, " ({cause})"))
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use expect_test::expect;

    use super::*;

    #[test]
    fn every_code_is_in_the_table_once_and_in_order() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.code as usize, at, "{} is out of order", row.name);
            assert_eq!(ErrorCode::from_name(row.name), Some(row.code));
        }
        // RegistryPrivate is the last variant: a new one after it must come with a row.
        assert_eq!(ErrorCode::RegistryPrivate as usize + 1, TABLE.len());
        assert_eq!(TABLE.iter().map(|row| row.name).collect::<HashSet<_>>().len(), TABLE.len());
    }

    #[test]
    fn bodies_in_both_shapes() {
        let error = ApiError::new(ErrorCode::ModelNotFound, "model 'm' not found");
        expect![[r#"{"error":"model 'm' not found","code":"model_not_found"}"#]]
            .assert_eq(&error.native().to_string());
        expect![[r#"{"error":{"message":"model 'm' not found","type":"not_found_error","param":null,"code":"model_not_found"}}"#]]
            .assert_eq(&error.openai().to_string());
    }

    #[test]
    fn the_cause_is_logged_and_not_sent() {
        let error = ApiError::logged(ErrorCode::Internal, "/secret/path: denied");
        assert!(!error.native().to_string().contains("secret"));
        assert!(error.to_string().contains("/secret/path: denied"));
    }
}
