//! What went wrong below, as the error a client reads.

use dsk_daemon_api::{ApiError, ErrorCode};
use dsk_daemon_engine::{Failure, FailureKind};
use dsk_registry::{ClientError, DigestError, NameError, StoreError};

use crate::index::IndexError;
use crate::models::ModelsError;
use crate::pins::PinError;
use crate::runner::{DeathKind, LoadFailureKind};
use crate::scheduler::SchedulerError;
use crate::transfers::TransferError;
use crate::variants::VariantError;

/// A request that its runner refused or lost.
pub(crate) fn of_request(failure: &Failure) -> ApiError {
    let code = match failure.kind {
        FailureKind::BadRequest | FailureKind::Template => ErrorCode::InvalidRequest,
        FailureKind::ContextLength => ErrorCode::ContextLengthExceeded,
        FailureKind::Internal => ErrorCode::Internal,
        FailureKind::Cancelled => ErrorCode::Cancelled,
        FailureKind::RunnerDied => ErrorCode::RunnerDied,
        FailureKind::OutOfMemory => ErrorCode::OutOfMemory,
        FailureKind::Busy => ErrorCode::Overloaded,
    };
    ApiError::new(code, failure.message.clone())
}

/// A failure of the store. Paths are for the log, save where the user must go and look.
pub(crate) fn of_store(error: &StoreError) -> ApiError {
    let text = error.to_string();
    match error {
        StoreError::NotFound { .. } => ApiError::new(ErrorCode::BlobNotFound, text),
        StoreError::DigestMismatch { expected, got } => {
            let message = format!("digest mismatch, expected \"{expected}\", got \"{got}\"");
            ApiError::new(ErrorCode::DigestMismatch, message)
        }
        StoreError::NoSpace { .. } => ApiError::new(ErrorCode::NoSpace, text),
        StoreError::Busy { .. } | StoreError::Locked { .. } => ApiError::new(ErrorCode::Busy, text),
        StoreError::Refused { .. } => ApiError::new(ErrorCode::Internal, text),
        StoreError::SizeMismatch { .. } | StoreError::Corrupt { .. } => {
            ApiError::new(ErrorCode::Internal, text)
        }
        StoreError::NotAdopted { .. } => ApiError::new(ErrorCode::NotAdopted, text),
        StoreError::Link { .. } => ApiError::new(ErrorCode::LinkBroken, text),
        StoreError::Manifest(_) => ApiError::new(ErrorCode::InvalidModel, text),
        StoreError::Io { .. } => ApiError::logged(ErrorCode::Internal, text),
    }
}

/// A pull or a push that failed.
pub(crate) fn of_registry(error: &ClientError) -> ApiError {
    let text = error.to_string();
    match error {
        ClientError::NotFound { .. } => {
            let message = format!("pull model manifest: file does not exist ({text})");
            ApiError::new(ErrorCode::ManifestNotFound, message)
        }
        ClientError::Unreachable { .. } => ApiError::new(ErrorCode::RegistryUnreachable, text),
        ClientError::Unauthorized { .. } => ApiError::new(ErrorCode::Unauthorized, text),
        ClientError::Insecure { .. } => ApiError::new(ErrorCode::RegistryInsecure, text),
        ClientError::PrivateAddress { .. } => ApiError::new(ErrorCode::RegistryPrivate, text),
        ClientError::Format { .. } => ApiError::new(ErrorCode::UnsupportedModel, text),
        ClientError::Setting { .. } | ClientError::Address { .. } => {
            ApiError::new(ErrorCode::InvalidRequest, text)
        }
        ClientError::NoFile { .. } => ApiError::new(ErrorCode::ManifestNotFound, text),
        ClientError::Untrusted { .. } => ApiError::new(ErrorCode::UntrustedModel, text),
        ClientError::Integrity(_) => ApiError::new(ErrorCode::IntegrityFailed, text),
        ClientError::NoSpace { .. } => ApiError::new(ErrorCode::NoSpace, text),
        ClientError::Store(error) => of_store(error),
        ClientError::Cancelled => ErrorCode::Cancelled.into(),
        ClientError::Protocol { .. } => ApiError::new(ErrorCode::RegistryProtocol, text),
    }
}

/// A transfer that failed, or a choice of variants.
pub(crate) fn of_transfer(error: &TransferError) -> ApiError {
    match error {
        TransferError::Registry(error) => of_registry(error),
        TransferError::Variant(error) => of_variant(error),
        TransferError::Unusable(error) => error.clone(),
        TransferError::Pin(error) => of_pin(error),
        TransferError::Paused { .. } => ApiError::new(ErrorCode::Cancelled, error.to_string()),
    }
}

/// A lock file, or what it pins.
pub(crate) fn of_pin(error: &PinError) -> ApiError {
    let code = match error {
        PinError::Other { .. } | PinError::Gone { .. } => ErrorCode::Pinned,
        PinError::Malformed { .. } | PinError::Io { .. } => ErrorCode::InvalidLockFile,
        PinError::Interrupted => return ApiError::logged(ErrorCode::Internal, error),
    };
    ApiError::new(code, error.to_string())
}

/// Variants that could not be chosen from.
pub(crate) fn of_variant(error: &VariantError) -> ApiError {
    let code = match error {
        VariantError::Registry(error) => return of_registry(error),
        VariantError::Contradiction { .. } => ErrorCode::InvalidRequest,
        VariantError::Unoffered { .. } => ErrorCode::ManifestNotFound,
        VariantError::Misfit { .. } => ErrorCode::DoesNotFit,
        VariantError::Unplannable { .. } => ErrorCode::UnsupportedModel,
        VariantError::Interrupted => return ApiError::logged(ErrorCode::Internal, error),
    };
    ApiError::new(code, error.to_string())
}

/// A model that cannot be resolved, by the name the client used.
pub(crate) fn of_models(model: &str, error: &ModelsError) -> ApiError {
    match error {
        ModelsError::NotFound { .. } => not_found(model),
        ModelsError::Layer { .. } | ModelsError::NoWeights { .. } => {
            ApiError::new(ErrorCode::LoadFailed, error.to_string())
        }
        ModelsError::Store(error) => of_store(error),
        ModelsError::Interrupted => ApiError::logged(ErrorCode::Internal, error),
    }
}

/// The index failed.
pub(crate) fn of_index(error: &IndexError) -> ApiError {
    match error {
        IndexError::Store(error) => of_store(error),
        other => ApiError::logged(ErrorCode::Internal, other),
    }
}

impl From<SchedulerError> for ApiError {
    fn from(error: SchedulerError) -> ApiError {
        let code = match &error {
            SchedulerError::Busy { .. }
            | SchedulerError::Timeout { .. }
            | SchedulerError::ShuttingDown => ErrorCode::Overloaded,
            SchedulerError::Yielded { .. } => ErrorCode::Yielded,
            SchedulerError::Load { failure, .. } => of_load(failure.kind),
            SchedulerError::InsufficientMemory { .. }
            | SchedulerError::AllPinned { .. }
            | SchedulerError::Pressure { .. } => ErrorCode::OutOfMemory,
            SchedulerError::RunnerDied { death, .. } if death.kind() == DeathKind::OutOfMemory => {
                ErrorCode::OutOfMemory
            }
            SchedulerError::RunnerDied { .. } | SchedulerError::CrashLoop { .. } => {
                ErrorCode::RunnerDied
            }
        };
        let retry_after = error.retry_after();
        ApiError { retry_after, ..ApiError::new(code, error.to_string()) }
    }
}

fn of_load(kind: LoadFailureKind) -> ErrorCode {
    match kind {
        LoadFailureKind::Unsupported => ErrorCode::UnsupportedModel,
        LoadFailureKind::Corrupt | LoadFailureKind::Unreadable => ErrorCode::LoadFailed,
        LoadFailureKind::Template | LoadFailureKind::Options => ErrorCode::InvalidRequest,
        LoadFailureKind::OutOfMemory => ErrorCode::OutOfMemory,
        LoadFailureKind::Internal => ErrorCode::Internal,
    }
}

/// Text that is not a model's name.
pub(crate) fn of_name(error: &NameError) -> ApiError {
    ApiError::new(ErrorCode::InvalidName, error.to_string())
}

/// Text that is not a digest.
pub(crate) fn of_digest(error: &DigestError) -> ApiError {
    ApiError::new(ErrorCode::InvalidDigest, format!("invalid digest format: {error}"))
}

/// A blocking task that panicked or was cut short by the end of the daemon.
pub(crate) fn of_task(error: &tokio::task::JoinError) -> ApiError {
    ApiError::logged(ErrorCode::Internal, error)
}

/// A model that is not here, by the name the client used.
pub(crate) fn not_found(model: &str) -> ApiError {
    ApiError::new(ErrorCode::ModelNotFound, format!("model '{model}' not found"))
}

/// A field that dsk does not honour yet: refused, because ignoring it would answer another question.
pub(crate) fn unsupported(field: &str) -> ApiError {
    ApiError::new(ErrorCode::Unsupported, format!("`{field}` is not supported yet"))
}

/// Something this model cannot do.
pub(crate) fn incapable(model: &str, what: &str) -> ApiError {
    ApiError::new(ErrorCode::Incapable, format!("\"{model}\" does not support {what}"))
}
