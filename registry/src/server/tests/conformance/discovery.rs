//! Workflow 3: content discovery.

use super::*;

async fn tagged(tags: &[&str]) -> Suite {
    let suite = Suite::start().await;
    for tag in tags {
        suite.push_image(tag, b"layer").await;
    }
    suite
}

fn listed(answer: &Seen) -> Vec<String> {
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let entries = body["tags"].as_array().unwrap().iter();
    entries.map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn tags_are_listed_in_order() {
    let suite = tagged(&["test3", "test0", "test2", "test1"]).await;
    let all = suite.get("tags/list").await;
    assert_eq!((all.status, all.header("link")), (200, ""));
    assert_eq!(listed(&all), ["test0", "test1", "test2", "test3"]);
}

#[tokio::test]
async fn the_tags_of_an_unknown_repository_are_404() {
    let suite = Suite::start().await;
    assert_eq!(suite.get("tags/list").await.problem(), "404 NAME_UNKNOWN");
}

#[tokio::test]
async fn n_limits_the_tags_and_a_link_leads_on() {
    let suite = tagged(&["test0", "test1", "test2", "test3", "test4"]).await;
    let (mut path, mut pages) = (format!("/v2/{REPOSITORY}/tags/list?n=2"), Vec::new());
    loop {
        let page = suite.0.get(&path).await;
        pages.push(listed(&page));
        let Some((link, rest)) = page.header("link").split_once(">; ") else { break };
        assert_eq!(rest, "rel=\"next\"");
        path = link.trim_start_matches('<').to_owned();
    }
    let expected: [&[&str]; 3] = [&["test0", "test1"], &["test2", "test3"], &["test4"]];
    assert_eq!(pages, expected);
}

#[tokio::test]
async fn n_of_zero_is_an_empty_list_without_a_link() {
    let suite = tagged(&["test0"]).await;
    let none = suite.get("tags/list?n=0").await;
    assert_eq!((none.status, listed(&none).len(), none.header("link")), (200, 0, ""));
}

#[tokio::test]
async fn last_begins_after_a_tag_whether_that_exists_or_not() {
    let suite = tagged(&["test0", "test2", "test4"]).await;
    assert_eq!(listed(&suite.get("tags/list?last=test2").await), ["test4"]);
    assert_eq!(listed(&suite.get("tags/list?last=test1&n=1").await), ["test2"]);
    assert!(listed(&suite.get("tags/list?last=test4").await).is_empty());
}

#[tokio::test]
async fn indexes_are_among_the_tags_and_untagged_manifests_are_not() {
    let suite = Suite::start().await;
    let (child, _) = suite.push_image("", b"layer").await;
    assert!(listed(&suite.get("tags/list").await).is_empty());
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": [descriptor(media_type::OCI_MANIFEST, &child, 7)],
    });
    suite.put("multi", &index).await;
    assert_eq!(listed(&suite.get("tags/list").await), ["multi"]);
    let catalog = suite.0.get("_catalog").await;
    assert_eq!(catalog.body, format!(r#"{{"repositories":["{REPOSITORY}"]}}"#));
}

/// The digests that the referrers of a subject have, after checking the answer's form.
async fn referrers(suite: &Suite, resource: &str) -> (Vec<String>, Seen) {
    let answer = suite.get(resource).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), media_type::OCI_INDEX);
    let index: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        (&index["schemaVersion"], &index["mediaType"]),
        (&json!(2), &json!(media_type::OCI_INDEX))
    );
    let entries = index["manifests"].as_array().unwrap().iter();
    let mut digests: Vec<_> =
        entries.map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect();
    digests.sort();
    (digests, answer)
}

#[tokio::test]
async fn referrers_of_what_nobody_knows_are_an_empty_index() {
    let suite = Suite::start().await;
    let (none, _) = referrers(&suite, &format!("referrers/{}", Digest::of(b"unknown"))).await;
    assert!(none.is_empty());
}

#[tokio::test]
async fn referrers_of_a_malformed_digest_are_400() {
    let suite = Suite::start().await;
    assert_eq!(suite.get("referrers/sha256:short").await.problem(), "400 DIGEST_INVALID");
}

#[tokio::test]
async fn referrers_are_listed_with_their_type_and_annotations() {
    let suite = Suite::start().await;
    let (subject, _) = suite.push_image("v1", b"layer").await;
    let (first, _) = suite.push_referrer(&subject, "application/a").await;
    let (second, _) = suite.push_referrer(&subject, "application/b").await;
    suite.push_referrer(&Digest::of(b"another subject"), "application/a").await;
    let (mut expected, resource) =
        ([first.to_string(), second.to_string()], format!("referrers/{subject}"));
    expected.sort();
    let (found, answer) = referrers(&suite, &resource).await;
    assert_eq!(found, expected);
    assert_eq!(answer.header("oci-filters-applied"), "");
    let index: Value = serde_json::from_str(&answer.body).unwrap();
    for entry in index["manifests"].as_array().unwrap() {
        assert_eq!(entry["mediaType"], media_type::OCI_MANIFEST);
        assert_eq!(entry["artifactType"], entry["annotations"]["org.example.kind"]);
        let manifest = suite.get(&format!("manifests/{}", entry["digest"].as_str().unwrap())).await;
        assert_eq!(entry["size"], manifest.body.len());
    }
}

#[tokio::test]
async fn referrers_are_filtered_by_type_and_the_answer_says_so() {
    let suite = Suite::start().await;
    let subject = Digest::of(b"not here");
    let (wanted, _) = suite.push_referrer(&subject, "application/a").await;
    suite.push_referrer(&subject, "application/b").await;
    let resource = format!("referrers/{subject}?artifactType=application%2Fa");
    let (found, answer) = referrers(&suite, &resource).await;
    assert_eq!(found, [wanted.to_string()]);
    assert_eq!(answer.header("oci-filters-applied"), "artifactType");
}

#[tokio::test]
async fn a_referrer_without_a_type_has_that_of_its_configuration() {
    let suite = Suite::start().await;
    suite.push_blob(EMPTY).await;
    let subject = Digest::of(b"subject");
    let extra = json!({ "subject": descriptor(media_type::OCI_MANIFEST, &subject, 7) });
    suite.put("tagged", &image(&[], extra)).await;
    let (_, answer) = referrers(&suite, &format!("referrers/{subject}")).await;
    let index: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(index["manifests"][0]["artifactType"], "application/vnd.oci.empty.v1+json");
}

#[tokio::test]
async fn referrers_come_in_pages() {
    let suite = Suite::start().await;
    let subject = Digest::of(b"subject");
    let mut all = Vec::new();
    for number in 0..5 {
        let (digest, _) = suite.push_referrer(&subject, &format!("application/{number}")).await;
        all.push(digest.to_string());
    }
    all.sort();
    let (first, answer) = referrers(&suite, &format!("referrers/{subject}?n=3")).await;
    assert_eq!(first, all[..3]);
    let link = answer.header("link").split_once(">; ").unwrap().0;
    let (_, resource) = link.split_once(&format!("{REPOSITORY}/")).unwrap();
    let (rest, answer) = referrers(&suite, resource).await;
    assert_eq!((rest.as_slice(), answer.header("link")), (&all[3..], ""));
}
