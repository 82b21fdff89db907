//! The training loop, on one page.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;

use super::checkpoint::{CheckpointFolder, TrainState, checkpoint_name};
use super::clip::{clip_coefficient, gradient_norm};
use super::metrics::{MetricSink, StepMetrics, ValidationMetrics};
use super::optimizer::Optimizer;
use super::schedule::Schedule;
use super::step::LossContext;
use crate::data::dataset::Dataset;
use crate::data::sampler::Sampler;
use crate::diag::Diagnostic;
use crate::dist::Communicator;
use crate::prompt::VirtualPrompts;
use crate::sys::shutdown::Shutdown;

/// Numbers that shape a run.
#[derive(Clone, Debug)]
pub struct FitOptions {
    /// Optimizer steps in all.
    pub max_steps: u64,
    /// Rows of one forward and backward pass.
    pub micro_batch_size: usize,
    /// Rows of one validation batch.
    pub validation_batch_size: usize,
    /// Steps between validations; `None` validates at the end alone.
    pub val_check_interval: Option<u64>,
    /// Steps between logged ones.
    pub log_every_n_steps: u64,
    /// Limit of the gradient norm.
    pub gradient_clip_val: Option<f64>,
    /// Stop after this many validations without an improvement of at least `min_delta`.
    pub early_stopping: Option<EarlyStopping>,
    /// Go back to the best validated state at the end.
    pub save_best_model: bool,
    /// Go on from the last checkpoint where there is one.
    pub resume_if_exists: bool,
    /// Where to start where there is none.
    pub start_from: Option<PathBuf>,
    /// Batches of a validation, where not all rows are used.
    pub most_validation_batches: Option<usize>,
    /// Also save the last state every so many steps.
    pub save_every_n_steps: Option<u64>,
    /// Validated states to keep besides the best and the last.
    pub keep: Option<KeepBest>,
}

/// Keys of `checkpoint_callback_params`.
#[derive(Clone, Debug)]
pub struct KeepBest {
    /// Pattern of their names, see [`checkpoint_name`].
    pub filename: String,
    /// How many; all where this is nothing.
    pub most: Option<usize>,
}

/// Keys of `early_stopping_callback_params`.
#[derive(Clone, Copy, Debug)]
pub struct EarlyStopping {
    /// Validations to wait.
    pub patience: u64,
    /// Smallest improvement that counts.
    pub min_delta: f64,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All steps were done.
    Done,
    /// The validation loss no longer fell.
    EarlyStopping,
    /// A signal of this number asked for it; the state is saved and can be resumed.
    Signal(i32),
}

/// What a run leaves behind besides the trained prompts.
#[derive(Clone, Debug)]
pub struct FitOutcome {
    /// Why it ended.
    pub stop: Stop,
    /// Where it ended.
    pub state: TrainState,
    /// The last validation loss of the prompts as they are now.
    pub val_loss: Option<f64>,
}

/// What a run works on.
pub struct FitParts<'a> {
    /// Turns batches into losses over the frozen model.
    pub context: LossContext<'a>,
    /// Trained in place.
    pub prompts: &'a VirtualPrompts,
    /// Holds the trainable tensors of `prompts`.
    pub optimizer: &'a mut Optimizer,
    /// Learning rate by step.
    pub schedule: &'a dyn Schedule,
    /// Rows to learn from.
    pub train: &'a Dataset,
    /// Order of those rows.
    pub sampler: &'a mut Sampler,
    /// Rows to validate on.
    pub validation: Option<&'a Dataset>,
    /// Where checkpoints go.
    pub checkpoints: &'a CheckpointFolder,
    /// Who is told about the run.
    pub sinks: &'a mut [Box<dyn MetricSink>],
    /// The other ranks.
    pub communicator: &'a dyn Communicator,
    /// Asks the run to stop.
    pub shutdown: Shutdown,
}

/// Trains from `state` until the steps are done, nothing improves, or somebody asks to stop.
pub fn fit(
    parts: &mut FitParts<'_>,
    options: &FitOptions,
    mut state: TrainState,
) -> Result<FitOutcome> {
    let mut val_loss = None;
    let mut stop = if state.finished {
        Some(Stop::Done)
    } else {
        None
    };
    while stop.is_none() && state.global_step < options.max_steps {
        let started = Instant::now();
        let step = state.global_step + 1;
        let lr = parts.schedule.learning_rate(state.global_step);
        let lr = parts.optimizer.learning_rate(lr);
        let batch = parts.sampler.batch_at(state.consumed_samples);
        parts.prompts.at_step(state.global_step);
        let rows = batch.of_rank(parts.communicator.rank(), parts.communicator.world_size());
        let outcome =
            gradients(parts, options, &rows).with_context(|| format!("in training step {step}"))?;
        let grad_norm = gradient_norm(&outcome.gradients)?;
        ensure_finite(step, outcome.loss, grad_norm)?;
        let coefficient = clip_coefficient(grad_norm, options.gradient_clip_val);
        parts.optimizer.step(&outcome.gradients, coefficient, lr)?;

        state.global_step = step;
        state.consumed_samples = batch.consumed_samples;
        let metrics = StepMetrics {
            step,
            loss: outcome.loss,
            lr,
            grad_norm,
            tokens: outcome.tokens,
            step_seconds: started.elapsed().as_secs_f64(),
            epoch: batch.epoch,
            consumed_samples: state.consumed_samples,
        };
        let last = step == options.max_steps;
        let log = step.is_multiple_of(options.log_every_n_steps.max(1)) || step == 1 || last;
        for sink in &mut *parts.sinks {
            sink.step(&metrics, log)?;
        }

        let due = options
            .val_check_interval
            .is_some_and(|interval| step.is_multiple_of(interval));
        if parts.validation.is_some() && (due || last) {
            let (loss, improved) = validate_and_keep_best(parts, options, &mut state)?;
            val_loss = Some(loss);
            let patience = options.early_stopping.map(|early| early.patience);
            if !improved
                && patience.is_some_and(|wait| state.validations_without_improvement >= wait)
            {
                stop = Some(Stop::EarlyStopping);
            }
        }
        if stop.is_none()
            && let Some(signal) = parts.shutdown.requested()
        {
            stop = Some(Stop::Signal(signal));
        }
        state.finished = last || stop == Some(Stop::EarlyStopping);
        let asked = options
            .save_every_n_steps
            .is_some_and(|steps| step.is_multiple_of(steps));
        if state.finished || due || asked || matches!(stop, Some(Stop::Signal(_))) {
            for sink in &mut *parts.sinks {
                sink.persist()?;
            }
            parts
                .checkpoints
                .save(&parts.checkpoints.last(), &state, &parts.optimizer.state()?)?;
        }
    }
    for sink in &mut *parts.sinks {
        sink.finish()?;
    }
    let stop = stop.unwrap_or(Stop::Done);
    if options.save_best_model
        && !matches!(stop, Stop::Signal(_))
        && let Some((best, step)) = state.best
        && let Some((_, tensors)) = parts.checkpoints.load(&parts.checkpoints.best())?
    {
        tracing::info!("taking the virtual tokens of step {step}, val_loss {best:.4}");
        parts.optimizer.restore(&tensors, step)?;
        val_loss = Some(best);
    }
    Ok(FitOutcome {
        stop,
        state,
        val_loss,
    })
}

struct Gradients {
    gradients: Vec<Tensor>,
    loss: f64,
    tokens: usize,
}

/// Loss and gradients of one global batch: the mean over micro-batches of each one's mean, as NeMo's schedule gives it.
fn gradients(parts: &FitParts<'_>, options: &FitOptions, indices: &[usize]) -> Result<Gradients> {
    ensure!(!indices.is_empty(), "a step without rows");
    let micro_batches: Vec<&[usize]> = indices.chunks(options.micro_batch_size).collect();
    let scale = 1.0 / micro_batches.len() as f64;
    let mut total: Option<Vec<Tensor>> = None;
    let (mut loss, mut tokens) = (0.0, 0);
    for rows in &micro_batches {
        let batch = parts
            .context
            .collate(rows.iter().map(|index| &parts.train.examples[*index]));
        tokens += batch.tokens();
        let micro_loss = parts.context.loss(&batch, parts.prompts, scale)?;
        let gradients = parts.optimizer.gradients(&micro_loss.backward()?)?;
        loss += f64::from(micro_loss.to_scalar::<f32>()?);
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

fn ensure_finite(step: u64, loss: f64, grad_norm: f64) -> Result<()> {
    if loss.is_finite() && grad_norm.is_finite() {
        return Ok(());
    }
    Err(Diagnostic::job(format!("training step {step} gave loss {loss} and gradient norm {grad_norm}"))
        .note("the virtual tokens of the step before are unharmed; nothing was saved from this one")
        .hint("lower `prompt_learning.model.optim.lr`, or run with `prompt_learning.trainer.precision=32`")
        .into())
}

/// Validates, and keeps the state where no earlier one was better. Returns the loss and whether it improved enough.
fn validate_and_keep_best(
    parts: &mut FitParts<'_>,
    options: &FitOptions,
    state: &mut TrainState,
) -> Result<(f64, bool)> {
    let started = Instant::now();
    let dataset = parts.validation.context("validation without data")?;
    let val_loss = validation_loss(
        &parts.context,
        parts.prompts,
        dataset,
        options.validation_batch_size,
        options.most_validation_batches,
    )?;
    let best = state.best.is_none_or(|(best, _)| val_loss < best);
    let min_delta = options.early_stopping.map_or(0.0, |early| early.min_delta);
    let improved = state
        .best
        .is_none_or(|(best, _)| val_loss < best - min_delta);
    state.validations_without_improvement = if improved {
        0
    } else {
        state.validations_without_improvement + 1
    };
    if best {
        state.best = Some((val_loss, state.global_step));
        parts
            .checkpoints
            .save(&parts.checkpoints.best(), state, &parts.optimizer.state()?)?;
    }
    if let Some(keep) = &options.keep {
        let epoch = state.consumed_samples / parts.sampler.samples_per_epoch();
        let name = checkpoint_name(&keep.filename, val_loss, state.global_step, epoch);
        let tensors = parts.optimizer.state()?;
        parts
            .checkpoints
            .keep(state, &tensors, val_loss, name, keep.most)?;
    }
    let metrics = ValidationMetrics {
        step: state.global_step,
        val_loss,
        validation_seconds: started.elapsed().as_secs_f64(),
        best,
    };
    for sink in &mut *parts.sinks {
        sink.validation(&metrics)?;
    }
    Ok((val_loss, improved))
}

/// Mean over batches (the first `most_batches` of them) of each batch's mean loss, in file order. The prompts are made into plain tensors first, so that
/// nothing is kept for a backward pass.
pub fn validation_loss(
    context: &LossContext<'_>,
    prompts: &VirtualPrompts,
    dataset: &Dataset,
    batch_size: usize,
    most_batches: Option<usize>,
) -> Result<f64> {
    let frozen = VirtualPrompts::frozen(prompts.table()?);
    let (mut sum, mut batches) = (0.0, 0usize);
    let all = dataset.examples.chunks(batch_size.max(1));
    for rows in all.take(most_batches.unwrap_or(usize::MAX)) {
        let batch = context.collate(rows);
        sum += f64::from(context.loss(&batch, &frozen, 1.0)?.to_scalar::<f32>()?);
        batches += 1;
    }
    ensure!(batches > 0, "the validation data have no rows");
    Ok(sum / batches as f64)
}
