//! `evaluation`: generate answers and score them.
//!
//! The original has two shapes: one for GPT (everything under `model`) and one for T5 (keys at the top). Both are read
//! here, and [`Evaluation::plan`] makes one of them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    Accelerator, InferenceSection, Precision, Problems, Section, TaskTemplateSection,
    TrainerSection, lenient, run,
};

/// The whole section: what `ptune worker evaluation --config FILE` reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    /// Name, place and scheduling of the job.
    pub run: EvaluationRun,
    /// Devices and precision (T5 shape; taken for GPT too where it is given).
    pub trainer: Option<TrainerSection>,
    /// Models and data (GPT shape).
    pub model: Option<EvaluationModel>,
    /// Files (T5 shape).
    pub data: EvaluationData,
    /// How text is generated (ptune's own key for both shapes).
    pub inference: InferenceSection,
    /// Templates to use in place of those in the prompt archive (ptune's own key). With no prompt archive they are
    /// required, and hold no virtual tokens: the frozen model alone.
    #[serde(deserialize_with = "lenient::one_or_many")]
    pub task_templates: Vec<TaskTemplateSection>,
    /// Also score the frozen model without the virtual tokens (ptune's own key).
    pub compare_without_virtual_tokens: bool,
    /// Ranks that share each layer.
    pub tensor_model_parallel_size: usize,
    /// Ranks that share the layers.
    pub pipeline_model_parallel_size: usize,
    /// First pipeline rank of the decoder.
    pub pipeline_model_parallel_split_rank: Option<usize>,
    /// Product of the two sizes.
    pub model_parallel_size: Option<usize>,
    /// The frozen base model.
    pub language_model_path: Option<PathBuf>,
    /// A `tokenizer.json` in place of the base model's own (ptune's own key).
    pub tokenizer_path: Option<PathBuf>,
    /// The tuned prompt; null for none.
    pub virtual_prompt_model_file: Option<PathBuf>,
    /// One answer a line. The jsonl with all about each row stands beside it, under the same name with `.jsonl`.
    pub pred_file_path: Option<PathBuf>,
    /// All right answers of each row; the rows' own answers where it is not given.
    pub ground_truth_file_path: Option<PathBuf>,
    /// The answer is what follows the last of these in the generated text.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub split_string: Option<String>,
}

/// `evaluation.run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaluationRun {
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
    /// GPT: folder name of the results.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub eval_name: Option<String>,
    /// Name of the base model.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub model_train_name: Option<String>,
    /// T5: name of the task.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub task_name: Option<String>,
    /// GPT: name of the harness's task.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub tasks: Option<String>,
    /// Results folder of the tuning.
    pub prompt_learning_dir: Option<PathBuf>,
    /// Everything the job writes goes here.
    pub results_dir: PathBuf,
}

impl Default for EvaluationRun {
    fn default() -> Self {
        Self {
            name: "evaluation".into(),
            time_limit: None,
            dependency: None,
            nodes: None,
            ntasks_per_node: None,
            eval_name: None,
            model_train_name: None,
            task_name: None,
            tasks: None,
            prompt_learning_dir: None,
            results_dir: "results".into(),
        }
    }
}

/// `evaluation.model` of the GPT shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaluationModel {
    /// `nemo-gpt3-prompt`, `nemo-llama-prompt`.
    pub model_type: String,
    /// The tuned prompt.
    pub nemo_model: Option<PathBuf>,
    /// The frozen base model (ptune's own key; the original finds it in the archive).
    pub language_model_path: Option<PathBuf>,
    /// Ranks that share each layer.
    pub tensor_model_parallel_size: usize,
    /// Ranks that share the layers.
    pub pipeline_model_parallel_size: usize,
    /// Product of the two sizes.
    pub model_parallel_size: Option<usize>,
    /// Number format.
    pub precision: Precision,
    /// Rows generated for at once.
    pub eval_batch_size: usize,
    /// Files to generate for.
    #[serde(deserialize_with = "lenient::one_or_many")]
    pub prompt_dataset_paths: Vec<PathBuf>,
    /// Leave the virtual tokens out: the untuned model's score.
    pub disable_special_tokens: bool,
    /// One answer a line (ptune's own key).
    pub pred_file_path: Option<PathBuf>,
    /// All right answers of each row (ptune's own key).
    pub ground_truth_file_path: Option<PathBuf>,
}

impl Default for EvaluationModel {
    fn default() -> Self {
        Self {
            model_type: "nemo-gpt3-prompt".into(),
            nemo_model: None,
            language_model_path: None,
            tensor_model_parallel_size: 1,
            pipeline_model_parallel_size: 1,
            model_parallel_size: None,
            precision: Precision::default(),
            eval_batch_size: 4,
            prompt_dataset_paths: vec![],
            disable_special_tokens: false,
            pred_file_path: None,
            ground_truth_file_path: None,
        }
    }
}

/// `evaluation.data` of the T5 shape. Keys that are null follow the settings the prompt was tuned with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaluationData {
    /// Files to generate for.
    #[serde(deserialize_with = "lenient::one_or_many")]
    pub test_ds: Vec<PathBuf>,
    /// Not used.
    pub num_workers: usize,
    /// Rows generated for at once, in all ranks together.
    pub global_batch_size: usize,
    /// Rows generated for at once.
    pub micro_batch_size: usize,
    /// Longest row in tokens.
    pub max_seq_length: Option<usize>,
    /// As in `prompt_learning.model.data`.
    pub add_eos: Option<bool>,
    /// As in `prompt_learning.model.data`.
    pub add_bos: Option<bool>,
    /// As in `prompt_learning.model.data`.
    pub decoder_starts_with_pad: Option<bool>,
    /// As in `prompt_learning.model.data`.
    pub add_sentinel_to_input: Option<bool>,
}

impl Default for EvaluationData {
    fn default() -> Self {
        Self {
            test_ds: vec![],
            num_workers: 0,
            global_batch_size: 16,
            micro_batch_size: 16,
            max_seq_length: None,
            add_eos: None,
            add_bos: None,
            decoder_starts_with_pad: None,
            add_sentinel_to_input: None,
        }
    }
}

impl Default for Evaluation {
    fn default() -> Self {
        Self {
            run: EvaluationRun::default(),
            trainer: None,
            model: None,
            data: EvaluationData::default(),
            inference: InferenceSection::default(),
            task_templates: vec![],
            compare_without_virtual_tokens: false,
            tensor_model_parallel_size: 1,
            pipeline_model_parallel_size: 1,
            pipeline_model_parallel_split_rank: None,
            model_parallel_size: None,
            language_model_path: None,
            tokenizer_path: None,
            virtual_prompt_model_file: None,
            pred_file_path: None,
            ground_truth_file_path: None,
            split_string: None,
        }
    }
}

/// What an evaluation does, whichever shape its section has.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationPlan {
    /// The frozen base model; the one the prompt was tuned with where it is not given.
    pub language_model_path: Option<PathBuf>,
    /// The tuned prompt.
    pub prompt_path: Option<PathBuf>,
    /// Whether virtual tokens are put in.
    pub virtual_tokens: bool,
    /// Files to generate for.
    pub test_files: Vec<PathBuf>,
    /// All right answers of each row.
    pub ground_truth: Option<PathBuf>,
    /// One answer a line.
    pub predictions: PathBuf,
    /// Folder of `metrics.json`.
    pub log_dir: PathBuf,
    /// Rows generated for at once.
    pub batch_size: usize,
    /// Where the model runs.
    pub accelerator: Accelerator,
    /// Number format.
    pub precision: Precision,
    /// Tensor and pipeline parallel size.
    pub model_parallel: (usize, usize),
}

impl Evaluation {
    /// One plan from either shape.
    pub fn plan(&self) -> EvaluationPlan {
        let log_dir = self.run.results_dir.join("results");
        let trainer = self.trainer.clone().unwrap_or_default();
        let default_predictions = || log_dir.join("predictions.txt");
        match &self.model {
            Some(model) => EvaluationPlan {
                language_model_path: model
                    .language_model_path
                    .clone()
                    .or_else(|| self.language_model_path.clone()),
                prompt_path: model
                    .nemo_model
                    .clone()
                    .or_else(|| self.virtual_prompt_model_file.clone()),
                virtual_tokens: !model.disable_special_tokens,
                test_files: if model.prompt_dataset_paths.is_empty() {
                    self.data.test_ds.clone()
                } else {
                    model.prompt_dataset_paths.clone()
                },
                ground_truth: model
                    .ground_truth_file_path
                    .clone()
                    .or_else(|| self.ground_truth_file_path.clone()),
                predictions: model
                    .pred_file_path
                    .clone()
                    .or_else(|| self.pred_file_path.clone())
                    .unwrap_or_else(default_predictions),
                batch_size: self.inference.batch_size.unwrap_or(model.eval_batch_size),
                accelerator: trainer.accelerator,
                precision: model.precision,
                model_parallel: (
                    model.tensor_model_parallel_size,
                    model.pipeline_model_parallel_size,
                ),
                log_dir,
            },
            None => EvaluationPlan {
                language_model_path: self.language_model_path.clone(),
                prompt_path: self.virtual_prompt_model_file.clone(),
                virtual_tokens: true,
                test_files: self.data.test_ds.clone(),
                ground_truth: self.ground_truth_file_path.clone(),
                predictions: self
                    .pred_file_path
                    .clone()
                    .unwrap_or_else(default_predictions),
                batch_size: self
                    .inference
                    .batch_size
                    .unwrap_or(self.data.micro_batch_size),
                accelerator: trainer.accelerator,
                precision: trainer.precision,
                model_parallel: (
                    self.tensor_model_parallel_size,
                    self.pipeline_model_parallel_size,
                ),
                log_dir,
            },
        }
    }
}

impl Section for Evaluation {
    const TOLERATED: &'static [&'static str] =
        &["trainer.benchmark", "trainer.replace_sampler_ddp"];

    fn specimen() -> Self {
        Self {
            trainer: Some(TrainerSection::default()),
            model: Some(EvaluationModel::default()),
            task_templates: vec![TaskTemplateSection::default()],
            ..Self::default()
        }
    }

    fn validate(&self, problems: &mut Problems) {
        run::check_job_name(problems, &self.run.name);
        run::check_counts(problems, self.run.nodes, self.run.ntasks_per_node);
        let plan = self.plan();
        let gpt = self.model.is_some();
        let key = |gpt_key: &'static str, t5_key: &'static str| if gpt { gpt_key } else { t5_key };
        problems.require(
            !plan.test_files.is_empty(),
            key("model.prompt_dataset_paths", "data.test_ds"),
            "is empty: name the files to generate for",
        );
        problems.require(
            plan.language_model_path.is_some() || plan.prompt_path.is_some(),
            key("model.language_model_path", "language_model_path"),
            "is null, and there is no tuned prompt to take it from",
        );
        problems.require(
            plan.prompt_path.is_some() || !self.task_templates.is_empty(),
            key("model.nemo_model", "virtual_prompt_model_file"),
            "is null, so `task_templates` must say how rows become prompts",
        );
        problems.require(
            plan.batch_size > 0,
            key("model.eval_batch_size", "data.micro_batch_size"),
            "must be at least 1",
        );
        self.inference.validate(problems, "inference.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::read_value;

    #[test]
    fn both_shapes_make_the_same_plan() {
        let gpt: Evaluation = read_value(
            &serde_yaml::from_str(
                "{run: {name: a, results_dir: r}, model: {nemo_model: p.nemo, language_model_path: m,
                  eval_batch_size: 3, prompt_dataset_paths: d.jsonl, precision: 32}}",
            )
            .unwrap(),
            "evaluation",
        )
        .unwrap();
        let t5: Evaluation = read_value(
            &serde_yaml::from_str(
                "{run: {name: a, results_dir: r}, trainer: {precision: 32}, virtual_prompt_model_file: p.nemo,
                  language_model_path: m, data: {test_ds: [d.jsonl], micro_batch_size: 3}}",
            )
            .unwrap(),
            "evaluation",
        )
        .unwrap();
        assert_eq!(gpt.plan(), t5.plan());
        assert_eq!(
            t5.plan().predictions,
            PathBuf::from("r/results/predictions.txt")
        );
    }

    #[test]
    fn an_evaluation_without_anything_says_all_that_is_missing() {
        let error = read_value::<Evaluation>(&serde_yaml::from_str("{}").unwrap(), "evaluation")
            .unwrap_err();
        assert_eq!(error.title, "3 problems in `evaluation`");
    }
}
