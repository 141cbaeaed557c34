//! Docker's `config.json`, which podman, skopeo and others read and write as well.

use super::{Credential, Place, Secret, helper};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

/// Longest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How the files spell Docker's own registry.
const HUB: &str = "https://index.docker.io/v1/";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

/// One entry. Docker leaves an empty one where a helper has the secret.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What the file, or a helper it names, has for the place. An absent file has nothing.
pub(super) async fn find(
    path: &Path,
    place: Place<'_>,
    helpers: Option<&Path>,
) -> Result<Option<Credential>, String> {
    let wrong = |reason: String| format!("{} {reason}", path.display());
    let Some(bytes) = read(path).map_err(|error| wrong(format!("cannot be read: {error}")))? else {
        return Ok(None);
    };
    let config: Config = serde_json::from_slice(&bytes)
        .map_err(|error| wrong(format!("is malformed at line {}", error.line())))?;
    let server = if is_hub(place.host) { HUB } else { place.host };
    if let Some(name) = config.helper(place.host) {
        return helper::get(name, server, helpers).await.map_err(wrong);
    }
    if let Some(found) = config.entry(place).map_err(wrong)? {
        return Ok(Some(found));
    }
    match config.creds_store.as_str() {
        "" => Ok(None),
        name => helper::get(name, server, helpers).await.map_err(wrong),
    }
}

fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map(|_| Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Config {
    fn helper(&self, host: &str) -> Option<&str> {
        let same = |key: &String| same_host(host_and_path(key).0, host);
        self.cred_helpers.iter().find(|(key, _)| same(key)).map(|(_, name)| name.as_str())
    }

    /// The entry that says most about the place: podman files them by namespace, too.
    fn entry(&self, place: Place<'_>) -> Result<Option<Credential>, String> {
        let rank = |key: &str| rank(key, place);
        let ranked = self.auths.iter().filter_map(|(key, auth)| Some((rank(key)?, key, auth)));
        match ranked.max_by_key(|(rank, _, _)| *rank) {
            Some((_, key, auth)) => {
                auth.credential().map_err(|error| format!("has {error} {key:?}"))
            }
            None => Ok(None),
        }
    }
}

impl Auth {
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        let secret = |text: &String| Secret(text.clone());
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credential::Token(secret(&self.registrytoken))));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::Identity(secret(&self.identitytoken))));
        }
        if !self.auth.is_empty() {
            return decoded(&self.auth).map(Some).ok_or("an unreadable entry for");
        }
        let (user, password) = (self.username.clone(), secret(&self.password));
        Ok((!user.is_empty()).then_some(Credential::Password { user, password }))
    }
}

/// `auth` is the name and the password with a colon between, in Base64.
fn decoded(auth: &str) -> Option<Credential> {
    let text = String::from_utf8(BASE64.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    let password = Secret(password.trim_end_matches('\0').to_owned());
    Some(Credential::Password { user: user.to_owned(), password })
}

/// How much of the place a key names: 0 for its host alone, None when it is about another place.
fn rank(key: &str, place: Place<'_>) -> Option<usize> {
    let (host, path) = host_and_path(key);
    if !same_host(host, place.host) {
        return None;
    }
    if path.is_empty() {
        return Some(0);
    }
    let inside = place.repository.strip_prefix(path)?;
    (inside.is_empty() || inside.starts_with('/')).then_some(path.len())
}

/// Keys with a scheme are addresses of a registry, and their path is none of a repository.
fn host_and_path(key: &str) -> (&str, &str) {
    match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(rest) => (rest.split('/').next().unwrap_or_default(), ""),
        None => {
            key.split_once('/').map_or((key, ""), |(host, path)| (host, path.trim_matches('/')))
        }
    }
}

fn same_host(key: &str, host: &str) -> bool {
    key.eq_ignore_ascii_case(host) || (is_hub(key) && is_hub(host))
}

fn is_hub(host: &str) -> bool {
    matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    async fn lookup(config: &str, host: &str, repository: &str, expected: Expect) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        let shown = match find(&path, Place { host, repository }, Some(folder.path())).await {
            Ok(None) => "nothing".to_owned(),
            Ok(Some(Credential::Password { user, password: Secret(password) })) => {
                format!("{user} {password}")
            }
            Ok(Some(Credential::Identity(Secret(token)))) => format!("identity {token}"),
            Ok(Some(Credential::Token(Secret(token)))) => format!("token {token}"),
            Err(error) => error.replace(folder.path().to_str().unwrap(), "DIR"),
        };
        expected.assert_eq(&shown);
    }

    #[tokio::test]
    async fn entries_are_found_by_host_and_namespace_and_no_further() {
        let config = r#"{"auths": {
            "r.example": {"auth": "YWRhOnNlY3JldA=="},
            "r.example/team": {"username": "team", "password": "a:b"},
            "https://port.example:5000/v2/": {"identitytoken": "i"},
            "t.example": {"registrytoken": "t"},
            "https://index.docker.io/v1/": {"auth": "aHViOng="},
            "empty.example": {},
            "broken.example": {"auth": "%"}
        }}"#;
        lookup(config, "r.example", "library/m", expect!["ada secret"]).await;
        lookup(config, "R.example", "team/m", expect!["team a:b"]).await;
        lookup(config, "r.example", "teams/m", expect!["ada secret"]).await;
        lookup(config, "port.example:5000", "a/b", expect!["identity i"]).await;
        lookup(config, "t.example", "a/b", expect!["token t"]).await;
        lookup(config, "registry-1.docker.io", "ai/m", expect!["hub x"]).await;
        for other in ["port.example", "example", "xr.example", "r.example:443", "empty.example"] {
            lookup(config, other, "a/b", expect!["nothing"]).await;
        }
        lookup(
            config,
            "broken.example",
            "a/b",
            expect![[r#"DIR/config.json has an unreadable entry for "broken.example""#]],
        )
        .await;
    }

    #[tokio::test]
    async fn a_file_is_absent_or_right_or_an_error() {
        lookup("{}", "r.example", "a/b", expect!["nothing"]).await;
        lookup("[", "r.example", "a/b", expect!["DIR/config.json is malformed at line 1"]).await;
        let place = Place { host: "r.example", repository: "a/b" };
        assert_eq!(find(Path::new("/nowhere/config.json"), place, None).await, Ok(None));
    }

    #[tokio::test]
    async fn helpers_are_asked_for_their_hosts() {
        let config = r#"{"credHelpers": {"r.example": "none-such"}, "auths": {"x.example": {}},
            "credsStore": "../evil"}"#;
        lookup(
            config,
            "r.example",
            "a/b",
            expect![
                "DIR/config.json names the helper docker-credential-none-such, which cannot be started: No such file or directory (os error 2)"
            ],
        )
        .await;
        lookup(
            config,
            "x.example",
            "a/b",
            expect![[r#"DIR/config.json names the helper "../evil", which is no name of one"#]],
        )
        .await;
    }
}
