//! Gradient norm and clipping, as `torch.nn.utils.clip_grad_norm_` and `clip_grad_value_` do it.

use anyhow::Result;
use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::model::ops::{is_plain, with_f32};

/// `trainer.gradient_clip_val` with `gradient_clip_algorithm`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// Nothing is clipped.
    Off,
    /// The norm of all gradients together is at most this.
    Norm(f64),
    /// Each number is at most this far from zero.
    Value(f64),
}

impl Clip {
    /// Clips gradients that are still multiplied by `loss_scale`, whose norm without it is `norm`. The result, times
    /// the factor beside it, is what an optimizer is to be given.
    pub fn apply(
        self,
        gradients: Vec<Tensor>,
        loss_scale: f64,
        norm: f64,
    ) -> Result<(Vec<Tensor>, f64)> {
        match self {
            Self::Value(limit) if limit > 0.0 => {
                let clamped = gradients
                    .iter()
                    .map(|gradient| {
                        Ok(gradient
                            .affine(1.0 / loss_scale, 0.0)?
                            .clamp(-limit, limit)?)
                    })
                    .collect::<Result<_>>()?;
                Ok((clamped, 1.0))
            }
            Self::Norm(limit) if limit > 0.0 => {
                let factor = (limit / (norm + 1e-6)).min(1.0);
                Ok((gradients, factor / loss_scale))
            }
            _ => Ok((gradients, 1.0 / loss_scale)),
        }
    }
}

/// Euclidean norm over all gradients together, in f64.
pub fn gradient_norm(gradients: &[Tensor]) -> Result<f64> {
    let mut sum = 0.0;
    for gradient in gradients {
        if is_plain(gradient) {
            sum += with_f32(gradient, squares)?;
            continue;
        }
        sum += gradient
            .to_dtype(DType::F64)?
            .sqr()?
            .sum_all()?
            .to_scalar::<f64>()?;
    }
    Ok(sum.sqrt())
}

/// Sum of the squares: of parts of one length each, whatever the number of threads, so that the result is always the same.
fn squares(numbers: &[f32]) -> f64 {
    const PART: usize = 1 << 15;
    const LANES: usize = 8;
    let parts: Vec<f64> = numbers
        .par_chunks(PART)
        .map(|part| {
            let mut lanes = [0.0_f64; LANES];
            let (eights, rest) = part.as_chunks::<LANES>();
            for eight in eights {
                for (lane, &x) in lanes.iter_mut().zip(eight) {
                    *lane += f64::from(x) * f64::from(x);
                }
            }
            for (lane, &x) in lanes.iter_mut().zip(rest) {
                *lane += f64::from(x) * f64::from(x);
            }
            lanes.iter().sum()
        })
        .collect();
    parts.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// What an optimizer gets of the gradients (3, −4) whose loss was multiplied by 8.
    fn clipped(clip: Clip) -> Vec<f32> {
        let gradients = vec![
            Tensor::new(&[24f32], &Device::Cpu).unwrap(),
            Tensor::new(&[-32f32], &Device::Cpu).unwrap(),
        ];
        let norm = gradient_norm(&gradients).unwrap() / 8.0;
        assert!((norm - 5.0).abs() < 1e-12);
        let (gradients, factor) = clip.apply(gradients, 8.0, norm).unwrap();
        gradients
            .iter()
            .map(|gradient| gradient.to_vec1::<f32>().unwrap()[0] * factor as f32)
            .collect()
    }

    #[test]
    fn the_norm_of_many_numbers_is_that_of_a_plain_sum() {
        let numbers: Vec<f32> = (0..100_003_u32).map(|i| (i as f32).sin()).collect();
        let plain: f64 = numbers.iter().map(|&x| f64::from(x).powi(2)).sum();
        let half = numbers.len() / 2;
        let tensors = [&numbers[..half], &numbers[half..]]
            .map(|part| Tensor::from_slice(part, part.len(), &Device::Cpu).unwrap());
        let found = gradient_norm(&tensors).unwrap();
        assert!((found - plain.sqrt()).abs() < 1e-9 * plain.sqrt());
    }

    #[test]
    fn the_norm_runs_over_all_tensors_and_clipping_only_shrinks() {
        let near = |found: Vec<f32>, expected: [f32; 2]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{found}, not {expected}");
            }
        };
        near(clipped(Clip::Norm(1.0)), [0.6, -0.8]);
        near(clipped(Clip::Norm(10.0)), [3.0, -4.0]);
        near(clipped(Clip::Value(3.5)), [3.0, -3.5]);
        near(clipped(Clip::Value(0.5)), [0.5, -0.5]);
        near(clipped(Clip::Off), [3.0, -4.0]);
        near(clipped(Clip::Norm(0.0)), [3.0, -4.0]);
    }
}
