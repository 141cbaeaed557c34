//! Every exit code of `dsk`, and the one rule that gives an error its code.

use std::process::ExitCode;

use dsk_daemon_api::ErrorCode;

/// How the program ends. The numbers are a promise to scripts: they never change meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Success,
    General,
    Usage,
    Unreachable,
    Unauthorized,
    NotFound,
    DoesNotFit,
    Integrity,
    NoSpace,
    Unavailable,
    Interrupted,
}

/// The table as `dsk --help` prints it, in the order of the codes.
const TABLE: [(Exit, &str); 11] = [
    (Exit::Success, "success"),
    (Exit::General, "any other error"),
    (Exit::Usage, "wrong arguments or bad input"),
    (Exit::Unreachable, "the daemon cannot be reached"),
    (Exit::Unauthorized, "not allowed: credentials are missing or refused"),
    (Exit::NotFound, "the model or file does not exist"),
    (Exit::DoesNotFit, "the model does not fit the memory"),
    (Exit::Integrity, "bytes are not what their digest, signature or pin says"),
    (Exit::NoSpace, "the disk is full"),
    (Exit::Unavailable, "busy or away: port taken, store locked, queue full, registry unreachable"),
    (Exit::Interrupted, "interrupted with Ctrl-C"),
];

impl Exit {
    /// The number the shell sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::General => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::Unauthorized => 4,
            Exit::NotFound => 5,
            Exit::DoesNotFit => 6,
            Exit::Integrity => 7,
            Exit::NoSpace => 8,
            // BSD's EX_UNAVAILABLE, which service managers know.
            Exit::Unavailable => 69,
            // 128 + SIGINT, as a shell reports a program that Ctrl-C ended.
            Exit::Interrupted => 130,
        }
    }

    /// The code for an error that the daemon names.
    pub(crate) const fn of_code(code: ErrorCode) -> Exit {
        match code {
            ErrorCode::InvalidRequest
            | ErrorCode::InvalidJson
            | ErrorCode::InvalidName
            | ErrorCode::InvalidDigest
            | ErrorCode::Unsupported
            | ErrorCode::Incapable
            | ErrorCode::ContextLengthExceeded
            | ErrorCode::MethodNotAllowed
            | ErrorCode::BodyTooLarge
            | ErrorCode::NotAdopted
            | ErrorCode::InvalidLockFile
            | ErrorCode::RegistryInsecure
            | ErrorCode::RegistryPrivate => Exit::Usage,
            ErrorCode::DigestMismatch
            | ErrorCode::IntegrityFailed
            | ErrorCode::LinkBroken
            | ErrorCode::UntrustedModel
            | ErrorCode::Pinned => Exit::Integrity,
            ErrorCode::Forbidden | ErrorCode::Unauthorized => Exit::Unauthorized,
            ErrorCode::ModelNotFound
            | ErrorCode::ManifestNotFound
            | ErrorCode::BlobNotFound
            | ErrorCode::RouteNotFound => Exit::NotFound,
            ErrorCode::Busy
            | ErrorCode::Overloaded
            | ErrorCode::Yielded
            | ErrorCode::RegistryUnreachable
            | ErrorCode::BodyTimeout => Exit::Unavailable,
            ErrorCode::Cancelled => Exit::Interrupted,
            ErrorCode::Internal
            | ErrorCode::LoadFailed
            | ErrorCode::RunnerDied
            | ErrorCode::InvalidModel
            | ErrorCode::UnsupportedModel
            | ErrorCode::RegistryProtocol => Exit::General,
            ErrorCode::OutOfMemory | ErrorCode::DoesNotFit => Exit::DoesNotFit,
            ErrorCode::NoSpace => Exit::NoSpace,
        }
    }

    /// The code for an HTTP status, where the daemon gave no finer reason.
    pub(crate) const fn of_status(status: u16) -> Exit {
        match status {
            400 | 405 | 413 | 415 | 422 => Exit::Usage,
            401 | 403 => Exit::Unauthorized,
            404 => Exit::NotFound,
            408 | 429 | 503 => Exit::Unavailable,
            499 => Exit::Interrupted,
            507 => Exit::NoSpace,
            _ => Exit::General,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// The "Exit codes" section of the help text.
pub(crate) fn help_section() -> String {
    let mut text = String::from("Exit codes:\n");
    for (exit, meaning) in TABLE {
        text.push_str(&format!("  {:>3}  {meaning}\n", exit.code()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_help_lists_every_code() {
        expect![[r#"
            Exit codes:
                0  success
                1  any other error
                2  wrong arguments or bad input
                3  the daemon cannot be reached
                4  not allowed: credentials are missing or refused
                5  the model or file does not exist
                6  the model does not fit the memory
                7  bytes are not what their digest, signature or pin says
                8  the disk is full
               69  busy or away: port taken, store locked, queue full, registry unreachable
              130  interrupted with Ctrl-C
        "#]]
        .assert_eq(&help_section());
    }

    #[test]
    fn every_error_of_the_daemon_has_a_code() {
        let text: String = dsk_daemon_api::error::TABLE
            .iter()
            .map(|row| format!("{} {}\n", row.name, Exit::of_code(row.code).code()))
            .collect();
        expect![[r#"
            invalid_request 2
            invalid_json 2
            invalid_name 2
            invalid_digest 2
            digest_mismatch 7
            unsupported 2
            incapable 2
            context_length_exceeded 2
            invalid_model 1
            unsupported_model 1
            forbidden 4
            unauthorized 4
            model_not_found 5
            manifest_not_found 5
            blob_not_found 5
            route_not_found 5
            method_not_allowed 2
            body_too_large 2
            body_timeout 69
            busy 69
            cancelled 130
            internal 1
            load_failed 1
            runner_died 1
            integrity_failed 7
            registry_protocol 1
            registry_unreachable 69
            registry_insecure 2
            overloaded 69
            out_of_memory 6
            yielded 69
            does_not_fit 6
            no_space 8
            not_adopted 2
            link_broken 7
            untrusted_model 7
            pinned 7
            invalid_lock_file 2
            registry_private 2
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn statuses_have_codes() {
        let cases = [
            (400, 2),
            (401, 4),
            (403, 4),
            (404, 5),
            (413, 2),
            (499, 130),
            (500, 1),
            (503, 69),
            (507, 8),
        ];
        for (status, code) in cases {
            assert_eq!(Exit::of_status(status).code(), code, "status {status}");
        }
    }
}
