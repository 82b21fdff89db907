//! The prompt table: the finished virtual tokens of every task, by task name.
//!
//! This is what a prompt `.nemo` holds (generation A of NeMo prompt learning). Entries are plain tensors: adding a task
//! never touches another one.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use indexmap::IndexMap;

use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;

/// Task name to virtual token embeddings [V, H], f32, in the order in which tasks were added.
#[derive(Clone, Debug, Default)]
pub struct PromptTable {
    entries: IndexMap<String, Tensor>,
}

impl PromptTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces the entry of `task`: [V, H] in any float type, kept as f32.
    pub fn insert(&mut self, task: impl Into<String>, embeddings: &Tensor) -> Result<()> {
        let task = task.into();
        let [_, _] = *embeddings.dims() else {
            anyhow::bail!(
                "the virtual tokens of task `{task}` have shape {:?}, expected [virtual tokens, hidden size]",
                embeddings.dims()
            );
        };
        let embeddings = embeddings.detach().to_dtype(DType::F32)?.contiguous()?; // [V, H]
        self.entries.insert(task, embeddings);
        Ok(())
    }

    /// The virtual tokens of `task`, [V, H].
    pub fn get(&self, task: &str) -> Result<&Tensor, Diagnostic> {
        self.entries.get(task).ok_or_else(|| {
            let names: Vec<&str> = self.tasks().collect();
            let missing = Diagnostic::configuration(format!(
                "the prompt table has no task `{task}`"
            ))
            .note(format!(
                "it holds: {}",
                if names.is_empty() {
                    "nothing".to_owned()
                } else {
                    names.join(", ")
                }
            ));
            match did_you_mean(task, names.iter().copied()) {
                Some(near) => missing.hint(format!("did you mean `{near}`?")),
                None => missing,
            }
        })
    }

    /// Whether `task` has an entry.
    pub fn contains(&self, task: &str) -> bool {
        self.entries.contains_key(task)
    }

    /// Task names in the order in which they were added.
    pub fn tasks(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Task names and virtual tokens [V, H].
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries
            .iter()
            .map(|(task, embeddings)| (task.as_str(), embeddings))
    }

    /// The same table on another device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let mut moved = Self::new();
        for (task, embeddings) in self.iter() {
            moved.insert(task, &embeddings.to_device(device)?)?;
        }
        Ok(moved)
    }
}
