//! Seven machines as files, as `dsk fit --machine` reads them: what the planner is tested on.

use super::Machine;

/// Name and text of each; the files hold what the readers say on such a machine.
const FILES: [(&str, &str); 7] = [
    ("laptop-8gb", include_str!("fixtures/laptop-8gb.json")),
    ("desktop-16gb-rtx3060", include_str!("fixtures/desktop-16gb-rtx3060.json")),
    ("desktop-64gb-rtx4090", include_str!("fixtures/desktop-64gb-rtx4090.json")),
    ("workstation-64gb-2x-rtx3090", include_str!("fixtures/workstation-64gb-2x-rtx3090.json")),
    ("server-128gb-h200", include_str!("fixtures/server-128gb-h200.json")),
    ("container-4gb-of-128gb", include_str!("fixtures/container-4gb-of-128gb.json")),
    ("jetson-orin-16gb", include_str!("fixtures/jetson-orin-16gb.json")),
];

/// Every machine with its name.
pub(crate) fn machines() -> Vec<(&'static str, Machine)> {
    let parse = |(name, text)| match serde_json::from_str(text) {
        Ok(machine) => (name, machine),
        Err(error) => panic!("{name}: {error}"),
    };
    FILES.into_iter().map(parse).collect()
}

/// What a machine cannot be, whoever describes it: its contradictions in words.
pub(crate) fn contradictions(machine: &Machine) -> Vec<String> {
    let memory = machine.memory;
    let mut found = Vec::new();
    let mut check = |sane: bool, what: String| found.extend((!sane).then_some(what));
    check(machine.cpu.threads >= 1, "no thread".to_owned());
    check(machine.cpu.numa_nodes >= 1, "no memory node".to_owned());
    check(memory.available <= memory.total, format!("more than all is available: {memory:?}"));
    check(memory.limit.is_none_or(|limit| memory.total <= limit), format!("limit: {memory:?}"));
    check(memory.swap_free <= memory.swap_total, format!("swap: {memory:?}"));
    check(memory.huge_pages <= memory.total, format!("huge pages: {memory:?}"));
    for gpu in &machine.gpus {
        check(gpu.memory_free <= gpu.memory_total, format!("more than all is free: {gpu:?}"));
        let used = gpu.memory_total.saturating_sub(gpu.memory_free);
        check(gpu.memory_others <= used, format!("others hold more than is used: {gpu:?}"));
    }
    if let Some(disk) = &machine.disk {
        check(disk.free <= disk.total, format!("more than all is free: {disk:?}"));
    }
    found
}

#[test]
fn each_file_is_a_machine_without_contradictions() {
    for (name, machine) in machines() {
        assert_eq!(contradictions(&machine), Vec::<String>::new(), "{name}");
        assert!(machine.memory.bandwidth.is_some() && machine.disk.is_some(), "{name}");
        let again: Machine =
            serde_json::from_str(&serde_json::to_string(&machine).unwrap()).unwrap();
        assert_eq!(again, machine, "{name}");
    }
}

#[test]
fn a_field_nobody_knows_is_refused() {
    let (_, text) = FILES[0];
    let text = text.replacen("\"threads\"", "\"treads\"", 1);
    let error = serde_json::from_str::<Machine>(&text).unwrap_err().to_string();
    assert!(error.contains("unknown field `treads`"), "{error}");
}
