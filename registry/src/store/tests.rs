use super::*;
use crate::{
    Manifest, ManifestError,
    fixture::{CONFIG, LICENSE, Scratch, manifest_of, name, put_model, scratch, weights},
    media_type,
};
use disk::Watch;
use std::{
    fs,
    io::ErrorKind,
    time::{Duration, SystemTime},
};

/// Every file below the store's root, as sorted relative paths with the digests cut short.
fn tree(scratch: &Scratch) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(scratch.folder.path(), &mut found);
    let relative = |path: &PathBuf| {
        path.strip_prefix(scratch.folder.path()).unwrap().to_str().unwrap().to_owned()
    };
    let mut paths: Vec<String> = found.iter().map(relative).collect();
    paths.sort();
    paths
}

/// The invariant of the store: a final name means the right bytes, a listed model has its blobs.
fn assert_whole(store: &Store) {
    for entry in fs::read_dir(store.paths().blobs()).unwrap() {
        let path = entry.unwrap().path();
        let file_name = path.file_name().unwrap().to_str().unwrap();
        if let paths::BlobFile::Blob(digest) = paths::classify(file_name) {
            assert_eq!(Digest::of(&fs::read(&path).unwrap()), digest);
        }
    }
    for model in store.list().unwrap() {
        for blob in model.manifest.blobs() {
            assert_eq!(store.blob_size(&blob.digest).unwrap(), Some(blob.size));
        }
    }
}

#[test]
fn a_blob_is_written_read_and_measured() {
    let Scratch { store, folder: _folder } = scratch();
    let digest = store.put_blob(b"hello").unwrap();
    assert!(store.has(&digest));
    assert_eq!(store.blob_size(&digest).unwrap(), Some(5));
    assert_eq!(store.read_blob(&digest, 5).unwrap(), b"hello");
    assert!(matches!(store.read_blob(&digest, 4), Err(StoreError::SizeMismatch { got: 5, .. })));
    let other = Digest::of(b"other");
    assert!(!store.has(&other));
    assert!(matches!(store.open_blob(&other), Err(StoreError::NotFound { .. })));
}

#[test]
fn an_ingest_goes_on_where_it_was_dropped() {
    let Scratch { store, folder: _folder } = scratch();
    let bytes = weights(1, 300_000);
    let digest = Digest::of(&bytes);
    let mut ingest = store.ingest(&digest).unwrap();
    ingest.write(&bytes[..100_000]).unwrap();
    drop(ingest);
    assert!(!store.has(&digest));
    assert_eq!(store.partial_size(&digest), 100_000);

    let mut ingest = store.ingest(&digest).unwrap();
    assert_eq!(ingest.offset(), 100_000);
    ingest.write(&bytes[100_000..]).unwrap();
    ingest.commit().unwrap();
    assert_eq!(store.read_blob(&digest, 300_000).unwrap(), bytes);
    assert_eq!(store.partial_size(&digest), 0);
}

#[test]
fn wrong_bytes_are_never_published() {
    let scratch = scratch();
    let expected = Digest::of(b"right");
    let mut ingest = scratch.store.ingest(&expected).unwrap();
    ingest.write(b"wrong").unwrap();
    let error = ingest.commit().unwrap_err();
    let got = Digest::of(b"wrong");
    assert!(
        matches!(error, StoreError::DigestMismatch { expected: e, got: g } if e == expected && g == got)
    );
    assert_eq!(tree(&scratch), Vec::<String>::new());
}

#[test]
fn too_few_bytes_are_a_mismatch_too() {
    let Scratch { store, folder: _folder } = scratch();
    let digest = Digest::of(b"hello");
    let mut ingest = store.ingest(&digest).unwrap();
    ingest.write(b"hell").unwrap();
    assert!(matches!(ingest.commit(), Err(StoreError::DigestMismatch { .. })));
    assert!(!store.has(&digest));
}

#[test]
fn a_digest_has_one_writer() {
    let Scratch { store, folder: _folder } = scratch();
    let digest = Digest::of(b"x");
    let first = store.ingest(&digest).unwrap();
    assert!(
        matches!(store.clone().ingest(&digest), Err(StoreError::Busy { digest: d }) if d == digest)
    );
    first.discard();
    assert!(store.ingest(&digest).is_ok());
}

#[test]
fn a_partial_file_of_ollamas_is_not_resumed() {
    let Scratch { store, folder: _folder } = scratch();
    let digest = Digest::of(b"x");
    fs::write(store.paths().partial(&digest), [0; 100]).unwrap();
    for number in 0..3 {
        fs::write(store.paths().foreign_journal(&digest, number), "{}").unwrap();
    }
    assert_eq!(store.ingest(&digest).unwrap().offset(), 0);
    assert!(!store.paths().foreign_journal(&digest, 2).exists());
}

#[test]
fn a_link_in_place_of_a_partial_file_is_not_followed() {
    let scratch = scratch();
    let victim = scratch.folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let digest = Digest::of(b"x");
    std::os::unix::fs::symlink(&victim, scratch.store.paths().partial(&digest)).unwrap();
    assert!(scratch.store.ingest(&digest).is_err());
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
}

#[test]
fn a_manifest_is_stored_as_it_came() {
    let scratch = scratch();
    let store = &scratch.store;
    let bytes = [b" \n", manifest_of(b"w").to_json().as_slice()].concat();
    for blob in [b"w".as_slice(), LICENSE, CONFIG] {
        store.put_blob(blob).unwrap();
    }
    let stored = store.put_manifest(&name("me/m:q8"), &bytes).unwrap();
    assert_eq!(stored.digest, Digest::of(&bytes));
    let again = store.manifest(&name("me/m:q8")).unwrap().unwrap();
    assert_eq!((again.bytes, again.digest), (bytes, stored.digest));
    assert_eq!(stored.size(), 1 + 16 + 2);
    assert_eq!(stored.layer(media_type::MODEL).unwrap().digest, Digest::of(b"w"));
    assert_eq!(stored.layers(media_type::LICENSE).count(), 1);
    assert!(tree(&scratch).contains(&"manifests/registry.ollama.ai/me/m/q8".to_owned()));
    assert!(store.manifest(&name("me/other")).unwrap().is_none());
}

#[test]
fn a_manifest_needs_its_blobs_at_their_sizes() {
    let Scratch { store, folder: _folder } = scratch();
    let bytes = manifest_of(b"weights").to_json();
    let put = || store.put_manifest(&name("m"), &bytes);
    assert!(matches!(put(), Err(StoreError::NotFound { .. })));
    for blob in [b"weights".as_slice(), LICENSE, CONFIG] {
        store.put_blob(blob).unwrap();
    }
    fs::write(store.blob_path(&Digest::of(b"weights")), "weigh").unwrap();
    assert!(matches!(put(), Err(StoreError::SizeMismatch { expected: 7, got: 5, .. })));
    assert!(store.list().unwrap().is_empty());
    store.put_blob(b"weights").unwrap();
    assert!(put().is_ok());
    assert!(matches!(
        store.put_manifest(&name("m"), b"{"),
        Err(StoreError::Manifest(ManifestError::Malformed(_)))
    ));
}

#[test]
fn the_list_is_sorted_and_skips_what_cannot_be_read() {
    let scratch = scratch();
    for model in ["zeta", "alpha:2", "alpha:1", "hf.co/u/r:Q4"] {
        put_model(&scratch.store, model, b"w");
    }
    let manifests = scratch.folder.path().join("manifests");
    fs::write(manifests.join("registry.ollama.ai/library/zeta/broken"), "{").unwrap();
    fs::write(manifests.join("registry.ollama.ai/library/zeta/.hidden"), "{").unwrap();
    fs::write(manifests.join("stray"), "x").unwrap();
    let names: Vec<String> =
        scratch.store.list().unwrap().iter().map(|model| model.name.to_string()).collect();
    assert_eq!(names, ["hf.co/u/r:Q4", "alpha:1", "alpha:2", "zeta:latest"]);
    let broken = scratch.store.manifest(&name("zeta:broken"));
    assert!(matches!(broken, Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_removal_keeps_what_others_share() {
    let scratch = scratch();
    let store = &scratch.store;
    put_model(store, "a", b"weights of a");
    put_model(store, "b", b"weights of b");
    store.copy(&name("a"), &name("me/copy:1")).unwrap();
    assert_eq!(store.remove(&name("a")).unwrap(), 0);
    assert_eq!(store.remove(&name("me/copy:1")).unwrap(), 12);
    assert!(!store.has(&Digest::of(b"weights of a")));
    assert!(store.has(&Digest::of(LICENSE)));
    assert_eq!(store.remove(&name("b")).unwrap(), 12 + 16 + 2);
    assert_eq!(tree(&scratch), Vec::<String>::new());
    assert_eq!(fs::read_dir(scratch.folder.path().join("manifests")).unwrap().count(), 0);
    assert!(matches!(store.remove(&name("b")), Err(StoreError::NotFound { .. })));
    assert!(matches!(store.copy(&name("b"), &name("c")), Err(StoreError::NotFound { .. })));
}

#[test]
fn nothing_is_deleted_while_a_manifest_cannot_be_read() {
    let scratch = scratch();
    put_model(&scratch.store, "a", b"weights");
    let broken = scratch.folder.path().join("manifests/registry.ollama.ai/library/a/broken");
    fs::write(&broken, "{").unwrap();
    assert_eq!(scratch.store.remove(&name("a")).unwrap(), 0);
    assert!(scratch.store.has(&Digest::of(b"weights")));
    let collected = scratch.store.gc(&GcOptions::default());
    assert!(matches!(collected, Err(StoreError::Corrupt { .. })));
    assert_eq!(scratch.store.remove(&name("a:broken")).unwrap(), 0);
    assert!(!broken.exists());
}

#[test]
fn pinned_blobs_stay() {
    let Scratch { store, folder: _folder } = scratch();
    put_model(&store, "a", b"weights");
    let pin = store.pin([Digest::of(b"weights")]);
    assert_eq!(store.remove(&name("a")).unwrap(), 16 + 2);
    assert!(store.has(&Digest::of(b"weights")));
    drop(pin);
    assert_eq!(store.remove_unused([Digest::of(b"weights")]).unwrap(), 7);
}

#[test]
fn a_collection_takes_old_leftovers_only() {
    let scratch = scratch();
    let store = &scratch.store;
    put_model(store, "kept", b"weights");
    store.put_blob(b"orphan").unwrap();
    store.ingest(&Digest::of(b"never finished")).unwrap().write(b"never").unwrap();
    let ollamas = Digest::of(b"ollama's");
    fs::write(store.paths().foreign_journal(&ollamas, 0), "{}").unwrap();
    fs::write(store.paths().temporary(std::process::id(), 9), "left by a crash").unwrap();
    fs::write(store.paths().blobs().join("notes.txt"), "not ours").unwrap();

    let after = |seconds| {
        let now = SystemTime::now() + Duration::from_secs(seconds);
        GcOptions { now, ..GcOptions::default() }
    };
    let counts = |found: &Collected| {
        use GarbageKind::{Blob, Partial, Temporary};
        let [blobs, partials, rest] = [Blob, Partial, Temporary].map(|kind| found.count(kind));
        (blobs, partials, rest, found.bytes())
    };
    assert_eq!(store.gc(&after(0)).unwrap(), Collected::default());
    let dry = GcOptions { dry_run: true, ..after(2 * 3600) };
    let would = store.gc(&dry).unwrap();
    assert_eq!(counts(&would), (1, 0, 1, 6 + 15));
    assert_eq!(store.gc(&after(2 * 3600)).unwrap(), would);
    assert_eq!(counts(&store.gc(&after(8 * 24 * 3600)).unwrap()), (0, 2, 0, 5 + 2));
    assert!(store.paths().blobs().join("notes.txt").exists());
    assert_eq!(store.list().unwrap().len(), 1);
    assert_whole(store);
}

#[test]
fn a_leased_model_keeps_its_blobs_until_it_is_given_back() {
    let Scratch { store, folder: _folder } = scratch();
    put_model(&store, "a", b"weights");
    let (stored, lease) = store.lease(&name("a")).unwrap().unwrap();
    assert!(store.lease(&name("b")).unwrap().is_none());
    assert_eq!(store.remove(&name("a")).unwrap(), 0);
    let year = SystemTime::now() + Duration::from_secs(365 * 24 * 3600);
    let options = GcOptions { now: year, ..GcOptions::default() };
    assert_eq!(store.gc(&options).unwrap(), Collected::default());
    assert_eq!(store.remove_condemned().unwrap(), (0, 3));
    for blob in stored.manifest.blobs() {
        assert!(store.has(&blob.digest));
    }
    drop(lease);
    assert_eq!(store.remove_condemned().unwrap(), (7 + 16 + 2, 0));
    assert_eq!(store.remove_condemned().unwrap(), (0, 0));
}

#[test]
fn a_pull_that_has_not_ended_is_shown_kept_and_given_up() {
    let scratch = scratch();
    let store = &scratch.store;
    let manifest = manifest_of(b"weights").to_json();
    store.note_pull(&name("m"), &manifest).unwrap();
    store.put_blob(LICENSE).unwrap();
    let mut ingest = store.ingest(&Digest::of(b"weights")).unwrap();
    ingest.write(b"weig").unwrap();
    let one = store.unfinished().unwrap().remove(0);
    assert_eq!((one.name, one.bytes, one.bytes_here, one.running), (name("m"), 25, 20, true));
    assert!(matches!(store.remove_unfinished(&name("m")), Err(StoreError::Busy { .. })));
    drop(ingest);
    assert_eq!(store.partials().unwrap()[0].bytes, 4);

    let after = |days: u64| {
        let now = SystemTime::now() + Duration::from_secs(days * 24 * 3600);
        GcOptions { now, ..GcOptions::default() }
    };
    // The licence is complete, and no model names it: it is kept for the rest.
    assert_eq!(store.gc(&after(6)).unwrap(), Collected::default());
    let expired = store.gc(&GcOptions { dry_run: true, ..after(8) }).unwrap();
    let kinds: Vec<GarbageKind> = expired.items.iter().map(|item| item.kind).collect();
    assert_eq!(kinds.len(), 3, "{expired:?}");
    assert_eq!(store.remove_unfinished(&name("m")).unwrap(), 4 + 16);
    assert!(matches!(store.remove_unfinished(&name("m")), Err(StoreError::NotFound { .. })));
    assert_eq!(tree(&scratch), Vec::<String>::new());
    // One that ends is not unfinished, and one that expired leaves nothing.
    store.note_pull(&name("m"), &manifest).unwrap();
    put_model(store, "m", b"weights");
    assert!(store.unfinished().unwrap().is_empty());
    store.note_pull(&name("n"), &manifest_of(b"other").to_json()).unwrap();
    assert_eq!(store.gc(&after(8)).unwrap().count(GarbageKind::Pull), 1);
    assert!(store.unfinished().unwrap().is_empty());
    assert_whole(store);
}

#[test]
fn a_stamp_tells_a_manifest_that_changed() {
    let Scratch { store, folder } = scratch();
    put_model(&store, "a", b"weights");
    put_model(&store, "b", b"others");
    let stamps = store.stamps().unwrap();
    assert_eq!(stamps.iter().map(|stamp| stamp.name.model()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(store.stamps().unwrap(), stamps);
    store.copy(&name("b"), &name("a")).unwrap();
    let changed = store.stamps().unwrap();
    assert!(changed[0] != stamps[0] && changed[1] == stamps[1]);
    // As another program does: in place.
    let path = folder.path().join("manifests/registry.ollama.ai/library/b/latest");
    fs::write(path, "{}").unwrap();
    assert_ne!(store.stamps().unwrap()[1], stamps[1]);
}

#[test]
fn an_unwritable_place_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for place in [file.join("models"), PathBuf::from("/proc/dsk-models")] {
        let error = Store::open(&place).unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
        let culprit = place.parent().filter(|_| !place.starts_with("/proc")).unwrap_or(&place);
        assert!(error.to_string().contains(culprit.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_store_has_one_owner() {
    let Scratch { store, folder } = scratch();
    let lock = store.lock().unwrap();
    let second = Store::open(folder.path()).unwrap().lock();
    let me = std::process::id();
    assert!(matches!(second, Err(StoreError::Locked { pid, .. }) if pid == me));
    drop(lock);
    assert!(store.lock().is_ok());
}

#[test]
fn an_upload_that_is_not_committed_leaves_nothing() {
    let scratch = scratch();
    let mut upload = scratch.store.upload().unwrap();
    upload.write(b"bytes").unwrap();
    assert_eq!(tree(&scratch).len(), 1);
    drop(upload);
    assert_eq!(tree(&scratch), Vec::<String>::new());
}

#[test]
fn a_temporary_file_is_no_other_ones_and_stays_while_it_is_written() {
    let scratch = scratch();
    let store = &scratch.store;
    // As the last process with this id left it, at every name that comes next.
    for number in 0..10 {
        fs::write(store.paths().temporary(std::process::id(), number), "left by a crash").unwrap();
    }
    let mut upload = store.upload().unwrap();
    assert_eq!(upload.offset(), 0);
    upload.write(b"bytes").unwrap();
    let now = SystemTime::now() + Duration::from_secs(2 * 3600);
    let collected = store.gc(&GcOptions { now, ..GcOptions::default() }).unwrap();
    assert_eq!(collected.count(GarbageKind::Temporary), 10);
    upload.commit(&Digest::of(b"bytes")).unwrap();
    assert_whole(store);
    assert!(store.has(&Digest::of(b"bytes")));
}

#[test]
fn a_disk_that_fails_a_write_keeps_no_temporary_file_of_it() {
    /// Any file that is there.
    const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    type Work = fn(&Store) -> Result<(), StoreError>;
    let works: [Work; 4] = [
        |store| store.put_blob(b"bytes").map(drop),
        |store| store.put_manifest(&name("n"), &manifest_of(b"weights").to_json()).map(drop),
        |store| store.note_pull(&name("n"), &manifest_of(b"weights").to_json()),
        |store| store.link_file(Path::new(MANIFEST), &|_| {}).map(drop),
    ];
    for (number, work) in works.into_iter().enumerate() {
        for at in 0.. {
            let scratch = scratch();
            put_model(&scratch.store, "m", b"weights");
            let watch = Watch::start(scratch.folder.path(), Some((at, ErrorKind::StorageFull)));
            let done = work(&scratch.store);
            watch.stop();
            let left = tree(&scratch).into_iter().filter(|name| name.ends_with(".tmp"));
            assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new(), "{number}: {at}");
            if done.is_ok() {
                break;
            }
        }
    }
}

/// Brings what is missing of a blob, the last range first.
fn ranges_in_any_order(store: &Store, bytes: &[u8]) {
    let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
    let partial = store.partial(&digest, size, true).unwrap();
    for start in [60_000, 30_000, 0] {
        let there = partial.written();
        let gap = there.gap(start);
        let end = gap.end.min(start + 40_000).min(size);
        if gap.start < end {
            partial.write(gap.start, &bytes[gap.start as usize..end as usize]).unwrap();
        }
        partial.sync().unwrap();
    }
    partial.publish(digest).unwrap();
}

/// The work that the crash test interrupts: everything that has a step.
#[cfg_attr(not(feature = "failpoints"), expect(dead_code, reason = "steps need the feature"))]
fn work_through_every_step(store: &Store) {
    let bytes = weights(3, 100_000);
    let mut ingest = store.ingest(&Digest::of(&bytes)).unwrap();
    let rest = bytes[usize::try_from(ingest.offset()).unwrap()..].to_vec();
    for chunk in rest.chunks(30_000) {
        ingest.write(chunk).unwrap();
    }
    ingest.commit().unwrap();
    ranges_in_any_order(store, &weights(4, 100_000));
    put_model(store, "arrived", &bytes);
    put_model(store, "leaving", b"leaving");
    store.remove(&name("leaving")).unwrap();
    store.put_blob(b"orphan").unwrap();
    let now = SystemTime::now() + Duration::from_secs(2 * 3600);
    store.gc(&GcOptions { now, ..GcOptions::default() }).unwrap();
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    let (linked, pin) = store.link_file(elsewhere.path(), &|_| {}).unwrap();
    drop(pin);
    store.remove_unused([linked]).unwrap();
    let rotten = store.put_blob(b"rotten").unwrap();
    fs::write(store.blob_path(&rotten), "rottem").unwrap();
    store.verify(None, &|_| {}, &|| false).unwrap();
}

/// Run by the test below in a process of its own; does nothing otherwise.
#[cfg(feature = "failpoints")]
#[test]
fn crash_child() {
    if let Some(root) = std::env::var_os("DSK_CRASH_ROOT") {
        crate::arm_failpoints();
        work_through_every_step(&Store::open(Path::new(&root)).unwrap());
    }
}

#[cfg(feature = "failpoints")]
#[test]
fn fault_01_killed_at_every_step_the_store_stays_whole() {
    use std::{os::unix::process::ExitStatusExt, process::Command};
    for point in crate::FAILPOINTS {
        for action in ["return", "1*off->return"] {
            let Scratch { store, folder } = scratch();
            put_model(&store, "before", b"committed before");
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::tests::crash_child"])
                .env("FAILPOINTS", format!("{point}={action}"))
                .env("DSK_CRASH_ROOT", folder.path())
                .output()
                .unwrap();
            // The second pass of a step exists for most, and dying there is dying as well.
            let killed = output.status.signal() == Some(9);
            assert!(killed || (action != "return" && output.status.success()), "{point}");
            assert_whole(&store);
            assert!(store.manifest(&name("before")).unwrap().is_some(), "{point}");
            work_through_every_step(&Store::open(folder.path()).unwrap());
            assert_whole(&store);
            let names: Vec<crate::Name> =
                store.list().unwrap().into_iter().map(|m| m.name).collect();
            assert_eq!(names, [name("arrived"), name("before")], "{point}");
        }
    }
}

#[test]
fn a_large_manifest_on_disk_is_refused_not_read() {
    let scratch = scratch();
    put_model(&scratch.store, "m", b"w");
    let path = scratch.folder.path().join("manifests/registry.ollama.ai/library/m/latest");
    fs::File::options().write(true).open(path).unwrap().set_len(1 << 40).unwrap();
    let error = scratch.store.manifest(&name("m")).unwrap_err();
    let reason = ManifestError::TooLarge { max: Manifest::BYTES_MAX }.to_string();
    assert!(error.to_string().ends_with(&reason), "{error}");
}
