//! The gradient of one global batch.

use anyhow::{Result, ensure};
use candle_core::Tensor;

use super::options::FitParts;

/// Loss and gradients of a step.
pub(super) struct Gradients {
    /// One for each trainable tensor, times the loss scale.
    pub(super) gradients: Vec<Tensor>,
    /// Without the loss scale.
    pub(super) loss: f64,
    /// Positions that went through the model.
    pub(super) tokens: usize,
}

/// The mean over micro-batches of each one's mean loss, as NeMo's schedule gives it, and its gradients times
/// `loss_scale`.
pub(super) fn gradients(
    parts: &FitParts<'_>,
    indices: &[usize],
    micro_batch_size: usize,
    loss_scale: f64,
) -> Result<Gradients> {
    ensure!(!indices.is_empty(), "a step without rows");
    let micro_batches: Vec<&[usize]> = indices.chunks(micro_batch_size.max(1)).collect();
    let share = 1.0 / micro_batches.len() as f64;
    let mut total: Option<Vec<Tensor>> = None;
    let (mut loss, mut tokens) = (0.0, 0);
    for rows in &micro_batches {
        let batch = parts
            .context
            .collate(rows.iter().map(|index| &parts.train.examples[*index]));
        tokens += batch.tokens();
        let micro_loss = parts.context.loss(&batch, parts.prompts, share)?;
        loss += f64::from(micro_loss.to_scalar::<f32>()?);
        let scaled = micro_loss.affine(loss_scale, 0.0)?;
        let gradients = parts.optimizer.gradients(&scaled.backward()?)?;
        total = Some(match total {
            None => gradients,
            Some(sums) => sums
                .iter()
                .zip(&gradients)
                .map(|(sum, new)| sum + new)
                .collect::<Result<_, _>>()?,
        });
    }
    let gradients = total
        .unwrap_or_default()
        .iter()
        .map(|gradient| parts.communicator.all_reduce_mean(gradient))
        .collect::<Result<_>>()?;
    Ok(Gradients {
        gradients,
        loss,
        tokens,
    })
}
