//! What a runner takes from itself before it reads a byte of a model.
//!
//! Model files, templates and prompts come from strangers. A runner that one of them takes over can
//! read that model, compute, and answer its daemon; nothing else:
//!
//! - [`files`]: Landlock lets it open its model and a few facts about the machine, read-only.
//! - [`calls`]: seccomp names the system calls it may make. No sockets, no programs, no processes,
//!   no signals to others, and no file opened for writing even where Landlock is missing.
//! - [`limits`]: no core dump (it would hold prompts), no file written, few open at once.
//!
//! Each part does what the kernel can, says what it could not, and the daemon passes that on: a
//! machine without Landlock runs models all the same, and `dsk doctor` tells.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};

mod calls;
mod files;
mod limits;
#[cfg(test)]
mod tests;

/// How far one part of the sandbox holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforced {
    /// As intended.
    Full,
    /// In part; the text says what is missing.
    Partial(String),
    /// Not at all; the text says why.
    Not(String),
}

impl Enforced {
    fn missing(&self) -> Option<&str> {
        match self {
            Enforced::Full => None,
            Enforced::Partial(what) | Enforced::Not(what) => Some(what),
        }
    }
}

/// How a runner is confined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Whether it can open its own model only (Landlock).
    pub files: Enforced,
    /// Whether it can make the calls of a runner only (seccomp).
    pub calls: Enforced,
    /// Whether it can neither dump its memory nor write files (resource limits).
    pub limits: Enforced,
}

impl Confinement {
    /// Whether every part holds as intended.
    pub fn is_full(&self) -> bool {
        self.parts().iter().all(|part| **part == Enforced::Full)
    }

    fn parts(&self) -> [&Enforced; 3] {
        [&self.files, &self.calls, &self.limits]
    }
}

impl fmt::Display for Confinement {
    /// "confined", or what is missing: "not confined: …" when a whole part is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing: Vec<_> = self.parts().into_iter().filter_map(Enforced::missing).collect();
        if missing.is_empty() {
            return f.write_str("confined");
        }
        let absent = self.parts().into_iter().any(|part| matches!(part, Enforced::Not(_)));
        f.write_str(if absent { "not confined: " } else { "confined in part: " })?;
        f.write_str(&missing.join("; "))
    }
}

/// Confines this process for good. `readable` are the files of the model. To be called while the
/// process has one thread: those that come later inherit it, those that are there do not.
pub(crate) fn confine(readable: &[&Path]) -> Confinement {
    let limits = limits::apply();
    let files = files::apply(readable);
    // Last: the others need calls that are gone afterwards.
    let calls = calls::apply();
    Confinement { files, calls, limits }
}

/// What this kernel would give a runner, tried on a thread that ends at once. The limits are the
/// process's own and are left alone; they never fail.
pub fn probe() -> Confinement {
    let tried = std::thread::spawn(|| {
        let (files, calls) = (files::apply(&[]), calls::apply());
        Confinement { files, calls, limits: Enforced::Full }
    });
    tried.join().unwrap_or_else(|_| {
        let unknown = || Enforced::Not("it could not be tried".to_owned());
        Confinement { files: unknown(), calls: unknown(), limits: Enforced::Full }
    })
}

/// The version of Landlock that this kernel has, asked on a thread that ends at once.
pub fn landlock_abi() -> Option<i32> {
    std::thread::spawn(files::abi).join().ok().flatten()
}
