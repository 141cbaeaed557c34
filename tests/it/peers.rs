//! Programs of others against ours: Debian's docker-registry, plain and with S3 behind it, and skopeo,
//! which shares no line with any of our clients.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dsk_registry::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Daemon, Registry, free_port, home};
use crate::tidy::repository;

/// How long a peer may take to answer first.
const START_TIMEOUT: Duration = Duration::from_secs(60);

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The path of a program of others, fetched once into target/peers.
pub(crate) fn peer(program: &str) -> PathBuf {
    let output = Command::new("python3")
        .arg(repository().join("tests/peers.py"))
        .arg(program)
        .stderr(Stdio::piped())
        .output()
        .expect("python3 runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tests/peers.py could not get {program}: {errors}");
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// A server of others; it ends with the value.
pub(crate) struct Server {
    child: Child,
    folder: TempDir,
    pub(crate) address: String,
}

impl Server {
    fn spawn(mut command: Command, folder: TempDir, port: u16) -> Server {
        let log = fs::File::create(folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let address = format!("127.0.0.1:{port}");
        let mut server = Server { child, folder, address };
        let began = Instant::now();
        while TcpStream::connect(&server.address).is_err() {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("{command:?} ended with {status}: {}", server.log());
            }
            assert!(began.elapsed() < START_TIMEOUT, "{command:?} did not listen in time");
            thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Debian's docker-registry over a folder of its own.
    pub(crate) fn docker_registry() -> Server {
        let folder = home();
        let root = folder.path().join("data");
        let storage = format!("  filesystem: {{rootdirectory: {}}}\n", root.display());
        Server::docker_registry_on(&storage, folder)
    }

    /// The same with a bucket in place of the folder: it answers blobs by redirects to the bucket.
    fn docker_registry_on_s3(s3: &Server) -> Server {
        let storage = format!(
            "  s3: {{accesskey: key, secretkey: secret, region: us-east-1, bucket: models, \
             regionendpoint: 'http://{}', secure: false, v4auth: true}}\n",
            s3.address
        );
        Server::docker_registry_on(&storage, home())
    }

    fn docker_registry_on(storage: &str, folder: TempDir) -> Server {
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n{storage}  delete: {{enabled: true}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n"
        );
        let file = folder.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(peer("docker-registry"));
        // A bundle of certificates for AWS that is not there would end it.
        command.arg("serve").arg(file).env_remove("AWS_CA_BUNDLE").env("HOME", folder.path());
        command.env("OTEL_TRACES_EXPORTER", "none");
        Server::spawn(command, folder, port)
    }

    /// A stand-in for S3 with one bucket.
    fn s3() -> Server {
        let (port, folder) = (free_port(), home());
        let mut command = Command::new(peer("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).env("HOME", folder.path());
        let server = Server::spawn(command, folder, port);
        let made = ask(&server.address, "PUT /models");
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
        server
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/library/{name}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("the log of the server at {}:\n{}", self.address, self.log());
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The head of the answer to a request without a body.
fn ask(address: &str, line: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.split_once("\r\n\r\n").map_or(text.clone(), |(head, _)| head.to_owned())
}

/// `skopeo copy` between registries on loopback and layouts; `extra` goes before the places.
fn skopeo_copy(extra: &[&str], from: &str, to: &str) {
    let folder = home();
    let mut command = Command::new(peer("skopeo"));
    command
        .args(["--insecure-policy", "copy", "--quiet", "--preserve-digests"])
        .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
        .args(extra)
        .args([from, to])
        .env("HOME", folder.path())
        .env("XDG_RUNTIME_DIR", folder.path());
    for proxy in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
        command.env_remove(proxy);
    }
    let output = command.output().expect("skopeo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo copy {from} {to}: {errors}");
}

/// An OCI layout that is being written.
struct Layout(PathBuf);

impl Layout {
    fn new(folder: &Path) -> Layout {
        fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout(folder.to_owned())
    }

    /// Stores bytes; returns their descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.0.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Stores an image manifest; returns its descriptor.
    fn image(&self, config: (&str, &[u8]), layers: &[(&str, &[u8])]) -> Value {
        let layers: Vec<Value> =
            layers.iter().map(|(media_type, bytes)| self.blob(media_type, bytes)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blob(config.0, config.1),
            "layers": layers,
        });
        self.blob(OCI_MANIFEST, manifest.to_string().as_bytes())
    }

    /// Names what the descriptor says `v1`; the layout is complete then.
    fn name(&self, mut descriptor: Value) {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": "v1"});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        fs::write(self.0.join("index.json"), index.to_string()).unwrap();
    }

    fn place(&self) -> String {
        format!("oci:{}:v1", self.0.display())
    }

    /// Every blob by its name, manifests included, each hashed; and what `v1` is.
    fn contents(&self) -> (BTreeMap<String, Digest>, String) {
        let blobs = fs::read_dir(self.0.join("blobs/sha256")).unwrap().map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, Digest::of(&fs::read(path).unwrap()))
        });
        let index: Value =
            serde_json::from_slice(&fs::read(self.0.join("index.json")).unwrap()).unwrap();
        (blobs.collect(), index["manifests"][0]["digest"].as_str().unwrap().to_owned())
    }
}

fn tiny(seed: u64) -> Vec<u8> {
    dsk_daemon_engine::gguf::testkit::tiny_model("llama", seed)
}

/// A layout with a small real model under dsk's own layer types.
fn model_layout(folder: &Path, gguf: &[u8]) -> Layout {
    let layout = Layout::new(folder);
    let config =
        br#"{"model_format":"gguf","model_family":"llama","architecture":"amd64","os":"linux"}"#;
    let image = layout.image(
        ("application/vnd.docker.container.image.v1+json", config),
        &[("application/vnd.ollama.image.model", gguf)],
    );
    layout.name(image);
    layout
}

/// Every byte of the daemon's copy of a model file is right.
fn assert_has(daemon: &Daemon, gguf: &[u8]) {
    let file = format!("dsk/models/blobs/sha256-{}", Digest::of(gguf).hex());
    assert!(fs::read(daemon.home.path().join(file)).unwrap() == gguf);
}

/// A daemon with `gguf` under `name`.
pub(crate) fn daemon_with(name: &str, gguf: &[u8]) -> Daemon {
    let daemon = Daemon::start();
    let (file, modelfile) =
        (daemon.home.path().join("m.gguf"), daemon.home.path().join("Modelfile"));
    fs::write(&file, gguf).unwrap();
    fs::write(&modelfile, format!("FROM {}\n", file.display())).unwrap();
    daemon.run(&["create", name, "-f", modelfile.to_str().unwrap()]);
    daemon
}

#[test]
fn skopeo_copies_a_model_into_our_registry_and_out_of_it() {
    let (registry, folder, gguf) = (Registry::start(), home(), tiny(21));
    let source = model_layout(&folder.path().join("in"), &gguf);
    let ours = format!("docker://{}", registry.name("tiny:v1"));
    skopeo_copy(&[], &source.place(), &ours);
    let copy = Layout::new(&folder.path().join("out"));
    skopeo_copy(&[], &ours, &copy.place());
    assert_eq!(copy.contents(), source.contents());
    // And what skopeo pushed is a model to us.
    let daemon = Daemon::start();
    daemon.run(&["pull", &registry.name("tiny:v1")]);
    assert_has(&daemon, &gguf);
}

#[test]
fn skopeo_copies_an_index_with_all_it_names() {
    let (registry, folder) = (Registry::start(), home());
    let source = Layout::new(&folder.path().join("in"));
    let config = |arch: &str| {
        format!(
            r#"{{"architecture":"{arch}","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}}}}"#
        )
    };
    let entries: Vec<Value> = ["amd64", "arm64"]
        .map(|arch| {
            let config = config(arch);
            let mut entry = source.image(
                ("application/vnd.oci.image.config.v1+json", config.as_bytes()),
                &[("application/vnd.oci.image.layer.v1.tar", arch.as_bytes())],
            );
            entry["platform"] = json!({"architecture": arch, "os": "linux"});
            entry
        })
        .into();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    source.name(source.blob(OCI_INDEX, index.to_string().as_bytes()));
    let ours = format!("docker://{}", registry.name("multi:v1"));
    skopeo_copy(&["--all"], &source.place(), &ours);
    let copy = Layout::new(&folder.path().join("out"));
    skopeo_copy(&["--all"], &ours, &copy.place());
    assert_eq!(copy.contents(), source.contents());
}

#[test]
fn skopeo_copies_between_docker_registry_and_ours() {
    let (registry, theirs, folder) = (Registry::start(), Server::docker_registry(), home());
    let source = Layout::new(&folder.path().join("in"));
    // CNCF ModelPack's types: an artifact that is no image to any of the three.
    let image = source.image(
        ("application/vnd.cncf.model.config.v1+json", br#"{"descriptor":{"name":"tiny"}}"#),
        &[
            ("application/vnd.cncf.model.weight.v1.raw", &tiny(22)),
            ("application/vnd.cncf.model.doc.v1.raw", b"do what you like"),
        ],
    );
    source.name(image);
    let (theirs, ours) = (theirs.name("pack:v1"), registry.name("pack:v1"));
    let back = ours.replace("pack:v1", "back:v1");
    skopeo_copy(&[], &source.place(), &format!("docker://{theirs}"));
    skopeo_copy(&[], &format!("docker://{theirs}"), &format!("docker://{ours}"));
    skopeo_copy(&[], &format!("docker://{ours}"), &format!("docker://{back}"));
    let copy = Layout::new(&folder.path().join("out"));
    skopeo_copy(&[], &format!("docker://{back}"), &copy.place());
    assert_eq!(copy.contents(), source.contents());
}

#[test]
fn a_model_goes_through_docker_registry_byte_for_byte() {
    let theirs = Server::docker_registry();
    let (name, gguf) = (theirs.name("tiny:latest"), tiny(23));
    daemon_with(&name, &gguf).run(&["push", &name]);
    let daemon = Daemon::start();
    daemon.run(&["pull", &name]);
    assert_has(&daemon, &gguf);
}

#[test]
fn a_model_goes_through_docker_registry_and_skopeo_as_a_modelpack() {
    let (theirs, ours, folder) = (Server::docker_registry(), Registry::start(), home());
    let (name, gguf) = (theirs.name("tiny:v1"), tiny(27));
    daemon_with(&name, &gguf).run(&["push", "--format", "modelpack", &name]);
    let daemon = Daemon::start();
    daemon.run(&["pull", &name]);
    assert_has(&daemon, &gguf);
    assert!(daemon.run(&["show", &name]).contains("llama"));
    // It is what the specification says, and an independent client carries it to us and back.
    let manifest = daemon.home.path().join("dsk/models/manifests");
    let manifest = manifest.join(format!("{}/library/tiny/v1", theirs.address));
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    assert_eq!(manifest["artifactType"], "application/vnd.cncf.model.manifest.v1+json");
    assert_eq!(
        manifest["layers"][0]["mediaType"], "application/vnd.cncf.model.weight.v1.raw",
        "{manifest}"
    );
    let ours = ours.name("tiny:v1");
    let back = theirs.name("back:v1");
    skopeo_copy(&[], &format!("docker://{name}"), &format!("docker://{ours}"));
    skopeo_copy(&[], &format!("docker://{ours}"), &format!("docker://{back}"));
    let layouts = [(&name, "in"), (&back, "out")].map(|(from, to)| {
        let layout = Layout::new(&folder.path().join(to));
        skopeo_copy(&[], &format!("docker://{from}"), &layout.place());
        layout.contents()
    });
    assert_eq!(layouts[0], layouts[1]);
}

#[test]
fn fault_11_blobs_are_fetched_from_the_host_that_docker_registry_redirects_to() {
    let s3 = Server::s3();
    let theirs = Server::docker_registry_on_s3(&s3);
    let (name, gguf) = (theirs.name("tiny:latest"), tiny(24));
    daemon_with(&name, &gguf).run(&["push", &name]);
    let blob = ask(&theirs.address, &format!("GET /v2/library/tiny/blobs/{}", Digest::of(&gguf)));
    assert!(blob.starts_with("HTTP/1.1 307"), "{blob}");
    assert!(blob.contains(&format!("http://{}/models/", s3.address)), "{blob}");
    let daemon = Daemon::start();
    daemon.run(&["pull", &name]);
    assert_has(&daemon, &gguf);
}

#[test]
fn a_cache_before_docker_registry_answers_when_that_is_gone() {
    let theirs = Server::docker_registry();
    let gguf = tiny(25);
    let pushed = theirs.name("tiny:latest");
    daemon_with(&pushed, &gguf).run(&["push", &pushed]);
    let upstream = format!("http://{}", theirs.address);
    let cache = Registry::start_with(|command, _| {
        command.args(["--upstream", &upstream]);
    });
    let name = cache.name("tiny:latest");
    let first = Daemon::start();
    first.run(&["pull", &name]);
    assert_has(&first, &gguf);
    drop(theirs);
    let second = Daemon::start();
    second.run(&["pull", &name]);
    assert_has(&second, &gguf);
    // It is a copy, not a place to push to.
    let other = cache.name("other:latest");
    first.run(&["cp", &name, &other]);
    let refused = first.dsk().args(["push", &other]).output().unwrap();
    assert!(!refused.status.success());
}

#[test]
fn tokens_let_in_whom_they_name() {
    let (folder, gguf) = (home(), tiny(26));
    let file = folder.path().join("tokens");
    fs::write(&file, "pull pull-pull-pull-pull\npush push-push-push-push\n").unwrap();
    let registry = Registry::start_with(|command, root| {
        command.arg("--root").arg(root).arg("--token-file").arg(&file);
    });
    let source = model_layout(&folder.path().join("in"), &gguf);
    let (name, copy) = (registry.name("tiny:v1"), Layout::new(&folder.path().join("out")));
    let ours = format!("docker://{name}");
    skopeo_copy(&["--dest-creds", "me:push-push-push-push"], &source.place(), &ours);
    skopeo_copy(&["--src-creds", "me:pull-pull-pull-pull"], &ours, &copy.place());
    assert_eq!(copy.contents(), source.contents());
    let answer = ask(&registry.address, "GET /v2/library/tiny/manifests/v1");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("www-authenticate: basic"), "{answer}");
    let daemon = Daemon::start();
    let refused = daemon.dsk().args(["pull", &name]).output().unwrap();
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
}
