//! `dsk link` and `dsk import`: GGUF files of this machine become models, where they lie or copied.

pub(super) mod discover;

use std::path::{Path, PathBuf};

use clap::Args;
use dsk_daemon_api::store::BringRequest;
use serde_json::json;

use super::pull::{Interrupted, follow};
use crate::args::Shared;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::failure::{self, Failure};
use crate::terminal::Terminal;
use discover::Found;

#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    #[command(flatten)]
    what: What,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    what: What,
    /// Give the file a second name in the store instead of copying it; whoever changes it in place
    /// damages the model
    #[arg(long)]
    hard_link: bool,
}

#[derive(Debug, Args)]
struct What {
    /// GGUF files, or folders of them: a download folder, LM Studio's, a Hugging Face cache; for import
    /// also an OCI layout. One part of a model stands for all, NAME-00001-of-00003.gguf
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The model's name; without it the name of the file
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// Print the progress as JSON, one object per line
    #[arg(long)]
    json: bool,
}

/// How files are brought in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Link,
    Import { hard_link: bool },
}

pub(crate) async fn link(
    shared: &Shared,
    args: &LinkArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    bring(shared, &args.what, How::Link, terminal).await
}

pub(crate) async fn import(
    shared: &Shared,
    args: &ImportArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    bring(shared, &args.what, How::Import { hard_link: args.hard_link }, terminal).await
}

/// Brings in every file that it can; the first failure decides the exit code.
async fn bring(
    shared: &Shared,
    what: &What,
    how: How,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let mut found = Vec::new();
    for path in &what.paths {
        found.extend(discovered(path, terminal)?);
    }
    if let Some(name) = &what.name {
        let [one] = found.as_mut_slice() else {
            let message = format!("--as names one model, and there are {} files", found.len());
            return Err(Failure::usage(message).into());
        };
        one.name.clone_from(name);
    }
    let client = Connection::open(shared)?.client;
    let mut exit = Exit::Success;
    for Found { path, name } in &found {
        let mut request = BringRequest {
            model: name.clone(),
            path: path.to_string_lossy().into_owned(),
            hard_link: false,
        };
        let hint = "the same command starts again".to_owned();
        let brought = match how {
            How::Link => {
                let interrupted = Interrupted::new("linking", hint);
                follow(client.link(&request), interrupted, what.json, terminal).await
            }
            How::Import { hard_link } => {
                request.hard_link = hard_link;
                let interrupted = Interrupted::new("import", hint);
                follow(client.import(&request), interrupted, what.json, terminal).await
            }
        };
        match brought {
            Ok(_) if what.json => terminal.json(&json!({"model": name, "path": path}))?,
            Ok(_) => terminal.line(&format!("{name}  {}", path.display()))?,
            Err(error) => {
                let failed = failure::report(terminal, &error);
                exit = if exit == Exit::Success { failed } else { exit };
                if exit == Exit::Interrupted {
                    break;
                }
            }
        }
    }
    Ok(exit)
}

/// The models of a file or a folder; what is left out is said.
fn discovered(path: &Path, terminal: &mut Terminal) -> anyhow::Result<Vec<Found>> {
    let unreadable = |error: std::io::Error| {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::General,
        };
        Failure::new(exit, format!("cannot read {}: {error}", path.display()))
    };
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let is_folder = std::fs::metadata(&absolute).map_err(unreadable)?.is_dir();
    if !is_folder || absolute.join("oci-layout").is_file() {
        return Ok(vec![discover::file(&absolute)]);
    }
    let (found, left_out) = discover::folder(&absolute).map_err(unreadable)?;
    for (path, why) in left_out {
        terminal.note(&format!("left out {}: {why}", path.display()));
    }
    if found.is_empty() {
        let message = format!("no GGUF file is in {}", path.display());
        return Err(Failure::new(Exit::NotFound, message).into());
    }
    Ok(found)
}
