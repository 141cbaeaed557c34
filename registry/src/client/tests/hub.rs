//! Repositories at Hugging Face whose models are in several files.

use super::{
    script::{Asked, Reply, Script},
    *,
};
use crate::fixture::{assert_whole, name, scratch};
use serde_json::{Value, json};

const PARTS: [&[u8]; 3] = [b"the first part", b"and the second part", b"the last"];
const PATHS: [&str; 3] = [
    "Q8_0/m-Q8_0-00001-of-00003.gguf",
    "Q8_0/m-Q8_0-00002-of-00003.gguf",
    "Q8_0/m-Q8_0-00003-of-00003.gguf",
];

fn listed(path: &str, bytes: &[u8]) -> Value {
    let lfs = json!({"oid": Digest::of(bytes).hex(), "size": bytes.len(), "pointerSize": 134});
    json!({"type": "file", "oid": "git", "size": bytes.len(), "path": path, "lfs": lfs})
}

/// What the hub lists, in two pages.
fn tree(asked: &Asked) -> Reply {
    let [first, second, third] = [0, 1, 2].map(|at| listed(PATHS[at], PARTS[at]));
    let readme = json!({"type": "file", "oid": "git", "size": 5, "path": "README.md"});
    if asked.line.contains("cursor=2") {
        return Reply::new("200 OK", "", json!([third]).to_string().as_bytes());
    }
    let next = "Link: </api/models/u/r/tree/main?recursive=true&cursor=2>; rel=\"next\"\r\n";
    Reply::new("200 OK", next, json!([readme, second, first]).to_string().as_bytes())
}

fn part(asked: &Asked) -> Option<&'static [u8]> {
    let at = PATHS.iter().position(|path| asked.line.ends_with(&format!("resolve/main/{path}")));
    at.map(|at| PARTS[at])
}

/// The hub: no manifest, a list, and files that lie elsewhere.
async fn hub(cdn: &Script) -> Script {
    let cdn = cdn.url.clone();
    Script::start(move |asked| match asked {
        asked if asked.is_manifest() => {
            Reply::new("400 Bad Request", "", b"{\"error\": \"sharded GGUF\"}")
        }
        asked if asked.line.contains("/api/models/u/r/tree/main?recursive=true") => tree(asked),
        asked if part(asked).is_some() => {
            let path = asked.line.strip_prefix("GET ").unwrap();
            Reply::new("302 Found", &format!("Location: {cdn}{path}\r\n"), b"")
        }
        _ => Reply::new("404 Not Found", "", b""),
    })
    .await
}

/// The name of a model of the script's, which stands for the hub.
fn model(hub: &Script, tag: &str) -> Name {
    name(&format!("{}/u/r:{tag}", hub.url.replace("http://127.0.0.1", "hub.test")))
}

fn plain() -> TransferOptions {
    TransferOptions { insecure: true, ..TransferOptions::default() }
}

fn anyone() -> Client {
    let private_hosts = vec!["hub.test".to_owned(), "127.0.0.1".to_owned()];
    let config = ClientConfig { private_hosts, ..ClientConfig::default() };
    Client::with_limits(config, quick()).unwrap()
}

async fn pull(hub: &Script, store: &Store) -> Result<StoredManifest, ClientError> {
    let cancel = CancellationToken::new();
    anyone().pull(store, &model(hub, "Q8_0"), &plain(), |_| {}, &cancel).await
}

async fn good() -> (Script, Script) {
    let cdn = Script::start(|asked| {
        part(asked).map_or_else(
            || Reply::new("404 Not Found", "", b""),
            |bytes| Reply::ranged(bytes, asked),
        )
    })
    .await;
    (hub(&cdn).await, cdn)
}

#[tokio::test]
async fn a_model_in_parts_is_one_model() {
    let ((hub, cdn), here) = (good().await, scratch());
    let stored = pull(&hub, &here.store).await.unwrap();
    let layers: Vec<Digest> =
        stored.layers(crate::media_type::MODEL).map(|layer| layer.digest).collect();
    assert_eq!(layers, PARTS.map(Digest::of), "in the order of the parts");
    assert_eq!(cdn.requests().len(), 3, "each file once: {:?}", cdn.requests());
    assert_whole(&here.store);
    assert!(here.store.unfinished().unwrap().is_empty());
    // By its digest it is the same, as long as the files are; another digest is nothing there.
    let pinned = async |digest: Digest| {
        let options = TransferOptions { from: Some(Reference::Digest(digest)), ..plain() };
        let (model, cancel) = (model(&hub, "Q8_0"), CancellationToken::new());
        anyone().pull(&here.store, &model, &options, |_| {}, &cancel).await
    };
    assert_eq!(pinned(stored.digest).await.unwrap().bytes, stored.bytes);
    assert!(matches!(pinned(Digest::of(b"")).await, Err(ClientError::Protocol { .. })));
    // What was lost is fetched again by the manifest that was made.
    std::fs::remove_file(here.store.blob_path(&layers[1])).unwrap();
    let (model, cancel) = (model(&hub, "Q8_0"), CancellationToken::new());
    anyone().repair(&here.store, &model, &plain(), |_| {}, &cancel).await.unwrap();
    assert_eq!(cdn.requests().len(), 4);
    assert_whole(&here.store);
}

#[tokio::test]
async fn it_is_a_variant_whose_headers_can_be_read() {
    let (hub, _cdn) = good().await;
    let (client, model, options) = (anyone(), model(&hub, "latest"), plain());
    let variants = client.variants(&model, &options, &Hints::default()).await.unwrap();
    let [variant] = variants.as_slice() else { panic!("{variants:?}") };
    assert_eq!((variant.quant.as_str(), variant.weights.len()), ("Q8_0", 3));
    assert_eq!(variant.weights_bytes(), PARTS.iter().map(|part| part.len() as u64).sum::<u64>());
    let header = client.header(&model, &options, &variant.weights[1], 100, |_| true).await;
    assert_eq!(header.unwrap().bytes, PARTS[1]);
}

#[tokio::test]
async fn wrong_bytes_and_odd_lists_are_refused() {
    let cdn = Script::start(|asked| {
        let bytes = part(asked).unwrap_or(b"?");
        Reply::ranged(bytes, asked).flipped()
    })
    .await;
    let (hub, here) = (hub(&cdn).await, scratch());
    let error = pull(&hub, &here.store).await.unwrap_err();
    assert!(matches!(error, ClientError::Integrity(IntegrityError::Digest { .. })), "{error}");
    assert!(here.store.list().unwrap().is_empty());
    let no_digest = json!([{"type": "file", "path": "m-Q8_0-00001-of-00001.gguf", "size": 5}]);
    let bad_digest = json!([{"type": "file", "path": "m-Q8_0-00001-of-00001.gguf",
        "lfs": {"oid": "../../etc", "size": 5}}]);
    for (list, expected) in [
        (no_digest.to_string(), "no sha256 for m-Q8_0-00001-of-00001.gguf"),
        (bad_digest.to_string(), "no sha256 for m-Q8_0-00001-of-00001.gguf"),
        ("{\"error\": 1}".to_owned(), "its list of files is malformed"),
        // A part is missing: what the hub said about the tag is all there is to say.
        (json!([listed(PATHS[0], PARTS[0])]).to_string(), "sharded GGUF"),
    ] {
        let script = Script::start(move |asked| match asked {
            asked if asked.is_manifest() => Reply::new("400 Bad Request", "", b"sharded GGUF"),
            _ => Reply::new("200 OK", "", list.as_bytes()),
        })
        .await;
        let error = pull(&script, &scratch().store).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[tokio::test]
async fn names_of_files_stay_inside_the_repository() {
    let (client, model) = (anyone(), name("127.0.0.1:1/u/r:Q8_0"));
    let session = session::Session::open(&client, &model, &plain()).await.unwrap();
    let digest = Digest::of(b"x");
    for (path, expected) in [
        ("../../../v/s/x.gguf", "/u/r/resolve/main/v/s/x.gguf"),
        ("a b/x?y#z.gguf", "/u/r/resolve/main/a%20b/x%3Fy%23z.gguf"),
        ("%2e%2e/x.gguf", "/u/r/resolve/main/%252e%252e/x.gguf"),
    ] {
        let annotations =
            BTreeMap::from([(crate::media_type::FILE_PATH.to_owned(), path.to_owned())]);
        let layer = crate::Layer::new(crate::media_type::MODEL, digest, 1);
        let config = layer.descriptor();
        let manifest = crate::Manifest::new(config, vec![crate::Layer { annotations, ..layer }]);
        crate::client::variants::hub::learn(&session, &manifest);
        assert_eq!(session.blob_url(&digest).path(), expected);
    }
}
