//! The names of a model's files where it has several: `name-00001-of-00003.gguf`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Digits of a number in such a name.
const DIGITS: usize = 5;
/// How such a name ends.
const ENDING: &str = ".gguf";
/// The most files that one model is taken to have.
const SHARDS_MAX: u32 = 1024;

/// What the name of one of the files says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard<'a> {
    /// What stands before the numbers.
    pub stem: &'a str,
    /// Which of them it is, from 1.
    pub number: u32,
    /// How many there are.
    pub count: u32,
    /// How the name ends: `.gguf`, in whatever case.
    pub ending: &'a str,
}

impl<'a> Shard<'a> {
    /// Reads the name of a file; None where it is not one of several.
    pub fn parse(file_name: &'a str) -> Option<Shard<'a>> {
        let at = file_name.len().checked_sub(ENDING.len())?;
        let (name, ending) = (file_name.get(..at)?, file_name.get(at..)?);
        let (rest, count) = name.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let (number, count) = (digits(number)?, digits(count)?);
        let sound = !stem.is_empty() && (1..=count).contains(&number) && count <= SHARDS_MAX;
        let sound = sound && ending.eq_ignore_ascii_case(ENDING);
        sound.then_some(Shard { stem, number, count, ending })
    }

    /// The name of file `number`, from 1, of `count`.
    pub fn name(stem: &str, number: usize, count: usize) -> String {
        numbered(stem, number, count, ENDING)
    }

    /// The paths of all files of the model that the one at `path` belongs to, whether they are there or
    /// not; that path alone where it is not one of several.
    pub fn paths(path: &Path) -> Vec<PathBuf> {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(shard) = name.and_then(Shard::parse) else { return vec![path.to_owned()] };
        let count = shard.count as usize;
        (1..=count)
            .map(|number| path.with_file_name(numbered(shard.stem, number, count, shard.ending)))
            .collect()
    }

    /// Whether the names are all the files of one model, each once.
    pub(crate) fn are_one<'n>(names: impl IntoIterator<Item = &'n str>) -> bool {
        let shards: Option<Vec<Shard<'n>>> = names.into_iter().map(Shard::parse).collect();
        let Some(shards) = shards else { return false };
        let Some(first) = shards.first() else { return false };
        let same = |shard: &Shard<'_>| (shard.stem, shard.count) == (first.stem, first.count);
        let numbers: BTreeSet<u32> = shards.iter().map(|shard| shard.number).collect();
        shards.iter().all(same)
            && numbers.len() == shards.len()
            && shards.len() == first.count as usize
    }
}

fn numbered(stem: &str, number: usize, count: usize, ending: &str) -> String {
    format!("{stem}-{number:0DIGITS$}-of-{count:0DIGITS$}{ending}")
}

fn digits(text: &str) -> Option<u32> {
    let plain = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        let read = |name: &str| {
            Shard::parse(name)
                .map(|shard| format!("{} {}/{}", shard.stem, shard.number, shard.count))
        };
        assert_eq!(read("m-Q8_0-00002-of-00003.gguf").as_deref(), Some("m-Q8_0 2/3"));
        assert_eq!(read("Q/m-00001-of-00001.GGUF").as_deref(), Some("Q/m 1/1"));
        for no in [
            "m.gguf",
            "m-00000-of-00003.gguf",
            "m-00004-of-00003.gguf",
            "m-1-of-3.gguf",
            "-00001-of-00003.gguf",
            "m-00001-of-00003.bin",
            "m-00001-of-99999.gguf",
            "m-+0001-of-00003.gguf",
            "ü-of-.gguf",
            "",
        ] {
            assert_eq!(read(no), None, "{no}");
        }
        assert_eq!(Shard::name("m", 2, 3), "m-00002-of-00003.gguf");
    }

    #[test]
    fn all_files_of_a_model() {
        let paths = Shard::paths(Path::new("/d/m-00002-of-00002.gguf"));
        let expected = ["/d/m-00001-of-00002.gguf", "/d/m-00002-of-00002.gguf"];
        assert_eq!(paths, expected.map(PathBuf::from));
        for path in ["/d/m.gguf", "/d/m-00001-of-00001.GGUF"] {
            assert_eq!(Shard::paths(Path::new(path)), [PathBuf::from(path)]);
        }
        let [one, two] = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
        assert!(Shard::are_one([two, one]));
        for wrong in
            [vec![one], vec![one, one], vec![one, "n-00002-of-00002.gguf"], vec![], vec!["m"]]
        {
            assert!(!Shard::are_one(wrong.iter().copied()), "{wrong:?}");
        }
    }
}
