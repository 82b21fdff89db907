//! `exp_manager`: where logs and checkpoints go, which checkpoints are kept.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Problems, TimeLimit, canonical_metric, lenient};

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
    /// Write event files for TensorBoard.
    pub create_tensorboard_logger: bool,
    /// Not used: TensorBoard's files stand in the log folder.
    pub summary_writer_kwargs: Option<serde_yaml::Value>,
    /// Not used: there is no Weights & Biases logger; `wandb sync` takes TensorBoard's files.
    pub create_wandb_logger: bool,
    /// Not used.
    pub wandb_logger_kwargs: WandbSection,
    /// Time for this process, `DD:HH:MM:SS`: then the state is saved, and the job can be gone on with.
    pub max_time_per_run: Option<TimeLimit>,
    /// Go on from the newest checkpoint in the log folder.
    pub resume_if_exists: bool,
    /// Start afresh where there is none; else that is an error.
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
            create_tensorboard_logger: true,
            summary_writer_kwargs: None,
            create_wandb_logger: false,
            wandb_logger_kwargs: WandbSection::default(),
            max_time_per_run: None,
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
    /// Not used: the last state is always kept, so that a stopped run can be gone on with.
    pub save_last: bool,
    /// Say what is saved; in the log it always is.
    pub verbose: bool,
    /// Name pattern of a checkpoint, with `{step}`, `{epoch}`, `{val_loss:.3f}`.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub filename: Option<String>,
    /// Tensor times pipeline parallel size.
    pub model_parallel_size: Option<usize>,
    /// Take the best checkpoint, not the last, for `model.nemo_path`.
    pub save_best_model: bool,
    /// Also save every so many steps, whatever the monitored value says.
    pub every_n_train_steps: Option<usize>,
    /// And after so much time without saving, `DD:HH:MM:SS`; ten minutes where it is not given.
    pub train_time_interval: Option<TimeLimit>,
}

impl Default for CheckpointCallbackSection {
    fn default() -> Self {
        Self {
            monitor: "val_loss".into(),
            save_top_k: 2,
            mode: "min".into(),
            save_nemo_on_train_end: false,
            save_last: true,
            verbose: false,
            filename: None,
            model_parallel_size: None,
            save_best_model: true,
            every_n_train_steps: None,
            train_time_interval: None,
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
    /// Stop where the value is no finite number.
    pub check_finite: bool,
    /// Stop as soon as the value is better than this.
    pub stopping_threshold: Option<f64>,
    /// Stop as soon as the value is worse than this.
    pub divergence_threshold: Option<f64>,
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
            check_finite: true,
            stopping_threshold: None,
            divergence_threshold: None,
        }
    }
}

impl ExpManagerSection {
    /// `measures_scores`: whether answers are generated and scored at each validation.
    pub(super) fn validate(&self, problems: &mut Problems, measures_scores: bool) {
        let checkpoints = &self.checkpoint_callback_params;
        let early = &self.early_stopping_callback_params;
        for (section, monitor, mode, is_on) in [
            (
                "checkpoint_callback_params",
                &checkpoints.monitor,
                &checkpoints.mode,
                self.create_checkpoint_callback,
            ),
            (
                "early_stopping_callback_params",
                &early.monitor,
                &early.mode,
                self.create_early_stopping_callback,
            ),
        ] {
            let key = |key: &str| format!("exp_manager.{section}.{key}");
            if !matches!(mode.as_str(), "min" | "max") {
                problems.add(&key("mode"), format!("`{mode}` is neither `min` nor `max`"));
                continue;
            }
            if !is_on {
                continue;
            }
            match canonical_metric(monitor) {
                Err(problem) => problems.add(&key("monitor"), problem),
                Ok(known) => {
                    problems.require(
                        !known.is_score || measures_scores,
                        &key("monitor"),
                        format!("`{monitor}` is measured with `model.report_validation_metric=True` alone"),
                    );
                    let right = if known.higher_is_better { "max" } else { "min" };
                    problems.require(
                        mode == right || !problems.knows(&[&key("monitor")]),
                        &key("mode"),
                        format!("`{mode}` would keep the worst `{monitor}`: must be `{right}`"),
                    );
                }
            }
        }
        problems.require(
            checkpoints.save_top_k >= -1,
            "exp_manager.checkpoint_callback_params.save_top_k",
            "must be a number of checkpoints, or -1 for all",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str, scores: bool) -> Vec<String> {
        let section: ExpManagerSection = serde_yaml::from_str(text).unwrap();
        let mut problems = Problems::of("");
        section.validate(&mut problems, scores);
        problems
            .iter()
            .map(|(key, text)| format!("{key}: {text}"))
            .collect()
    }

    #[test]
    fn what_is_monitored_must_be_measured_and_its_best_end_meant() {
        let f1 = "{checkpoint_callback_params: {monitor: val_f1, mode: max}}";
        assert_eq!(problems_of(f1, true), [""; 0]);
        assert!(problems_of(f1, false)[0].contains("report_validation_metric"));
        let wrong = "{checkpoint_callback_params: {monitor: val_f1}}";
        assert!(problems_of(wrong, true)[0].contains("must be `max`"));
        let off = "{create_checkpoint_callback: false, checkpoint_callback_params: {monitor: x}}";
        assert_eq!(problems_of(off, true), [""; 0]);
        let early = "{create_early_stopping_callback: true, early_stopping_callback_params: {monitor: val_las}}";
        assert!(problems_of(early, true)[0].contains("did you mean `val_loss`?"));
    }
}
