//! `exp_manager`: where logs and checkpoints go, which checkpoints are kept.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Problems, lenient};

/// `prompt_learning.exp_manager`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExpManagerSection {
    /// Folder of logs and checkpoints; the run's results folder where it is not given.
    pub explicit_log_dir: Option<PathBuf>,
    /// Used where `explicit_log_dir` is not given.
    pub exp_dir: Option<PathBuf>,
    /// Name of the experiment.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub name: Option<String>,
    /// Not used: there is no Weights & Biases logger.
    pub create_wandb_logger: bool,
    /// Not used.
    pub wandb_logger_kwargs: WandbSection,
    /// Go on from the newest checkpoint in the log folder.
    pub resume_if_exists: bool,
    /// Start afresh, with a note, where there is none.
    pub resume_ignore_no_checkpoint: bool,
    /// Save checkpoints while training.
    pub create_checkpoint_callback: bool,
    /// Which checkpoints are kept.
    #[serde(deserialize_with = "lenient::null_is_default")]
    pub checkpoint_callback_params: CheckpointCallbackSection,
    /// End training when the monitored value stands still.
    pub create_early_stopping_callback: bool,
    /// When that is.
    #[serde(deserialize_with = "lenient::null_is_default")]
    pub early_stopping_callback_params: EarlyStoppingSection,
}

impl Default for ExpManagerSection {
    fn default() -> Self {
        Self {
            explicit_log_dir: None,
            exp_dir: None,
            name: None,
            create_wandb_logger: false,
            wandb_logger_kwargs: WandbSection::default(),
            resume_if_exists: true,
            resume_ignore_no_checkpoint: true,
            create_checkpoint_callback: true,
            checkpoint_callback_params: CheckpointCallbackSection::default(),
            create_early_stopping_callback: false,
            early_stopping_callback_params: EarlyStoppingSection::default(),
        }
    }
}

/// `exp_manager.wandb_logger_kwargs`, kept so that configurations of the original are accepted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WandbSection {
    /// Project.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub project: Option<String>,
    /// Run.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub name: Option<String>,
}

/// `exp_manager.checkpoint_callback_params`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointCallbackSection {
    /// The value that decides which checkpoint is best.
    pub monitor: String,
    /// Number of best checkpoints kept; -1 for all, 0 for none.
    pub save_top_k: i64,
    /// `min` or `max`: which end of the monitored value is best.
    pub mode: String,
    /// Not used: `model.nemo_path` is always written at the end.
    pub save_nemo_on_train_end: bool,
    /// Name pattern of a checkpoint, with `{step}`, `{epoch}`, `{val_loss:.3f}`.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub filename: Option<String>,
    /// Tensor times pipeline parallel size.
    pub model_parallel_size: Option<usize>,
    /// Take the best checkpoint, not the last, for `model.nemo_path`.
    pub save_best_model: bool,
    /// Also save every so many steps, whatever the monitored value says.
    pub every_n_train_steps: Option<usize>,
}

impl Default for CheckpointCallbackSection {
    fn default() -> Self {
        Self {
            monitor: "val_loss".into(),
            save_top_k: 2,
            mode: "min".into(),
            save_nemo_on_train_end: false,
            filename: None,
            model_parallel_size: None,
            save_best_model: true,
            every_n_train_steps: None,
        }
    }
}

/// `exp_manager.early_stopping_callback_params`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EarlyStoppingSection {
    /// The value watched.
    pub monitor: String,
    /// `min` or `max`.
    pub mode: String,
    /// A smaller change is standing still.
    pub min_delta: f64,
    /// Validations that may stand still before training ends.
    pub patience: usize,
    /// Say so in the log.
    pub verbose: bool,
    /// Fail where the monitored value is missing.
    pub strict: bool,
}

impl Default for EarlyStoppingSection {
    fn default() -> Self {
        Self {
            monitor: "val_loss".into(),
            mode: "min".into(),
            min_delta: 0.001,
            patience: 10,
            verbose: true,
            strict: false,
        }
    }
}

impl ExpManagerSection {
    pub(super) fn validate(&self, problems: &mut Problems) {
        for (key, mode) in [
            (
                "exp_manager.checkpoint_callback_params.mode",
                &self.checkpoint_callback_params.mode,
            ),
            (
                "exp_manager.early_stopping_callback_params.mode",
                &self.early_stopping_callback_params.mode,
            ),
        ] {
            problems.require(
                matches!(mode.as_str(), "min" | "max"),
                key,
                format!("`{mode}` is neither `min` nor `max`"),
            );
        }
        problems.require(
            self.checkpoint_callback_params.save_top_k >= -1,
            "exp_manager.checkpoint_callback_params.save_top_k",
            "must be a number of checkpoints, or -1 for all",
        );
    }
}
