//! Every operation of every instruction set that the processor has, against plain arrays.

use half::bf16;

use super::*;
use crate::matmul::tests::Random;

/// What one operation gave.
#[derive(Debug, PartialEq)]
enum Given {
    Bytes(Vec<u8>),
    /// The bits of floats; all that is not a number is the same.
    Floats(Vec<u32>),
    /// Floats that may have been rounded once or twice, and how large what was added is.
    Rounded(Vec<(f32, f32)>),
}

type Results = Vec<(&'static str, Given)>;

fn floats(values: &[f32]) -> Given {
    let bits = |value: &f32| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() };
    Given::Floats(values.iter().map(bits).collect())
}

/// Operations on integers.
struct OnIntegers {
    a: [u8; VECTOR_BYTES],
    b: [u8; VECTOR_BYTES],
}

/// Names a value of integers and stores it.
macro_rules! integers {
    ($v:ident, $results:ident: $($name:literal $value:expr;)*) => {
        $({
            let mut bytes = [0; VECTOR_BYTES];
            $v.store(&mut bytes, $value);
            $results.push(($name, Given::Bytes(bytes.to_vec())));
        })*
    };
}

impl Kernel for OnIntegers {
    type Output = Results;

    #[inline(always)]
    fn run<V: Simd>(self, v: V) -> Results {
        let (a, b) = (v.load(&self.a), v.load(&self.b));
        let mut results = Results::new();
        let small = v.and(a, v.splat4([15; 4]));
        integers! { v, results:
            "load" a;
            "splat4" v.splat4([1, 2, 130, 255]);
            "splat_i8" v.splat_i8(&[-1, 2, -128, 127]);
            "splat_i16" v.splat_i16(&[-2, 300]);
            "and" v.and(a, b);
            "or" v.or(a, b);
            "shift_left" v.shift_left(a, 3);
            "shift_right" v.shift_right(a, 5);
            "shift_left_32" v.shift_left_32(a, 7);
            "sub_16" v.sub_16(a, b);
            "sub_32" v.sub_32(a, b);
            "add_32" v.add_32(a, b);
            "lookup" v.lookup(&[200, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255], small);
            "pair 0 1" v.pair::<0, 1>(a);
            "pair 3 2" v.pair::<3, 2>(a);
            "pair_signed 1 3" v.pair_signed::<1, 3>(a);
            "pair_signed 2 0" v.pair_signed::<2, 0>(a);
            "load_u16" v.load_u16(self.a.first_chunk().expect("half a vector"));
        }
        results
    }
}

/// Sums of products, which between them may be as wide as the instruction set has them.
struct Products {
    /// 0 to 127.
    weights: [u8; VECTOR_BYTES],
    signed: [u8; VECTOR_BYTES],
    /// -127 to 127.
    activations: [i8; 4],
    scale: i16,
}

impl Kernel for Products {
    type Output = Results;

    #[inline(always)]
    fn run<V: Simd>(self, v: V) -> Results {
        let activations = v.splat_i8(&self.activations);
        let (weights, signed) = (v.load(&self.weights), v.load(&self.signed));
        let small = v.and(weights, v.splat4([15; 4]));
        let scale = v.splat_i16(&[self.scale; 2]);
        let total = v.shift_left_32(small, 4);
        let offset = i32::from(self.activations.iter().map(|a| i16::from(*a)).sum::<i16>());
        let offset = v.splat4((V::SIGNED_OFFSET * offset).to_le_bytes());
        let sums = v.add_signed_products(total, v.signed(signed), activations);
        let one = v.products(weights, activations);
        let two = v.add_products(v.products(small, activations), small, activations);
        let mut results = Results::new();
        integers! { v, results:
            "products" v.widen(one);
            "add_products" v.widen(two);
            "add_widened" v.add_widened(total, two);
            "scale_add" v.scale_add(total, one, scale);
            "scale_add_32" v.scale_add_32(total, v.widen(one), scale);
            "add_signed_products" v.sub_32(sums, offset);
            "add_pairs" v.add_pairs(total, v.pair_signed::<0, 2>(signed), scale);
        }
        results
    }
}

/// Sums of the products of two tokens, at once where that can be.
struct PairedProducts {
    signed: [[u8; VECTOR_BYTES]; 2],
    activations: [[i8; 8]; 2],
    /// Those of the 16 rows, twice each.
    scales: [u8; VECTOR_BYTES],
}

impl PairedProducts {
    #[inline(always)]
    fn both<V: Simd>(&self, v: V, total: V::I) -> [V::I; 2] {
        let weights = v.interleave(v.load(&self.signed[0]), v.load(&self.signed[1]));
        let values = [&self.activations[0], &self.activations[1]];
        let zero = [v.splat4([0; 4]); 2];
        let mut sums = v.add_paired_products(zero, weights, values);
        sums = v.add_paired_products(sums, weights, values);
        let totals = v.interleave(total, total);
        v.separate(v.scale_add_paired(totals, sums, v.load(&self.scales)))
    }

    #[inline(always)]
    fn each<V: Simd>(&self, v: V, total: V::I, token: usize) -> V::I {
        let mut sums = v.splat4([0; 4]);
        for half in [0, 1, 0, 1] {
            let values = &self.activations[token].as_chunks::<4>().0[half];
            let (weights, values) = (v.load(&self.signed[half]), v.splat_i8(values));
            let offset = v.widen(v.products(v.splat4([1; 4]), values));
            let too_much = v.splat_i16(&[-(V::SIGNED_OFFSET as i16); 2]);
            sums = v.add_signed_products(sums, v.signed(weights), values);
            sums = v.scale_add_32(sums, offset, too_much);
        }
        v.scale_add_32(total, sums, v.load(&self.scales))
    }
}

impl Kernel for PairedProducts {
    type Output = Results;

    #[inline(always)]
    fn run<V: Simd>(self, v: V) -> Results {
        let total = v.shift_left_32(v.and(v.load(&self.signed[0]), v.splat4([15; 4])), 4);
        let [first, second] = if V::PAIRED {
            self.both(v, total)
        } else {
            [self.each(v, total, 0), self.each(v, total, 1)]
        };
        let mut results = Results::new();
        integers! { v, results: "first token" first; "second token" second; }
        results
    }
}

/// Operations on floats, and conversions.
struct OnFloats {
    a: [f32; LANES],
    b: [f32; LANES],
    c: [f32; LANES],
    bytes: [u8; VECTOR_BYTES],
}

impl Kernel for OnFloats {
    type Output = Results;

    #[inline(always)]
    fn run<V: Simd>(self, v: V) -> Results {
        let (a, b, c) = (v.load_f32(&self.a), v.load_f32(&self.b), v.load_f32(&self.c));
        let half: &[u8; 2 * LANES] = self.bytes.first_chunk().expect("half a vector");
        let quarter: &[u8; LANES] = self.bytes.first_chunk().expect("a quarter");
        let mut results = Results::new();
        let mut values = |name, value: V::F| {
            let mut lanes = [0.0; LANES];
            v.store_f32(&mut lanes, value);
            results.push((name, floats(&lanes)));
        };
        values("load_f32", a);
        values("load_f16", v.load_f16(half));
        values("load_i8", v.load_i8(quarter));
        values("load_bfloats", v.load_bfloats(half));
        values("load_singles", v.load_singles(&self.bytes));
        values("to_f32", v.to_f32(v.load(&self.bytes)));
        values("splat_f32", v.splat_f32(self.a[3]));
        values("splat_at", v.splat_at(&self.a[5]));
        values("add_f32", v.add_f32(a, b));
        values("sub_f32", v.sub_f32(a, b));
        values("mul_f32", v.mul_f32(a, b));
        values("div_f32", v.div_f32(a, b));
        values("min_f32", v.min_f32(a, b));
        values("max_f32", v.max_f32(a, b));
        values("max_magnitude", v.max_magnitude(v.max_magnitude(v.splat_f32(0.0), b), a));
        values("round_f32", v.round_f32(a));
        values("swap_pairs", v.swap_pairs(a));
        let sums = [v.mul_add(a, b, c), v.neg_mul_add(a, b, c)];
        for (name, sum) in ["mul_add", "neg_mul_add"].into_iter().zip(sums) {
            let mut lanes = [0.0; LANES];
            v.store_f32(&mut lanes, sum);
            let size = |at: usize| (self.a[at] * self.b[at]).abs() + self.c[at].abs();
            let rounded = lanes.iter().enumerate().map(|(at, sum)| (*sum, size(at))).collect();
            results.push((name, Given::Rounded(rounded)));
        }
        let (mut halves, mut bytes) = ([0; 2 * LANES], [0; LANES]);
        v.store_f16(&mut halves, v.max_f32(a, v.splat_f32(-1e9)));
        v.store_i8(&mut bytes, a);
        results.push(("store_f16", Given::Bytes(halves.to_vec())));
        results.push(("store_i8", Given::Bytes(bytes.map(i8::cast_unsigned).to_vec())));
        results
    }
}

/// What is only asked of numbers.
struct OfNumbers([f32; LANES]);

impl Kernel for OfNumbers {
    type Output = Results;

    #[inline(always)]
    fn run<V: Simd>(self, v: V) -> Results {
        let value = v.load_f32(&self.0);
        let whole =
            v.round_f32(v.max_f32(v.min_f32(value, v.splat_f32(128.0)), v.splat_f32(-127.0)));
        let mut powers = [0.0; LANES];
        v.store_f32(&mut powers, v.power_of_two(whole));
        vec![
            ("sum_f32", floats(&[v.sum_f32(value)])),
            ("largest_f32", floats(&[v.largest_f32(value)])),
            ("power_of_two", floats(&powers)),
        ]
    }
}

/// Whether results are the same, or as near as one rounding more or less.
fn same(left: &Given, right: &Given) -> bool {
    let (Given::Rounded(left), Given::Rounded(right)) = (left, right) else {
        return left == right;
    };
    // A product that is infinite before it is rounded once may not be one that is rounded twice.
    let mut finite = left.iter().zip(right).filter(|((_, size), _)| size.is_finite());
    finite.all(|((left, size), (right, _))| (left - right).abs() <= size * 2e-7)
}

fn compare(run: impl Fn(Isa) -> Results) {
    let expected = run(Isa::Scalar);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for ((name, given), (_, expected)) in run(isa).iter().zip(&expected) {
            assert!(same(given, expected), "{isa} {name}: {given:?}, not {expected:?}");
        }
    }
}

fn random_bytes(random: &mut Random) -> [u8; VECTOR_BYTES] {
    std::array::from_fn(|_| random.next() as u8)
}

#[test]
fn operations_on_integers() {
    let mut random = Random(1);
    for _ in 0..200 {
        let (a, b) = (random_bytes(&mut random), random_bytes(&mut random));
        compare(|isa| isa.run(OnIntegers { a, b }));
    }
}

#[test]
fn sums_of_products() {
    let mut random = Random(2);
    for round in 0..200 {
        let weights =
            random_bytes(&mut random).map(|byte| if round == 0 { 127 } else { byte & 127 });
        let signed = random_bytes(&mut random).map(|byte| if round < 2 { 128 } else { byte });
        let activation = |at: u32| (random.next() >> at) as i8;
        let activations = [0, 8, 16, 24].map(activation).map(|value| value.max(-127));
        let activations = if round < 2 { [[127; 4], [-127; 4]][round] } else { activations };
        let scale = random.next() as i16 >> 8;
        compare(|isa| isa.run(Products { weights, signed, activations, scale }));
    }
}

#[test]
fn sums_of_two_tokens() {
    let mut random = Random(5);
    for round in 0..200 {
        let signed = [random_bytes(&mut random), random_bytes(&mut random)];
        let signed = if round < 2 { [[128; VECTOR_BYTES]; 2] } else { signed };
        let mut activations = [[[127; 8], [-127; 8]][round % 2]; 2];
        for value in activations.as_flattened_mut().iter_mut().skip(round) {
            *value = (random.next() as i8).max(-127);
        }
        let rows: [i16; LANES] = std::array::from_fn(|_| random.next() as i16 >> 8);
        let scales = std::array::from_fn(|at| rows[at / 4].to_le_bytes()[at % 2]);
        compare(|isa| isa.run(PairedProducts { signed, activations, scales }));
    }
}

/// Numbers of all sizes; ties; what is not a number.
const SPECIAL: [f32; 20] = [
    0.0,
    -0.0,
    0.5,
    1.5,
    -2.5,
    126.5,
    127.5,
    -127.5,
    1e-40,
    -1e-8,
    6.1e-5,
    65504.0,
    65520.0,
    1e9,
    -1e9,
    3.4e38,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    -f32::NAN,
];

#[test]
fn operations_on_floats() {
    let mut random = Random(3);
    for _ in 0..300 {
        let mut lane = || match random.next() as usize % 40 {
            at if at < SPECIAL.len() => SPECIAL[at],
            power => random.float() * 2.0_f32.powi(power as i32 - 30),
        };
        let [a, b, c] = [(); 3].map(|()| std::array::from_fn(|_| lane()));
        let bytes = random_bytes(&mut random);
        compare(|isa| isa.run(OnFloats { a, b, c, bytes }));
    }
}

#[test]
fn sums_of_lanes_and_powers_of_two() {
    let mut random = Random(4);
    for _ in 0..100 {
        let numbers = std::array::from_fn(|_| random.float() * 140.0);
        compare(|isa| isa.run(OfNumbers(numbers)));
    }
}

/// Operations on bfloat16, where there are any.
struct OnBfloats {
    floats: [f32; LANES],
    a: [bf16; 2 * LANES],
    b: [bf16; 2],
}

/// Bits as they are in memory.
fn bits(numbers: &[bf16]) -> impl Iterator<Item = u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes())
}

impl Kernel for OnBfloats {
    type Output = Option<([i16; LANES], [u8; VECTOR_BYTES], [f32; LANES])>;

    #[inline(always)]
    fn run<V: Simd>(self, v: V) -> Self::Output {
        if !V::BFLOATS {
            return None;
        }
        let (mut rounded, mut pairs, mut sums) = ([0; LANES], [0; VECTOR_BYTES], [0.0; LANES]);
        let floats = v.load_f32(&self.floats);
        v.store_bfloats(&mut rounded, floats);
        for (to, byte) in pairs.iter_mut().zip(bits(&self.a)) {
            *to = byte;
        }
        let a = v.load_pairs(&pairs);
        v.store(&mut pairs, a);
        let b = v.splat_i16(&self.b.map(|number| number.to_bits().cast_signed()));
        v.store_f32(&mut sums, v.add_bfloat_products(floats, a, b));
        Some((rounded, pairs, sums))
    }
}

#[test]
fn operations_on_bfloats() {
    let mut random = Random(5);
    for _ in 0..100 {
        let floats: [f32; LANES] = std::array::from_fn(|_| random.float() * 8.0);
        let a: [bf16; 2 * LANES] = std::array::from_fn(|_| bf16::from_f32(random.float()));
        let b: [bf16; 2] = std::array::from_fn(|_| bf16::from_f32(random.float()));
        let in_turns: Vec<bf16> = (0..LANES).flat_map(|at| [a[at], a[LANES + at]]).collect();
        let expected = floats.map(|float| bf16::from_f32(float).to_bits().cast_signed());
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let Some((rounded, pairs, sums)) = isa.run(OnBfloats { floats, a, b }) else {
                continue;
            };
            assert_eq!(rounded, expected, "{isa} store_bfloats");
            assert!(pairs.into_iter().eq(bits(&in_turns)), "{isa} load_pairs");
            for (at, pair) in in_turns.as_chunks::<2>().0.iter().enumerate() {
                let sum = (0..2).fold(f64::from(floats[at]), |sum, column| {
                    sum + pair[column].to_f64() * b[column].to_f64()
                });
                let error = (f64::from(sums[at]) - sum).abs();
                assert!(error < 2e-6, "{isa} add_bfloat_products: {} not {sum}", sums[at]);
            }
        }
    }
}

/// Ties go to even, what is not a number stays that, and so does what is infinite.
#[test]
fn rounding_to_bfloats() {
    let ties = [0x3f80_8000, 0x3f81_8000, 0xbf80_8001, 0x3f80_7fff].map(f32::from_bits);
    // Subnormal numbers count as zeros.
    let floats = SPECIAL.into_iter().chain(ties).filter(|float| !float.is_subnormal());
    let floats: Vec<f32> = floats.collect();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for floats in floats.windows(LANES) {
            let floats = *floats.first_chunk().expect("a vector");
            let zero = bf16::ZERO;
            let numbers = OnBfloats { floats, a: [zero; 2 * LANES], b: [zero; 2] };
            let Some((rounded, ..)) = isa.run(numbers) else { continue };
            for (bits, float) in rounded.into_iter().zip(floats) {
                let given = bf16::from_bits(bits.cast_unsigned());
                let expected = bf16::from_f32(float);
                let same = given == expected || given.is_nan() && expected.is_nan();
                assert!(same, "{isa} {float}: {given}, not {expected}");
            }
        }
    }
}
