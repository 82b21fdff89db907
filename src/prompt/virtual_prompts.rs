//! The virtual tokens of a run: finished ones from a table, and the ones being trained.

use anyhow::Result;
use candle_core::{Tensor, Var};
use indexmap::IndexMap;

use super::{PromptEncoder, PromptTable};

/// What is trained for the new tasks of a run.
#[derive(Debug)]
enum Trainable {
    Nothing,
    Encoder {
        encoder: Box<PromptEncoder>,
        /// Frozen word embeddings [T, H] of each new task's name.
        task_names: IndexMap<String, Tensor>,
    },
    Rows(IndexMap<String, Var>), // each [V, H]
}

/// Virtual tokens by task: trained ones for new tasks, frozen ones for existing tasks.
#[derive(Debug)]
pub struct VirtualPrompts {
    existing: PromptTable,
    trainable: Trainable,
}

impl VirtualPrompts {
    /// Finished prompts only.
    pub fn frozen(existing: PromptTable) -> Self {
        Self {
            existing,
            trainable: Trainable::Nothing,
        }
    }

    /// P-tuning: one encoder for all new tasks, told apart by their names' word embeddings [T, H].
    pub fn p_tuning(
        existing: PromptTable,
        encoder: PromptEncoder,
        task_names: IndexMap<String, Tensor>,
    ) -> Self {
        Self {
            existing,
            trainable: Trainable::Encoder {
                encoder: Box::new(encoder),
                task_names,
            },
        }
    }

    /// Prompt tuning: the first values [V, H] of each new task's virtual tokens.
    pub fn prompt_tuning(existing: PromptTable, first: &IndexMap<String, Tensor>) -> Result<Self> {
        let mut rows = IndexMap::new();
        for (task, first) in first {
            rows.insert(task.clone(), Var::from_tensor(first)?);
        }
        Ok(Self {
            existing,
            trainable: Trainable::Rows(rows),
        })
    }

    /// Begins training step `step`, counted from 0: what is drawn by chance in it depends on its number alone.
    pub fn at_step(&self, step: u64) {
        if let Trainable::Encoder { encoder, .. } = &self.trainable {
            encoder.at_step(step);
        }
    }

    /// The virtual tokens [V, H] of `task`, f32; differentiable when the task is being trained, and with the dropout of
    /// the present training step.
    pub fn embeddings(&self, task: &str) -> Result<Tensor> {
        match &self.trainable {
            Trainable::Encoder {
                encoder,
                task_names,
            } if task_names.contains_key(task) => encoder.forward_in_training(task_names.get(task)),
            Trainable::Rows(rows) if rows.contains_key(task) => Ok(rows[task].as_tensor().clone()),
            _ => Ok(self.existing.get(task)?.clone()),
        }
    }

    /// Every trainable tensor with its name, in a fixed order.
    pub fn named_parameters(&self) -> Vec<(String, Var)> {
        match &self.trainable {
            Trainable::Nothing => vec![],
            Trainable::Encoder { encoder, .. } => encoder.named_parameters(),
            Trainable::Rows(rows) => rows
                .iter()
                .map(|(task, var)| {
                    (
                        format!("prompt_table.{task}.prompt_embeddings.weight"),
                        var.clone(),
                    )
                })
                .collect(),
        }
    }

    /// Copies of the encoder's parameters by upstream name; none where no encoder is trained.
    pub fn encoder_parameters(&self) -> Result<IndexMap<String, Tensor>> {
        let Trainable::Encoder { encoder, .. } = &self.trainable else {
            return Ok(IndexMap::new());
        };
        let copies = encoder.named_parameters().into_iter();
        copies
            .map(|(name, var)| Ok((name, var.as_tensor().copy()?)))
            .collect()
    }

    /// Existing tasks untouched, followed by the new tasks as they are now.
    pub fn table(&self) -> Result<PromptTable> {
        let mut table = self.existing.clone();
        match &self.trainable {
            Trainable::Nothing => {}
            Trainable::Encoder {
                encoder,
                task_names,
            } => {
                for (task, name) in task_names {
                    // Without a head what comes out is what is trained, updated in place: the table gets its own copy.
                    table.insert(task.as_str(), &encoder.forward(Some(name))?.copy()?)?;
                }
            }
            Trainable::Rows(rows) => {
                for (task, rows) in rows {
                    table.insert(task.as_str(), &rows.as_tensor().copy()?)?;
                }
            }
        }
        Ok(table)
    }
}
