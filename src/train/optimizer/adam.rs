//! Adam (Kingma and Ba 2015), with weight decay of either kind.

use anyhow::Result;
use candle_core::Tensor;

use super::in_place::{Moment, Update};
use crate::model::ops::is_plain;

/// Keys of `model.optim`.
#[derive(Clone, Copy, Debug)]
pub struct AdamConfig {
    /// Decay rates of the two moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled: the part of a weight that one step at learning rate 1 takes off. Coupled: added to the gradient,
    /// times the weight.
    pub weight_decay: f64,
}

impl AdamConfig {
    /// [`Self::decoupled`] with the gradient times `scale`, changing value and moments where they lie; says whether
    /// it could (f32 on the CPU) and otherwise changes nothing.
    pub(super) fn decoupled_in_place(
        &self,
        value: &Tensor,
        (gradient, scale): (&Tensor, f64),
        moments: &[Tensor],
        update: u64,
        learning_rate: f64,
    ) -> Result<bool> {
        let [first, second] = moments else {
            return Ok(false);
        };
        if ![value, gradient, first, second].into_iter().all(is_plain) {
            return Ok(false);
        }
        let (beta1, beta2) = self.betas;
        let exponent = i32::try_from(update).unwrap_or(i32::MAX);
        for (moment, beta, squared) in [(first, beta1, false), (second, beta2, true)] {
            let op = Moment {
                kept: beta as f32,
                added: (1.0 - beta) as f32,
                scale: scale as f32,
                squared,
            };
            moment.inplace_op2(gradient, &op)?;
        }
        let op = Update {
            kept: (1.0 - learning_rate * self.weight_decay) as f32,
            rate: learning_rate as f32,
            first: (1.0 / (1.0 - beta1.powi(exponent))) as f32,
            second: (1.0 / (1.0 - beta2.powi(exponent))) as f32,
            eps: self.eps as f32,
        };
        value.inplace_op3(first, second, &op)?;
        Ok(true)
    }

    /// AdamW: the weights shrink by themselves.
    pub(super) fn decoupled(
        &self,
        value: &Tensor,
        gradient: &Tensor,
        moments: &mut [Tensor],
        update: u64,
        learning_rate: f64,
    ) -> Result<Tensor> {
        let direction = self.direction(gradient, moments, update)?;
        let decayed = value.affine(1.0 - learning_rate * self.weight_decay, 0.0)?;
        Ok((decayed - direction.affine(learning_rate, 0.0)?)?)
    }

    /// Adam: the decay takes part in the moments.
    pub(super) fn coupled(
        &self,
        value: &Tensor,
        gradient: &Tensor,
        moments: &mut [Tensor],
        update: u64,
        learning_rate: f64,
    ) -> Result<Tensor> {
        let gradient = (gradient + value.affine(self.weight_decay, 0.0)?)?;
        let direction = self.direction(&gradient, moments, update)?;
        Ok((value - direction.affine(learning_rate, 0.0)?)?)
    }

    /// The first moment over the root of the second, both corrected for their start at zero.
    fn direction(&self, gradient: &Tensor, moments: &mut [Tensor], update: u64) -> Result<Tensor> {
        let (beta1, beta2) = self.betas;
        let exponent = i32::try_from(update).unwrap_or(i32::MAX);
        let first = (moments[0].affine(beta1, 0.0)? + gradient.affine(1.0 - beta1, 0.0)?)?;
        let second =
            (moments[1].affine(beta2, 0.0)? + gradient.sqr()?.affine(1.0 - beta2, 0.0)?)?;
        let root = second
            .affine(1.0 / (1.0 - beta2.powi(exponent)), 0.0)?
            .sqrt()?
            .affine(1.0, self.eps)?;
        let direction = (first.affine(1.0 / (1.0 - beta1.powi(exponent)), 0.0)? / root)?;
        moments[0] = first;
        moments[1] = second;
        Ok(direction)
    }
}
