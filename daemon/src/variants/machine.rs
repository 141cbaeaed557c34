//! A machine that a user describes, checked before anything is planned for it.

use crate::hardware::Machine;

/// The longest description, in bytes.
const BYTES_MAX: usize = 64 << 10;
/// GPUs of one machine.
const GPUS_MAX: usize = 64;
/// Threads of one machine.
const THREADS_MAX: usize = 4096;

/// Why a description is of no machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// It is longer than any machine is worth.
    #[error("the description of the machine is longer than {BYTES_MAX} bytes")]
    TooLarge,
    /// It is not JSON, or a field is missing, unknown or of the wrong type.
    #[error("the machine cannot be read: {0}")]
    Malformed(String),
    /// A field that no machine has.
    #[error("the machine's `{field}` {problem}")]
    Field {
        /// Where it is.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads a machine in JSON, as `dsk fit --machine` takes it.
pub fn machine_from(json: &str) -> Result<Machine, MachineError> {
    if json.len() > BYTES_MAX {
        return Err(MachineError::TooLarge);
    }
    let machine: Machine =
        serde_json::from_str(json).map_err(|error| MachineError::Malformed(error.to_string()))?;
    check(&machine)?;
    Ok(machine)
}

fn check(machine: &Machine) -> Result<(), MachineError> {
    let wrong = |field: &str, problem: String| {
        Err(MachineError::Field { field: field.to_owned(), problem })
    };
    let (threads, memory) = (machine.cpu.threads, &machine.memory);
    if !(1..=THREADS_MAX).contains(&threads) {
        return wrong("cpu.threads", format!("is {threads}, not one of 1 to {THREADS_MAX}"));
    }
    if memory.total == 0 {
        return wrong("memory.total", "is 0".to_owned());
    }
    if memory.available > memory.total {
        let (available, total) = (memory.available, memory.total);
        return wrong("memory.available", format!("is {available}, more than the total {total}"));
    }
    if machine.gpus.len() > GPUS_MAX {
        return wrong("gpus", format!("has {} entries, more than {GPUS_MAX}", machine.gpus.len()));
    }
    for (at, gpu) in machine.gpus.iter().enumerate() {
        let (free, total) = (gpu.memory_free, gpu.memory_total);
        if free > total {
            let field = format!("gpus[{at}].memory_free");
            return wrong(&field, format!("is {free}, more than the total {total}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn refused(json: &str, expected: Expect) {
        expected.assert_eq(&machine_from(json).unwrap_err().to_string());
    }

    #[test]
    fn a_machine_is_its_processor_and_memory_at_least() {
        let json = r#"{"cpu": {"name": "", "threads": 8},
            "memory": {"total": 8000000000, "available": 6000000000}}"#;
        let machine = machine_from(json).unwrap();
        assert_eq!((machine.cpu.threads, machine.gpus.len()), (8, 0));
        let again = serde_json::to_string(&machine).unwrap();
        assert_eq!(machine_from(&again).unwrap(), machine);
    }

    #[test]
    fn what_is_none_is_named_by_its_field() {
        refused(
            "",
            expect!["the machine cannot be read: EOF while parsing a value at line 1 column 0"],
        );
        refused(
            "{}",
            expect!["the machine cannot be read: missing field `cpu` at line 1 column 2"],
        );
        refused(
            r#"{"cpu": {"name": "", "threads": 8, "ghz": 3}}"#,
            expect![
                "the machine cannot be read: unknown field `ghz`, expected one of `name`, `threads`, `cores`, `features`, `numa_nodes` at line 1 column 40"
            ],
        );
        refused(
            r#"{"cpu": {"name": "", "threads": 0}, "memory": {"total": 1, "available": 1}}"#,
            expect!["the machine's `cpu.threads` is 0, not one of 1 to 4096"],
        );
        refused(
            r#"{"cpu": {"name": "", "threads": 1}, "memory": {"total": 1, "available": 2}}"#,
            expect!["the machine's `memory.available` is 2, more than the total 1"],
        );
        refused(
            r#"{"cpu": {"name": "", "threads": 1}, "memory": {"total": 1, "available": 1},
               "gpus": [{"index": 0, "vendor": "nvidia", "name": "x", "memory_total": 1, "memory_free": 2}]}"#,
            expect!["the machine's `gpus[0].memory_free` is 2, more than the total 1"],
        );
        refused(
            &" ".repeat(1 << 20),
            expect!["the description of the machine is longer than 65536 bytes"],
        );
        refused(
            &"[".repeat(60_000),
            expect![
                "the machine cannot be read: invalid type: sequence, expected a string at line 1 column 2"
            ],
        );
    }
}
