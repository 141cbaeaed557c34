//! `dsk export`: a model as files that other programs read.
//!
//! GGUF files come through the daemon and are hashed on their way: what gets its final name is whole. An
//! OCI layout is written from the store itself, which is only read.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use dsk_daemon_api::Client;
use dsk_daemon_api::ollama::ProgressLine;
use dsk_daemon_api::store::{FilesResponse, ModelFile};
use dsk_registry::{Digest, Hasher, Name, Shard, Store, media_type, oci_layout};
use futures_util::StreamExt as _;
use serde_json::json;

use crate::args::Shared;
use crate::connection::{Connection, interrupted};
use crate::exit::Exit;
use crate::failure::{self, Failure};
use crate::progress::Progress;
use crate::terminal::Terminal;

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The model's name
    model: String,
    /// The folder to write to; it is made when it is missing
    folder: PathBuf,
    /// What to write
    #[arg(long = "as", value_name = "FORMAT", default_value = "gguf")]
    format: Format,
    /// Print the progress and the files as JSON, one object per line
    #[arg(long)]
    json: bool,
}

/// What a model is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The model's GGUF files, under its name
    Gguf,
    /// An OCI image layout, for skopeo, oras and crane
    OciLayout,
    /// The same with the model packed as the CNCF's ModelPack
    Modelpack,
}

/// A file to write: what it is called and which layer it is.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    file_name: String,
    digest: Digest,
    bytes: u64,
}

pub(crate) async fn export(
    shared: &Shared,
    args: &ExportArgs,
    terminal: &mut Terminal,
) -> anyhow::Result<Exit> {
    let client = Connection::open(shared)?.client;
    let described = client.files(&args.model).await?;
    let layout = match args.format {
        Format::Gguf => None,
        Format::OciLayout => Some(oci_layout::Format::OciLayout),
        Format::Modelpack => Some(oci_layout::Format::ModelPack),
    };
    if let Some(layout) = layout {
        let store = client.df().await?.path;
        let digest = write_layout(Path::new(&store), &described, &args.folder, layout)?;
        match args.json {
            true => terminal.json(&json!({"path": args.folder, "digest": digest.to_string()}))?,
            false => terminal.line(&format!("{}  {digest}", args.folder.display()))?,
        }
        return Ok(Exit::Success);
    }
    let parts = gguf_parts(&described)?;
    std::fs::create_dir_all(&args.folder)
        .with_context(|| format!("cannot make {}", args.folder.display()))?;
    for part in &parts {
        let path = args.folder.join(&part.file_name);
        let mut progress = Progress::new(terminal, args.json);
        let written = tokio::select! {
            written = write(&client, part, &path, &mut progress, terminal) => written,
            () = interrupted() => Err(Failure::new(Exit::Interrupted, "the export was interrupted").into()),
        };
        progress.finish();
        written?;
        if args.json {
            terminal.json(&json!({"path": path, "digest": part.digest.to_string()}))?;
        } else {
            terminal.line(&path.display().to_string())?;
        }
    }
    Ok(Exit::Success)
}

/// Writes a layout from the store of a daemon on this machine.
fn write_layout(
    path: &Path,
    model: &FilesResponse,
    folder: &Path,
    format: oci_layout::Format,
) -> anyhow::Result<Digest> {
    let name = Name::parse(&model.name).context("the daemon named the model by no name")?;
    let elsewhere = |message: String| {
        Failure::new(Exit::General, message)
            .hint("a layout is written on the daemon's machine, by a user who may read its models")
    };
    let store = Store::open_read_only(path)
        .map_err(|error| elsewhere(format!("the daemon's store cannot be read: {error}")))?;
    // A daemon elsewhere may name a folder that is another daemon's here, with a model of the same name.
    let here = store.manifest(&name)?.map(|stored| stored.bytes);
    if here.is_none_or(|bytes| String::from_utf8_lossy(&bytes) != model.manifest) {
        let message =
            format!("{} is not the daemon's store: its {name} is not there", path.display());
        return Err(elsewhere(message).into());
    }
    Ok(oci_layout::export(&store, &name, folder, format)?)
}

/// The files of a model that are GGUF: the weights, then what goes with them.
fn gguf_parts(model: &FilesResponse) -> anyhow::Result<Vec<Part>> {
    let stem = stem_of(&model.name);
    let kinds = [
        (media_type::MODEL, ""),
        (media_type::PROJECTOR, "-mmproj"),
        (media_type::ADAPTER, "-adapter"),
        (media_type::DRAFT, "-draft"),
    ];
    let mut parts = Vec::new();
    for (kind, suffix) in kinds {
        let mut layers: Vec<&ModelFile> =
            model.files.iter().filter(|file| kind_of(file) == kind).collect();
        // Files tell by their names which of the model's they are; a manifest may have them in any order.
        layers.sort_by_key(|layer| layer.part);
        for (number, layer) in layers.iter().enumerate() {
            let digest = layer.digest.parse().context("the daemon named a layer by no digest")?;
            let file_name = match (kind, layers.len(), number) {
                // Weights in several files are one model: they get the names by which it is told.
                (media_type::MODEL, 2.., _) => Shard::name(&stem, number + 1, layers.len()),
                (_, _, 0) => format!("{stem}{suffix}.gguf"),
                _ => format!("{stem}{suffix}-{}.gguf", number + 1),
            };
            parts.push(Part { file_name, digest, bytes: layer.bytes });
        }
    }
    if parts.is_empty() {
        let message = format!("'{}' has no GGUF file", model.name);
        return Err(Failure::new(Exit::General, message).into());
    }
    Ok(parts)
}

fn kind_of(file: &ModelFile) -> &str {
    if file.kind.is_empty() { &file.media_type } else { &file.kind }
}

/// A model's name as a file's: `smollm2-135m` for `smollm2:135m`.
fn stem_of(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    let last = last.strip_suffix(":latest").unwrap_or(last);
    last.replace(':', "-")
}

/// Fetches one layer into a file beside its final name, which it gets when its bytes are right.
async fn write(
    client: &Client,
    part: &Part,
    path: &Path,
    progress: &mut Progress,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    if path.exists() {
        let message = format!("{} is there already", path.display());
        return Err(Failure::usage(message).hint("choose another folder, or remove it").into());
    }
    // As any file that a program makes: the user's umask says who may read it.
    let mode = Permissions::from_mode(0o666);
    let file = tempfile::Builder::new().permissions(mode).tempfile_in(folder);
    let mut file = file.with_context(|| format!("cannot write to {}", folder.display()))?;
    let mut pieces = Box::pin(client.blob(&part.digest.to_string()).await?);
    let (mut hasher, mut done) = (Hasher::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        file.write_all(&piece).map_err(|error| full_or(error, path))?;
        hasher.update(&piece);
        done += piece.len() as u64;
        let line = ProgressLine {
            status: format!("writing {}", part.file_name),
            digest: Some(part.digest.to_string()),
            total: Some(part.bytes),
            completed: Some(done),
        };
        progress.update(terminal, &line)?;
    }
    if hasher.finish() != part.digest {
        let message = format!("the bytes of {} are not those of its digest", part.digest);
        let hint = "dsk verify finds out what is damaged";
        return Err(Failure::new(Exit::Integrity, message).hint(hint).into());
    }
    file.as_file().sync_all().map_err(|error| full_or(error, path))?;
    file.persist_noclobber(path).map_err(|error| full_or(error.error, path))?;
    Ok(())
}

fn full_or(error: std::io::Error, path: &Path) -> Failure {
    let exit = failure::write_exit(&error);
    Failure::new(exit, format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsk_registry::{Descriptor, Layer, Manifest};

    #[test]
    fn the_files_of_a_model() {
        let file = |media_type: &str, bytes: &[u8]| ModelFile {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes).to_string(),
            bytes: bytes.len() as u64,
            ..ModelFile::default()
        };
        let mut model = FilesResponse {
            name: "hf.co/u/llava:7b".to_owned(),
            files: vec![
                file(media_type::PROJECTOR, b"eyes"),
                file(media_type::LICENSE, b"free"),
                file(media_type::MODEL, b"weights"),
                file(media_type::ADAPTER, b"1"),
                file(media_type::ADAPTER, b"2"),
            ],
            ..FilesResponse::default()
        };
        let names: Vec<String> =
            gguf_parts(&model).unwrap().into_iter().map(|part| part.file_name).collect();
        let expected =
            ["", "-mmproj", "-adapter", "-adapter-2"].map(|s| format!("llava-7b{s}.gguf"));
        assert_eq!(names, expected);
        assert_eq!(stem_of("smollm2:latest"), "smollm2");
        model.files.push(file(media_type::MODEL, b"more weights"));
        let parts = gguf_parts(&model).unwrap();
        let names: Vec<&str> = parts.iter().map(|part| part.file_name.as_str()).collect();
        assert_eq!(names[..2], ["llava-7b-00001-of-00002.gguf", "llava-7b-00002-of-00002.gguf"]);
        model.files.clear();
        assert!(gguf_parts(&model).is_err());
    }

    #[test]
    fn files_of_other_formats_are_told_by_their_kind_and_numbered_by_their_names() {
        let file = |media_type: &str, kind: &str, bytes: &[u8], part| ModelFile {
            media_type: media_type.to_owned(),
            kind: kind.to_owned(),
            digest: Digest::of(bytes).to_string(),
            part,
            ..ModelFile::default()
        };
        let weight = media_type::MODELPACK_WEIGHT;
        let model = FilesResponse {
            name: "m".to_owned(),
            files: vec![
                file(media_type::MODELPACK_DOC, media_type::LICENSE, b"free", None),
                file(weight, media_type::MODEL, b"second", Some(2)),
                file(weight, media_type::PROJECTOR, b"eyes", None),
                file(weight, media_type::MODEL, b"first", Some(1)),
            ],
            ..FilesResponse::default()
        };
        let parts = gguf_parts(&model).unwrap();
        let parts: Vec<_> =
            parts.iter().map(|part| (part.file_name.as_str(), part.digest)).collect();
        let expected = [
            ("m-00001-of-00002.gguf", Digest::of(b"first")),
            ("m-00002-of-00002.gguf", Digest::of(b"second")),
            ("m-mmproj.gguf", Digest::of(b"eyes")),
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn a_layout_is_of_the_daemons_model_and_of_no_other() {
        let (root, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(root.path()).unwrap();
        let put = |name: &str, weights: &[u8]| {
            let layer = Layer::new(
                media_type::MODEL,
                store.put_blob(weights).unwrap(),
                weights.len() as u64,
            );
            let digest = store.put_blob(b"{}").unwrap();
            let media_type = media_type::CONFIG.to_owned();
            let manifest = Manifest::new(Descriptor { media_type, digest, size: 2 }, vec![layer]);
            store.put_manifest(&Name::parse(name).unwrap(), &manifest.to_json()).unwrap()
        };
        let stored = put("m", b"ours");
        let model = |name: &str, bytes: &[u8]| FilesResponse {
            name: name.to_owned(),
            manifest: String::from_utf8(bytes.to_vec()).unwrap(),
            ..FilesResponse::default()
        };
        let write = |model: &FilesResponse| {
            write_layout(root.path(), model, folder.path(), oci_layout::Format::OciLayout)
        };
        let theirs = put("other", b"theirs").bytes;
        for elsewhere in [model("m", &theirs), model("absent", &theirs)] {
            let error = write(&elsewhere).unwrap_err();
            let failure = error.downcast_ref::<Failure>().unwrap();
            assert!(failure.hints[0].contains("on the daemon's machine"), "{failure}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
        assert_eq!(write(&model("m", &stored.bytes)).unwrap(), stored.digest);
    }
}
