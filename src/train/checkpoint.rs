//! Checkpoints of a run: everything needed to go on as if it had not stopped.
//!
//! A checkpoint is one safetensors file (parameters and optimizer moments) whose metadata hold the [`TrainState`] as
//! JSON. Files are written whole or not at all, so a run killed while saving still finds the previous one.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::loss_scale::LossScale;
use super::monitor::{Measured, Monitor};
use super::resume::RunSettings;
use crate::diag::{Diagnostic, Location};
use crate::sys::atomic_file;
use crate::sys::process::host_name;

/// Where a run stands, apart from its tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// Optimizer steps done.
    pub global_step: u64,
    /// Examples seen; with the seed this gives the order of all that follow.
    pub consumed_samples: u64,
    /// Best value of what is monitored so far and the step it was reached at.
    pub best: Option<(f64, u64)>,
    /// Validations since the best one that counted, for early stopping.
    pub validations_without_improvement: u64,
    /// Names of what `best` and `early_stopping_best` are values of.
    #[serde(default)]
    pub monitored: (String, String),
    /// What was best for early stopping.
    #[serde(default)]
    pub early_stopping_best: Option<f64>,
    /// Loss of the last validation.
    #[serde(default)]
    pub val_loss: Option<f64>,
    /// Half precision: the factor of the loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// Time spent, where it is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_seconds: Option<f64>,
    /// Whether training came to its end (all steps done, time over or early stopping).
    pub finished: bool,
    /// Steps that the run was to have.
    #[serde(default)]
    pub max_steps: u64,
    /// What the run is made of; see [`super::resume`].
    #[serde(default)]
    pub settings: RunSettings,
    /// Validated states that are kept under names of their own: monitored value and file name, best first.
    #[serde(default)]
    pub kept: Vec<(f64, String)>,
}

/// The checkpoints of one run.
#[derive(Clone, Debug)]
pub struct CheckpointFolder {
    folder: PathBuf,
}

/// Holds a checkpoint folder, see [`CheckpointFolder::own`].
#[derive(Debug)]
pub struct Ownership {
    _file: fs_err::File,
}

const STATE_KEY: &str = "ptune.train_state";
/// Name of the file that says who works in the folder.
const LOCK: &str = "in_use";

impl CheckpointFolder {
    /// A folder that need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// Makes the folder this run's alone until the result is dropped, also where the process is killed. Waits at most
    /// `patience` for another one to end. Then removes what killed predecessors left half-written in it.
    ///
    /// # Errors
    /// A [`Diagnostic`] where another process holds it. File systems that know no locks let everybody in.
    pub fn own(&self, patience: Duration) -> Result<Ownership> {
        fs_err::create_dir_all(&self.folder)?;
        let path = self.folder.join(LOCK);
        let mut options = fs_err::OpenOptions::new();
        let mut file = options.create(true).append(true).open(&path)?;
        let started = Instant::now();
        loop {
            match file.file().try_lock() {
                Ok(()) => break,
                Err(std::fs::TryLockError::WouldBlock) if started.elapsed() >= patience => {
                    let owner = fs_err::read_to_string(&path).unwrap_or_default();
                    let mut diagnostic =
                        Diagnostic::job("another process is training in this results folder")
                            .at(Location::file(self.folder.display()));
                    if !owner.is_empty() {
                        diagnostic = diagnostic.note(format!("it is {owner}"));
                    }
                    return Err(diagnostic
                        .hint("wait for its end, or give this run its own folder with `prompt_learning.run.results_dir=…`")
                        .into());
                }
                Err(std::fs::TryLockError::WouldBlock) => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(std::fs::TryLockError::Error(error)) => {
                    tracing::debug!("{} cannot be locked: {error}", path.display());
                    break;
                }
            }
        }
        let host = host_name().map_or(String::new(), |host| format!(" on {host}"));
        let owner = format!("process {}{host}", std::process::id());
        // For the message above alone.
        let _ = file.file().set_len(0);
        let _ = file.write_all(owner.as_bytes());
        atomic_file::remove_leftovers(&self.folder, None);
        Ok(Ownership { _file: file })
    }

    /// Moves the checkpoints of an earlier run, where there are any, to a folder `run_N` beside them, so that this run is
    /// never resumed from them.
    pub fn put_aside(&self) -> Result<()> {
        // Without it there is nothing to go on with: a run that was killed while it saved for the first time.
        if !self.last().exists() {
            return Ok(());
        }
        let Ok(entries) = fs_err::read_dir(&self.folder) else {
            return Ok(());
        };
        let old: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "safetensors"))
            .collect();
        let mut names = (0..).map(|number| self.folder.join(format!("run_{number}")));
        let aside = names
            .find(|name| !name.exists())
            .expect("there is no last number");
        fs_err::create_dir(&aside)?;
        // The state to resume from goes first: killed in between, the next start finds no half of a run.
        for path in std::iter::once(&self.last())
            .filter(|last| old.contains(last))
            .chain(old.iter().filter(|path| **path != self.last()))
        {
            let name = path.file_name().expect("an entry of a folder has a name");
            fs_err::rename(path, aside.join(name))?;
        }
        tracing::warn!("checkpoints of an earlier run went to {}", aside.display());
        Ok(())
    }

    /// The state to resume from.
    pub fn last(&self) -> PathBuf {
        self.folder.join("last.safetensors")
    }

    /// The state with the best validation result.
    pub fn best(&self) -> PathBuf {
        self.folder.join("best.safetensors")
    }

    /// Writes `state` and `tensors` to `path` in one step.
    pub fn save(
        &self,
        path: &Path,
        state: &TrainState,
        tensors: &IndexMap<String, Tensor>,
    ) -> Result<()> {
        let text = with_exact_floats(serde_json::to_value(state)?).to_string();
        let metadata = HashMap::from([(STATE_KEY.to_owned(), text)]);
        let bytes = safetensors::serialize(tensors.iter(), Some(metadata))
            .with_context(|| format!("serialising checkpoint {}", path.display()))?;
        atomic_file::write(path, bytes).map_err(|error| {
            Diagnostic::job(format!(
                "the checkpoint of step {} could not be saved",
                state.global_step
            ))
            .at(Location::file(path.display()))
            .note(error.to_string())
            .note("the files that were there before are whole")
            .hint("make room for it; the same command then goes on from the last checkpoint")
            .into()
        })
    }

    /// Saves a validated state under `name` if it is among the `most` best of the run (all of them where this is
    /// nothing), and removes the file of the one that it displaces. `state.kept` says which are there.
    pub fn keep(
        &self,
        state: &mut TrainState,
        tensors: &IndexMap<String, Tensor>,
        (value, monitor): (f64, &Monitor),
        name: String,
        most: Option<usize>,
    ) -> Result<()> {
        let name = format!("{name}.safetensors");
        state.kept.retain(|(_, kept)| *kept != name);
        let place = monitor.place(value, &state.kept);
        state.kept.insert(place, (value, name.clone()));
        let displaced = match most {
            Some(most) if state.kept.len() > most => state.kept.split_off(most),
            _ => vec![],
        };
        if state.kept.iter().any(|(_, kept)| *kept == name) {
            self.save(&self.folder.join(&name), state, tensors)?;
        }
        for (_, old) in displaced.iter().filter(|(_, old)| *old != name) {
            // A user may have taken it away.
            if let Err(error) = fs_err::remove_file(self.folder.join(old)) {
                tracing::debug!("a checkpoint that is no longer kept: {error}");
            }
        }
        Ok(())
    }

    /// Reads a checkpoint; `None` where there is no such file.
    pub fn load(&self, path: &Path) -> Result<Option<(TrainState, IndexMap<String, Tensor>)>> {
        if !path.exists() {
            return Ok(None);
        }
        let bytes = fs_err::read(path)?;
        let context = || format!("reading checkpoint {}", path.display());
        let (_, metadata) =
            safetensors::SafeTensors::read_metadata(&bytes).with_context(context)?;
        let state = metadata
            .metadata()
            .as_ref()
            .and_then(|metadata| metadata.get(STATE_KEY))
            .with_context(|| format!("{} is not a ptune checkpoint", path.display()))?;
        let state: Value = serde_json::from_str(state).with_context(context)?;
        let state = serde_json::from_value(from_exact_floats(state)).with_context(context)?;
        let mut tensors: Vec<(String, Tensor)> =
            candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
                .with_context(context)?
                .into_iter()
                .collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Some((state, tensors.into_iter().collect())))
    }
}

/// What marks a number that is written as text.
const EXACT: &str = "f64:";

/// Each number with a fraction as text: what `serde_json` reads of one may differ in the last bit, and a run that goes on
/// from it would no longer be the same one.
fn with_exact_floats(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            Value::String(format!("{EXACT}{:?}", number.as_f64().unwrap_or(f64::NAN)))
        }
        other => in_parts(other, with_exact_floats),
    }
}

/// Undoes [`with_exact_floats`].
fn from_exact_floats(value: Value) -> Value {
    match value {
        Value::String(text) => match text.strip_prefix(EXACT).map(str::parse::<f64>) {
            Some(Ok(number)) => Value::from(number),
            _ => Value::String(text),
        },
        other => in_parts(other, from_exact_floats),
    }
}

fn in_parts(value: Value, change: fn(Value) -> Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(change).collect()),
        Value::Object(entries) => Value::Object(
            entries
                .into_iter()
                .map(|(key, value)| (key, change(value)))
                .collect(),
        ),
        other => other,
    }
}

/// A checkpoint's name from a pattern of PyTorch Lightning: `{val_loss:.3f}` becomes `val_loss=0.123`, `{step}`
/// `step=100`; what was not measured stays as it is written. Separators of folders become `-`.
pub fn checkpoint_name(pattern: &str, measured: &Measured, step: u64, epoch: u64) -> String {
    let mut name = String::new();
    let mut rest = pattern;
    while let Some(start) = rest.find('{') {
        let Some(length) = rest[start..].find('}') else {
            break;
        };
        name.push_str(&rest[..start]);
        let field = &rest[start + 1..start + length];
        let (key, format) = field.split_once(':').unwrap_or((field, ""));
        let digits = format.strip_prefix('.').and_then(|format| {
            format
                .trim_end_matches(['f', 'e', 'g'])
                .parse::<usize>()
                .ok()
        });
        let value = match key {
            "step" | "global_step" => Some(step.to_string()),
            "epoch" => Some(epoch.to_string()),
            _ => measured
                .get(key)
                .map(|value| format!("{value:.*}", digits.unwrap_or(2))),
        };
        match value {
            Some(value) => name.extend([key, "=", value.as_str()]),
            None => name.push_str(&rest[start..=start + length]),
        }
        rest = &rest[start + length + 1..];
    }
    name.push_str(rest);
    name.replace(['/', '\\', '\0'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::loss_scale::LossScaleOptions;

    #[test]
    fn names_are_made_as_lightning_makes_them() {
        let measured = Measured::from([
            ("val_loss".to_owned(), 0.12345),
            ("val_f1".to_owned(), 61.27),
        ]);
        let name = |pattern| checkpoint_name(pattern, &measured, 100, 3);
        assert_eq!(
            name("megatron_t5--{val_loss:.3f}-{step}"),
            "megatron_t5--val_loss=0.123-step=100"
        );
        assert_eq!(name("{epoch}/{val_loss}"), "epoch=3-val_loss=0.12");
        assert_eq!(name("{val_f1:.1f}"), "val_f1=61.3");
        assert_eq!(name("{lr} {step"), "{lr} {step");
    }

    #[test]
    fn only_the_best_are_kept_and_the_displaced_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointFolder::new(folder.path());
        let mut state = TrainState::default();
        let tensor = Tensor::new(&[1f32], &Device::Cpu).unwrap();
        let tensors = IndexMap::from([("parameter.x".to_owned(), tensor)]);
        let monitor = Monitor {
            name: "val_loss".into(),
            higher_is_better: false,
        };
        for (step, loss) in [(1, 0.5), (2, 0.3), (3, 0.4), (4, 0.9)] {
            state.global_step = step;
            checkpoints
                .keep(
                    &mut state,
                    &tensors,
                    (loss, &monitor),
                    format!("step={step}"),
                    Some(2),
                )
                .unwrap();
        }
        let mut names: Vec<String> = fs_err::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["step=2.safetensors", "step=3.safetensors"]);
        assert_eq!(state.kept.len(), 2);
        let (read, _) = checkpoints
            .load(&folder.path().join("step=2.safetensors"))
            .unwrap()
            .unwrap();
        assert_eq!(read.global_step, 2);
    }

    #[test]
    fn checkpoints_of_earlier_runs_are_put_aside_under_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointFolder::new(folder.path());
        checkpoints.put_aside().unwrap();
        for number in 0..2 {
            fs_err::write(checkpoints.last(), "").unwrap();
            fs_err::write(checkpoints.best(), "").unwrap();
            checkpoints.put_aside().unwrap();
            let aside = folder.path().join(format!("run_{number}"));
            assert_eq!(fs_err::read_dir(aside).unwrap().count(), 2);
        }
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_belongs_to_one_run_at_a_time_and_its_leftovers_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointFolder::new(folder.path().join("checkpoints"));
        let first = checkpoints.own(Duration::ZERO).unwrap();
        let refused = checkpoints.own(Duration::ZERO).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        drop(first);
        let leftover = folder
            .path()
            .join("checkpoints/.ptune-last.safetensors.a1b2c3");
        fs_err::write(&leftover, "half").unwrap();
        let _second = checkpoints.own(Duration::ZERO).unwrap();
        assert!(!leftover.exists());
    }

    #[test]
    fn every_bit_of_a_states_numbers_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointFolder::new(folder.path());
        let mut rng = crate::sys::rng::SeededRng::new(5, 0);
        let numbers = rng.normals(4000, 1.0);
        let state = TrainState {
            kept: numbers
                .chunks(2)
                .map(|pair| {
                    (
                        f64::from(pair[0]) * (1.0 + f64::from(pair[1]) / 3e8),
                        String::new(),
                    )
                })
                .collect(),
            ..TrainState::default()
        };
        checkpoints
            .save(&checkpoints.last(), &state, &IndexMap::new())
            .unwrap();
        let (read, _) = checkpoints.load(&checkpoints.last()).unwrap().unwrap();
        for (read, saved) in read.kept.iter().zip(&state.kept) {
            assert_eq!(read.0.to_bits(), saved.0.to_bits());
        }
        assert_eq!(read.kept.len(), 2000);
    }

    #[test]
    fn state_and_tensors_come_back_as_they_were_saved() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointFolder::new(folder.path());
        let state = TrainState {
            global_step: 7,
            consumed_samples: 56,
            best: Some((0.1 + 0.2, 5)),
            validations_without_improvement: 1,
            monitored: ("val_loss".into(), "val_f1".into()),
            early_stopping_best: Some(1.0 / 3.0),
            val_loss: Some(0.7),
            loss_scale: Some(LossScale::new(&LossScaleOptions::default())),
            elapsed_seconds: Some(12.5),
            finished: false,
            max_steps: 9,
            settings: RunSettings::new(),
            kept: vec![(0.3, "a.safetensors".into())],
        };
        let tensor = Tensor::new(&[[1f32, -2.5]], &Device::Cpu).unwrap();
        let tensors = IndexMap::from([("parameter.x".to_owned(), tensor)]);
        assert!(checkpoints.load(&checkpoints.last()).unwrap().is_none());
        checkpoints
            .save(&checkpoints.last(), &state, &tensors)
            .unwrap();
        let (read, read_tensors) = checkpoints.load(&checkpoints.last()).unwrap().unwrap();
        assert_eq!(read, state);
        assert_eq!(
            read_tensors["parameter.x"].to_vec2::<f32>().unwrap(),
            [[1.0, -2.5]]
        );
    }
}
