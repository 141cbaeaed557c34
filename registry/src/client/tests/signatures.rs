//! Supply chain: what is signed, by whom, over what, and what each policy makes of it.

use super::{
    script::{Asked, Reply, Script},
    *,
};
use crate::{
    Layer,
    fixture::{CONFIG, LICENSE, Scratch, manifest_of, name, put_model, scratch},
    media_type,
    trust::{
        RegistryTrust, SignatureFault, SignaturePolicy, TrustConfig,
        testkit::{Signer, manifest_statement, model_statement, simple_signing},
    },
};
use serde_json::{Value, json};
use std::path::PathBuf;

const WEIGHTS: &[u8] = b"weights that somebody signed";
const OLD: &[u8] = b"what was here before";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const COSIGN: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// What a registry has, by the end of its path.
#[derive(Clone, Default)]
struct Shelf(BTreeMap<String, Vec<u8>>);

impl Shelf {
    /// A registry with the model, not signed.
    fn new() -> Shelf {
        let mut shelf = Shelf::default();
        shelf.0.insert("manifests/latest".to_owned(), manifest_of(WEIGHTS).to_json());
        for bytes in [WEIGHTS, LICENSE, CONFIG] {
            shelf.blob(bytes);
        }
        shelf
    }

    fn blob(&mut self, bytes: &[u8]) {
        self.0.insert(format!("blobs/{}", Digest::of(bytes)), bytes.to_vec());
    }

    /// The manifest of an artifact with one layer.
    fn artifact(&mut self, media_type: &str, bytes: &[u8], signature: Option<String>) -> Vec<u8> {
        let mut layer = Layer::new(media_type, Digest::of(bytes), bytes.len() as u64);
        let signature =
            signature.map(|text| ("dev.cosignproject.cosign/signature".to_owned(), text));
        layer.annotations.extend(signature);
        self.blob(bytes);
        let mut manifest = manifest_of(b"");
        manifest.media_type = media_type::OCI_MANIFEST.to_owned();
        manifest.layers = vec![layer];
        manifest.to_json()
    }

    /// Files a signature of cosign under its tag.
    fn tagged(mut self, payload: &[u8], signer: &Signer) -> Shelf {
        let bytes = self.artifact(SIMPLE_SIGNING, payload, Some(signer.sign(payload)));
        self.0.insert(format!("manifests/sha256-{}.sig", digest().hex()), bytes);
        self
    }

    /// Lists an artifact under `place`.
    fn referring(mut self, place: &str, kind: &str, artifact: &[u8]) -> Shelf {
        let referrer = Digest::of(artifact);
        self.0.insert(format!("manifests/{referrer}"), artifact.to_vec());
        let entry = json!({
            "mediaType": media_type::OCI_MANIFEST,
            "digest": referrer,
            "size": artifact.len(),
            "artifactType": kind,
        });
        let index =
            self.0.entry(place.to_owned()).or_insert_with(|| b"{\"manifests\":[]}".to_vec());
        let mut json: Value = serde_json::from_slice(index).unwrap();
        json["manifests"].as_array_mut().unwrap().push(entry);
        *index = json.to_string().into_bytes();
        self
    }

    /// Adds a bundle to the list of referrers.
    fn bundled(mut self, signer: &Signer, statement: &Value) -> Shelf {
        let artifact = self.artifact(BUNDLE, &signer.bundle(statement), None);
        self.referring(&format!("referrers/{}", digest()), BUNDLE, &artifact)
    }

    async fn serve(self) -> Script {
        Script::start(move |asked: &Asked| {
            let path = asked.line.split_once(" /v2/library/m/").map_or("", |(_, path)| path);
            match self.0.get(path) {
                Some(bytes) => Reply::new("200 OK", "", bytes),
                None => Reply::new("404 Not Found", "", b""),
            }
        })
        .await
    }
}

fn digest() -> Digest {
    Digest::of(&manifest_of(WEIGHTS).to_json())
}

/// A client that trusts one key, and the file that it is in.
fn trusting(
    script: &Script,
    signatures: SignaturePolicy,
    key: &Signer,
) -> (Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maker.pub");
    std::fs::write(&path, key.pem()).unwrap();
    let registry = Some(Url::parse(&script.url).unwrap());
    let trust = TrustConfig { signatures, keys: vec![path] };
    let config = ClientConfig { registry, trust, ..ClientConfig::default() };
    (Client::with_limits(config, quick()).unwrap(), folder)
}

/// Pulls over an older model of the same name; what was said, and why it was refused if it was.
async fn pulled(
    script: &Script,
    policy: SignaturePolicy,
    key: &Signer,
) -> (String, Option<ClientError>) {
    let here = scratch();
    let old = put_model(&here.store, "m", OLD);
    let (client, _folder) = trusting(script, policy, key);
    let (seen, cancel) = (Seen::default(), CancellationToken::new());
    let (options, note) = (TransferOptions::default(), |progress| seen.note(progress));
    let pulled = client.pull(&here.store, &name("m"), &options, note, &cancel).await;
    let now = here.store.manifest(&name("m")).unwrap().unwrap();
    match pulled {
        Ok(new) => {
            assert_eq!((new.digest, now.digest), (digest(), digest()));
            (seen.notes(), None)
        }
        Err(error) => {
            assert_untouched(&here, &script.requests(), now.digest == old.digest);
            (seen.notes(), Some(error))
        }
    }
}

/// A refused model leaves nothing: the name means what it meant, and not one byte was fetched.
fn assert_untouched(here: &Scratch, requests: &[String], same: bool) {
    assert!(same, "the name means something else");
    assert!(here.store.has(&Digest::of(OLD)) && !here.store.has(&Digest::of(WEIGHTS)));
    assert!(here.store.unfinished().unwrap().is_empty());
    let weights = format!("/blobs/{}", Digest::of(WEIGHTS));
    assert!(!requests.iter().any(|head| head.contains(&weights)), "{requests:?}");
}

/// Holds what a registry has against each policy: off does not look, warn says why, require refuses.
async fn assert_refused(shelf: Shelf, key: &Signer, why: impl Fn(&SignatureFault) -> bool) {
    let script = shelf.clone().serve().await;
    assert!(
        matches!(pulled(&script, SignaturePolicy::Off, key).await, (said, None) if said.is_empty())
    );
    let looked = |head: &String| head.contains(".sig ") || head.contains("/referrers/");
    assert!(!script.requests().iter().any(looked), "nobody asked for signatures");

    let script = shelf.clone().serve().await;
    let (said, error) = pulled(&script, SignaturePolicy::Warn, key).await;
    assert!(error.is_none(), "{error:?}");
    assert!(said.starts_with("warning: m:latest is not trusted: "), "{said}");

    let script = shelf.serve().await;
    let (said, error) = pulled(&script, SignaturePolicy::Require, key).await;
    let error = error.expect("it is refused");
    let text = error.to_string();
    let host = script.url.strip_prefix("http://").unwrap();
    assert!(text.starts_with(&format!("m:latest from {host} is refused")), "{text}");
    assert!(text.contains("trusted_keys"), "{text}");
    let ClientError::Untrusted { fault, .. } = error else { panic!("{text}") };
    assert!(why(&fault), "{fault}");
    assert!(said.is_empty(), "{said}");
}

/// The same for what is signed as it should be.
async fn assert_good(shelf: Shelf, key: &Signer, expected: &str) {
    for policy in [SignaturePolicy::Off, SignaturePolicy::Warn, SignaturePolicy::Require] {
        let script = shelf.clone().serve().await;
        let (said, error) = pulled(&script, policy, key).await;
        assert!(error.is_none(), "{policy:?}: {error:?}");
        assert_eq!(said.starts_with("signed by key "), policy != SignaturePolicy::Off, "{said}");
        assert!(policy == SignaturePolicy::Off || said.ends_with(expected), "{said}");
    }
}

/// Every way in which the model can be signed by a key over a digest of a manifest and of weights.
fn signed_by(signer: &Signer, manifest: &Digest, weights: &Digest) -> Vec<Shelf> {
    let payload = simple_signing(manifest);
    let listed = format!("referrers/{}", digest());
    let filed = format!("manifests/sha256-{}", digest().hex());
    let (mut by_list, mut by_tag) = (Shelf::new(), Shelf::new());
    let artifact = by_list.artifact(SIMPLE_SIGNING, &payload, Some(signer.sign(&payload)));
    by_tag.0.extend(by_list.0.clone());
    let files = model_statement(&[
        ("LICENSE", Digest::of(LICENSE)),
        ("config.json", Digest::of(CONFIG)),
        ("model.gguf", *weights),
    ]);
    vec![
        Shelf::new().tagged(&payload, signer),
        by_list.referring(&listed, COSIGN, &artifact),
        by_tag.referring(&filed, COSIGN, &artifact),
        Shelf::new().bundled(signer, &manifest_statement(manifest)),
        Shelf::new().bundled(signer, &files),
    ]
}

#[tokio::test]
async fn what_is_signed_is_pulled_in_every_format() {
    let signer = Signer::p256();
    for shelf in signed_by(&signer, &digest(), &Digest::of(WEIGHTS)) {
        assert_good(shelf, &signer, "(maker.pub)").await;
    }
    let weights = model_statement(&[("model.gguf", Digest::of(WEIGHTS))]);
    let shelf = Shelf::new().bundled(&signer, &weights);
    assert_good(shelf, &signer, ": its weights, but not its license").await;
}

#[tokio::test]
async fn fault_41_unsigned_models_are_refused_where_signatures_are_required() {
    let key = Signer::p256();
    let unsigned = |fault: &SignatureFault| matches!(fault, SignatureFault::Unsigned);
    assert_refused(Shelf::new(), &key, unsigned).await;
    // What refers to the manifest and is no signature.
    let mut shelf = Shelf::new();
    let note = shelf.artifact("text/plain", b"a note", None);
    let list = format!("referrers/{}", digest());
    assert_refused(shelf.referring(&list, "text/plain", &note), &key, unsigned).await;
}

#[tokio::test]
async fn fault_41_wrong_key_does_not_count() {
    let (key, other) = (Signer::p256(), Signer::p256());
    for shelf in signed_by(&other, &digest(), &Digest::of(WEIGHTS)) {
        let wrong = |fault: &SignatureFault| matches!(fault, SignatureFault::WrongKey { .. });
        assert_refused(shelf, &key, wrong).await;
    }
}

#[tokio::test]
async fn fault_41_signature_for_another_digest_does_not_count() {
    let key = Signer::ed25519();
    let other = Digest::of(b"another model of the same maker");
    for shelf in signed_by(&key, &other, &other) {
        let wrong = |fault: &SignatureFault| {
            matches!(fault, SignatureFault::OtherDigest { .. } | SignatureFault::Uncovered { .. })
        };
        assert_refused(shelf, &key, wrong).await;
    }
}

/// An older model is signed as well, so no policy helps: who pinned the newer one gets that or an error.
#[tokio::test]
async fn fault_41_rollback_to_an_older_model_is_followed_without_a_pin_and_never_with_one() {
    let key = Signer::p256();
    let newer = Reference::Digest(digest());
    let older = manifest_of(OLD).to_json();
    let signed = |shelf: Shelf| shelf.tagged(&simple_signing(&Digest::of(&older)), &key);
    let mut back = signed(Shelf::new());
    back.0.insert("manifests/latest".to_owned(), older.clone());
    let tag = format!("manifests/sha256-{}.sig", Digest::of(&older).hex());
    let artifact = back.0[&format!("manifests/sha256-{}.sig", digest().hex())].clone();
    back.0.insert(tag, artifact);
    back.blob(OLD);
    // The newer one is still there under its digest; gone; or the older one is shown in its place.
    let place = format!("manifests/{}", digest());
    let (mut kept, mut swapped) =
        (back.clone().tagged(&simple_signing(&digest()), &key), back.clone());
    kept.0.insert(place.clone(), manifest_of(WEIGHTS).to_json());
    swapped.0.insert(place, older.clone());
    for policy in [SignaturePolicy::Off, SignaturePolicy::Warn, SignaturePolicy::Require] {
        for (shelf, from, expected) in [
            (&back, None, Ok(Digest::of(&older))),
            (&kept, Some(&newer), Ok(digest())),
            (&back, Some(&newer), Err("was not found")),
            (&swapped, Some(&newer), Err("the manifest of m:latest hashes to")),
        ] {
            let here = scratch();
            let (client, _folder) = trusting(&shelf.clone().serve().await, policy, &key);
            let options = TransferOptions { from: from.cloned(), ..TransferOptions::default() };
            let cancel = CancellationToken::new();
            let pulled = client.pull(&here.store, &name("m"), &options, |_| {}, &cancel).await;
            match (pulled, expected) {
                (Ok(pulled), Ok(expected)) => assert_eq!(pulled.digest, expected, "{policy:?}"),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{policy:?}: {error}");
                    assert!(here.store.list().unwrap().is_empty());
                }
                (pulled, _) => panic!("{policy:?}: {pulled:?}"),
            }
        }
    }
}

#[tokio::test]
async fn signatures_that_cannot_be_read_do_not_count() {
    let key = Signer::p256();
    let unreadable = |fault: &SignatureFault| matches!(fault, SignatureFault::Unreadable(_));
    let tag = format!("manifests/sha256-{}.sig", digest().hex());
    let payload = simple_signing(&digest());
    // No annotation; a payload that is too large to be one; a blob that is not there, or is another.
    let mut bare = Shelf::new();
    let bytes = bare.artifact(SIMPLE_SIGNING, &payload, None);
    bare.0.insert(tag.clone(), bytes);
    assert_refused(bare, &key, unreadable).await;
    let huge = [payload.as_slice(), &vec![b' '; 70 << 10]].concat();
    assert_refused(Shelf::new().tagged(&huge, &key), &key, unreadable).await;
    let mut gone = Shelf::new().tagged(&payload, &key);
    gone.0.remove(&format!("blobs/{}", Digest::of(&payload)));
    assert_refused(gone, &key, unreadable).await;
    let mut swapped = Shelf::new().tagged(&payload, &key);
    swapped.0.insert(format!("blobs/{}", Digest::of(&payload)), b"else".to_vec());
    assert_refused(swapped, &key, unreadable).await;
}

#[tokio::test]
async fn a_good_signature_counts_among_bad_ones_and_not_behind_too_many() {
    let (key, other) = (Signer::p256(), Signer::p256());
    let payload = simple_signing(&digest());
    let mut shelf = Shelf::new().tagged(&payload, &other);
    for _ in 0..3 {
        shelf = shelf.bundled(&other, &manifest_statement(&digest()));
    }
    assert_good(shelf.bundled(&key, &manifest_statement(&digest())), &key, "(maker.pub)").await;

    // Ninety signatures in one manifest, the good one last.
    let mut shelf = Shelf::new();
    let bytes = shelf.artifact(SIMPLE_SIGNING, &payload, Some(other.sign(&payload)));
    let mut many: Value = serde_json::from_slice(&bytes).unwrap();
    let layers = vec![many["layers"][0].clone(); 90];
    many["layers"] = layers.into();
    many["layers"][89]["annotations"]["dev.cosignproject.cosign/signature"] =
        key.sign(&payload).into();
    let tag = format!("manifests/sha256-{}.sig", digest().hex());
    shelf.0.insert(tag, many.to_string().into_bytes());
    let script = shelf.serve().await;
    let (_, error) = pulled(&script, SignaturePolicy::Require, &key).await;
    assert!(matches!(error, Some(ClientError::Untrusted { .. })), "{error:?}");
    assert!(script.requests_for(&payload).len() <= 64, "it looks through a bounded number");
}

#[tokio::test]
async fn a_registry_that_does_not_answer_has_not_said_that_there_is_no_signature() {
    let key = Signer::p256();
    let shelf = Shelf::new();
    let answer = move |asked: &Asked| match asked.line.split_once(" /v2/library/m/") {
        Some((_, path)) if !path.contains(".sig") => match shelf.0.get(path) {
            Some(bytes) => Reply::new("200 OK", "", bytes),
            None => Reply::new("404 Not Found", "", b""),
        },
        _ => Reply::new("503 Service Unavailable", "", b""),
    };
    let script = Script::start(answer).await;
    let (_, error) = pulled(&script, SignaturePolicy::Require, &key).await;
    assert!(matches!(error, Some(ClientError::Unreachable { .. })), "{error:?}");
    let (said, error) = pulled(&script, SignaturePolicy::Warn, &key).await;
    assert!(error.is_none() && said.contains("cannot be looked at"), "{said}");
}

#[tokio::test]
async fn a_registry_can_have_a_policy_of_its_own_and_mirrors_are_held_to_it() {
    let (key, all) = (Signer::p256(), Signer::p256());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, signer: &Signer| {
        let path: PathBuf = folder.path().join(name);
        std::fs::write(&path, signer.pem()).unwrap();
        path
    };
    let (maker, other) = (file("maker.pub", &key), file("all.pub", &all));
    let signed = Shelf::new().tagged(&simple_signing(&digest()), &key);
    // The mirror has the model, and the registry alone its signature.
    let (registry, mirror) = (signed.serve().await, Shelf::new().serve().await);
    let bare = Shelf::new().serve().await;
    let host = |script: &Script| script.url.strip_prefix("http://").unwrap().to_owned();
    let mirrored = RegistryConfig {
        mirrors: vec![Url::parse(&mirror.url).unwrap()],
        trust: RegistryTrust { signatures: None, keys: Some(vec![maker]) },
        ..RegistryConfig::default()
    };
    let trust = RegistryTrust { signatures: Some(SignaturePolicy::Off), keys: None };
    let registries = BTreeMap::from([
        (host(&registry), mirrored),
        (host(&bare), RegistryConfig { trust, ..RegistryConfig::default() }),
    ]);
    let trust = TrustConfig { signatures: SignaturePolicy::Require, keys: vec![other] };
    let config = ClientConfig { registries, trust, ..ClientConfig::default() };
    let client = Client::with_limits(config, quick()).unwrap();
    let here = scratch();
    for script in [&registry, &bare] {
        pull(&client, &here.store, &format!("{}/library/m", host(script))).await.unwrap();
    }
    // Its bytes still came from the mirror.
    assert!(registry.requests_for(WEIGHTS).is_empty() && !mirror.requests_for(WEIGHTS).is_empty());
    let elsewhere = Shelf::new().serve().await;
    let refused = pull(&client, &here.store, &format!("{}/library/m", host(&elsewhere))).await;
    assert!(matches!(refused, Err(ClientError::Untrusted { .. })), "{refused:?}");
}

#[test]
fn keys_that_cannot_be_read_are_said_by_their_setting() {
    let own = RegistryTrust { signatures: Some(SignaturePolicy::Warn), keys: None };
    let own = RegistryConfig { trust: own, ..RegistryConfig::default() };
    let all = TrustConfig { signatures: SignaturePolicy::Require, keys: Vec::new() };
    let cases = [
        (BTreeMap::from([("r.lan".to_owned(), own)]), TrustConfig::default()),
        (BTreeMap::new(), all),
    ];
    let said = cases.map(|(registries, trust)| {
        let config = ClientConfig { registries, trust, ..ClientConfig::default() };
        Client::new(config).unwrap_err().to_string()
    });
    assert!(said[0].starts_with("registries.\"r.lan\".trusted_keys: "), "{}", said[0]);
    assert!(said[1].starts_with("trusted_keys: "), "{}", said[1]);
}

/// A pull of `m` at `host`, by somebody whose tables state a policy for these hosts.
async fn pulled_with(
    registry: Option<&Script>,
    host: &str,
    tables: &[(&str, SignaturePolicy)],
) -> Result<StoredManifest, ClientError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maker.pub");
    std::fs::write(&path, Signer::p256().pem()).unwrap();
    let table = |(host, policy): &(&str, SignaturePolicy)| {
        let (signatures, keys) = (Some(*policy), Some(vec![path.clone()]));
        let trust = RegistryTrust { signatures, keys };
        ((*host).to_owned(), RegistryConfig { trust, ..RegistryConfig::default() })
    };
    let registry = registry.map(|script| Url::parse(&script.url).unwrap());
    let registries = tables.iter().map(table).collect();
    let config = ClientConfig { registry, registries, ..ClientConfig::default() };
    let client = Client::with_limits(config, quick()).unwrap();
    pull(&client, &scratch().store, &format!("{host}/library/m")).await
}

fn is_untrusted(pulled: &Result<StoredManifest, ClientError>) -> bool {
    matches!(pulled, Err(ClientError::Untrusted { .. }))
}

#[tokio::test]
async fn a_registrys_policy_holds_however_its_host_is_spelled() {
    let script = Shelf::new().serve().await;
    let port = script.url.rsplit(':').next().unwrap();
    for (table, host) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "127.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.0.1", "0x7f.0.0.1"),
        ("localhost", "LocalHost"),
    ] {
        let (table, host) = (format!("{table}:{port}"), format!("{host}:{port}"));
        let pulled = pulled_with(None, &host, &[(&table, SignaturePolicy::Require)]).await;
        assert!(is_untrusted(&pulled), "{table} {host}: {pulled:?}");
    }
    pulled_with(None, &format!("127.0.0.1:{port}"), &[]).await.unwrap();
}

#[tokio::test]
async fn a_registry_in_place_of_the_default_one_does_not_lower_its_policy() {
    use SignaturePolicy::{Off, Require};
    let script = Shelf::new().serve().await;
    let serving = script.url.strip_prefix("http://").unwrap();
    for (tables, refused) in [
        (vec![(DEFAULT_HOST, Require)], true),
        (vec![("Registry.Ollama.ai:443", Require), (serving, Off)], true),
        (vec![(DEFAULT_HOST, Off), (serving, Require)], true),
        (vec![(DEFAULT_HOST, Off)], false),
    ] {
        let pulled = pulled_with(Some(&script), DEFAULT_HOST, &tables).await;
        assert_eq!(is_untrusted(&pulled), refused, "{tables:?}: {pulled:?}");
    }
}
