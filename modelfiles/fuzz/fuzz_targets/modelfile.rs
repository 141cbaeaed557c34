//! No bytes make the Modelfile parser panic, and what it understood can be written and read back.
#![no_main]

use dsk_modelfiles::{parse, parse_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let parsed = parse_bytes(bytes);
    let again = parse(&parsed.modelfile.to_string());
    assert_eq!(again.modelfile, parsed.modelfile);
    if parsed.diagnostics.is_empty() {
        assert_eq!(again.diagnostics, []);
    }
});
