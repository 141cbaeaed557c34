//! Any bytes as a GGUF file: everything in it is walked; nothing may panic or allocate out of
//! proportion. The limit on a single allocation holds the latter:
//!
//!     cargo +nightly fuzz run gguf --fuzz-dir daemon/engine/fuzz -- -malloc_limit_mb=64 -rss_limit_mb=1024
#![no_main]
#![allow(dead_code, unused_imports, reason = "modules of the engine, not all of which run here")]

use libfuzzer_sys::fuzz_target;

#[path = "../../src"]
mod engine {
    pub mod gguf;
    pub mod mmap;
}
#[path = "../../src/model"]
mod model {
    pub mod summary;
}

// The modules name each other from the root of their crate.
use engine::{gguf, mmap};
use gguf::{Array, Gguf, Value};
use model::summary;

fuzz_target!(|data: &[u8]| {
    let whole = Gguf::parse(data.to_vec());
    let header = Gguf::parse_header(data.to_vec());
    // A whole file is a readable header as well.
    assert!(whole.is_err() || header.is_ok());
    for gguf in whole.iter().chain(&header) {
        walk(gguf);
    }
});

fn walk(gguf: &Gguf) {
    for (key, value) in gguf.metadata() {
        assert_eq!(gguf.get(key).map(|value| value.kind()), Some(value.kind()));
        walk_value(value);
    }
    let mut total = 0;
    for tensor in gguf.tensors() {
        assert!(gguf.tensor(&tensor.name).is_some());
        total += gguf.tensor_bytes(tensor).map_or(0, <[u8]>::len);
    }
    // Tensors do not overlap, so together they cannot be more than the file.
    assert!(total as u64 <= gguf.file_len());
    let _ = summary::Summary::read(gguf);
}

fn walk_value(value: Value<'_>) {
    let _ = (value.as_str(), value.as_u64(), value.as_i64(), value.as_f32(), value.as_bool());
    if let Some(array) = value.as_array() {
        walk_array(array);
    }
}

fn walk_array(array: Array<'_>) {
    let mut count = 0;
    for value in array.iter() {
        assert_eq!(value.kind(), array.element_kind());
        walk_value(value);
        count += 1;
    }
    assert_eq!(count, array.len());
}
