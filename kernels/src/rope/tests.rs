//! Rotations against their definitions, in `f64`.

use super::*;

/// Turns a head by one angle for each pair, times a magnitude.
fn turned(pairing: Pairing, angles: &[f64], magnitude: f64, head: &[f32]) -> Vec<f64> {
    let mut out: Vec<f64> = head.iter().map(|x| f64::from(*x)).collect();
    for (pair, angle) in angles.iter().enumerate() {
        let (first, second) = match pairing {
            Pairing::Adjacent => (2 * pair, 2 * pair + 1),
            Pairing::Halves => (pair, pair + angles.len()),
        };
        let (a, b) = (f64::from(head[first]), f64::from(head[second]));
        out[first] = (a * angle.cos() - b * angle.sin()) * magnitude;
        out[second] = (a * angle.sin() + b * angle.cos()) * magnitude;
    }
    out
}

/// Compares a rotation with angles per position, one for each pair.
fn check(rope: &Rope, head: usize, frequencies: &[f64], magnitude: f64) {
    let head: Vec<f32> = (0..head).map(|at| (at as f32 * 0.77).sin() * 2.0).collect();
    let mut angles = Angles::default();
    for position in [0u32, 1, 77, 5000, 131_071] {
        rope.angles(position, &mut angles);
        let radians: Vec<f64> = frequencies.iter().map(|by| by * f64::from(position)).collect();
        let expected = turned(rope.pairing, &radians, magnitude, &head);
        for isa in Isa::ALL {
            let mut found = head.clone();
            rope.rotate(isa, &angles, &mut found);
            for (found, expected) in found.iter().zip(&expected) {
                let error = (f64::from(*found) - expected).abs();
                assert!(error < 1e-6, "{isa} {position}: {found} {expected}");
            }
        }
    }
}

fn plain(dimensions: usize, base: f64) -> Vec<f64> {
    (0..dimensions / 2).map(|pair| base.powf(-2.0 * pair as f64 / dimensions as f64)).collect()
}

#[test]
fn heads_of_any_length() {
    for pairing in [Pairing::Adjacent, Pairing::Halves] {
        for (dimensions, head) in [(2, 2), (10, 16), (64, 64), (64, 128), (80, 80), (96, 100)] {
            let rope = Rope::new(dimensions, 1e6, pairing, Scaling::None);
            assert_eq!(rope.dimensions(), dimensions);
            check(&rope, head, &plain(dimensions, 1e6), 1.0);
        }
    }
}

#[test]
fn positions_are_divided() {
    let rope = Rope::new(64, 1e4, Pairing::Halves, Scaling::Linear { factor: 4.0 });
    let frequencies: Vec<f64> = plain(64, 1e4).iter().map(|by| by / 4.0).collect();
    check(&rope, 64, &frequencies, 1.0);
}

/// The divisors of Llama 3.1, by the rule of its release: wavelengths over 8192 by 8, those under
/// 2048 by 1, between them by a ramp over the turns that fit into 8192.
fn llama3_divisor(frequency: f64) -> f64 {
    let turns = 8192.0 * frequency / TAU;
    let smooth = ((turns - 1.0) / 3.0).clamp(0.0, 1.0);
    1.0 / ((1.0 - smooth) / 8.0 + smooth)
}

#[test]
fn pairs_have_factors_of_their_own() {
    let plain = plain(128, 5e5);
    let divisors: Vec<f32> = plain.iter().map(|by| llama3_divisor(*by) as f32).collect();
    assert_eq!((divisors[0], divisors[63]), (1.0, 8.0));
    let divided = |(by, divisor): (&f64, &f32)| by / f64::from(*divisor);
    let frequencies: Vec<f64> = plain.iter().zip(&divisors).map(divided).collect();
    let rope = Rope::new(128, 5e5, Pairing::Adjacent, Scaling::Factors(divisors));
    check(&rope, 128, &frequencies, 1.0);
}

/// Qwen2.5 with a factor of 4 on 32768: the borders are 64 ln(32768 / (32 tau)) / ln 1e6 = 23.6 and
/// 64 ln(32768 / tau) / ln 1e6 = 39.6, outwards 23 and 40.
#[test]
fn yarn_interpolates_slow_pairs_only() {
    let scaling = Scaling::Yarn {
        factor: 4.0,
        original_context: 32768,
        attention_factor: 1.5,
        beta_fast: 32.0,
        beta_slow: 1.0,
    };
    let rope = Rope::new(128, 1e6, Pairing::Halves, scaling);
    let frequencies: Vec<f64> = plain(128, 1e6)
        .iter()
        .enumerate()
        .map(|(pair, by)| {
            let kept = 1.0 - ((pair as f64 - 23.0) / 17.0).clamp(0.0, 1.0);
            by / 4.0 * (1.0 - kept) + by * kept
        })
        .collect();
    check(&rope, 128, &frequencies, 1.5 * (1.0 + 0.1 * 4f64.ln()));
    let plain = plain(128, 1e6);
    assert_eq!(rope.frequencies[..24], plain[..24]);
    assert_eq!(rope.frequencies[40] * 4.0, plain[40]);
}
