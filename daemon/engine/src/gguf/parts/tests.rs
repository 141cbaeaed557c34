//! Models in several files: joined right, and refused where they are not the parts of one.

use proptest::prelude::*;

use super::super::testkit::{Random, Writer, tiny_writer};
use super::*;

fn parse(files: &[Vec<u8>]) -> Vec<Gguf> {
    files.iter().map(|bytes| Gguf::parse(bytes.clone()).expect("a good file")).collect()
}

fn refusal(files: &[Writer]) -> String {
    let parts: Vec<Vec<u8>> = files.iter().map(Writer::finish).collect();
    Gguf::join(parse(&parts)).expect_err("a refusal").to_string()
}

/// A part with one tensor of four bytes.
fn part(number: usize, count: usize, tensors: usize, tensor: &str) -> Writer {
    Writer::new().tensor(tensor, &[1], 0, vec![number as u8; 4]).part_of(number, count, tensors)
}

#[test]
fn joined_they_are_the_whole() {
    let writer = tiny_writer("llama", 5);
    let whole = Gguf::parse(writer.finish()).unwrap();
    for count in [1, 2, 3, 7, 21] {
        let files = writer.split(count);
        let mut parts = parse(&files);
        parts.reverse();
        let joined = Gguf::join(parts).unwrap();
        assert_eq!(joined.parts(), count);
        joined.check_complete().unwrap();
        assert_eq!(joined.file_len(), files.iter().map(|file| file.len() as u64).sum::<u64>());
        assert_eq!(joined.tensors().len(), whole.tensors().len());
        for tensor in whole.tensors() {
            let found = joined.need_tensor(&tensor.name).unwrap();
            assert_eq!(joined.tensor_bytes(found).unwrap(), whole.tensor_bytes(tensor).unwrap());
        }
        for (key, _) in whole.metadata() {
            assert_eq!(joined.raw(key), whole.raw(key), "{key}");
        }
    }
}

#[test]
fn files_are_mapped_and_released_together() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..3).map(|number| folder.path().join(format!("{number}"))).collect();
    for (path, bytes) in paths.iter().zip(tiny_writer("llama", 5).split(3)) {
        std::fs::write(path, bytes).unwrap();
    }
    let joined = Gguf::open_all(&paths).unwrap();
    let last = joined.tensors().last().unwrap();
    let before = joined.tensor_bytes(last).unwrap().to_vec();
    joined.release_rows(last, 0..4);
    joined.release(last);
    joined.release_all();
    assert_eq!(joined.tensor_bytes(last).unwrap(), before);
    // Of a part that is cut off there is only the header.
    let bytes = std::fs::read(&paths[2]).unwrap();
    std::fs::write(&paths[2], &bytes[..bytes.len() - 100]).unwrap();
    assert!(Gguf::open_all(&paths).unwrap_err().to_string().contains("end after the file's"));
    let headers = Gguf::open_headers(&paths).unwrap();
    let last = headers.tensors().last().unwrap();
    let error = headers.tensor_bytes(last).unwrap_err().to_string();
    assert!(error.contains("beyond the end"), "{error}");
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let good = || [part(0, 2, 2, "a"), part(1, 2, 2, "b")];
    let [first, second] = good();
    let foreign = second.clone().str("general.name", "another");
    let more = second.clone().tensor("c", &[1], 0, vec![0; 4]);
    let cases: Vec<(Vec<Writer>, &str)> = vec![
        (vec![], "there is none"),
        (vec![first.clone(), first.clone()], "two files say that they are part 1"),
        (
            vec![part(0, 3, 3, "a"), part(1, 3, 3, "b")],
            "they are 3 by their metadata, and 2 are here",
        ),
        (vec![first.clone(), part(2, 2, 2, "b")], "one says that it is part 3 of 2"),
        (vec![first.clone(), Writer::new()], "no part of anything (no split.count)"),
        (vec![first.clone(), part(1, 2, 2, "a")], "tensor \"a\": it is there twice"),
        (vec![first.clone(), more], "they have 3 tensors, and the first states 2"),
        (vec![first.clone(), foreign], "part 2 has its own \"general.name\""),
        (vec![first, Writer::new().raw("split.count", 2, &[2, 0])], "no metadata key \"split.no\""),
    ];
    for (files, expected) in cases {
        let error = refusal(&files);
        assert!(error.contains(expected), "{error:?} should contain {expected:?}");
    }
    let [first, second] = good().map(|part| part.str("general.name", "one"));
    let files = [first.finish(), second.finish()];
    assert!(
        Gguf::join(parse(&files)).is_ok(),
        "the same metadata in all parts is no contradiction"
    );
    let alone = parse(&files[..1]).pop().unwrap().check_complete().unwrap_err().to_string();
    assert!(alone.contains("it is one of 2 parts, and all are needed"), "{alone}");
    let paths = vec![Path::new("/nothing"); PARTS_MAX + 1];
    let error = Gguf::open_all(&paths).unwrap_err().to_string();
    assert!(error.contains("they are 1025, and 1024 are allowed"), "{error}");
}

proptest! {
    /// Any damage to any part gives an error or a model whose every tensor can be asked for.
    #[test]
    fn no_mutation_panics(seed in any::<u64>(), count in 2usize..5, mutations in 0usize..8) {
        let writer = (0..6).fold(Writer::new().u32("a.number", 7), |writer, index| {
            writer.tensor(&format!("t{index}"), &[8], 0, vec![index; 32])
        });
        let mut files = writer.split(count);
        let mut random = Random::new(seed);
        for _ in 0..mutations {
            let file = random.below(count);
            let at = random.below(files[file].len());
            files[file][at] = random.bits() as u8;
        }
        let parts: Result<Vec<Gguf>, _> = files.into_iter().map(Gguf::parse).collect();
        let joined = parts.and_then(Gguf::join);
        prop_assert!(mutations > 0 || joined.is_ok());
        if let Ok(gguf) = &joined {
            for tensor in gguf.tensors() {
                let _ = gguf.tensor_bytes(tensor);
                prop_assert!(gguf.tensor(&tensor.name).is_some());
            }
        }
    }
}
