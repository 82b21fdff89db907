//! `prompt_learning.run`: what the job is called and where it goes, and the verbs a job script can call.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Problems, lenient};

/// The stages that run as jobs; the word after `ptune worker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerJob {
    /// Data files from their published form to jsonl.
    DataPreparation,
    /// A training checkpoint to one archive.
    Conversion,
    /// Tuning virtual tokens.
    PromptLearning,
    /// Generating and scoring.
    Evaluation,
}

impl WorkerJob {
    /// Every job, in the order a chain usually has them.
    pub const ALL: [Self; 4] = [
        Self::DataPreparation,
        Self::Conversion,
        Self::PromptLearning,
        Self::Evaluation,
    ];

    /// The name used in `stages=[…]`, as a key of the configuration and as a verb.
    pub fn name(self) -> &'static str {
        match self {
            Self::DataPreparation => "data_preparation",
            Self::Conversion => "conversion",
            Self::PromptLearning => "prompt_learning",
            Self::Evaluation => "evaluation",
        }
    }

    /// The job of that name; `-` may stand for `_`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.replace('-', "_");
        Self::ALL.into_iter().find(|job| job.name() == name)
    }
}

/// `prompt_learning.run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunSection {
    /// Name of the job.
    #[serde(deserialize_with = "lenient::text")]
    pub name: String,
    /// Slurm time limit; the text is handed on as it is.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub time_limit: Option<String>,
    /// Slurm dependency of the first stage.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub dependency: Option<String>,
    /// Folder name of the conversion stage's results.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub convert_name: Option<String>,
    /// Name of the base model, which names the folder of everything about it.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub model_train_name: Option<String>,
    /// The conversion stage's results folder.
    pub convert_dir: Option<PathBuf>,
    /// Name of the task; `squad` is one that ptune prepares data for.
    #[serde(deserialize_with = "lenient::text")]
    pub task_name: String,
    /// Everything the job writes goes here.
    pub results_dir: PathBuf,
    /// Number of nodes; `trainer.num_nodes` where it is not given.
    pub nodes: Option<usize>,
    /// Tasks on each node; `trainer.devices` where it is not given.
    pub ntasks_per_node: Option<usize>,
}

impl Default for RunSection {
    fn default() -> Self {
        Self {
            name: "prompt_learning".into(),
            time_limit: None,
            dependency: None,
            convert_name: None,
            model_train_name: None,
            convert_dir: None,
            task_name: String::new(),
            results_dir: "results".into(),
            nodes: None,
            ntasks_per_node: None,
        }
    }
}

impl RunSection {
    pub(super) fn validate(&self, problems: &mut Problems) {
        check_job_name(problems, &self.name);
        check_counts(problems, self.nodes, self.ntasks_per_node);
    }
}

/// A job name becomes part of file names.
pub(super) fn check_job_name(problems: &mut Problems, name: &str) {
    problems.require(!name.trim().is_empty(), "run.name", "is empty");
    problems.require(
        !name.contains(['/', '\0', '\n']),
        "run.name",
        format!("`{name}` cannot be part of a file name"),
    );
}

pub(super) fn check_counts(
    problems: &mut Problems,
    nodes: Option<usize>,
    ntasks_per_node: Option<usize>,
) {
    problems.require(nodes != Some(0), "run.nodes", "must be at least 1");
    problems.require(
        ntasks_per_node != Some(0),
        "run.ntasks_per_node",
        "must be at least 1",
    );
}
