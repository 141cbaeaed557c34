//! Manifests and configurations from arbitrary bytes: what is believed is bounded, and written again it
//! reads as the same.

#![no_main]

use dsk_registry::{Manifest, ModelConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::from_json(bytes) {
        check(&manifest);
        assert_eq!(Manifest::from_json(&manifest.to_json()).as_ref(), Ok(&manifest));
    }
    if let Ok(config) = ModelConfig::from_json(bytes) {
        assert_eq!(ModelConfig::from_json(&config.to_json()).as_ref(), Ok(&config));
    }
});

fn check(manifest: &Manifest) {
    assert!(manifest.layers.len() <= Manifest::LAYERS_MAX);
    assert!(i64::try_from(manifest.size()).is_ok());
    let blobs = manifest.blobs();
    assert!(!blobs.is_empty() && blobs.len() <= manifest.layers.len() + 1);
    if let Err(error) = manifest.check_model() {
        // Names of parts are shortened, and only some are named.
        assert!(error.to_string().len() < 10_000);
    }
}
