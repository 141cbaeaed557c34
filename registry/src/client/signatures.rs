//! Looks for the signatures of a manifest at its registry, before anything of the model is fetched.
//!
//! Cosign files a signature under a tag made of the digest; signatures of either format can also be
//! referrers of the manifest, or, where a registry keeps no list of these, in the index under the tag
//! that stands for it. Each is small, few are looked at, and what they cost altogether is bounded.

use super::{
    ClientError, IntegrityError, Progress, Reference, Report, manifest,
    manifest::Found,
    retry::{Failure, Retry},
    session::Session,
    variants::tags::{Pages, get},
};
use crate::{
    Descriptor, Digest, Layer, Manifest,
    manifest::{Entry, Index},
    trust::{BUNDLE_BYTES_MAX, PAYLOAD_BYTES_MAX, Proof, SignatureFault, SignaturePolicy, Signed},
};

/// The type of cosign's payloads.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of such a layer that has the signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The type of a referrer with such layers.
const COSIGN_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// What the type of a bundle begins with, as a referrer and as a layer.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";

/// Most manifests with signatures that are looked at.
const ARTIFACTS_MAX: usize = 32;
/// Most signatures that are.
const SIGNATURES_MAX: usize = 64;
/// Most bytes of all of them.
const BYTES_MAX: u64 = 16 << 20;

/// Holds the model to the policy of its registry: an error means that it must not be pulled.
pub(super) async fn check(
    session: &Session<'_>,
    manifest: &Manifest,
    digest: Digest,
    report: Report<'_>,
) -> Result<(), ClientError> {
    let policy = session.trust().policy;
    if policy == SignaturePolicy::Off {
        return Ok(());
    }
    let model = Signed { digest, manifest };
    let error = match (Search { session, model, left: BYTES_MAX, seen: 0 }).proof().await {
        Ok(proof) => {
            tracing::info!(name = %session.name, %digest, %proof, "the signature is good");
            report(Progress::Note(proof.to_string()));
            return Ok(());
        }
        Err(error) => error,
    };
    if policy == SignaturePolicy::Require {
        return Err(error);
    }
    let reason = match error {
        ClientError::Untrusted { fault, .. } => fault.to_string(),
        error => format!("its signatures cannot be looked at: {error}"),
    };
    tracing::warn!(name = %session.name, %digest, reason, "pulled although it is not trusted");
    report(Progress::Note(format!("warning: {} is not trusted: {reason}", session.name)));
    Ok(())
}

/// One search for a good signature.
struct Search<'a> {
    session: &'a Session<'a>,
    model: Signed<'a>,
    /// Bytes that may still be fetched.
    left: u64,
    /// Signatures that were looked at.
    seen: usize,
}

/// What became of one place where signatures may be.
type Verdict = Result<Proof, SignatureFault>;

impl Search<'_> {
    /// The first good signature, else what is wrong.
    async fn proof(mut self) -> Result<Proof, ClientError> {
        let fault = match self.tagged().await? {
            Ok(proof) => return Ok(proof),
            Err(fault) => fault,
        };
        let fault = match self.referring().await? {
            Ok(proof) => return Ok(proof),
            Err(other) if other.weight() >= fault.weight() => other,
            Err(_) => fault,
        };
        let (host, name) = (self.session.host(), self.session.name.to_string());
        Err(ClientError::Untrusted {
            host,
            name,
            digest: self.model.digest,
            fault: Box::new(fault),
        })
    }

    /// Under the tag that cosign makes of the digest.
    async fn tagged(&mut self) -> Result<Verdict, ClientError> {
        let tag = Reference::Tag(format!("sha256-{}.sig", self.model.digest.hex()));
        match absent(manifest::find(self.session, &tag).await)? {
            Some(Found::Manifest(manifest)) => self.artifact(&manifest).await,
            Some(Found::Index(_)) | None => Ok(Err(SignatureFault::Unsigned)),
        }
    }

    /// Among the referrers.
    async fn referring(&mut self) -> Result<Verdict, ClientError> {
        let mut worst = SignatureFault::Unsigned;
        for entry in self.referrers().await?.into_iter().take(ARTIFACTS_MAX) {
            let reference = Reference::Digest(entry.digest);
            let verdict = match absent(manifest::find(self.session, &reference).await)? {
                Some(Found::Manifest(manifest)) => self.artifact(&manifest).await?,
                Some(Found::Index(_)) | None => continue,
            };
            match verdict {
                Ok(proof) => return Ok(Ok(proof)),
                Err(fault) if fault.weight() > worst.weight() => worst = fault,
                Err(_) => {}
            }
        }
        Ok(Err(worst))
    }

    /// The referrers that may be signatures, by the registry's list or by the tag that stands for it.
    async fn referrers(&self) -> Result<Vec<Entry>, ClientError> {
        let digest = self.model.digest;
        let url = self.session.url(&format!("referrers/{digest}"));
        let (mut pages, mut entries, mut listed) = (Pages::new(url), Vec::new(), false);
        while let Some(url) = pages.next.take() {
            let Some((bytes, headers)) = get(self.session, &url).await? else { break };
            // Some registries answer everything they do not know with a page for people.
            let Ok(index) = Index::from_json(&bytes) else { break };
            listed = true;
            entries.extend(index.manifests.into_iter().filter(is_signature));
            pages.follow(self.session, &url, &headers)?;
        }
        if listed {
            return Ok(entries);
        }
        let tag = Reference::Tag(format!("sha256-{}", digest.hex()));
        match absent(manifest::find(self.session, &tag).await)? {
            Some(Found::Index(index)) => {
                Ok(index.manifests.into_iter().filter(is_signature).collect())
            }
            Some(Found::Manifest(_)) | None => Ok(Vec::new()),
        }
    }

    /// The signatures that are the layers of a manifest.
    async fn artifact(&mut self, manifest: &Manifest) -> Result<Verdict, ClientError> {
        let mut worst = SignatureFault::Unsigned;
        for layer in &manifest.layers {
            let verdict = match layer.media_type.as_str() {
                SIMPLE_SIGNING => self.cosign(layer).await?,
                kind if kind.starts_with(BUNDLE) => self.bundle(layer).await?,
                _ => continue,
            };
            match verdict {
                Ok(proof) => return Ok(Ok(proof)),
                Err(fault) if fault.weight() > worst.weight() => worst = fault,
                Err(_) => {}
            }
        }
        Ok(Err(worst))
    }

    async fn cosign(&mut self, layer: &Layer) -> Result<Verdict, ClientError> {
        let Some(signature) = layer.annotations.get(SIGNATURE) else {
            return Ok(unreadable("its payload comes without a signature"));
        };
        Ok(match self.bytes(layer, PAYLOAD_BYTES_MAX).await? {
            Ok(payload) => self.session.trust().check_cosign(&self.model, &payload, signature),
            Err(fault) => Err(fault),
        })
    }

    async fn bundle(&mut self, layer: &Layer) -> Result<Verdict, ClientError> {
        Ok(match self.bytes(layer, BUNDLE_BYTES_MAX).await? {
            Ok(bytes) => self.session.trust().check_bundle(&self.model, &bytes),
            Err(fault) => Err(fault),
        })
    }

    /// A layer's bytes, when they are few enough.
    async fn bytes(
        &mut self,
        layer: &Layer,
        max: usize,
    ) -> Result<Result<Vec<u8>, SignatureFault>, ClientError> {
        self.seen += 1;
        if self.seen > SIGNATURES_MAX || layer.size > self.left {
            return Ok(unreadable("there are more signatures than one looks through"));
        }
        if layer.size > max as u64 {
            return Ok(unreadable("it is larger than signatures are"));
        }
        self.left -= layer.size;
        match small_blob(self.session, &layer.descriptor()).await {
            Ok(bytes) => Ok(Ok(bytes)),
            // One bad signature says nothing of the next; a registry that is gone does.
            Err(
                error @ (ClientError::NotFound { .. }
                | ClientError::Protocol { .. }
                | ClientError::Integrity(_)),
            ) => Ok(unreadable(&format!("its bytes cannot be had: {error}"))),
            Err(error) => Err(error),
        }
    }
}

fn unreadable<T>(reason: &str) -> Result<T, SignatureFault> {
    Err(SignatureFault::Unreadable(reason.to_owned()))
}

fn is_signature(entry: &Entry) -> bool {
    let kind = entry.artifact_type.as_str();
    kind == COSIGN_ARTIFACT || kind.starts_with(BUNDLE)
}

/// What is not there, or is nothing that could be a signature, is the absence of one. A registry that does
/// not answer has not said that there is none.
fn absent(found: Result<Found, ClientError>) -> Result<Option<Found>, ClientError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(
            error @ (ClientError::NotFound { .. }
            | ClientError::Protocol { .. }
            | ClientError::Integrity(IntegrityError::Manifest { .. })),
        ) => {
            tracing::debug!(%error, "no signature there");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The bytes of a blob that fits memory, verified.
async fn small_blob(session: &Session<'_>, blob: &Descriptor) -> Result<Vec<u8>, ClientError> {
    let mut retry = Retry::new(session.limits());
    loop {
        match try_small_blob(session, blob).await {
            Ok(bytes) => return Ok(bytes),
            Err(failure) => retry.pause(failure).await?,
        }
    }
}

async fn try_small_blob(session: &Session<'_>, blob: &Descriptor) -> Result<Vec<u8>, Failure> {
    let response = session.send(&session.get(session.blob_url(&blob.digest))).await?;
    if response.status().as_u16() != 200 {
        return Err(session.refused(response).await);
    }
    let (host, digest, expected) = (session.host(), blob.digest, blob.size);
    let max = usize::try_from(expected).unwrap_or(usize::MAX);
    let Some(bytes) = session.body(response, max).await? else {
        let got = expected.saturating_add(1);
        return Err(IntegrityError::Size { host, digest, expected, got }.into());
    };
    match Digest::of(&bytes) {
        got if got == digest => Ok(bytes),
        got => Err(Failure::again(IntegrityError::Digest { host, expected: digest, got }.into())),
    }
}
