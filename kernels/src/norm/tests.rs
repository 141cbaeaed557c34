//! Norms against `f64`.

use super::*;

#[test]
fn rows_are_normalized() {
    for isa in Isa::ALL {
        for length in [1, 15, 16, 50, 64, 65, 128, 200, 896, 4096] {
            let x: Vec<f32> = (0..length).map(|at| (at as f32 * 1.3).sin() * 7.0 + 0.1).collect();
            let weight: Vec<f32> = (0..length).map(|at| (at as f32).cos()).collect();
            let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
            let factor = 1.0 / (squares / length as f64 + 1e-6).sqrt();
            let mut out = vec![f32::NAN; length];
            rms_norm(isa, &x, &weight, 1e-6, &mut out);
            let mut in_place = x.clone();
            rms_norm_in_place(isa, &mut in_place, &weight, 1e-6);
            assert_eq!(out, in_place);
            for (at, x) in x.iter().enumerate() {
                let expected = f64::from(*x) * factor * f64::from(weight[at]);
                assert!((f64::from(out[at]) - expected).abs() < 2e-6, "{isa} {length}");
            }
        }
    }
}

#[test]
fn a_row_of_zeros_stays() {
    let mut row = [0.0; 20];
    rms_norm_in_place(Isa::best(), &mut row, &[3.0; 20], 1e-5);
    assert_eq!(row, [0.0; 20]);
}
