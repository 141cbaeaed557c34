//! Choices among what an embedded registry serves, for machines of any size.

use dsk_daemon_engine::KvFormat;
use dsk_daemon_engine::gguf::testkit::families;
use dsk_registry::server::{ServerOptions, serve};
use dsk_registry::{ClientConfig, Layer, Manifest, Store, media_type};
use expect_test::expect;
use tempfile::TempDir;

use super::*;

/// A registry of models `m:<tag>` with these weights, and a client for which it is the default one.
async fn registry(models: &[(&str, &[u8])]) -> (TempDir, Client) {
    let models: Vec<_> = models.iter().map(|(name, weights)| (*name, vec![*weights])).collect();
    registry_of(&models).await
}

/// The same of models in several files.
async fn registry_of(models: &[(&str, Vec<&[u8]>)]) -> (TempDir, Client) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    for (name, files) in models {
        let layer = |media_type: &str, bytes: &[u8]| {
            Layer::new(media_type, store.put_blob(bytes).unwrap(), bytes.len() as u64)
        };
        let config = layer(media_type::CONFIG, b"{}").descriptor();
        let manifest = Manifest::new(
            config,
            files.iter().map(|file| layer(media_type::MODEL, file)).collect(),
        );
        store.put_manifest(&Name::parse(name).unwrap(), &manifest.to_json()).unwrap();
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, store, ServerOptions::default(), std::future::pending()));
    let registry = Some(url.parse().unwrap());
    let client = Client::new(ClientConfig { registry, ..ClientConfig::default() }).unwrap();
    (folder, client)
}

fn tiny(name: &str) -> Vec<u8> {
    families::family(name, 1).unwrap()
}

/// Two variants, of which the better one takes more.
async fn two() -> (TempDir, Client) {
    let (small, large) = (tiny("qwen2-tied"), tiny("qwen2"));
    registry(&[("m:7b", &small), ("m:7b-q4_K_M", &small), ("m:7b-q8_0", &large)]).await
}

fn machine(bytes: u64) -> Machine {
    let mut machine = Machine::default();
    (machine.memory.total, machine.memory.available) = (bytes.max(1), bytes);
    machine.cpu.threads = 1;
    machine
}

async fn choose(client: &Client, name: &str, asked: &Asked) -> Result<Choice, VariantError> {
    let name = Name::parse(name).unwrap();
    Source { client, name: &name, insecure: false }.choose(asked).await
}

fn asked(bytes: u64, quant: Option<&str>) -> Asked {
    let quant = quant.map(str::to_owned);
    // In half precision always: otherwise shrinking keys and values would come before other weights.
    let ask = Ask { kv: Some(KvFormat::F16), ..Ask::default() };
    Asked { quant, machine: Planned::Elsewhere(Arc::new(machine(bytes))), ask }
}

/// The variant that is chosen for a machine of so much memory; empty where none fits.
async fn variant(client: &Client, bytes: u64) -> String {
    match choose(client, "m:7b", &asked(bytes, None)).await {
        Ok(choice) => choice.fit.unwrap().variant,
        Err(VariantError::Misfit { .. }) => String::new(),
        Err(error) => panic!("{error}"),
    }
}

/// Memory for which the choice is none of these, and half a kilobyte more, for which it is.
async fn threshold(client: &Client, wanted: &[&str]) -> (u64, u64) {
    let (mut too_little, mut enough) = (0, 16 << 20);
    while enough - too_little > 512 {
        let middle = too_little + (enough - too_little) / 2;
        match wanted.contains(&&*variant(client, middle).await) {
            true => enough = middle,
            false => too_little = middle,
        }
    }
    (too_little, enough)
}

#[tokio::test]
async fn memory_decides() {
    let (_folder, client) = two().await;
    let (less, best) = threshold(&client, &["Q8_0"]).await;
    let (none, any) = threshold(&client, &["Q8_0", "Q4_K_M"]).await;
    // The better one is larger by its output matrix: 300 tokens by 64 numbers of four bytes, in RAM of
    // which a twentieth is left alone.
    assert!((76_000..86_000).contains(&(best - any)), "{any} {best}");
    assert_eq!(variant(&client, less).await, "Q4_K_M");
    let error = choose(&client, "m:7b", &asked(none, None)).await.unwrap_err();
    let VariantError::Misfit { misfit, smaller, .. } = error else { panic!("{error}") };
    assert_eq!((misfit.variant.as_str(), smaller), ("Q4_K_M", None));
    assert!((1..=512).contains(&misfit.shortfall), "{misfit:?}");
}

#[tokio::test]
async fn a_choice_says_which_and_why_in_two_lines() {
    let (_folder, client) = two().await;
    let choice = choose(&client, "m:7b", &asked(1 << 30, None)).await.unwrap();
    assert_eq!(choice.from, Some(Reference::Tag("7b-q8_0".to_owned())));
    expect![[r#"
        Q8_0 of Q4_K_M, Q8_0: 0.00 GB with 512 tokens of context
        Q8_0 is the best quality that is fast and fits in RAM"#]]
    .assert_eq(&choice.lines.join("\n"));
    let fit = choice.fit.as_ref().unwrap();
    assert!(!fit.reasons.iter().any(|reason| reason.contains("library")), "{:?}", fit.reasons);
}

#[tokio::test]
async fn a_quantization_by_name() {
    let (_folder, client) = two().await;
    let choice = choose(&client, "m:7b", &asked(1 << 30, Some("q4_k_m"))).await.unwrap();
    assert_eq!(choice.from, Some(Reference::Tag("7b-q4_K_M".to_owned())));
    let error = choose(&client, "m:7b", &asked(1 << 30, Some("q5_K_M"))).await.unwrap_err();
    expect!["m:7b does not come in Q5_K_M; its source offers Q4_K_M, Q8_0"]
        .assert_eq(&error.to_string());
    let error = choose(&client, "m:8b", &asked(1 << 30, Some("nonsense"))).await.unwrap_err();
    expect!["m:8b does not come in nonsense; its source offers one thing only"]
        .assert_eq(&error.to_string());
    // One that does not fit is not replaced by another, and the other is named.
    let (less, _) = threshold(&client, &["Q8_0"]).await;
    let error = choose(&client, "m:7b", &asked(less, Some("Q8_0"))).await.unwrap_err();
    let VariantError::Misfit { misfit, .. } = &error else { panic!("{error}") };
    assert_eq!(misfit.alternative, Some(("Q4_K_M".to_owned(), 512)));
}

#[tokio::test]
async fn a_name_that_says_it_all_is_taken_literally() {
    let (_folder, client) = two().await;
    for quant in [None, Some("q8_0")] {
        let choice = choose(&client, "m:7b-q8_0", &asked(1, quant)).await.unwrap();
        assert!(choice.from.is_none() && choice.lines.is_empty() && choice.fit.is_none());
    }
    let error = choose(&client, "m:7b-q8_0", &asked(1, Some("q4_0"))).await.unwrap_err();
    expect!["m:7b-q8_0 is Q8_0, and Q4_0 was asked for; leave one of them away"]
        .assert_eq(&error.to_string());
    // So is one of which there is a single thing, and one that is not there.
    let (_folder, client) = registry(&[("m:1b", b"whatever")]).await;
    for name in ["m:1b", "m:2b"] {
        assert!(choose(&client, name, &asked(1, None)).await.unwrap().from.is_none());
    }
}

#[tokio::test]
async fn without_a_readable_header_the_library_is_asked() {
    let files: [(&str, &[u8]); 2] =
        [("deepseek-r1:7b-q4_K_M", b"GGUF, or so it says"), ("x:7b-q8_0", b"not a model")];
    let (_folder, client) = registry(&files).await;
    let choice = choose(&client, "deepseek-r1:7b", &asked(16 << 30, None)).await.unwrap();
    let fit = choice.fit.unwrap();
    assert!(fit.reasons.iter().any(|reason| reason.contains("the library's")), "{:?}", fit.reasons);
    let error = choose(&client, "x:7b", &asked(16 << 30, None)).await.unwrap_err();
    assert!(matches!(error, VariantError::Unplannable { .. }), "{error}");
}

/// The beginning of a file whose header is a text of so many bytes, and not much more.
fn header_of(text_bytes: u64) -> Vec<u8> {
    let key = b"general.name";
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend([0_u64, 1, key.len() as u64].map(u64::to_le_bytes).concat());
    bytes.extend(key);
    bytes.extend(8_u32.to_le_bytes());
    bytes.extend(text_bytes.to_le_bytes());
    bytes
}

#[tokio::test]
async fn the_headers_of_all_files_share_one_bound() {
    let large = |seed: u8| {
        let mut bytes = header_of(12 << 20);
        bytes.resize(bytes.len() + (12 << 20), b'a' + seed);
        bytes
    };
    let (a, b, c) = (large(0), large(1), large(2));
    // It says that more is to come than there is.
    let endless = [header_of(1 << 40), vec![b'x'; 2 << 20]].concat();
    let whole: [&[u8]; 3] = [&a, &b, &c];
    for (files, expected) in [
        (whole.to_vec(), "its header does not end within 8388"),
        (vec![&endless, &a], "its header does not end within 2097"),
        (whole[..2].to_vec(), "split"),
    ] {
        let (_folder, client) = registry_of(&[("x:7b-q8_0", files)]).await;
        let error = choose(&client, "x:7b", &asked(16 << 30, None)).await.unwrap_err();
        let VariantError::Unplannable { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn a_smaller_size_is_named_with_its_registry() {
    let ask = Ask::default();
    let named = |name: &str, gigabytes: u64| {
        smaller(&Name::parse(name).unwrap(), &machine(gigabytes * 1_000_000_000), &ask)
    };
    assert_eq!(named("deepseek-r1:70b", 16).as_deref(), Some("deepseek-r1:14b"));
    let lan = named("lan:5000/library/deepseek-r1:70b", 4);
    assert_eq!(lan.as_deref(), Some("lan:5000/library/deepseek-r1:1.5b"));
    assert_eq!(named("deepseek-r1:1.5b", 1), None);
    assert_eq!(named("someone/deepseek-r1:70b", 16), None);
}
