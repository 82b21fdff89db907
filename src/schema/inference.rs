//! `model.inference`, `evaluation.inference`: how text is generated, under NeMo's keys and a few of our own.

use serde::{Deserialize, Serialize};

use super::{Problems, lenient};
use crate::diag::Diagnostic;

/// How text is generated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InferenceSection {
    /// Always the likeliest token.
    pub greedy: bool,
    /// Choose among so many likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Choose among the likeliest tokens that hold this much probability.
    pub top_p: f64,
    /// Divides the logits.
    pub temperature: f64,
    /// Most tokens generated for a row.
    pub tokens_to_generate: usize,
    /// Above 1 makes tokens less likely that were used already (in a GPT's prompt as well).
    pub repetition_penalty: f64,
    /// Fewest tokens generated for a row.
    pub min_tokens_to_generate: usize,
    /// A GPT's prompt begins with the beginning-of-text token; null: as it was in tuning.
    #[serde(rename = "add_BOS")]
    pub add_bos: Option<bool>,
    /// Texts that end an answer, besides the end-of-text token; no part of it.
    #[serde(deserialize_with = "lenient::one_or_many")]
    pub end_strings: Vec<String>,
    /// Write the log-probability of each answer.
    pub compute_logprob: bool,
    /// Not used: NeMo returns the probability of every token of the vocabulary.
    pub all_probs: bool,
    /// Answers that beam search writes side by side; 1 for none (ptune's own key).
    pub num_beams: usize,
    /// Beam search: a score is divided by the length to this power (ptune's own key).
    pub length_penalty: f64,
    /// Beam search: when to stop, as in transformers (ptune's own key).
    pub early_stopping: EarlyStoppingSetting,
    /// Fixes what is drawn; null: the seed of the tuning (ptune's own key).
    pub seed: Option<u64>,
    /// Rows generated for at once.
    pub batch_size: Option<usize>,
}

/// `inference.early_stopping`: False, True or `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EarlyStoppingSetting {
    /// Whether to stop at as many finished answers as beams.
    Flag(bool),
    /// Only when no beam could win any more.
    Word(Never),
}

/// The word `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Never {
    /// The word.
    Never,
}

impl Default for InferenceSection {
    fn default() -> Self {
        Self {
            greedy: true,
            top_k: 0,
            top_p: 0.9,
            temperature: 1.0,
            tokens_to_generate: 30,
            repetition_penalty: 1.0,
            min_tokens_to_generate: 0,
            add_bos: None,
            end_strings: vec![],
            compute_logprob: false,
            all_probs: false,
            num_beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStoppingSetting::Flag(false),
            seed: None,
            batch_size: None,
        }
    }
}

/// What stands before the names of a command's options.
const OPTIONS: &str = "--";

/// The option of `ptune generate` that gives `key`.
fn option_of(key: &str) -> String {
    match key {
        "tokens_to_generate" => "max-tokens".to_owned(),
        "min_tokens_to_generate" => "min-tokens".to_owned(),
        "end_strings" => "stop".to_owned(),
        other => other.replace('_', "-"),
    }
}

impl InferenceSection {
    /// Checks what the options of `ptune generate` say.
    ///
    /// # Errors
    /// A [`Diagnostic`] with everything that is wrong, in the words of these options.
    pub fn check(&self) -> Result<(), Diagnostic> {
        let mut problems = Problems::of("");
        self.validate(&mut problems, OPTIONS);
        problems.into_result()
    }

    /// Adds what is wrong; `prefix` is the section's key with a dot, or [`OPTIONS`].
    pub(super) fn validate(&self, problems: &mut Problems, prefix: &str) {
        let by_options = prefix == OPTIONS;
        let mut require = |holds: bool, key: &str, message: &str| {
            let key = if by_options {
                option_of(key)
            } else {
                key.to_owned()
            };
            problems.require(holds, &format!("{prefix}{key}"), message);
        };
        require(
            self.tokens_to_generate > 0,
            "tokens_to_generate",
            "must be at least 1",
        );
        require(
            self.min_tokens_to_generate <= self.tokens_to_generate,
            "min_tokens_to_generate",
            if by_options {
                "is more than `--max-tokens`"
            } else {
                "is more than `tokens_to_generate`"
            },
        );
        require(
            self.temperature > 0.0 && self.temperature.is_finite(),
            "temperature",
            if by_options {
                "must be above 0; without it the likeliest token is taken always"
            } else {
                "must be above 0; for the likeliest token always set `greedy=True`"
            },
        );
        require(
            (0.0..=1.0).contains(&self.top_p),
            "top_p",
            "must be between 0 and 1",
        );
        require(
            self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite(),
            "repetition_penalty",
            "must be above 0; 1 changes nothing",
        );
        require(self.num_beams > 0, "num_beams", "must be at least 1");
        require(
            self.num_beams <= 1 || self.greedy,
            "num_beams",
            if by_options {
                "beam search draws nothing by chance: leave `--temperature`, `--top-k` and `--top-p` out, or the beams"
            } else {
                "beam search draws nothing by chance: set `greedy=True` with it, or 1 beam"
            },
        );
        require(
            self.length_penalty.is_finite(),
            "length_penalty",
            "must be a number",
        );
        require(
            self.batch_size != Some(0),
            "batch_size",
            "must be at least 1",
        );
        require(
            self.end_strings.iter().all(|text| !text.is_empty()),
            "end_strings",
            "holds an empty text, which would end every answer at once",
        );
    }
}
