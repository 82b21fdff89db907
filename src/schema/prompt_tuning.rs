//! `model.prompt_tuning`: first values of virtual tokens that are trained themselves.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Problems, PromptLearningModel, lenient};

/// One of `model.prompt_tuning.new_prompt_init_methods`; all but the first two are ptune's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptInitMethod {
    /// From the embeddings of a text.
    Text,
    /// From N(0, 2 / (V + H)), as NeMo draws.
    Random,
    /// From N(0, 1), as PEFT's RANDOM draws.
    Normal,
    /// Uniform in ±0.5, as Lester et al. (2021) draw.
    Uniform,
    /// From embeddings of the vocabulary's 5,000 first pieces drawn by chance (Lester et al., section 3.2).
    Vocab,
    /// From embeddings of any pieces drawn by chance, as PEFT's `SAMPLE_VOCAB` draws.
    SampleVocab,
    /// From the embeddings of the answers that the task knows, then as `vocab` (Lester et al.'s class labels).
    Labels,
    /// From a file.
    File,
    /// From tasks of `model.restore_path`.
    Task,
}

/// `model.prompt_tuning`. Every list has one entry for each of `model.new_tasks`, or is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptTuningSection {
    /// How each task starts; null leaves the choice to ptune, which takes `vocab`.
    #[serde(deserialize_with = "lenient::lower_case_list")]
    pub new_prompt_init_methods: Vec<PromptInitMethod>,
    /// The text of `text`; null where the method needs none.
    #[serde(deserialize_with = "lenient::list_with_gaps")]
    pub new_prompt_init_text: Vec<Option<String>>,
    /// The labels of `labels`; null takes the answers of the training rows, most frequent first (ptune's own key).
    #[serde(deserialize_with = "lenient::labels")]
    pub new_prompt_init_labels: Vec<Option<Vec<String>>>,
    /// The file of `file`: NumPy, a prompt `.nemo`, a PEFT folder, or a tensor of `torch.save` (ptune's own key).
    #[serde(deserialize_with = "lenient::list_with_gaps")]
    pub new_prompt_init_file: Vec<Option<PathBuf>>,
    /// The task of `task`, or several whose mean is taken; of `file` which task of it, the same name where this is null
    /// (ptune's own key).
    #[serde(deserialize_with = "lenient::list_with_gaps")]
    pub new_prompt_init_task: Vec<Option<OneOrMore>>,
}

/// A name or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// Written without brackets.
    One(String),
    /// A list.
    More(Vec<String>),
}

impl OneOrMore {
    /// The names.
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::More(names) => names,
        }
    }
}

impl PromptTuningSection {
    pub(super) fn is_unset(&self) -> bool {
        *self == Self::default()
    }

    /// How the new task number `index` starts.
    pub fn method(&self, index: usize) -> PromptInitMethod {
        let given = self.new_prompt_init_methods.get(index).copied();
        given.unwrap_or(PromptInitMethod::Vocab)
    }

    pub(super) fn validate(&self, model: &PromptLearningModel, problems: &mut Problems) {
        let key = |name: &str| format!("model.prompt_tuning.new_prompt_init_{name}");
        for (name, count) in [
            ("methods", self.new_prompt_init_methods.len()),
            ("text", self.new_prompt_init_text.len()),
            ("labels", self.new_prompt_init_labels.len()),
            ("file", self.new_prompt_init_file.len()),
            ("task", self.new_prompt_init_task.len()),
        ] {
            problems.require(
                count == 0 || count == model.new_tasks.len(),
                &key(name),
                format!(
                    "has {count} entries for {} new tasks",
                    model.new_tasks.len()
                ),
            );
        }
        for (index, method) in self.new_prompt_init_methods.iter().enumerate() {
            let (name, is_given) = match method {
                PromptInitMethod::Text => (
                    "text",
                    matches!(self.new_prompt_init_text.get(index), Some(Some(_))),
                ),
                PromptInitMethod::File => (
                    "file",
                    matches!(self.new_prompt_init_file.get(index), Some(Some(_))),
                ),
                PromptInitMethod::Task => (
                    "task",
                    matches!(self.new_prompt_init_task.get(index), Some(Some(tasks)) if !tasks.names().is_empty()),
                ),
                _ => continue,
            };
            problems.require(
                is_given,
                &key(name),
                format!("entry {index} is missing, and its method is `{name}`"),
            );
            problems.require(
                *method != PromptInitMethod::Task || model.restore_path.is_some(),
                "model.restore_path",
                format!(
                    "is null, but the method of new task {index} is `task`, which takes a task of it"
                ),
            );
        }
        for (index, labels) in self.new_prompt_init_labels.iter().enumerate() {
            problems.require(
                labels.as_ref().is_none_or(|labels| !labels.is_empty()),
                &key("labels"),
                format!("entry {index} is empty: name the labels, or null for the answers of the training rows"),
            );
        }
    }
}
