//! Softmax against `f64`.

use super::*;

#[test]
fn rows_sum_to_one() {
    for isa in Isa::ALL {
        for length in [1, 2, 8, 16, 17, 60, 128] {
            let row: Vec<f32> = (0..length).map(|at| (at as f32 * 2.1).sin() * 20.0).collect();
            let largest = row.iter().copied().fold(f32::MIN, f32::max);
            let power = |x: &f32| (f64::from(*x) - f64::from(largest)).exp();
            let total: f64 = row.iter().map(power).sum();
            let mut out = row.clone();
            softmax(isa, &mut out);
            for (x, y) in row.iter().zip(&out) {
                assert!((f64::from(*y) - power(x) / total).abs() < 2e-6, "{isa} {length}");
            }
        }
    }
}

#[test]
fn masked_and_large_elements() {
    for isa in Isa::ALL {
        let mut row = [f32::NEG_INFINITY, 3e38, 3e38, -3e38];
        softmax(isa, &mut row);
        assert_eq!(row, [0.0, 0.5, 0.5, 0.0], "{isa}");
        let mut row = [f32::NEG_INFINITY, 1e30, 1e20, 0.0];
        softmax_capped(isa, &mut row, 1.0);
        assert_eq!(row[1], row[2], "{isa}");
        assert!((row[1] / row[3] - 1f32.exp()).abs() < 1e-5, "{isa}");
    }
}
