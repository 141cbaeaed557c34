//! `dsk create`: makes a model from a Modelfile. Files it names are hashed here, uploaded where
//! the daemon lacks them, and then named by digest; the daemon never sees a path of this machine.

mod diagnostics;
mod plan;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use dsk_daemon_api::Client;
use dsk_daemon_api::ollama::ProgressLine;
use dsk_modelfiles::Modelfile;
use dsk_registry::{Digest, Hasher};

use super::pull::{Interrupted, follow};
use crate::args::Shared;
use crate::connection::{Connection, interrupted};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;
use plan::{Plan, Source};

/// A Modelfile longer than this is a model given by mistake.
const MODELFILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How much of a file is hashed at a time.
const HASH_BYTES: usize = 1024 * 1024;

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The new model's name
    model: String,
    /// The Modelfile; - reads it from standard input
    #[arg(long, short, value_name = "PATH", default_value = "Modelfile")]
    file: PathBuf,
    /// Quantize the model's tensors to this format
    #[arg(long, short, value_name = "FORMAT")]
    quantize: Option<String>,
    /// Print the progress as JSON, one object per line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn create(
    shared: &Shared,
    args: &CreateArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let modelfile = modelfile(&args.file, terminal)?;
    let mut plan = Plan::new(&modelfile, &folder_of(&args.file))?;
    plan.request.model.clone_from(&args.model);
    plan.request.quantize = args.quantize.clone().unwrap_or_default();
    let client = Connection::open(shared)?.client;
    let mut progress = Progress::new(terminal, args.json);
    let sent = send(&client, &mut plan, &mut progress, terminal).await;
    progress.finish();
    sent?;
    let hint = format!("the same command starts again: dsk create {}", args.model);
    let lines = client.create(&plan.request);
    follow(lines, Interrupted::new("creation", hint), args.json, terminal).await
}

/// Reads and parses the Modelfile; what is wrong with it is printed with its place.
fn modelfile(path: &Path, terminal: &mut Terminal) -> anyhow::Result<Modelfile> {
    let bytes = read(path)?;
    let parsed = dsk_modelfiles::parse_bytes(&bytes);
    if parsed.diagnostics.is_empty() {
        return Ok(parsed.modelfile);
    }
    let text = String::from_utf8_lossy(&bytes);
    for diagnostic in &parsed.diagnostics {
        terminal.note(&diagnostics::render(&path.display().to_string(), &text, diagnostic));
    }
    let count = parsed.diagnostics.len();
    let plural = if count == 1 { "" } else { "s" };
    let message = format!("{} has {count} mistake{plural}", path.display());
    Err(Failure::usage(message).hint("nothing was created").into())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(|error| unreadable(path, &error))?)
    };
    let read = input.take(MODELFILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > MODELFILE_BYTES_MAX {
        let message = format!("{} is too long for a Modelfile", path.display());
        return Err(Failure::usage(message)
            .hint("a GGUF file is named by a Modelfile: FROM ./model.gguf")
            .into());
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::NotFound => Exit::NotFound,
        _ => Exit::General,
    };
    Failure::new(exit, format!("cannot read {}: {error}", path.display()))
        .hint("-f names the Modelfile")
}

/// The folder that the Modelfile's relative paths start from.
fn folder_of(file: &Path) -> PathBuf {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

/// Hashes every file, uploads those that the daemon lacks, and names them in the request.
async fn send(
    client: &Client,
    plan: &mut Plan,
    progress: &mut Progress,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    for (source, is_adapter) in plan.sources() {
        let status = ProgressLine::status(&format!("hashing {}", source.name));
        progress.update(terminal, &status)?;
        let digest = hash(&source.path)?;
        if !client.blob_exists(&digest.to_string()).await? {
            upload(client, &source, &digest, progress, terminal).await?;
        }
        let map = if is_adapter { &mut plan.request.adapters } else { &mut plan.request.files };
        map.insert(source.name, digest.to_string());
    }
    Ok(())
}

fn hash(path: &Path) -> anyhow::Result<Digest> {
    let reading = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(reading)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; HASH_BYTES];
    loop {
        match file.read(&mut buffer).with_context(reading)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

async fn upload(
    client: &Client,
    source: &Source,
    digest: &Digest,
    progress: &mut Progress,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let total = std::fs::metadata(&source.path).map(|file| file.len()).ok();
    let digest = digest.to_string();
    let line = |sent| ProgressLine {
        status: format!("uploading {}", source.name),
        digest: Some(digest.clone()),
        total,
        completed: Some(sent),
    };
    let (sender, mut receiver) = tokio::sync::watch::channel(0);
    let upload = client.upload_blob(&digest, &source.path, move |sent| {
        // Nobody listens any more once the upload was interrupted.
        let _ = sender.send(sent);
    });
    tokio::pin!(upload);
    loop {
        tokio::select! {
            done = &mut upload => {
                done?;
                return progress.update(terminal, &line(total.unwrap_or(0)));
            }
            Ok(()) = receiver.changed() => {
                let sent = *receiver.borrow_and_update();
                progress.update(terminal, &line(sent))?;
            }
            () = interrupted() => {
                let message = format!("the upload of {} was interrupted", source.name);
                return Err(Failure::new(Exit::Interrupted, message).into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_at_the_modelfile() {
        let cases = [("Modelfile", "."), ("a/b/Modelfile", "a/b"), ("/m", "/"), ("-", ".")];
        for (file, folder) in cases {
            assert_eq!(folder_of(Path::new(file)), Path::new(folder), "{file}");
        }
    }

    #[test]
    fn a_file_hashes_as_its_bytes_do() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..3 * HASH_BYTES + 7).map(|i| i as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        assert_eq!(hash(file.path()).unwrap(), Digest::of(&bytes));
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Modelfile");
        std::fs::write(&path, "FROM smollm2\nPARAMETR temperature 1\n").unwrap();
        let (mut terminal, capture) = Terminal::captured();
        let error = modelfile(&path, &mut terminal).unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>().unwrap().exit, Exit::Usage);
        let shown = capture.err();
        assert!(shown.contains("Modelfile:2:1: "), "{shown}");
        assert!(shown.contains("2 | PARAMETR temperature 1\n"), "{shown}");
    }

    #[test]
    fn a_missing_modelfile_is_not_found() {
        let failure = read(Path::new("/no/such/Modelfile")).unwrap_err();
        assert_eq!(failure.downcast_ref::<Failure>().unwrap().exit, Exit::NotFound);
    }
}
