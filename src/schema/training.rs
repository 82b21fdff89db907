//! `model.data` and `model.optim`: what is trained on and how steps are made.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Problems, lenient};

/// `model.data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataSection {
    /// jsonl files to train on.
    #[serde(deserialize_with = "lenient::one_or_many")]
    pub train_ds: Vec<PathBuf>,
    /// jsonl files to validate on; none is allowed.
    #[serde(deserialize_with = "lenient::one_or_many")]
    pub validation_ds: Vec<PathBuf>,
    /// jsonl files to generate for.
    #[serde(deserialize_with = "lenient::one_or_many")]
    pub test_ds: Vec<PathBuf>,
    /// GPT: end of text after every row. T5: end of sequence after the encoder's input.
    pub add_eos: bool,
    /// Beginning of sequence before every row.
    pub add_bos: bool,
    /// New order in every epoch; the original shuffles whatever this says.
    pub shuffle: bool,
    /// Not used: rows are tokenised once, on all processors.
    pub num_workers: usize,
    /// Not used.
    pub pin_memory: bool,
    /// Longest row in tokens, virtual ones included; the base model's length where it is not given.
    pub max_seq_length: Option<usize>,
    /// Shorter rows are left out.
    pub min_seq_length: usize,
    /// T5: the decoder starts with the padding token (Hugging Face) rather than the beginning of sequence (NeMo); null
    /// follows the layout of the checkpoint.
    pub decoder_starts_with_pad: Option<bool>,
    /// T5: the target ends with the end of sequence rather than `<extra_id_1>`; null means yes.
    pub add_eos_to_decoder_output: Option<bool>,
    /// T5: `<extra_id_0>` after the prompt and before the answer; null follows the layout of the checkpoint (NeMo: yes,
    /// Hugging Face: no).
    pub add_sentinel_to_input: Option<bool>,
    /// T5: `<extra_id_s>`, `<extra_id_r>` or `<extra_id_x>` before the encoder's input.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub ul2_prompt_token: Option<String>,
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            train_ds: vec![],
            validation_ds: vec![],
            test_ds: vec![],
            add_eos: true,
            add_bos: false,
            shuffle: true,
            num_workers: 0,
            pin_memory: true,
            max_seq_length: None,
            min_seq_length: 1,
            decoder_starts_with_pad: None,
            add_eos_to_decoder_output: None,
            add_sentinel_to_input: None,
            ul2_prompt_token: None,
        }
    }
}

impl DataSection {
    pub(super) fn validate(&self, problems: &mut Problems) {
        if let Some(longest) = self.max_seq_length {
            problems.require(
                longest >= self.min_seq_length.max(1)
                    || !problems.knows(&["model.data.min_seq_length"]),
                "model.data.max_seq_length",
                format!("{longest} is less than `model.data.min_seq_length`"),
            );
        }
        if let Some(token) = &self.ul2_prompt_token {
            problems.require(
                matches!(
                    token.as_str(),
                    "<extra_id_s>" | "<extra_id_r>" | "<extra_id_x>"
                ),
                "model.data.ul2_prompt_token",
                format!("`{token}` is none of <extra_id_s>, <extra_id_r>, <extra_id_x>"),
            );
        }
    }
}

/// `model.optim`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptimSection {
    /// `fused_adam`, `adamw` and `adam` all mean AdamW with decoupled weight decay.
    pub name: String,
    /// Highest learning rate.
    pub lr: f64,
    /// The learning rates are in units of the root mean square of the frozen model's word embeddings, so that one
    /// setting suits models whose embeddings differ in scale (ptune's own key; for prompt tuning).
    pub lr_relative_to_embeddings: bool,
    /// Weight decay.
    pub weight_decay: f64,
    /// Decay of the first and second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// How the learning rate changes; null keeps it as it is.
    pub sched: Option<ScheduleSection>,
}

impl Default for OptimSection {
    fn default() -> Self {
        Self {
            name: "fused_adam".into(),
            lr: 1e-4,
            lr_relative_to_embeddings: false,
            weight_decay: 0.01,
            betas: [0.9, 0.98],
            eps: 1e-8,
            sched: Some(ScheduleSection::default()),
        }
    }
}

/// `model.optim.sched`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduleSection {
    /// `CosineAnnealing`.
    pub name: String,
    /// Steps of rising learning rate.
    pub warmup_steps: usize,
    /// Steps at `min_lr` at the end, as NeMo counts them.
    pub constant_steps: usize,
    /// Lowest learning rate.
    pub min_lr: f64,
    /// Not used: nothing is reduced on a plateau.
    pub monitor: String,
    /// Not used.
    pub reduce_on_plateau: bool,
    /// Step at which `min_lr` is reached; the length of the training where it is not given.
    pub max_steps: Option<usize>,
}

impl Default for ScheduleSection {
    fn default() -> Self {
        Self {
            name: "CosineAnnealing".into(),
            warmup_steps: 50,
            constant_steps: 0,
            min_lr: 0.0,
            monitor: "val_loss".into(),
            reduce_on_plateau: false,
            max_steps: None,
        }
    }
}

impl OptimSection {
    pub(super) fn validate(&self, problems: &mut Problems) {
        problems.require(
            matches!(self.name.as_str(), "fused_adam" | "adamw" | "adam"),
            "model.optim.name",
            format!(
                "`{}` is not known, expected one of fused_adam, adamw, adam",
                self.name
            ),
        );
        problems.require(
            self.lr.is_finite() && self.lr > 0.0,
            "model.optim.lr",
            format!("{} is not a positive number", self.lr),
        );
        problems.require(
            self.betas.iter().all(|beta| (0.0..1.0).contains(beta)),
            "model.optim.betas",
            "both must be at least 0 and less than 1",
        );
        problems.require(
            self.weight_decay >= 0.0,
            "model.optim.weight_decay",
            "must not be negative",
        );
        problems.require(self.eps > 0.0, "model.optim.eps", "must be positive");
        if let Some(sched) = &self.sched {
            problems.require(
                sched.name == "CosineAnnealing",
                "model.optim.sched.name",
                format!("`{}` is not known, expected CosineAnnealing", sched.name),
            );
            problems.require(
                sched.min_lr <= self.lr || !problems.knows(&["model.optim.lr"]),
                "model.optim.sched.min_lr",
                format!(
                    "{} is greater than `model.optim.lr` ({})",
                    sched.min_lr, self.lr
                ),
            );
        }
    }
}
