//! The packed layout: rows of a batch laid end to end without padding.

use std::ops::Range;

use anyhow::{Result, ensure};

/// Lengths of the rows of a packed batch, in order; `N` is their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    lengths: Vec<usize>,
    ranges: Vec<Range<usize>>,
}

impl Rows {
    /// Rows of these lengths, laid end to end.
    pub fn new(lengths: impl Into<Vec<usize>>) -> Self {
        let lengths = lengths.into();
        let mut end = 0;
        let ranges = lengths
            .iter()
            .map(|length| {
                let start = end;
                end += length;
                start..end
            })
            .collect();
        Self { lengths, ranges }
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.lengths.len()
    }

    /// `N`: positions of all rows together.
    pub fn total(&self) -> usize {
        self.ranges.last().map_or(0, |range| range.end)
    }

    /// Length of each row.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Length of the longest row, or 0.
    pub fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// Packed positions of row `row`.
    pub fn range(&self, row: usize) -> Range<usize> {
        self.ranges[row].clone()
    }

    /// Packed positions of each row, in order.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// The place of every packed position within its row.
    pub fn positions(&self) -> Vec<u32> {
        self.lengths
            .iter()
            .flat_map(|&length| 0..length as u32)
            .collect()
    }

    /// The last `counts` positions of each row.
    pub(crate) fn last(&self, counts: &[usize]) -> Vec<u32> {
        self.ranges
            .iter()
            .zip(counts)
            .flat_map(|(range, count)| range.end as u32 - *count as u32..range.end as u32)
            .collect()
    }

    /// How many positions of each row lie at or behind the first of `chosen`, which are packed positions.
    pub(crate) fn counts_since_first_of(&self, chosen: &[u32]) -> Vec<usize> {
        let mut counts = vec![0; self.count()];
        for &position in chosen {
            let position = position as usize;
            let row = self.ranges.partition_point(|range| range.end <= position);
            counts[row] = counts[row].max(self.ranges[row].end - position);
        }
        counts
    }

    /// Checks that these rows cover `positions` packed positions of `what`.
    ///
    /// # Errors
    /// Where they do not.
    pub fn check(&self, what: &str, positions: usize) -> Result<()> {
        ensure!(
            self.total() == positions,
            "{what} has {positions} positions and its rows have {}",
            self.total()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lie_end_to_end_and_count_their_positions_from_zero() {
        let rows = Rows::new([2, 0, 3]);
        assert_eq!((rows.count(), rows.total(), rows.longest()), (3, 5, 3));
        assert_eq!(rows.ranges(), [0..2, 2..2, 2..5]);
        assert_eq!(rows.positions(), [0, 1, 0, 1, 2]);
        assert!(rows.check("input", 4).is_err());
        assert_eq!(rows.counts_since_first_of(&[4, 3, 0]), [2, 0, 2]);
        assert_eq!(rows.last(&[1, 0, 2]), [1, 3, 4]);
    }
}
