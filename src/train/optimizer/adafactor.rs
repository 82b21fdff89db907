//! Adafactor (Shazeer and Stern 2018): the second moment of a matrix is kept as one number for each row and column.
//!
//! By the formulas of fairseq's and transformers' Adafactor. Lester et al. (2021) tune prompts with it at a constant
//! learning rate of 0.3, without scaling by the parameter.

use anyhow::Result;
use candle_core::{D, DType, Tensor};

/// Keys of `model.optim`.
#[derive(Clone, Copy, Debug)]
pub struct AdafactorConfig {
    /// Added to squared gradients; smallest scale of a parameter.
    pub eps: (f64, f64),
    /// Root mean square that an update is cut down to before the learning rate.
    pub clip_threshold: f64,
    /// Exponent, below 0: after step t the second moment keeps 1 − t^`decay_rate` of what it was.
    pub decay_rate: f64,
    /// Decay rate of a first moment, where there is to be one.
    pub beta1: Option<f64>,
    /// Part of a weight that one step at learning rate 1 takes off.
    pub weight_decay: f64,
    /// Multiply the learning rate by the root mean square of the parameter.
    pub scale_parameter: bool,
    /// Take 1/√t, at most 0.01, in place of the schedule's learning rate.
    pub relative_step: bool,
    /// With `relative_step`: rise to it by 1e-6 a step.
    pub warmup_init: bool,
}

impl Default for AdafactorConfig {
    /// Lester et al.'s settings, but for the weight decay.
    fn default() -> Self {
        Self {
            eps: (1e-30, 1e-3),
            clip_threshold: 1.0,
            decay_rate: -0.8,
            beta1: None,
            weight_decay: 0.0,
            scale_parameter: false,
            relative_step: false,
            warmup_init: false,
        }
    }
}

impl AdafactorConfig {
    pub(super) fn memory_names(&self, rank: usize) -> &'static [&'static str] {
        match (rank >= 2, self.beta1.is_some()) {
            (true, false) => &["second_moment_of_rows", "second_moment_of_columns"],
            (true, true) => &[
                "second_moment_of_rows",
                "second_moment_of_columns",
                "first_moment",
            ],
            (false, false) => &["second_moment"],
            (false, true) => &["second_moment", "first_moment"],
        }
    }

    pub(super) fn fresh_memory(&self, value: &Tensor) -> Result<Vec<Tensor>> {
        let mut memory = if value.rank() >= 2 {
            vec![
                value.mean(D::Minus1)?.zeros_like()?,
                value.mean(D::Minus2)?.zeros_like()?,
            ]
        } else {
            vec![value.zeros_like()?]
        };
        if self.beta1.is_some() {
            memory.push(value.zeros_like()?);
        }
        Ok(memory)
    }

    pub(super) fn learning_rate(&self, scheduled: f64, update: u64) -> f64 {
        if !self.relative_step {
            return scheduled;
        }
        let step = update as f64;
        let most = if self.warmup_init { 1e-6 * step } else { 1e-2 };
        most.min(1.0 / step.sqrt())
    }

    pub(super) fn apply(
        &self,
        value: &Tensor,
        gradient: &Tensor,
        memory: &mut [Tensor],
        update: u64,
        learning_rate: f64,
    ) -> Result<Tensor> {
        let learning_rate = if self.scale_parameter {
            learning_rate * root_mean_square(value)?.max(self.eps.1)
        } else {
            learning_rate
        };
        let kept = 1.0 - (update as f64).powf(self.decay_rate);
        let squares = gradient.sqr()?.affine(1.0, self.eps.0)?;
        let advance = |moment: &Tensor, new: Tensor| -> Result<Tensor> {
            Ok((moment.affine(kept, 0.0)? + new.affine(1.0 - kept, 0.0)?)?)
        };
        let unit = if value.rank() >= 2 {
            let rows = advance(&memory[0], squares.mean(D::Minus1)?)?; // [.., R]
            let columns = advance(&memory[1], squares.mean(D::Minus2)?)?; // [.., C]
            let row_factor = rows
                .broadcast_div(&rows.mean_keepdim(D::Minus1)?)?
                .sqrt()?
                .recip()?
                .unsqueeze(D::Minus1)?; // [.., R, 1]
            let column_factor = columns.unsqueeze(columns.rank() - 1)?.sqrt()?.recip()?; // [.., 1, C]
            let unit = row_factor.broadcast_mul(&column_factor)?.mul(gradient)?;
            memory[0] = rows;
            memory[1] = columns;
            unit
        } else {
            let second = advance(&memory[0], squares)?;
            let unit = second.sqrt()?.recip()?.mul(gradient)?;
            memory[0] = second;
            unit
        };
        let excess = (root_mean_square(&unit)? / self.clip_threshold).max(1.0);
        let mut change = unit.affine(learning_rate / excess, 0.0)?;
        if let (Some(beta1), Some(first)) = (self.beta1, memory.last_mut()) {
            change = (first.affine(beta1, 0.0)? + change.affine(1.0 - beta1, 0.0)?)?;
            *first = change.clone();
        }
        let decayed = value.affine(1.0 - learning_rate * self.weight_decay, 0.0)?;
        Ok((decayed - change)?)
    }
}

fn root_mean_square(tensor: &Tensor) -> Result<f64> {
    let squares = tensor.to_dtype(DType::F64)?.sqr()?;
    Ok(squares.mean_all()?.to_scalar::<f64>()?.sqrt())
}
