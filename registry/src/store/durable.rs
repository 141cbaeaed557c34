//! Writes that are still there after the power was cut, and folders alike.

use super::StoreError;
use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Opens a file of ours for reading and writing, making it when missing. A symbolic link in its place
/// is refused: it could lead anywhere.
pub(super) fn open_own(path: &Path) -> Result<File, StoreError> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let flags = i32::try_from(no_follow).expect("open flags fit an int, as open(2) takes one");
    options.custom_flags(flags).open(path).map_err(|error| StoreError::io(path, error))
}

/// Writes a new file and waits until the disk has it.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<File, StoreError> {
    let file = open_own(path)?;
    let write = || {
        file.set_len(0)?;
        (&file).write_all(bytes)
    };
    write().map_err(|error| StoreError::io(path, error))?;
    Ok(file)
}

/// Waits until the disk has the file's bytes and length.
pub(super) fn sync_file(file: &File, path: &Path) -> Result<(), StoreError> {
    file.sync_all().map_err(|error| StoreError::io(path, error))
}

/// Waits until the disk has the folder's entries: a rename is not durable before.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|handle| handle.sync_all())
        .map_err(|error| StoreError::io(folder, error))
}

/// Gives a file its final name.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|error| StoreError::io(to, error))
}

/// Removes a file; true when it was there.
pub(super) fn remove(path: &Path) -> Result<bool, StoreError> {
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
            Err(StoreError::Unwritable { path: folder.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Fails early, with the folder's name, when this user cannot make files in it.
pub(super) fn check_writable(folder: &Path) -> Result<(), StoreError> {
    use rustix::fs::Access;
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| StoreError::Unwritable { path: folder.to_owned(), source: error.into() })
}
