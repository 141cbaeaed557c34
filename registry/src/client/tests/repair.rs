//! Models that lost a blob, made whole again.

use super::{embedded::served, *};
use crate::fixture::{LICENSE, name, put_model, scratch, weights};
use std::fs;

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
