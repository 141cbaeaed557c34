//! Gates against `f64`.

use super::*;

/// Compares with a plain activation, within 4e-6 of the larger of 1 and the result.
fn check(name: fn(Isa, &[f32], &[f32], &mut [f32]), activation: fn(f64) -> f64) {
    let gate: Vec<f32> = (0..1003).map(|at| (at as f32 - 500.0) * 0.037).collect();
    let up: Vec<f32> = (0..1003).map(|at| (at as f32 * 0.7).sin() * 3.0).collect();
    for isa in Isa::ALL {
        let mut out = vec![f32::NAN; gate.len()];
        name(isa, &gate, &up, &mut out);
        for ((gate, up), out) in gate.iter().zip(&up).zip(out) {
            let expected = activation(f64::from(*gate)) * f64::from(*up);
            let error = (f64::from(out) - expected).abs();
            assert!(error < 4e-6 * expected.abs().max(1.0), "{isa} {gate} {up}: {out}");
        }
        let mut out = [0.0; 4];
        name(isa, &[f32::MAX, -1e30, -200.0, 200.0], &[1.0; 4], &mut out);
        assert_eq!(out, [f32::MAX, 0.0, 0.0, 200.0], "{isa}");
    }
}

#[test]
fn silu() {
    check(silu_mul, |x| x / (1.0 + (-x).exp()));
}

#[test]
fn gelu() {
    check(gelu_mul, |x| {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
        0.5 * x * (1.0 + inner.tanh())
    });
}
