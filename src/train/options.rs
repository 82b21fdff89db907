//! What a run is given: numbers that shape it, what it works on, and how it ends.

use std::path::PathBuf;

use anyhow::Result;

use super::checkpoint::{CheckpointFolder, TrainState};
use super::clip::Clip;
use super::loss_scale::LossScaleOptions;
use super::metrics::MetricSink;
use super::monitor::{EarlyStopping, Measured, Monitor};
use super::optimizer::Optimizer;
use super::schedule::Schedule;
use super::step::LossContext;
use super::validate::ValidationBatches;
use crate::data::dataset::Dataset;
use crate::data::sampler::Sampler;
use crate::dist::Communicator;
use crate::prompt::{PromptTable, VirtualPrompts};
use crate::sys::shutdown::Shutdown;

/// Numbers that shape a run.
#[derive(Clone, Debug)]
pub struct FitOptions {
    /// Optimizer steps in all.
    pub max_steps: u64,
    /// Seconds of training in all, those of earlier parts of the run counted.
    pub max_seconds: Option<f64>,
    /// Seconds of training in this process; the run can be gone on with then.
    pub max_seconds_per_run: Option<f64>,
    /// Rows of one forward and backward pass.
    pub micro_batch_size: usize,
    /// How the rows of a validation are cut into batches.
    pub validation_batches: ValidationBatches,
    /// Rows of a validation, from the first.
    pub validation_rows: usize,
    /// When to validate besides at the end.
    pub validate: ValidationTimes,
    /// Steps between logged ones.
    pub log_every_n_steps: u64,
    /// How gradients are clipped.
    pub clip: Clip,
    /// Half precision: how the loss is scaled.
    pub loss_scale: Option<LossScaleOptions>,
    /// When to stop before the steps are done.
    pub early_stopping: Option<EarlyStopping>,
    /// What the best state is told by.
    pub monitor: Monitor,
    /// Whether states are saved while training. One that is told to stop is saved in any case.
    pub checkpoints: bool,
    /// Go back to the best validated state at the end.
    pub save_best_model: bool,
    /// Go on from the last checkpoint where there is one.
    pub resume_if_exists: bool,
    /// Where to start where there is none.
    pub start_from: Option<PathBuf>,
    /// Also save the last state every so many steps.
    pub save_every_n_steps: Option<u64>,
    /// And when so many seconds have passed since it was last saved.
    pub save_every_seconds: f64,
    /// Validated states to keep besides the best and the last.
    pub keep: Option<KeepBest>,
}

/// `val_check_interval` with `check_val_every_n_epoch`.
#[derive(Clone, Copy, Debug)]
pub struct ValidationTimes {
    /// Steps between two.
    pub interval: u64,
    /// Whether they are counted from the start of each epoch, as a part of it is.
    pub within_epoch: bool,
    /// Steps of an epoch.
    pub epoch_steps: u64,
    /// Only in every so manyeth epoch.
    pub every_n_epochs: u64,
}

impl ValidationTimes {
    /// Whether a validation follows step `step`, counted from 1.
    pub fn is_due(&self, step: u64) -> bool {
        let epoch_steps = self.epoch_steps.max(1);
        let epoch = step.saturating_sub(1) / epoch_steps;
        let counted = if self.within_epoch {
            step.saturating_sub(1) % epoch_steps + 1
        } else {
            step
        };
        counted.is_multiple_of(self.interval.max(1))
            && (epoch + 1).is_multiple_of(self.every_n_epochs.max(1))
    }
}

/// Keys of `checkpoint_callback_params`.
#[derive(Clone, Debug)]
pub struct KeepBest {
    /// Pattern of their names, see [`super::checkpoint::checkpoint_name`].
    pub filename: String,
    /// How many; all where this is nothing.
    pub most: Option<usize>,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All steps were done.
    Done,
    /// The watched value stood still.
    EarlyStopping,
    /// The time for all of the training is over.
    MaxTime,
    /// The time of this process is over; the state is saved and can be resumed.
    RunTime,
    /// A signal of this number asked for it; the state is saved and can be resumed.
    Signal(i32),
}

impl Stop {
    /// Whether there is nothing left to go on with.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Signal(_) | Self::RunTime)
    }
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

/// Generates answers to the validation rows with these prompts and scores them: `val_f1` … by name.
pub type Scorer<'a> = &'a mut dyn FnMut(&PromptTable) -> Result<Measured>;

/// Told the prompts of every state that is the best so far.
pub type OnBest<'a> = &'a mut dyn FnMut(&PromptTable) -> Result<()>;

/// What a run works on.
pub struct FitParts<'a> {
    /// Turns batches into losses over the frozen model.
    pub context: LossContext<'a>,
    /// Trained in place.
    pub prompts: &'a VirtualPrompts,
    /// Tasks whose virtual tokens are trained.
    pub new_tasks: &'a [String],
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
    /// Scores answers at each validation.
    pub scorer: Option<Scorer<'a>>,
    /// Told of each best state.
    pub on_best: Option<OnBest<'a>>,
    /// Where checkpoints go.
    pub checkpoints: &'a CheckpointFolder,
    /// Who is told about the run.
    pub sinks: &'a mut [Box<dyn MetricSink>],
    /// The other ranks.
    pub communicator: &'a dyn Communicator,
    /// Asks the run to stop.
    pub shutdown: Shutdown,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(times: ValidationTimes, steps: u64) -> Vec<u64> {
        (1..=steps).filter(|step| times.is_due(*step)).collect()
    }

    #[test]
    fn parts_of_an_epoch_begin_anew_with_each_and_steps_do_not() {
        let share = ValidationTimes {
            interval: 3,
            within_epoch: true,
            epoch_steps: 10,
            every_n_epochs: 1,
        };
        assert_eq!(due(share, 20), [3, 6, 9, 13, 16, 19]);
        let steps = ValidationTimes {
            within_epoch: false,
            ..share
        };
        assert_eq!(due(steps, 20), [3, 6, 9, 12, 15, 18]);
        let whole = ValidationTimes {
            interval: 10,
            every_n_epochs: 2,
            ..share
        };
        assert_eq!(due(whole, 40), [20, 40]);
    }
}
