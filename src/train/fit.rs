//! The training loop, on one page.

use std::time::Instant;

use anyhow::{Context, Result};

use super::checkpoint::TrainState;
use super::clip::gradient_norm;
use super::gradients::{Gradients, gradients};
use super::loss_scale::LossScale;
use super::metrics::StepMetrics;
use super::monitor::{Measured, Patience};
pub use super::options::{FitOptions, FitOutcome, FitParts, KeepBest, Stop, ValidationTimes};
use super::self_test;
use super::validate::validate;
pub use super::validate::{ValidationBatches, validation_loss};
use crate::diag::Diagnostic;

/// Trains from `state` until the steps are done, the time is over, nothing improves, or somebody asks to stop.
pub fn fit(
    parts: &mut FitParts<'_>,
    options: &FitOptions,
    mut state: TrainState,
) -> Result<FitOutcome> {
    forget_values_of_others(options, &mut state);
    let mut clock = Clock::new(options, &state);
    let mut stop = state
        .finished
        .then_some(Stop::Done)
        .or_else(|| clock.was_over(&state));
    while stop.is_none() && state.global_step < options.max_steps {
        let started = Instant::now();
        let step = state.global_step + 1;
        let scheduled = parts.schedule.learning_rate(state.global_step);
        let lr = parts.optimizer.learning_rate(scheduled);
        let batch = parts.sampler.batch_at(state.consumed_samples);
        parts.prompts.at_step(state.global_step);
        let rows = batch.of_rank(parts.communicator.rank(), parts.communicator.world_size());
        let scale = options
            .loss_scale
            .map(|options| *state.loss_scale.get_or_insert(LossScale::new(&options)));
        let factor = scale.map_or(1.0, |scale| scale.scale);
        let mut reached = (step == 1).then(self_test::Sizes::default);
        let micro_batch_size = options.micro_batch_size;
        let outcome = gradients(parts, &rows, micro_batch_size, factor, reached.as_mut())
            .with_context(|| format!("in training step {step}"))?;
        if let Some(reached) = reached {
            self_test::gradient_reaches_every_virtual_token(
                &parts.context,
                parts.prompts,
                parts.new_tasks,
                parts.train,
                factor,
                reached,
            )?;
        }
        let (loss, tokens) = (outcome.loss, outcome.tokens);
        let grad_norm = gradient_norm(&outcome.gradients)? / factor;
        let skipped = update(parts, options, &mut state, outcome, grad_norm, lr, &rows)?;

        state.global_step = step;
        state.consumed_samples = batch.consumed_samples;
        let metrics = StepMetrics {
            step,
            loss,
            lr,
            grad_norm,
            tokens,
            step_seconds: started.elapsed().as_secs_f64(),
            epoch: batch.epoch,
            consumed_samples: state.consumed_samples,
            loss_scale: scale.map(|scale| scale.scale),
            skipped,
        };
        stop = clock.look(&mut state);
        let last = step == options.max_steps || stop == Some(Stop::MaxTime);
        let log = step.is_multiple_of(options.log_every_n_steps.max(1)) || step == 1 || last;
        for sink in &mut *parts.sinks {
            sink.step(&metrics, log)?;
        }

        let due = options.validate.is_due(step);
        if due || last {
            let measured = validate(parts, options, &mut state, &of_training(&metrics))?;
            if let Some(why) = stands_still(options, &mut state, &measured) {
                tracing::info!("training stops early after step {step}: {why}");
                stop = Some(Stop::EarlyStopping);
            }
        }
        if stop.is_none_or(|stop| !stop.is_final())
            && let Some(signal) = parts.shutdown.requested()
        {
            stop = Some(Stop::Signal(signal));
        }
        // Who gives a run more time later may go on with it.
        state.finished = step == options.max_steps || stop == Some(Stop::EarlyStopping);
        save(parts, options, &state, due, stop, &mut clock)?;
    }
    for sink in &mut *parts.sinks {
        sink.finish()?;
    }
    // A signal that comes with the last step stops nothing.
    let stop = stop
        .filter(|stop| stop.is_final() || !state.finished)
        .unwrap_or(Stop::Done);
    let mut val_loss = state.val_loss;
    if options.save_best_model
        && stop.is_final()
        && let Some((best, step)) = state.best
        && let Some((of_best, tensors)) = parts.checkpoints.load(&parts.checkpoints.best())?
    {
        tracing::info!(
            "taking the virtual tokens of step {step}, {} {best:.4}",
            options.monitor.name
        );
        if of_best.global_step != step {
            // Killed between two files, and gone on with on a machine that computes otherwise.
            tracing::warn!(
                "the best state is that of step {} now: a killed run came that far and was not repeated bit by bit",
                of_best.global_step
            );
        }
        parts.optimizer.restore_parameters(&tensors)?;
        val_loss = of_best.val_loss;
    }
    Ok(FitOutcome {
        stop,
        state,
        val_loss,
    })
}

/// Values of another name than what is monitored now say nothing about it.
fn forget_values_of_others(options: &FitOptions, state: &mut TrainState) {
    let early = options.early_stopping.as_ref();
    let names = (
        options.monitor.name.clone(),
        early.map_or(String::new(), |early| early.monitor.name.clone()),
    );
    if state.monitored.0 != names.0 {
        state.best = None;
        state.kept.clear();
    }
    if state.monitored.1 != names.1 {
        state.early_stopping_best = None;
        state.validations_without_improvement = 0;
    }
    state.monitored = names;
}

/// Gives the gradient to the optimizer, and tells whether it had to be left out because it does not fit its number
/// format.
///
/// # Errors
/// Where loss or gradient are not finite for another reason.
fn update(
    parts: &mut FitParts<'_>,
    options: &FitOptions,
    state: &mut TrainState,
    outcome: Gradients,
    grad_norm: f64,
    lr: f64,
    rows: &[usize],
) -> Result<bool> {
    let is_finite = outcome.loss.is_finite() && grad_norm.is_finite();
    let mut factor = 1.0;
    if let (Some(options), Some(scale)) = (&options.loss_scale, &mut state.loss_scale) {
        factor = scale.scale;
        if is_finite {
            scale.good(options);
        } else if scale.overflow() {
            return Ok(true);
        }
    }
    if !is_finite {
        let mut diagnostic = Diagnostic::job(format!(
            "training step {} gave loss {} and gradient norm {grad_norm}",
            state.global_step + 1,
            outcome.loss
        ));
        match self_test::explain(parts, rows, options.micro_batch_size) {
            Ok(notes) => {
                for note in notes {
                    diagnostic = diagnostic.note(note);
                }
            }
            Err(error) => tracing::debug!("looking for the layer: {error:#}"),
        }
        return Err(diagnostic
            .note("the virtual tokens of the step before are unharmed; nothing was saved from this one")
            .hint("lower `prompt_learning.model.optim.lr`, or run with `prompt_learning.trainer.precision=32`")
            .into());
    }
    let (gradients, factor) = options.clip.apply(outcome.gradients, factor, grad_norm)?;
    parts.optimizer.step(&gradients, factor, lr)?;
    Ok(false)
}

/// What a step measured, under the names that can be monitored.
fn of_training(metrics: &StepMetrics) -> Measured {
    Measured::from([
        ("reduced_train_loss".to_owned(), metrics.loss),
        ("lr".to_owned(), metrics.lr),
        ("grad_norm".to_owned(), metrics.grad_norm),
    ])
}

/// Why training shall stop early, if it shall.
fn stands_still(
    options: &FitOptions,
    state: &mut TrainState,
    measured: &Measured,
) -> Option<String> {
    let early = options.early_stopping.as_ref()?;
    let mut patience = Patience {
        best: state.early_stopping_best,
        waited: state.validations_without_improvement,
    };
    let why = early.look(measured, &mut patience);
    state.early_stopping_best = patience.best;
    state.validations_without_improvement = patience.waited;
    why
}

/// Saves the state where it is time for that.
fn save(
    parts: &mut FitParts<'_>,
    options: &FitOptions,
    state: &TrainState,
    validated: bool,
    stop: Option<Stop>,
    clock: &mut Clock,
) -> Result<()> {
    let asked = clock.saved.elapsed().as_secs_f64() >= options.save_every_seconds
        || options
            .save_every_n_steps
            .is_some_and(|steps| state.global_step.is_multiple_of(steps));
    let to_go_on = stop.is_some_and(|stop| !stop.is_final());
    let ends = state.finished || stop.is_some();
    if to_go_on || options.checkpoints && (ends || validated || asked) {
        for sink in &mut *parts.sinks {
            sink.persist()?;
        }
        let path = parts.checkpoints.last();
        let tensors = parts.optimizer.state()?;
        parts.checkpoints.save(&path, state, &tensors)?;
        clock.saved = Instant::now();
    }
    Ok(())
}

/// The time that a run has.
struct Clock {
    started: Instant,
    /// When the state was last saved.
    saved: Instant,
    /// Seconds spent by earlier processes.
    before: f64,
    all: Option<f64>,
    this_run: Option<f64>,
}

impl Clock {
    fn new(options: &FitOptions, state: &TrainState) -> Self {
        Self {
            started: Instant::now(),
            saved: Instant::now(),
            before: state.elapsed_seconds.unwrap_or(0.0),
            all: options.max_seconds,
            this_run: options.max_seconds_per_run,
        }
    }

    /// Whether earlier processes used all of it.
    fn was_over(&self, state: &TrainState) -> Option<Stop> {
        let (spent, all) = (state.elapsed_seconds?, self.all?);
        (spent >= all).then_some(Stop::MaxTime)
    }

    /// Writes down the time spent, where it is limited, and says whether it is over.
    fn look(&self, state: &mut TrainState) -> Option<Stop> {
        let here = self.started.elapsed().as_secs_f64();
        if let Some(all) = self.all {
            let spent = self.before + here;
            state.elapsed_seconds = Some(spent);
            if spent >= all {
                tracing::info!(
                    "`trainer.max_time` is over after step {}",
                    state.global_step
                );
                return Some(Stop::MaxTime);
            }
        }
        if self.this_run.is_some_and(|limit| here >= limit) {
            return Some(Stop::RunTime);
        }
        None
    }
}
