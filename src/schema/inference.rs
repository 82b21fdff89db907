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

/// Where a user has written the settings, whose words problems are told in.
enum Words<'a> {
    /// Under a section's key, given with a dot.
    Keys(&'a str),
    /// As options of `ptune generate`.
    Options,
}

impl Words<'_> {
    /// What the user calls `key`.
    fn name(&self, key: &str) -> String {
        match (self, key) {
            (Self::Keys(prefix), key) => format!("{prefix}{key}"),
            (Self::Options, "tokens_to_generate") => "--max-tokens".to_owned(),
            (Self::Options, "min_tokens_to_generate") => "--min-tokens".to_owned(),
            (Self::Options, "end_strings") => "--stop".to_owned(),
            (Self::Options, other) => format!("--{}", other.replace('_', "-")),
        }
    }

    /// One of two messages.
    fn choose<'m>(&self, of_keys: &'m str, of_options: &'m str) -> &'m str {
        match self {
            Self::Keys(_) => of_keys,
            Self::Options => of_options,
        }
    }
}

impl InferenceSection {
    /// Checks what the options of `ptune generate` say.
    ///
    /// # Errors
    /// A [`Diagnostic`] with everything that is wrong, in the words of these options.
    pub fn check(&self) -> Result<(), Diagnostic> {
        let mut problems = Problems::of("");
        self.problems_in(&Words::Options, &mut problems);
        problems.into_result()
    }

    /// Adds what is wrong; `prefix` is the section's key with a dot.
    pub(super) fn validate(&self, problems: &mut Problems, prefix: &str) {
        self.problems_in(&Words::Keys(prefix), problems);
    }

    fn problems_in(&self, words: &Words<'_>, problems: &mut Problems) {
        let mut require = |holds: bool, key: &str, message: &str| {
            problems.require(holds, &words.name(key), message);
        };
        require(
            self.tokens_to_generate > 0,
            "tokens_to_generate",
            "must be at least 1",
        );
        require(
            self.min_tokens_to_generate <= self.tokens_to_generate,
            "min_tokens_to_generate",
            words.choose(
                "is more than `tokens_to_generate`",
                "is more than `--max-tokens`",
            ),
        );
        require(
            self.temperature > 0.0 && self.temperature.is_finite(),
            "temperature",
            words.choose(
                "must be above 0; for the likeliest token always set `greedy=True`",
                "must be above 0; without it the likeliest token is taken always",
            ),
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
            words.choose(
                "beam search draws nothing by chance: set `greedy=True` with it, or 1 beam",
                "beam search draws nothing by chance: leave `--temperature`, `--top-k` and `--top-p` out, or the beams",
            ),
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
