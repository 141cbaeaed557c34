//! The budget of bytes a rendering may make, and the errors that end it early.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use crate::template::limits::{DEPTH_MAX, OUTPUT_BYTES_MAX};

/// What one element of a list or map is taken to cost.
const ELEMENT_BYTES: usize = 64;
/// Nesting of values: our own calls plus what a tool's JSON schema may bring.
const VALUE_DEPTH_MAX: usize = DEPTH_MAX + 128;
/// Namespaces in one rendering. Each may hold the one before, and a long chain of them would
/// overflow the stack when it is dropped.
const NAMESPACES_MAX: usize = 1000;

/// A limit that was reached, inside minijinja's error.
#[derive(Debug)]
pub(super) struct LimitHit(String);

impl fmt::Display for LimitHit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LimitHit {}

/// The template's own refusal, inside minijinja's error.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

pub(super) fn limit_hit(limit: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, "limit reached").with_source(LimitHit(limit))
}

/// Counts down the bytes left; clones share the count.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    budget: usize,
    left: AtomicUsize,
    output_left: AtomicUsize,
    namespaces_left: AtomicUsize,
}

/// Takes from a count; `None` when it does not reach.
fn take(count: &AtomicUsize, amount: usize) -> Option<()> {
    let left = count.load(Ordering::Relaxed).checked_sub(amount)?;
    count.store(left, Ordering::Relaxed);
    Some(())
}

impl Meter {
    pub(super) fn new(budget: usize) -> Meter {
        let state = State {
            budget,
            left: AtomicUsize::new(budget),
            output_left: AtomicUsize::new(OUTPUT_BYTES_MAX),
            namespaces_left: AtomicUsize::new(NAMESPACES_MAX),
        };
        Meter { state: Arc::new(state) }
    }

    /// Pays for making or reading this many bytes.
    pub(super) fn charge(&self, bytes: usize) -> Result<(), Error> {
        let budget = self.state.budget;
        take(&self.state.left, bytes).ok_or_else(|| limit_hit(format!("{budget} bytes of work")))
    }

    /// Pays for bytes that are written, to the prompt or to a captured block.
    pub(super) fn charge_output(&self, bytes: usize) -> Result<(), Error> {
        take(&self.state.output_left, bytes)
            .ok_or_else(|| limit_hit(format!("{OUTPUT_BYTES_MAX} bytes of output")))
    }

    pub(super) fn charge_namespace(&self) -> Result<(), Error> {
        take(&self.state.namespaces_left, 1)
            .ok_or_else(|| limit_hit(format!("{NAMESPACES_MAX} namespaces")))
    }

    /// Pays for the value itself, not for what its elements hold.
    pub(super) fn charge_shallow(&self, value: &Value) -> Result<(), Error> {
        self.charge(shallow_bytes(value))
    }

    /// Pays for so many copies of the value, end to end.
    pub(super) fn charge_times(&self, value: &Value, times: usize) -> Result<(), Error> {
        self.charge(shallow_bytes(value).saturating_mul(times))
    }

    /// Pays for a value and all within it. Shared parts count each time they are reached, as they
    /// do for whoever prints or compares the value.
    pub(super) fn charge_deep(&self, value: &Value) -> Result<(), Error> {
        self.walk(value, 0)
    }

    fn walk(&self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > VALUE_DEPTH_MAX {
            return Err(limit_hit(format!("{VALUE_DEPTH_MAX} levels of nested values")));
        }
        self.charge(ELEMENT_BYTES)?;
        match value.kind() {
            ValueKind::String => self.charge(shallow_bytes(value)),
            ValueKind::Seq | ValueKind::Iterable => {
                value.try_iter()?.try_for_each(|item| self.walk(&item, depth + 1))
            }
            ValueKind::Map => value.try_iter()?.try_for_each(|key| {
                self.walk(&key, depth + 1)?;
                self.walk(&value.get_item(&key)?, depth + 1)
            }),
            _ => Ok(()),
        }
    }
}

fn shallow_bytes(value: &Value) -> usize {
    match value.as_str() {
        Some(text) => text.len(),
        None => value.len().unwrap_or(1).saturating_mul(ELEMENT_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends() {
        let meter = Meter::new(100);
        assert!(meter.charge(60).is_ok());
        assert!(meter.clone().charge(40).is_ok());
        assert!(meter.charge(1).is_err());
    }

    #[test]
    fn a_tree_of_shared_parts_is_counted_as_the_tree_it_prints_as() {
        let mut tree = Value::from("leaf");
        for _ in 0..40 {
            tree = Value::from(vec![tree.clone(), tree]);
        }
        assert!(Meter::new(1 << 20).charge_deep(&tree).is_err());
    }
}
