//! Where the credentials of this machine's user are kept; they are read when a registry asks.

use super::{Credential, SigningKey, docker};
use std::{fmt, fs::File, io::Read, path::Path, path::PathBuf};

/// Longest token file of Hugging Face's, in bytes.
const HUB_TOKEN_BYTES_MAX: u64 = 4 << 10;

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::client) struct Secret(pub(in crate::client) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The places with credentials. The default has none, so everything is anonymous.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// Files in Docker's form, best first.
    docker: Vec<PathBuf>,
    /// Where helpers are looked for; None for `PATH`.
    helpers: Option<PathBuf>,
    /// OpenSSH keys, best first.
    keys: Vec<PathBuf>,
    hub: Option<Secret>,
    hub_file: Option<PathBuf>,
}

/// A registry and a repository there, as credentials are filed.
#[derive(Clone, Copy, Debug)]
pub(in crate::client) struct Place<'a> {
    /// The host, with its port when it has one.
    pub(in crate::client) host: &'a str,
    pub(in crate::client) repository: &'a str,
}

impl Keyring {
    /// What the user has whose environment `variable` reads: `DOCKER_CONFIG`, `REGISTRY_AUTH_FILE` and
    /// podman's places, `~/.config/dsk/id_ed25519` and `~/.ollama/id_ed25519`, `HF_TOKEN` and
    /// `~/.cache/huggingface/token`.
    pub fn of_user(variable: impl Fn(&str) -> Option<String>) -> Keyring {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let folder = |name: &str| set(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = folder("HOME");
        let below = |tail: &str| home.as_ref().map(|home| home.join(tail));
        let config = folder("XDG_CONFIG_HOME").or_else(|| below(".config"));
        let docker = folder("DOCKER_CONFIG").or_else(|| below(".docker"));
        let files = [
            docker.map(|folder| folder.join("config.json")),
            folder("REGISTRY_AUTH_FILE"),
            folder("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")),
            config.as_ref().map(|folder| folder.join("containers/auth.json")),
        ];
        let keys =
            [config.map(|folder| folder.join("dsk/id_ed25519")), below(".ollama/id_ed25519")];
        let hub = folder("HF_HOME").or_else(|| below(".cache/huggingface"));
        Keyring {
            docker: files.into_iter().flatten().collect(),
            helpers: None,
            keys: keys.into_iter().flatten().collect(),
            hub: set("HF_TOKEN").map(Secret),
            hub_file: folder("HF_TOKEN_PATH").or(hub.map(|folder| folder.join("token"))),
        }
    }

    /// What Docker's and podman's files have for a place.
    pub(in crate::client) async fn credential(
        &self,
        place: Place<'_>,
    ) -> Result<Option<Credential>, String> {
        for path in &self.docker {
            if let Some(found) = docker::find(path, place, self.helpers.as_deref()).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The key that signs requests for tokens.
    pub(in crate::client) fn signing_key(&self) -> Result<Option<SigningKey>, String> {
        self.keys.iter().find_map(|path| SigningKey::read(path).transpose()).transpose()
    }

    /// The token of the user's account at Hugging Face.
    pub(in crate::client) fn hub_token(&self) -> Option<Secret> {
        self.hub.clone().or_else(|| read_token(self.hub_file.as_deref()?))
    }

    /// Only these files and helpers, and this key.
    #[cfg(test)]
    pub(in crate::client) fn of_files(
        docker: Option<PathBuf>,
        helpers: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> Keyring {
        let (docker, keys) = (docker.into_iter().collect(), key.into_iter().collect());
        Keyring { docker, helpers, keys, ..Keyring::default() }
    }
}

fn read_token(path: &Path) -> Option<Secret> {
    let mut text = String::new();
    File::open(path).ok()?.take(HUB_TOKEN_BYTES_MAX).read_to_string(&mut text).ok()?;
    let token = text.trim();
    (!token.is_empty()).then(|| Secret(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_are_those_of_the_tools_that_write_them() {
        let user = |pairs: &'static [(&str, &str)]| {
            Keyring::of_user(|name| {
                pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned())
            })
        };
        let paths = |paths: &[PathBuf]| {
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        let plain = user(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/7"), ("HF_TOKEN", "")]);
        assert_eq!(
            paths(&plain.docker),
            "/h/.docker/config.json /run/user/7/containers/auth.json \
             /h/.config/containers/auth.json"
        );
        assert_eq!(paths(&plain.keys), "/h/.config/dsk/id_ed25519 /h/.ollama/id_ed25519");
        assert_eq!(plain.hub_file, Some("/h/.cache/huggingface/token".into()));
        let moved = user(&[
            ("DOCKER_CONFIG", "/d"),
            ("REGISTRY_AUTH_FILE", "/a.json"),
            ("XDG_CONFIG_HOME", "/c"),
            ("HF_TOKEN", "hf_x"),
            ("HF_HOME", "relative"),
        ]);
        assert_eq!(paths(&moved.docker), "/d/config.json /a.json /c/containers/auth.json");
        assert_eq!(paths(&moved.keys), "/c/dsk/id_ed25519");
        assert_eq!(moved.hub_token(), Some(Secret("hf_x".to_owned())));
        assert!(!format!("{moved:?}").contains("hf_x"));
        assert!(user(&[]).docker.is_empty());
    }

    #[test]
    fn the_hubs_token_is_one_line_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert_eq!(read_token(&path), None);
        std::fs::write(&path, "hf_abc\n").unwrap();
        assert_eq!(read_token(&path), Some(Secret("hf_abc".to_owned())));
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(read_token(&path), None);
    }
}
