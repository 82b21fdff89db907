//! The attention of [`super::attention`] for processors with AVX-512: 12 queries at a time, from scores to output in the
//! first-level cache.
//!
//! No score is packed: a tile takes its left operand as it lies, by rows or by columns. Twelve queries against all keys
//! that they see are one strip of scores; the backward keeps the strips of a block for the gradients of keys and values,
//! which sum over queries.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::{
    _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::ops::Range;

use rayon::prelude::*;

use super::attention::{
    Attention, Columns, ColumnsMut, add, exponential_row, scale_into, softmax_vjp_row,
};
use super::buffer::Buffer;
use super::simd::{Level, level};
use super::turn;

/// Queries of a strip, keys of a tile that is taken by columns: rows of a tile.
pub(super) const ROWS: usize = 12;
/// Columns of a tile: two registers.
pub(super) const COLS: usize = 32;
/// Strips of a block of queries, whose probabilities and their gradients the backward keeps: 8 strips of 512 keys are
/// 200 kB each.
pub(super) const STRIPS: usize = 8;
/// Rows that are asked for before they are copied.
pub(super) const AHEAD: usize = 16;
/// Below this many queries a row is not worth turning its keys.
const FEWEST_QUERIES: usize = 8;

/// Whether this is the way for rows of so many queries on this processor.
pub(crate) fn is_worth_it(queries: usize) -> bool {
    queries >= FEWEST_QUERIES && level() == Level::Avx512
}

/// One row and key-value head of a batch.
pub(super) struct Task<'a> {
    pub(super) attention: &'a Attention<'a>,
    pub(super) row: usize,
    pub(super) kv_head: usize,
    pub(super) queries: Range<usize>,
    pub(super) keys: Range<usize>,
    /// Columns of a head: numbers, or words of two.
    pub(super) size: usize,
}

impl<'a> Task<'a> {
    pub(super) fn new(
        attention: &'a Attention<'a>,
        (row, kv_head): (usize, usize),
        size: usize,
    ) -> Self {
        Self {
            attention,
            row,
            kv_head,
            queries: attention.query_rows.range(row),
            keys: attention.key_ranges[row].clone(),
            size,
        }
    }

    pub(super) fn heads(&self) -> Range<usize> {
        let group = self.attention.heads / self.attention.key_value_heads;
        self.kv_head * group..(self.kv_head + 1) * group
    }

    /// Numbers of a head, filled up to whole registers.
    pub(super) fn width(&self) -> usize {
        self.attention.head_size.next_multiple_of(turn::SIDE)
    }

    /// Distance of scores' rows: an odd number of cache lines, so that twelve rows lie in twelve places of the cache.
    pub(super) fn stride(&self) -> usize {
        self.keys.len().next_multiple_of(COLS) + turn::SIDE
    }

    /// Keys that the queries before `end` see.
    pub(super) fn seen(&self, end: usize) -> usize {
        self.attention.place(self.row, end - 1).1
    }

    /// Keys or values of this head by columns: for each 32 of them [head size, 32], zeros beyond the last.
    pub(super) fn turned(&self, from: Columns<'_>) -> Buffer {
        let size = self.size;
        let mut panels = Buffer::dirty(self.keys.len().next_multiple_of(COLS) * size);
        let column = from.offset + self.kv_head * size;
        for (panel, target) in panels.chunks_exact_mut(COLS * size).enumerate() {
            for half in [0, turn::SIDE] {
                let first = (panel * COLS + half).min(self.keys.len());
                let rows = turn::SIDE.min(self.keys.len() - first);
                let start = (self.keys.start + first) * from.stride + column;
                let source = from.data.get(start..).filter(|_| rows > 0);
                turn::turn(
                    source.unwrap_or(from.data),
                    (rows, size, from.stride),
                    &mut target[half..],
                    (turn::SIDE, COLS),
                );
            }
        }
        panels
    }

    /// Some rows of a head, times `factor`: [rows, width] with room for whole tiles; zeros beyond the head's columns.
    fn gathered(&self, from: Columns<'_>, rows: Range<usize>, head: usize, factor: f32) -> Buffer {
        let (size, width) = (self.attention.head_size, self.width());
        let mut buffer = Buffer::dirty(rows.len().next_multiple_of(ROWS) * width);
        let start_of = |row: usize| row * from.stride + from.offset + head * size;
        for (target, row) in buffer.chunks_exact_mut(width).zip(rows) {
            // Rows are too far apart for the processor to guess the next.
            prefetch(from.data, start_of(row + AHEAD), size);
            let start = start_of(row);
            scale_into(&mut target[..size], &from.data[start..start + size], factor);
            target[size..].fill(0.0);
        }
        buffer
    }

    /// The bias of query `query` for each key that it sees, or nothing.
    pub(super) fn bias(&self, head: usize, query: usize) -> &[f32] {
        let (position, visible) = self.attention.place(self.row, query);
        self.attention.bias.map_or(&[], |bias| {
            let start = (head + 1) * (2 * bias.span - 1) - bias.span - position;
            &bias.table[start..start + visible]
        })
    }

    /// A strip of products with keys or values by columns: [12, seen] from rows of this head's columns; both operands
    /// of the strides given.
    pub(super) fn strip(
        &self,
        kernels: &Tiles,
        (rows, row_stride): (&[f32], usize),
        panels: &[f32],
        seen: usize,
        (result, stride): (&mut [f32], usize),
    ) {
        tiles(
            kernels,
            Left::Rows(rows, row_stride),
            Right {
                numbers: panels,
                stride: COLS,
                tile: COLS * self.size,
            },
            self.size,
            (result, stride, seen.next_multiple_of(COLS)),
            false,
        );
    }
}

/// As [`super::attention::forward`].
pub(crate) fn forward(
    attention: &Attention<'_>,
    q: Columns<'_>,
    k: Columns<'_>,
    v: Columns<'_>,
    out: &ColumnsMut<'_>,
    lse: &ColumnsMut<'_>,
) {
    let size = attention.head_size;
    attention
        .tasks()
        .into_par_iter()
        .with_max_len(1)
        .for_each(|(row, kv_head)| {
            let task = Task::new(attention, (row, kv_head), size);
            let (width, stride) = (task.width(), task.stride());
            let k = task.turned(k);
            let v = task.gathered(v, task.keys.clone(), kv_head, 1.0);
            let mut scores = Buffer::dirty(ROWS * stride);
            let mut result = Buffer::dirty(ROWS * width);
            for head in task.heads() {
                for first in (0..task.queries.len()).step_by(ROWS) {
                    let count = ROWS.min(task.queries.len() - first);
                    let seen = task.seen(first + count);
                    let start = task.queries.start + first;
                    let q = task.gathered(q, start..start + count, head, attention.scale);
                    task.strip(&NUMBERS, (&q, width), &k, seen, (&mut scores, stride));
                    let mut sums = [(0.0, 0.0); ROWS];
                    for (i, scores) in scores.chunks_exact_mut(stride).take(count).enumerate() {
                        add(scores, task.bias(head, first + i));
                        let (_, visible) = attention.place(row, first + i);
                        // In whole registers; e^-∞ adds nothing.
                        let whole = visible.next_multiple_of(turn::SIDE);
                        scores[visible..whole].fill(f32::NEG_INFINITY);
                        sums[i] = exponential_row(&mut scores[..whole]);
                        scores[visible..seen].fill(0.0);
                    }
                    tiles(
                        &NUMBERS,
                        Left::Rows(&scores, stride),
                        Right::matrix(&v, width),
                        seen,
                        (&mut result, width, width),
                        false,
                    );
                    for (i, result) in result.chunks_exact(width).take(count).enumerate() {
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
                        scale_into(out, &result[..size], 1.0 / sum);
                        lse[0] = largest + sum.ln();
                    }
                }
            }
        });
}

/// As [`super::attention::vjp`].
pub(crate) fn vjp(
    attention: &Attention<'_>,
    (q, k, v): (Columns<'_>, Columns<'_>, Columns<'_>),
    lse: &[f32],
    dout: Columns<'_>,
    (dq, dk, dv): (&ColumnsMut<'_>, &ColumnsMut<'_>, &ColumnsMut<'_>),
) {
    let size = attention.head_size;
    attention
        .tasks()
        .into_par_iter()
        .with_max_len(1)
        .for_each(|(row, kv_head)| {
            let task = Task::new(attention, (row, kv_head), size);
            let (width, stride) = (task.width(), task.stride());
            let (k_turned, v_turned) = (task.turned(k), task.turned(v));
            let k = task.gathered(k, task.keys.clone(), kv_head, 1.0);
            // Blocks of about equal size, of whole strips.
            let blocks = task.queries.len().div_ceil(STRIPS * ROWS).max(1);
            let block = task
                .queries
                .len()
                .div_ceil(blocks)
                .next_multiple_of(ROWS)
                .max(ROWS);
            let mut scores = Buffer::dirty(block * stride);
            let mut dscores = Buffer::dirty(block * stride);
            let mut result = Buffer::dirty(ROWS * width);
            let key_rows = task.keys.len().next_multiple_of(ROWS);
            let mut k_gradient = Buffer::zeros(key_rows * width);
            let mut v_gradient = Buffer::zeros(key_rows * width);
            for head in task.heads() {
                for first in (0..task.queries.len()).step_by(block) {
                    let count = block.min(task.queries.len() - first);
                    let start = task.queries.start + first;
                    let q = task.gathered(q, start..start + count, head, attention.scale);
                    let dout = task.gathered(dout, start..start + count, head, 1.0);
                    let seen_by_block = task.seen(first + count);
                    // The last tile of keys may reach beyond, to keys that later blocks see.
                    let cleared = seen_by_block.next_multiple_of(ROWS);
                    for strip in (0..count).step_by(ROWS) {
                        let height = ROWS.min(count - strip);
                        let seen = task.seen(first + strip + height);
                        let scores = &mut scores[strip * stride..(strip + ROWS) * stride];
                        let dscores = &mut dscores[strip * stride..(strip + ROWS) * stride];
                        let q = (&q[strip * width..], width);
                        task.strip(&NUMBERS, q, &k_turned, seen, (&mut *scores, stride));
                        let dout = (&dout[strip * width..], width);
                        task.strip(&NUMBERS, dout, &v_turned, seen, (&mut *dscores, stride));
                        let lines = scores
                            .chunks_exact_mut(stride)
                            .zip(dscores.chunks_exact_mut(stride));
                        for (i, (scores, dscores)) in lines.take(height).enumerate() {
                            let query = first + strip + i;
                            add(scores, task.bias(head, query));
                            let (_, visible) = attention.place(row, query);
                            let lse = lse[(task.queries.start + query) * attention.heads + head];
                            let whole = visible.next_multiple_of(turn::SIDE);
                            scores[visible..whole].fill(f32::NEG_INFINITY);
                            dscores[visible..whole].fill(0.0);
                            softmax_vjp_row(&mut scores[..whole], &mut dscores[..whole], lse, 1.0);
                            scores[visible..cleared].fill(0.0);
                            dscores[visible..cleared].fill(0.0);
                        }
                        tiles(
                            &NUMBERS,
                            Left::Rows(dscores, stride),
                            Right::matrix(&k, width),
                            seen,
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
                            scale_into(dq, &result[..size], attention.scale);
                        }
                    }
                    for first in (0..seen_by_block).step_by(ROWS) {
                        for (gradient, left, right) in [
                            (&mut v_gradient, &scores, &dout),
                            (&mut k_gradient, &dscores, &q),
                        ] {
                            tiles(
                                &NUMBERS,
                                Left::Columns(&left[first..], stride),
                                Right::matrix(right, width),
                                count,
                                (&mut gradient[first * width..], width, width),
                                true,
                            );
                        }
                    }
                }
            }
            for (i, position) in task.keys.clone().enumerate() {
                let range = i * width..i * width + size;
                #[expect(unsafe_code, reason = "tasks write disjoint columns of one matrix")]
                // SAFETY: this row and key-value head belong to this task alone; keys and values have their own columns.
                unsafe {
                    dk.row(position, kv_head * size, size)
                        .copy_from_slice(&k_gradient[range.clone()]);
                    dv.row(position, kv_head * size, size)
                        .copy_from_slice(&v_gradient[range]);
                }
            }
        });
}

/// Asks for numbers that are needed soon.
pub(super) fn prefetch(numbers: &[f32], start: usize, count: usize) {
    for place in (start..start + count).step_by(turn::SIDE) {
        if let Some(number) = numbers.get(place) {
            #[expect(unsafe_code, reason = "a hint to the processor")]
            // SAFETY: changes nothing but what the caches hold.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(number).cast());
            }
        }
    }
}

/// The left operand of twelve rows: numbers and the distance of what is `stride` apart.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// Row after row.
    Rows(&'a [f32], usize),
    /// Term after term, the twelve numbers of each side by side.
    Columns(&'a [f32], usize),
}

/// The right operand: terms `stride` apart, tiles of 32 columns `tile` apart.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) stride: usize,
    pub(super) tile: usize,
}

impl<'a> Right<'a> {
    pub(super) fn matrix(numbers: &'a [f32], stride: usize) -> Self {
        Self {
            numbers,
            stride,
            tile: COLS,
        }
    }
}

/// Tiles of 12 rows for one kind of terms: over numbers of terms and of what is added up, see [`tiles`].
type Tile = unsafe fn(usize, (*const f32, usize), (*const f32, usize), (*mut f32, usize), bool);

/// Tiles of two registers, then of one, each with the left operand by rows, then by columns.
pub(super) type Tiles = [[Tile; 2]; 2];

/// `result[12, columns] = left · right` over `depth` terms, or added to it; columns in whole registers. The processor
/// must have what the tiles need.
pub(super) fn tiles(
    kernels: &Tiles,
    left: Left<'_>,
    right: Right<'_>,
    depth: usize,
    (result, result_stride, columns): (&mut [f32], usize, usize),
    add: bool,
) {
    assert!(columns.is_multiple_of(turn::SIDE) && columns <= result_stride);
    assert!((ROWS - 1) * result_stride + columns <= result.len());
    if depth == 0 {
        if !add {
            result.fill(0.0);
        }
        return;
    }
    let (numbers, left_stride, by_columns) = match left {
        Left::Rows(numbers, stride) => {
            assert!((ROWS - 1) * stride + depth <= numbers.len());
            (numbers, stride, false)
        }
        Left::Columns(numbers, stride) => {
            assert!((depth - 1) * stride + ROWS <= numbers.len());
            (numbers, stride, true)
        }
    };
    for (number, first) in (0..columns).step_by(COLS).enumerate() {
        let wide = columns - first >= COLS;
        let start = number * right.tile;
        let width = if wide { COLS } else { turn::SIDE };
        assert!(start + (depth - 1) * right.stride + width <= right.numbers.len());
        let kernel = kernels[usize::from(!wide)][usize::from(by_columns)];
        #[expect(unsafe_code, reason = "AVX-512 code over pointers")]
        // SAFETY: callers have found the instructions; by the assertions all terms of the operands and the tile lie in
        // their slices.
        unsafe {
            kernel(
                depth,
                (numbers.as_ptr(), left_stride),
                (right.numbers.as_ptr().add(start), right.stride),
                (result.as_mut_ptr().add(first), result_stride),
                add,
            );
        }
    }
}

/// Defines the tile of 12 rows and `VECTORS` registers whose terms are multiplied and added up by one instruction; the
/// left operand by columns or by rows.
macro_rules! define_tile {
    ($features:literal, |$x:ident, $right:ident, $sum:ident| $step:expr) => {
        #[target_feature(enable = $features)]
        #[expect(unsafe_code, reason = "AVX-512 code over pointers")]
        // SAFETY: the operands must hold `depth` terms at their strides, and `c` 12 rows.
        unsafe fn tile<const VECTORS: usize, const BY_COLUMNS: bool>(
            depth: usize,
            (a, a_stride): (*const f32, usize),
            (b, b_stride): (*const f32, usize),
            (c, c_stride): (*mut f32, usize),
            add: bool,
        ) {
            // SAFETY: all offsets are within what the caller promised.
            unsafe {
                let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
                let (mut a, mut b) = (a, b);
                // Every third row has a pointer; those between are reached from it by one register.
                let third = 3 * a_stride;
                for _ in 0..depth {
                    let mut right = [_mm512_setzero_ps(); VECTORS];
                    for (vector, right) in right.iter_mut().enumerate() {
                        *right = _mm512_loadu_ps(b.add(16 * vector));
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let place = if BY_COLUMNS {
                            a.add(row)
                        } else {
                            a.add(row / 3 * third).add(row % 3 * a_stride)
                        };
                        let $x = _mm512_set1_ps(*place);
                        for (sum, $right) in sums.iter_mut().zip(right) {
                            let $sum = *sum;
                            *sum = $step;
                        }
                    }
                    a = a.add(if BY_COLUMNS { a_stride } else { 1 });
                    b = b.add(b_stride);
                }
                for (row, sums) in sums.iter().enumerate() {
                    for (vector, &sum) in sums.iter().enumerate() {
                        let place = c.add(row * c_stride + 16 * vector);
                        let sum = if add {
                            _mm512_add_ps(sum, _mm512_loadu_ps(place))
                        } else {
                            sum
                        };
                        _mm512_storeu_ps(place, sum);
                    }
                }
            }
        }
    };
}
pub(super) use define_tile;

define_tile!("avx512f", |x, right, sum| _mm512_fmadd_ps(x, right, sum));

/// Terms are numbers.
const NUMBERS: Tiles = [
    [tile::<2, false>, tile::<2, true>],
    [tile::<1, false>, tile::<1, true>],
];

#[cfg(test)]
mod tests {
    use super::super::attention::{DistanceBias, forward_by_products, vjp_by_products};
    use super::*;
    use crate::model::rows::Rows;
    use crate::sys::rng::SeededRng;

    /// Output, logarithms of sums, and gradients of queries, keys and values.
    fn run(attention: &Attention<'_>, by_tiles: bool) -> [Vec<f32>; 5] {
        let (heads, kv_heads) = (attention.heads, attention.key_value_heads);
        let (queries, keys) = (heads * attention.head_size, kv_heads * attention.head_size);
        let (count, key_count) = (attention.query_rows.total(), key_count(attention));
        let q = SeededRng::new(1, 0).normals(count * queries, 1.0);
        let kv = SeededRng::new(2, 0).normals(key_count * 2 * keys, 1.0);
        let dout = SeededRng::new(3, 0).normals(count * queries, 1.0);
        let columns = |data, stride, offset| Columns {
            data,
            stride,
            offset,
        };
        let q = columns(&q, queries, 0);
        let (k, v) = (columns(&kv, 2 * keys, 0), columns(&kv, 2 * keys, keys));
        let (mut out, mut lse) = (vec![0.0; count * queries], vec![0.0; count * heads]);
        {
            let out = ColumnsMut::new(&mut out, queries, 0);
            let lse = ColumnsMut::new(&mut lse, heads, 0);
            let forward = if by_tiles {
                forward
            } else {
                forward_by_products
            };
            forward(attention, q, k, v, &out, &lse);
        }
        let mut dq = vec![0.0; count * queries];
        let (mut dk, mut dv) = (vec![0.0; key_count * keys], vec![0.0; key_count * keys]);
        let vjp = if by_tiles { vjp } else { vjp_by_products };
        vjp(
            attention,
            (q, k, v),
            &lse,
            columns(&dout, queries, 0),
            (
                &ColumnsMut::new(&mut dq, queries, 0),
                &ColumnsMut::new(&mut dk, keys, 0),
                &ColumnsMut::new(&mut dv, keys, 0),
            ),
        );
        [out, lse, dq, dk, dv]
    }

    fn key_count(attention: &Attention<'_>) -> usize {
        attention.key_ranges.last().map_or(0, |range| range.end)
    }

    #[test]
    fn values_and_gradients_are_those_of_whole_products() {
        if level() != Level::Avx512 {
            return;
        }
        let lengths = [1, 12, 13, 40, 105, 31, 0];
        let rows = Rows::new(lengths);
        let longer = Rows::new(lengths.map(|length| length + 30));
        let table = SeededRng::new(4, 0).normals(4 * (2 * 140 - 1), 1.0);
        let bias = DistanceBias {
            table: &table,
            span: 140,
        };
        for (kv_heads, head_size, causal, keys, bias) in [
            (4, 64, false, &rows, Some(bias)),
            (4, 16, true, &rows, Some(bias)),
            (2, 20, true, &longer, None),
            (1, 80, false, &longer, None),
            (2, 8, true, &rows, None),
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
            for (found, expected) in run(&attention, true).iter().zip(run(&attention, false)) {
                let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
                let worst = worst.fold(0.0, f32::max);
                assert!(worst < 1e-4, "{worst} with {attention:?}");
            }
        }
    }
}
