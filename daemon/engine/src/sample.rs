//! Chooses the next token from logits.
//!
//! The chain, in this order: penalties, `top_k`, `typical_p`, `top_p`, `min_p`, temperature, draw.
//! Temperature 0 takes the likeliest token after the penalties, the lowest id among equals. With a
//! seed the choice depends on nothing but the seed, the logits and the tokens so far.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::options::Options;

/// Logits that nothing can be chosen from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// A logit that is NaN or infinite.
    #[error("step {step}: the logit of token {token} is {value}; the model or its file is broken")]
    NotFinite { step: u64, token: usize, value: f32 },
    /// Nothing to choose from.
    #[error("step {step}: no logits")]
    Empty { step: u64 },
}

/// A token that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    token: u32,
    logit: f32,
    probability: f32,
}

/// Likeliest first, then the lowest id: a total order, so every cut is the same on each machine.
fn by_logit(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// The sampler of one request.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: Options,
    random: ChaCha8Rng,
    step: u64,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler for options that were checked.
    pub fn new(options: &Options) -> Sampler {
        // Without a seed, the keys that the standard library draws for its hash maps serve as one.
        let seed = options.seed.unwrap_or_else(|| RandomState::new().hash_one(0));
        Sampler {
            options: options.clone(),
            random: ChaCha8Rng::seed_from_u64(seed),
            step: 0,
            candidates: Vec::new(),
        }
    }

    /// The next token, after `tokens`.
    pub fn sample(&mut self, logits: &[f32], tokens: &[u32]) -> Result<u32, SampleError> {
        let step = self.step;
        self.step += 1;
        if logits.is_empty() {
            return Err(SampleError::Empty { step });
        }
        if let Some(token) = logits.iter().position(|value| !value.is_finite()) {
            return Err(SampleError::NotFinite { step, token, value: logits[token] });
        }
        self.fill(logits);
        self.penalise(tokens);
        if self.options.temperature == 0.0 {
            return Ok(self.likeliest());
        }
        self.top_k();
        self.typical_p();
        self.top_p();
        self.min_p();
        Ok(self.draw())
    }

    fn fill(&mut self, logits: &[f32]) {
        self.candidates.clear();
        let all = (0..).zip(logits);
        self.candidates.extend(all.map(|(token, &logit)| Candidate {
            token,
            logit,
            probability: 0.0,
        }));
    }

    /// Makes tokens of the window less likely. The candidates are still in the order of their ids.
    fn penalise(&mut self, tokens: &[u32]) {
        let Options { repeat_penalty, presence_penalty, frequency_penalty, .. } = self.options;
        if (repeat_penalty, presence_penalty, frequency_penalty) == (1.0, 0.0, 0.0) {
            return;
        }
        for (token, count) in occurrences(window(tokens, self.options.repeat_last_n)) {
            if let Some(candidate) = self.candidates.get_mut(token as usize) {
                let logit = candidate.logit;
                let repeated =
                    if logit > 0.0 { logit / repeat_penalty } else { logit * repeat_penalty };
                candidate.logit = repeated - presence_penalty - frequency_penalty * count as f32;
            }
        }
    }

    fn likeliest(&self) -> u32 {
        self.candidates.iter().min_by(|a, b| by_logit(a, b)).map_or(0, |best| best.token)
    }

    /// Sorts, and cuts to the `top_k` likeliest.
    fn top_k(&mut self) {
        let keep = match self.options.top_k as usize {
            0 => self.candidates.len(),
            k => k.min(self.candidates.len()),
        };
        if keep < self.candidates.len() {
            self.candidates.select_nth_unstable_by(keep, by_logit);
            self.candidates.truncate(keep);
        }
        self.candidates.sort_unstable_by(by_logit);
    }

    /// Keeps the tokens whose surprise is nearest to the expected one, up to `typical_p` of the
    /// probability.
    fn typical_p(&mut self) {
        let p = self.options.typical_p;
        if p >= 1.0 {
            return;
        }
        softmax(&mut self.candidates, 1.0);
        let surprise = |c: &Candidate| -c.probability.max(f32::MIN_POSITIVE).ln();
        let entropy: f32 = self.candidates.iter().map(|c| c.probability * surprise(c)).sum();
        let distance = |c: &Candidate| (surprise(c) - entropy).abs();
        self.candidates
            .sort_by(|a, b| distance(a).total_cmp(&distance(b)).then(a.token.cmp(&b.token)));
        let keep = count_up_to(&self.candidates, p);
        self.candidates.truncate(keep);
        self.candidates.sort_unstable_by(by_logit);
    }

    /// Keeps the likeliest tokens that together reach `top_p`.
    fn top_p(&mut self) {
        if self.options.top_p < 1.0 {
            softmax(&mut self.candidates, 1.0);
            let keep = count_up_to(&self.candidates, self.options.top_p);
            self.candidates.truncate(keep);
        }
    }

    /// Drops tokens whose probability is below `min_p` of the likeliest one's.
    fn min_p(&mut self) {
        let (min_p, best) = (self.options.min_p, self.candidates[0].logit);
        if min_p > 0.0 {
            // A ratio of probabilities is a difference of logits.
            let least = best + min_p.ln();
            let keep = self.candidates.partition_point(|c| c.logit >= least);
            self.candidates.truncate(keep.max(1));
        }
    }

    fn draw(&mut self) -> u32 {
        softmax(&mut self.candidates, self.options.temperature);
        // 53 random bits: every f64 of [0, 1) on a grid.
        let point = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut sum = 0.0;
        for candidate in &self.candidates {
            sum += f64::from(candidate.probability);
            if point < sum {
                return candidate.token;
            }
        }
        // Rounding left the sum a little under 1.
        self.candidates[0].token
    }
}

/// The last `last_n` tokens; -1 means all.
fn window(tokens: &[u32], last_n: i32) -> &[u32] {
    let len = usize::try_from(last_n).unwrap_or(tokens.len()).min(tokens.len());
    &tokens[tokens.len() - len..]
}

fn occurrences(tokens: &[u32]) -> HashMap<u32, u32> {
    let mut counts = HashMap::new();
    for &token in tokens {
        *counts.entry(token).or_insert(0) += 1;
    }
    counts
}

/// Sets probabilities that sum up to 1.
fn softmax(candidates: &mut [Candidate], temperature: f32) {
    let best = candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for candidate in candidates.iter_mut() {
        candidate.probability = ((candidate.logit - best) / temperature).exp();
        sum += candidate.probability;
    }
    for candidate in candidates {
        candidate.probability /= sum;
    }
}

/// How many candidates from the first on reach the probability `p`; at least one.
fn count_up_to(candidates: &[Candidate], p: f32) -> usize {
    let mut sum = 0.0;
    for (index, candidate) in candidates.iter().enumerate() {
        sum += candidate.probability;
        if sum >= p {
            return index + 1;
        }
    }
    candidates.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Logits of the probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625.
    fn halves() -> Vec<f32> {
        [0.5f32, 0.25, 0.125, 0.0625, 0.0625].iter().map(|p| p.ln()).collect()
    }

    fn plain() -> Options {
        Options { temperature: 1.0, top_k: 0, top_p: 1.0, seed: Some(1), ..Options::default() }
    }

    /// The tokens that can come at all, by drawing many times.
    fn reachable(options: Options, logits: &[f32], tokens: &[u32]) -> Vec<u32> {
        let mut sampler = Sampler::new(&options);
        let drawn = (0..2000).map(|_| sampler.sample(logits, tokens).expect("finite"));
        let mut seen: Vec<u32> = drawn.collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    #[test]
    fn each_filter_keeps_what_it_says() {
        let check = |options: Options, want: &[u32]| {
            assert_eq!(reachable(options, &halves(), &[]), want);
        };
        check(plain(), &[0, 1, 2, 3, 4]);
        check(Options { top_k: 2, ..plain() }, &[0, 1]);
        check(Options { top_k: 4, ..plain() }, &[0, 1, 2, 3]);
        check(Options { top_p: 0.7, ..plain() }, &[0, 1]);
        check(Options { top_p: 0.0, ..plain() }, &[0]);
        check(Options { min_p: 0.2, ..plain() }, &[0, 1, 2]);
        check(Options { min_p: 1.0, ..plain() }, &[0]);
        // The entropy is 1.875 ln 2: token 1, with 2 ln 2, is nearest to it.
        check(Options { typical_p: 0.2, ..plain() }, &[1]);
        check(Options { temperature: 0.0, ..plain() }, &[0]);
        check(Options { temperature: 0.01, ..plain() }, &[0]);
    }

    #[test]
    fn penalties_move_the_likeliest_token() {
        let greedy = |change: fn(&mut Options), logits: &[f32], tokens: &[u32]| {
            let mut options = Options { temperature: 0.0, ..plain() };
            change(&mut options);
            Sampler::new(&options).sample(logits, tokens).expect("finite")
        };
        assert_eq!(greedy(|_| (), &[2.0, 1.9], &[0]), 0);
        assert_eq!(greedy(|o| o.repeat_penalty = 1.1, &[2.0, 1.9], &[0]), 1);
        assert_eq!(greedy(|o| o.repeat_penalty = 1.1, &[-2.0, -2.1], &[0]), 1);
        assert_eq!(greedy(|o| o.presence_penalty = 0.2, &[2.0, 1.9], &[0]), 1);
        assert_eq!(greedy(|o| o.frequency_penalty = 0.06, &[2.0, 1.9], &[0]), 0);
        assert_eq!(greedy(|o| o.frequency_penalty = 0.06, &[2.0, 1.9], &[0, 0]), 1);
        // Out of the window, out of mind; a token id past the vocabulary is no index.
        let far = |o: &mut Options| (o.repeat_penalty, o.repeat_last_n) = (1.1, 1);
        assert_eq!(greedy(far, &[2.0, 1.9], &[0, 9]), 0);
    }

    #[test]
    fn equal_logits_give_the_lowest_id() {
        let options = Options { temperature: 0.0, ..plain() };
        assert_eq!(Sampler::new(&options).sample(&[1.0, 3.0, 3.0], &[]), Ok(1));
    }

    #[test]
    fn bad_logits_name_the_step() {
        let mut sampler = Sampler::new(&plain());
        sampler.sample(&[0.0], &[]).expect("finite");
        let error = sampler.sample(&[0.0, f32::NAN], &[]).expect_err("NaN");
        let want = "step 1: the logit of token 1 is NaN; the model or its file is broken";
        assert_eq!(error.to_string(), want);
        assert_eq!(sampler.sample(&[], &[]), Err(SampleError::Empty { step: 2 }));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let mut sampler = Sampler::new(&plain());
        let draws = 20_000;
        let zeros = (0..draws).filter(|_| sampler.sample(&halves(), &[]) == Ok(0)).count();
        let share = zeros as f64 / f64::from(draws);
        assert!((0.48..0.52).contains(&share), "{share}");
    }

    fn any_options() -> impl Strategy<Value = Options> {
        let floats = (0.0f32..3.0, 0.0f32..=1.0, 0.0f32..=1.0, 0.0f32..=1.0);
        let penalties = (0.5f32..2.0, -1.0f32..1.0, -1.0f32..1.0, -1i32..8);
        (floats, penalties, 0u32..9, any::<u64>()).prop_map(|(f, p, top_k, seed)| Options {
            temperature: f.0,
            top_p: f.1,
            min_p: f.2,
            typical_p: f.3,
            repeat_penalty: p.0,
            presence_penalty: p.1,
            frequency_penalty: p.2,
            repeat_last_n: p.3,
            top_k,
            seed: Some(seed),
            ..Options::default()
        })
    }

    proptest! {
        /// Whatever the options, a token comes out, the same one for the same seed.
        #[test]
        fn a_seed_decides(
            options in any_options(),
            logits in proptest::collection::vec(-30.0f32..30.0, 1..40),
            tokens in proptest::collection::vec(0u32..50, 0..20),
        ) {
            prop_assert_eq!(options.check(), Ok(()));
            let (mut one, mut two) = (Sampler::new(&options), Sampler::new(&options));
            for _ in 0..4 {
                let token = one.sample(&logits, &tokens);
                prop_assert_eq!(&token, &two.sample(&logits, &tokens));
                prop_assert!((token.expect("finite") as usize) < logits.len());
            }
        }

        /// top_k gives one of the k largest logits.
        #[test]
        fn top_k_gives_one_of_the_largest(
            logits in proptest::collection::vec(-30.0f32..30.0, 1..40),
            top_k in 1u32..9,
            seed in any::<u64>(),
        ) {
            let options = Options { top_k, seed: Some(seed), ..plain() };
            let token = Sampler::new(&options).sample(&logits, &[]).expect("finite") as usize;
            let larger = logits.iter().filter(|&&logit| logit > logits[token]).count();
            prop_assert!(larger < top_k as usize);
        }
    }
}
