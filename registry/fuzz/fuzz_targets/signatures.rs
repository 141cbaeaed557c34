//! Bundles, statements, payloads and keys from arbitrary bytes: what is read is bounded, and one that is
//! read again says the same.

#![no_main]

use dsk_registry::trust::{Bundle, Claim, PublicKey, SimpleSigning, Statement};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(bundle) = Bundle::parse(bytes) {
        assert!(bundle.payload.len() < bytes.len());
        statement(&bundle.payload);
        assert_eq!(Bundle::parse(bytes), Ok(bundle));
    }
    statement(bytes);
    if let Ok(signed) = SimpleSigning::parse(bytes) {
        // What is not looked at may be no text; the digest may be written with escapes.
        let text = String::from_utf8_lossy(bytes);
        assert!(text.contains('\\') || text.contains(&signed.manifest.hex()));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(keys) = PublicKey::parse_pem(text, "fuzz")
    {
        assert!(keys.iter().all(|key| !key.verifies(bytes, b"no signature")));
    }
});

fn statement(bytes: &[u8]) {
    match Statement::parse(bytes).map(|statement| statement.claim) {
        Ok(Claim::Manifest(digests)) => assert!(!digests.is_empty()),
        // 64 digits for each.
        Ok(Claim::Files(digests)) => assert!(digests.len() * 64 <= bytes.len()),
        Err(reason) => assert!(reason.len() < 1000, "{reason}"),
    }
}
