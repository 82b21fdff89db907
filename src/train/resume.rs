//! Where a run begins: at nothing, at its own last checkpoint, or at the state that another run left.
//!
//! To resume is to go on with the same run, to the bytes it would have had: what makes a run another one is refused, all
//! of it at once. What only says how long it goes on or how it is judged may change, with a word in the log. Going on
//! from a state with other settings is a run of its own, `trainer.resume_from_checkpoint`.

use std::path::Path;

use anyhow::{Context, Result};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::checkpoint::{CheckpointFolder, TrainState};
use super::optimizer::Optimizer;
use super::options::FitOptions;
use crate::diag::{Diagnostic, Location};

/// Longest value told in full.
const LONGEST: usize = 120;

/// What a run is made of: keys of the configuration and hashes of what they name, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSettings {
    /// The ptune that wrote this; another one may know other keys.
    pub version: String,
    /// Must be equal for a run to be resumed.
    pub fixed: IndexMap<String, String>,
    /// May change between a run and its resumption.
    pub free: IndexMap<String, String>,
}

impl RunSettings {
    /// The free entry that tells the rows of validation.
    pub const VALIDATION_ROWS: &'static str = "rows of model.data.validation_ds";
    /// The free entry that tells how many of them are looked at.
    pub const VALIDATION_BATCHES: &'static str = "`trainer.limit_val_batches`";

    /// Without entries.
    pub fn new() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Self::default()
        }
    }

    /// A sentence for each fixed entry that is another one in `self`, a resuming run, than in `saved`.
    fn refused(&self, saved: &Self) -> Vec<String> {
        self.differences(&self.fixed, saved, &saved.fixed)
    }

    /// What of the checkpoint at `path` shows that it is of another run, as far as `self`, which may lack entries, tells.
    ///
    /// # Errors
    /// A [`Diagnostic`] with the differences.
    pub fn check(&self, path: &Path, state: &TrainState) -> Result<(), Diagnostic> {
        let mut saved = state.settings.clone();
        saved.fixed.retain(|key, _| self.fixed.contains_key(key));
        let refused = self.refused(&saved);
        if refused.is_empty() {
            return Ok(());
        }
        Err(another_run(path, state, refused))
    }

    /// A sentence for each free entry that is another one.
    fn changed(&self, saved: &Self) -> Vec<String> {
        self.differences(&self.free, saved, &saved.free)
    }

    /// Whether validation looks at other rows than it did for `saved`.
    fn validates_otherwise_than(&self, saved: &Self) -> bool {
        [Self::VALIDATION_ROWS, Self::VALIDATION_BATCHES]
            .iter()
            .any(|key| self.free.get(*key) != saved.free.get(*key))
    }

    fn differences(
        &self,
        own: &IndexMap<String, String>,
        saved: &Self,
        other: &IndexMap<String, String>,
    ) -> Vec<String> {
        let mut keys: Vec<&String> = own.keys().collect();
        keys.extend(other.keys().filter(|key| !own.contains_key(*key)));
        keys.iter()
            .filter_map(|key| match (other.get(*key), own.get(*key)) {
                (there, here) if there == here => None,
                // A key that one of two versions does not know says nothing.
                (None, _) | (_, None) if self.version != saved.version => None,
                (there, here) => Some(format!(
                    "{key}: {} there, {} here",
                    shown(there),
                    shown(here)
                )),
            })
            .collect()
    }
}

fn shown(value: Option<&String>) -> String {
    match value {
        None => "not set".to_owned(),
        Some(text) if text.chars().count() > LONGEST => {
            let start: String = text.chars().take(LONGEST).collect();
            format!("{start}…")
        }
        Some(text) => text.clone(),
    }
}

/// Where a run begins. The optimizer is brought to that state, and checkpoints of an earlier run that this one does not
/// go on with are put aside.
///
/// # Errors
/// A [`Diagnostic`] where the folder holds another run, or a checkpoint cannot be read.
pub fn restore(
    options: &FitOptions,
    checkpoints: &CheckpointFolder,
    optimizer: &mut Optimizer,
    settings: &RunSettings,
) -> Result<TrainState> {
    let fresh = TrainState {
        settings: settings.clone(),
        max_steps: options.max_steps,
        ..TrainState::default()
    };
    let path = checkpoints.last();
    let own = if options.resume_if_exists {
        checkpoints.load(&path)?
    } else {
        None
    };
    let Some((mut state, tensors)) = own else {
        checkpoints.put_aside()?;
        return start_from(options, checkpoints, optimizer, fresh);
    };
    let refused = settings.refused(&state.settings);
    if !refused.is_empty() {
        return Err(another_run(&path, &state, refused).into());
    }
    optimizer
        .restore(&tensors, state.global_step)
        .with_context(|| format!("resuming from {}", path.display()))?;
    for change in settings.changed(&state.settings) {
        tracing::warn!("resuming with another {change}");
    }
    if settings.validates_otherwise_than(&state.settings) {
        // Values over other rows cannot be compared.
        state.best = None;
        state.kept.clear();
        state.early_stopping_best = None;
        state.validations_without_improvement = 0;
    }
    // Only a run that had made all its steps is lengthened; one that was stopped early has come to its end.
    if state.finished && state.global_step == state.max_steps {
        state.finished = state.global_step >= options.max_steps;
    }
    state.max_steps = options.max_steps;
    state.settings = settings.clone();
    tracing::info!(
        "resuming at step {} from {}",
        state.global_step,
        path.display()
    );
    Ok(state)
}

fn another_run(path: &Path, state: &TrainState, refused: Vec<String>) -> Diagnostic {
    Diagnostic::configuration("this results folder holds a checkpoint of another run")
        .at(Location::file(path.display()))
        .note(format!("it stands at step {}", state.global_step))
        .first_notes(refused)
        .hint("give this run its own folder with `prompt_learning.run.results_dir=…`")
        .hint(format!(
            "to go on from that state there, add `prompt_learning.trainer.resume_from_checkpoint={}`",
            path.display()
        ))
        .hint("or start over here with `prompt_learning.exp_manager.resume_if_exists=False`")
}

/// The state of `trainer.resume_from_checkpoint`, which another run left, or `fresh`.
fn start_from(
    options: &FitOptions,
    checkpoints: &CheckpointFolder,
    optimizer: &mut Optimizer,
    fresh: TrainState,
) -> Result<TrainState> {
    let Some(path) = &options.start_from else {
        return Ok(fresh);
    };
    let (other, tensors) = checkpoints.load(path)?.ok_or_else(|| {
        Diagnostic::configuration("the checkpoint to start from is not there")
            .at(Location::file(path.display()))
            .note("it is named by `trainer.resume_from_checkpoint`")
            .hint("prompt_learning.trainer.resume_from_checkpoint=null")
    })?;
    optimizer
        .restore(&tensors, other.global_step)
        .with_context(|| format!("starting from {}", path.display()))?;
    let differences = fresh.settings.refused(&other.settings);
    for difference in differences {
        tracing::warn!("{} was made with another {difference}", path.display());
    }
    tracing::info!(
        "starting at step {} from {}",
        other.global_step,
        path.display()
    );
    // What that run kept, and how well it did, stays that run's.
    Ok(TrainState {
        global_step: other.global_step,
        consumed_samples: other.consumed_samples,
        ..fresh
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(version: &str, entries: &[(&str, &str)]) -> RunSettings {
        RunSettings {
            version: version.to_owned(),
            fixed: entries
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            free: IndexMap::new(),
        }
    }

    #[test]
    fn every_difference_is_told_and_keys_of_other_versions_say_nothing() {
        let saved = settings("1", &[("lr", "0.1"), ("seed", "1"), ("old", "x")]);
        let same = settings("1", &[("lr", "0.2"), ("seed", "1"), ("new", "y")]);
        assert_eq!(
            same.refused(&saved),
            [
                "lr: 0.1 there, 0.2 here",
                "new: not set there, y here",
                "old: x there, not set here"
            ]
        );
        let later = RunSettings {
            version: "2".into(),
            ..same
        };
        assert_eq!(later.refused(&saved), ["lr: 0.1 there, 0.2 here"]);
        assert!(saved.refused(&saved.clone()).is_empty());
    }
}
