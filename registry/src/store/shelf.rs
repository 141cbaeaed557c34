//! Manifests that are no model of the store: what only the embedded registry serves.
//!
//! An index has no blobs, an artifact under its digest has no tag, and what a pull-through brought may not
//! have its blobs yet. Such manifests lie on a shelf of their own, so that a list of models never meets
//! them; the blobs that they name are in use like any other's.

use super::{Store, StoreError, durable, guard, manifests::read_bounded};
use crate::{Digest, Manifest, ManifestError, Name};
use std::{collections::BTreeSet, fs, io::ErrorKind, path::Path};

/// Where a registry files a manifest; the tag of a digest's repository means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Under a tag.
    Tag(Name),
    /// Under what its bytes hash to.
    Digest(Name, Digest),
}

impl Place {
    pub(crate) fn repository(&self) -> &Name {
        match self {
            Place::Tag(name) | Place::Digest(name, _) => name,
        }
    }
}

impl Store {
    /// Puts a manifest on the shelf, in place of what was there.
    pub(crate) fn shelve(&self, place: &Place, bytes: &[u8]) -> Result<(), StoreError> {
        let _changing = guard(&self.0.manifests);
        self.write_manifest(&self.paths().shelved(place), bytes)
    }

    /// The same for an image manifest, all of whose blobs must be there.
    pub(crate) fn shelve_whole(
        &self,
        place: &Place,
        manifest: &Manifest,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let _changing = guard(&self.0.manifests);
        self.check_blobs(manifest)?;
        self.write_manifest(&self.paths().shelved(place), bytes)
    }

    /// The bytes of a manifest on the shelf.
    pub(crate) fn shelved(&self, place: &Place) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(read_bounded(&self.paths().shelved(place))?.map(|(bytes, _)| bytes))
    }

    /// Takes a manifest off the shelf; true when it was there. Its blobs stay.
    pub(crate) fn unshelve(&self, place: &Place) -> Result<bool, StoreError> {
        self.check_writable()?;
        let _changing = guard(&self.0.manifests);
        let path = self.paths().shelved(place);
        if !durable::remove(&path)? {
            return Ok(false);
        }
        let root = self.paths().shelf();
        for folder in path.ancestors().skip(1).take_while(|folder| **folder != *root) {
            // Only an empty folder can be removed this way; another manifest keeps it.
            if fs::remove_dir(folder).is_err() {
                durable::sync_folder(folder)?;
                return Ok(true);
            }
        }
        durable::sync_folder(&root)?;
        Ok(true)
    }

    /// The shelved manifests of a repository, tags first.
    pub(crate) fn shelved_places(&self, repository: &Name) -> Result<Vec<Place>, StoreError> {
        let [tags, digests] = self.paths().shelf_folders(repository);
        let tags = entries(&tags)?.into_iter().filter_map(|tag| repository.with_tag(&tag).ok());
        let digests = entries(&digests)?.into_iter().filter_map(|digest| digest.parse().ok());
        let digests = digests.map(|digest| Place::Digest(repository.clone(), digest));
        Ok(tags.map(Place::Tag).chain(digests).collect())
    }

    /// The repositories with something on the shelf, by name.
    pub(crate) fn shelved_repositories(&self) -> Result<BTreeSet<Name>, StoreError> {
        let root = self.paths().shelf();
        let mut found = BTreeSet::new();
        for namespace in entries(&root)? {
            for model in entries(&root.join(&namespace))? {
                found.extend(Name::from_parts(
                    crate::DEFAULT_HOST,
                    &namespace,
                    &model,
                    crate::DEFAULT_TAG,
                ));
            }
        }
        Ok(found)
    }

    /// Every digest that a shelved manifest names. An index names manifests, which are no blobs.
    pub(super) fn shelved_blobs(&self) -> Result<Vec<Digest>, StoreError> {
        let mut used = Vec::new();
        for repository in self.shelved_repositories()? {
            for place in self.shelved_places(&repository)? {
                let Some(bytes) = self.shelved(&place)? else { continue };
                match Manifest::from_json(&bytes) {
                    Ok(manifest) => used.extend(manifest.blobs().iter().map(|blob| blob.digest)),
                    Err(ManifestError::Index(_)) => {}
                    Err(error) => {
                        let path = self.paths().shelved(&place);
                        return Err(StoreError::Corrupt { path, reason: error.to_string() });
                    }
                }
            }
        }
        Ok(used)
    }
}

/// The names in a folder, sorted; none when there is no such folder.
fn entries(folder: &Path) -> Result<Vec<String>, StoreError> {
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed.collect::<Result<Vec<_>, _>>(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => Err(error),
    };
    let listed = listed.map_err(|error| StoreError::io(folder, error))?;
    let mut names: Vec<String> =
        listed.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{manifest_of, name, put_model, scratch};

    #[test]
    fn what_lies_on_the_shelf_is_no_model_and_keeps_its_blobs() {
        let scratch = scratch();
        let store = &scratch.store;
        let stored = put_model(store, "me/m", b"weights");
        let place = Place::Digest(name("me/m"), stored.digest);
        store.shelve_whole(&place, &stored.manifest, &stored.bytes).unwrap();
        store.remove(&stored.name).unwrap();
        assert!(store.list().unwrap().is_empty());
        assert!(store.has(&Digest::of(b"weights")));
        assert_eq!(store.shelved(&place).unwrap().unwrap(), stored.bytes);
        assert_eq!(store.shelved_places(&name("me/m")).unwrap(), std::slice::from_ref(&place));
        assert!(store.unshelve(&place).unwrap());
        assert!(!store.unshelve(&place).unwrap());
        assert_eq!(fs::read_dir(scratch.folder.path().join("registry")).unwrap().count(), 0);
        store.remove_unused([Digest::of(b"weights")]).unwrap();
        assert!(!store.has(&Digest::of(b"weights")));
    }

    #[test]
    fn a_shelved_manifest_that_cannot_be_read_keeps_every_blob() {
        let scratch = scratch();
        let store = &scratch.store;
        let digest = store.put_blob(b"perhaps it names me").unwrap();
        store.shelve(&Place::Tag(name("me/m")), b"damaged").unwrap();
        assert_eq!(store.remove_unused([digest]).unwrap(), 0);
        assert!(store.has(&digest));
    }

    #[test]
    fn a_manifest_without_its_blobs_is_refused() {
        let scratch = scratch();
        let manifest = manifest_of(b"absent");
        let place = Place::Digest(name("me/m"), Digest::of(b"x"));
        let refused = scratch.store.shelve_whole(&place, &manifest, &manifest.to_json());
        assert!(matches!(refused, Err(StoreError::NotFound { .. })));
        assert!(scratch.store.shelved_repositories().unwrap().is_empty());
    }
}
