//! Gradient descent with momentum, by the formulas of `torch.optim.SGD`.

use anyhow::Result;
use candle_core::Tensor;

/// Keys of `model.optim`.
#[derive(Clone, Copy, Debug)]
pub struct SgdConfig {
    /// What stays of the velocity from one step to the next; 0 keeps none.
    pub momentum: f64,
    /// Part of the gradient that does not enter the velocity.
    pub dampening: f64,
    /// Look ahead along the velocity (Nesterov).
    pub nesterov: bool,
    /// Added to the gradient, times the weight.
    pub weight_decay: f64,
}

impl SgdConfig {
    pub(super) fn memory_names(&self) -> &'static [&'static str] {
        if self.momentum == 0.0 {
            &[]
        } else {
            &["velocity"]
        }
    }

    pub(super) fn apply(
        &self,
        value: &Tensor,
        gradient: &Tensor,
        memory: &mut [Tensor],
        update: u64,
        learning_rate: f64,
    ) -> Result<Tensor> {
        let gradient = (gradient + value.affine(self.weight_decay, 0.0)?)?;
        let direction = match memory {
            [] => gradient,
            [velocity, ..] => {
                // The first velocity is the gradient itself, which dampening does not touch.
                *velocity = if update == 1 {
                    gradient.clone()
                } else {
                    (velocity.affine(self.momentum, 0.0)?
                        + gradient.affine(1.0 - self.dampening, 0.0)?)?
                };
                if self.nesterov {
                    (gradient + velocity.affine(self.momentum, 0.0)?)?
                } else {
                    velocity.clone()
                }
            }
        };
        Ok((value - direction.affine(learning_rate, 0.0)?)?)
    }
}
