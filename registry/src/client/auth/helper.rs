//! Docker's credential helpers: programs that keep the secrets in a keychain and give one on demand.

use super::{Credential, Secret};
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

/// How long a helper may take; a keychain may ask its user.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest output that is read, in bytes.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
/// Longest name of a helper, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// What a helper says that has nothing for the host.
const NOT_FOUND: &str = "credentials not found";
/// The user name of what is no password but a token for the token server.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What `docker-credential-<name>` has for `server`. The program is one of `folder`, else of `PATH`.
pub(super) async fn get(
    name: &str,
    server: &str,
    folder: Option<&Path>,
) -> Result<Option<Credential>, String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(known) {
        let name = crate::digest::excerpt(name);
        return Err(format!("names the helper {name:?}, which is no name of one"));
    }
    let program = format!("docker-credential-{name}");
    let path = folder.map_or_else(|| PathBuf::from(&program), |folder| folder.join(&program));
    let wrong = |reason: String| format!("names the helper {program}, which {reason}");
    let child = Command::new(path)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| wrong(format!("cannot be started: {error}")))?;
    match tokio::time::timeout(PATIENCE, converse(child, server)).await {
        Err(_) => Err(wrong(format!("has not answered within {PATIENCE:?}"))),
        Ok(Err(error)) => Err(wrong(format!("cannot be used: {error}"))),
        Ok(Ok(output)) => credential(&output).map_err(wrong),
    }
}

/// What a helper printed, and whether it was content.
struct Output {
    text: Vec<u8>,
    success: bool,
}

async fn converse(mut child: Child, server: &str) -> std::io::Result<Output> {
    if let Some(mut stdin) = child.stdin.take() {
        // A helper may end without reading; what it says then is told by its output.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let text = match child.stdout.take() {
        Some(stdout) => bounded(stdout).await?,
        None => Vec::new(),
    };
    Ok(Output { text, success: child.wait().await?.success() })
}

async fn bounded(output: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // One byte more than allowed tells that there was more; the pipe is closed then, and its writer ends.
    output.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut text).await?;
    Ok(text)
}

fn credential(output: &Output) -> Result<Option<Credential>, String> {
    if output.text.len() as u64 > OUTPUT_BYTES_MAX {
        return Err("says too much".to_owned());
    }
    if !output.success {
        let text = String::from_utf8_lossy(&output.text);
        let known = text.trim().to_ascii_lowercase().starts_with(NOT_FOUND);
        // The text is not repeated: nobody knows what is in it.
        return if known { Ok(None) } else { Err("failed".to_owned()) };
    }
    let answer: Answer = serde_json::from_slice(&output.text)
        .map_err(|_| "gave an answer that is none of its kind".to_owned())?;
    let secret = Secret(answer.secret);
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credential::Identity(secret),
        user => Credential::Password { user: user.to_owned(), password: secret },
    }))
}

/// Another process writes it: a file that this one has open to write could not be started meanwhile by
/// another test.
#[cfg(test)]
pub(in crate::client) fn write_program(path: &Path, script: &str) {
    let write = "printf '%s' \"$1\" > \"$0\" && chmod +x \"$0\"";
    let text = format!("#!/bin/sh\n{script}\n");
    let written = std::process::Command::new("sh").args(["-c", write]).arg(path).arg(text).status();
    assert!(written.unwrap().success());
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str) -> Result<Option<Credential>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker-credential-test_1");
        write_program(&path, script);
        get("test_1", "r.example:5000", Some(folder.path())).await
    }

    #[tokio::test]
    async fn a_helper_reads_the_host_and_answers_with_json() {
        let echo = r#"test "$1" = get || exit 9
            read -r host || true
            printf '{"ServerURL":"%s","Username":"ada","Secret":"%s"}' "$host" "$host""#;
        let password = Secret("r.example:5000".to_owned());
        let expected = Credential::Password { user: "ada".to_owned(), password };
        assert_eq!(run(echo).await, Ok(Some(expected)));
        let token = r#"cat >/dev/null; echo '{"Username":"<token>","Secret":"t"}'"#;
        assert_eq!(run(token).await, Ok(Some(Credential::Identity(Secret("t".to_owned())))));
    }

    #[tokio::test]
    async fn a_helper_that_misbehaves_is_an_error_and_never_repeated() {
        let none = "echo 'credentials not found in native keychain'; exit 1";
        assert_eq!(run(none).await, Ok(None));
        for (script, reason) in [
            ("echo hunter2; exit 1", "which failed"),
            ("echo hunter2", "which gave an answer"),
            ("cat /dev/zero", "which says too much"),
        ] {
            let error = run(script).await.unwrap_err();
            assert!(error.contains(reason) && !error.contains("hunter2"), "{script}: {error}");
        }
        for name in ["", "a/b", "..", "a b", "a;b", &"a".repeat(65)] {
            let error = get(name, "r.example", None).await.unwrap_err();
            assert!(error.contains("no name of one"), "{name}: {error}");
        }
    }
}
