//! Signatures and pins, through the built binary and the embedded registry; the keys of OpenSSF's own
//! tool as well.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dsk_registry::Digest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use crate::harness::{Daemon, Registry, home};
use crate::peers::{Server, peer};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What is asked for: docker-registry makes something else of it when this is not said.
const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// What a P-256 key's SubjectPublicKeyInfo begins with.
const SPKI: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\
                      \x3d\x03\x01\x07\x03\x42\x00";

fn tiny(seed: u64) -> Vec<u8> {
    dsk_daemon_engine::gguf::testkit::tiny_model("llama", seed)
}

/// A key, and the folder with its PEM files.
struct Maker {
    folder: tempfile::TempDir,
    key: EcdsaKeyPair,
}

impl Maker {
    fn new() -> Maker {
        let (folder, random) = (home(), SystemRandom::new());
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref(), &random).unwrap();
        let pem = |kind: &str, der: &[u8]| {
            format!(
                "-----BEGIN {kind} KEY-----\n{}\n-----END {kind} KEY-----\n",
                STANDARD.encode(der)
            )
        };
        let public = [SPKI, key.public_key().as_ref()].concat();
        fs::write(folder.path().join("maker.pub"), pem("PUBLIC", &public)).unwrap();
        fs::write(folder.path().join("maker.pem"), pem("PRIVATE", der.as_ref())).unwrap();
        Maker { folder, key }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A daemon that trusts this key.
    fn daemon(&self, signatures: &str) -> Daemon {
        Daemon::start_with(home(), |command| {
            command.env("DSK_SIGNATURES", signatures);
            command.env("DSK_TRUSTED_KEYS", self.file("maker.pub"));
        })
    }

    /// Signs a manifest as cosign does, and files the signature under its tag.
    fn sign(&self, place: &Place<'_>, manifest: &Digest) {
        let payload = json!({
            "critical": {
                "identity": {"docker-reference": ""},
                "image": {"docker-manifest-digest": manifest},
                "type": "cosign container image signature",
            },
            "optional": null,
        });
        let payload = payload.to_string().into_bytes();
        let signature = self.key.sign(&SystemRandom::new(), &payload).unwrap();
        let mut layer = place.blob("application/vnd.dev.cosign.simplesigning.v1+json", &payload);
        layer["annotations"] =
            json!({"dev.cosignproject.cosign/signature": STANDARD.encode(signature)});
        let tag = format!("sha256-{}.sig", manifest.hex());
        place.artifact(&tag, &json!({"layers": [layer]}));
    }
}

/// A repository at a registry on loopback.
struct Place<'a> {
    address: &'a str,
    repository: &'a str,
}

impl Place<'_> {
    /// Sends a request; the status and the body of the answer.
    fn send(&self, line: &str, kind: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let (method, path) = line.split_once(' ').unwrap();
        let head = format!(
            "{method} /v2/{}/{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept: {ACCEPT}\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.repository,
            self.address,
            body.len(),
        );
        exchange(self.address, head.as_bytes(), body)
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        let line = self.upload(&digest);
        let (status, answer) = self.send(&line, "application/octet-stream", bytes);
        assert_eq!(status, 201, "{line}: {}", String::from_utf8_lossy(&answer));
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// The request that ends an upload which has just begun.
    fn upload(&self, digest: &Digest) -> String {
        let head = format!(
            "POST /v2/{}/blobs/uploads/ HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Length: 0\r\n\r\n",
            self.repository, self.address,
        );
        let answer = raw(self.address, head.as_bytes(), b"");
        let text = String::from_utf8_lossy(&answer).into_owned();
        let found = text.lines().find(|line| line.to_ascii_lowercase().starts_with("location: "));
        let location = found.unwrap_or_else(|| panic!("{text}")).split_once(": ").unwrap().1.trim();
        let path = location.split_once(&format!("/v2/{}/", self.repository)).unwrap().1;
        let mark = if path.contains('?') { '&' } else { '?' };
        format!("PUT {path}{mark}digest={digest}")
    }

    /// Puts an image manifest with an empty configuration.
    fn artifact(&self, reference: &str, more: &Value) -> Digest {
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blob("application/vnd.oci.empty.v1+json", b"{}"),
        });
        manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        let reference =
            if reference.is_empty() { digest.to_string() } else { reference.to_owned() };
        let line = format!("PUT manifests/{reference}");
        let (status, answer) = self.send(&line, OCI_MANIFEST, &bytes);
        assert_eq!(status, 201, "{line}: {}", String::from_utf8_lossy(&answer));
        digest
    }

    fn manifest(&self, tag: &str) -> (Digest, Vec<u8>) {
        let (status, bytes) = self.send(&format!("GET manifests/{tag}"), "text/plain", b"");
        assert_eq!(status, 200);
        (Digest::of(&bytes), bytes)
    }
}

fn raw(address: &str, head: &[u8], body: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(head).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

fn exchange(address: &str, head: &[u8], body: &[u8]) -> (u16, Vec<u8>) {
    let answer = raw(address, head, body);
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
    (status, answer[end + 4..].to_vec())
}

fn fill(registry: &Registry, seed: u64) {
    let folder = home();
    let gguf = folder.path().join("tiny.gguf");
    fs::write(&gguf, tiny(seed)).unwrap();
    registry.fill("tiny:latest", &gguf);
}

fn place(registry: &Registry) -> Place<'_> {
    Place { address: &registry.address, repository: "library/tiny" }
}

/// The weights of the models that a daemon has, by the seed that they were made with.
fn seed_of(daemon: &Daemon, seeds: &[u64]) -> Vec<u64> {
    let blobs = daemon.home.path().join("dsk/models/blobs");
    let has =
        |seed: &u64| blobs.join(format!("sha256-{}", Digest::of(&tiny(*seed)).hex())).exists();
    seeds.iter().copied().filter(has).collect()
}

/// Runs a verb that must fail with this exit code; what it said.
fn refused(daemon: &Daemon, arguments: &[&str], code: i32) -> String {
    let output = daemon.dsk().args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

#[test]
fn fault_41_what_is_not_signed_is_refused_where_signatures_are_required() {
    let (registry, maker, other) = (Registry::start(), Maker::new(), Maker::new());
    fill(&registry, 41);
    let (name, place) = (registry.name("tiny:latest"), place(&registry));
    let (digest, _) = place.manifest("latest");
    let daemon = maker.daemon("require");
    let said = refused(&daemon, &["pull", &name], 7);
    assert!(said.contains("it is not signed") && said.contains("trusted_keys"), "{said}");
    let body = json!({"model": name}).to_string();
    let head = format!(
        "POST /api/pull HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let address = format!("127.0.0.1:{}", daemon.port);
    let (status, answer) = exchange(&address, head.as_bytes(), body.as_bytes());
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((status, answer["code"].as_str()), (403, Some("untrusted_model")), "{answer}");
    other.sign(&place, &digest);
    assert!(refused(&daemon, &["pull", &name], 7).contains("not by a trusted key"));
    assert!(seed_of(&daemon, &[41]).is_empty(), "nothing of it was fetched");

    maker.sign(&place, &digest);
    daemon.run(&["pull", &name]);
    assert_eq!(seed_of(&daemon, &[41]), [41]);
    // What was good stays when the tag moves to what is not.
    fill(&registry, 42);
    let said = refused(&daemon, &["pull", &name], 7);
    assert!(said.contains("it is not signed"), "{said}");
    assert_eq!(seed_of(&daemon, &[41, 42]), [41]);
    daemon.run(&["show", &name]);

    let trusting = maker.daemon("warn");
    let lines = trusting.run(&["pull", &name, "--json"]);
    assert!(lines.contains("is not trusted: it is not signed"), "{lines}");
    assert!(trusting.log().contains("it is not signed"), "{}", trusting.log());
    assert_eq!(seed_of(&trusting, &[41, 42]), [42]);
}

#[test]
fn a_daemon_that_could_trust_nobody_does_not_start() {
    let folder = home();
    let output = crate::harness::dsk(folder.path())
        .arg("serve")
        .env("DSK_HOST", "127.0.0.1:0")
        .env("DSK_SIGNATURES", "require")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("trusted_keys: "), "{said}");
}

#[test]
fn fault_41_a_name_that_is_pinned_follows_no_rollback() {
    let registry = Registry::start();
    fill(&registry, 43);
    let (name, place) = (registry.name("tiny:latest"), place(&registry));
    let (old, _) = place.manifest("latest");
    let folder = home();
    let file = folder.path().join("dsk.lock");
    let pinned = Daemon::start_with(home(), |command| {
        command.env("DSK_LOCK_FILE", &file);
    });
    let free = Daemon::start();
    pinned.run(&["pull", &name]);
    assert!(fs::read_to_string(&file).unwrap().ends_with(&format!("\"{name}\" = \"{old}\"\n")));

    // The tag moves: a pin stays until it is told to.
    fill(&registry, 44);
    let (new, _) = place.manifest("latest");
    pinned.run(&["pull", &name]);
    assert_eq!(seed_of(&pinned, &[43, 44]), [43]);
    let said = refused(&pinned, &["pull", &format!("{name}@{new}")], 7);
    assert!(said.contains("--update-lock"), "{said}");
    pinned.run(&["pull", &name, "--update-lock"]);
    assert_eq!(seed_of(&pinned, &[43, 44]), [44]);
    assert!(fs::read_to_string(&file).unwrap().contains(&new.to_string()));

    // And back to the older one, which who pins nothing gets.
    fill(&registry, 43);
    for (daemon, seed) in [(&pinned, 44), (&free, 43)] {
        daemon.run(&["pull", &name]);
        assert_eq!(seed_of(daemon, &[43, 44]), [seed]);
    }
    free.run(&["pull", &format!("{name}@{new}")]);
    assert_eq!(seed_of(&free, &[43, 44]), [44]);

    let (status, _) = place.send(&format!("DELETE manifests/{new}"), "text/plain", b"");
    assert_eq!(status, 202);
    let said = refused(&pinned, &["pull", &name], 7);
    assert!(said.contains("no longer has") && said.contains("--update-lock"), "{said}");
    fs::write(&file, "tiny = \n").unwrap();
    let said = refused(&pinned, &["pull", &name], 2);
    assert!(said.contains("dsk.lock:1: "), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "tiny = \n");
}

#[test]
fn a_project_has_a_lock_file_of_its_own() {
    let registry = Registry::start();
    fill(&registry, 45);
    let name = registry.name("tiny:latest");
    let folder = home();
    let file = folder.path().join("models.lock");
    let lock = file.to_str().unwrap();
    let (one, two) = (Daemon::start(), Daemon::start());
    one.run(&["pull", &name, "--lock", lock]);
    let text = fs::read_to_string(&file).unwrap();
    fill(&registry, 46);
    two.run(&["pull", &name, "--lock", lock]);
    assert_eq!(seed_of(&two, &[45, 46]), [45]);
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    two.run(&["pull", &name, "--lock", lock, "--update-lock"]);
    assert_eq!(seed_of(&two, &[45, 46]), [46]);
    assert_ne!(fs::read_to_string(&file).unwrap(), text);
    fs::write(&file, "nonsense\n").unwrap();
    let said = refused(&one, &["pull", &name, "--lock", lock], 2);
    assert!(said.contains("models.lock:1: "), "{said}");
    let wrong = format!("{name}@sha256:zz");
    for arguments in [vec!["pull", &wrong], vec!["pull", &wrong, "--lock", lock]] {
        let said = refused(&one, &arguments, 2);
        assert!(said.contains("digest"), "{said}");
    }
}

/// Signs a folder with OpenSSF's own tool; the bundle.
fn tool_signs(maker: &Maker, folder: &Path) -> Vec<u8> {
    let signature = maker.file("model.sig");
    let output = Command::new(peer("model_signing"))
        .args(["sign", "key"])
        .arg(folder)
        .arg("--private_key")
        .arg(maker.file("maker.pem"))
        .arg("--signature")
        .arg(&signature)
        .env("HOME", maker.folder.path())
        .output()
        .expect("model_signing runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(signature).unwrap()
}

/// A bundle of the tool's, filed as a referrer: by the embedded registry's list, and for docker-registry,
/// which keeps none, in the index under the tag that stands for it.
#[test]
fn models_that_openssfs_tool_signed_are_pulled_and_no_others() {
    let maker = Maker::new();
    let model = home();
    fs::write(model.path().join("model.gguf"), tiny(47)).unwrap();
    fs::write(model.path().join("config.json"), "{}").unwrap();
    let bundle = tool_signs(&maker, model.path());
    let (ours, theirs) = (Registry::start(), Server::docker_registry());
    for address in [&ours.address, &theirs.address] {
        let place = Place { address, repository: "library/tiny" };
        let name = format!("{address}/library/tiny:latest");
        for (seed, covered) in [(48, false), (47, true)] {
            let gguf = model.path().join("pushed.gguf");
            fs::write(&gguf, tiny(seed)).unwrap();
            push(&name, &gguf);
            let (digest, bytes) = place.manifest("latest");
            let kind: Value = serde_json::from_slice(&bytes).unwrap();
            let subject =
                json!({"mediaType": kind["mediaType"], "digest": digest, "size": bytes.len()});
            let layer = place.blob(BUNDLE, &bundle);
            let artifact = json!({"artifactType": BUNDLE, "subject": subject, "layers": [layer]});
            let artifact = place.artifact("", &artifact);
            if *address == theirs.address {
                file_referrer(&place, &digest, &artifact);
            }
            let daemon = maker.daemon("require");
            if covered {
                let lines = daemon.run(&["pull", &name, "--json"]);
                assert!(lines.contains("signed by key "), "{lines}");
                assert_eq!(seed_of(&daemon, &[47, 48]), [47]);
            } else {
                let said = refused(&daemon, &["pull", &name], 7);
                assert!(said.contains("does not cover its weights"), "{said}");
                assert!(seed_of(&daemon, &[47, 48]).is_empty());
            }
        }
    }
}

fn push(name: &str, gguf: &Path) {
    let daemon = Daemon::start();
    let modelfile = daemon.home.path().join("Modelfile");
    fs::write(&modelfile, format!("FROM {}\n", gguf.display())).unwrap();
    daemon.run(&["create", name, "-f", modelfile.to_str().unwrap()]);
    daemon.run(&["push", name]);
}

/// Lists an artifact in the index that stands for the list of referrers.
fn file_referrer(place: &Place<'_>, subject: &Digest, artifact: &Digest) {
    let (_, bytes) = place.manifest(&artifact.to_string());
    let entry = json!({
        "mediaType": OCI_MANIFEST,
        "digest": artifact,
        "size": bytes.len(),
        "artifactType": BUNDLE,
    });
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [entry]});
    let line = format!("PUT manifests/sha256-{}", subject.hex());
    let (status, answer) = place.send(&line, kind, index.to_string().as_bytes());
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&answer));
}
