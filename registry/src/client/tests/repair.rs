//! Models that lost a blob, made whole again.

use super::{
    embedded::served,
    script::{Reply, Script},
    *,
};
use crate::fixture::{LICENSE, Scratch, name, put_model, scratch, weights};
use std::{fs, sync::LazyLock};

#[tokio::test]
async fn fault_06_a_repair_fetches_only_what_rotted() {
    let (there, here) = (scratch(), scratch());
    let bytes = weights(1, 1_000_000);
    let original = put_model(&there.store, "m", &bytes);
    let client = client(&served(&there.store).await);
    pull(&client, &here.store, "m").await.unwrap();
    let path = here.store.blob_path(&Digest::of(LICENSE));
    fs::write(&path, "Do what you like").unwrap();
    let found = here.store.verify(None, &|_| {}, &|| false).unwrap();
    assert_eq!(found.damaged(), [name("m")]);
    // The tag means something else by now, which a repair does not care for.
    put_model(&there.store, "other", &bytes);
    put_model(&there.store, "m", b"another version");
    let seen = Seen::default();
    let (options, cancel) = (TransferOptions::default(), CancellationToken::new());
    let note = |progress| seen.note(progress);
    let repaired = client.repair(&here.store, &name("m"), &options, note, &cancel).await.unwrap();
    assert_eq!(repaired.bytes, original.bytes);
    assert_eq!(here.store.verify(None, &|_| {}, &|| false).unwrap().bad, []);
    // Of the weights nothing was fetched: they were here when the repair first looked.
    assert_eq!(seen.first_of(&Digest::of(&bytes)), Some(1_000_000));
    assert!(!seen.0.lock().unwrap().contains(&Progress::Verifying { digest: Digest::of(&bytes) }));
    assert!(seen.0.lock().unwrap().contains(&Progress::Verifying { digest: Digest::of(LICENSE) }));
}

#[tokio::test]
async fn fault_06_a_repair_fetches_only_the_range_that_rotted() {
    const MIB: usize = 1 << 20;
    let (there, here) = (scratch(), scratch());
    let bytes = weights(2, 40 * MIB);
    put_model(&there.store, "m", &bytes);
    let limits = Limits { range_bytes: MIB as u64, ..quick() };
    let client = client_with(&served(&there.store).await, limits);
    pull(&client, &here.store, "m").await.unwrap();
    let digest = Digest::of(&bytes);
    let path = here.store.blob_path(&digest);
    // Two bits of one range, then the last byte: the rest after the last whole range.
    for (flipped, kept) in [(vec![17 * MIB, 31 * MIB], 24 * MIB), (vec![40 * MIB - 1], 32 * MIB)] {
        let mut rotten = bytes.clone();
        flipped.iter().for_each(|at: &usize| rotten[*at] ^= 1);
        fs::write(&path, &rotten).unwrap();
        let found = here.store.verify(None, &|_| {}, &|| false).unwrap();
        assert_eq!(found.damaged(), [name("m")]);
        let seen = Seen::default();
        let (options, cancel) = (TransferOptions::default(), CancellationToken::new());
        let note = |progress| seen.note(progress);
        client.repair(&here.store, &name("m"), &options, note, &cancel).await.unwrap();
        assert_eq!(seen.first_of(&digest), Some(kept as u64));
        assert!(fs::read(&path).unwrap() == bytes);
    }
    // Without marks, as after another program's pull, all of it is fetched.
    let journal = here.store.root().join("dsk-transfers.db");
    rusqlite::Connection::open(journal).unwrap().execute("DELETE FROM marks", []).unwrap();
    let mut rotten = bytes.clone();
    rotten[17 * MIB] ^= 1;
    fs::write(&path, &rotten).unwrap();
    here.store.verify(None, &|_| {}, &|| false).unwrap();
    let seen = Seen::default();
    let (options, cancel) = (TransferOptions::default(), CancellationToken::new());
    let note = |progress| seen.note(progress);
    client.repair(&here.store, &name("m"), &options, note, &cancel).await.unwrap();
    assert_eq!(seen.first_of(&digest), Some(0));
    assert!(fs::read(&path).unwrap() == bytes);
}

static WEIGHTS: LazyLock<Vec<u8>> = LazyLock::new(|| weights(21, 300_000));

/// A store whose model `m` lacks its weights.
fn lacking() -> Scratch {
    let here = scratch();
    put_model(&here.store, "m", &WEIGHTS);
    fs::remove_file(here.store.blob_path(&Digest::of(&WEIGHTS))).unwrap();
    here
}

async fn repair(client: &Client, store: &Store) -> Result<StoredManifest, ClientError> {
    let (options, cancel) = (TransferOptions::default(), CancellationToken::new());
    client.repair(store, &name("m"), &options, |_| {}, &cancel).await
}

#[tokio::test]
async fn fault_35_a_repair_leaves_a_name_alone_that_means_another_model_by_now() {
    let removed: fn(&Store) = |store| assert!(store.remove(&name("m")).is_ok());
    let pulled: fn(&Store) = |store| drop(put_model(store, "m", b"newer"));
    for (meanwhile, left) in [(removed, None), (pulled, Some(Digest::of(b"newer")))] {
        let here = lacking();
        let store = here.store.clone();
        let script = Script::of_model(&WEIGHTS, move |asked| {
            if asked.count == 0 {
                meanwhile(&store);
            }
            Reply::ranged(&WEIGHTS, asked)
        });
        let repaired = repair(&client(&script.await.url), &here.store).await;
        let now = here.store.manifest(&name("m")).unwrap();
        assert_eq!(now.map(|now| now.manifest.layers[0].digest), left);
        assert_eq!(repaired.is_ok(), left.is_some(), "{repaired:?}");
        assert!(left.is_none_or(|newer| here.store.has(&newer)));
        assert!(!here.store.has(&Digest::of(&WEIGHTS)));
    }
}

#[tokio::test]
async fn after_a_repair_that_failed_the_model_can_be_removed_whole() {
    let here = lacking();
    repair(&client("http://127.0.0.1:1"), &here.store).await.unwrap_err();
    assert!(here.store.unfinished().unwrap().is_empty());
    here.store.remove(&name("m")).unwrap();
    assert!(!here.store.has(&Digest::of(LICENSE)));
}
