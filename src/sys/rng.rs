//! The only source of randomness: a seeded ChaCha stream whose place can be saved and found again.
//!
//! candle's CPU device cannot be seeded, so nothing in this crate draws from it.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// A reproducible stream of random numbers.
#[derive(Clone, Debug)]
pub struct SeededRng {
    seed: u64,
    inner: ChaCha8Rng,
}

/// The place of a [`SeededRng`] in its stream, for checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngState {
    /// What the stream was started with.
    pub seed: u64,
    /// Which of the seed's independent streams.
    pub stream: u64,
    /// Number of 32-bit words drawn so far.
    pub word: u64,
}

impl SeededRng {
    /// Stream number `stream` of `seed`; streams of one seed are independent, so that one purpose drawing more does
    /// not move another.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut inner = ChaCha8Rng::seed_from_u64(seed);
        inner.set_stream(stream);
        Self { seed, inner }
    }

    /// Continues where `state` was taken.
    pub fn from_state(state: RngState) -> Self {
        let mut rng = Self::new(state.seed, state.stream);
        rng.inner.set_word_pos(u128::from(state.word));
        rng
    }

    /// The present place in the stream.
    pub fn state(&self) -> RngState {
        RngState {
            seed: self.seed,
            stream: self.inner.get_stream(),
            word: self.inner.get_word_pos() as u64,
        }
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.inner.random::<f64>()
    }

    /// Uniform among `0..bound`; `bound` must not be zero.
    pub fn below(&mut self, bound: usize) -> usize {
        self.inner.random_range(0..bound)
    }

    /// Standard normal, by Box and Muller (1958). Uses two words pairs for each number, so that the place in the
    /// stream is all the state there is.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// `count` normal numbers of mean 0 and standard deviation `std`.
    pub fn normals(&mut self, count: usize, std: f64) -> Vec<f32> {
        (0..count).map(|_| (self.normal() * std) as f32).collect()
    }

    /// `count` numbers uniform in [-bound, bound).
    pub fn uniforms(&mut self, count: usize, bound: f64) -> Vec<f32> {
        (0..count)
            .map(|_| ((2.0 * self.uniform() - 1.0) * bound) as f32)
            .collect()
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// A fresh 64-bit number, for seeding something else.
    pub fn next_seed(&mut self) -> u64 {
        self.inner.next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_place_continues_the_same_stream() {
        let mut rng = SeededRng::new(1234, 1);
        rng.normals(7, 1.0);
        let mut again = SeededRng::from_state(rng.state());
        assert_eq!(rng.normals(5, 1.0), again.normals(5, 1.0));
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let numbers = SeededRng::new(7, 0).normals(20_000, 1.0);
        let mean = numbers.iter().sum::<f32>() / 20_000.0;
        let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.02, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.03, "variance {variance}");
    }
}
