use super::*;
use crate::fixture::{name, put_model, scratch};

const WEIGHTS: &[u8] = b"weights on their way through a folder";

#[test]
fn a_model_comes_back_byte_for_byte() {
    let (here, there, folder) = (scratch(), scratch(), tempfile::tempdir().unwrap());
    let before = put_model(&here.store, "m:1", WEIGHTS);
    let digest = export(&here.store, &name("m:1"), folder.path(), Format::OciLayout).unwrap();
    assert_eq!(digest, before.digest);
    let after = import(&there.store, folder.path(), None, &name("n")).unwrap();
    assert_eq!(after.bytes, before.bytes);
    assert_eq!(there.store.read_blob(&Digest::of(WEIGHTS), 100).unwrap(), WEIGHTS);
}

#[test]
fn a_modelpack_comes_back_as_the_same_model() {
    let (here, there, folder) = (scratch(), scratch(), tempfile::tempdir().unwrap());
    let before = put_model(&here.store, "m:1", WEIGHTS);
    let packed = export(&here.store, &name("m:1"), folder.path(), Format::ModelPack).unwrap();
    let after = import(&there.store, folder.path(), Some("1"), &name("m:1")).unwrap();
    assert_eq!(after.digest, packed);
    assert_ne!(after.digest, before.digest);
    for kind in [media_type::MODEL, media_type::LICENSE] {
        assert_eq!(after.layer(kind).unwrap().digest, before.layer(kind).unwrap().digest, "{kind}");
    }
    assert_eq!(after.manifest.content_type(), media_type::OCI_MANIFEST);
    // Packing what is packed changes nothing, and packing again gives the same.
    let again = tempfile::tempdir().unwrap();
    let twice = export(&there.store, &name("m:1"), again.path(), Format::ModelPack).unwrap();
    assert_eq!(twice, packed);
    let once = export(&here.store, &name("m:1"), folder.path(), Format::ModelPack).unwrap();
    assert_eq!(once, packed);
}

#[test]
fn several_models_are_told_apart_by_their_tags() {
    let (here, there, folder) = (scratch(), scratch(), tempfile::tempdir().unwrap());
    for (model, weights) in [("m:1", b"one"), ("m:2", b"two"), ("m:1", b"uno")] {
        put_model(&here.store, model, weights);
        export(&here.store, &name(model), folder.path(), Format::OciLayout).unwrap();
    }
    let error = import(&there.store, folder.path(), None, &name("m")).unwrap_err().to_string();
    assert!(error.ends_with("has 2 models: 2, 1; say which"), "{error}");
    assert!(import(&there.store, folder.path(), Some("3"), &name("m")).is_err());
    let one = import(&there.store, folder.path(), Some("1"), &name("m")).unwrap();
    assert_eq!(one.layer(media_type::MODEL).unwrap().digest, Digest::of(b"uno"));
}

#[test]
fn an_export_believes_neither_the_store_nor_the_folder() {
    let (here, folder) = (scratch(), tempfile::tempdir().unwrap());
    put_model(&here.store, "m", WEIGHTS);
    let digest = Digest::of(WEIGHTS);
    let out = folder.path().join("blobs/sha256").join(digest.hex());
    for format in [Format::OciLayout, Format::ModelPack] {
        let export = || export(&here.store, &name("m"), folder.path(), format);
        // What an earlier export left is written again where it is not the blob.
        for left in [b"" as &[u8], &WEIGHTS[1..], &[WEIGHTS, b"!"].concat(), &[0; WEIGHTS.len()]] {
            fs::create_dir_all(out.parent().unwrap()).unwrap();
            fs::write(&out, left).unwrap();
            export().unwrap();
            assert_eq!(fs::read(&out).unwrap(), WEIGHTS, "{format:?}");
        }
        let number =
            |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        let before = number(&out);
        export().unwrap();
        assert_eq!(number(&out), before, "what is right is not written again");
        fs::remove_file(&out).unwrap();
        fs::write(here.store.blob_path(&digest), [&WEIGHTS[1..], b"x"].concat()).unwrap();
        let error = export().unwrap_err();
        assert!(matches!(error, LayoutError::Store(StoreError::Corrupt { .. })), "{error}");
        let names = |folder: &Path| -> Vec<_> {
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        let left = names(out.parent().unwrap());
        assert!(!out.exists() && left.iter().all(|name| name.len() == 64), "{left:?}");
        fs::write(here.store.blob_path(&digest), WEIGHTS).unwrap();
    }
}

/// Exports a model, spoils the layout and tries to import it; nothing may have come of it.
fn spoilt(spoil: impl Fn(&Path)) -> String {
    let (here, there, folder) = (scratch(), scratch(), tempfile::tempdir().unwrap());
    put_model(&here.store, "m", WEIGHTS);
    export(&here.store, &name("m"), folder.path(), Format::OciLayout).unwrap();
    spoil(folder.path());
    let error = import(&there.store, folder.path(), None, &name("m")).unwrap_err().to_string();
    assert!(there.store.list().unwrap().is_empty());
    assert!(!there.store.has(&Digest::of(WEIGHTS)), "{error}");
    error
}

#[test]
fn a_layout_is_not_believed() {
    let blob = |folder: &Path| folder.join("blobs/sha256").join(Digest::of(WEIGHTS).hex());
    let flip = |folder: &Path| fs::write(blob(folder), [WEIGHTS[1..].to_vec(), vec![0]].concat());
    assert!(spoilt(|folder| flip(folder).unwrap()).contains("hash"), "flipped");
    let cut = |folder: &Path| fs::write(blob(folder), &WEIGHTS[1..]).unwrap();
    assert!(spoilt(cut).contains("36 bytes, 37 in the manifest"));
    let link = |folder: &Path| {
        fs::remove_file(blob(folder)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", blob(folder)).unwrap();
    };
    assert!(spoilt(link).contains("it is not a plain file"));
    assert!(spoilt(|folder| fs::remove_file(blob(folder)).unwrap()).contains("No such file"));
    let index = |text: &'static str| {
        spoilt(move |folder| fs::write(folder.join("index.json"), text).unwrap())
    };
    assert!(index("[]").contains("malformed"));
    assert!(index(r#"{"manifests":[{"digest":"sha256:../../x"}]}"#).contains("malformed"));
    assert!(index(r#"{"manifests":[]}"#).contains("has no model"));
    assert!(spoilt(|folder| fs::remove_file(folder.join("oci-layout")).unwrap()).contains("oci-"));
    let version = |folder: &Path| fs::write(folder.join("oci-layout"), "{}").unwrap();
    assert!(spoilt(version).contains("not of version 1.0.0"));
}
