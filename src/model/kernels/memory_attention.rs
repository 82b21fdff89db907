//! Attention over a memory in the memory's own width: scores are queries times the memory, contexts are probabilities
//! times the memory, and neither keys nor values exist.
//!
//! A query of this kind is a head's query times that head's key weight, [H]; what comes out is multiplied with the
//! head's value weight afterwards (`model::absorbed`). Rows of queries are few and rows of the memory long.

use std::ops::Range;

use rayon::prelude::*;

use super::super::rows::Rows;
use super::attention::{exponential_row, scale};
use super::buffer::Buffer;
use super::matmul::{Into, MatMut, MatRef, Repeated, Threads, matmul, matmul_prepared};
use super::simd::sum2;

/// Sizes and rules of one attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryAttention<'a> {
    /// Queries of one position.
    pub(crate) heads: usize,
    /// Numbers of a position of the memory: H.
    pub(crate) hidden_size: usize,
    /// Factor of query · memory.
    pub(crate) scale: f32,
    /// Whether the queries are the last positions of the memory's rows and see none behind themselves.
    pub(crate) causal: bool,
    /// Positions with queries, in rows.
    pub(crate) query_rows: &'a Rows,
    /// What each of these rows sees of the memory.
    pub(crate) memory_ranges: &'a [Range<usize>],
}

/// What one layer leaves for the gradient of the memory.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Of each row [T · heads, S], end to end.
    pub(crate) probabilities: Buffer,
    /// The same of the scores' gradient, the scale multiplied in.
    pub(crate) dscores: Buffer,
    /// [N · heads, H]
    pub(crate) queries: Buffer,
    /// [N · heads, H]
    pub(crate) dcontexts: Buffer,
}

/// A memory [M, H] with what its products have in common over all layers, forward and backward: both orientations of
/// every row's part, packed.
pub(crate) struct Memory<'a> {
    numbers: &'a [f32],
    packed: Vec<&'a [Repeated; 2]>,
}

impl<'a> Memory<'a> {
    /// `packed` holds for each row what [`pack`] made of these numbers and its range.
    pub(crate) fn new(
        numbers: &'a [f32],
        packed: impl IntoIterator<Item = &'a [Repeated; 2]>,
    ) -> Self {
        let packed = packed.into_iter().collect();
        Self { numbers, packed }
    }
}

/// Packs what each row sees of a memory [M, H], as it lies and transposed.
pub(crate) fn pack(
    memory: &[f32],
    hidden_size: usize,
    ranges: &[Range<usize>],
) -> Vec<[Repeated; 2]> {
    let parts = ranges.iter().map(|range| {
        let numbers = &memory[range.start * hidden_size..range.end * hidden_size];
        MatRef::packed(numbers, range.len(), hidden_size)
    });
    parts
        .map(|part| [part, part.transposed()].map(|part| Repeated::pack(part, Threads::All)))
        .collect()
}

impl MemoryAttention<'_> {
    /// Probabilities of all rows together.
    pub(crate) fn score_count(&self) -> usize {
        self.scores().total()
    }

    /// Where the scores of each row lie.
    fn scores(&self) -> Rows {
        let rows = self.query_rows.lengths().iter().zip(self.memory_ranges);
        let counts = rows.map(|(&length, memory)| length * self.heads * memory.len());
        Rows::new(counts.collect::<Vec<_>>())
    }

    /// Where the queries of each row lie.
    fn wides(&self) -> Rows {
        let lengths = self.query_rows.lengths().iter();
        let counts = lengths.map(|length| length * self.heads * self.hidden_size);
        Rows::new(counts.collect::<Vec<_>>())
    }

    /// What row `row` sees, [S, H].
    fn memory<'m>(&self, memory: &Memory<'m>, row: usize) -> MatRef<'m> {
        let range = &self.memory_ranges[row];
        let numbers = &memory.numbers[range.start * self.hidden_size..range.end * self.hidden_size];
        MatRef::packed(numbers, range.len(), self.hidden_size)
    }

    /// Queries [N · heads, H] over memory [M, H]: probabilities of each row [T · heads, S] end to end, and
    /// contexts [N · heads, H].
    pub(crate) fn forward(
        &self,
        queries: &[f32],
        memory: &Memory<'_>,
        probabilities: &mut [f32],
        contexts: &mut [f32],
    ) {
        let wides = self.wides();
        let tasks = cut(probabilities, self.scores().lengths())
            .into_iter()
            .zip(cut(contexts, wides.lengths()));
        for_each_row(tasks.collect(), |row, (scores, contexts), threads| {
            let queries = &queries[wides.range(row)];
            let [along, across] = memory.packed[row];
            let memory = self.memory(memory, row);
            let (count, seen) = (queries.len() / self.hidden_size, memory.rows());
            let queries = MatRef::packed(queries, count, self.hidden_size);
            let product = MatMut::packed(scores, count, seen);
            let right = across.of(memory.transposed());
            matmul_prepared(
                product,
                Into::Overwrite,
                self.scale,
                queries,
                &right,
                threads,
            );
            for (query, scores) in scores.chunks_exact_mut(seen.max(1)).enumerate() {
                let (scores, hidden) = scores.split_at_mut(self.seen_by(query, count, seen));
                let (_, sum) = exponential_row(scores);
                scale(scores, sum.recip());
                hidden.fill(0.0);
            }
            let probabilities = MatRef::packed(scores, count, seen);
            let contexts = MatMut::packed(contexts, count, self.hidden_size);
            let right = along.of(memory);
            matmul_prepared(
                contexts,
                Into::Overwrite,
                1.0,
                probabilities,
                &right,
                threads,
            );
        });
    }

    /// Positions of the memory that query `query` of the `count` in its row sees.
    fn seen_by(&self, query: usize, count: usize, seen: usize) -> usize {
        if self.causal {
            seen + 1 + query / self.heads - count / self.heads
        } else {
            seen
        }
    }

    /// Gradients of the scores (the scale multiplied in) and of the queries [N · heads, H] for those of the contexts.
    pub(crate) fn vjp(
        &self,
        memory: &Memory<'_>,
        probabilities: &[f32],
        dcontexts: &[f32],
        dscores: &mut [f32],
        dqueries: &mut [f32],
    ) {
        let (scores, wides) = (self.scores(), self.wides());
        let tasks = cut(dscores, scores.lengths())
            .into_iter()
            .zip(cut(dqueries, wides.lengths()));
        for_each_row(tasks.collect(), |row, (dscores, dqueries), threads| {
            let dcontexts = &dcontexts[wides.range(row)];
            let probabilities = &probabilities[scores.range(row)];
            let [along, across] = memory.packed[row];
            let memory = self.memory(memory, row);
            let (count, seen) = (dcontexts.len() / self.hidden_size, memory.rows());
            let dcontexts = MatRef::packed(dcontexts, count, self.hidden_size);
            let product = MatMut::packed(dscores, count, seen);
            let right = across.of(memory.transposed());
            matmul_prepared(product, Into::Overwrite, 1.0, dcontexts, &right, threads);
            let rows = probabilities.chunks_exact(seen.max(1));
            for (p, ds) in rows.zip(dscores.chunks_exact_mut(seen.max(1))) {
                let mean = sum2(p, ds, |p, ds| p * ds);
                for (p, ds) in p.iter().zip(ds) {
                    *ds = self.scale * p * (*ds - mean);
                }
            }
            let dscores = MatRef::packed(dscores, count, seen);
            let dqueries = MatMut::packed(dqueries, count, self.hidden_size);
            let right = along.of(memory);
            matmul_prepared(dqueries, Into::Overwrite, 1.0, dscores, &right, threads);
        });
    }

    /// The gradient of the memory [M, H] by all layers that looked at it: one product for each row. The memory's ranges
    /// must lie end to end.
    pub(crate) fn memory_gradient(&self, pieces: &[Piece], dmemory: &mut [f32]) {
        let lengths = self.memory_ranges.iter().map(ExactSizeIterator::len);
        let lengths: Vec<usize> = lengths.map(|length| length * self.hidden_size).collect();
        let (scores, wides) = (self.scores(), self.wides());
        for_each_row(cut(dmemory, &lengths), |row, dmemory, threads| {
            let (scores, wide) = (scores.range(row), wides.range(row));
            let mut left = Buffer::dirty(2 * pieces.len() * scores.len());
            let mut right = Buffer::dirty(2 * pieces.len() * wide.len());
            let sources = pieces.iter().flat_map(|piece| {
                [
                    (&piece.probabilities, &piece.dcontexts),
                    (&piece.dscores, &piece.queries),
                ]
            });
            for (index, (of_scores, of_wide)) in sources.enumerate() {
                left[index * scores.len()..][..scores.len()]
                    .copy_from_slice(&of_scores[scores.clone()]);
                right[index * wide.len()..][..wide.len()].copy_from_slice(&of_wide[wide.clone()]);
            }
            let (seen, terms) = (
                self.memory_ranges[row].len(),
                right.len() / self.hidden_size,
            );
            let dmemory = MatMut::packed(dmemory, seen, self.hidden_size);
            let left = MatRef::packed(&left, terms, seen).transposed();
            let right = MatRef::packed(&right, terms, self.hidden_size);
            matmul(dmemory, Into::Overwrite, 1.0, left, right, threads);
        });
    }
}

/// Parts of these lengths, end to end.
fn cut<'a>(mut data: &'a mut [f32], lengths: &[usize]) -> Vec<&'a mut [f32]> {
    let mut parts = vec![];
    for &length in lengths {
        let (part, rest) = data.split_at_mut(length);
        parts.push(part);
        data = rest;
    }
    parts
}

/// Rows on the threads of the pool where there are enough of them, else one after another, each on all threads.
fn for_each_row<T: Send>(tasks: Vec<T>, work: impl Fn(usize, T, Threads) + Sync) {
    if tasks.len() >= 2 * rayon::current_num_threads() {
        let tasks = tasks.into_par_iter().with_max_len(1).enumerate();
        tasks.for_each(|(row, task)| work(row, task, Threads::One));
    } else {
        for (row, task) in tasks.into_iter().enumerate() {
            work(row, task, Threads::All);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::rng::SeededRng;

    const HEADS: usize = 2;
    const HIDDEN: usize = 5;

    /// Σ g · contexts, in f64 and by three loops.
    fn value(
        queries: &[f32],
        memory: &[f32],
        g: &[f32],
        rows: &Rows,
        seen: &Rows,
        causal: bool,
    ) -> f64 {
        let at = |data: &[f32], row: usize| -> Vec<f64> {
            data[row * HIDDEN..][..HIDDEN]
                .iter()
                .map(|&x| f64::from(x))
                .collect()
        };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut total = 0.0;
        for (range, seen) in rows.ranges().iter().zip(seen.ranges()) {
            for position in range.clone() {
                let hidden = if causal { range.end - 1 - position } else { 0 };
                for query in position * HEADS..(position + 1) * HEADS {
                    let weights: Vec<f64> = (seen.start..seen.end - hidden)
                        .map(|place| (0.5 * dot(&at(queries, query), &at(memory, place))).exp())
                        .collect();
                    let sum: f64 = weights.iter().sum();
                    for (weight, place) in weights.iter().zip(seen.clone()) {
                        total += weight / sum * dot(&at(g, query), &at(memory, place));
                    }
                }
            }
        }
        total
    }

    #[test]
    fn gradients_of_queries_and_memory_equal_finite_differences_of_three_loops() {
        let mut rng = SeededRng::new(3, 0);
        // Enough rows for one task each, and few, each on all threads.
        for lengths in [vec![2, 0, 3], vec![1; 64]] {
            for causal in [false, true] {
                let rows = Rows::new(lengths.clone());
                let seen = Rows::new(lengths.iter().map(|t| t + 4).collect::<Vec<_>>());
                let mut numbers = |count| rng.normals(count, 0.8);
                let wide = rows.total() * HEADS * HIDDEN;
                let (queries, g) = (numbers(wide), numbers(wide));
                let memory = numbers(seen.total() * HIDDEN);
                let kernel = MemoryAttention {
                    heads: HEADS,
                    hidden_size: HIDDEN,
                    scale: 0.5,
                    causal,
                    query_rows: &rows,
                    memory_ranges: seen.ranges(),
                };
                let packed = pack(&memory, HIDDEN, seen.ranges());
                let whole = Memory::new(&memory, &packed);
                let scores = kernel.score_count();
                let (mut p, mut contexts) = (Buffer::dirty(scores), Buffer::dirty(wide));
                kernel.forward(&queries, &whole, &mut p, &mut contexts);
                let found: f64 = contexts.iter().zip(&g).map(|(c, g)| f64::from(c * g)).sum();
                let expected = value(&queries, &memory, &g, &rows, &seen, causal);
                assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()));

                let (mut dscores, mut dqueries) = (Buffer::dirty(scores), vec![0.0; wide]);
                kernel.vjp(&whole, &p, &g, &mut dscores, &mut dqueries);
                let copy = |numbers: &[f32]| {
                    let mut buffer = Buffer::dirty(numbers.len());
                    buffer.copy_from_slice(numbers);
                    buffer
                };
                let piece = || Piece {
                    probabilities: copy(&p),
                    dscores: copy(&dscores),
                    queries: copy(&queries),
                    dcontexts: copy(&g),
                };
                // Two layers alike: twice the gradient of one.
                let mut dmemory = vec![0.0; memory.len()];
                kernel.memory_gradient(&[piece(), piece()], &mut dmemory);
                let step = 1e-3;
                let slope = |of_query: bool, index: usize| {
                    let moved = |by: f32| {
                        let (mut queries, mut memory) = (queries.clone(), memory.clone());
                        let numbers = if of_query { &mut queries } else { &mut memory };
                        numbers[index] += by;
                        value(&queries, &memory, &g, &rows, &seen, causal)
                    };
                    (moved(step) - moved(-step)) / f64::from(2.0 * step)
                };
                for index in (0..wide).step_by(1 + wide / 40) {
                    let expected = slope(true, index);
                    assert!(
                        (f64::from(dqueries[index]) - expected).abs() < 2e-3,
                        "query {index}"
                    );
                }
                for index in (0..memory.len()).step_by(1 + memory.len() / 40) {
                    let expected = 2.0 * slope(false, index);
                    assert!(
                        (f64::from(dmemory[index]) - expected).abs() < 4e-3,
                        "memory {index}"
                    );
                }
            }
        }
    }
}
