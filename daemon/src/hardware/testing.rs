//! Machines as trees of files, for the readers' tests.

use std::fs;

use tempfile::TempDir;

/// A folder with these files.
pub(crate) fn tree(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder for a test");
    for (path, text) in files {
        write(&folder, path, text);
    }
    folder
}

/// Writes or replaces one file of a tree.
pub(crate) fn write(folder: &TempDir, path: &str, text: &str) {
    let path = folder.path().join(path);
    fs::create_dir_all(path.parent().expect("a file has a folder")).expect("its folder");
    fs::write(path, text).expect("the file");
}
