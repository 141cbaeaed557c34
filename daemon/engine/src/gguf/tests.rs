//! The reader against files that are right, wrong, and random.

use dsk_kernels::format::Format;
use proptest::prelude::*;

use super::testkit::{Random, Writer, tiny_model};
use super::*;

/// A small file with one key of every simple type and two tensors.
fn small() -> Writer {
    Writer::new()
        .str("general.architecture", "llama")
        .u32("a.u32", 7)
        .f32("a.f32", 0.5)
        .bool("a.bool", true)
        .strings("a.strings", &["one", "two", "drei"])
        .i32s("a.numbers", &[-1, 2, 3])
        .tensor("first", &[4, 2], Format::F32.ggml_id(), vec![1; 32])
        .tensor("second", &[32], Format::Q8_0.ggml_id(), vec![2; 34])
}

fn error(bytes: Vec<u8>) -> String {
    Gguf::parse(bytes).expect_err("a broken file").to_string()
}

#[test]
fn keys_and_tensors_are_read_in_place() {
    let gguf = Gguf::parse(small().finish()).unwrap();
    assert_eq!((gguf.version(), gguf.metadata().len()), (3, 6));
    assert_eq!(gguf.get_str("general.architecture").unwrap(), Some("llama"));
    assert_eq!(gguf.get_u32("a.u32").unwrap(), Some(7));
    assert_eq!(gguf.get_f32("a.f32").unwrap(), Some(0.5));
    assert_eq!(gguf.get_bool("a.bool").unwrap(), Some(true));
    let strings: Vec<&str> = gguf.get_strings("a.strings").unwrap().unwrap().collect();
    assert_eq!(strings, ["one", "two", "drei"]);
    let numbers = gguf.get_array("a.numbers").unwrap().unwrap();
    assert_eq!(numbers.iter().filter_map(|n| n.as_i64()).collect::<Vec<_>>(), [-1, 2, 3]);
    assert_eq!(gguf.get_str("absent").unwrap(), None);
    let tensor = gguf.need_tensor("second").unwrap();
    assert_eq!(tensor.format, TensorFormat::Known(Format::Q8_0));
    assert_eq!(gguf.tensor_bytes(tensor).unwrap(), [2; 34]);
    assert_eq!(gguf.data_offset() % 32, 0);
}

#[test]
fn a_value_of_another_type_is_named() {
    let gguf = Gguf::parse(small().raw("a.negative", 5, &(-3i32).to_le_bytes()).finish()).unwrap();
    let cases = [
        (
            gguf.get_u32("a.f32").map(|_| ()),
            "\"a.f32\" is a floating-point number, expected an int",
        ),
        (gguf.get_u32("a.negative").map(|_| ()), "is the integer -3, expected an integer from 0"),
        (gguf.get_str("a.numbers").map(|_| ()), "is an array of 3 i32, expected a string"),
        (gguf.get_strings("a.numbers").map(|_| ()), "is an array of 3 i32, expected an array of s"),
        (gguf.get_bool("a.u32").map(|_| ()), "is the integer 7, expected a bool"),
        (gguf.need_str("nothing").map(|_| ()), "no metadata key \"nothing\""),
    ];
    for (result, expected) in cases {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} should contain {expected:?}");
    }
}

#[test]
fn files_that_are_something_else_say_so() {
    assert!(error(b"PK\x03\x04rest of a zip".to_vec()).starts_with("not a GGUF file: it starts"));
    assert!(error(Vec::new()).contains("the magic number needs 4 bytes and 0 are left"));
    let with_version = |version: u32| {
        let mut bytes = small().finish();
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        error(bytes)
    };
    assert_eq!(with_version(1), "GGUF version 1 is not supported; versions 2 and 3 are");
    assert_eq!(with_version(4), "GGUF version 4 is not supported; versions 2 and 3 are");
    assert!(with_version(3u32.swap_bytes()).contains("big-endian"));
}

/// A header with these counts and this rest.
fn header(tensors: u64, keys: u64, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(keys.to_le_bytes());
    bytes.extend(rest);
    bytes
}

/// A key of `kind` whose value is `value`.
fn key(kind: u32, value: &[u8]) -> Vec<u8> {
    [&1u64.to_le_bytes()[..], b"k", &kind.to_le_bytes(), value].concat()
}

#[test]
fn counts_and_lengths_are_bounded_by_the_bytes_that_are_there() {
    let huge = (1u64 << 60).to_le_bytes();
    let array = |element: u32, rest: &[u8]| [&element.to_le_bytes()[..], rest].concat();
    let nested =
        (0..6).fold(Vec::new(), |inner, _| array(9, &[&1u64.to_le_bytes()[..], &inner].concat()));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (header(1 << 60, 0, &[0; 64]), "the number of tensors is 1152921504606846976"),
        (header(0, 1 << 60, &[0; 64]), "the number of keys is 1152921504606846976"),
        (header(0, 1, &[&huge[..], b"12345"].concat()), "a metadata key is 1152921504606846976 by"),
        (header(0, 1, &key(8, &huge)), "key \"k\": a string is 1152921504606846976 bytes long"),
        (header(0, 1, &key(9, &array(4, &huge))), "an array's length is 1152921504606846976"),
        (header(0, 1, &key(9, &array(8, &huge))), "an array's length is 1152921504606846976"),
        (header(0, 1, &key(9, &nested)), "arrays are nested more than 4 deep"),
        (header(0, 1, &key(13, &[0; 8])), "there is no value type 13"),
        (header(0, 1, &key(10, &[0; 7])), "a value needs 8 bytes and 7 are left"),
        (header(0, 1, &key(8, b"\x02\0\0\0\0\0\0\0\xff\xfe")), "a string is not UTF-8"),
        (header(0, 1, &[0; 16]), "a metadata key is empty"),
        (header(0, 2, &[key(0, &[1]), key(0, &[1])].concat()), "\"k\": it is there twice"),
    ];
    for (bytes, expected) in cases {
        let error = error(bytes);
        assert!(error.contains(expected), "{error:?} should contain {expected:?}");
    }
}

/// A file whose only tensor is described by these numbers, with 64 bytes of data.
fn one_tensor(shape: &[u64], type_id: u32, offset: u64) -> Vec<u8> {
    let mut table = [&1u64.to_le_bytes()[..], b"t", &(shape.len() as u32).to_le_bytes()].concat();
    table.extend(shape.iter().flat_map(|extent| extent.to_le_bytes()));
    table.extend(type_id.to_le_bytes());
    table.extend(offset.to_le_bytes());
    let mut bytes = header(1, 0, &table);
    bytes.resize(bytes.len().next_multiple_of(32) + 64, 0);
    bytes
}

#[test]
fn tensors_must_lie_in_the_file() {
    let f32 = Format::F32.ggml_id();
    assert!(Gguf::parse(one_tensor(&[16], f32, 0)).is_ok());
    assert!(Gguf::parse(one_tensor(&[8], f32, 32)).is_ok());
    let cases: &[(&[u64], u32, u64, &str)] = &[
        (&[17], f32, 0, "its 68 bytes at data offset 0 end after the file's"),
        (&[1], f32, 64, "its 4 bytes at data offset 64 end after the file's"),
        (&[16], f32, u64::MAX - 31, "is too large"),
        (&[1], f32, u64::MAX - 31, "end after the file's"),
        (&[1], f32, 1 << 63, "end after the file's"),
        (&[1], f32, 4, "offset 4 is not a multiple of 32"),
        (&[1 << 32, 1 << 32], f32, 0, "the product of its dimensions"),
        (&[u64::MAX, u64::MAX, u64::MAX, u64::MAX], f32, 0, "the product of its dimensions"),
        (&[1 << 62], f32, 0, "are too many"),
        (&[0], f32, 0, "a dimension is zero"),
        (&[1, 1, 1, 1, 1], f32, 0, "it has 5 dimensions, and 4 are allowed"),
        (&[33], Format::Q4_0.ggml_id(), 0, "its rows have 33 elements, and blocks of Q4_0 have 32"),
        (&[16, 2], Format::Q4_0.ggml_id(), 0, "its rows have 16 elements"),
    ];
    for (shape, type_id, offset, expected) in cases {
        let error = error(one_tensor(shape, *type_id, *offset));
        assert!(error.contains(expected), "{error:?} should contain {expected:?}");
        assert!(error.contains("tensor \"t\""), "{error:?} should name the tensor");
    }
}

#[test]
fn an_unknown_type_hides_one_tensor_only() {
    let bytes = small().tensor("new", &[5], 99, vec![0; 7]).finish();
    let gguf = Gguf::parse(bytes).unwrap();
    let new = gguf.need_tensor("new").unwrap();
    assert_eq!(new.format, TensorFormat::Unknown(99));
    let error = gguf.tensor_bytes(new).unwrap_err().to_string();
    assert_eq!(error, "tensor \"new\" has type 99, which this version does not know");
    assert!(gguf.tensor_bytes(gguf.need_tensor("first").unwrap()).is_ok());
}

#[test]
fn tensors_may_not_share_bytes_or_names() {
    let overlap = |bytes: &mut Vec<u8>| {
        // The second tensor's offset is the last number before the padding of the header.
        let at = bytes.windows(6).rposition(|window| window == b"second").unwrap() + 6 + 4 + 8 + 4;
        bytes[at..at + 8].fill(0);
    };
    let mut bytes = small().finish();
    overlap(&mut bytes);
    let error_text = error(bytes);
    assert!(error_text.contains("its data overlaps that of tensor"), "{error_text}");
    let twice = small().tensor("first", &[1], 0, vec![0; 4]).finish();
    assert!(error(twice).contains("tensor \"first\": it is there twice"));
}

#[test]
fn the_alignment_is_a_small_power_of_two() {
    let with = |alignment| Gguf::parse(small().u32("general.alignment", alignment).finish());
    assert!(with(32).is_ok());
    for wrong in [0, 1, 4, 24, 33, 1 << 17, u32::MAX] {
        let error = with(wrong).unwrap_err().to_string();
        assert!(error.contains("\"general.alignment\": "), "{error}");
        assert!(error.contains("is not a power of two from 8 to 65536"), "{error}");
    }
}

#[test]
fn a_header_alone_can_be_inspected() {
    let bytes = tiny_model("llama", 1);
    let header_len = Gguf::parse(bytes.clone()).unwrap().data_offset() as usize;
    let head = bytes[..header_len + 100].to_vec();
    assert!(error(head.clone()).contains("end after the file's"));
    let gguf = Gguf::parse_header(head).unwrap();
    assert_eq!(gguf.tensors().len(), 21);
    let error = gguf.tensor_bytes(gguf.tensors().last().unwrap()).unwrap_err().to_string();
    assert!(error.contains("lies beyond the end of the file"), "{error}");
    assert!(Gguf::parse_header(bytes[..header_len / 2].to_vec()).is_err());
}

#[test]
fn a_mapped_file_reads_like_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, small().finish()).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let tensor = gguf.need_tensor("second").unwrap();
    assert_eq!(gguf.tensor_bytes(tensor).unwrap().as_ptr() as u64 % ALIGNMENT_MIN, 0);
    gguf.release(tensor);
    assert_eq!(gguf.tensor_bytes(tensor).unwrap(), [2; 34]);
    let error = Gguf::open(&folder.path().join("absent")).unwrap_err().to_string();
    assert!(error.contains("absent: "), "{error}");
}

/// Asks a file for everything it has; the answers do not matter.
fn walk(bytes: Vec<u8>) -> usize {
    let Ok(gguf) = Gguf::parse(bytes.clone()).or_else(|_| Gguf::parse_header(bytes)) else {
        return 0;
    };
    let data = gguf.tensors().iter().filter_map(|tensor| gguf.tensor_bytes(tensor).ok());
    data.map(<[u8]>::len).sum::<usize>() + gguf.metadata().map(|(key, _)| key.len()).sum::<usize>()
}

#[test]
fn no_truncation_panics() {
    let bytes = small().finish();
    for len in 0..bytes.len() {
        walk(bytes[..len].to_vec());
    }
}

proptest! {
    #[test]
    fn no_mutation_panics(seed in any::<u64>(), mutations in 1usize..12) {
        let mut bytes = small().finish();
        let mut random = Random::new(seed);
        for _ in 0..mutations {
            let at = random.below(bytes.len());
            bytes[at] = match random.below(4) {
                0 => 0,
                1 => 0xff,
                _ => random.bits() as u8,
            };
        }
        walk(bytes);
    }

    #[test]
    fn what_is_written_is_read(
        texts in proptest::collection::vec("\\PC{0,20}", 0..20),
        number in any::<u32>(),
        data in proptest::collection::vec(any::<u8>(), 1..200),
    ) {
        let bytes = Writer::new()
            .strings("texts", &texts)
            .u32("number", number)
            .tensor("data", &[data.len() as u64], Format::I8.ggml_id(), data.clone())
            .finish();
        let gguf = Gguf::parse(bytes).unwrap();
        let read: Vec<&str> = gguf.get_strings("texts").unwrap().unwrap().collect();
        prop_assert_eq!(read, texts);
        prop_assert_eq!(gguf.need_u32("number").unwrap(), number);
        prop_assert_eq!(gguf.tensor_bytes(gguf.need_tensor("data").unwrap()).unwrap(), data);
    }
}

/// The committed corpus is the test kit's. Run with `UPDATE_CORPUS=1` to write it again.
#[test]
fn the_fuzzing_corpus_is_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/gguf");
    for (name, bytes) in testkit::corpus() {
        let path = folder.join(&name);
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(std::fs::read(&path).ok(), Some(bytes.clone()), "{name} is out of date");
        walk(bytes);
    }
}
