//! The order of rows in training: a fresh seeded shuffle for each pass, whose place is one number.
//!
//! The order depends on the seed, the number of rows and the global batch size, never on the number of ranks: each
//! rank takes its share of every global batch (every `world_size`-th row, as PyTorch's DistributedSampler), so a job
//! may go on with another number of them.

use std::ops::Range;

use crate::diag::Diagnostic;
use crate::sys::rng::SeededRng;

/// Streams of the seed from here on belong to the passes over the data.
const FIRST_STREAM: u64 = 1 << 32;

/// Which rows make up which global batch.
#[derive(Clone, Debug)]
pub struct Sampler {
    rows: usize,
    global_batch_size: usize,
    seed: u64,
    shuffle: bool,
    drop_last: bool,
    /// Global batches in a pass, where it ends before the rows do.
    most_batches: Option<usize>,
    /// The pass whose order is at hand.
    order: Option<(u64, Vec<usize>)>,
}

/// A global batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalBatch {
    /// Which pass over the data, from 0.
    pub epoch: u64,
    /// Indices of its rows.
    pub rows: Vec<usize>,
    /// Samples consumed when this batch is done, for the next call of [`Sampler::batch_at`].
    pub consumed_samples: u64,
}

impl Sampler {
    /// An order of `rows` rows in global batches. With `drop_last` what does not fill a global batch at the end of a
    /// pass is left for another pass (training); without, the last batch is smaller (validation).
    ///
    /// # Errors
    /// A [`Diagnostic`] where not one batch can be made.
    pub fn new(
        rows: usize,
        global_batch_size: usize,
        seed: u64,
        shuffle: bool,
        drop_last: bool,
    ) -> Result<Self, Diagnostic> {
        if global_batch_size == 0 {
            return Err(Diagnostic::configuration("the global batch size is 0"));
        }
        if rows == 0 || (drop_last && rows < global_batch_size) {
            return Err(Diagnostic::configuration(format!(
                "the data has {rows} usable rows, fewer than one global batch of {global_batch_size}"
            ))
            .hint(format!("model.global_batch_size={}", rows.max(1))));
        }
        Ok(Self {
            rows,
            global_batch_size,
            seed,
            shuffle,
            drop_last,
            most_batches: None,
            order: None,
        })
    }

    /// Ends every pass after `batches` global batches at most (at least one), of another order each time.
    #[must_use]
    pub fn with_most_batches(mut self, batches: usize) -> Self {
        self.most_batches = Some(batches.max(1));
        self
    }

    /// Global batches in one pass.
    pub fn batches_per_epoch(&self) -> usize {
        let batches = if self.drop_last {
            self.rows / self.global_batch_size
        } else {
            self.rows.div_ceil(self.global_batch_size)
        };
        batches.min(self.most_batches.unwrap_or(batches))
    }

    /// Samples consumed by one pass.
    pub fn samples_per_epoch(&self) -> u64 {
        let samples = self.batches_per_epoch() * self.global_batch_size;
        samples.min(self.rows) as u64
    }

    /// The global batch that follows after `consumed_samples` samples in all. A number inside a batch, from a run with
    /// another batch size, counts from there on.
    pub fn batch_at(&mut self, consumed_samples: u64) -> GlobalBatch {
        let epoch = consumed_samples / self.samples_per_epoch();
        let start = (consumed_samples % self.samples_per_epoch()) as usize;
        let end = (start + self.global_batch_size).min(self.samples_per_epoch() as usize);
        let rows = self.order_of(epoch)[start..end].to_vec();
        GlobalBatch {
            epoch,
            consumed_samples: consumed_samples + rows.len() as u64,
            rows,
        }
    }

    fn order_of(&mut self, epoch: u64) -> &[usize] {
        let is_at_hand = matches!(&self.order, Some((at_hand, _)) if *at_hand == epoch);
        if !is_at_hand {
            let mut order: Vec<usize> = (0..self.rows).collect();
            if self.shuffle {
                SeededRng::new(self.seed, FIRST_STREAM + epoch).shuffle(&mut order);
            }
            self.order = Some((epoch, order));
        }
        self.order.as_ref().map_or(&[], |(_, order)| order)
    }
}

impl GlobalBatch {
    /// The rows of one rank.
    pub fn of_rank(&self, rank: usize, world_size: usize) -> Vec<usize> {
        self.rows
            .iter()
            .copied()
            .skip(rank)
            .step_by(world_size.max(1))
            .collect()
    }
}

/// Cuts `rows` into micro-batches of `micro_batch_size`, the last one smaller where it does not divide.
pub fn micro_batches(rows: usize, micro_batch_size: usize) -> impl Iterator<Item = Range<usize>> {
    let size = micro_batch_size.max(1);
    (0..rows)
        .step_by(size)
        .map(move |start| start..(start + size).min(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(sampler: &mut Sampler, mut consumed: u64) -> (Vec<usize>, u64) {
        let mut rows = Vec::new();
        for _ in 0..sampler.batches_per_epoch() {
            let batch = sampler.batch_at(consumed);
            consumed = batch.consumed_samples;
            rows.extend(batch.rows);
        }
        (rows, consumed)
    }

    #[test]
    fn every_pass_sees_every_row_once_in_another_order() {
        let mut sampler = Sampler::new(10, 4, 1234, true, false).unwrap();
        let (first, consumed) = epoch(&mut sampler, 0);
        let (second, _) = epoch(&mut sampler, consumed);
        assert_eq!(consumed, 10);
        assert_ne!(first, second);
        for mut rows in [first, second] {
            rows.sort_unstable();
            assert_eq!(rows, (0..10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_sampler_continues_from_the_number_of_consumed_samples() {
        let mut sampler = Sampler::new(21, 4, 7, true, true).unwrap();
        let mut consumed = 0;
        for _ in 0..12 {
            consumed = sampler.batch_at(consumed).consumed_samples;
        }
        let next = sampler.batch_at(consumed);
        assert_eq!(next.epoch, 2);
        assert_eq!(
            Sampler::new(21, 4, 7, true, true)
                .unwrap()
                .batch_at(consumed),
            next
        );
    }

    #[test]
    fn without_shuffling_the_order_is_the_files_and_the_last_batch_is_smaller() {
        let mut sampler = Sampler::new(5, 2, 1, false, false).unwrap();
        assert_eq!(epoch(&mut sampler, 0).0, [0, 1, 2, 3, 4]);
        assert_eq!(sampler.batch_at(4).rows, [4]);
    }

    #[test]
    fn ranks_share_a_batch_without_overlap() {
        let batch = Sampler::new(8, 5, 3, true, true).unwrap().batch_at(0);
        let mut together = batch.of_rank(0, 2);
        assert_eq!(together.len(), 3);
        together.extend(batch.of_rank(1, 2));
        together.sort_unstable();
        let mut whole = batch.rows.clone();
        whole.sort_unstable();
        assert_eq!(together, whole);
    }

    #[test]
    fn too_few_rows_are_told_with_a_batch_size_that_works() {
        let diagnostic = Sampler::new(3, 8, 1, true, true).unwrap_err();
        assert!(
            diagnostic.to_string().contains("model.global_batch_size=3"),
            "{diagnostic}"
        );
        assert!(Sampler::new(0, 8, 1, true, false).is_err());
    }

    #[test]
    fn micro_batches_cover_all_rows() {
        assert_eq!(micro_batches(5, 2).collect::<Vec<_>>(), [0..2, 2..4, 4..5]);
    }

    #[test]
    fn a_limited_pass_ends_early_and_the_next_one_has_another_order() {
        let mut whole = Sampler::new(20, 4, 7, true, true).unwrap();
        let mut limited = Sampler::new(20, 4, 7, true, true)
            .unwrap()
            .with_most_batches(2);
        assert_eq!(limited.batches_per_epoch(), 2);
        let first = limited.batch_at(0);
        assert_eq!(first, whole.batch_at(0));
        let second = limited.batch_at(first.consumed_samples);
        let third = limited.batch_at(second.consumed_samples);
        assert_eq!((second.epoch, third.epoch), (0, 1));
        assert_eq!(third.rows, whole.batch_at(20).rows);
        assert_eq!(
            Sampler::new(5, 2, 7, true, false)
                .unwrap()
                .with_most_batches(9)
                .samples_per_epoch(),
            5
        );
    }
}
