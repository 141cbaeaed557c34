//! Workflow 1: pull.

use super::*;

#[tokio::test]
async fn the_base_answers_200_to_get_and_head() {
    let suite = Suite::start().await;
    for method in ["GET", "HEAD"] {
        for path in ["/v2/", "/v2"] {
            assert_eq!(seen(suite.0.request(method, path)).await.status, 200, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn head_of_a_nonexistent_blob_is_404() {
    let suite = Suite::start().await;
    let absent = Digest::of(b"hello world");
    assert_eq!(suite.head(&format!("blobs/{absent}")).await.status, 404);
}

#[tokio::test]
async fn head_of_an_existing_blob_is_200_with_its_digest_and_length() {
    let suite = Suite::start().await;
    let digest = suite.push_blob(b"0123456789").await;
    let head = suite.head(&format!("blobs/{digest}")).await;
    assert_eq!((head.status, head.header("content-length")), (200, "10"));
    assert_eq!(head.header("docker-content-digest"), digest.to_string());
}

#[tokio::test]
async fn get_of_a_nonexistent_blob_is_404() {
    let suite = Suite::start().await;
    let absent = suite.get(&format!("blobs/{}", Digest::of(b"hello world"))).await;
    assert_eq!(absent.problem(), "404 BLOB_UNKNOWN");
}

#[tokio::test]
async fn get_of_an_existing_blob_gives_its_bytes() {
    let suite = Suite::start().await;
    let digest = suite.push_blob(b"0123456789").await;
    let blob = suite.get(&format!("blobs/{digest}")).await;
    assert_eq!((blob.status, blob.body.as_str()), (200, "0123456789"));
}

#[tokio::test]
async fn a_range_of_a_blob_is_206_and_one_past_its_end_416() {
    let suite = Suite::start().await;
    let digest = suite.push_blob(b"0123456789").await;
    let part =
        |range| seen(suite.request("GET", &format!("blobs/{digest}")).header("range", range));
    let middle = part("bytes=2-4").await;
    assert_eq!((middle.status, middle.body.as_str()), (206, "234"));
    assert_eq!(middle.header("content-range"), "bytes 2-4/10");
    let outside = part("bytes=10-20").await;
    assert_eq!((outside.status, outside.header("content-range")), (416, "bytes */10"));
}

#[tokio::test]
async fn a_blob_that_the_client_has_is_304() {
    let suite = Suite::start().await;
    let digest = suite.push_blob(b"blob").await;
    let path = format!("blobs/{digest}");
    let etag = suite.get(&path).await.header("etag").to_owned();
    let with = |value: String| suite.request("GET", &path).header("if-none-match", value);
    for listed in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_owned()] {
        let answer = seen(with(listed)).await;
        assert_eq!((answer.status, answer.body.as_str()), (304, ""));
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    }
    assert_eq!(seen(with("\"other\"".to_owned())).await.status, 200);
}

#[tokio::test]
async fn head_of_a_nonexistent_manifest_is_404() {
    let suite = Suite::start().await;
    for reference in [".INVALID_MANIFEST_NAME", "absent", &Digest::of(b"x").to_string()] {
        assert_eq!(suite.head(&format!("manifests/{reference}")).await.status, 404, "{reference}");
    }
}

#[tokio::test]
async fn head_of_a_manifest_by_tag_and_digest_is_200() {
    let suite = Suite::start().await;
    let (digest, bytes) = suite.push_image("v1", b"layer").await;
    for reference in ["v1".to_owned(), digest.to_string()] {
        let head = suite.head(&format!("manifests/{reference}")).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert_eq!(head.header("docker-content-digest"), digest.to_string());
        assert_eq!(head.header("content-type"), media_type::OCI_MANIFEST);
        assert_eq!(head.header("content-length"), bytes.len().to_string());
    }
}

#[tokio::test]
async fn get_of_a_nonexistent_manifest_is_404() {
    let suite = Suite::start().await;
    for reference in [".INVALID_MANIFEST_NAME", "absent", &Digest::of(b"x").to_string()] {
        let absent = suite.get(&format!("manifests/{reference}")).await;
        assert_eq!(absent.problem(), "404 MANIFEST_UNKNOWN", "{reference}");
    }
}

#[tokio::test]
async fn get_of_a_manifest_by_tag_and_digest_gives_its_bytes() {
    let suite = Suite::start().await;
    let (digest, bytes) = suite.push_image("v1", b"layer").await;
    for reference in ["v1".to_owned(), digest.to_string()] {
        let manifest = suite.get(&format!("manifests/{reference}")).await;
        assert_eq!((manifest.status, &manifest.body), (200, &bytes));
    }
}

#[tokio::test]
async fn a_manifest_has_one_form_whatever_the_client_accepts() {
    let suite = Suite::start().await;
    let (_, bytes) = suite.push_image("v1", b"layer").await;
    for accept in [media_type::OCI_MANIFEST, media_type::MANIFEST, "*/*"] {
        let get = suite.request("GET", "manifests/v1").header("accept", accept);
        let manifest = seen(get).await;
        assert_eq!((manifest.status, &manifest.body), (200, &bytes), "{accept}");
        assert_eq!(manifest.header("content-type"), media_type::OCI_MANIFEST);
    }
}

#[tokio::test]
async fn a_manifest_that_the_client_has_is_304() {
    let suite = Suite::start().await;
    let (digest, _) = suite.push_image("v1", b"layer").await;
    let get = suite.request("GET", "manifests/v1");
    let answer = seen(get.header("if-none-match", format!("\"{digest}\""))).await;
    assert_eq!((answer.status, answer.body.as_str()), (304, ""));
    suite.push_image("v1", b"another layer").await;
    let get = suite.request("GET", "manifests/v1");
    assert_eq!(seen(get.header("if-none-match", format!("\"{digest}\""))).await.status, 200);
}

#[tokio::test]
async fn errors_have_the_form_of_the_specification() {
    let suite = Suite::start().await;
    let absent = suite.get("manifests/absent").await;
    assert_eq!(absent.header("content-type"), "application/json");
    let body: Value = serde_json::from_str(&absent.body).unwrap();
    let [error] = body["errors"].as_array().unwrap().as_slice() else { panic!("{body}") };
    assert_eq!(error["code"], "MANIFEST_UNKNOWN");
    assert!(error["message"].is_string() && error.get("detail").is_some());
}
