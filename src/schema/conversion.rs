//! `conversion`: a training checkpoint becomes one `.nemo` archive.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Precision, Problems, Section, lenient, run};

/// The whole section: what `ptune worker conversion --config FILE` reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conversion {
    /// Name, place and scheduling of the job.
    pub run: ConversionRun,
    /// What is converted.
    pub model: ConversionModel,
}

/// `conversion.run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConversionRun {
    /// Name of the job.
    #[serde(deserialize_with = "lenient::text")]
    pub name: String,
    /// Nodes.
    pub nodes: Option<usize>,
    /// Slurm time limit.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub time_limit: Option<String>,
    /// Slurm dependency of the first stage.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub dependency: Option<String>,
    /// Tasks on each node.
    pub ntasks_per_node: Option<usize>,
    /// Folder name of this stage's results.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub convert_name: Option<String>,
    /// Name of the base model.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub model_train_name: Option<String>,
    /// Folder of the base model's training.
    pub train_dir: Option<PathBuf>,
    /// Everything the job writes goes here.
    pub results_dir: PathBuf,
    /// File name of the archive in `results_dir/results`.
    pub nemo_file_name: PathBuf,
    /// Write an archive; else a folder with the same content.
    pub pack_nemo_file: bool,
}

impl Default for ConversionRun {
    fn default() -> Self {
        Self {
            name: "convert".into(),
            nodes: None,
            time_limit: None,
            dependency: None,
            ntasks_per_node: None,
            convert_name: None,
            model_train_name: None,
            train_dir: None,
            results_dir: "results".into(),
            nemo_file_name: "megatron.nemo".into(),
            pack_nemo_file: true,
        }
    }
}

/// What a conversion writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputFormat {
    /// A `.nemo`.
    #[default]
    Nemo,
    /// A folder with `config.json` and `model.safetensors`.
    HuggingFace,
}

/// `conversion.model`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConversionModel {
    /// `gpt` or `t5` (also for mT5); `auto`, which only ptune knows, takes what the checkpoint is.
    pub model_type: String,
    /// Folder of checkpoints.
    pub checkpoint_folder: PathBuf,
    /// Name of one of them, or `latest`.
    #[serde(deserialize_with = "lenient::text")]
    pub checkpoint_name: String,
    /// Hyperparameters saved by the training.
    pub hparams_file: Option<PathBuf>,
    /// Ranks that shared each layer.
    pub tensor_model_parallel_size: usize,
    /// Ranks that shared the layers.
    pub pipeline_model_parallel_size: usize,
    /// T5: first pipeline rank of the decoder.
    pub pipeline_model_parallel_split_rank: Option<usize>,
    /// Product of the two sizes.
    pub model_parallel_size: Option<usize>,
    /// Vocabulary of a BPE or word piece tokenizer.
    pub vocab_file: Option<PathBuf>,
    /// Merges of a BPE tokenizer.
    pub merge_file: Option<PathBuf>,
    /// SentencePiece model.
    pub tokenizer_model: Option<PathBuf>,
    /// What is written.
    pub output_format: OutputFormat,
    /// Ranks that will share each layer of the `.nemo`; null: as before.
    pub output_tensor_model_parallel_size: Option<usize>,
    /// Ranks that will share its layers; null: as before.
    pub output_pipeline_model_parallel_size: Option<usize>,
    /// Number format of the weights that are written; null: each tensor as it is stored.
    pub precision: Option<Precision>,
    /// Run both models at the end and compare their logits.
    pub verify: bool,
}

impl ConversionModel {
    /// Whether `checkpoint_folder` is a whole model, which needs no file beside it, and not a training's checkpoints.
    pub fn is_whole_model(&self) -> bool {
        let path = &self.checkpoint_folder;
        path.extension().is_some_and(|end| end == "nemo")
            || path.join("config.json").is_file()
            || path.join("model_config.yaml").is_file()
    }
}

impl Default for ConversionModel {
    fn default() -> Self {
        Self {
            model_type: "auto".into(),
            checkpoint_folder: PathBuf::new(),
            checkpoint_name: "latest".into(),
            hparams_file: None,
            tensor_model_parallel_size: 1,
            pipeline_model_parallel_size: 1,
            pipeline_model_parallel_split_rank: None,
            model_parallel_size: None,
            vocab_file: None,
            merge_file: None,
            tokenizer_model: None,
            output_format: OutputFormat::Nemo,
            output_tensor_model_parallel_size: None,
            output_pipeline_model_parallel_size: None,
            precision: None,
            verify: false,
        }
    }
}

impl Section for Conversion {
    fn validate(&self, problems: &mut Problems) {
        run::check_job_name(problems, &self.run.name);
        run::check_counts(problems, self.run.nodes, self.run.ntasks_per_node);
        problems.require(
            matches!(self.model.model_type.as_str(), "auto" | "gpt" | "t5"),
            "model.model_type",
            format!(
                "`{}` is not known, expected gpt, t5 or auto",
                self.model.model_type
            ),
        );
        for (key, size) in [
            (
                "output_tensor_model_parallel_size",
                self.model.output_tensor_model_parallel_size,
            ),
            (
                "output_pipeline_model_parallel_size",
                self.model.output_pipeline_model_parallel_size,
            ),
        ] {
            problems.require(
                size.is_none_or(|size| (1..=4096).contains(&size)),
                &format!("model.{key}"),
                "expected a number of ranks from 1 to 4096",
            );
        }
    }
}
