//! Names and digests from arbitrary bytes: what parses prints as text that parses to the same value, and
//! makes a path that lies inside the store.

#![no_main]

use dsk_registry::{Digest, Name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = Name::parse(text) {
        assert_eq!(Name::parse(&name.to_string()).as_ref(), Ok(&name));
        assert_eq!(Name::parse(&name.full()).as_ref(), Ok(&name));
        for part in [name.host(), name.namespace(), name.model(), name.tag()] {
            assert!(!part.is_empty() && part.len() <= 255 && !part.starts_with('.'));
            assert!(!part.contains(['/', '\\', '\0']));
        }
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.to_string(), text.replacen("sha256-", "sha256:", 1));
    }
});
