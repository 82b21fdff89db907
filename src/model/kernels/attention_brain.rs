//! The attention of [`super::attention`] over queries, keys and values in bf16, two to a word ([`super::pairs`]).
//!
//! As [`super::attention_tile`], with `vdpbf16ps` for all products: scores and their softmax are in f32, probabilities
//! and gradients of scores are rounded to bf16 where they become an operand, sums are in f32. A term of a product is a
//! word of two: of a head's numbers for scores, of two keys for outputs and gradients of queries, of two queries for
//! gradients of keys and values.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::{
    __m512, __m512bh, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::ops::Range;

use rayon::prelude::*;

use super::attention::{Attention, Columns, ColumnsMut, scale};
use super::attention_tile::{
    AHEAD, Left, ROWS, Right, STRIPS, Task, Tiles, define_tile, prefetch, tiles,
};
use super::buffer::Buffer;
use super::pairs::round_all;
use super::simd::vectorized;
use super::softmax_brain::{Row, STEP};
use super::turn;

define_tile!("avx512f,avx512bf16", |x, right, sum| {
    let bits = |x: __m512| std::mem::transmute::<__m512, __m512bh>(x);
    _mm512_dpbf16_ps(sum, bits(x), bits(right))
});

/// Terms are words.
const WORDS: Tiles = [
    [tile::<2, false>, tile::<2, true>],
    [tile::<1, false>, tile::<1, true>],
];

vectorized! {
    /// Two rows of words as one of words of theirs: numbers of `even` in the lower bits, of `odd` in the higher.
    pub(crate) fn interleave(even: &[f32], odd: &[f32], target: &mut [f32]) {
        let twos = target.as_chunks_mut::<2>().0;
        for ((two, even), odd) in twos.iter_mut().zip(even).zip(odd) {
            let (even, odd) = (even.to_bits(), odd.to_bits());
            *two = [
                f32::from_bits(even & 0xffff | odd << 16),
                f32::from_bits(even >> 16 | odd & 0xffff_0000),
            ];
        }
    }
}

impl Task<'_> {
    /// Some rows of a head: [rows, size] with room for whole tiles.
    fn words(&self, from: Columns<'_>, rows: Range<usize>, head: usize) -> Buffer {
        let size = self.size;
        let mut buffer = Buffer::dirty(rows.len().next_multiple_of(ROWS) * size);
        let start_of = |row: usize| row * from.stride + from.offset + head * size;
        for (target, row) in buffer.chunks_exact_mut(size).zip(rows) {
            prefetch(from.data, start_of(row + AHEAD), size);
            target.copy_from_slice(&from.data[start_of(row)..][..size]);
        }
        buffer
    }

    /// Some rows of a head in words of two neighbouring rows, one for each number: [rows / 2, width], zeros where there
    /// is no row or number.
    fn row_pairs(&self, from: Columns<'_>, rows: Range<usize>, head: usize) -> Buffer {
        let (size, width) = (self.size, self.width());
        let mut buffer = Buffer::dirty(rows.len().div_ceil(2) * width);
        let nothing = Buffer::zeros(size);
        let start_of = |row: usize| row * from.stride + from.offset + head * size;
        for (target, row) in buffer.chunks_exact_mut(width).zip(rows.clone().step_by(2)) {
            prefetch(from.data, start_of(row + AHEAD), size);
            prefetch(from.data, start_of(row + AHEAD + 1), size);
            let even = &from.data[start_of(row)..][..size];
            let odd = if row + 1 < rows.end {
                &from.data[start_of(row + 1)..][..size]
            } else {
                &nothing
            };
            interleave(even, odd, target);
            target[2 * size..].fill(0.0);
        }
        buffer
    }

    /// Distance of scores' rows: room for whole tiles of keys on either side, and an odd number of cache lines.
    fn score_stride(&self) -> usize {
        let keys = self.keys.len().next_multiple_of(ROWS);
        keys.next_multiple_of(STEP) + turn::SIDE
    }

    /// Distance of rows of words of two keys.
    fn word_stride(&self) -> usize {
        self.score_stride() / 2 + turn::SIDE / 2
    }

    /// The scores of a query with what belongs to it.
    fn row<'b>(&'b self, head: usize, query: usize, scores: &'b mut [f32]) -> Row<'b> {
        Row {
            scores,
            visible: self.attention.place(self.row, query).1,
            scale: self.attention.scale,
            bias: self.bias(head, query),
        }
    }
}

/// As [`super::attention::forward`], but `lse` is in f32.
pub(crate) fn forward(
    attention: &Attention<'_>,
    (q, k, v): (Columns<'_>, Columns<'_>, Columns<'_>),
    out: &ColumnsMut<'_>,
    lse: &ColumnsMut<'_>,
) {
    let size = attention.head_size / 2;
    attention
        .tasks()
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| {
            let task = Task::new(attention, task, size);
            let (width, stride, word_stride) =
                (task.width(), task.score_stride(), task.word_stride());
            let k = task.turned(k);
            let v = task.row_pairs(v, task.keys.clone(), task.kv_head);
            let mut scores = Buffer::dirty(ROWS * stride);
            let mut words = Buffer::dirty(ROWS * word_stride);
            let mut result = Buffer::dirty(ROWS * width);
            for head in task.heads() {
                for first in (0..task.queries.len()).step_by(ROWS) {
                    let count = ROWS.min(task.queries.len() - first);
                    let seen = task.seen(first + count);
                    let start = task.queries.start + first;
                    let q = task.words(q, start..start + count, head);
                    task.strip(&WORDS, (&q, size), &k, seen, (&mut scores, stride));
                    let mut sums = [(0.0, 0.0); ROWS];
                    let lines = scores
                        .chunks_exact_mut(stride)
                        .zip(words.chunks_exact_mut(word_stride));
                    for (i, (scores, words)) in lines.take(count).enumerate() {
                        let mut row = task.row(head, first + i, scores);
                        sums[i] = row.exponentials(seen.next_multiple_of(STEP), words);
                    }
                    tiles(
                        &WORDS,
                        Left::Rows(&words, word_stride),
                        Right::matrix(&v, width),
                        seen.div_ceil(2),
                        (&mut result, width, width),
                        false,
                    );
                    for (i, result) in result.chunks_exact_mut(width).take(count).enumerate() {
                        let (largest, sum) = sums[i];
                        #[expect(
                            unsafe_code,
                            reason = "tasks write disjoint columns of one matrix"
                        )]
                        // SAFETY: this query and head belong to this task alone, and `out` and `lse` are two matrices.
                        let (out, lse) = unsafe {
                            (
                                out.row(start + i, head * size, size),
                                lse.row(start + i, head, 1),
                            )
                        };
                        scale(result, 1.0 / sum);
                        round_all(&result[..2 * size], out);
                        lse[0] = largest + sum.ln();
                    }
                }
            }
        });
}

/// As [`super::attention::vjp`], but `lse` is in f32.
pub(crate) fn vjp(
    attention: &Attention<'_>,
    (q, k, v): (Columns<'_>, Columns<'_>, Columns<'_>),
    lse: &[f32],
    dout: Columns<'_>,
    (dq, dk, dv): (&ColumnsMut<'_>, &ColumnsMut<'_>, &ColumnsMut<'_>),
) {
    let size = attention.head_size / 2;
    attention
        .tasks()
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| {
            let task = Task::new(attention, task, size);
            let (width, stride, word_stride) =
                (task.width(), task.score_stride(), task.word_stride());
            let (k_turned, v_turned) = (task.turned(k), task.turned(v));
            let k = task.row_pairs(k, task.keys.clone(), task.kv_head);
            // Blocks of about equal size, of whole strips.
            let count = task.queries.len();
            let blocks = count.div_ceil(2 * STRIPS * ROWS).max(1);
            let block = count.div_ceil(blocks).next_multiple_of(ROWS).max(ROWS);
            let (mut scores, mut dscores) =
                (Buffer::dirty(ROWS * stride), Buffer::dirty(ROWS * stride));
            let mut words = [(); 2].map(|()| Buffer::dirty(ROWS * word_stride));
            // Words of two queries, for each key: probabilities, and gradients of scores.
            let mut pairs = [(); 2].map(|()| Buffer::dirty(block / 2 * stride));
            let mut result = Buffer::dirty(ROWS * width);
            let key_rows = task.keys.len().next_multiple_of(ROWS);
            let mut k_gradient = Buffer::zeros(key_rows * width);
            let mut v_gradient = Buffer::zeros(key_rows * width);
            let nothing = Buffer::zeros(word_stride);
            for head in task.heads() {
                for first in (0..task.queries.len()).step_by(block) {
                    let count = block.min(task.queries.len() - first);
                    let start = task.queries.start + first;
                    let rows = start..start + count;
                    let (q_rows, q_pairs) = (
                        task.words(q, rows.clone(), head),
                        task.row_pairs(q, rows.clone(), head),
                    );
                    let (dout_rows, dout_pairs) = (
                        task.words(dout, rows.clone(), head),
                        task.row_pairs(dout, rows, head),
                    );
                    let seen_by_block = task.seen(first + count);
                    // The last tile of keys may reach beyond, to keys that later blocks see.
                    let cleared = seen_by_block.next_multiple_of(ROWS).next_multiple_of(STEP);
                    for strip in (0..count).step_by(ROWS) {
                        let height = ROWS.min(count - strip);
                        let seen = task.seen(first + strip + height);
                        let q = (&q_rows[strip * size..], size);
                        task.strip(&WORDS, q, &k_turned, seen, (&mut scores, stride));
                        let dout = (&dout_rows[strip * size..], size);
                        task.strip(&WORDS, dout, &v_turned, seen, (&mut dscores, stride));
                        let [p_words, ds_words] = &mut words;
                        let lines = scores
                            .chunks_exact_mut(stride)
                            .zip(dscores.chunks_exact(stride))
                            .zip(p_words.chunks_exact_mut(word_stride))
                            .zip(ds_words.chunks_exact_mut(word_stride));
                        for (i, (((scores, dscores), p), ds)) in lines.take(height).enumerate() {
                            let query = first + strip + i;
                            let lse = lse[(task.queries.start + query) * attention.heads + head];
                            let mut row = task.row(head, query, scores);
                            row.gradients(cleared, dscores, lse, (p, ds));
                        }
                        tiles(
                            &WORDS,
                            Left::Rows(&words[1], word_stride),
                            Right::matrix(&k, width),
                            seen.div_ceil(2),
                            (&mut result, width, width),
                            false,
                        );
                        for (i, result) in result.chunks_exact(width).take(height).enumerate() {
                            #[expect(
                                unsafe_code,
                                reason = "tasks write disjoint columns of one matrix"
                            )]
                            // SAFETY: this query and head belong to this task alone.
                            let dq = unsafe { dq.row(start + strip + i, head * size, size) };
                            round_all(&result[..2 * size], dq);
                        }
                        for pair in 0..height.div_ceil(2) {
                            for (words, pairs) in words.iter().zip(&mut pairs) {
                                let line = |row: usize| &words[row * word_stride..][..cleared / 2];
                                let odd = if 2 * pair + 1 < height {
                                    line(2 * pair + 1)
                                } else {
                                    &nothing[..cleared / 2]
                                };
                                let target = &mut pairs[(strip / 2 + pair) * stride..][..cleared];
                                interleave(line(2 * pair), odd, target);
                            }
                        }
                    }
                    for first in (0..seen_by_block).step_by(ROWS) {
                        for (gradient, left, right) in [
                            (&mut v_gradient, &pairs[0], &dout_pairs),
                            (&mut k_gradient, &pairs[1], &q_pairs),
                        ] {
                            tiles(
                                &WORDS,
                                Left::Columns(&left[first..], stride),
                                Right::matrix(right, width),
                                count.div_ceil(2),
                                (&mut gradient[first * width..], width, width),
                                true,
                            );
                        }
                    }
                }
            }
            for (i, position) in task.keys.clone().enumerate() {
                let range = i * width..i * width + 2 * size;
                #[expect(unsafe_code, reason = "tasks write disjoint columns of one matrix")]
                // SAFETY: this row and key-value head belong to this task alone; keys and values have their own columns.
                unsafe {
                    let dk = dk.row(position, task.kv_head * size, size);
                    round_all(&k_gradient[range.clone()], dk);
                    let dv = dv.row(position, task.kv_head * size, size);
                    round_all(&v_gradient[range], dv);
                }
            }
        });
}

#[cfg(test)]
mod tests {
    use super::super::attention::{DistanceBias, forward_by_products, vjp_by_products};
    use super::super::pairs::{are_supported, widen_all};
    use super::*;
    use crate::model::rows::Rows;
    use crate::sys::rng::SeededRng;

    /// Random numbers that bf16 holds, and their words.
    fn draw(seed: u64, count: usize) -> (Vec<f32>, Vec<f32>) {
        let mut numbers = SeededRng::new(seed, 0).normals(count, 1.0);
        let mut words = vec![0.0; count / 2];
        round_all(&numbers, &mut words);
        widen_all(&words, &mut numbers);
        (numbers, words)
    }

    fn widened(words: &[f32]) -> Vec<f32> {
        let mut numbers = vec![0.0; 2 * words.len()];
        widen_all(words, &mut numbers);
        numbers
    }

    fn columns(data: &[f32], stride: usize, offset: usize) -> Columns<'_> {
        Columns {
            data,
            stride,
            offset,
        }
    }

    /// Output, logarithms of sums, and gradients of queries, keys and values: by words, and by whole products in f32.
    fn run(attention: &Attention<'_>) -> [[Vec<f32>; 5]; 2] {
        let (heads, kv_heads) = (attention.heads, attention.key_value_heads);
        let (queries, keys) = (heads * attention.head_size, kv_heads * attention.head_size);
        let count = attention.query_rows.total();
        let key_count = attention.key_ranges.last().map_or(0, |range| range.end);
        let (q, q_words) = draw(1, count * queries);
        let (kv, kv_words) = draw(2, key_count * 2 * keys);
        let (dout, dout_words) = draw(3, count * queries);
        let results = |per_word: usize| {
            [
                vec![f32::NAN; count * queries / per_word],
                vec![f32::NAN; count * heads],
                vec![f32::NAN; count * queries / per_word],
                vec![f32::NAN; key_count * keys / per_word],
                vec![f32::NAN; key_count * keys / per_word],
            ]
        };
        let [mut out, mut lse, mut dq, mut dk, mut dv] = results(1);
        let operands = (
            columns(&q, queries, 0),
            columns(&kv, 2 * keys, 0),
            columns(&kv, 2 * keys, keys),
        );
        forward_by_products(
            attention,
            operands.0,
            operands.1,
            operands.2,
            &ColumnsMut::new(&mut out, queries, 0),
            &ColumnsMut::new(&mut lse, heads, 0),
        );
        vjp_by_products(
            attention,
            operands,
            &lse,
            columns(&dout, queries, 0),
            (
                &ColumnsMut::new(&mut dq, queries, 0),
                &ColumnsMut::new(&mut dk, keys, 0),
                &ColumnsMut::new(&mut dv, keys, 0),
            ),
        );
        let expected = [out, lse, dq, dk, dv];
        let [mut out, mut lse, mut dq, mut dk, mut dv] = results(2);
        let operands = (
            columns(&q_words, queries / 2, 0),
            columns(&kv_words, keys, 0),
            columns(&kv_words, keys, keys / 2),
        );
        forward(
            attention,
            operands,
            &ColumnsMut::new(&mut out, queries / 2, 0),
            &ColumnsMut::new(&mut lse, heads, 0),
        );
        vjp(
            attention,
            operands,
            &lse,
            columns(&dout_words, queries / 2, 0),
            (
                &ColumnsMut::new(&mut dq, queries / 2, 0),
                &ColumnsMut::new(&mut dk, keys / 2, 0),
                &ColumnsMut::new(&mut dv, keys / 2, 0),
            ),
        );
        let found = [widened(&out), lse, widened(&dq), widened(&dk), widened(&dv)];
        [found, expected]
    }

    #[test]
    fn values_and_gradients_are_those_in_f32_but_for_the_rounding_of_bf16() {
        if !are_supported() {
            return;
        }
        let lengths = [1, 12, 13, 40, 205, 31, 0, 2];
        let rows = Rows::new(lengths);
        let longer = Rows::new(lengths.map(|length| length + 31));
        let table = SeededRng::new(4, 0).normals(4 * (2 * 240 - 1), 1.0);
        let bias = DistanceBias {
            table: &table,
            span: 240,
        };
        for (kv_heads, head_size, causal, keys, bias) in [
            (4, 64, false, &rows, Some(bias)),
            (4, 16, true, &rows, Some(bias)),
            (2, 20, true, &longer, None),
            (1, 80, false, &longer, None),
            (2, 8, true, &rows, None),
            (4, 2, false, &rows, None),
        ] {
            let attention = Attention {
                heads: 4,
                key_value_heads: kv_heads,
                head_size,
                scale: 0.3,
                causal,
                query_rows: &rows,
                key_ranges: keys.ranges(),
                bias,
            };
            let [found, expected] = run(&attention);
            for (what, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let size = |numbers: &mut dyn Iterator<Item = f32>| -> f32 {
                    numbers.map(|x| x * x).sum::<f32>().sqrt()
                };
                let all = size(&mut expected.iter().copied());
                let apart = size(&mut found.iter().zip(expected).map(|(a, b)| a - b));
                // Each operand is off by at most 2^-9 of itself; so is, on the whole, what is added up from them.
                assert!(
                    apart <= all / 256.0,
                    "{what}: {apart} of {all} with {attention:?}"
                );
            }
        }
    }

    #[test]
    fn two_runs_give_the_same_bits() {
        if !are_supported() {
            return;
        }
        let rows = Rows::new([50, 7, 121]);
        let attention = Attention {
            heads: 4,
            key_value_heads: 2,
            head_size: 32,
            scale: 0.2,
            causal: true,
            query_rows: &rows,
            key_ranges: rows.ranges(),
            bias: None,
        };
        let bits =
            |numbers: [Vec<f32>; 5]| numbers.map(|x| x.into_iter().map(f32::to_bits).collect());
        let [first, second]: [[Vec<u32>; 5]; 2] =
            [(), ()].map(|()| bits(run(&attention)[0].clone()));
        assert_eq!(first, second);
    }
}
