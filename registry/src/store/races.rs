//! Pulls, removals, collections, verifications and loads at once, on real threads.
//!
//! The order is drawn from a seed, so a failure can be run again: `DSK_RACE_SEED`; `DSK_RACE_ROUNDS` for
//! longer runs.

use super::{GcOptions, Store};
use crate::{
    Digest, Name, StoreError,
    fixture::{CONFIG, LICENSE, manifest_of, name, put_model, scratch},
};
use std::{
    fs::{self, File},
    io::Read,
    time::{Duration, SystemTime},
};

const THREADS: u64 = 4;
const STEPS: u64 = 80;
const ROUNDS_DEFAULT: u64 = 2;
const MODELS: u64 = 3;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Weights that two of the models share and one has alone.
fn weights_of(model: u64) -> Vec<u8> {
    format!("weights {}", model % 2).repeat(50).into_bytes()
}

fn model(number: u64) -> Name {
    name(&format!("m{number}"))
}

/// A pull as the client does it: pinned, noted, written, named.
fn pull(store: &Store, number: u64) {
    let weights = weights_of(number);
    let manifest = manifest_of(&weights);
    let bytes = manifest.to_json();
    let _pin = store.pin(manifest.blobs().into_iter().map(|blob| blob.digest));
    store.note_pull(&model(number), &bytes).unwrap();
    for blob in [weights.as_slice(), LICENSE, CONFIG] {
        let digest = Digest::of(blob);
        if store.has(&digest) {
            continue;
        }
        let mut ingest = match store.ingest(&digest) {
            Ok(ingest) => ingest,
            // Another thread is at it; the client waits and looks again, here the pull ends.
            Err(StoreError::Busy { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        if ingest.offset() > 0 {
            ingest.restart().unwrap();
        }
        ingest.write(blob).unwrap();
        ingest.commit().unwrap();
    }
    store.put_manifest(&model(number), &bytes).unwrap();
}

/// A load as the daemon does it: leased, then opened by another process some time later.
fn load(store: &Store, number: u64) {
    let Some((stored, _lease)) = store.lease(&model(number)).unwrap() else { return };
    std::thread::sleep(Duration::from_micros(200));
    for blob in stored.manifest.blobs() {
        let mut bytes = Vec::new();
        let path = store.blob_path(&blob.digest);
        let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        { file }.read_to_end(&mut bytes).unwrap();
        assert_eq!(Digest::of(&bytes), blob.digest);
    }
}

fn collect(store: &Store) {
    // As if everything were old enough, which is the worst case.
    let now = SystemTime::now() + Duration::from_secs(30 * 24 * 3600);
    store.gc(&GcOptions { now, ..GcOptions::default() }).unwrap();
}

fn step(store: &Store, random: &mut Random) {
    let number = random.below(MODELS);
    match random.below(8) {
        0..=1 => pull(store, number),
        2..=3 => load(store, number),
        4 => match store.remove(&model(number)) {
            Ok(_) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => panic!("{error}"),
        },
        5 => collect(store),
        6 => match store.copy(&model(number), &model((number + 2) % MODELS)) {
            Ok(_) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => panic!("{error}"),
        },
        _ => {
            let found = store.verify(None, &|_| {}, &|| false).unwrap();
            // A blob may be missing only because its model was removed since the list was made.
            assert!(found.bad.iter().all(|bad| bad.reason == "it is missing"), "{found:?}");
        }
    }
}

/// Every model that is listed has all its blobs.
fn assert_listed_models_are_whole(store: &Store) {
    for stored in store.list().unwrap() {
        for blob in stored.manifest.blobs() {
            assert_eq!(store.blob_size(&blob.digest).unwrap(), Some(blob.size), "{}", stored.name);
        }
    }
}

#[test]
fn fault_35_pulls_removals_collections_and_loads_race() {
    let first = variable("DSK_RACE_SEED").unwrap_or(1);
    for seed in first..first + variable("DSK_RACE_ROUNDS").unwrap_or(ROUNDS_DEFAULT) {
        println!("seed {seed}");
        let scratch = scratch();
        let store = &scratch.store;
        put_model(store, "kept", b"nobody removes this one");
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let mut random = Random(seed * THREADS + thread);
                scope.spawn(move || (0..STEPS).for_each(|_| step(store, &mut random)));
            }
        });
        assert_listed_models_are_whole(store);
        assert!(store.manifest(&name("kept")).unwrap().is_some(), "seed {seed}");
        assert_eq!(store.verify(None, &|_| {}, &|| false).unwrap().bad, [], "seed {seed}");
        for number in 0..MODELS {
            let _gone = store.remove(&model(number));
        }
        collect(store);
        // Nothing is left but the model that nobody removed, and nothing of it is missing.
        let left = fs::read_dir(store.root().join("blobs")).unwrap().count();
        assert_eq!(left, 3, "seed {seed}");
    }
}
