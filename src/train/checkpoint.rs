//! Checkpoints of a run: everything needed to go on as if it had not stopped.
//!
//! A checkpoint is one safetensors file (parameters and optimizer moments) whose metadata hold the [`TrainState`] as
//! JSON. Files are written whole or not at all, so a run killed while saving still finds the previous one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::sys::atomic_file;

/// Where a run stands, apart from its tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// Optimizer steps done.
    pub global_step: u64,
    /// Examples seen; with the seed this gives the order of all that follow.
    pub consumed_samples: u64,
    /// Best validation loss so far and the step it was reached at.
    pub best: Option<(f64, u64)>,
    /// Validations since the best one, for early stopping.
    pub validations_without_improvement: u64,
    /// Whether training came to its end (all steps done or early stopping).
    pub finished: bool,
    /// What must not change between a run and its resumption: seed, batch sizes, number of examples, schedule.
    pub fingerprint: String,
}

/// The checkpoints of one run.
#[derive(Clone, Debug)]
pub struct CheckpointFolder {
    folder: PathBuf,
}

const STATE_KEY: &str = "ptune.train_state";

impl CheckpointFolder {
    /// A folder that need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
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
        let metadata = HashMap::from([(STATE_KEY.to_owned(), serde_json::to_string(state)?)]);
        let bytes = safetensors::serialize(tensors.iter(), Some(metadata))
            .with_context(|| format!("serialising checkpoint {}", path.display()))?;
        atomic_file::write(path, bytes)
            .with_context(|| format!("saving checkpoint {}", path.display()))
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
        let state = serde_json::from_str(state).with_context(context)?;
        let mut tensors: Vec<(String, Tensor)> =
            candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
                .with_context(context)?
                .into_iter()
                .collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Some((state, tensors.into_iter().collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_tensors_come_back_as_they_were_saved() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointFolder::new(folder.path());
        let state = TrainState {
            global_step: 7,
            consumed_samples: 56,
            best: Some((0.1 + 0.2, 5)),
            validations_without_improvement: 1,
            finished: false,
            fingerprint: "seed 1234".into(),
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
