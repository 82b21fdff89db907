//! `trainer`: the keys of PyTorch Lightning's trainer that prompt learning uses.

use std::fmt;
use std::path::PathBuf;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};
use serde_yaml::Value;

use super::{Problems, TimeLimit, lenient};

/// Where the model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// A CUDA device; the CPU, with a warning, where this build or machine has none.
    #[default]
    #[serde(alias = "cuda")]
    Gpu,
    /// The CPU.
    Cpu,
    /// A CUDA device where there is one.
    Auto,
}

/// Number format of the frozen model's weights and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats: `32`, `32-true`.
    Float32,
    /// IEEE half: `16`, `16-mixed`, `16-true`.
    Float16,
    /// bfloat16: `bf16`, `bf16-mixed`, `bf16-true`.
    #[default]
    BFloat16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float32 => "32",
            Self::Float16 => "16",
            Self::BFloat16 => "bf16",
        })
    }
}

impl Serialize for Precision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Float32 => serializer.serialize_u64(32),
            Self::Float16 => serializer.serialize_u64(16),
            Self::BFloat16 => serializer.serialize_str("bf16"),
        }
    }
}

impl<'de> Deserialize<'de> for Precision {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = super::lenient::text(deserializer)?;
        match text.as_str() {
            "32" | "32-true" | "fp32" => Ok(Self::Float32),
            "16" | "16-mixed" | "16-true" | "fp16" => Ok(Self::Float16),
            "bf16" | "bf16-mixed" | "bf16-true" => Ok(Self::BFloat16),
            _ => Err(D::Error::custom(format!(
                "invalid precision `{text}`, expected one of 32, 16, bf16, 16-mixed, bf16-mixed"
            ))),
        }
    }
}

/// A number of steps (written as an integer) or a share of an epoch (written as a float).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many.
    Steps(usize),
    /// That part of an epoch; 1.0 is the whole.
    Share(f64),
}

impl Amount {
    /// The number of steps this is in an epoch of `epoch_steps`, at least 1.
    pub fn steps(self, epoch_steps: usize) -> usize {
        match self {
            Self::Steps(steps) => steps.max(1),
            Self::Share(share) => ((epoch_steps as f64 * share) as usize).max(1),
        }
    }
}

impl Amount {
    /// Whether it is 0.
    pub fn is_none(self) -> bool {
        match self {
            Self::Steps(steps) => steps == 0,
            Self::Share(share) => share <= 0.0,
        }
    }
}

/// `trainer.gradient_clip_algorithm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClipAlgorithm {
    /// By the norm of the whole.
    #[default]
    Norm,
    /// Number by number.
    Value,
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Steps(steps) => serializer.serialize_u64(*steps as u64),
            Self::Share(share) => serializer.serialize_f64(*share),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if let Some(steps) = value.as_u64() {
            return Ok(Self::Steps(steps as usize));
        }
        match value {
            Value::Number(ref number) if number.is_f64() => {
                let share = number.as_f64().unwrap_or(f64::NAN);
                if (0.0..=1.0).contains(&share) {
                    Ok(Self::Share(share))
                } else {
                    Err(D::Error::custom(format!(
                        "invalid share {share}: a float is a part of an epoch, from 0.0 to 1.0; write an integer for a number of steps"
                    )))
                }
            }
            _ => Err(D::Error::custom(
                "invalid value, expected an integer (steps) or a float from 0.0 to 1.0 (part of an epoch)",
            )),
        }
    }
}

/// `prompt_learning.trainer`, `evaluation.trainer`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainerSection {
    /// Devices on each node, one task each.
    pub devices: usize,
    /// Nodes.
    pub num_nodes: usize,
    /// Where the model runs.
    pub accelerator: Accelerator,
    /// Number format.
    pub precision: Precision,
    /// Not used: loggers are chosen in `exp_manager`.
    pub logger: bool,
    /// Not used: checkpoints are chosen in `exp_manager`.
    pub enable_checkpointing: bool,
    /// Not used: the sampler is ptune's own.
    pub use_distributed_sampler: bool,
    /// Passes over the training data; -1 for no limit but `max_steps`.
    pub max_epochs: i64,
    /// Optimiser steps; -1 to derive them from the epochs.
    pub max_steps: i64,
    /// Steps between two logged losses.
    pub log_every_n_steps: usize,
    /// Steps, or part of an epoch, between two validations.
    pub val_check_interval: Amount,
    /// Validate only in every so manyeth epoch.
    #[serde(deserialize_with = "lenient::null_is_one")]
    pub check_val_every_n_epoch: usize,
    /// Global batches in an optimiser step; micro batches within one are gathered in any case.
    #[serde(deserialize_with = "lenient::null_is_one")]
    pub accumulate_grad_batches: usize,
    /// Largest norm (or number) of the gradient; 0 or null for no limit.
    pub gradient_clip_val: Option<f64>,
    /// `norm`: all of the gradient is made smaller; `value`: each number is cut off.
    #[serde(deserialize_with = "lenient::null_is_default")]
    pub gradient_clip_algorithm: ClipAlgorithm,
    /// Time for the whole training, `DD:HH:MM:SS` or a mapping of `days`, `hours`, `minutes`, `seconds`; the step at
    /// hand is finished and the prompts are saved.
    pub max_time: Option<TimeLimit>,
    /// A checkpoint of another run to start from, where the results folder has none of its own to go on from.
    pub resume_from_checkpoint: Option<PathBuf>,
    /// Part of the training data, or number of batches, in an epoch.
    pub limit_train_batches: Amount,
    /// Part of the validation data, or number of batches, in a validation.
    pub limit_val_batches: Amount,
}

impl Default for TrainerSection {
    fn default() -> Self {
        Self {
            devices: 1,
            num_nodes: 1,
            accelerator: Accelerator::default(),
            precision: Precision::default(),
            logger: false,
            enable_checkpointing: false,
            use_distributed_sampler: false,
            max_epochs: 3,
            max_steps: -1,
            log_every_n_steps: 10,
            val_check_interval: Amount::Share(1.0),
            check_val_every_n_epoch: 1,
            accumulate_grad_batches: 1,
            gradient_clip_val: Some(1.0),
            gradient_clip_algorithm: ClipAlgorithm::Norm,
            max_time: None,
            resume_from_checkpoint: None,
            limit_train_batches: Amount::Share(1.0),
            limit_val_batches: Amount::Share(1.0),
        }
    }
}

impl TrainerSection {
    /// The step limit, where one is set.
    pub fn step_limit(&self) -> Option<usize> {
        usize::try_from(self.max_steps).ok()
    }

    /// The epoch limit, where one is set.
    pub fn epoch_limit(&self) -> Option<usize> {
        usize::try_from(self.max_epochs).ok()
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        let positive = "must be at least 1";
        problems.require(self.devices > 0, "trainer.devices", positive);
        problems.require(self.num_nodes > 0, "trainer.num_nodes", positive);
        problems.require(
            self.log_every_n_steps > 0,
            "trainer.log_every_n_steps",
            positive,
        );
        problems.require(
            self.max_steps >= -1,
            "trainer.max_steps",
            "must be a number of steps, or -1 to derive them from the epochs",
        );
        problems.require(
            self.max_epochs >= -1,
            "trainer.max_epochs",
            "must be a number of epochs, or -1 for no limit",
        );
        problems.require(
            self.max_steps != -1 || self.max_epochs != -1 || self.max_time.is_some(),
            "trainer.max_epochs",
            "training would never end: set `trainer.max_epochs`, `trainer.max_steps` or `trainer.max_time`",
        );
        problems.require(
            self.accumulate_grad_batches > 0,
            "trainer.accumulate_grad_batches",
            positive,
        );
        problems.require(
            self.check_val_every_n_epoch > 0,
            "trainer.check_val_every_n_epoch",
            positive,
        );
        problems.require(
            !self.limit_train_batches.is_none(),
            "trainer.limit_train_batches",
            "leaves nothing to train on",
        );
        problems.require(
            self.gradient_clip_val.is_none_or(|value| value >= 0.0),
            "trainer.gradient_clip_val",
            "must not be negative",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_is_steps_and_a_float_a_share() {
        let read = |text: &str| serde_yaml::from_str::<Amount>(text);
        assert_eq!(read("200").unwrap(), Amount::Steps(200));
        assert_eq!(read("1").unwrap(), Amount::Steps(1));
        assert_eq!(read("1.0").unwrap(), Amount::Share(1.0));
        assert_eq!(read("0.25").unwrap().steps(10), 2);
        assert!(read("1.5").is_err());
        assert!(read("often").is_err());
    }

    #[test]
    fn every_spelling_of_a_precision_is_read_and_another_is_refused() {
        let read = |text: &str| serde_yaml::from_str::<Precision>(text);
        assert_eq!(read("bf16").unwrap(), Precision::BFloat16);
        assert_eq!(read("16-mixed").unwrap(), Precision::Float16);
        assert_eq!(read("32").unwrap(), Precision::Float32);
        assert!(read("8").unwrap_err().to_string().contains("bf16-mixed"));
    }
}
