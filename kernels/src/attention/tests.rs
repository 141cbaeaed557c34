//! Attention on every instruction set, against plain `f64` and against itself cut otherwise.

use proptest::prelude::*;

use super::*;
use crate::kv;

/// Deterministic numbers, about normal.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        let mut sum = 0.0;
        for _ in 0..4 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            sum += (self.0 >> 40) as f32 / (1 << 24) as f32 - 0.5;
        }
        sum * 1.7
    }

    fn row(&mut self, length: usize, factor: f32) -> Vec<f32> {
        (0..length).map(|_| self.next() * factor).collect()
    }
}

/// A cache of one head with the tokens that were written to it.
struct Case {
    shape: Attend,
    tiles: Vec<Vec<u8>>,
    queries: Vec<f32>,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

fn shape(kv_type: KvType, lengths: (usize, usize), group: usize) -> Attend {
    let (key_length, value_length) = lengths;
    let scale = 1.0 / (key_length as f32).sqrt();
    Attend { kv_type, key_length, value_length, group, scale, softcap: None, window: None }
}

/// A sequence whose every token has queries.
fn case(shape: Attend, tokens: usize, key_factor: f32) -> Case {
    let mut numbers = Numbers(tokens as u64);
    let bytes = kv::tile_bytes(shape.kv_type, shape.key_length, shape.value_length);
    let mut case = Case {
        shape,
        tiles: vec![vec![0; bytes]; tokens.div_ceil(kv::BLOCK_TOKENS)],
        queries: numbers.row(tokens * shape.group * shape.key_length, 1.0),
        keys: Vec::new(),
        values: Vec::new(),
    };
    for token in 0..tokens {
        let key = numbers.row(shape.key_length, key_factor);
        let value = numbers.row(shape.value_length, 1.0);
        let (tile, slot) = (token / kv::BLOCK_TOKENS, token % kv::BLOCK_TOKENS);
        kv::write(Isa::best(), shape.kv_type, &mut case.tiles[tile], slot, &key, &value);
        case.keys.push(key);
        case.values.push(value);
    }
    case
}

impl Case {
    /// Computes the results of some of the queries.
    fn attend(&self, isa: Isa, queries: Range<usize>, scratch: &mut Scratch) -> Vec<f32> {
        let Attend { group, key_length, value_length, .. } = self.shape;
        let mut out = vec![f32::NAN; queries.len() * group * value_length];
        let rows = &self.queries[heads(&queries, group * key_length)];
        let tiles = |block: usize| self.tiles[block].as_slice();
        attend(isa, &self.shape, &tiles, rows, queries.start, scratch, &mut out);
        out
    }

    /// The same by partial results.
    fn attend_by_spans(&self, isa: Isa, queries: Range<usize>) -> Vec<f32> {
        let Attend { group, key_length, value_length, .. } = self.shape;
        let mut scratch = Scratch::default();
        let rows = &self.queries[heads(&queries, group * key_length)];
        let tiles = |block: usize| self.tiles[block].as_slice();
        let mut partials = Vec::new();
        for span in self.shape.spans(queries.clone()) {
            let mut partial = vec![f32::NAN; self.shape.partial_len(queries.len())];
            let first = queries.start;
            attend_span(isa, &self.shape, &tiles, rows, first, span, &mut scratch, &mut partial);
            partials.push(partial);
        }
        let mut out = vec![f32::NAN; queries.len() * group * value_length];
        merge(isa, &self.shape, partials.iter().map(Vec::as_slice), &mut scratch, &mut out);
        out
    }

    fn tokens(&self) -> usize {
        self.keys.len()
    }

    /// The result of a query in `f64`, from the keys and values as they were written.
    fn reference(&self, query: usize, head: usize) -> Vec<f64> {
        let Attend { group, key_length, value_length, scale, softcap, window, .. } = self.shape;
        let row = &self.queries[(query * group + head) * key_length..][..key_length];
        let first = window.map_or(0, |window| (query + 1).saturating_sub(window as usize));
        let score = |key: &Vec<f32>| {
            let dot: f64 = row.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let scaled = dot * f64::from(scale);
            softcap.map_or(scaled, |cap| f64::from(cap) * (scaled / f64::from(cap)).tanh())
        };
        let scores: Vec<f64> = self.keys[first..=query].iter().map(score).collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let weighted = |at: usize| {
            let values = self.values[first..=query].iter().map(|value| f64::from(value[at]));
            weights.iter().zip(values).map(|(weight, value)| weight * value).sum::<f64>() / total
        };
        (0..value_length).map(weighted).collect()
    }

    /// The largest error of some queries.
    fn error(&self, isa: Isa, queries: Range<usize>) -> f64 {
        let Attend { group, value_length, .. } = self.shape;
        let out = self.attend(isa, queries.clone(), &mut Scratch::default());
        let mut most = 0.0f64;
        for (at, result) in out.chunks_exact(value_length).enumerate() {
            let expected = self.reference(queries.start + at / group, at % group);
            for (found, expected) in result.iter().zip(expected) {
                most = most.max((f64::from(*found) - expected).abs());
                assert!(found.is_finite());
            }
        }
        most
    }

    /// Whatever computes a query, it comes out the same, bit for bit.
    fn assert_invariant(&self, isa: Isa, chunk: usize) {
        let scratch = &mut Scratch::default();
        let all = self.attend(isa, 0..self.tokens(), scratch);
        let row = self.shape.group * self.shape.value_length;
        for first in (0..self.tokens()).step_by(chunk) {
            let queries = first..(first + chunk).min(self.tokens());
            let expected = bits(&all[heads(&queries, row)]);
            assert!(bits(&self.attend(isa, queries.clone(), scratch)) == expected, "{queries:?}");
            assert!(bits(&self.attend_by_spans(isa, queries.clone())) == expected, "{queries:?}");
        }
    }
}

fn bits(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|float| float.to_bits()).collect()
}

fn instruction_sets() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

/// What half-precision keys and values cost: 2^-11 of numbers of about 1.
const F16_ERROR: f64 = 2e-3;
/// What sums in single precision cost.
const F32_ERROR: f64 = 1e-5;
/// What 8-bit keys and values cost.
const Q8_0_ERROR: f64 = 3e-2;

#[test]
fn results_are_those_of_plain_arithmetic() {
    let lengths = [(64, 64), (80, 80), (96, 96), (128, 128), (256, 256), (192, 128), (50, 34)];
    for isa in instruction_sets() {
        for (at, lengths) in lengths.into_iter().enumerate() {
            let single = case(shape(KvType::F32, lengths, at + 1), 70, 1.0);
            let error = single.error(isa, 0..70);
            assert!(error < F32_ERROR, "{isa} {lengths:?}: {error}");
            let half = case(shape(KvType::F16, lengths, at + 1), 70, 1.0);
            let error = half.error(isa, 0..70);
            assert!(error < F16_ERROR, "{isa} {lengths:?}: {error}");
            let bytes = case(shape(KvType::Q8_0, lengths, at + 1), 70, 1.0);
            let error = bytes.error(isa, 0..70);
            assert!(error < Q8_0_ERROR, "{isa} {lengths:?}: {error}");
        }
    }
}

#[test]
fn results_far_into_a_sequence_are_those_of_plain_arithmetic() {
    for isa in instruction_sets() {
        for kv_type in [KvType::F16, KvType::Q8_0] {
            let case = case(shape(kv_type, (64, 64), 3), 1200, 1.0);
            let limit = if kv_type == KvType::F16 { F16_ERROR } else { Q8_0_ERROR };
            let error = case.error(isa, 1015..1040).max(case.error(isa, 1199..1200));
            assert!(error < limit, "{isa} {kv_type:?}: {error}");
        }
    }
}

#[test]
fn a_query_comes_out_the_same_alone_and_among_others() {
    for isa in instruction_sets() {
        for group in [1, 2, 5, 7] {
            let shape = shape(KvType::F16, (32, 48), group);
            case(shape, 1100, 1.0).assert_invariant(isa, 100);
            case(Attend { window: Some(600), ..shape }, 1100, 1.0).assert_invariant(isa, 300);
        }
        let shape = Attend { softcap: Some(20.0), ..shape(KvType::Q8_0, (64, 64), 6) };
        case(shape, 600, 3.0).assert_invariant(isa, 1);
        case(Attend { window: Some(40), ..shape }, 600, 3.0).assert_invariant(isa, 17);
        case(Attend { group: 100, ..shape }, 40, 3.0).assert_invariant(isa, 1);
    }
}

#[test]
fn a_window_ends_where_it_should() {
    for isa in instruction_sets() {
        for window in [1, 2, 31, 32, 33, 64, 511, 512, 513, 2000] {
            let shape = Attend { window: Some(window), ..shape(KvType::F16, (16, 16), 2) };
            let case = case(shape, 580, 2.0);
            for queries in [0..3, 30..35, 62..66, 510..514, 540..580] {
                let error = case.error(isa, queries);
                assert!(error < 2.0 * F16_ERROR, "{isa} {window}: {error}");
            }
        }
        let alone = case(Attend { window: Some(1), ..shape(KvType::F16, (16, 16), 1) }, 64, 1.0);
        let out = alone.attend(isa, 63..64, &mut Scratch::default());
        for (found, value) in out.iter().zip(&alone.values[63]) {
            assert_eq!(*found, half::f16::from_f32(*value).to_f32());
        }
    }
}

#[test]
fn scores_are_limited_softly() {
    for isa in instruction_sets() {
        let shape = Attend { softcap: Some(2.0), ..shape(KvType::F16, (64, 64), 4) };
        let error = case(shape, 100, 5.0).error(isa, 0..100);
        assert!(error < 2.0 * F16_ERROR, "{isa}: {error}");
    }
}

#[test]
fn extreme_scores_make_no_nan() {
    for isa in instruction_sets() {
        for factor in [1e-8, 1e4, 6e4, 1e30, f32::INFINITY] {
            for kv_type in [KvType::F16, KvType::Q8_0] {
                for softcap in [None, Some(30.0)] {
                    let shape = Attend { softcap, ..shape(kv_type, (32, 32), 2) };
                    let mut case = case(shape, 70, factor);
                    case.queries.iter_mut().for_each(|x| *x *= factor.min(1e30));
                    let out = case.attend(isa, 0..70, &mut Scratch::default());
                    assert!(out.iter().all(|x| x.is_finite()), "{isa} {factor} {kv_type:?}");
                }
            }
        }
    }
}

#[test]
fn what_lies_in_unwritten_slots_does_not_matter() {
    for isa in instruction_sets() {
        let mut case = case(shape(KvType::F16, (32, 32), 2), 64, 1.0);
        let before = case.attend(isa, 40..41, &mut Scratch::default());
        for slot in 9..32 {
            kv::write(isa, KvType::F16, &mut case.tiles[1], slot, &[1e30; 32], &[-f32::NAN; 32]);
        }
        assert_eq!(bits(&before), bits(&case.attend(isa, 40..41, &mut Scratch::default())));
    }
}

#[test]
fn instruction_sets_agree() {
    let case = case(shape(KvType::F16, (128, 128), 6), 300, 1.0);
    let scalar = case.attend(Isa::Scalar, 0..300, &mut Scratch::default());
    for isa in instruction_sets() {
        let out = case.attend(isa, 0..300, &mut Scratch::default());
        for (a, b) in out.iter().zip(&scalar) {
            assert!((a - b).abs() < 5e-6, "{isa}: {a} {b}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn any_shape_is_computed_alike_however_it_is_cut(
        key_pairs in 1usize..40,
        value_pairs in 1usize..40,
        group in 1usize..20,
        tokens in 1usize..140,
        chunk in 1usize..140,
        window in proptest::option::of(1u32..150),
        kv_type in prop_oneof![Just(KvType::F32), Just(KvType::F16), Just(KvType::Q8_0)],
    ) {
        let shape = shape(kv_type, (2 * key_pairs, 2 * value_pairs), group);
        let case = case(Attend { window, ..shape }, tokens, 1.0);
        for isa in instruction_sets() {
            case.assert_invariant(isa, chunk);
            prop_assert!(case.error(isa, tokens - 1..tokens) < 2.0 * Q8_0_ERROR);
        }
    }
}
