use super::*;
use crate::matmul::tests::Random;

fn quantized(isa: Isa, kind: Kind, x: &[f32]) -> (Vec<i8>, Vec<f32>, Vec<i16>) {
    let columns = x.len();
    let mut values = vec![99; kind.values(columns)];
    let mut scales = vec![f32::NAN; kind.scales(columns)];
    let mut sums = vec![99; kind.sums(columns)];
    quantize_row(isa, kind, x, &mut values, &mut scales, &mut sums);
    (values, scales, sums)
}

#[test]
fn values_scales_and_sums_fit_one_another() {
    let mut random = Random(8);
    let mut x: Vec<f32> = (0..512).map(|_| random.float() * 3.0).collect();
    x[256..320].fill(0.0);
    for (kind, group, stride) in [(Kind::Blocks32, 32, 2), (Kind::Blocks256, 256, 1)] {
        let (values, scales, sums) = quantized(Isa::Scalar, kind, &x);
        for (at, value) in values.iter().enumerate() {
            let scale = scales[at / group * stride];
            assert!((f32::from(*value) * scale - x[at]).abs() <= scale * 0.500_01, "{at}");
        }
        let sum = |values: &[i8]| values.iter().map(|value| i16::from(*value)).sum::<i16>();
        for (at, values) in values.chunks_exact(group).enumerate() {
            let sums = &sums[at * kind.sums(group)..][..kind.sums(group)];
            let mut expected: Vec<i16> = values.chunks_exact(16).map(sum).collect();
            if kind == Kind::Blocks256 {
                expected.extend(values.chunks_exact(32).map(sum));
            } else {
                assert_eq!(scales[2 * at + 1], scales[2 * at] * f32::from(sum(values)));
            }
            assert_eq!(sums, expected);
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same() {
    let mut random = Random(4);
    let mut x: Vec<f32> = (0..1024).map(|_| random.float().powi(5) * 100.0).collect();
    // Ties: halves of the step of a group whose largest magnitude is 127.
    x[0..4].copy_from_slice(&[127.0, 0.5, 1.5, -2.5]);
    x[4..256].iter_mut().for_each(|x| *x /= 2.0);
    x[300] = f32::NAN;
    x[600] = f32::INFINITY;
    x[768..].fill(1e-35);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for kind in [Kind::Blocks32, Kind::Blocks256] {
            let (values, scales, sums) = quantized(isa, kind, &x);
            let expected = quantized(Isa::Scalar, kind, &x);
            assert_eq!((values, sums), (expected.0, expected.2), "{isa}");
            let bits = |scales: &[f32]| scales.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
            assert_eq!(bits(&scales), bits(&expected.1), "{isa}");
        }
    }
}

#[test]
fn rounding_is_to_even_and_small_groups_are_zero() {
    let mut x = [0.0; 32];
    x[..4].copy_from_slice(&[127.0, 0.5, 1.5, -2.5]);
    let (values, scales, _) = quantized(Isa::best(), Kind::Blocks32, &x);
    assert_eq!(values[..4], [127, 0, 2, -2]);
    assert_eq!(scales[0], 1.0);
    let (values, scales, sums) = quantized(Isa::best(), Kind::Blocks32, &[1e-35; 32]);
    assert_eq!((values, scales, sums), (vec![0; 32], vec![0.0; 2], vec![0; 2]));
}
