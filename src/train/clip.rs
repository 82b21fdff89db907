//! Gradient norm and clipping, as `torch.nn.utils.clip_grad_norm_` does it.

use anyhow::Result;
use candle_core::{DType, Tensor};

/// Euclidean norm over all gradients together, in f64.
pub fn gradient_norm(gradients: &[Tensor]) -> Result<f64> {
    let mut sum = 0.0;
    for gradient in gradients {
        sum += gradient
            .to_dtype(DType::F64)?
            .sqr()?
            .sum_all()?
            .to_scalar::<f64>()?;
    }
    Ok(sum.sqrt())
}

/// What to multiply gradients of norm `norm` by so that they do not exceed `clip_val`; 1 where clipping is off.
pub fn clip_coefficient(norm: f64, clip_val: Option<f64>) -> f64 {
    match clip_val {
        Some(limit) if limit > 0.0 => (limit / (norm + 1e-6)).min(1.0),
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_norm_runs_over_all_tensors_and_clipping_only_shrinks() {
        let three = Tensor::new(&[3f32], &Device::Cpu).unwrap();
        let four = Tensor::new(&[[4f32]], &Device::Cpu).unwrap();
        let norm = gradient_norm(&[three, four]).unwrap();
        assert!((norm - 5.0).abs() < 1e-12);
        assert!((clip_coefficient(norm, Some(1.0)) - 1.0 / 5.000_001).abs() < 1e-9);
        assert!((clip_coefficient(0.5, Some(1.0)) - 1.0).abs() < 1e-12);
        assert!((clip_coefficient(norm, None) - 1.0).abs() < 1e-12);
    }
}
