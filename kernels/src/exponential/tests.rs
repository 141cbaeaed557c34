//! Exponentials against `f64`, on every instruction set.

use super::*;
use crate::arch::{Isa, Kernel, LANES};

/// Which function to apply to 16 numbers.
#[derive(Clone, Copy)]
enum Function {
    Exp2,
    Exp,
    Tanh,
}

struct Apply(Function, [f32; LANES]);

impl Kernel for Apply {
    type Output = [f32; LANES];

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) -> [f32; LANES] {
        let value = simd.load_f32(&self.1);
        let value = match self.0 {
            Function::Exp2 => exp2(simd, value),
            Function::Exp => exp(simd, value),
            Function::Tanh => tanh(simd, value),
        };
        let mut out = [0.0; LANES];
        simd.store_f32(&mut out, value);
        out
    }
}

fn instruction_sets() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

/// The largest relative error over a range of arguments, in units of 2^-23.
fn error(isa: Isa, function: Function, range: (f32, f32), exact: fn(f64) -> f64) -> f64 {
    let mut most = 0.0f64;
    for step in 0..20_000 {
        let at = |lane| range.0 + (range.1 - range.0) * ((step * 16 + lane) as f32 / 320_000.0);
        let arguments: [f32; LANES] = std::array::from_fn(at);
        for (x, y) in arguments.into_iter().zip(isa.run(Apply(function, arguments))) {
            let exact = exact(f64::from(x));
            most = most.max(((f64::from(y) - exact) / exact).abs());
        }
    }
    most * f64::from(1 << 23)
}

#[test]
fn exponentials_are_exact_to_a_few_units() {
    for isa in instruction_sets() {
        let exp2 = error(isa, Function::Exp2, (-125.0, 127.0), f64::exp2);
        assert!(exp2 < 2.0, "{isa}: {exp2}");
        let exp = error(isa, Function::Exp, (-87.0, 88.0), f64::exp);
        // Without fused operations the reduction of the argument loses more.
        assert!(exp < if isa == Isa::Scalar { 80.0 } else { 3.0 }, "{isa}: {exp}");
    }
}

#[test]
fn limits_of_exponentials() {
    for isa in instruction_sets() {
        let mut values = [0.0; LANES];
        (values[1], values[2], values[3]) = (f32::NEG_INFINITY, f32::INFINITY, -1e30);
        (values[4], values[5]) = (-127.0, f32::NAN);
        for function in [Function::Exp2, Function::Exp] {
            let out = isa.run(Apply(function, values));
            assert_eq!(out[..4], [1.0, 0.0, f32::INFINITY, 0.0], "{isa}");
            assert_eq!(out[4], 0.0, "{isa}");
            assert!(out[5].is_nan(), "{isa}");
        }
        let out = isa.run(Apply(Function::Tanh, values));
        assert_eq!(out[..4], [0.0, -1.0, 1.0, -1.0], "{isa}");
    }
}

#[test]
fn tangents_are_exact_to_some_digits() {
    for isa in instruction_sets() {
        let values: [f32; LANES] = std::array::from_fn(|at| at as f32 * 0.3 - 2.0);
        for (x, y) in values.into_iter().zip(isa.run(Apply(Function::Tanh, values))) {
            assert!((f64::from(y) - f64::from(x).tanh()).abs() < 5e-7, "{isa} {x}: {y}");
        }
    }
}
