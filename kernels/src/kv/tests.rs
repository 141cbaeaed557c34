//! Tiles: what is written is read again, within what the type can hold.

use super::*;

/// The key and the value of a slot, read by the documented layout.
fn read(kv_type: KvType, lengths: (usize, usize), tile: &[u8], slot: usize) -> [Vec<f32>; 2] {
    let (key_length, value_length) = lengths;
    let half = |at: usize| half::f16::from_le_bytes([tile[at], tile[at + 1]]).to_f32();
    let byte = |at: usize| f32::from(tile[at].cast_signed());
    let padded = value_length.next_multiple_of(16);
    match kv_type {
        KvType::F32 => {
            let single = |at: usize| f32::from_le_bytes(*tile[at..].first_chunk().unwrap());
            let values = 128 * key_length + 4 * slot * padded;
            let key = (0..key_length).map(|at| single(128 * at + 4 * slot)).collect();
            [key, (0..value_length).map(|at| single(values + 4 * at)).collect()]
        }
        KvType::F16 => {
            let values = 64 * key_length + 2 * slot * padded;
            let key = (0..key_length).map(|at| half(64 * at + 2 * slot)).collect();
            [key, (0..value_length).map(|at| half(values + 2 * at)).collect()]
        }
        KvType::Q8_0 => {
            let keys = 64 * key_length.div_ceil(32);
            let scales = keys + 32 * key_length;
            let row = value_length.div_ceil(32);
            let values = scales + 64 * row + slot * padded;
            let key = |at: usize| byte(keys + 32 * at + slot) * half(64 * (at / 32) + 2 * slot);
            let value = |at: usize| byte(values + at) * half(scales + 2 * (slot * row + at / 32));
            [(0..key_length).map(key).collect(), (0..value_length).map(value).collect()]
        }
    }
}

#[test]
fn what_is_written_is_read_again() {
    for isa in Isa::ALL {
        for kv_type in [KvType::F32, KvType::F16, KvType::Q8_0] {
            for lengths in [(128, 128), (64, 64), (80, 80), (50, 34), (2, 2), (192, 128)] {
                let mut tile = vec![0; tile_bytes(kv_type, lengths.0, lengths.1)];
                let number = |at: usize, slot: usize| ((at * 7 + slot * 3) as f32).sin();
                for slot in 0..BLOCK_TOKENS {
                    let key: Vec<f32> = (0..lengths.0).map(|at| number(at, slot)).collect();
                    let value: Vec<f32> = (0..lengths.1).map(|at| number(at, slot + 99)).collect();
                    write(isa, kv_type, &mut tile, slot, &key, &value);
                }
                let limit = match kv_type {
                    KvType::F32 => f32::MIN_POSITIVE,
                    KvType::F16 => 2.5e-4,
                    KvType::Q8_0 => 4.0e-3,
                };
                for slot in 0..BLOCK_TOKENS {
                    let [key, value] = read(kv_type, lengths, &tile, slot);
                    for (at, x) in key.iter().enumerate() {
                        assert!((x - number(at, slot)).abs() < limit, "{isa} {kv_type:?}");
                    }
                    for (at, x) in value.iter().enumerate() {
                        assert!((x - number(at, slot + 99)).abs() < limit, "{isa} {kv_type:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn instruction_sets_write_the_same_bytes() {
    let key: Vec<f32> = (0..96).map(|at| (at as f32 * 0.9).sin() * 1e3).collect();
    for kv_type in [KvType::F32, KvType::F16, KvType::Q8_0] {
        let tiles = Isa::ALL.map(|isa| {
            let mut tile = vec![0; tile_bytes(kv_type, 96, 96)];
            write(isa, kv_type, &mut tile, 7, &key, &key);
            tile
        });
        assert!(tiles.iter().all(|tile| *tile == tiles[0]));
    }
}

#[test]
fn tiles_stay_finite() {
    let wild = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e38, -1e38, 1e-40, 0.0];
    for isa in Isa::ALL {
        for kv_type in [KvType::F32, KvType::F16, KvType::Q8_0] {
            for row in [wild, [1e-40; 8], [0.0; 8], [f32::NAN; 8]] {
                let mut tile = vec![0; tile_bytes(kv_type, 8, 8)];
                write(isa, kv_type, &mut tile, 31, &row, &row);
                let [key, value] = read(kv_type, (8, 8), &tile, 31);
                assert!(key.iter().chain(&value).all(|x| x.is_finite()), "{isa} {kv_type:?}");
            }
        }
    }
}

#[test]
fn what_is_not_a_number_is_zero_in_every_type() {
    let row = [f32::NAN, 1.0, -f32::NAN, -2.0, 0.5, f32::NAN, 0.0, 2.0];
    for isa in Isa::ALL {
        for kv_type in [KvType::F32, KvType::F16, KvType::Q8_0] {
            let mut tile = vec![0; tile_bytes(kv_type, 8, 8)];
            write(isa, kv_type, &mut tile, 3, &row, &row);
            for got in read(kv_type, (8, 8), &tile, 3) {
                for (got, want) in got.iter().zip(row) {
                    let want = if want.is_nan() { 0.0 } else { want };
                    assert!((got - want).abs() < 0.02, "{isa} {kv_type:?}: {got} for {want}");
                }
            }
        }
    }
}

#[test]
fn sizes() {
    assert_eq!(tile_bytes(KvType::F16, 128, 128), 2 * 32 * 128 * 2);
    assert_eq!(tile_bytes(KvType::Q8_0, 128, 128), 2 * 32 * (128 + 4 * 2));
}
