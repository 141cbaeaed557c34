//! The names of manifests, read from their folders.
//!
//! A folder's time changes with every name in it, so one that has not changed is not read again: a list of
//! thousands of models costs a look at each folder and each file, and opens none of them.

use super::{StoreError, guard, paths::MANIFEST_FOLDERS};
use crate::Name;
use std::{
    collections::{HashMap, HashSet},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

/// A folder that changed this recently may change again without another time: clocks of file systems tick
/// every few milliseconds.
const SETTLED: Duration = Duration::from_secs(1);

/// The names in folders that were read.
#[derive(Debug, Default)]
pub(super) struct Tree(Mutex<HashMap<PathBuf, Folder>>);

#[derive(Debug)]
struct Folder {
    changed: SystemTime,
    names: Names,
}

/// The names in a folder; none where there is no folder.
type Names = Arc<Vec<String>>;

impl Tree {
    /// Every file that lies below `top` where a manifest lies below its folder, by name.
    pub(super) fn files_below(&self, top: &Path) -> Result<Vec<(Name, PathBuf)>, StoreError> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let mut names = |folder: &Path| {
            seen.insert(folder.to_owned());
            self.names(folder)
        };
        walk(top, &mut Vec::new(), &mut names, &mut found)?;
        found.sort();
        guard(&self.0).retain(|folder, _| seen.contains(folder));
        Ok(found)
    }

    fn names(&self, folder: &Path) -> Result<Names, StoreError> {
        // Asked before the names are read: what comes in between is found the next time.
        let Some(changed) = changed(folder)? else { return Ok(Names::default()) };
        let known =
            guard(&self.0).get(folder).map(|known| (known.changed, Arc::clone(&known.names)));
        if let Some((_, names)) = known.filter(|(at, _)| *at == changed) {
            return Ok(names);
        }
        let names = read(folder)?;
        if SystemTime::now().duration_since(changed).is_ok_and(|age| age > SETTLED) {
            let known = Folder { changed, names: Arc::clone(&names) };
            guard(&self.0).insert(folder.to_owned(), known);
        }
        Ok(names)
    }
}

/// When a folder changed last; none when it is no folder.
fn changed(folder: &Path) -> Result<Option<SystemTime>, StoreError> {
    match fs::metadata(folder).and_then(|it| Ok((it.is_dir(), it.modified()?))) {
        Ok((true, changed)) => Ok(Some(changed)),
        Ok((false, _)) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(StoreError::io(folder, error)),
    }
}

/// Reads the names in a folder.
pub(super) fn read(folder: &Path) -> Result<Names, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // A removal emptied and deleted the folder in between, or it never was one.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Names::default());
        }
        Err(error) => return Err(StoreError::io(folder, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| StoreError::io(folder, error))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(Arc::new(names))
}

/// Collects the manifests below `folder`, whose names `names` gives; `parents` are the folder names that
/// lead to it.
pub(super) fn walk(
    folder: &Path,
    parents: &mut Vec<String>,
    names: &mut dyn FnMut(&Path) -> Result<Names, StoreError>,
    found: &mut Vec<(Name, PathBuf)>,
) -> Result<(), StoreError> {
    for file_name in names(folder)?.iter() {
        let path = folder.join(file_name);
        if let [host, namespace, model] = parents.as_slice() {
            let name = Name::from_parts(host, namespace, model, file_name);
            found.extend(name.ok().map(|name| (name, path)));
        } else if parents.len() < MANIFEST_FOLDERS {
            parents.push(file_name.clone());
            walk(&path, parents, names, found)?;
            parents.pop();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn age(folder: &Path, seconds: u64) {
        let then = SystemTime::now() - Duration::from_secs(seconds);
        File::open(folder).unwrap().set_modified(then).unwrap();
    }

    #[test]
    fn a_folder_is_read_again_when_it_changed() {
        let top = tempfile::tempdir().unwrap();
        let model = top.path().join("host/space/model");
        fs::create_dir_all(&model).unwrap();
        fs::write(model.join("a"), "").unwrap();
        let tree = Tree::default();
        let tags = || {
            let found = tree.files_below(top.path()).unwrap();
            found.into_iter().map(|(name, _)| name.tag().to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(tags(), "a");
        // It changed just now: such a folder is not relied on.
        assert!(guard(&tree.0).get(&model).is_none());
        age(&model, 10);
        assert_eq!(tags(), "a");
        assert!(guard(&tree.0).contains_key(&model));
        // A name that comes without another time is not found: that is what makes a list cheap.
        fs::write(model.join("b"), "").unwrap();
        let known = guard(&tree.0)[&model].changed;
        File::open(&model).unwrap().set_modified(known).unwrap();
        assert_eq!(tags(), "a");
        age(&model, 5);
        assert_eq!(tags(), "a b");
        fs::remove_dir_all(top.path().join("host")).unwrap();
        assert_eq!(tags(), "");
        // Folders that are gone are forgotten; a slow machine has come to know the top one.
        assert!(guard(&tree.0).keys().all(|folder| folder == top.path()));
    }
}
