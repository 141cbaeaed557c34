//! Every path of the store. No other code joins one.
//!
//! ```text
//! <root>/
//!   dsk.lock                                   the owner's lock; its process id as text
//!   dsk-transfers.db                           what is durable of the partial files (SQLite; also -wal, -shm)
//!   blobs/
//!     sha256-<64 hex>                          a blob; its bytes hash to its name, always
//!     sha256-<64 hex>-partial                  a blob that is still arriving: its first bytes, or with holes
//!                                              that dsk-transfers.db knows of
//!     sha256-<64 hex>-partial-<n>              (Ollama's) its journal of a partial file with holes
//!     sha256:<64 hex>                          (old Ollama's) a blob; read and removed, never made
//!     dsk-<process id>-<n>.tmp                 bytes whose digest is not known or not checked yet
//!   manifests/
//!     <host>/<namespace>/<model>/<tag>         a manifest, byte for byte as the registry sent it
//!   registry/<namespace>/<model>/              what only the embedded registry serves:
//!     tags/<tag>                               an index, or a manifest whose blobs may not be here
//!     digests/sha256-<64 hex>                  a manifest that no tag names
//!   pulls/
//!     <host>/<namespace>/<model>/<tag>         the manifest of a pull that has not ended
//!   links/
//!     sha256-<64 hex>                          a file elsewhere that has these bytes, as JSON
//!   quarantine/
//!     sha256-<64 hex>[.<n>]                    what lay under a blob's name and hashed to another
//! ```
//!
//! `pulls`, `links` and `quarantine` are made when they are first needed. The lock of a store that
//! another program owns lies in a folder of the daemon's own (see `adoption`).
//!
//! A blob's path takes a [`Digest`] and a manifest's path a [`Name`]; both were checked when they were
//! parsed, so no path can leave the root. Temporary files lie among the blobs, not beside the manifests,
//! so that a program that lists the manifests never meets a half-written one.

use super::shelf::Place;
use crate::{Digest, Name};
use std::path::{Path, PathBuf};

/// The folder depth of a manifest under `manifests/`: host, namespace, model.
pub(super) const MANIFEST_FOLDERS: usize = 3;

const PARTIAL: &str = "-partial";
const TEMPORARY: &str = ".tmp";

/// The paths of one store.
#[derive(Debug)]
pub(super) struct Paths {
    root: PathBuf,
    lock: PathBuf,
}

/// What a file in `blobs/` is, by its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BlobFile {
    Blob(Digest),
    Partial(Digest),
    /// A journal that Ollama keeps beside a partial file of its own.
    Journal(Digest),
    Temporary,
    /// Not a name that the store makes; left alone.
    Foreign,
}

impl Paths {
    pub(super) fn new(root: &Path) -> Paths {
        Paths { root: root.to_owned(), lock: root.join("dsk.lock") }
    }

    /// The same store with its lock elsewhere.
    pub(super) fn with_lock(self, lock: PathBuf) -> Paths {
        Paths { lock, ..self }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.lock.clone()
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.root.join("dsk-transfers.db")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(blob_file(digest))
    }

    /// Where versions of Ollama before 0.1.33 put a blob.
    pub(super) fn old_blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.to_string())
    }

    pub(super) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// What is known of the file that a blob is linked to.
    pub(super) fn link(&self, digest: &Digest) -> PathBuf {
        self.links().join(blob_file(digest))
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// The `n`-th place for what lay under a blob's name and was not that blob.
    pub(super) fn quarantined(&self, digest: &Digest, n: usize) -> PathBuf {
        let suffix = if n == 0 { String::new() } else { format!(".{n}") };
        self.quarantine().join(blob_file(digest) + &suffix)
    }

    pub(super) fn pulls(&self) -> PathBuf {
        self.root.join("pulls")
    }

    /// The manifest of a pull that has not ended.
    pub(super) fn pull(&self, name: &Name) -> PathBuf {
        let parts = [name.host(), name.namespace(), name.model(), name.tag()];
        parts.iter().fold(self.pulls(), |path, part| path.join(part))
    }

    pub(super) fn partial(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(blob_file(digest) + PARTIAL)
    }

    /// The `n`-th entry of the journal that Ollama keeps beside a partial file of its own.
    pub(super) fn foreign_journal(&self, digest: &Digest, n: usize) -> PathBuf {
        self.blobs().join(format!("{}{PARTIAL}-{n}", blob_file(digest)))
    }

    pub(super) fn temporary(&self, process: u32, number: u64) -> PathBuf {
        self.blobs().join(format!("dsk-{process}-{number}{TEMPORARY}"))
    }

    /// The folder with a model's tags.
    pub(super) fn model(&self, name: &Name) -> PathBuf {
        self.manifests().join(name.host()).join(name.namespace()).join(name.model())
    }

    pub(super) fn manifest(&self, name: &Name) -> PathBuf {
        self.model(name).join(name.tag())
    }

    /// The folder with what only the embedded registry serves.
    pub(super) fn shelf(&self) -> PathBuf {
        self.root.join("registry")
    }

    /// The folders of a repository's tagged and of its untagged manifests.
    pub(super) fn shelf_folders(&self, repository: &Name) -> [PathBuf; 2] {
        let folder = self.shelf().join(repository.namespace()).join(repository.model());
        ["tags", "digests"].map(|kind| folder.join(kind))
    }

    pub(super) fn shelved(&self, place: &Place) -> PathBuf {
        let [tags, digests] = self.shelf_folders(place.repository());
        match place {
            Place::Tag(name) => tags.join(name.tag()),
            Place::Digest(_, digest) => digests.join(blob_file(digest)),
        }
    }
}

fn blob_file(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

/// The reverse of the functions above, for a walk over `blobs/`.
pub(super) fn classify(file_name: &str) -> BlobFile {
    let named = |text: &str| text.starts_with("sha256-") || text.starts_with("sha256:");
    let parse = |text: &str| named(text).then(|| text.parse().ok()).flatten();
    let journal = |text: &str| {
        let (blob, number) = text.rsplit_once('-')?;
        number.parse::<u32>().ok()?;
        parse(blob.strip_suffix(PARTIAL)?)
    };
    if let Some(digest) = parse(file_name) {
        BlobFile::Blob(digest)
    } else if let Some(digest) = file_name.strip_suffix(PARTIAL).and_then(parse) {
        BlobFile::Partial(digest)
    } else if let Some(digest) = journal(file_name) {
        BlobFile::Journal(digest)
    } else if file_name.starts_with("dsk-") && file_name.ends_with(TEMPORARY) {
        BlobFile::Temporary
    } else {
        BlobFile::Foreign
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;
    use std::path::Component;

    #[test]
    fn the_layout_is_ollamas() {
        let paths = Paths::new(Path::new("/models"));
        let digest = Digest::of(b"");
        let name = Name::parse("smollm2:135m").unwrap();
        let all = [
            paths.blob(&digest),
            paths.partial(&digest),
            paths.foreign_journal(&digest, 3),
            paths.temporary(7, 1),
            paths.manifest(&name),
            paths.lock(),
            paths.link(&digest),
            paths.quarantined(&digest, 0),
            paths.quarantined(&digest, 2),
            paths.pull(&name),
        ];
        let text: String = all.iter().map(|path| format!("{}\n", path.display())).collect();
        expect![[r#"
            /models/blobs/sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
            /models/blobs/sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855-partial
            /models/blobs/sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855-partial-3
            /models/blobs/dsk-7-1.tmp
            /models/manifests/registry.ollama.ai/library/smollm2/135m
            /models/dsk.lock
            /models/links/sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
            /models/quarantine/sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
            /models/quarantine/sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.2
            /models/pulls/registry.ollama.ai/library/smollm2/135m
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn a_file_name_tells_what_it_is() {
        let digest = Digest::of(b"");
        let blob = blob_file(&digest);
        assert_eq!(classify(&blob), BlobFile::Blob(digest));
        assert_eq!(classify(&format!("{blob}-partial")), BlobFile::Partial(digest));
        assert_eq!(classify("dsk-7-1.tmp"), BlobFile::Temporary);
        assert_eq!(classify(&blob.replace('-', ":")), BlobFile::Blob(digest));
        assert_eq!(classify(&format!("{blob}-partial-3")), BlobFile::Journal(digest));
        for foreign in [&format!("{blob}-partial-x"), &blob.replace('-', "_"), "notes.txt", ""] {
            assert_eq!(classify(foreign), BlobFile::Foreign, "{foreign}");
        }
    }

    /// Whether `path` is exactly `depth` plain components below the root.
    fn lies_inside(path: &Path, root: &Path, depth: usize) -> bool {
        let Ok(rest) = path.strip_prefix(root) else { return false };
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        rest.components().count() == depth && rest.components().all(plain)
    }

    proptest! {
        #[test]
        fn fault_15_no_name_leaves_the_root(
            text in "(https?://)?[a-z0-9._:\\[\\]/\\\\-]{1,24}|\\PC{0,40}|(\\.\\./){1,4}[a-z]{1,4}"
        ) {
            let paths = Paths::new(Path::new("/models"));
            if let Ok(name) = Name::parse(&text) {
                prop_assert!(lies_inside(&paths.manifest(&name), &paths.manifests(), 4));
                prop_assert!(lies_inside(&paths.shelved(&Place::Tag(name)), &paths.shelf(), 4));
            }
        }

        #[test]
        fn fault_15_no_digest_leaves_the_root(text in "sha256[:-]([0-9a-f]{64}|[0-9a-f./\\\\]{60,66}|\\PC{0,70})") {
            let paths = Paths::new(Path::new("/models"));
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert!(lies_inside(&paths.blob(&digest), &paths.blobs(), 1));
                prop_assert!(lies_inside(&paths.partial(&digest), &paths.blobs(), 1));
            }
        }
    }
}
