//! `model.data`: what is trained on.

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
    /// Keep tokenised rows for later runs over the same ones (ptune's own key).
    pub cache: bool,
    /// Where; `ptune/rows` below `$XDG_CACHE_HOME` or `~/.cache` where it is not given, and then only rows that took
    /// longer than a second (ptune's own key).
    pub cache_dir: Option<PathBuf>,
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
            cache: true,
            cache_dir: None,
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
