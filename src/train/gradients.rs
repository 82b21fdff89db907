//! The gradient of one global batch.

use anyhow::{Result, ensure};
use candle_core::Tensor;

use super::options::FitParts;
use super::self_test::{Gate, Sizes};

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
/// `loss_scale`. `reached` learns what came to each virtual token.
pub(super) fn gradients(
    parts: &FitParts<'_>,
    indices: &[usize],
    micro_batch_size: usize,
    loss_scale: f64,
    mut reached: Option<&mut Sizes>,
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
        let gate = Gate::default();
        let embeddings = |task: &str| match reached {
            None => parts.prompts.embeddings(task),
            Some(_) => gate.embeddings(parts.prompts, task),
        };
        let micro_loss = parts.context.loss_of(&batch, &embeddings, share)?;
        loss += f64::from(micro_loss.to_scalar::<f32>()?);
        let mut found = micro_loss.affine(loss_scale, 0.0)?.backward()?;
        if let Some(reached) = &mut reached {
            gate.add_sizes(&found, reached)?;
            if let Some(rest) = gate.rest(&found)? {
                found = rest.backward()?;
            }
        }
        let gradients = parts.optimizer.gradients(&found)?;
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
