//! Which token comes next: what is taken from the logits before one is chosen, and the choice by chance.
//!
//! The steps and their order are those of transformers' logits processors, so that settings carry over: repetition
//! penalty, fewest tokens, temperature, `top_k`, `top_p`. NeMo's differ in one point: its penalty divides negative
//! logits too, which makes used tokens likelier, and takes effect only where log-probabilities are asked for.

use crate::sys::rng::SeededRng;

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; above 0.
    pub temperature: f64,
    /// Draw among so many likeliest tokens, and those as likely as the last of them; 0 for all.
    pub top_k: usize,
    /// Draw among the likeliest tokens that together hold this much probability (Holtzman et al., 2020); from 1 on, or
    /// at 0, among all.
    pub top_p: f64,
}

/// Makes tokens that were used less likely (Keskar et al., 2019): positive logits are divided by `penalty`, negative
/// ones multiplied.
pub fn penalise(logits: &mut [f32], used: impl IntoIterator<Item = u32>, penalty: f64) {
    let penalty = penalty as f32;
    for token in used {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = if *logit < 0.0 {
                *logit * penalty
            } else {
                *logit / penalty
            };
        }
    }
}

/// Index of the largest number; the first of equals.
pub(super) fn likeliest(logits: &[f32]) -> u32 {
    // Lanes first, which vectorise; a NaN is never larger.
    let mut lanes = [logits.first().copied().unwrap_or(f32::NEG_INFINITY); 16];
    let (chunks, rest) = logits.as_chunks::<16>();
    let larger = |best: &mut f32, logit: f32| {
        if logit > *best {
            *best = logit;
        }
    };
    for chunk in chunks {
        for (best, &logit) in lanes.iter_mut().zip(chunk) {
            larger(best, logit);
        }
    }
    let mut largest = lanes[0];
    for &logit in lanes.iter().chain(rest) {
        larger(&mut largest, logit);
    }
    let place = logits.iter().position(|&logit| logit >= largest);
    place.unwrap_or(0) as u32
}

/// `log(sum(exp(logits)))`.
pub(super) fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|&logit| f64::from(logit - largest).exp())
        .sum();
    f64::from(largest) + sum.ln()
}

impl Sampling {
    /// The tokens that may be drawn with their weights, of any sum.
    ///
    /// Tokens come by falling weight where `top_p` limits them, else by their number.
    pub fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let scaled = |logit: f32| f64::from(logit) / self.temperature;
        let largest = scaled(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let weight = |logit: f32| (scaled(logit) - largest).exp();
        let smallest = if (1..logits.len()).contains(&self.top_k) {
            let mut ranked = logits.to_vec();
            *ranked
                .select_nth_unstable_by(self.top_k - 1, |a, b| b.total_cmp(a))
                .1
        } else {
            f32::NEG_INFINITY
        };
        let mut kept: Vec<(u32, f64)> = logits
            .iter()
            .enumerate()
            .filter(|&(_, &logit)| logit >= smallest && logit > f32::NEG_INFINITY)
            .map(|(token, &logit)| (token as u32, weight(logit)))
            .collect();
        if self.top_p <= 0.0 || self.top_p >= 1.0 {
            return kept;
        }
        let limit = self.top_p * kept.iter().map(|(_, weight)| weight).sum::<f64>();
        // A large vocabulary is not sorted for the few tokens that are kept: those whose weight alone is above a bound
        // are enough once they hold `limit` together.
        for bound in [1e-3, 1e-6] {
            let mass: f64 = kept.iter().map(|kept| kept.1).filter(|w| *w >= bound).sum();
            if mass > limit {
                kept.retain(|(_, weight)| *weight >= bound);
                break;
            }
        }
        kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut before = 0.0;
        let end = kept.iter().position(|(_, weight)| {
            let is_beyond = before >= limit;
            before += weight;
            is_beyond
        });
        kept.truncate(end.unwrap_or(kept.len()));
        kept
    }

    /// Draws a token.
    pub fn draw(&self, logits: &[f32], rng: &mut SeededRng) -> u32 {
        let candidates = self.candidates(logits);
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut left = rng.uniform() * total;
        for (token, weight) in &candidates {
            left -= weight;
            if left < 0.0 {
                return *token;
            }
        }
        // Rounding, or logits that are no numbers.
        candidates
            .last()
            .map_or_else(|| likeliest(logits), |last| last.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [1.0, 3.0, -1.0, 3.0, 2.0, f32::NEG_INFINITY];

    fn tokens(temperature: f64, top_k: usize, top_p: f64) -> Vec<u32> {
        let sampling = Sampling {
            temperature,
            top_k,
            top_p,
        };
        let candidates = sampling.candidates(&LOGITS);
        let mut tokens: Vec<u32> = candidates.into_iter().map(|(token, _)| token).collect();
        tokens.sort_unstable();
        tokens
    }

    #[test]
    fn top_k_and_top_p_keep_the_likeliest() {
        assert_eq!(tokens(1.0, 0, 1.0), [0, 1, 2, 3, 4]);
        assert_eq!(tokens(1.0, 3, 1.0), [1, 3, 4]);
        // The first two hold 0.398 each, the third 0.147.
        assert_eq!(tokens(1.0, 0, 0.3), [1]);
        assert_eq!(tokens(1.0, 0, 0.5), [1, 3]);
        assert_eq!(tokens(1.0, 0, 0.8), [1, 3, 4]);
        // Heat evens them out.
        assert_eq!(tokens(100.0, 0, 0.7), [0, 1, 3, 4]);
        // Of the two that `top_k` leaves, each holds one half.
        assert_eq!(tokens(1.0, 2, 0.6), [1, 3]);
    }

    #[test]
    fn draws_follow_the_weights_and_the_seed() {
        let sampling = Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
        };
        let draws = |seed| -> Vec<u32> {
            let mut rng = SeededRng::new(seed, 0);
            (0..20_000)
                .map(|_| sampling.draw(&LOGITS, &mut rng))
                .collect()
        };
        let drawn = draws(1);
        assert_eq!(drawn, draws(1));
        assert_ne!(drawn, draws(2));
        let total = log_sum_exp(&LOGITS[..5]);
        for (token, logit) in LOGITS.iter().enumerate() {
            let expected = (f64::from(*logit) - total).exp();
            let found = drawn.iter().filter(|one| **one == token as u32).count() as f64 / 20_000.0;
            assert!((expected - found).abs() < 0.01, "{token}: {found}");
        }
    }

    #[test]
    fn a_penalty_makes_used_tokens_less_likely_whatever_their_sign() {
        let mut logits = [2.0, -2.0, 1.0];
        penalise(&mut logits, [0, 1, 99], 2.0);
        assert_eq!(
            logits.map(f32::to_bits),
            [1.0f32, -4.0, 1.0].map(f32::to_bits)
        );
    }
}
