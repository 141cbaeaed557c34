//! Rows of every length, so that the last part of a vector is tried too.

use super::*;

#[test]
fn rows_of_any_length() {
    for isa in Isa::ALL {
        for length in 0..70 {
            let a: Vec<f32> = (0..length).map(|at| at as f32 - 20.0).collect();
            let b: Vec<f32> = (0..length).map(|at| 0.5 * at as f32).collect();
            let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            let mut row = a.clone();
            add_assign(isa, &mut row, &b);
            assert_eq!(row, expected, "{isa} {length}");
            scale(isa, &mut row, -2.0);
            assert!(row.iter().zip(&expected).all(|(a, b)| *a == -2.0 * b), "{isa} {length}");
            let mut row = a.clone();
            soft_cap(isa, &mut row, 30.0);
            for (x, y) in a.iter().zip(&row) {
                assert!((f64::from(*y) - 30.0 * (f64::from(*x) / 30.0).tanh()).abs() < 2e-5);
            }
        }
    }
}

#[test]
#[should_panic(expected = "one length")]
fn rows_of_two_lengths() {
    add_assign(Isa::Scalar, &mut [0.0; 3], &[0.0; 4]);
}
