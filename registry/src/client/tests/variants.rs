//! What sources offer: an index, tags, files; and sources that lie about it.

use super::{
    embedded::served,
    script::{Asked, Reply, Script},
    *,
};
use crate::fixture::{manifest_of, name, put_model, scratch, weights};
use serde_json::json;

async fn variants(url: &str, text: &str, hints: &Hints) -> Result<Vec<SourceVariant>, ClientError> {
    client(url).variants(&name(text), &TransferOptions::default(), hints).await
}

/// The quantizations and what to pull for them, in one line.
fn told(variants: &[SourceVariant]) -> String {
    let told = |variant: &SourceVariant| {
        let reference = match &variant.reference {
            Reference::Tag(tag) => tag.clone(),
            Reference::Digest(digest) => digest.short(),
        };
        format!("{}={reference}/{}", variant.quant, variant.weights_bytes())
    };
    variants.iter().map(told).collect::<Vec<_>>().join(" ")
}

/// A registry with models of these tags, each with weights of its own length.
async fn tagged(tags: &[(&str, usize)]) -> (crate::fixture::Scratch, String) {
    let there = scratch();
    for (tag, length) in tags {
        put_model(&there.store, &format!("m:{tag}"), &weights(*length as u64, *length));
    }
    let url = served(&there.store).await;
    (there, url)
}

#[tokio::test]
async fn tags_of_the_same_stem_are_variants() {
    let tags = [
        ("7b", 40),
        ("7b-q8_0", 80),
        ("7b-q4_K_M", 40),
        ("7b-base-q4_K_M", 41),
        ("14b-q4_K_M", 70),
        ("Q5_K_M", 50),
        ("latest", 50),
    ];
    let (_there, url) = tagged(&tags).await;
    let cases = [
        ("m:7b", "Q4_K_M=7b-q4_K_M/40 Q8_0=7b-q8_0/80"),
        ("m:14b", "Q4_K_M=14b-q4_K_M/70"),
        ("m", "Q5_K_M=Q5_K_M/50"),
        ("m:7b-base", "Q4_K_M=7b-base-q4_K_M/41"),
        ("m:70b", ""),
    ];
    for (text, expected) in cases {
        assert_eq!(
            told(&variants(&url, text, &Hints::default()).await.unwrap()),
            expected,
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_longer_stem_counts_only_with_the_same_weights() {
    let tags = [
        ("7b", 40),
        ("latest", 40),
        ("7b-base-q4_K_M", 41),
        ("7b-instruct-q4_K_M", 40),
        ("7b-instruct-q8_0", 80),
        ("14b-q4_K_M", 70),
    ];
    let (_there, url) = tagged(&tags).await;
    let expected = "Q4_K_M=7b-instruct-q4_K_M/40 Q8_0=7b-instruct-q8_0/80";
    for text in ["m:7b", "m", "m:latest"] {
        assert_eq!(
            told(&variants(&url, text, &Hints::default()).await.unwrap()),
            expected,
            "{text}"
        );
    }
    // The name leads to other weights than any tag: it is pulled as it is.
    let (_there, url) = tagged(&[("7b", 39), ("7b-base-q4_K_M", 41)]).await;
    assert_eq!(told(&variants(&url, "m:7b", &Hints::default()).await.unwrap()), "");
    // It leads nowhere, and there is one group only.
    let (_there, url) = tagged(&[("7b-base-q4_K_M", 41)]).await;
    let one = "Q4_K_M=7b-base-q4_K_M/41";
    assert_eq!(told(&variants(&url, "m:7b", &Hints::default()).await.unwrap()), one);
    let hints = Hints { latest: Some("14b".to_owned()), tags: Vec::new() };
    assert_eq!(told(&variants(&url, "m", &hints).await.unwrap()), "");
}

#[tokio::test]
async fn a_variant_is_pulled_under_the_name_asked_for() {
    let (there, url) = tagged(&[("7b", 40), ("7b-q8_0", 80)]).await;
    let here = scratch();
    let from = Some(Reference::Tag("7b-q8_0".to_owned()));
    let options = TransferOptions { from, ..TransferOptions::default() };
    let (client, cancel) = (client(&url), CancellationToken::new());
    let stored = client.pull(&here.store, &name("m:7b"), &options, |_| {}, &cancel).await.unwrap();
    let wanted = there.store.manifest(&name("m:7b-q8_0")).unwrap().unwrap();
    assert_eq!((stored.digest, stored.name), (wanted.digest, name("m:7b")));
    assert_eq!(here.store.list().unwrap().len(), 1);
    let one = client.variant(&name("m:7b"), &options).await.unwrap();
    assert_eq!(told(&[one]), "Q8_0=7b-q8_0/80");
}

/// A registry of which `answer` says what is at a path below the repository.
async fn scripted(answer: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static) -> Script {
    let found = move |asked: &Asked| {
        let path = asked.line.split_once("/v2/library/m/").map_or(&*asked.line, |(_, path)| path);
        answer(path).unwrap_or_else(|| Reply::new("404 Not Found", "", b""))
    };
    Script::start(found).await
}

fn ok(body: &str) -> Option<Reply> {
    Some(Reply::new("200 OK", "", body.as_bytes()))
}

#[tokio::test]
async fn an_index_offers_what_its_entries_name() {
    let manifests: Vec<Vec<u8>> =
        [40, 80, 60].map(|length| manifest_of(&weights(1, length)).to_json()).to_vec();
    let digests: Vec<Digest> = manifests.iter().map(|bytes| Digest::of(bytes)).collect();
    let index = json!({"schemaVersion": 2, "mediaType": crate::media_type::OCI_INDEX, "manifests": [
        {"digest": digests[0], "annotations": {crate::QUANTIZATION: "q4_K_M"}},
        {"digest": digests[1], "platform": {"variant": "q8_0"}},
        {"digest": digests[2], "platform": {"variant": "v8"}},
        {"digest": Digest::of(b"absent"), "platform": {"variant": "f16"}},
        {"digest": Digest::of(b"lies"), "platform": {"variant": "q6_k"}},
    ]});
    let expected = format!("Q4_K_M={}/40 Q8_0={}/80", digests[0].short(), digests[1].short());
    let script = scripted(move |path| match path.strip_prefix("manifests/")? {
        "7b" => ok(&index.to_string()),
        path if path == Digest::of(b"lies").to_string() => {
            Some(Reply::new("200 OK", "", &manifests[2]))
        }
        path => {
            let at = digests.iter().position(|digest| digest.to_string() == path)?;
            Some(Reply::new("200 OK", "", &manifests[at]))
        }
    })
    .await;
    let offered = variants(&script.url, "m:7b", &Hints::default()).await.unwrap();
    assert_eq!(told(&offered), expected);
    // A pull of the name itself still says what is in the way.
    let error = pull(&client(&script.url), &scratch().store, "m:7b").await.unwrap_err();
    assert!(error.to_string().contains("index"), "{error}");
}

#[tokio::test]
async fn a_source_without_a_list_is_asked_for_the_tags_one_knows() {
    let manifest = |length| manifest_of(&weights(1, length)).to_json();
    let script = scripted(move |path| match path {
        "manifests/7b" | "manifests/7b-qwen-q4_K_M" => {
            Some(Reply::new("200 OK", "", &manifest(40)))
        }
        "manifests/7b-qwen-q8_0" => Some(Reply::new("200 OK", "", &manifest(80))),
        _ => None,
    })
    .await;
    let tags = ["7b-qwen-q4_K_M", "7b-qwen-q8_0", "7b-qwen-f16"].map(str::to_owned).to_vec();
    let hints = Hints { latest: None, tags };
    let expected = "Q4_K_M=7b-qwen-q4_K_M/40 Q8_0=7b-qwen-q8_0/80";
    assert_eq!(told(&variants(&script.url, "m:7b", &hints).await.unwrap()), expected);
}

#[tokio::test]
async fn hostile_lists_are_refused_or_cut_short() {
    let many = json!({"tags": (0..20_000).map(|at| format!("x{at}")).collect::<Vec<_>>()});
    let bodies = [
        ("<html>", false),
        ("[]", false),
        ("{\"tags\": 7}", false),
        ("{\"tags\": [7]}", false),
        ("{\"tags\": null}", true),
        ("{\"tags\": [\"../../etc-q4_0\", \"\", \"-q4_0\"]}", true),
        (&many.to_string(), true),
        (&"[".repeat(900_000), false),
        (&" ".repeat(2 << 20), false),
    ];
    for (body, is_ok) in bodies {
        let body = body.to_owned();
        let script = scripted(move |path| match path {
            path if path.starts_with("tags/list") => ok(&body),
            _ => None,
        })
        .await;
        let offered = variants(&script.url, "m:7b", &Hints::default()).await;
        match offered {
            Ok(variants) => assert!(is_ok && variants.is_empty(), "{variants:?}"),
            Err(ClientError::Protocol { .. }) => assert!(!is_ok),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn lists_in_a_circle_or_without_end_stop() {
    let circle = |link: &'static str| {
        scripted(move |path| {
            path.starts_with("tags/list").then(|| {
                let headers = format!("Link: <{link}>; rel=\"next\"\r\n");
                Reply::new("200 OK", &headers, b"{\"tags\": [\"7b-q4_0\"]}")
            })
        })
    };
    for link in
        ["/v2/library/m/tags/list?n=1000", "?n=1000", "http://elsewhere.example/", "http://"]
    {
        let script = circle(link).await;
        let error = variants(&script.url, "m:7b", &Hints::default()).await.unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    }
    let endless = Script::start(|asked| {
        if asked.is_manifest() {
            return Reply::new("404 Not Found", "", b"");
        }
        let page: u32 = asked.line.rsplit("page=").next().unwrap().parse().unwrap_or_default();
        let headers = format!("Link: <?page={}>; rel=\"next\"\r\n", page + 1);
        Reply::new("200 OK", &headers, b"{\"tags\": []}")
    })
    .await;
    assert_eq!(variants(&endless.url, "m:7b", &Hints::default()).await.unwrap(), []);
    let pages = endless.requests().iter().filter(|head| head.contains("tags/list")).count();
    assert_eq!(pages, 16);
}

#[tokio::test]
async fn nothing_answers_and_nothing_is_there() {
    let error = variants("http://127.0.0.1:1", "m:7b", &Hints::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    let script = scripted(|_| None).await;
    assert_eq!(variants(&script.url, "m:7b", &Hints::default()).await.unwrap(), []);
    let error = client(&script.url).variant(&name("m:7b"), &TransferOptions::default()).await;
    assert!(matches!(error, Err(ClientError::NotFound { .. })), "{error:?}");
}
