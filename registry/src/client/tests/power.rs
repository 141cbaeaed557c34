//! A pull whose disk fails, or whose machine loses power, at every operation that it asks of the disk.

use super::{embedded::served, *};
use crate::{
    fixture::{Scratch, assert_whole, put_model, scratch, weights},
    store::disk::Watch,
};
use std::{io::ErrorKind, path::Path};

const SIZE: usize = 500_000;
const RANGE: u64 = 64 << 10;
const CONNECTIONS: u64 = 2;

fn limits() -> Limits {
    Limits { range_bytes: RANGE, connections: CONNECTIONS as usize, ..quick() }
}

/// A registry with a model of seven and a half ranges.
async fn registry() -> (Scratch, Client, Vec<u8>) {
    let there = scratch();
    let bytes = weights(7, SIZE);
    put_model(&there.store, "m", &bytes);
    let client = client_with(&served(&there.store).await, limits());
    (there, client, bytes)
}

/// What a resume would not fetch again; it must be there.
fn kept(store: &Store, bytes: &[u8]) -> u64 {
    let digest = Digest::of(bytes);
    if store.has(&digest) {
        return SIZE as u64;
    }
    let partial = store.partial(&digest, SIZE as u64, true).unwrap();
    for range in partial.written().iter() {
        let mut there = vec![0; (range.end - range.start) as usize];
        partial.read(range.start, &mut there).unwrap();
        assert!(there == bytes[range.start as usize..range.end as usize], "{range:?} is not there");
    }
    partial.written().bytes()
}

#[tokio::test]
async fn fault_03_power_loss_at_any_operation_costs_at_most_a_range_for_each_connection() {
    let (_there, client, bytes) = registry().await;
    let here = scratch();
    let watch = Watch::start(here.folder.path(), None);
    pull(&client, &here.store, "m").await.unwrap();
    watch.stop();
    let partial = format!("sha256-{}-partial", Digest::of(&bytes).hex());
    assert!(watch.operations() > 30, "{}", watch.operations());
    for count in 0..=watch.operations() {
        for torn in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            watch.after_power_loss(count, torn, folder.path());
            let store = Store::open(folder.path()).unwrap();
            assert_whole(&store);
            let arrived = watch.bytes_written(&partial, count);
            let lost = arrived.saturating_sub(kept(&store, &bytes));
            assert!(lost <= CONNECTIONS * RANGE, "{lost} bytes after operation {count}");
            // Every eighth is carried on to its end.
            if count % 8 == 0 || count == watch.operations() {
                pull(&client, &store, "m").await.unwrap();
                assert_eq!(store.read_blob(&Digest::of(&bytes), SIZE as u64).unwrap(), bytes);
                assert_whole(&store);
            }
        }
    }
}

/// Pulls with the n-th operation failing, for every n, and again without.
async fn each_operation_fails(kind: ErrorKind, is_right: fn(&ClientError) -> bool) {
    let (_there, client, bytes) = registry().await;
    for at in 0.. {
        let here = scratch();
        let watch = Watch::start(here.folder.path(), Some((at, kind)));
        let pulled = pull(&client, &here.store, "m").await;
        watch.stop();
        assert_whole(&here.store);
        let done = watch.operations() <= at;
        match pulled {
            Ok(_) => assert!(here.store.has(&Digest::of(&bytes))),
            Err(error) => assert!(is_right(&error) && !done, "operation {at}: {error:?}"),
        }
        pull(&client, &here.store, "m").await.unwrap();
        assert_whole(&here.store);
        assert!(here.store.has(&Digest::of(&bytes)));
        if done {
            return;
        }
    }
}

#[tokio::test]
async fn fault_04_a_disk_that_is_full_at_any_operation_is_said_and_the_next_pull_completes() {
    each_operation_fails(ErrorKind::StorageFull, |error| {
        matches!(error, ClientError::NoSpace { .. })
    })
    .await;
}

#[tokio::test]
async fn fault_05_an_operation_that_fails_is_an_error_and_the_next_pull_completes() {
    each_operation_fails(ErrorKind::Other, |error| {
        matches!(error, ClientError::Store(crate::StoreError::Io { .. }))
    })
    .await;
}

/// A journal that is gone, or is rubbish: what is there still ends as the right bytes.
#[tokio::test]
async fn a_lost_journal_costs_bytes_and_nothing_else() {
    let (_there, client, bytes) = registry().await;
    let digest = Digest::of(&bytes);
    type Damage = fn(&Path);
    let damages: [Damage; 2] = [
        |journal| std::fs::remove_file(journal).unwrap(),
        |journal| std::fs::write(journal, [b'x'; 9000]).unwrap(),
    ];
    for damage in damages {
        let here = scratch();
        let partial = here.store.partial(&digest, SIZE as u64, true).unwrap();
        partial.write(0, &bytes[..100_000]).unwrap();
        partial.write(300_000, &bytes[300_000..]).unwrap();
        partial.sync().unwrap();
        drop(partial);
        let Scratch { store, folder } = here;
        drop(store);
        for file in ["dsk-transfers.db-wal", "dsk-transfers.db-shm"] {
            let _ = std::fs::remove_file(folder.path().join(file));
        }
        damage(&folder.path().join("dsk-transfers.db"));
        let store = Store::open(folder.path()).unwrap();
        pull(&client, &store, "m").await.unwrap();
        assert_eq!(store.read_blob(&digest, SIZE as u64).unwrap(), bytes);
    }
}
