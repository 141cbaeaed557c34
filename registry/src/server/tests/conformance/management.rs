//! Workflow 4: content management.

use super::*;

#[tokio::test]
async fn a_deleted_tag_is_gone_and_its_manifest_stays() {
    let suite = Suite::start().await;
    let (digest, bytes) = suite.push_image("v1", b"layer").await;
    suite.push_image("v2", b"layer").await;
    assert_eq!(suite.delete("manifests/v1").await.status, 202);
    assert_eq!(suite.get("manifests/v1").await.problem(), "404 MANIFEST_UNKNOWN");
    assert_eq!(suite.get("manifests/v2").await.status, 200);
    assert_eq!(suite.delete("manifests/v2").await.status, 202);
    assert_eq!(suite.get(&format!("manifests/{digest}")).await.body, bytes);
    assert_eq!(
        suite.get("tags/list").await.body,
        format!(r#"{{"name":"{REPOSITORY}","tags":[]}}"#)
    );
}

#[tokio::test]
async fn a_manifest_deleted_by_its_digest_is_gone_under_every_tag() {
    let suite = Suite::start().await;
    let (digest, _) = suite.push_image("v1", b"layer").await;
    suite.push_image("v2", b"layer").await;
    suite.push_image("other", b"other").await;
    assert_eq!(suite.delete(&format!("manifests/{digest}")).await.status, 202);
    for reference in ["v1".to_owned(), "v2".to_owned(), digest.to_string()] {
        let gone = suite.get(&format!("manifests/{reference}")).await;
        assert_eq!(gone.problem(), "404 MANIFEST_UNKNOWN", "{reference}");
    }
    let tags = suite.get("tags/list").await;
    assert_eq!(tags.body, format!(r#"{{"name":"{REPOSITORY}","tags":["other"]}}"#));
    let again = suite.delete(&format!("manifests/{digest}")).await;
    assert_eq!(again.problem(), "404 MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_deleted_index_leaves_what_it_named() {
    let suite = Suite::start().await;
    let (child, _) = suite.push_image("", b"layer").await;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": [descriptor(media_type::OCI_MANIFEST, &child, 7)],
    });
    suite.put("multi", &index).await;
    let digest = digest_of(&index);
    assert_eq!(suite.delete(&format!("manifests/{digest}")).await.status, 202);
    assert_eq!(suite.get("manifests/multi").await.status, 404);
    assert_eq!(suite.get(&format!("manifests/{child}")).await.status, 200);
}

#[tokio::test]
async fn a_deleted_referrer_is_no_longer_listed() {
    let suite = Suite::start().await;
    let subject = Digest::of(b"subject");
    let (digest, _) = suite.push_referrer(&subject, "application/a").await;
    assert_eq!(suite.delete(&format!("manifests/{digest}")).await.status, 202);
    let index = suite.get(&format!("referrers/{subject}")).await;
    let index: Value = serde_json::from_str(&index.body).unwrap();
    assert_eq!(index["manifests"], json!([]));
}

#[tokio::test]
async fn deleting_what_is_not_there_is_404() {
    let suite = Suite::start().await;
    let digest = Digest::of(b"absent");
    for (resource, code) in [
        ("manifests/absent".to_owned(), "404 MANIFEST_UNKNOWN"),
        (format!("manifests/{digest}"), "404 MANIFEST_UNKNOWN"),
        (format!("blobs/{digest}"), "404 BLOB_UNKNOWN"),
    ] {
        assert_eq!(suite.delete(&resource).await.problem(), code, "{resource}");
    }
}

#[tokio::test]
async fn a_deleted_blob_is_gone() {
    let suite = Suite::start().await;
    let digest = suite.push_blob(b"blob").await;
    let path = format!("blobs/{digest}");
    assert_eq!(suite.delete(&path).await.status, 202);
    assert_eq!(suite.get(&path).await.problem(), "404 BLOB_UNKNOWN");
    assert_eq!(suite.delete(&path).await.problem(), "404 BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_blob_that_a_manifest_names_is_kept() {
    let suite = Suite::start().await;
    let (digest, _) = suite.push_image("v1", b"layer").await;
    let path = format!("blobs/{}", Digest::of(b"layer"));
    assert_eq!(suite.delete(&path).await.problem(), "409 DENIED");
    assert_eq!(suite.get(&path).await.status, 200);
    // It goes with the last manifest that names it.
    suite.delete(&format!("manifests/{digest}")).await;
    assert_eq!(suite.get(&path).await.problem(), "404 BLOB_UNKNOWN");
}

#[tokio::test]
async fn blobs_of_a_push_under_way_survive_the_deletion_of_another_manifest() {
    let suite = Suite::start().await;
    let (digest, _) = suite.push_image("v1", b"layer").await;
    // Asking for its deletion ends the first push's hold on the layer. A second client then finds the
    // layer there, and has yet to send its manifest.
    let layer = format!("blobs/{}", Digest::of(b"layer"));
    assert_eq!(suite.delete(&layer).await.status, 409);
    assert_eq!(suite.head(&layer).await.status, 200);
    assert_eq!(suite.delete(&format!("manifests/{digest}")).await.status, 202);
    let manifest = image(&[b"layer"], json!({ "annotations": {"second": "client"} }));
    assert_eq!(suite.put("v2", &manifest).await.status, 201);
}

#[tokio::test]
async fn deletions_can_be_switched_off() {
    let options = ServerOptions { deletes: false, ..ServerOptions::default() };
    let suite = Suite(Registry::start(options).await);
    let (digest, _) = suite.push_image("v1", b"layer").await;
    let layer = Digest::of(b"layer");
    for resource in
        ["manifests/v1".to_owned(), format!("manifests/{digest}"), format!("blobs/{layer}")]
    {
        assert_eq!(suite.delete(&resource).await.problem(), "405 UNSUPPORTED", "{resource}");
        assert_eq!(suite.get(&resource).await.status, 200);
    }
    // An upload of one's own may still be given up.
    let upload = suite.0.open(REPOSITORY).await;
    assert_eq!(seen(suite.0.request("DELETE", &upload)).await.status, 204);
}
