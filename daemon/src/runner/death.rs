//! Why a runner is gone, as a kind for programs and in words for people.

use std::{fmt, process::ExitStatus};

use dsk_daemon_engine::FailureKind;
use serde::Serialize;

use super::frame::FrameError;

/// What ended a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeathKind {
    /// It was told to.
    Stopped,
    /// It ended by itself, with this exit code.
    Exit(i32),
    /// A signal ended it; nobody here sent it.
    Signal(i32),
    /// The kernel killed it for want of memory.
    OutOfMemory,
    /// It stood still and was killed for it.
    Hung,
    /// It sent what is no message and was killed for it.
    Garbage,
    /// It could not be started.
    NotStarted,
    /// Nobody could tell.
    Unknown,
}

/// Why a runner is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    kind: DeathKind,
    cause: String,
}

impl Death {
    /// A death whose cause completes "the runner of X …".
    pub(crate) fn new(kind: DeathKind, cause: impl Into<String>) -> Death {
        Death { kind, cause: cause.into() }
    }

    pub(crate) fn unknown() -> Death {
        Death::new(DeathKind::Unknown, "is gone")
    }

    /// The process was reaped. `memory` is whether its control group counted a kill for want of
    /// memory, where there is one; `words` are the last lines it wrote.
    pub(super) fn of(
        end: &End,
        status: Option<ExitStatus>,
        memory: Option<bool>,
        words: &str,
    ) -> Death {
        match (end, status) {
            (End::Hung(cause), _) => Death::new(DeathKind::Hung, format!("{cause} and was killed")),
            (End::Garbage(error), _) => Death::new(
                DeathKind::Garbage,
                format!("was killed because it sent garbage: {error}"),
            ),
            (End::Stopped, _) => Death::new(DeathKind::Stopped, "was stopped"),
            (End::Closed, None) => Death::unknown(),
            (End::Closed, Some(status)) => Death::by_itself(status, memory, words),
        }
    }

    fn by_itself(status: ExitStatus, memory: Option<bool>, words: &str) -> Death {
        use std::os::unix::process::ExitStatusExt as _;
        let (kind, mut cause) = match (status.signal(), status.code()) {
            (Some(KILL), _) if memory == Some(true) => (
                DeathKind::OutOfMemory,
                "was killed because it took more memory than it may".into(),
            ),
            // Nobody here counts: the kernel and a person look the same.
            (Some(KILL), _) if memory.is_none() => {
                (DeathKind::Signal(KILL), "was killed by signal 9 (out of memory?)".to_owned())
            }
            (Some(signal), _) => {
                let cause = format!("was killed by signal {signal} ({})", signal_words(signal));
                (DeathKind::Signal(signal), cause)
            }
            (None, Some(0)) => (DeathKind::Exit(0), "ended".to_owned()),
            (None, code) => {
                let code = code.unwrap_or(-1);
                (DeathKind::Exit(code), format!("ended with exit code {code}"))
            }
        };
        if !status.success() && !words.is_empty() {
            cause += "; its last words: ";
            cause += words;
        }
        Death { kind, cause }
    }

    /// What ended it.
    pub fn kind(&self) -> DeathKind {
        self.kind
    }

    /// The kind of failure its requests get.
    pub(crate) fn failure(&self) -> FailureKind {
        match self.kind {
            DeathKind::OutOfMemory => FailureKind::OutOfMemory,
            _ => FailureKind::RunnerDied,
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

/// How the daemon's side of a runner's socket ended.
#[derive(Debug)]
pub(super) enum End {
    /// The runner closed it, as it does when it dies.
    Closed,
    /// The runner was told to end.
    Stopped,
    /// What came was no message.
    Garbage(FrameError),
    /// The runner stood still; the text says how.
    Hung(String),
}

impl End {
    /// Whether the process is still there and must not be waited for.
    pub(super) fn must_kill(&self) -> bool {
        matches!(self, End::Garbage(_) | End::Hung(_))
    }
}

const KILL: i32 = 9;

/// What a signal means when it ends a process. Its numbers are the same on all of Linux's common
/// architectures.
fn signal_words(signal: i32) -> &'static str {
    match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trap",
        6 => "abort",
        7 => "bus error: a mapped file was cut short, or memory is broken",
        8 => "arithmetic error",
        9 => "kill",
        11 => "segmentation fault",
        13 => "broken pipe",
        14 => "alarm",
        15 => "termination",
        24 => "limit of processor time",
        25 => "limit of file size",
        31 => "forbidden system call",
        _ => "not a usual end",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use expect_test::expect;

    use super::*;

    #[test]
    fn every_end_is_told_apart() {
        let garbage = || End::Garbage(FrameError::TooLong(1 << 30));
        let hung = || End::Hung("answered nothing for 15 s".to_owned());
        let mut shown = String::new();
        // A wait status is a signal's number, or an exit code shifted by eight.
        for (end, status, memory) in [
            (End::Closed, Some(11), None),
            (End::Closed, Some(9), None),
            (End::Closed, Some(9), Some(false)),
            (End::Closed, Some(9), Some(true)),
            (End::Closed, Some(64), None),
            (End::Closed, Some(101 << 8), None),
            (End::Closed, Some(0), None),
            (End::Closed, None, None),
            (End::Stopped, Some(9), None),
            (garbage(), Some(9), None),
            (hung(), Some(9), Some(false)),
        ] {
            let status = status.map(ExitStatus::from_raw);
            let death = Death::of(&end, status, memory, "oh");
            shown += &format!("{:?}/{:?}: {death}\n", death.kind(), death.failure());
        }
        expect![[r#"
            Signal(11)/RunnerDied: was killed by signal 11 (segmentation fault); its last words: oh
            Signal(9)/RunnerDied: was killed by signal 9 (out of memory?); its last words: oh
            Signal(9)/RunnerDied: was killed by signal 9 (kill); its last words: oh
            OutOfMemory/OutOfMemory: was killed because it took more memory than it may; its last words: oh
            Signal(64)/RunnerDied: was killed by signal 64 (not a usual end); its last words: oh
            Exit(101)/RunnerDied: ended with exit code 101; its last words: oh
            Exit(0)/RunnerDied: ended
            Unknown/RunnerDied: is gone
            Stopped/RunnerDied: was stopped
            Garbage/RunnerDied: was killed because it sent garbage: a frame of 1073741824 bytes is longer than the 67108864 allowed
            Hung/RunnerDied: answered nothing for 15 s and was killed
        "#]].assert_eq(&shown);
    }
}
