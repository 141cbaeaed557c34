//! The plan for each of seven machines and seven sizes, in `table.txt`, which was checked by hand: what fits
//! by the sizes of files and contexts, what is fast enough by the bandwidths.

use std::fmt::Write as _;

use dsk_modelfiles::library;
use expect_test::expect_file;

use super::reasons::gigabytes;
use super::*;
use crate::hardware::fixtures;

fn plan(out: &mut String, machine: &Machine, size: &library::Size) {
    let candidates: Vec<_> =
        size.variants.iter().map(|one| Candidate::from_catalog(size, one)).collect();
    let _ = match fit(&candidates, machine, &Ask::default()) {
        Ok(fit) => row(out, &size.tag, &fit),
        Err(misfit) => writeln!(out, "  {:5} does not fit\n        {misfit}", size.tag),
    };
}

fn row(out: &mut String, tag: &str, fit: &Fit) -> std::fmt::Result {
    let verdict = match fit.verdict {
        Verdict::FullSpeed => "full speed",
        Verdict::Partial => "partial",
        Verdict::RamOnly => "RAM only",
    };
    let kv = if fit.kv == KvFormat::F16 { "f16" } else { "q8_0" };
    let (variant, context, tps) = (&fit.variant, fit.context, fit.speeds.decode_tps);
    writeln!(out, "  {tag:5} {variant:7} {verdict:10} {context:5} {kv:4} {tps:6.1} tokens/s")?;
    for share in &fit.devices {
        let device = match share.device {
            Device::Cpu => "RAM".to_owned(),
            Device::Gpu(index) => format!("GPU {index}"),
        };
        let [weights, kv] = [share.weights, share.kv].map(gigabytes);
        let (layers, total) = (share.layers, gigabytes(share.total()));
        writeln!(
            out,
            "        {device}: {total}: {layers} layers, weights {weights}, keys and values {kv}"
        )?;
    }
    fit.reasons.iter().try_for_each(|reason| writeln!(out, "        {reason}"))
}

#[test]
fn seven_machines_and_seven_sizes() {
    let family = library::find("deepseek-r1").expect("it is in the library");
    let mut table = String::new();
    for (name, machine) in fixtures::machines() {
        let _ = writeln!(table, "{name}");
        family.sizes.iter().for_each(|size| plan(&mut table, &machine, size));
    }
    expect_file!["table.txt"].assert_eq(&table);
}
