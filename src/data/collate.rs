//! Examples to batches: rows laid end to end, without padding.
//!
//! What is learnt is NeMo's (`collate_fn` of its prompt learning datasets). GPT: a row without its last token is the
//! input, without its first the labels; labels before the answer, or virtual ones where the whole row is learnt, do not
//! count. T5: the decoder reads its row without the last token, and every label counts. Labels that do not count are
//! not there at all, so no mask is multiplied into the loss.

use super::dataset::{Architecture, Example};

/// Rows laid end to end. `N` is the number of packed input tokens, `L` the number of labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// [N] token ids the GPT or the T5 encoder reads, virtual ones included.
    pub input_ids: Vec<u32>,
    /// Tokens of each row in `input_ids`.
    pub row_lengths: Vec<usize>,
    /// Template index of each row.
    pub row_tasks: Vec<usize>,
    /// T5: token ids the decoder reads, rows end to end; else empty.
    pub decoder_ids: Vec<u32>,
    /// T5: tokens of each row in `decoder_ids`; else empty.
    pub decoder_row_lengths: Vec<usize>,
    /// [L] index into the packed tokens of the decoder (T5) or input (GPT) whose output predicts the label.
    pub loss_positions: Vec<u32>,
    /// [L] the token to be predicted.
    pub labels: Vec<u32>,
}

impl Batch {
    /// Packs rows to learn from. `pseudo_token_ids_start` is the first virtual id.
    pub fn to_learn<'a>(
        architecture: Architecture,
        examples: impl IntoIterator<Item = &'a Example>,
        pseudo_token_ids_start: u32,
    ) -> Self {
        let mut batch = Self::default();
        for example in examples {
            match architecture {
                Architecture::Gpt => batch.push_gpt(example, pseudo_token_ids_start),
                Architecture::T5 => batch.push_t5(example),
            }
        }
        batch
    }

    /// Packs prompts to generate from; there are no labels.
    pub fn to_answer<'a>(examples: impl IntoIterator<Item = &'a Example>) -> Self {
        let mut batch = Self::default();
        for example in examples {
            batch.push_row(example.task, &example.input_ids);
        }
        batch
    }

    fn push_row(&mut self, task: usize, ids: &[u32]) {
        self.input_ids.extend_from_slice(ids);
        self.row_lengths.push(ids.len());
        self.row_tasks.push(task);
    }

    fn push_gpt(&mut self, example: &Example, pseudo_token_ids_start: u32) {
        let ids = &example.input_ids;
        let start = self.input_ids.len();
        self.push_row(example.task, &ids[..ids.len().saturating_sub(1)]);
        for (at, &label) in ids.iter().enumerate().skip(1) {
            let counts = match example.answer_start {
                Some(answer_start) => at >= answer_start,
                None => true,
            };
            // A virtual id is no word of the model, so it is never a label.
            if counts && label < pseudo_token_ids_start {
                self.loss_positions.push((start + at - 1) as u32);
                self.labels.push(label);
            }
        }
    }

    fn push_t5(&mut self, example: &Example) {
        self.push_row(example.task, &example.input_ids);
        let ids = example.decoder_ids.as_deref().unwrap_or_default();
        let start = self.decoder_ids.len();
        let read = &ids[..ids.len().saturating_sub(1)];
        self.decoder_ids.extend_from_slice(read);
        self.decoder_row_lengths.push(read.len());
        for (at, &label) in ids.iter().enumerate().skip(1) {
            self.loss_positions.push((start + at - 1) as u32);
            self.labels.push(label);
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.row_lengths.len()
    }

    /// Tokens that pass through the model: of the input, and of the decoder where there is one.
    pub fn tokens(&self) -> usize {
        self.input_ids.len() + self.decoder_ids.len()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;

    fn example(
        input_ids: &[u32],
        answer_start: Option<usize>,
        decoder_ids: Option<&[u32]>,
    ) -> Example {
        Example {
            task: 1,
            input_ids: input_ids.to_vec(),
            answer_start,
            decoder_ids: decoder_ids.map(<[u32]>::to_vec),
            answers: vec![],
            id: None,
            file: Arc::from(Path::new("rows.jsonl")),
            line: 1,
        }
    }

    #[test]
    fn a_gpt_row_predicts_its_answer_from_the_token_before_it() {
        let rows = [
            example(&[100, 5, 6, 7, 1], Some(3), None),
            example(&[100, 8, 1], Some(1), None),
        ];
        let batch = Batch::to_learn(Architecture::Gpt, &rows, 100);
        assert_eq!(batch.input_ids, [100, 5, 6, 7, 100, 8]);
        assert_eq!(batch.row_lengths, [4, 2]);
        assert_eq!(batch.loss_positions, [2, 3, 4, 5]);
        assert_eq!(batch.labels, [7, 1, 8, 1]);
    }

    #[test]
    fn learning_the_whole_row_leaves_out_virtual_labels_only() {
        let rows = [example(&[100, 101, 5, 102, 6], None, None)];
        let batch = Batch::to_learn(Architecture::Gpt, &rows, 100);
        assert_eq!(batch.input_ids, [100, 101, 5, 102]);
        assert_eq!(batch.loss_positions, [1, 3]);
        assert_eq!(batch.labels, [5, 6]);
    }

    #[test]
    fn a_t5_decoder_reads_all_but_the_last_token_and_learns_all_but_the_first() {
        let rows = [
            example(&[100, 5], None, Some(&[0, 9, 1])),
            example(&[100], None, Some(&[0, 7, 8, 1])),
        ];
        let batch = Batch::to_learn(Architecture::T5, &rows, 100);
        assert_eq!(batch.input_ids, [100, 5, 100]);
        assert_eq!(batch.decoder_ids, [0, 9, 0, 7, 8]);
        assert_eq!(batch.decoder_row_lengths, [2, 3]);
        assert_eq!(batch.loss_positions, [0, 1, 2, 3, 4]);
        assert_eq!(batch.labels, [9, 1, 7, 8, 1]);
        assert_eq!(batch.tokens(), 8);
    }
}
