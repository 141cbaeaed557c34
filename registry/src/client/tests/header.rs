//! The first bytes of a blob: never more than were asked for, whatever the registry sends.

use super::{
    embedded::served,
    script::{Asked, Reply, Script},
    *,
};
use crate::fixture::{name, put_model, scratch, weights};

const MIB: usize = 1 << 20;

async fn header(url: &str, bytes: &[u8], max: u64, wanted: usize) -> Result<Header, ClientError> {
    let blob = Descriptor {
        media_type: crate::media_type::MODEL.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    };
    let enough = move |read: &[u8]| read.len() >= wanted;
    client(url).header(&name("m"), &TransferOptions::default(), &blob, max, enough).await
}

#[tokio::test]
async fn it_grows_until_it_is_enough() {
    let there = scratch();
    let bytes = weights(7, 5 * MIB + 3);
    put_model(&there.store, "m", &bytes);
    let url = served(&there.store).await;
    for (wanted, max, length, complete) in [
        (10, 8 * MIB, MIB, true),
        (MIB + 1, 8 * MIB, 2 * MIB, true),
        (3 * MIB, 8 * MIB, 4 * MIB, true),
        (5 * MIB, 8 * MIB, 5 * MIB + 3, true),
        (6 * MIB, 8 * MIB, 5 * MIB + 3, false),
        (5 * MIB, 3 * MIB, 3 * MIB, false),
        (10, 100, 100, true),
        (0, 0, 0, true),
    ] {
        let read = header(&url, &bytes, max as u64, wanted).await.unwrap();
        assert_eq!((read.bytes.len(), read.complete), (length, complete), "{wanted} of {max}");
        assert_eq!(read.bytes, bytes[..length]);
    }
}

fn range(asked: &Asked) -> (usize, usize) {
    let range = asked.header("range").expect("a range is asked for");
    let (first, last) = range.trim_start_matches("bytes=").split_once('-').unwrap();
    (first.parse().unwrap(), last.parse().unwrap())
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_as_far_as_wanted() {
    let bytes: &'static [u8] = weights(8, 4 * MIB).leak();
    let promised = 1_u64 << 40;
    let script = Script::of_model(bytes, move |_| {
        // The head promises a terabyte; what comes after the first bytes never comes.
        let headers = format!("Content-Length: {promised}\r\n");
        Reply::raw("200 OK", &headers, bytes).then_stall()
    })
    .await;
    let read = header(&script.url, bytes, 3 * MIB as u64, MIB).await.unwrap();
    assert!(read.complete && read.bytes.len() >= MIB && read.bytes.len() <= 3 * MIB);
    let read = header(&script.url, bytes, 3 * MIB as u64, 4 * MIB).await.unwrap();
    assert_eq!((read.bytes.len(), read.complete), (3 * MIB, false));
}

#[tokio::test]
async fn wrong_parts_are_refused() {
    let bytes: &'static [u8] = weights(9, 2 * MIB).leak();
    let cases = [
        "Content-Range: bytes 5-1048575/2097152\r\n",
        "Content-Range: bytes 0-1048576/2097152\r\n",
        "Content-Range: bytes 0-1048575/99\r\n",
        "Content-Range: bytes=0-\r\n",
        "",
    ];
    for headers in cases {
        let script = Script::of_model(bytes, move |_| {
            Reply::new("206 Partial Content", headers, &bytes[..MIB])
        })
        .await;
        let error = header(&script.url, bytes, 8 * MIB as u64, 10).await.unwrap_err();
        let typed = matches!(error, ClientError::Protocol { .. } | ClientError::Integrity(_));
        assert!(typed, "{headers}: {error}");
    }
}

#[tokio::test]
async fn a_part_with_more_bytes_than_it_says_is_cut() {
    let bytes: &'static [u8] = weights(10, 3 * MIB).leak();
    let script = Script::of_model(bytes, move |asked| {
        let (first, last) = range(asked);
        let headers = format!("Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
        Reply::raw("206 Partial Content", &headers, &bytes[first..])
    })
    .await;
    let read = header(&script.url, bytes, 8 * MIB as u64, 10).await.unwrap();
    assert_eq!(read.bytes, bytes[..MIB]);
    let read = header(&script.url, bytes, 8 * MIB as u64, 2 * MIB).await.unwrap();
    assert_eq!(read.bytes, bytes[..2 * MIB]);
}

#[tokio::test]
async fn a_broken_part_is_continued_and_an_absent_blob_is_an_error() {
    let bytes: &'static [u8] = weights(11, 2 * MIB).leak();
    let script = Script::of_model(bytes, move |asked| {
        let (first, last) = range(asked);
        let headers = format!("Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
        let part = Reply::new("206 Partial Content", &headers, &bytes[first..=last]);
        if first == 0 { part.cut(1000) } else { part }
    })
    .await;
    let read = header(&script.url, bytes, 8 * MIB as u64, 10).await.unwrap();
    assert_eq!(read.bytes, bytes[..MIB]);
    let script = Script::of_model(bytes, |_| Reply::new("404 Not Found", "", b"")).await;
    let error = header(&script.url, bytes, 8 * MIB as u64, 10).await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
}
