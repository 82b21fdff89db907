//! The loss of one micro-batch.

use anyhow::{Result, ensure};
use candle_core::Tensor;

use crate::data::collate::Batch;
use crate::data::dataset::{Architecture, Example};
use crate::model::{LanguageModel, LmInputs, Rows};
use crate::prompt::{SplicePlan, VirtualPrompts};

/// What turns a [`Batch`] into a loss.
#[derive(Clone, Copy, Debug)]
pub struct LossContext<'a> {
    /// The frozen model.
    pub model: &'a LanguageModel,
    /// Names and numbers of virtual tokens of the tasks, by index.
    pub tasks: &'a [(String, usize)],
    /// Shape of the frozen model.
    pub architecture: Architecture,
    /// First id that stands for a virtual token.
    pub pseudo_token_ids_start: u32,
}

impl LossContext<'_> {
    /// Packs `examples` for this model.
    pub fn collate<'e>(&self, examples: impl IntoIterator<Item = &'e Example>) -> Batch {
        Batch::to_learn(self.architecture, examples, self.pseudo_token_ids_start)
    }

    /// Mean cross-entropy in nats over the loss positions of `batch`, times `scale`; a scalar that is differentiable in
    /// the trainable part of `prompts`.
    ///
    /// # Errors
    /// When no position of the batch has a loss.
    pub fn loss(&self, batch: &Batch, prompts: &VirtualPrompts, scale: f64) -> Result<Tensor> {
        self.loss_of(batch, &|task| prompts.embeddings(task), scale)
    }

    /// [`Self::loss`] with the virtual tokens [V, H] that `prompts` gives for the name of a task.
    ///
    /// # Errors
    /// As [`Self::loss`].
    pub fn loss_of(
        &self,
        batch: &Batch,
        prompts: &dyn Fn(&str) -> Result<Tensor>,
        scale: f64,
    ) -> Result<Tensor> {
        self.with_inputs(batch, prompts, scale, |inputs| self.model.loss(inputs))
    }

    /// The first part of the model whose result for this batch is not finite, see
    /// [`LanguageModel::first_not_finite`].
    ///
    /// # Errors
    /// As [`Self::loss`].
    pub fn first_not_finite(
        &self,
        batch: &Batch,
        prompts: &dyn Fn(&str) -> Result<Tensor>,
    ) -> Result<Option<String>> {
        self.with_inputs(batch, prompts, 1.0, |inputs| {
            self.model.first_not_finite(inputs)
        })
    }

    fn with_inputs<T>(
        &self,
        batch: &Batch,
        prompts: &dyn Fn(&str) -> Result<Tensor>,
        scale: f64,
        run: impl FnOnce(&LmInputs<'_>) -> Result<T>,
    ) -> Result<T> {
        ensure!(
            !batch.labels.is_empty(),
            "no token of this batch has a loss"
        );
        let plan = SplicePlan::new(
            &batch.input_ids,
            &batch.row_lengths,
            &batch.row_tasks,
            self.pseudo_token_ids_start,
            |task| self.tasks[task].1,
        )?;
        let embeddings = plan.embed(self.model, |task| prompts(&self.tasks[task].0))?; // [N, H]
        let rows = Rows::new(batch.row_lengths.clone());
        let decoder_rows =
            (!batch.decoder_ids.is_empty()).then(|| Rows::new(batch.decoder_row_lengths.clone()));
        let weights = vec![(scale / batch.labels.len() as f64) as f32; batch.labels.len()];
        run(&LmInputs {
            embeddings: &embeddings,
            trained_positions: Some(&plan.virtual_positions()),
            rows: &rows,
            decoder_ids: &batch.decoder_ids,
            decoder_rows: decoder_rows.as_ref(),
            loss_positions: &batch.loss_positions,
            labels: &batch.labels,
            weights: &weights,
        })
    }
}
