//! Writes that are still there after the power was cut, and folders alike.

use super::StoreError;
#[cfg(test)]
use super::disk::{self, Op};
use crate::failpoints::step;
use std::{
    fs::{self, File, OpenOptions},
    io::ErrorKind,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// Opens a file of ours for reading and writing, making it when missing. A symbolic link in its place
/// is refused: it could lead anywhere.
pub(super) fn open_own(path: &Path) -> Result<File, StoreError> {
    #[cfg(test)]
    observe(path, || Op::Create(path.to_owned()))?;
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let flags = i32::try_from(no_follow).expect("open flags fit an int, as open(2) takes one");
    options.custom_flags(flags).open(path).map_err(|error| StoreError::io(path, error))
}

/// Writes a new file and waits until the disk has it.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<File, StoreError> {
    let file = open_own(path)?;
    set_len(&file, path, 0)?;
    write_at(&file, path, bytes, 0)?;
    Ok(file)
}

/// Writes all of `bytes` at `offset`.
pub(super) fn write_at(
    file: &File,
    path: &Path,
    bytes: &[u8],
    offset: u64,
) -> Result<(), StoreError> {
    #[cfg(test)]
    observe(path, || Op::Write(path.to_owned(), offset, bytes.to_vec()))?;
    file.write_all_at(bytes, offset).map_err(|error| StoreError::io(path, error))
}

/// Cuts the file off, or lets it end with a hole.
pub(super) fn set_len(file: &File, path: &Path, length: u64) -> Result<(), StoreError> {
    #[cfg(test)]
    observe(path, || Op::SetLength(path.to_owned(), length))?;
    file.set_len(length).map_err(|error| StoreError::io(path, error))
}

/// Waits until the disk has the file's bytes and length.
pub(super) fn sync_file(file: &File, path: &Path) -> Result<(), StoreError> {
    #[cfg(test)]
    observe(path, || Op::SyncFile(path.to_owned()))?;
    file.sync_all().map_err(|error| StoreError::io(path, error))
}

/// Waits until the disk has the file's bytes, and of its length what is needed to read them.
pub(super) fn sync_data(file: &File, path: &Path) -> Result<(), StoreError> {
    #[cfg(test)]
    observe(path, || Op::SyncFile(path.to_owned()))?;
    file.sync_data().map_err(|error| StoreError::io(path, error))
}

/// Waits until the disk has the folder's entries: a rename is not durable before.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    #[cfg(test)]
    observe(folder, || Op::SyncFolder(folder.to_owned()))?;
    File::open(folder)
        .and_then(|handle| handle.sync_all())
        .map_err(|error| StoreError::io(folder, error))
}

/// Gives a file its final name.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    #[cfg(test)]
    observe(to, || Op::Rename(from.to_owned(), to.to_owned()))?;
    fs::rename(from, to).map_err(|error| StoreError::io(to, error))
}

/// Gives a file whose bytes were verified its final name, in the order that survives a crash at any point.
pub(super) fn publish(file: &File, path: &Path, target: &Path) -> Result<(), StoreError> {
    step("blob-verified");
    sync_file(file, path)?;
    step("blob-synced");
    rename(path, target)?;
    step("blob-renamed");
    if let Some(folder) = target.parent() {
        sync_folder(folder)?;
    }
    step("blob-published");
    Ok(())
}

/// Removes a file; true when it was there.
pub(super) fn remove(path: &Path) -> Result<bool, StoreError> {
    #[cfg(test)]
    observe(path, || Op::Remove(path.to_owned()))?;
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io(path, error)),
    }
}

/// Makes a folder and its missing parents, each of them durable in the one above it.
pub(super) fn create_folders(folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_folders(parent)?;
        create_folder(folder)?;
        return sync_folder(parent);
    }
    create_folder(folder)
}

fn create_folder(folder: &Path) -> Result<(), StoreError> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists || !folder.is_dir() => {
            Err(StoreError::Refused { path: folder.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Fails early, with the folder's name, when this user cannot make files in it.
pub(super) fn check_writable(folder: &Path) -> Result<(), StoreError> {
    use rustix::fs::Access;
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| StoreError::Refused { path: folder.to_owned(), source: error.into() })
}

/// Tells a watching test what is about to happen at `path`; see [`disk`].
#[cfg(test)]
pub(super) fn observe(path: &Path, op: impl FnOnce() -> Op) -> Result<(), StoreError> {
    disk::note(path, op).map_err(|error| StoreError::io(path, error))
}
