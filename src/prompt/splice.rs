//! Puts virtual tokens among the embeddings of ordinary ones.
//!
//! In token ids a virtual token is a number at or above `pseudo_token_ids_start`: the start plus its place within its
//! task. A [`SplicePlan`] turns the packed ids of a batch into rows of the matrix [ordinary ; virtual] and gathers them
//! with one `index_select`, whose backward adds every row's gradient up in the virtual token that it came from.

use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};

use crate::model::LanguageModel;

/// Which embedding goes where, for one batch of packed rows.
#[derive(Clone, Debug)]
pub struct SplicePlan {
    /// Ids of the ordinary tokens alone, in order.
    discrete_ids: Vec<u32>,
    /// For each of the N packed positions its row in [ordinary ; virtual of each used task].
    gather: Vec<u32>,
    /// Indices of the tasks whose virtual tokens are used, in the order in which they follow the ordinary rows.
    tasks: Vec<usize>,
}

impl SplicePlan {
    /// Plans a batch of rows laid end to end.
    ///
    /// `row_tasks` names each row's task, `virtual_tokens(task)` its number of virtual tokens.
    ///
    /// # Errors
    /// When an id asks for a virtual token that its task does not have.
    pub fn new(
        input_ids: &[u32],
        row_lengths: &[usize],
        row_tasks: &[usize],
        pseudo_token_ids_start: u32,
        virtual_tokens: impl Fn(usize) -> usize,
    ) -> Result<Self> {
        ensure!(
            row_lengths.iter().sum::<usize>() == input_ids.len()
                && row_lengths.len() == row_tasks.len(),
            "row lengths do not fit the ids"
        );
        let is_virtual = |id: u32| id >= pseudo_token_ids_start;
        let discrete_ids: Vec<u32> = input_ids
            .iter()
            .copied()
            .filter(|id| !is_virtual(*id))
            .collect();
        let mut tasks: Vec<usize> = vec![];
        let mut starts: Vec<usize> = vec![];
        let mut next_start = discrete_ids.len();
        let mut gather = Vec::with_capacity(input_ids.len());
        let mut next_discrete = 0u32;
        let mut ids = input_ids.iter();
        for (length, task) in row_lengths.iter().zip(row_tasks) {
            for id in ids.by_ref().take(*length) {
                if !is_virtual(*id) {
                    gather.push(next_discrete);
                    next_discrete += 1;
                    continue;
                }
                let place = (*id - pseudo_token_ids_start) as usize;
                let count = virtual_tokens(*task);
                ensure!(
                    place < count,
                    "virtual token {place} of a task that has {count}"
                );
                let slot = tasks
                    .iter()
                    .position(|known| known == task)
                    .unwrap_or_else(|| {
                        tasks.push(*task);
                        starts.push(next_start);
                        next_start += count;
                        tasks.len() - 1
                    });
                gather.push((starts[slot] + place) as u32);
            }
        }
        Ok(Self {
            discrete_ids,
            gather,
            tasks,
        })
    }

    /// Packed positions of virtual tokens, ascending.
    pub fn virtual_positions(&self) -> Vec<u32> {
        let ordinary = self.discrete_ids.len();
        let places = (0..).zip(&self.gather);
        let of_virtual = places.filter(|&(_, &row)| row as usize >= ordinary);
        of_virtual.map(|(position, _)| position).collect()
    }

    /// The input embeddings [N, H] of the batch in the model's type; differentiable in what `virtual_embeddings` gives.
    ///
    /// `virtual_embeddings(task)` returns the virtual tokens [V, H] of a task and is asked once per task in the batch.
    pub fn embed(
        &self,
        model: &LanguageModel,
        mut virtual_embeddings: impl FnMut(usize) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut parts = vec![];
        if !self.discrete_ids.is_empty() {
            parts.push(
                model
                    .embed_tokens(&self.discrete_ids)?
                    .to_dtype(DType::F32)?,
            ); // [N ordinary, H]
        }
        for task in &self.tasks {
            parts.push(virtual_embeddings(*task)?.to_dtype(DType::F32)?); // [V, H]
        }
        ensure!(!parts.is_empty(), "a batch without tokens");
        if self.tasks.is_empty() {
            return Ok(parts.remove(0).to_dtype(model.dtype())?);
        }
        let rows = Tensor::cat(&parts, 0)?; // [N ordinary + V of each task, H]
        let gather = Tensor::new(self.gather.as_slice(), rows.device())?; // [N]
        Ok(rows.index_select(&gather, 0)?.to_dtype(model.dtype())?) // [N, H]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_two_tasks_find_their_own_virtual_tokens_in_any_place() {
        // Row 0: task 1, virtual tokens around an ordinary one. Row 1: task 0. Row 2: task 1 again.
        let ids = [100, 7, 101, 100, 8, 9, 101];
        let plan = SplicePlan::new(&ids, &[3, 2, 2], &[1, 0, 1], 100, |task| [1, 2][task]).unwrap();
        assert_eq!(plan.discrete_ids, [7, 8, 9]);
        assert_eq!(plan.tasks, [1, 0]);
        // Ordinary rows 0..3, task 1 in rows 3..5, task 0 in row 5.
        assert_eq!(plan.gather, [3, 0, 4, 5, 1, 2, 4]);
        assert_eq!(plan.virtual_positions(), [0, 2, 3, 6]);
    }

    #[test]
    fn a_virtual_token_beyond_its_task_is_refused() {
        assert!(SplicePlan::new(&[103], &[1], &[0], 100, |_| 3).is_err());
    }
}
