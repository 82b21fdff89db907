//! `data_preparation`: published question answering files become jsonl rows.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Problems, Section, lenient, run};

/// The whole section: what `ptune worker data_preparation --config FILE` reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataPreparation {
    /// Name, place and scheduling of the job.
    pub run: DataPreparationRun,
    /// Form of the files; `squad` is the only one.
    pub dataset: String,
    /// `taskname` of every row.
    #[serde(deserialize_with = "lenient::text")]
    pub task_name: String,
    /// Where the jsonl files go.
    pub output_dir: PathBuf,
    /// jsonl files are named `<this>_train.jsonl` and so on.
    #[serde(deserialize_with = "lenient::text")]
    pub save_name_base: String,
    /// The file with training articles, or with all of them where `train_articles` is given.
    pub train_file: PathBuf,
    /// The file with validation and test articles.
    pub dev_file: Option<PathBuf>,
    /// Split `train_file` by article: so many first ones to train, the rest to validate and test.
    pub train_articles: Option<usize>,
    /// Add the article's title as `topic`.
    pub include_topic_name: bool,
    /// Where `train_file` can be had.
    pub train_url: Option<String>,
    /// Where `dev_file` can be had.
    pub dev_url: Option<String>,
    /// SHA-256 of what `train_url` gives, in hexadecimal digits; null to take whatever comes.
    pub train_sha256: Option<String>,
    /// The same of `dev_url`.
    pub dev_sha256: Option<String>,
}

/// `data_preparation.run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataPreparationRun {
    /// Name of the job.
    #[serde(deserialize_with = "lenient::text")]
    pub name: String,
    /// Slurm time limit.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub time_limit: Option<String>,
    /// Slurm dependency of the first stage.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub dependency: Option<String>,
    /// Nodes.
    pub nodes: Option<usize>,
    /// Tasks on each node.
    pub ntasks_per_node: Option<usize>,
    /// Logs and scripts of the job go here.
    pub results_dir: PathBuf,
}

impl Default for DataPreparationRun {
    fn default() -> Self {
        Self {
            name: "data_preparation".into(),
            time_limit: None,
            dependency: None,
            nodes: None,
            ntasks_per_node: None,
            results_dir: "results".into(),
        }
    }
}

impl Default for DataPreparation {
    fn default() -> Self {
        Self {
            run: DataPreparationRun::default(),
            dataset: "squad".into(),
            task_name: "squad".into(),
            output_dir: "data/prompt_data/v1.1".into(),
            save_name_base: "squad".into(),
            train_file: "train-v1.1.json".into(),
            dev_file: None,
            train_articles: None,
            include_topic_name: false,
            train_url: None,
            dev_url: None,
            train_sha256: None,
            dev_sha256: None,
        }
    }
}

impl Section for DataPreparation {
    fn validate(&self, problems: &mut Problems) {
        run::check_job_name(problems, &self.run.name);
        run::check_counts(problems, self.run.nodes, self.run.ntasks_per_node);
        problems.require(
            self.dataset == "squad",
            "dataset",
            format!("`{}` is not known, expected squad", self.dataset),
        );
        problems.require(
            self.dev_file.is_some() != self.train_articles.is_some()
                || !problems.knows(&["dev_file", "train_articles"]),
            "dev_file",
            "give either `dev_file` or `train_articles`, so that test rows are not training rows",
        );
        problems.require(
            self.train_articles != Some(0),
            "train_articles",
            "must be at least 1",
        );
        problems.require(
            !self.save_name_base.is_empty() && !self.save_name_base.contains('/'),
            "save_name_base",
            format!("`{}` cannot begin a file name", self.save_name_base),
        );
    }
}
