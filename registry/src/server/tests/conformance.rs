//! The points of the OCI distribution specification's own conformance suite, one test each, in its four
//! workflows. Where the suite allows several answers, a test holds the one that this registry gives.

mod discovery;
mod management;
mod pull;
mod push;

use super::*;
use crate::media_type;
use serde_json::{Value, json};

/// The repository that the suite works in.
const REPOSITORY: &str = "conformance/suite";
/// The empty JSON object, the configuration of artifacts that have none.
const EMPTY: &[u8] = b"{}";

/// A registry and the pushes that the workflows need.
struct Suite(Registry);

impl Suite {
    async fn start() -> Suite {
        Suite(Registry::start(ServerOptions::default()).await)
    }

    /// A request to a resource of the repository.
    fn request(&self, method: &str, resource: &str) -> RequestBuilder {
        self.0.request(method, &format!("{REPOSITORY}/{resource}"))
    }

    async fn get(&self, resource: &str) -> Seen {
        seen(self.request("GET", resource)).await
    }

    async fn head(&self, resource: &str) -> Seen {
        seen(self.request("HEAD", resource)).await
    }

    async fn delete(&self, resource: &str) -> Seen {
        seen(self.request("DELETE", resource)).await
    }

    async fn push_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let post = self.request("POST", &format!("blobs/uploads/?digest={digest}"));
        assert_eq!(seen(post.body(bytes.to_vec())).await.status, 201);
        digest
    }

    async fn put(&self, reference: &str, manifest: &Value) -> Seen {
        let put = self.request("PUT", &format!("manifests/{reference}"));
        let media_type = manifest["mediaType"].as_str().unwrap_or(media_type::OCI_MANIFEST);
        seen(put.header("content-type", media_type).body(manifest.to_string())).await
    }

    /// Pushes an image of one layer under a reference; returns its digest and its bytes.
    async fn push_image(&self, reference: &str, layer: &[u8]) -> (Digest, String) {
        self.push_blob(EMPTY).await;
        self.push_blob(layer).await;
        let manifest = image(&[layer], json!({}));
        let digest = digest_of(&manifest);
        let reference = if reference.is_empty() { digest.to_string() } else { reference.into() };
        assert_eq!(self.put(&reference, &manifest).await.status, 201);
        (digest, manifest.to_string())
    }

    /// Pushes an artifact about `subject` by its digest; returns that and the answer.
    async fn push_referrer(&self, subject: &Digest, kind: &str) -> (Digest, Seen) {
        self.push_blob(EMPTY).await;
        let manifest = image(
            &[EMPTY],
            json!({
                "artifactType": kind,
                "subject": descriptor(media_type::OCI_MANIFEST, subject, 7),
                "annotations": {"org.example.kind": kind},
            }),
        );
        let digest = digest_of(&manifest);
        let answer = self.put(&digest.to_string(), &manifest).await;
        (digest, answer)
    }
}

fn digest_of(manifest: &Value) -> Digest {
    Digest::of(manifest.to_string().as_bytes())
}

fn descriptor(media_type: &str, digest: &Digest, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

/// An OCI image manifest over layers, with an empty configuration and `extra` fields.
fn image(layers: &[&[u8]], extra: Value) -> Value {
    let layer = |bytes: &&[u8]| {
        descriptor("application/vnd.oci.image.layer.v1.tar", &Digest::of(bytes), bytes.len())
    };
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.empty.v1+json", &Digest::of(EMPTY), EMPTY.len()),
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    });
    manifest.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    manifest
}
