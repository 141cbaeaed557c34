//! A model in several files: each is a GGUF file of its own with some of the tensors.
//!
//! ```text
//! name-00001-of-00003.gguf   split.no 0   split.count 3   split.tensors.count 291   and all other keys
//! name-00002-of-00003.gguf   split.no 1   split.count 3   split.tensors.count 291
//! name-00003-of-00003.gguf   split.no 2   split.count 3   split.tensors.count 291
//! ```
//!
//! Joined, they are one [`Gguf`] with the metadata of the first and the tensors of all. Nothing is joined that
//! does not say of itself that it belongs together.

use std::path::Path;

use super::{Bytes, Extent, Gguf, GgufError, TENSORS_MAX, check_unique, map, sorted_index};
use crate::gguf::Place;

#[cfg(test)]
mod tests;

/// Files of one model; the largest published ones have fewer than two hundred.
pub const PARTS_MAX: usize = 1024;

/// A file after the first.
pub(super) struct Part {
    pub(super) bytes: Bytes,
    pub(super) data_offset: u64,
}

impl Gguf {
    /// Maps and checks the files of one model, in whatever order they come.
    pub fn open_all(paths: &[impl AsRef<Path>]) -> Result<Gguf, GgufError> {
        Gguf::of_paths(paths, Extent::Whole)
    }

    /// Like [`Gguf::open_all`] for files whose ends may be missing; see [`Gguf::open_header`].
    pub fn open_headers(paths: &[impl AsRef<Path>]) -> Result<Gguf, GgufError> {
        Gguf::of_paths(paths, Extent::HeaderOnly)
    }

    fn of_paths(paths: &[impl AsRef<Path>], extent: Extent) -> Result<Gguf, GgufError> {
        check_number(paths.len())?;
        let parts = paths.iter().map(|path| Gguf::read(map(path.as_ref())?, extent));
        Gguf::join(parts.collect::<Result<_, _>>()?)
    }

    /// Makes one of the parts of a model. A file that is alone stays as it is.
    pub fn join(parts: Vec<Gguf>) -> Result<Gguf, GgufError> {
        let count = parts.len();
        check_number(count)?;
        if count == 1 {
            return parts.into_iter().next().ok_or_else(|| wrong("there is none".to_owned()));
        }
        let mut places: Vec<Option<Gguf>> = (0..count).map(|_| None).collect();
        for part in parts {
            let number = part.number_of(count)?;
            if places[number].replace(part).is_some() {
                return Err(wrong(format!("two files say that they are part {}", number + 1)));
            }
        }
        // As many parts as places, each in another: none is empty.
        let mut parts = places.into_iter().flatten();
        let mut whole = parts.next().ok_or_else(|| wrong("there is none".to_owned()))?;
        for part in parts {
            whole.append(part)?;
        }
        whole.check_joined()
    }

    /// That this is no part of a model whose other parts are elsewhere.
    pub fn check_complete(&self) -> Result<(), GgufError> {
        match self.get_u32("split.count")? {
            Some(count) if count > 1 && self.parts() != count as usize => {
                Err(wrong(format!("it is one of {count} parts, and all are needed")))
            }
            _ => Ok(()),
        }
    }

    /// The files it was read from.
    pub fn parts(&self) -> usize {
        1 + self.rest.len()
    }

    /// Which part this file says it is, counted from 0.
    fn number_of(&self, count: usize) -> Result<usize, GgufError> {
        let Some(stated) = self.get_u32("split.count")? else {
            return Err(wrong(
                "one of the files is no part of anything (no split.count)".to_owned(),
            ));
        };
        if stated as usize != count {
            return Err(wrong(format!(
                "they are {stated} by their metadata, and {count} are here"
            )));
        }
        let number = self.need_u32("split.no")? as usize;
        if number >= count {
            return Err(wrong(format!("one says that it is part {} of {count}", number + 1)));
        }
        Ok(number)
    }

    /// Adds the tensors of the next part.
    fn append(&mut self, part: Gguf) -> Result<(), GgufError> {
        let number = self.parts() as u32;
        for (key, value) in part.raw_metadata() {
            let own = key.starts_with("split.") || key == "general.alignment";
            // What a file says is honoured or refused, never ignored.
            if !own && self.raw(key) != Some(value) {
                let number = number + 1;
                return Err(wrong(format!("part {number} has its own {key:?}")));
            }
        }
        let together = self.tensors.len() + part.tensors.len();
        if together > TENSORS_MAX {
            let problem = format!("they have {together} tensors, and {TENSORS_MAX} are allowed");
            return Err(wrong(problem));
        }
        let Gguf { bytes, tensors, data_offset, .. } = part;
        self.tensors.extend(tensors.into_iter().map(|mut tensor| {
            tensor.part = number;
            tensor
        }));
        self.rest.push(Part { bytes, data_offset });
        Ok(())
    }

    fn check_joined(mut self) -> Result<Gguf, GgufError> {
        let (stated, found) = (self.need_u32("split.tensors.count")?, self.tensors.len());
        if stated as usize != found {
            return Err(wrong(format!("they have {found} tensors, and the first states {stated}")));
        }
        self.by_name = sorted_index(found, |index| &self.tensors[index].name);
        check_unique(&self.by_name, |index| &self.tensors[index].name, Place::Tensor)?;
        Ok(self)
    }
}

fn check_number(count: usize) -> Result<(), GgufError> {
    match count {
        0 => Err(wrong("there is none".to_owned())),
        1..=PARTS_MAX => Ok(()),
        _ => Err(wrong(format!("they are {count}, and {PARTS_MAX} are allowed"))),
    }
}

fn wrong(problem: String) -> GgufError {
    GgufError::Parts(problem)
}
