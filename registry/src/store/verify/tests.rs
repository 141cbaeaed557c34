use super::*;
use crate::{
    StoreError,
    fixture::{LICENSE, Scratch, name, put_model, scratch, weights},
};
use std::sync::atomic::{AtomicBool, Ordering};

/// Flips one bit in the middle of a blob.
fn rot(store: &Store, digest: &Digest) {
    let path = store.blob_path(digest);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn verify(store: &Store, models: Option<&[Name]>) -> Verification {
    store.verify(models, &|_| {}, &|| false).unwrap()
}

#[test]
fn fault_06_bit_rot_is_found_and_put_aside() {
    let Scratch { store, folder } = scratch();
    let bytes = weights(1, 3_000_000);
    let digest = Digest::of(&bytes);
    put_model(&store, "a", &bytes);
    put_model(&store, "b", b"sound");
    store.copy(&name("a"), &name("c")).unwrap();
    assert_eq!(verify(&store, None).bad, []);
    rot(&store, &digest);
    let rotten = fs::read(store.blob_path(&digest)).unwrap();
    let found = verify(&store, None);
    assert_eq!((found.blobs, found.bytes), (4, 3_000_000 + 5 + 16 + 2));
    assert_eq!(found.damaged(), [name("a"), name("c")]);
    let [bad] = found.bad.as_slice() else { panic!("{found:?}") };
    assert!(bad.digest == digest && bad.reason.contains("hash to"), "{bad:?}");
    // What is left of it is kept, out of the way.
    let aside = bad.moved_to.clone().unwrap();
    assert_eq!(aside, folder.path().join(format!("quarantine/sha256-{}", digest.hex())));
    assert_eq!(fs::read(aside).unwrap(), rotten);
    assert!(!store.has(&digest) && store.has(&Digest::of(LICENSE)));
    // Found again while it is missing; then it rots again.
    assert_eq!(verify(&store, None).bad[0].reason, "it is missing");
    store.put_blob(&bytes).unwrap();
    assert_eq!(verify(&store, None).bad, []);
    rot(&store, &digest);
    let again = verify(&store, Some(&[name("c")])).bad.remove(0).moved_to.unwrap();
    assert!(again.to_str().unwrap().ends_with(".1"), "{again:?}");
}

#[test]
fn only_the_models_that_were_named_are_read() {
    let Scratch { store, folder: _folder } = scratch();
    put_model(&store, "a", b"weights of a");
    put_model(&store, "b", b"weights of b");
    rot(&store, &Digest::of(b"weights of b"));
    let found = verify(&store, Some(&[name("a")]));
    assert_eq!((found.blobs, found.bad.len()), (3, 0));
    assert_eq!(verify(&store, Some(&[name("b")])).damaged(), [name("b")]);
}

#[test]
fn what_nothing_names_is_verified_too_and_may_vanish() {
    let Scratch { store, folder: _folder } = scratch();
    let digest = store.put_blob(b"orphan").unwrap();
    rot(&store, &digest);
    let found = verify(&store, None);
    assert!(found.bad.len() == 1 && found.damaged().is_empty(), "{found:?}");
    assert_eq!(verify(&store, None), Verification::default());
}

#[test]
fn progress_counts_up_and_a_stop_ends_it() {
    let Scratch { store, folder: _folder } = scratch();
    put_model(&store, "a", &weights(4, 2_500_000));
    let heard = Mutex::new(Vec::new());
    store.verify(None, &|checking| guard(&heard).push(checking), &|| false).unwrap();
    let mut heard = heard.into_inner().unwrap();
    heard.retain(|checking| checking.bytes == 2_500_000);
    assert!(heard.len() > 2 && heard.is_sorted_by_key(|checking| checking.done));
    assert_eq!(heard.last().unwrap().done, 2_500_000);
    assert_eq!(store.verify(None, &|_| {}, &|| true).unwrap(), Verification::default());
}

#[test]
fn a_stop_in_the_middle_of_a_blob_judges_nothing() {
    let Scratch { store, folder: _folder } = scratch();
    let bytes = weights(4, 5_000_000);
    let digest = store.put_blob(&bytes).unwrap();
    rot(&store, &digest);
    let stopped = AtomicBool::new(false);
    let first = |checking: Checking| {
        assert!(checking.done < 5_000_000, "{checking:?}");
        stopped.store(true, Ordering::Relaxed);
    };
    let found = store.verify(None, &first, &|| stopped.load(Ordering::Relaxed)).unwrap();
    assert!(found.bad.is_empty() && found.blobs == 0 && store.has(&digest), "{found:?}");
}

#[test]
fn a_blob_behind_a_symbolic_link_is_put_aside_by_its_link() {
    let Scratch { store, folder } = scratch();
    let elsewhere = folder.path().join("on another disk");
    let digest = store.put_blob(b"weights").unwrap();
    let path = store.blob_path(&digest);
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert_eq!(verify(&store, None).bad, []);
    fs::write(&elsewhere, "weightz").unwrap();
    let bad = verify(&store, None).bad.remove(0);
    assert!(!bad.stays && bad.moved_to.unwrap().is_symlink() && !store.has(&digest));
    assert_eq!(fs::read(&elsewhere).unwrap(), b"weightz");
}

/// A link to itself, which not even root can open.
#[test]
fn what_cannot_be_read_at_all_stays_and_says_so() {
    let Scratch { store, folder: _folder } = scratch();
    let digest = put_model(&store, "a", b"weights").manifest.layers[0].digest;
    let path = store.blob_path(&digest);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let found = verify(&store, None);
    let [bad] = found.bad.as_slice() else { panic!("{found:?}") };
    assert!(bad.stays && bad.moved_to.is_none() && bad.models == [name("a")], "{bad:?}");
}

#[test]
fn a_blob_that_was_replaced_meanwhile_stays() {
    let Scratch { store, folder: _folder } = scratch();
    let digest = store.put_blob(b"weights").unwrap();
    let path = store.blob_path(&digest);
    let read = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    store.put_blob(b"weights").unwrap();
    // The file that was open keeps its number from being given to the new one.
    assert_eq!(store.quarantine(&digest, &path, &read).unwrap(), None);
    assert!(store.has(&digest));
}

#[test]
fn a_linked_file_that_rots_is_left_where_it_is() {
    let Scratch { store, folder: _folder } = scratch();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("w.gguf");
    fs::write(&file, "weights").unwrap();
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    let (digest, _pin) = store.link_file(&file, &|_| {}).unwrap();
    // In place and with the old time, as a failing disk would.
    fs::write(&file, "weightz").unwrap();
    File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    assert!(store.has(&digest));
    assert_eq!(verify(&store, None).bad.len(), 1);
    assert!(file.exists() && matches!(store.open_blob(&digest), Err(StoreError::NotFound { .. })));
}
