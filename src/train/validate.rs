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
            options.validation_batch_size,
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
        if let Some(keep) = &options.keep {
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

/// Mean over batches (of the first `rows` rows) of each batch's mean loss, in file order. The prompts are made into plain
/// tensors first, so that nothing is kept for a backward pass.
pub fn validation_loss(
    context: &LossContext<'_>,
    prompts: &VirtualPrompts,
    dataset: &Dataset,
    batch_size: usize,
    rows: usize,
) -> Result<f64> {
    let frozen = VirtualPrompts::frozen(prompts.table()?);
    let examples = &dataset.examples[..rows.min(dataset.examples.len())];
    ensure!(!examples.is_empty(), "the validation data have no rows");
    let (mut sum, mut batches) = (0.0, 0usize);
    for rows in examples.chunks(batch_size.max(1)) {
        let batch = context.collate(rows);
        sum += f64::from(context.loss(&batch, &frozen, 1.0)?.to_scalar::<f32>()?);
        batches += 1;
    }
    Ok(sum / batches as f64)
}
