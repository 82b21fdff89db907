//! What a validation measures.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::checkpoint::{TrainState, checkpoint_name};
use super::metrics::ValidationMetrics;
use super::monitor::Measured;
use super::options::{FitOptions, FitParts};
use super::step::LossContext;
use crate::data::dataset::Dataset;
use crate::prompt::VirtualPrompts;

/// Name of the validation loss among what is measured.
const VAL_LOSS: &str = "val_loss";

/// Measures everything, tells it to the sinks, and keeps the state where no earlier one was better. `training` is what
/// the steps before measured.
pub(super) fn validate(
    parts: &mut FitParts<'_>,
    options: &FitOptions,
    state: &mut TrainState,
    training: &Measured,
) -> Result<Measured> {
    let started = Instant::now();
    let mut measured = Measured::new();
    let mut scores = Measured::new();
    if let Some(dataset) = parts.validation {
        let loss = validation_loss(
            &parts.context,
            parts.prompts,
            dataset,
            options.validation_batches,
            options.validation_rows,
        )?;
        measured.insert(VAL_LOSS.to_owned(), loss);
        state.val_loss = Some(loss);
        if let Some(score) = &mut parts.scorer {
            scores =
                score(&parts.prompts.table()?).context("scoring answers to the validation rows")?;
        }
    }
    measured.extend(scores.clone());
    measured.extend(training.clone());

    let monitor = &options.monitor;
    let value = measured.get(&monitor.name).copied();
    let best =
        value.is_some_and(|value| monitor.improves(value, state.best.map(|(best, _)| best), 0.0));
    if let Some(value) = value {
        if best {
            state.best = Some((value, state.global_step));
            if options.checkpoints {
                let tensors = parts.optimizer.state()?;
                let path = parts.checkpoints.best();
                parts.checkpoints.save(&path, state, &tensors)?;
            }
            if let Some(on_best) = &mut parts.on_best {
                on_best(&parts.prompts.table()?)?;
            }
        }
        if let Some(keep) = &options.keep
            && value.is_finite()
        {
            let epoch = state.consumed_samples / parts.sampler.samples_per_epoch();
            let name = checkpoint_name(&keep.filename, &measured, state.global_step, epoch);
            let tensors = parts.optimizer.state()?;
            parts
                .checkpoints
                .keep(state, &tensors, (value, monitor), name, keep.most)?;
        }
    } else {
        tracing::debug!(
            "`{}` was not measured: no checkpoint is the best",
            monitor.name
        );
    }
    if let Some(val_loss) = measured.get(VAL_LOSS) {
        let metrics = ValidationMetrics {
            step: state.global_step,
            val_loss: *val_loss,
            scores,
            validation_seconds: started.elapsed().as_secs_f64(),
            best,
        };
        for sink in &mut *parts.sinks {
            sink.validation(&metrics)?;
        }
    }
    Ok(measured)
}

/// Sizes of the batches of a validation.
#[derive(Clone, Copy, Debug)]
pub struct ValidationBatches {
    /// Rows of a batch; every batch weighs the same, as in NeMo.
    pub global: usize,
    /// Rows that go through the model at once; a batch's loss is the mean of theirs.
    pub micro: usize,
}

/// Mean over batches (of the first `rows` rows) of each batch's loss, in file order. What is left at the end is a batch of
/// one micro-batch: each of its tokens weighs the same. The prompts are made into plain tensors first, so that nothing is
/// kept for a backward pass.
pub fn validation_loss(
    context: &LossContext<'_>,
    prompts: &VirtualPrompts,
    dataset: &Dataset,
    sizes: ValidationBatches,
    rows: usize,
) -> Result<f64> {
    let frozen = VirtualPrompts::frozen(prompts.table()?);
    let examples = &dataset.examples[..rows.min(dataset.examples.len())];
    ensure!(!examples.is_empty(), "the validation data have no rows");
    let (mut sum, mut batches) = (0.0, 0usize);
    for rows in examples.chunks(sizes.global.max(1)) {
        let is_whole = rows.len() == sizes.global;
        let (mut losses, mut weights) = (0.0, 0usize);
        for rows in rows.chunks(sizes.micro.max(1)) {
            let batch = context.collate(rows);
            let weight = if is_whole { 1 } else { batch.labels.len() };
            let loss = context.loss(&batch, &frozen, 1.0)?.to_scalar::<f32>()?;
            losses += f64::from(loss) * weight as f64;
            weights += weight;
        }
        sum += losses / weights as f64;
        batches += 1;
    }
    Ok(sum / batches as f64)
}
