//! Dropout inside a prompt encoder, drawn anew for every use and the same again when a step is repeated.

use std::sync::Mutex;

use anyhow::Result;
use candle_core::Tensor;

use crate::sys::rng::SeededRng;

/// Streams of the seed from which masks are drawn, one for each training step: far from those of other purposes.
const FIRST_STREAM: u64 = 1 << 40;

/// Zeroes numbers with a probability and makes up for it in the others. Off until a training step begins.
///
/// The masks of a step depend on the seed, the step's number and how many were drawn in it, so that a resumed run draws
/// what an undisturbed one would have.
#[derive(Debug)]
pub(super) struct Dropout {
    probability: f64,
    seed: u64,
    step: Mutex<Option<SeededRng>>,
}

impl Dropout {
    pub(super) fn new(probability: f64, seed: u64) -> Self {
        Self {
            probability,
            seed,
            step: Mutex::new(None),
        }
    }

    /// Turns it on for training step `step`, or off.
    pub(super) fn at_step(&self, step: Option<u64>) {
        let rng = step
            .filter(|_| self.probability > 0.0)
            .map(|step| SeededRng::new(self.seed, FIRST_STREAM + step));
        if let Ok(mut current) = self.step.lock() {
            *current = rng;
        }
    }

    /// `x` with numbers left out, or `x` itself where dropout is off.
    pub(super) fn apply(&self, x: Tensor) -> Result<Tensor> {
        let Ok(mut current) = self.step.lock() else {
            return Ok(x);
        };
        let Some(rng) = current.as_mut() else {
            return Ok(x);
        };
        let kept = (1.0 / (1.0 - self.probability)) as f32;
        let mask: Vec<f32> = (0..x.elem_count())
            .map(|_| {
                if rng.uniform() < self.probability {
                    0.0
                } else {
                    kept
                }
            })
            .collect();
        Ok((&x * Tensor::from_vec(mask, x.shape(), x.device())?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn masks_are_new_within_a_step_and_the_same_when_the_step_is_repeated() {
        let dropout = Dropout::new(0.25, 7);
        let ones = Tensor::ones(4000, DType::F32, &Device::Cpu).unwrap();
        let draw = || {
            dropout
                .apply(ones.clone())
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        assert_eq!(draw(), vec![1.0; 4000], "off at first");
        dropout.at_step(Some(3));
        let (first, second) = (draw(), draw());
        assert_ne!(first, second);
        let dropped = first.iter().filter(|number| **number == 0.0).count();
        assert!((900..1100).contains(&dropped), "{dropped} of 4000 at 0.25");
        assert!(
            first
                .iter()
                .all(|number| *number == 0.0 || (*number - 4.0 / 3.0).abs() < 1e-6)
        );
        dropout.at_step(Some(3));
        assert_eq!(draw(), first);
        dropout.at_step(Some(4));
        assert_ne!(draw(), first);
        dropout.at_step(None);
        assert_eq!(draw(), vec![1.0; 4000]);
    }
}
