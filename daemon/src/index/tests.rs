use std::collections::BTreeMap;

use dsk_daemon_engine::gguf::testkit::tiny_model;
use dsk_registry::{Layer, Manifest, media_type};

use super::*;

struct Files {
    folder: tempfile::TempDir,
    store: Store,
}

impl Files {
    fn new() -> Files {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("models")).unwrap();
        Files { folder, store }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("dsk.db")
    }

    fn add(&self, name: &str, config: &str, weights: &[u8]) {
        let blob = |media_type: &str, bytes: &[u8]| {
            Layer::new(media_type, self.store.put_blob(bytes).unwrap(), bytes.len() as u64)
        };
        let config = blob(media_type::CONFIG, config.as_bytes()).descriptor();
        let template = blob(media_type::TEMPLATE, b"{{ .Suffix }}{{ .Prompt }}");
        let layers = vec![blob(media_type::MODEL, weights), template];
        let manifest = Manifest::new(config, layers).to_json();
        self.store.put_manifest(&Name::parse(name).unwrap(), &manifest).unwrap();
    }
}

fn shown(models: &[IndexedModel]) -> Vec<String> {
    let mut shown: Vec<_> = models
        .iter()
        .map(|model| format!("{} {} {}", model.name, model.family, model.capabilities.join("+")))
        .collect();
    shown.sort();
    shown
}

#[tokio::test]
async fn the_header_says_what_the_configuration_does_not() {
    let files = Files::new();
    files.add("a", "{}", &tiny_model("llama", 1));
    files.add("b", r#"{"model_family":"qwen2","model_type":"7.6B"}"#, b"no GGUF");
    let index = Index::open(&files.path()).unwrap();
    let models = index.refresh(&files.store).await.unwrap();
    assert_eq!(
        shown(&models),
        ["a:latest llama completion+insert", "b:latest qwen2 completion+insert"]
    );
    let a = models.iter().find(|model| model.name.model() == "a").unwrap();
    assert!(a.context_length.is_some_and(|length| length > 0));
    assert!(!a.parameter_size.is_empty() && !a.quantization.is_empty(), "{a:?}");
    assert_eq!(a.format, "gguf");
    assert_eq!(index.models().await.unwrap(), models);
}

#[tokio::test]
async fn only_what_changed_is_read_again() {
    let files = Files::new();
    files.add("a", r#"{"model_family":"one"}"#, b"1");
    files.add("b", r#"{"model_family":"two"}"#, b"2");
    let index = Index::open(&files.path()).unwrap();
    index.refresh(&files.store).await.unwrap();
    // A mark that only a second reading would wipe out.
    lock(&index.connection).execute("UPDATE models SET family = 'marked'", []).unwrap();
    files.add("a", r#"{"model_family":"three"}"#, b"1");
    files.add("c", r#"{"model_family":"four"}"#, b"3");
    let families = |models: &[IndexedModel]| {
        models
            .iter()
            .map(|m| (m.name.model().to_owned(), m.family.clone()))
            .collect::<BTreeMap<_, _>>()
    };
    let models = index.refresh(&files.store).await.unwrap();
    let expected = [("a", "three"), ("b", "marked"), ("c", "four")];
    let expected = expected.map(|(name, family)| (name.to_owned(), family.to_owned()));
    assert_eq!(families(&models), BTreeMap::from(expected));
    files.store.remove(&Name::parse("b").unwrap()).unwrap();
    assert_eq!(index.refresh(&files.store).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_model_that_lacks_a_file_is_listed_as_damaged() {
    let files = Files::new();
    files.add("a", "{}", b"1");
    files.add("b", "{}", b"2");
    let index = Index::open(&files.path()).unwrap();
    let damaged = async || {
        let models = index.refresh(&files.store).await.unwrap();
        let names = models.iter().filter(|one| one.damaged).map(|one| one.name.model().to_owned());
        names.collect::<Vec<_>>()
    };
    assert!(damaged().await.is_empty());
    std::fs::remove_file(files.store.blob_path(&Digest::of(b"2"))).unwrap();
    assert_eq!(damaged().await, ["b"]);
    files.store.put_blob(b"2").unwrap();
    assert!(damaged().await.is_empty());
}

#[tokio::test]
async fn what_was_away_at_the_first_look_is_described_once_it_is_back() {
    let files = Files::new();
    files.add("a", "{}", &tiny_model("llama", 1));
    let name = Name::parse("a").unwrap();
    let weights = files.store.manifest(&name).unwrap().unwrap().manifest.layers[0].digest;
    let (path, aside) = (files.store.blob_path(&weights), files.folder.path().join("aside"));
    std::fs::rename(&path, &aside).unwrap();
    let index = Index::open(&files.path()).unwrap();
    assert_eq!(shown(&index.refresh(&files.store).await.unwrap()), ["a:latest  "]);
    std::fs::rename(&aside, &path).unwrap();
    let models = index.refresh(&files.store).await.unwrap();
    assert_eq!(shown(&models), ["a:latest llama completion+insert"]);
}

#[test]
fn a_manifest_that_the_disk_does_not_give_is_looked_at_again() {
    let files = Files::new();
    files.add("a", "{}", b"1");
    let manifest = files.store.root().join("manifests/registry.ollama.ai/library/a/latest");
    let stamp = || files.store.stamps().unwrap().remove(0);
    assert!(Look::take(&files.store, stamp()).lasts);
    std::fs::write(&manifest, "{").unwrap();
    assert!(Look::take(&files.store, stamp()).lasts);
    // A file that is there, and gives an error to whoever reads its first byte.
    std::fs::remove_file(&manifest).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", &manifest).unwrap();
    let look = Look::take(&files.store, stamp());
    assert!(!look.lasts && look.described.is_none());
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_is_no_model_until_it_can() {
    let files = Files::new();
    files.add("a", "{}", b"1");
    let path = files.store.root().join("manifests/registry.ollama.ai/library/a/latest");
    let whole = std::fs::read(&path).unwrap();
    let index = Index::open(&files.path()).unwrap();
    for (bytes, count) in [(b"{".as_slice(), 0), (&whole, 1)] {
        std::fs::write(&path, bytes).unwrap();
        for _ in 0..2 {
            assert_eq!(index.refresh(&files.store).await.unwrap().len(), count);
        }
    }
}

#[tokio::test]
async fn without_the_database_only_history_is_lost() {
    let files = Files::new();
    files.add("a", "{}", &tiny_model("llama", 1));
    files.add("b", r#"{"model_family":"qwen2"}"#, b"2");
    let index = Index::open(&files.path()).unwrap();
    let before = index.refresh(&files.store).await.unwrap();
    index.record_use(&before[0].name, &Usage::default()).await.unwrap();
    drop(index);
    for suffix in ["", "-wal", "-shm"] {
        let _gone = std::fs::remove_file(format!("{}{suffix}", files.path().display()));
    }
    let index = Index::open(&files.path()).unwrap();
    assert_eq!(index.refresh(&files.store).await.unwrap(), before);
    assert!(index.usage().await.unwrap().is_empty());
}

#[tokio::test]
async fn usage_is_counted_and_survives() {
    let files = Files::new();
    let (a, usage) = (
        Name::parse("a").unwrap(),
        Usage { prompt_tokens: 3, output_tokens: 4, ..Usage::default() },
    );
    let index = Index::open(&files.path()).unwrap();
    index.record_use(&a, &usage).await.unwrap();
    index.record_use(&a, &usage).await.unwrap();
    drop(index);
    let used = Index::open(&files.path()).unwrap().usage().await.unwrap();
    let figures: Vec<_> =
        used.iter().map(|u| (u.name.clone(), u.times, u.prompt_tokens, u.output_tokens)).collect();
    assert_eq!(figures, [(a, 2, 6, 8)]);
}

#[tokio::test]
async fn a_useless_file_is_moved_aside_and_made_anew() {
    let foreign = |sql: &'static str| {
        move |path: &Path| Connection::open(path).unwrap().execute_batch(sql).unwrap()
    };
    type Spoil = Box<dyn Fn(&Path)>;
    let spoils: [(&str, Spoil); 4] = [
        ("no database", Box::new(|path| std::fs::write(path, "x".repeat(5000)).unwrap())),
        (
            "cut",
            Box::new(|path| {
                let bytes = std::fs::read(path).unwrap();
                std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
            }),
        ),
        ("a later version", Box::new(foreign("PRAGMA user_version = 9"))),
        ("other columns", Box::new(foreign("DROP TABLE models; CREATE TABLE models (x)"))),
    ];
    for (what, spoil) in spoils {
        let files = Files::new();
        files.add("a", "{}", b"1");
        drop(Index::open(&files.path()).unwrap());
        spoil(&files.path());
        let index = Index::open(&files.path()).expect(what);
        assert_eq!(index.refresh(&files.store).await.unwrap().len(), 1, "{what}");
        let aside = std::fs::read_dir(files.folder.path()).unwrap();
        let names = aside.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(names.into_iter().any(|name| name.contains(".broken-")), "{what}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let error = Index::open(Path::new("/proc/nonexistent/dsk.db")).unwrap_err().to_string();
    assert!(error.contains("/proc/nonexistent/dsk.db"), "{error}");
}
