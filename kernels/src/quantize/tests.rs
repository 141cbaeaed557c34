//! Blocks that are written and read back; against another implementation by the golden file
//! `tests/golden/quantize.json` at the repository's root, which `quantize.py` beside it wrote.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::dequantize::can_dequantize;

/// Every format that can be written, and the largest error it may have on normal numbers, relative
/// to their size: a percent or two over what was measured.
const BOUNDS: [(Format, f64); 16] = [
    (Format::F32, 0.0),
    (Format::F16, 0.00025),
    (Format::BF16, 0.0017),
    (Format::Q4_0, 0.0795),
    (Format::Q4_1, 0.069),
    (Format::Q5_0, 0.0393),
    (Format::Q5_1, 0.0332),
    (Format::Q8_0, 0.005),
    (Format::Q2_K, 0.262),
    (Format::Q3_K, 0.142),
    (Format::Q4_K, 0.0695),
    (Format::Q5_K, 0.0343),
    (Format::Q6_K, 0.0168),
    (Format::IQ4_NL, 0.0732),
    (Format::IQ4_XS, 0.0736),
    (Format::MXFP4, 0.1125),
];

fn written(format: Format, x: &[f32]) -> Result<Vec<u8>, QuantizeError> {
    let bytes = format.bytes(x.len() as u64).expect("whole blocks") as usize;
    let mut out = vec![0xa5; bytes];
    quantize(format, x, &mut out).map(|()| out)
}

fn read(format: Format, blocks: &[u8]) -> Vec<f32> {
    let elements = blocks.len() / format.bytes_per_block() * format.elements_per_block();
    let mut out = vec![0.0; elements];
    dequantize(format, blocks, &mut out).expect("whole blocks");
    out
}

fn round_trip(format: Format, x: &[f32]) -> Vec<f32> {
    read(format, &written(format, x).expect("numbers in range"))
}

/// The root of the mean square of the differences, relative to that of the numbers.
fn error(format: Format, x: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let differences = x.iter().zip(round_trip(format, x)).map(|(&a, b)| square(a - b)).sum::<f64>();
    (differences / x.iter().copied().map(square).sum::<f64>()).sqrt()
}

/// Pseudo-random numbers of 64 bits (Steele, Lea and Flood, 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A nearly normal number: the sum of twelve that are evenly distributed.
    fn gaussian(&mut self) -> f32 {
        let quarters = |number: u64| (0..4).map(move |at| (number >> (16 * at) & 0xffff) as i32);
        let total: i32 = (0..3).flat_map(|_| quarters(self.next())).sum();
        (total - 6 * 0xffff) as f32 / 65536.0
    }
}

/// The numbers that errors are measured on; the golden script makes the same.
fn sample() -> Vec<f32> {
    let mut rng = SplitMix(1);
    (0..16384).map(|_| rng.gaussian()).collect()
}

#[test]
fn errors_on_normal_numbers_are_within_bounds() {
    let sample = sample();
    for (format, bound) in BOUNDS {
        let error = error(format, &sample);
        assert!(error <= bound, "{format}: {error} is over {bound}");
    }
}

#[derive(Deserialize)]
struct Golden {
    blocks: BTreeMap<String, Blocks>,
    errors: BTreeMap<String, f64>,
    first: Vec<f32>,
}

/// Both as hexadecimal digits of bytes.
#[derive(Deserialize)]
struct Blocks {
    bytes: String,
    values: String,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/quantize.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("the form that the script writes")
}

fn format_of(name: &str) -> Format {
    let found = Format::ALL.iter().copied().find(|format| format.name() == name);
    found.unwrap_or_else(|| panic!("no format {name}"))
}

fn bytes_of(digits: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(pair).collect()
}

#[test]
fn blocks_are_read_as_another_implementation_reads_them() {
    let golden = golden();
    let readable = Format::ALL.iter().filter(|format| can_dequantize(**format)).count();
    assert_eq!(golden.blocks.len() + 1, readable, "all but F32");
    for (name, blocks) in &golden.blocks {
        let values = bytes_of(&blocks.values);
        let expected = values.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes));
        let got = read(format_of(name), &bytes_of(&blocks.bytes));
        let got: Vec<u32> = got.iter().map(|value| value.to_bits()).collect();
        assert_eq!(got, expected.collect::<Vec<u32>>(), "{name}");
    }
}

#[test]
fn errors_are_no_larger_than_those_of_another_implementation() {
    let (golden, sample) = (golden(), sample());
    assert_eq!(golden.first, sample[..4], "the same numbers as in the script");
    assert!(golden.errors.len() >= 8);
    for (name, &theirs) in &golden.errors {
        let ours = error(format_of(name), &sample);
        // Rounding to plain numbers is the same; blocks are fitted better here.
        let allowed = if format_of(name).is_quantized() { 0.97 } else { 1.000_001 };
        assert!(ours <= theirs * allowed, "{name}: {ours}, theirs {theirs}");
    }
}

/// Integers from `low` to `high`, both ends in every 16.
fn integers(low: i32, high: i32) -> Vec<f32> {
    let step = |at: i32| (low + at / 16 + at * 7).rem_euclid(high - low + 1);
    let number = |at: i32| match at % 16 {
        3 => high,
        8 => low,
        _ => low + step(at),
    };
    (0..256).map(|at| number(at) as f32).collect()
}

#[test]
fn numbers_with_a_code_are_kept() {
    let cases = [
        (Format::Q4_0, integers(-8, 7)),
        (Format::Q4_1, integers(3, 18)),
        (Format::Q5_0, integers(-16, 15)),
        (Format::Q5_1, integers(-40, -9)),
        (Format::Q8_0, integers(-127, 127)),
        (Format::Q3_K, grouped(integers(-4, 3), &[-32, 31, 5, -7], &[0])),
        (Format::Q6_K, grouped(integers(-32, 31), &[-128, 127, 1, -3], &[0])),
        (Format::Q2_K, grouped(integers(0, 3), &[15, 3, 7], &[4, 15, 11])),
        (Format::Q4_K, grouped(integers(0, 15), &[63, 1, 1, 40, 40], &[5, 5, 63, 63, 8])),
        (Format::Q5_K, grouped(integers(0, 31), &[63, 63, 2, 2], &[63, 63, 17, 17, 4, 4])),
    ];
    for (format, x) in cases {
        for scale in [1.0, 0.25, 16.0] {
            let x: Vec<f32> = x.iter().map(|x| x * scale).collect();
            assert_eq!(round_trip(format, &x), x, "{format} at {scale}");
        }
    }
}

/// Each group of 32 times its scale, less its minimum; both lists are repeated.
fn grouped(mut x: Vec<f32>, scales: &[i16], minimums: &[i16]) -> Vec<f32> {
    for (group, x) in x.chunks_exact_mut(32).enumerate() {
        let scale = f32::from(scales[group % scales.len()]);
        let minimum = f32::from(minimums[group % minimums.len()]);
        x.iter_mut().for_each(|x| *x = scale * *x - minimum);
    }
    x
}

#[test]
fn uneven_steps_are_kept() {
    let steps = crate::dequantize::UNEVEN_STEPS.map(f32::from);
    let x: Vec<f32> = (0..256).map(|at| steps[at * 5 % 16]).collect();
    assert_eq!(round_trip(Format::IQ4_NL, &x), x);
    let x = grouped(x, &[-32, 31, 5], &[0]);
    assert_eq!(round_trip(Format::IQ4_XS, &x), x);
    let x: Vec<f32> = (0..32).map(|at| [0.0, 0.5, -1.5, 6.0, -4.0][at % 5] / 64.0).collect();
    assert_eq!(round_trip(Format::MXFP4, &x), x);
}

/// Groups of a super-block differ in size by far: each has the steps of its own scale.
#[test]
fn small_groups_keep_small_errors() {
    let mut rng = SplitMix(2);
    let scale = |at: usize| [1.0, 0.125][at / 32 % 2];
    let x: Vec<f32> = (0..256).map(|at| rng.gaussian() * scale(at)).collect();
    for (format, bound) in BOUNDS.into_iter().filter(|(format, _)| format.is_quantized()) {
        let y = round_trip(format, &x);
        for (x, y) in x.chunks_exact(32).zip(y.chunks_exact(32)) {
            let square = |x: f32| f64::from(x).powi(2);
            let size: f64 = x.iter().copied().map(square).sum();
            let error: f64 = x.iter().zip(y).map(|(x, y)| square(x - y)).sum();
            assert!((error / size).sqrt() < 2.0 * bound, "{format}: {}", (error / size).sqrt());
        }
    }
}

#[test]
fn zeros_stay_zeros() {
    for (format, _) in BOUNDS {
        assert_eq!(round_trip(format, &[0.0; 512]), [0.0; 512], "{format}");
    }
}

/// One number repeated has an error of at most what rounding the scales costs.
#[test]
fn constants_are_nearly_kept() {
    for (format, _) in BOUNDS.into_iter().filter(|&(format, _)| format != Format::MXFP4) {
        for value in [1.0, -1.0, 0.3, -1e-2, 777.0] {
            let error = error(format, &[value; 256]);
            assert!(error < 0.01, "{format}: {error} for {value}");
        }
    }
}

#[test]
fn tiny_numbers_lose_at_most_a_few_of_the_smallest_half() {
    for (format, _) in BOUNDS {
        for value in [f32::from_bits(1), 1e-30, 1e-9, 3e-8, 1e-7] {
            for (at, y) in round_trip(format, &[value, -value].repeat(128)).into_iter().enumerate()
            {
                let x = if at % 2 == 0 { value } else { -value };
                assert!((x - y).abs() <= 2.4e-7, "{format}: {x} became {y}");
            }
        }
    }
}

#[test]
fn numbers_over_the_range_of_a_scale_are_named() {
    let mut x = [1.0; 512];
    x[300] = -3e38;
    for (format, _) in BOUNDS {
        match (format, written(format, &x)) {
            (Format::F32 | Format::BF16 | Format::MXFP4, result) => {
                assert!(result.is_ok(), "{format}")
            }
            (_, result) => {
                let expected = QuantizeError::TooLarge { format, index: 300, value: -3e38 };
                assert_eq!(result, Err(expected), "{format}");
            }
        }
    }
    let error = written(Format::BF16, &[0.0, f32::MAX]).unwrap_err().to_string();
    assert!(
        error.starts_with("element 1 is 3402823") && error.ends_with("for type BF16"),
        "{error}"
    );
}

#[test]
fn numbers_in_the_range_of_a_scale_are_kept() {
    let x = [60000.0, -60000.0, 0.0, 30000.0].repeat(64);
    for (format, bound) in BOUNDS {
        let error = error(format, &x);
        assert!(error <= 2.0 * bound, "{format}: {error}");
    }
}

#[test]
fn bad_input_is_refused() {
    let mut out = [0; 144];
    let error = quantize(Format::IQ1_S, &[0.0; 256], &mut out[..50]).unwrap_err();
    assert_eq!(error.to_string(), "tensors of type IQ1_S cannot be written");
    let error = quantize(Format::Q4_K, &[0.0; 256], &mut out[..143]).unwrap_err();
    assert_eq!(error.to_string(), "256 elements of type Q4_K do not fit 143 bytes");
    assert!(quantize(Format::Q4_K, &[0.0; 255], &mut out).is_err());
    let mut x = [0.0; 256];
    for (index, value) in [(200, f32::NAN), (7, f32::NEG_INFINITY)] {
        x[index] = value;
        match quantize(Format::Q4_K, &x, &mut out).unwrap_err() {
            QuantizeError::NotFinite { index: at, value: v } => {
                assert_eq!((at, v.to_bits()), (index, value.to_bits()));
            }
            other => panic!("{other}"),
        }
    }
    let error = quantize(Format::F16, &[f32::INFINITY], &mut out[..2]).unwrap_err();
    assert_eq!(error.to_string(), "element 0 is inf, which is no finite number");
}

#[test]
fn what_can_be_read_can_be_written() {
    for &format in Format::ALL {
        assert_eq!(can_quantize(format), can_dequantize(format), "{format}");
    }
    assert!(BOUNDS.into_iter().all(|(format, _)| can_quantize(format)));
}

/// Numbers of all sizes, or of one size, with zeros among them.
fn numbers() -> impl Strategy<Value = Vec<f32>> {
    let any_size = (-60i32..16, -1.0f32..1.0).prop_map(|(exponent, x)| x * 2f32.powi(exponent));
    let element = prop_oneof![4 => -1.0f32..1.0, 1 => any_size, 1 => Just(0.0)];
    proptest::collection::vec(element, 256)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No number ends up further away than a step, and the bytes are always the same.
    #[test]
    fn numbers_stay_near_themselves(x in numbers()) {
        for (format, _) in BOUNDS {
            let bytes = written(format, &x).expect("numbers in range");
            prop_assert_eq!(&bytes, &written(format, &x).expect("numbers in range"));
            let largest = x.iter().fold(0f32, |a, x| a.max(x.abs()));
            for (x, y) in x.iter().zip(read(format, &bytes)) {
                let allowed = 0.5 * largest + 1.2e-7;
                prop_assert!((x - y).abs() <= allowed, "{}: {} became {}", format, x, y);
            }
        }
    }

    /// A fit is never worse than no numbers at all.
    #[test]
    fn a_fit_beats_zeros(x in numbers()) {
        for (format, _) in BOUNDS {
            let size: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            prop_assert!(size == 0.0 || error(format, &x) < 0.7, "{}: {}", format, error(format, &x));
        }
    }
}
