//! Against the embedded registry over loopback.

use super::*;
use crate::{
    fixture::{CONFIG, LICENSE, Scratch, manifest_of, name, put_model, scratch, weights},
    server::{ServerOptions, serve},
};
use std::fs;

/// Serves a store on a free port until the test ends; returns the URL.
pub(super) async fn served(store: &Store) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, store.clone(), ServerOptions::default(), std::future::pending()));
    url
}

#[tokio::test]
async fn a_pull_brings_everything_and_a_second_one_nothing() {
    let (there, here) = (scratch(), scratch());
    let bytes = weights(1, 3_000_000);
    let original = put_model(&there.store, "smollm2:135m", &bytes);
    let client = client(&served(&there.store).await);
    for (verified, expected) in [(3, None), (0, Some("Manifest Blob WritingManifest Success"))] {
        let seen = Seen::default();
        let options = TransferOptions::default();
        let (name, cancel) = (name("smollm2:135m"), CancellationToken::new());
        let note = |progress| seen.note(progress);
        let pulled = client.pull(&here.store, &name, &options, note, &cancel).await.unwrap();
        assert_eq!((pulled.digest, &pulled.bytes), (original.digest, &original.bytes));
        // The blobs arrive side by side, in any order.
        let kinds = seen.kinds();
        assert_eq!(kinds.matches("Verifying").count(), verified, "{kinds}");
        assert!(kinds.starts_with("Manifest Blob"), "{kinds}");
        assert!(kinds.ends_with(" WritingManifest Success"), "{kinds}");
        assert!(expected.is_none_or(|expected| kinds == expected), "{kinds}");
    }
    assert_eq!(here.store.read_blob(&Digest::of(&bytes), 3_000_000).unwrap(), bytes);
}

#[tokio::test]
async fn a_partial_file_is_resumed() {
    let (there, here) = (scratch(), scratch());
    let bytes = weights(2, 3_000_000);
    put_model(&there.store, "m", &bytes);
    let digest = Digest::of(&bytes);
    here.store.ingest(&digest).unwrap().write(&bytes[..2_000_000]).unwrap();
    let seen = Seen::default();
    let client = client(&served(&there.store).await);
    let (options, cancel) = (TransferOptions::default(), CancellationToken::new());
    let note = |progress| seen.note(progress);
    client.pull(&here.store, &name("m"), &options, note, &cancel).await.unwrap();
    assert_eq!(seen.first_of(&digest), Some(2_000_000));
    assert_eq!(here.store.read_blob(&digest, 3_000_000).unwrap(), bytes);
}

#[tokio::test]
async fn damaged_leftovers_are_fetched_again() {
    let (there, here) = (scratch(), scratch());
    let bytes = weights(3, 200_000);
    put_model(&there.store, "m", &bytes);
    let client = client(&served(&there.store).await);
    let digest = Digest::of(&bytes);
    // A partial file with wrong bytes; one that is too long; a final file that was cut off.
    here.store.ingest(&digest).unwrap().write(&[0; 1000]).unwrap();
    pull(&client, &here.store, "m").await.unwrap();
    fs::remove_file(here.store.blob_path(&digest)).unwrap();
    here.store.ingest(&digest).unwrap().write(&[0; 300_000]).unwrap();
    pull(&client, &here.store, "m").await.unwrap();
    fs::write(here.store.blob_path(&digest), b"cut off").unwrap();
    pull(&client, &here.store, "m").await.unwrap();
    assert_eq!(here.store.read_blob(&digest, 200_000).unwrap(), bytes);
}

#[tokio::test]
async fn what_only_the_old_version_used_is_removed() {
    let (there, here) = (scratch(), scratch());
    put_model(&there.store, "m", b"version 1");
    let client = client(&served(&there.store).await);
    pull(&client, &here.store, "m").await.unwrap();
    put_model(&there.store, "m", b"version 2");
    let seen = Seen::default();
    let (options, cancel) = (TransferOptions::default(), CancellationToken::new());
    let note = |progress| seen.note(progress);
    client.pull(&here.store, &name("m"), &options, note, &cancel).await.unwrap();
    assert!(seen.kinds().ends_with("WritingManifest RemovingUnused Success"));
    assert!(!here.store.has(&Digest::of(b"version 1")));
    assert!(here.store.has(&Digest::of(LICENSE)));
}

#[tokio::test]
async fn a_cancelled_pull_can_be_resumed() {
    let (there, here) = (scratch(), scratch());
    let bytes = weights(5, 20_000_000);
    put_model(&there.store, "m", &bytes);
    let client = client(&served(&there.store).await);
    let cancel = CancellationToken::new();
    let note = |progress| {
        if matches!(progress, Progress::Blob { completed: 1.., .. }) {
            cancel.cancel();
        }
    };
    let options = TransferOptions::default();
    let stopped = client.pull(&here.store, &name("m"), &options, note, &cancel).await;
    assert!(matches!(stopped, Err(ClientError::Cancelled)));
    assert!(!here.store.has(&Digest::of(&bytes)));
    assert!(here.store.list().unwrap().is_empty());
    pull(&client, &here.store, "m").await.unwrap();
}

#[tokio::test]
async fn a_push_arrives_whole() {
    let (here, there) = (scratch(), scratch());
    let bytes = weights(6, 2_000_000);
    let original = put_model(&here.store, "me/m:1", &bytes);
    let client = client(&served(&there.store).await);
    for (model, sent) in [("me/m:1", true), ("me/m:1", false)] {
        let seen = Seen::default();
        let (options, cancel) = (TransferOptions::default(), CancellationToken::new());
        let note = |progress| seen.note(progress);
        client.push(&here.store, &name(model), &options, note, &cancel).await.unwrap();
        // What is there already is not sent again, the manifest neither.
        let kinds = if sent { "Pushing PushingManifest Success" } else { "Pushing Success" };
        assert_eq!(seen.kinds(), kinds);
        let model = there.store.manifest(&name("me/m:1")).unwrap().unwrap();
        assert_eq!(model.bytes, original.bytes, "first push: {sent}");
    }
    assert_eq!(there.store.read_blob(&Digest::of(&bytes), 2_000_000).unwrap(), bytes);
    assert!(there.store.has(&Digest::of(CONFIG)));
    let (options, cancel) = (TransferOptions::default(), CancellationToken::new());
    let missing = client.push(&here.store, &name("me/none"), &options, |_| {}, &cancel).await;
    assert!(matches!(missing, Err(ClientError::NotFound { .. })));
}

#[tokio::test]
async fn damaged_bytes_cannot_be_pushed() {
    let (here, there) = (scratch(), scratch());
    put_model(&here.store, "m", b"weights");
    fs::write(here.store.blob_path(&Digest::of(b"weights")), "WEIGHTS").unwrap();
    let client = client(&served(&there.store).await);
    let (options, cancel) = (TransferOptions::default(), CancellationToken::new());
    let pushed = client.push(&here.store, &name("m"), &options, |_| {}, &cancel).await;
    assert!(matches!(pushed, Err(ClientError::Protocol { .. })), "{pushed:?}");
    assert!(!there.store.has(&Digest::of(b"weights")));
    assert!(there.store.list().unwrap().is_empty());
}

#[tokio::test]
async fn names_with_a_loopback_host_need_no_configuration() {
    let (there, here) = (scratch(), scratch());
    put_model(&there.store, "library/m", b"weights");
    let url = served(&there.store).await;
    let name = format!("{}/library/m:latest", url.strip_prefix("http://").unwrap());
    let client = Client::with_limits(ClientConfig::default(), quick()).unwrap();
    let pulled = pull(&client, &here.store, &name).await.unwrap();
    assert_eq!(pulled.name.to_string(), name);
}

#[tokio::test]
async fn what_cannot_work_says_why() {
    let (there, here) = (scratch(), scratch());
    let Scratch { store, .. } = &here;
    let reachable = client(&served(&there.store).await);
    let missing = pull(&reachable, store, "none").await;
    assert!(matches!(missing, Err(ClientError::NotFound { name }) if name == "none:latest"));

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = pull(&client(&format!("http://{free}")), store, "m").await;
    assert!(matches!(closed, Err(ClientError::Unreachable { .. })), "{closed:?}");

    let plain = pull(&client("http://192.0.2.1"), store, "m").await;
    assert!(matches!(plain, Err(ClientError::Insecure { host }) if host == "192.0.2.1"));

    let mut huge = manifest_of(b"weights");
    huge.layers[0].size = 1 << 60;
    let file = there.folder.path().join("manifests/registry.ollama.ai/library/huge/latest");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, huge.to_json()).unwrap();
    let full = pull(&reachable, store, "huge").await;
    assert!(matches!(full, Err(ClientError::NoSpace { needed: Some(n), .. }) if n > 1 << 60));
}
