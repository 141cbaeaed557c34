//! Workflow 2: push.

use super::*;

#[tokio::test]
async fn a_streamed_upload_is_202_then_201() {
    let suite = Suite::start().await;
    let upload = suite.0.open(REPOSITORY).await;
    let patch = seen(suite.0.request("PATCH", &upload).body("streamed")).await;
    assert_eq!((patch.status, patch.header("range")), (202, "0-7"));
    let digest = Digest::of(b"streamed");
    let put = format!("{}?digest={digest}", patch.header("location"));
    let done = seen(suite.0.request("PUT", &put).header("content-length", 0)).await;
    assert_eq!((done.status, done.header("docker-content-digest")), (201, &*digest.to_string()));
    assert_eq!(suite.0.get(done.header("location")).await.body, "streamed");
}

#[tokio::test]
async fn a_monolithic_post_is_201() {
    let suite = Suite::start().await;
    let digest = Digest::of(b"whole");
    let post = suite.request("POST", &format!("blobs/uploads/?digest={digest}"));
    let done = seen(post.header("content-type", "application/octet-stream").body("whole")).await;
    assert_eq!(done.status, 201);
    assert_eq!(suite.0.get(done.header("location")).await.body, "whole");
}

#[tokio::test]
async fn a_blob_is_404_before_its_upload_ends() {
    let suite = Suite::start().await;
    let upload = suite.0.open(REPOSITORY).await;
    seen(suite.0.request("PATCH", &upload).body("part")).await;
    let blob = suite.get(&format!("blobs/{}", Digest::of(b"part"))).await;
    assert_eq!(blob.problem(), "404 BLOB_UNKNOWN");
}

#[tokio::test]
async fn post_then_put_is_201() {
    let suite = Suite::start().await;
    let upload = suite.0.open(REPOSITORY).await;
    let digest = Digest::of(b"whole");
    let put = suite.0.request("PUT", &format!("{upload}?digest={digest}")).body("whole");
    assert_eq!(seen(put).await.status, 201);
    assert_eq!(suite.get(&format!("blobs/{digest}")).await.body, "whole");
}

#[tokio::test]
async fn put_with_a_wrong_or_malformed_digest_is_400() {
    let suite = Suite::start().await;
    let wrong = Digest::of(b"other").to_string();
    for digest in [wrong.as_str(), "sha256:short", "md5:x", ""] {
        let upload = suite.0.open(REPOSITORY).await;
        let put = suite.0.request("PUT", &format!("{upload}?digest={digest}")).body("whole");
        assert_eq!(seen(put).await.problem(), "400 DIGEST_INVALID", "{digest}");
    }
}

#[tokio::test]
async fn an_upload_in_chunks_goes_on_where_it_was() {
    let suite = Suite::start().await;
    let upload = suite.0.open(REPOSITORY).await;
    let patch = |range: &'static str, chunk: &'static str| {
        seen(suite.0.request("PATCH", &upload).header("content-range", range).body(chunk))
    };
    assert_eq!(patch("2-3", "23").await.status, 416, "the first chunk begins at 0");
    assert_eq!(patch("0-3", "0123").await.status, 202);
    assert_eq!(patch("0-3", "0123").await.status, 416, "the same chunk again");
    let status = suite.0.get(&upload).await;
    assert_eq!((status.status, status.header("range")), (204, "0-3"));
    assert!(status.header("location").contains("/blobs/uploads/"));
    assert_eq!(patch("4-6", "456").await.header("range"), "0-6");
    let digest = Digest::of(b"0123456789");
    let put = suite.0.request("PUT", &format!("{upload}?digest={digest}"));
    assert_eq!(seen(put.header("content-range", "7-9").body("789")).await.status, 201);
    assert_eq!(suite.get(&format!("blobs/{digest}")).await.body, "0123456789");
}

#[tokio::test]
async fn a_chunk_that_is_not_as_long_as_it_says_is_refused() {
    let suite = Suite::start().await;
    let upload = suite.0.open(REPOSITORY).await;
    let patch = suite.0.request("PATCH", &upload).header("content-range", "0-9").body("0123");
    assert_eq!(seen(patch).await.problem(), "400 SIZE_INVALID");
    assert_eq!(suite.0.get(&upload).await.header("range"), "0-0");
}

#[tokio::test]
async fn a_last_chunk_out_of_order_is_416_and_the_upload_goes_on() {
    let suite = Suite::start().await;
    let upload = suite.0.open(REPOSITORY).await;
    seen(suite.0.request("PATCH", &upload).body("0123")).await;
    let put = |range: &'static str| {
        let url = format!("{upload}?digest={}", Digest::of(b"012345"));
        seen(suite.0.request("PUT", &url).header("content-range", range).body("45"))
    };
    assert_eq!(put("5-6").await.status, 416);
    assert_eq!(put("4-5").await.status, 201);
}

#[tokio::test]
async fn a_deleted_upload_is_gone() {
    let suite = Suite::start().await;
    let upload = suite.0.open(REPOSITORY).await;
    assert_eq!(seen(suite.0.request("DELETE", &upload)).await.status, 204);
    for method in ["GET", "PATCH", "DELETE"] {
        let gone = seen(suite.0.request(method, &upload)).await;
        assert_eq!(gone.problem(), "404 BLOB_UPLOAD_UNKNOWN", "{method}");
    }
}

#[tokio::test]
async fn mounting_an_existing_blob_is_201_with_and_without_its_repository() {
    let suite = Suite::start().await;
    let digest = suite.push_blob(b"shared").await;
    for query in [format!("mount={digest}&from={REPOSITORY}"), format!("mount={digest}")] {
        let path = format!("other/place/blobs/uploads/?{query}");
        let mounted = seen(suite.0.request("POST", &path)).await;
        assert_eq!(mounted.status, 201, "{query}");
        assert_eq!(mounted.header("location"), format!("/v2/other/place/blobs/{digest}"));
        assert_eq!(suite.0.get(mounted.header("location")).await.body, "shared");
    }
}

#[tokio::test]
async fn mounting_an_unknown_blob_opens_an_upload() {
    let suite = Suite::start().await;
    let digest = Digest::of(b"unknown");
    let mount = format!("blobs/uploads/?mount={digest}&from=other/place");
    let opened = seen(suite.request("POST", &mount)).await;
    assert_eq!(opened.status, 202);
    let put = format!("{}?digest={digest}", opened.header("location"));
    assert_eq!(seen(suite.0.request("PUT", &put).body("unknown")).await.status, 201);
}

#[tokio::test]
async fn a_manifest_is_201_by_tag_and_by_digest() {
    let suite = Suite::start().await;
    suite.push_blob(EMPTY).await;
    suite.push_blob(b"layer").await;
    let manifest = image(&[b"layer"], json!({}));
    let digest = digest_of(&manifest).to_string();
    for reference in ["v1", "v2.0_x-y", &digest] {
        let stored = suite.put(reference, &manifest).await;
        assert_eq!(stored.status, 201, "{reference}");
        assert_eq!(stored.header("docker-content-digest"), digest);
        let pulled = suite.0.get(stored.header("location")).await;
        assert_eq!(pulled.body, manifest.to_string());
    }
}

#[tokio::test]
async fn a_manifest_without_layers_is_201() {
    let suite = Suite::start().await;
    suite.push_blob(EMPTY).await;
    assert_eq!(suite.put("none", &image(&[], json!({}))).await.status, 201);
}

#[tokio::test]
async fn dockers_types_are_kept_as_they_are() {
    let suite = Suite::start().await;
    suite.push_blob(EMPTY).await;
    suite.push_blob(b"layer").await;
    let manifest = image(&[b"layer"], json!({ "mediaType": media_type::MANIFEST }));
    assert_eq!(suite.put("docker", &manifest).await.status, 201);
    let pulled = suite.get("manifests/docker").await;
    assert_eq!(pulled.header("content-type"), media_type::MANIFEST);
    let list = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST_LIST,
        "manifests": [descriptor(media_type::MANIFEST, &digest_of(&manifest), 7)],
    });
    assert_eq!(suite.put("list", &list).await.status, 201);
    let pulled = suite.get("manifests/list").await;
    assert_eq!(pulled.header("content-type"), media_type::MANIFEST_LIST);
}

#[tokio::test]
async fn an_index_is_a_manifest_by_tag_and_by_digest() {
    let suite = Suite::start().await;
    let (amd, _) = suite.push_image("", b"amd64").await;
    let (arm, _) = suite.push_image("", b"arm64").await;
    let entries = [amd, arm].map(|digest| descriptor(media_type::OCI_MANIFEST, &digest, 7));
    let index = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries,
    });
    let digest = digest_of(&index).to_string();
    for reference in ["multi", &digest] {
        assert_eq!(suite.put(reference, &index).await.status, 201, "{reference}");
        let pulled = suite.get(&format!("manifests/{reference}")).await;
        assert_eq!(pulled.body, index.to_string());
        assert_eq!(pulled.header("content-type"), media_type::OCI_INDEX);
    }
    for child in [amd, arm] {
        assert_eq!(suite.get(&format!("manifests/{child}")).await.status, 200);
    }
}

#[tokio::test]
async fn a_tag_moves_between_an_image_and_an_index() {
    let suite = Suite::start().await;
    let (first, _) = suite.push_image("tag", b"layer").await;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": [descriptor(media_type::OCI_MANIFEST, &first, 7)],
    });
    assert_eq!(suite.put("tag", &index).await.status, 201);
    assert_eq!(suite.get("manifests/tag").await.body, index.to_string());
    assert_eq!(suite.get(&format!("manifests/{first}")).await.status, 200, "the old one stays");
    let (_, bytes) = suite.push_image("tag", b"other layer").await;
    assert_eq!(suite.get("manifests/tag").await.body, bytes);
    let old = format!("manifests/{}", digest_of(&index));
    assert_eq!(suite.get(&old).await.body, index.to_string());
}

#[tokio::test]
async fn a_manifest_of_unknown_blobs_or_manifests_is_refused() {
    let suite = Suite::start().await;
    suite.push_blob(EMPTY).await;
    let absent = suite.put("v1", &image(&[b"absent"], json!({}))).await;
    assert_eq!(absent.problem(), "404 MANIFEST_BLOB_UNKNOWN");
    let digest = Digest::of(b"absent");
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": [descriptor(media_type::OCI_MANIFEST, &digest, 7)],
    });
    assert_eq!(suite.put("v1", &index).await.problem(), "404 MANIFEST_BLOB_UNKNOWN");
    assert_eq!(suite.get("manifests/v1").await.status, 404);
}

#[tokio::test]
async fn a_manifest_that_is_none_is_refused() {
    let suite = Suite::start().await;
    suite.push_blob(EMPTY).await;
    let digest = Digest::of(b"other").to_string();
    let fits = image(&[], json!({}));
    let cases = [
        ("v1", json!({}), "400 MANIFEST_INVALID"),
        ("v1", image(&[], json!({ "manifests": [] })), "400 MANIFEST_INVALID"),
        ("v1", image(&[], json!({ "mediaType": "text/plain" })), "400 MANIFEST_INVALID"),
        (&digest, fits.clone(), "400 DIGEST_INVALID"),
        ("sha256:short", fits.clone(), "400 DIGEST_INVALID"),
        (".hidden", fits, "400 TAG_INVALID"),
    ];
    for (reference, manifest, expected) in cases {
        let refused = suite.put(reference, &manifest).await;
        assert_eq!(refused.problem(), expected, "{reference} {manifest}");
    }
    let announced =
        suite.request("PUT", "manifests/v1").header("content-type", media_type::OCI_INDEX);
    let refused = seen(announced.body(image(&[], json!({})).to_string())).await;
    assert_eq!(refused.problem(), "400 MANIFEST_INVALID");
}

#[tokio::test]
async fn a_manifest_with_a_subject_says_so_even_if_that_is_unknown() {
    let suite = Suite::start().await;
    let subject = Digest::of(b"not here yet");
    let (_, answer) = suite.push_referrer(&subject, "application/x").await;
    assert_eq!((answer.status, answer.header("oci-subject")), (201, &*subject.to_string()));
    let plain = suite.put("v1", &image(&[], json!({}))).await;
    assert_eq!(plain.header("oci-subject"), "");
}
