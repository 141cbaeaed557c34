//! Manifests of every format and of none: what is pulled, what is refused, and before which byte.

use super::{
    script::{Reply, Script},
    *,
};
use crate::{Manifest, ManifestError, fixture::scratch, media_type};
use expect_test::{Expect, expect};

const WEIGHTS: &[u8] = b"weights in somebody else's wrapping";
const CONFIG: &[u8] =
    br#"{"config":{"format":"gguf","architecture":"llama","parameters":"361.82 M",
    "quantization":"Q4_K_M"},"descriptor":{"createdAt":"2025-01-01T00:00:00Z"}}"#;
const TEXT: &[u8] = b"{{ messages }}";

/// One layer as its manifest has it.
fn layer(media_type: &str, bytes: &[u8], file: &str) -> String {
    format!(
        r#"{{"mediaType":"{media_type}","digest":"{}","size":{},"annotations":{{"org.cncf.model.filepath":"{file}"}}}}"#,
        Digest::of(bytes),
        bytes.len()
    )
}

fn manifest(config_type: &str, layers: &[String]) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"x",
        "config":{{"mediaType":"{config_type}","digest":"{}","size":{}}},"layers":[{}]}}"#,
        Digest::of(CONFIG),
        CONFIG.len(),
        layers.join(",")
    )
}

/// A registry with the manifest and every blob that these tests know.
async fn serving(manifest: String) -> Script {
    Script::start(move |asked| match asked {
        asked if asked.is_manifest() => Reply::new("200 OK", "", manifest.as_bytes()),
        asked => {
            let found = [WEIGHTS, CONFIG, TEXT].into_iter().find(|bytes| asked.is_blob(bytes));
            found.map_or(Reply::new("404 Not Found", "", b""), |bytes| {
                Reply::new("200 OK", "", bytes)
            })
        }
    })
    .await
}

#[tokio::test]
async fn dockers_models_and_modelpacks_are_pulled_as_they_are() {
    let docker = |part: &str| format!("application/vnd.docker.ai.{part}");
    for (config, weights, text) in [
        (docker("model.config.v0.1+json"), docker("gguf.v3"), docker("chat.template.jinja")),
        (docker("model.config.v0.2+json"), docker("gguf.v3"), docker("chat.template.jinja")),
        (
            media_type::MODELPACK_CONFIG.to_owned(),
            media_type::MODELPACK_WEIGHT.to_owned(),
            media_type::MODELPACK_SETTINGS.to_owned(),
        ),
    ] {
        let layers =
            [layer(&weights, WEIGHTS, "m.gguf"), layer(&text, TEXT, "chat_template.jinja")];
        let text = manifest(&config, &layers);
        let script = serving(text.clone()).await;
        let here = scratch();
        let stored = pull(&client(&script.url), &here.store, "m").await.unwrap();
        assert_eq!(stored.bytes, text.as_bytes());
        assert_eq!(stored.layer(media_type::MODEL).unwrap().digest, Digest::of(WEIGHTS));
        assert_eq!(stored.layer(media_type::TEMPLATE).unwrap().digest, Digest::of(TEXT));
        let config = here.store.read_blob(&Digest::of(CONFIG), 1000).unwrap();
        let config = crate::ModelConfig::from_json(&config).unwrap();
        assert_eq!((config.model_family.as_str(), config.file_type.as_str()), ("llama", "Q4_K_M"));
        assert_eq!(
            (config.model_type.as_str(), config.model_format.as_str()),
            ("361.82 M", "gguf")
        );
    }
}

/// Refused by its manifest alone: not a byte of a blob is asked for.
async fn refused(manifest: String, expected: Expect) {
    let script = serving(manifest).await;
    let here = scratch();
    let error = pull(&client(&script.url), &here.store, "m").await.unwrap_err();
    expected.assert_eq(&error.to_string().replace(&Digest::of(WEIGHTS).to_string(), "DIGEST"));
    assert_eq!(script.requests().len(), 1);
    assert!(here.store.list().unwrap().is_empty());
}

#[tokio::test]
async fn fault_16_archives_are_refused_and_never_unpacked() {
    for media_type in [
        "application/vnd.cncf.model.weight.v1.tar",
        "application/vnd.cncf.model.weight.v1.tar+gzip",
        "application/vnd.cncf.model.doc.v1.tar+zstd",
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/zip",
    ] {
        let expected = format!(
            "m:latest cannot be used: its layer DIGEST is packed ({media_type}); dsk takes weights as \
             they are and unpacks nothing"
        );
        let layers = [layer(media_type, WEIGHTS, "../../etc/cron.d/x.gguf")];
        let script = serving(manifest("application/x", &layers)).await;
        let error = pull(&client(&script.url), &scratch().store, "m").await.unwrap_err();
        let error = error.to_string().replace(&Digest::of(WEIGHTS).to_string(), "DIGEST");
        assert_eq!(error, expected);
        assert_eq!(script.requests().len(), 1);
    }
}

/// Archives that would write outside of any folder, one of them a bomb, under a type that says they are
/// weights: they are stored as the bytes that they are, and nothing else appears anywhere.
#[tokio::test]
async fn fault_16_an_archive_that_poses_as_weights_stays_the_bytes_that_it_is() {
    for archive in [tar(), gzip(), zip()] {
        let digest = Digest::of(&archive);
        let layers = [layer(media_type::MODEL, &archive, "../../escaped")];
        let text = manifest("application/x", &layers);
        let (served, body) = (archive.clone(), text.clone());
        let script = Script::start(move |asked| match asked {
            asked if asked.is_manifest() => Reply::new("200 OK", "", body.as_bytes()),
            asked if asked.is_blob(&served) => Reply::new("200 OK", "", &served),
            _ => Reply::new("200 OK", "", CONFIG),
        })
        .await;
        let outer = tempfile::tempdir().unwrap();
        let store = Store::open(&outer.path().join("a/b")).unwrap();
        pull(&client(&script.url), &store, "m").await.unwrap();
        assert_eq!(store.read_blob(&digest, 1 << 20).unwrap(), archive);
        let mut found = Vec::new();
        files_below(outer.path(), &mut found);
        let blob = |digest: Digest| format!("a/b/blobs/sha256-{}", digest.hex());
        let mut expected = [blob(digest), blob(Digest::of(CONFIG))].to_vec();
        expected.push("a/b/manifests/registry.ollama.ai/library/m/latest".to_owned());
        expected.sort();
        let found: Vec<_> = found
            .iter()
            .map(|path| path.strip_prefix(outer.path()).unwrap().to_str().unwrap().to_owned())
            .filter(|path| !path.starts_with("a/b/dsk"))
            .collect();
        assert_eq!(found, expected);
    }
    // What unpacks is not even here.
    let depends = include_str!("../../../Cargo.toml");
    for name in ["tar", "zip", "flate2", "zstd", "libarchive", "xz2", "bzip2"] {
        let depends_on =
            |line: &str| line.starts_with(name) && line[name.len()..].starts_with(['.', ' ']);
        assert!(!depends.lines().any(depends_on), "{name}");
    }
}

fn files_below(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        match path.symlink_metadata().unwrap().is_dir() {
            true => files_below(&path, found),
            false => found.push(path),
        }
    }
}

/// A file, a link and a device, each above the folder that it would be unpacked in.
fn tar() -> Vec<u8> {
    let entry = |name: &str, kind: u8, link: &str, body: &[u8]| {
        let mut block = [0u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000644");
        block[124..135].copy_from_slice(format!("{:011o}", body.len()).as_bytes());
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        block[257..263].copy_from_slice(b"ustar\0");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let mut all = block.to_vec();
        all.extend(body);
        all.resize(all.len().next_multiple_of(512), 0);
        all
    };
    let mut all = entry("../../escaped", b'0', "", b"out");
    all.extend(entry("link", b'2', "/etc/passwd", b""));
    all.extend(entry("device", b'3', "", b""));
    all.resize(all.len() + 1024, 0);
    all
}

/// A stored block behind the header of gzip, which claims to unpack to four gigabytes.
fn gzip() -> Vec<u8> {
    let mut all = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3];
    all.extend(b"../../escaped\0");
    all.extend([1, 3, 0, 0xfc, 0xff]);
    all.extend(b"out");
    all.extend([0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    all
}

/// One stored file, in its own header and in the directory at the end.
fn zip() -> Vec<u8> {
    let name = b"../../escaped";
    let sizes = [3u32.to_le_bytes(), 3u32.to_le_bytes()].concat();
    let mut all = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    all.extend(&sizes);
    all.extend([name.len() as u8, 0, 0, 0]);
    all.extend(name);
    all.extend(b"out");
    let start = all.len() as u32;
    all.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
    all.extend(&sizes);
    all.extend([name.len() as u8, 0]);
    all.extend([0; 16]);
    all.extend(name);
    let length = all.len() as u32 - start;
    all.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    all.extend(length.to_le_bytes());
    all.extend(start.to_le_bytes());
    all.extend([0, 0]);
    all
}

#[tokio::test]
async fn weights_that_dsk_cannot_run_are_named() {
    let weight = media_type::MODELPACK_WEIGHT;
    let two = [
        layer(weight, WEIGHTS, "m-00001-of-00003.gguf"),
        layer(weight, TEXT, "m-00003-of-00003.gguf"),
    ];
    refused(
        manifest("application/x", &two),
        expect!["m:latest cannot be used: its weights are in 2 files, which are not all parts of one model: m-00001-of-00003.gguf, m-00003-of-00003.gguf"],
    )
    .await;
    refused(
        manifest("application/x", &[layer(weight, WEIGHTS, "model.safetensors")]),
        expect!["m:latest cannot be used: its weights (model.safetensors) are not in GGUF, the one format that dsk runs"],
    )
    .await;
}

#[tokio::test]
async fn fault_14_digests_and_sizes_that_cannot_be_are_refused_before_a_download() {
    let weight = media_type::MODEL;
    let other_size = layer(weight, WEIGHTS, "").replace("\"size\":35", "\"size\":36");
    refused(
        manifest("application/x", &[layer(weight, WEIGHTS, ""), other_size]),
        expect!["the manifest of m:latest cannot be used: the manifest's sizes are impossible: DIGEST is listed with two sizes"],
    )
    .await;
    let digest = Digest::of(WEIGHTS).to_string();
    let with = |text: &str| {
        manifest("application/x", &[layer(weight, WEIGHTS, "").replace(&digest, text)])
    };
    refused(
        with("sha512:00"),
        expect![[r#"the manifest of m:latest cannot be used: the manifest is malformed: digest "sha512:00" is not a sha256 digest (expected sha256:<64 hex digits>) at line 2 column 221"#]],
    )
    .await;
    refused(
        with("blake3:00"),
        expect![[r#"the manifest of m:latest cannot be used: the manifest is malformed: digest "blake3:00" is not a sha256 digest (expected sha256:<64 hex digits>) at line 2 column 221"#]],
    )
    .await;
    let negative = with(&digest).replace("\"size\":35", "\"size\":-1");
    let script = serving(negative).await;
    let error = pull(&client(&script.url), &scratch().store, "m").await.unwrap_err();
    assert!(error.to_string().contains("-1"), "{error}");
    let huge = with(&digest).replace("\"size\":35", "\"size\":18446744073709551615");
    refused(
        huge,
        expect!["the manifest of m:latest cannot be used: the manifest's sizes are impossible: their sum is too large"],
    )
    .await;
}

#[tokio::test]
async fn fault_15_no_digest_of_a_manifest_leaves_the_store() {
    let digest = Digest::of(WEIGHTS).to_string();
    let long = "a".repeat(65);
    for text in [
        "sha256:../../../../etc/passwd",
        "sha256:..%2f..%2fx",
        "sha256:\\u0000",
        "sha256:C:\\\\windows",
        "../../x",
        "",
        &format!("sha256:{long}"),
        &digest.to_uppercase(),
        &format!("{digest}/../x"),
    ] {
        let layers = [layer(media_type::MODEL, WEIGHTS, "").replace(&digest, text)];
        let script = serving(manifest("application/x", &layers)).await;
        let here = scratch();
        let error = pull(&client(&script.url), &here.store, "m").await.unwrap_err();
        let malformed = |error: &ClientError| {
            let ClientError::Integrity(IntegrityError::Manifest { error, .. }) = error else {
                return false;
            };
            matches!(error, ManifestError::Malformed(_))
        };
        assert!(malformed(&error), "{text}: {error}");
        assert_eq!(script.requests().len(), 1, "{text}");
    }
    // A file's name in an annotation makes no path, whatever it says.
    for file in ["../../../tmp/x.gguf", "/etc/passwd.gguf", "C:\\\\x.gguf", "..%2fx.gguf"] {
        let layers = [layer(media_type::MODELPACK_WEIGHT, WEIGHTS, file)];
        let script = serving(manifest("application/x", &layers)).await;
        let here = scratch();
        pull(&client(&script.url), &here.store, "m").await.unwrap();
        let blobs = std::fs::read_dir(here.store.root().join("blobs")).unwrap();
        for entry in blobs {
            let file = entry.unwrap().file_name().into_string().unwrap();
            assert!(file.starts_with("sha256-") || file.starts_with("dsk"), "{file}");
        }
    }
}

#[tokio::test]
async fn fault_17_manifests_are_bounded_in_every_direction() {
    let one = layer(media_type::LICENSE, WEIGHTS, "");
    let many = manifest("application/x", &vec![one; Manifest::LAYERS_MAX + 1]);
    let deep = manifest("application/x", &[]).replace("\"x\"", &"[".repeat(100_000));
    let long = manifest("application/x", &[]) + &" ".repeat(Manifest::BYTES_MAX);
    for (body, reason) in
        [(many, "4097 layers"), (deep, "malformed"), (long, "larger than 4194304 bytes")]
    {
        let started = std::time::Instant::now();
        let script = serving(body).await;
        let error = pull(&client(&script.url), &scratch().store, "m").await.unwrap_err();
        assert!(error.to_string().contains(reason), "{reason}: {error}");
        assert_eq!(script.requests().len(), 1);
        assert!(started.elapsed() < Duration::from_secs(5), "{reason}");
    }
    // One that does not end is left as soon as it is too long.
    let endless = Script::start(|_| {
        Reply::raw("200 OK", "", &vec![b' '; Manifest::BYTES_MAX + (1 << 20)]).then_stall()
    })
    .await;
    let error = pull(&client(&endless.url), &scratch().store, "m").await.unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
}
