//! `model.task_templates`: how a row of data becomes a prompt with virtual tokens.

use serde::{Deserialize, Serialize};

use super::lenient;

/// One element of `model.task_templates`. The text itself is parsed and checked in `prompt::template`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskTemplateSection {
    /// The `taskname` of the rows it is for.
    #[serde(deserialize_with = "lenient::text")]
    pub taskname: String,
    /// Text with `<|VIRTUAL_PROMPT_k|>` markers and `{field}` places.
    pub prompt_template: String,
    /// Virtual tokens in all.
    pub total_virtual_tokens: usize,
    /// Virtual tokens of each marker; they add up to `total_virtual_tokens`.
    #[serde(deserialize_with = "lenient::one_or_many")]
    pub virtual_token_splits: Vec<usize>,
    /// The field that is shortened when a row is too long.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub truncate_field: Option<String>,
    /// GPT: only the answer counts for the loss. T5 always behaves so.
    #[serde(deserialize_with = "lenient::null_is_default")]
    pub answer_only_loss: bool,
    /// The field that holds the answer; it stands last in the template.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub answer_field: Option<String>,
}
