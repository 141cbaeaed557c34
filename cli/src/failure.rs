//! An error as the user reads it: what went wrong, what to do, and the exit code.

use std::fmt;
use std::io::ErrorKind;

use dsk_daemon::bench::{BenchError, BenchErrorKind};
use dsk_daemon::models::ModelsError;
use dsk_daemon::pins::PinError;
use dsk_daemon::service::ServiceError;
use dsk_daemon::{ConfigError, DaemonError, ListenError};
use dsk_daemon_api::{ClientError, ErrorCode};
use dsk_registry::StoreError;
use dsk_registry::oci_layout::LayoutError;

use crate::exit::Exit;
use crate::terminal::{OutputClosed, Style, Terminal};

/// A failed verb. Verbs return `anyhow::Error`; one of these somewhere in its chain decides the
/// exit code and the hints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) hints: Vec<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hints: Vec::new() }
    }

    /// Wrong arguments or input.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// Adds a line that says what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hints.push(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Prints an error and gives its exit code. A closed stdout is no error: the reader had enough.
pub(crate) fn report(terminal: &mut Terminal, error: &anyhow::Error) -> Exit {
    if error.chain().any(|cause| cause.is::<OutputClosed>()) {
        return Exit::Success;
    }
    let (exit, hints) = classify(error);
    print(terminal, &format!("{error:#}"), &hints);
    exit
}

/// The exit code and the hints of the first error in the chain that has any.
fn classify(error: &anyhow::Error) -> (Exit, Vec<String>) {
    error
        .chain()
        .find_map(|cause| {
            if let Some(failure) = cause.downcast_ref::<Failure>() {
                return Some((failure.exit, failure.hints.clone()));
            }
            if let Some(client) = cause.downcast_ref::<ClientError>() {
                return Some((client_exit(client), client_hint(client).into_iter().collect()));
            }
            server_exit(cause).map(|exit| (exit, Vec::new()))
        })
        .unwrap_or((Exit::General, Vec::new()))
}

/// The code of an error of the libraries that `serve`, `registry serve`, `bench` and `export` run in this
/// process.
/// Their texts say what to do themselves.
fn server_exit(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if cause.is::<ConfigError>() {
        return Some(Exit::Usage);
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return Some(store_exit(error));
    }
    if let Some(error) = cause.downcast_ref::<PinError>() {
        return Some(pin_exit(error));
    }
    if let Some(error) = cause.downcast_ref::<BenchError>() {
        return Some(bench_exit(error));
    }
    if let Some(error) = cause.downcast_ref::<LayoutError>() {
        return Some(layout_exit(error));
    }
    if let Some(ModelsError::Store(error)) = cause.downcast_ref::<ModelsError>() {
        return Some(store_exit(error));
    }
    let listen = match cause.downcast_ref::<DaemonError>() {
        Some(DaemonError::Service(service)) => return Some(service_exit(service)),
        Some(DaemonError::Listen(listen)) => Some(listen),
        None => cause.downcast_ref::<ListenError>(),
    };
    listen.map(|error| match error {
        ListenError::InUse { .. } | ListenError::SocketInUse(_) => Exit::Unavailable,
        _ => Exit::General,
    })
}

fn service_exit(error: &ServiceError) -> Exit {
    match error {
        ServiceError::Locked { .. } => Exit::Unavailable,
        ServiceError::Store(store) => store_exit(store),
        ServiceError::Client(dsk_registry::ClientError::Setting { .. }) => Exit::Usage,
        _ => Exit::General,
    }
}

fn store_exit(error: &StoreError) -> Exit {
    match error {
        StoreError::NotFound { .. } => Exit::NotFound,
        StoreError::DigestMismatch { .. }
        | StoreError::SizeMismatch { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Link { .. } => Exit::Integrity,
        StoreError::NotAdopted { .. } => Exit::Usage,
        StoreError::NoSpace { .. } => Exit::NoSpace,
        StoreError::Locked { .. } | StoreError::Busy { .. } => Exit::Unavailable,
        _ => Exit::General,
    }
}

fn layout_exit(error: &LayoutError) -> Exit {
    match error {
        LayoutError::Store(store) => store_exit(store),
        LayoutError::Write { error, .. } => write_exit(error),
        _ => Exit::General,
    }
}

/// The code of a file that could not be written.
pub(crate) fn write_exit(error: &std::io::Error) -> Exit {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Exit::NoSpace,
        _ => Exit::General,
    }
}

fn pin_exit(error: &PinError) -> Exit {
    match error {
        PinError::Other { .. } | PinError::Gone { .. } => Exit::Integrity,
        PinError::Malformed { .. } | PinError::Io { .. } => Exit::Usage,
        PinError::Interrupted => Exit::General,
    }
}

fn bench_exit(error: &BenchError) -> Exit {
    match error.kind() {
        BenchErrorKind::Options => Exit::Usage,
        BenchErrorKind::NotFound => Exit::NotFound,
        BenchErrorKind::Memory => Exit::DoesNotFit,
        BenchErrorKind::Other => Exit::General,
    }
}

fn client_exit(error: &ClientError) -> Exit {
    match error {
        ClientError::Unreachable { .. } => Exit::Unreachable,
        ClientError::Api { code: Some(code), .. } => Exit::of_code(*code),
        ClientError::Api { status, .. } => Exit::of_status(*status),
        ClientError::Protocol { .. } => Exit::General,
        ClientError::File { source, .. } if source.kind() == ErrorKind::NotFound => Exit::NotFound,
        ClientError::File { .. } => Exit::General,
    }
}

/// What to do about an error of the daemon, where that can be said.
fn client_hint(error: &ClientError) -> Option<String> {
    let hint = match error {
        ClientError::Unreachable { .. } => "start it with: dsk serve",
        ClientError::Protocol { .. } => {
            "is another program listening there? `dsk doctor` finds out"
        }
        ClientError::File { .. } => return None,
        ClientError::Api { code, .. } => match (*code)? {
            ErrorCode::ModelNotFound => {
                "`dsk list` shows the models that are here, `dsk pull` fetches others"
            }
            ErrorCode::ManifestNotFound => {
                "check the spelling; a name is [HOST/][NAMESPACE/]MODEL[:TAG]"
            }
            ErrorCode::InvalidName => "a name is [HOST/][NAMESPACE/]MODEL[:TAG]",
            ErrorCode::NoSpace => {
                "free some space (`dsk rm MODEL`, `dsk gc`); a pull goes on where it stopped"
            }
            ErrorCode::RegistryInsecure => "add --insecure if you trust the network to it",
            ErrorCode::RegistryPrivate => {
                "--insecure does not help; the daemon reads ~/.config/dsk/config.toml and \
                 /etc/dsk/config.toml"
            }
            ErrorCode::RegistryUnreachable => {
                "check the network; DSK_REGISTRY names another registry"
            }
            ErrorCode::IntegrityFailed => "try again; if it stays so the registry's copy is broken",
            ErrorCode::UntrustedModel => {
                "`dsk config` shows signatures and trusted_keys, and where they are set"
            }
            ErrorCode::OutOfMemory => "`dsk ps` shows what is loaded, `dsk stop MODEL` makes room",
            ErrorCode::DoesNotFit => {
                "`dsk fit MODEL` shows every variant; an exact tag is pulled whatever it takes"
            }
            ErrorCode::Overloaded => "try again later, or raise DSK_MAX_QUEUE",
            ErrorCode::RunnerDied | ErrorCode::Internal | ErrorCode::LoadFailed => {
                "the daemon's log has the cause"
            }
            _ => return None,
        },
    };
    Some(hint.to_owned())
}

fn print(terminal: &mut Terminal, message: &str, hints: &[String]) {
    let error = terminal.paint_err("error:", Style::Red);
    terminal.note(&format!("{error} {message}"));
    for hint in hints {
        let label = terminal.paint_err("hint:", Style::Cyan);
        terminal.note(&format!("{label} {hint}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;
    use expect_test::expect;

    #[test]
    fn a_failure_below_context_keeps_its_code_and_hints() {
        let (mut terminal, capture) = Terminal::captured();
        let error = Err::<(), _>(Failure::new(Exit::NoSpace, "the disk is full").hint("free some"))
            .context("pulling smollm2")
            .unwrap_err();
        assert_eq!(report(&mut terminal, &error), Exit::NoSpace);
        assert_eq!(capture.err(), "error: pulling smollm2: the disk is full\nhint: free some\n");
    }

    #[test]
    fn an_error_of_the_daemon_has_its_code_and_hint() {
        let (mut terminal, capture) = Terminal::captured();
        let error = anyhow::Error::new(ClientError::Api {
            status: 404,
            message: "model 'm' not found".to_owned(),
            code: Some(ErrorCode::ModelNotFound),
        });
        assert_eq!(report(&mut terminal, &error), Exit::NotFound);
        expect![[r#"
            error: model 'm' not found
            hint: `dsk list` shows the models that are here, `dsk pull` fetches others
        "#]]
        .assert_eq(&capture.err());
    }

    #[test]
    fn a_daemon_without_codes_is_judged_by_status() {
        let error = ClientError::Api { status: 503, message: "busy".to_owned(), code: None };
        assert_eq!(classify(&error.into()), (Exit::Unavailable, Vec::new()));
    }

    #[test]
    fn a_taken_port_and_a_locked_store_are_unavailable() {
        let address = "127.0.0.1:11434".parse().unwrap();
        let port: DaemonError = ListenError::InUse { address, ollama: "" }.into();
        let locked: DaemonError = ServiceError::Locked { path: "/m".into(), pid: 7 }.into();
        for error in [port, locked] {
            assert_eq!(classify(&error.into()).0, Exit::Unavailable);
        }
        let full = || StoreError::NoSpace { path: "/m".into() };
        assert_eq!(classify(&full().into()).0, Exit::NoSpace);
        let error = ErrorKind::StorageFull.into();
        let disk = LayoutError::Write { path: "/layout".into(), error };
        for error in [LayoutError::from(full()), disk] {
            assert_eq!(classify(&error.into()).0, Exit::NoSpace);
        }
    }

    #[test]
    fn a_closed_stdout_ends_quietly() {
        let (mut terminal, capture) = Terminal::captured();
        let error = anyhow::Error::new(OutputClosed).context("listing");
        assert_eq!(report(&mut terminal, &error), Exit::Success);
        assert_eq!(capture.err(), "");
    }
}
