//! Softmax attention of packed rows, forward and vector-Jacobian product.
//!
//! A task is one row and one key-value head. It works through blocks of queries against all keys that they see, so
//! scores exist for one block at a time and never for a whole batch; for the backward only the logarithm of each
//! softmax's sum is kept and the scores are computed again (Dao et al. 2022, "FlashAttention", with the keys of a
//! row as one block). Rows need no padding: each has its own length.

use std::ops::Range;

use rayon::prelude::*;

use super::buffer::Buffer;
use super::matmul::{Into, MatMut, MatRef, Right, Threads, matmul, matmul_prepared};
use super::pairs::Form;
use super::simd::{LANES, exp, max, sum2, vectorized};
#[cfg(target_arch = "x86_64")]
use super::{attention_brain, attention_tile};
use crate::model::rows::Rows;

/// Queries of a block: a multiple of the matrix product's 12 rows; scores of a block and 512 keys are 200 kB.
const QUERY_BLOCK: usize = 96;

/// A score added for each head and distance (key position - query position).
#[derive(Clone, Copy, Debug)]
pub(crate) struct DistanceBias<'a> {
    /// [heads, 2 · span - 1]; distance 0 stands at `span - 1`.
    pub(crate) table: &'a [f32],
    /// One more than the largest distance in the table.
    pub(crate) span: usize,
}

/// What one attention computes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention<'a> {
    /// Query heads.
    pub(crate) heads: usize,
    /// Key-value heads; `heads` is a multiple of it (grouped queries, Ainslie et al. 2023).
    pub(crate) key_value_heads: usize,
    /// Numbers in a head.
    pub(crate) head_size: usize,
    /// Factor of query · key.
    pub(crate) scale: f32,
    /// Whether a query sees only keys up to its own position; the last query stands at the last key.
    pub(crate) causal: bool,
    /// Rows of the queries.
    pub(crate) query_rows: &'a Rows,
    /// Where the keys and values of each row lie; as many as there are rows of queries.
    pub(crate) key_ranges: &'a [Range<usize>],
    /// Relative positions, where the model has them.
    pub(crate) bias: Option<DistanceBias<'a>>,
}

/// Some columns of a row-major matrix: heads side by side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<'a> {
    /// The whole matrix.
    pub(crate) data: &'a [f32],
    /// Its width.
    pub(crate) stride: usize,
    /// First column meant.
    pub(crate) offset: usize,
}

/// Some columns of a row-major matrix to write.
pub(crate) struct ColumnsMut<'a> {
    pointer: *mut f32,
    length: usize,
    stride: usize,
    offset: usize,
    lifetime: std::marker::PhantomData<&'a mut [f32]>,
}

#[expect(unsafe_code, reason = "tasks write disjoint columns of one matrix")]
// SAFETY: the pointer is only used by `row`, whose callers promise disjoint places.
unsafe impl Send for ColumnsMut<'_> {}
#[expect(unsafe_code, reason = "tasks write disjoint columns of one matrix")]
// SAFETY: as above.
unsafe impl Sync for ColumnsMut<'_> {}

impl<'a> ColumnsMut<'a> {
    /// Columns of `data`, a matrix `stride` wide, from `offset` on.
    pub(crate) fn new(data: &'a mut [f32], stride: usize, offset: usize) -> Self {
        Self {
            pointer: data.as_mut_ptr(),
            length: data.len(),
            stride,
            offset,
            lifetime: std::marker::PhantomData,
        }
    }

    /// Several column groups of one matrix.
    pub(crate) fn split<const COUNT: usize>(
        data: &'a mut [f32],
        stride: usize,
        offsets: [usize; COUNT],
    ) -> [Self; COUNT] {
        let (pointer, length) = (data.as_mut_ptr(), data.len());
        offsets.map(|offset| Self {
            pointer,
            length,
            stride,
            offset,
            lifetime: std::marker::PhantomData,
        })
    }

    /// Numbers `column..column + width` of row `row`.
    #[expect(unsafe_code, reason = "tasks write disjoint columns of one matrix")]
    #[expect(
        clippy::mut_from_ref,
        reason = "the places of different calls are disjoint"
    )]
    // SAFETY: the caller must see to it that no two slices alive at a time overlap.
    pub(super) unsafe fn row(&self, row: usize, column: usize, width: usize) -> &mut [f32] {
        let start = row * self.stride + self.offset + column;
        assert!(start + width <= self.length, "a row lies beyond its matrix");
        // SAFETY: within the matrix by the assertion, and disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), width) }
    }
}

/// What a block of queries sees.
struct Block {
    /// First query within the row.
    first: usize,
    queries: usize,
    /// Keys that the last query of the block sees.
    keys: usize,
}

impl Attention<'_> {
    fn blocks(&self, row: usize) -> impl Iterator<Item = Block> + use<> {
        let (queries, keys) = (self.query_rows.lengths()[row], self.key_ranges[row].len());
        let causal = self.causal;
        (0..queries).step_by(QUERY_BLOCK).map(move |first| {
            let count = QUERY_BLOCK.min(queries - first);
            let seen = if causal {
                (keys + first + count).saturating_sub(queries)
            } else {
                keys
            };
            Block {
                first,
                queries: count,
                keys: seen,
            }
        })
    }

    /// Adds the bias and says how many keys query `query` of row `row` sees.
    pub(super) fn place(&self, row: usize, query: usize) -> (usize, usize) {
        let (queries, keys) = (self.query_rows.lengths()[row], self.key_ranges[row].len());
        // The position of this query among the keys. Without causality (cross attention) only a bias would use it.
        let position = (keys + query).saturating_sub(queries);
        let visible = if self.causal { position + 1 } else { keys };
        (position, visible)
    }

    pub(super) fn tasks(&self) -> Vec<(usize, usize)> {
        // Longest rows first, so that no thread is left with one at the end.
        let mut rows: Vec<usize> = (0..self.query_rows.count()).collect();
        rows.sort_by_key(|&row| {
            std::cmp::Reverse(self.query_rows.lengths()[row] * self.key_ranges[row].len())
        });
        rows.into_iter()
            .flat_map(|row| (0..self.key_value_heads).map(move |head| (row, head)))
            .collect()
    }

    fn scores(
        &self,
        row: usize,
        head: usize,
        block: &Block,
        q: &[f32],
        keys: &Right<'_>,
        scores: &mut [f32],
    ) {
        let size = self.head_size;
        matmul_prepared(
            MatMut::packed(scores, block.queries, block.keys),
            Into::Overwrite,
            self.scale,
            MatRef::packed(&q[block.first * size..], block.queries, size),
            keys,
            Threads::One,
        );
        if let Some(bias) = self.bias {
            let table = &bias.table[head * (2 * bias.span - 1)..(head + 1) * (2 * bias.span - 1)];
            for (i, scores) in scores
                .chunks_exact_mut(block.keys)
                .take(block.queries)
                .enumerate()
            {
                let (position, visible) = self.place(row, block.first + i);
                let start = bias.span - 1 - position;
                add(&mut scores[..visible], &table[start..start + visible]);
            }
        }
    }
}

vectorized! {
    pub(crate) fn add(target: &mut [f32], source: &[f32]) {
        for (target, source) in target.iter_mut().zip(source) {
            *target += source;
        }
    }
}

vectorized! {
    pub(crate) fn scale_into(target: &mut [f32], source: &[f32], factor: f32) {
        for (target, source) in target.iter_mut().zip(source) {
            *target = source * factor;
        }
    }
}

vectorized! {
    pub(crate) fn scale(numbers: &mut [f32], factor: f32) {
        for number in numbers {
            *number *= factor;
        }
    }
}

/// Turns `row` into e^(x - largest) and gives the sum.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
pub(crate) fn exponentials(row: &mut [f32], largest: f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let mut chunks = row.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = exp(*x - largest);
            *lane += *x;
        }
    }
    let mut sum = 0.0;
    for lane in lanes {
        sum += lane;
    }
    for x in chunks.into_remainder() {
        *x = exp(*x - largest);
        sum += *x;
    }
    sum
}

vectorized! {
    /// e^(x - largest) in place; gives the largest and the sum.
    pub(crate) fn exponential_row(row: &mut [f32]) -> (f32, f32) {
        let largest = max(row);
        (largest, exponentials(row, largest))
    }
}

vectorized! {
    /// With scores `s` and gradients of probabilities `dp`: turns `s` into probabilities p = e^(s - lse), and `dp`
    /// into gradients of scores, scale · p · (dp - Σ p·dp).
    pub(crate) fn softmax_vjp_row(s: &mut [f32], dp: &mut [f32], lse: f32, scale: f32) {
        for s in s.iter_mut() {
            *s = exp(*s - lse);
        }
        let along = sum2(s, dp, |p, dp| p * dp);
        for (dp, &p) in dp.iter_mut().zip(s.iter()) {
            *dp = scale * p * (*dp - along);
        }
    }
}

/// Copies the columns of one head of one row into rows end to end.
fn gather_head(from: Columns<'_>, rows: Range<usize>, column: usize, size: usize) -> Buffer {
    let mut buffer = Buffer::dirty(rows.len() * size);
    for (target, row) in buffer.chunks_exact_mut(size).zip(rows) {
        let start = row * from.stride + from.offset + column;
        target.copy_from_slice(&from.data[start..start + size]);
    }
    buffer
}

/// Keys or values of one head of one row: copied where many queries will read them, in place where few will.
enum Head<'a> {
    Copied(Buffer),
    InPlace(&'a [f32], usize),
}

impl<'a> Head<'a> {
    /// Below this many queries a copy costs more than it saves.
    const WORTH_COPYING: usize = 16;

    fn new(
        from: Columns<'a>,
        rows: Range<usize>,
        column: usize,
        size: usize,
        queries: usize,
    ) -> Self {
        if queries >= Self::WORTH_COPYING || rows.is_empty() {
            return Self::Copied(gather_head(from, rows, column, size));
        }
        let start = rows.start * from.stride + from.offset + column;
        Self::InPlace(&from.data[start..], from.stride)
    }

    fn matrix(&self, rows: usize, size: usize) -> MatRef<'_> {
        match self {
            Self::Copied(buffer) => MatRef::packed(buffer, rows, size),
            Self::InPlace(data, stride) => MatRef::new(data, rows, size, *stride),
        }
    }
}

/// `out[q] = Σ softmax(scale · q·k + bias) v`, and the logarithm of each softmax's sum to `lse` [N, heads].
pub(crate) fn forward(
    attention: &Attention<'_>,
    q: Columns<'_>,
    k: Columns<'_>,
    v: Columns<'_>,
    out: &ColumnsMut<'_>,
    lse: &ColumnsMut<'_>,
) {
    #[cfg(target_arch = "x86_64")]
    if attention_tile::is_worth_it(attention.query_rows.longest()) {
        attention_tile::forward(attention, q, k, v, out, lse);
        return;
    }
    forward_by_products(attention, q, k, v, out, lse);
}

/// [`forward`] of either form; columns are counted in words of it, and `lse` is in f32 in both.
pub(crate) fn forward_in(
    form: Form,
    attention: &Attention<'_>,
    (q, k, v): (Columns<'_>, Columns<'_>, Columns<'_>),
    out: &ColumnsMut<'_>,
    lse: &ColumnsMut<'_>,
) {
    match form {
        Form::Numbers => forward(attention, q, k, v, out, lse),
        #[cfg(target_arch = "x86_64")]
        Form::Pairs => attention_brain::forward(attention, (q, k, v), out, lse),
        #[cfg(not(target_arch = "x86_64"))]
        Form::Pairs => unreachable!("pairs on a processor without products of them"),
    }
}

/// [`forward`] by whole matrix products for a block of queries.
pub(super) fn forward_by_products(
    attention: &Attention<'_>,
    q: Columns<'_>,
    k: Columns<'_>,
    v: Columns<'_>,
    out: &ColumnsMut<'_>,
    lse: &ColumnsMut<'_>,
) {
    let size = attention.head_size;
    let group = attention.heads / attention.key_value_heads;
    attention
        .tasks()
        .into_par_iter()
        .with_max_len(1)
        .for_each(|(row, kv_head)| {
            let (queries, keys) = (
                attention.query_rows.range(row),
                attention.key_ranges[row].clone(),
            );
            let k = Head::new(k, keys.clone(), kv_head * size, size, queries.len());
            let v = Head::new(v, keys.clone(), kv_head * size, size, queries.len());
            let (k, v) = (k.matrix(keys.len(), size), v.matrix(keys.len(), size));
            let uses = group * queries.len();
            let k = Right::prepare(k.transposed(), uses, Threads::One);
            let v = Right::prepare(v, uses, Threads::One);
            let mut scores = Buffer::dirty(QUERY_BLOCK.min(queries.len()) * keys.len());
            let mut result = Buffer::dirty(QUERY_BLOCK.min(queries.len()) * size);
            for head in kv_head * group..(kv_head + 1) * group {
                let q = gather_head(q, queries.clone(), head * size, size);
                for block in attention.blocks(row) {
                    attention.scores(row, head, &block, &q, &k, &mut scores);
                    let mut sums = [(0.0, 0.0); QUERY_BLOCK];
                    for (i, scores) in scores
                        .chunks_exact_mut(block.keys.max(1))
                        .take(block.queries)
                        .enumerate()
                    {
                        let (_, visible) = attention.place(row, block.first + i);
                        sums[i] = exponential_row(&mut scores[..visible]);
                        scores[visible..].fill(0.0);
                    }
                    matmul_prepared(
                        MatMut::packed(&mut result, block.queries, size),
                        Into::Overwrite,
                        1.0,
                        MatRef::packed(&scores, block.queries, block.keys),
                        &v,
                        Threads::One,
                    );
                    for (i, result) in result.chunks_exact(size).take(block.queries).enumerate() {
                        let position = queries.start + block.first + i;
                        let (largest, sum) = sums[i];
                        #[expect(
                            unsafe_code,
                            reason = "tasks write disjoint columns of one matrix"
                        )]
                        // SAFETY: this query and head belong to this task alone, and `out` and `lse` are two matrices.
                        let (out, lse) = unsafe {
                            (
                                out.row(position, head * size, size),
                                lse.row(position, head, 1),
                            )
                        };
                        scale_into(out, result, 1.0 / sum);
                        lse[0] = largest + sum.ln();
                    }
                }
            }
        });
}

/// Gradients of queries, keys and values from those of the output, `dout` [N, heads · size].
pub(crate) fn vjp(
    attention: &Attention<'_>,
    (q, k, v): (Columns<'_>, Columns<'_>, Columns<'_>),
    lse: &[f32],
    dout: Columns<'_>,
    (dq, dk, dv): (&ColumnsMut<'_>, &ColumnsMut<'_>, &ColumnsMut<'_>),
) {
    #[cfg(target_arch = "x86_64")]
    if attention_tile::is_worth_it(attention.query_rows.longest()) {
        attention_tile::vjp(attention, (q, k, v), lse, dout, (dq, dk, dv));
        return;
    }
    vjp_by_products(attention, (q, k, v), lse, dout, (dq, dk, dv));
}

/// [`vjp`] of either form, as [`forward_in`].
pub(crate) fn vjp_in(
    form: Form,
    attention: &Attention<'_>,
    operands: (Columns<'_>, Columns<'_>, Columns<'_>),
    lse: &[f32],
    dout: Columns<'_>,
    gradients: (&ColumnsMut<'_>, &ColumnsMut<'_>, &ColumnsMut<'_>),
) {
    match form {
        Form::Numbers => vjp(attention, operands, lse, dout, gradients),
        #[cfg(target_arch = "x86_64")]
        Form::Pairs => attention_brain::vjp(attention, operands, lse, dout, gradients),
        #[cfg(not(target_arch = "x86_64"))]
        Form::Pairs => unreachable!("pairs on a processor without products of them"),
    }
}

/// [`vjp`] by whole matrix products for a block of queries.
pub(super) fn vjp_by_products(
    attention: &Attention<'_>,
    (q, k, v): (Columns<'_>, Columns<'_>, Columns<'_>),
    lse: &[f32],
    dout: Columns<'_>,
    (dq, dk, dv): (&ColumnsMut<'_>, &ColumnsMut<'_>, &ColumnsMut<'_>),
) {
    let size = attention.head_size;
    let group = attention.heads / attention.key_value_heads;
    attention
        .tasks()
        .into_par_iter()
        .with_max_len(1)
        .for_each(|(row, kv_head)| {
            let (queries, keys) = (
                attention.query_rows.range(row),
                attention.key_ranges[row].clone(),
            );
            let k = Head::new(k, keys.clone(), kv_head * size, size, queries.len());
            let v = Head::new(v, keys.clone(), kv_head * size, size, queries.len());
            let (k, v) = (k.matrix(keys.len(), size), v.matrix(keys.len(), size));
            let uses = group * queries.len();
            let k_across = Right::prepare(k.transposed(), uses, Threads::One);
            let v_across = Right::prepare(v.transposed(), uses, Threads::One);
            let k = Right::prepare(k, uses, Threads::One);
            let block_size = QUERY_BLOCK.min(queries.len());
            let mut scores = Buffer::dirty(block_size * keys.len());
            let mut dscores = Buffer::dirty(block_size * keys.len());
            let mut result = Buffer::dirty(block_size * size);
            let mut k_gradient = Buffer::zeros(keys.len() * size);
            let mut v_gradient = Buffer::zeros(keys.len() * size);
            for head in kv_head * group..(kv_head + 1) * group {
                let q = gather_head(q, queries.clone(), head * size, size);
                let dout = gather_head(dout, queries.clone(), head * size, size);
                for block in attention.blocks(row) {
                    attention.scores(row, head, &block, &q, &k_across, &mut scores);
                    let q = MatRef::packed(&q[block.first * size..], block.queries, size);
                    let dout = MatRef::packed(&dout[block.first * size..], block.queries, size);
                    matmul_prepared(
                        MatMut::packed(&mut dscores, block.queries, block.keys),
                        Into::Overwrite,
                        1.0,
                        dout,
                        &v_across,
                        Threads::One,
                    );
                    for (i, (scores, dscores)) in scores
                        .chunks_exact_mut(block.keys.max(1))
                        .zip(dscores.chunks_exact_mut(block.keys.max(1)))
                        .take(block.queries)
                        .enumerate()
                    {
                        let query = block.first + i;
                        let (_, visible) = attention.place(row, query);
                        let lse = lse[(queries.start + query) * attention.heads + head];
                        softmax_vjp_row(
                            &mut scores[..visible],
                            &mut dscores[..visible],
                            lse,
                            attention.scale,
                        );
                        scores[visible..].fill(0.0);
                        dscores[visible..].fill(0.0);
                    }
                    let probabilities = MatRef::packed(&scores, block.queries, block.keys);
                    let dscores = MatRef::packed(&dscores, block.queries, block.keys);
                    matmul(
                        MatMut::packed(&mut v_gradient, block.keys, size),
                        Into::Add,
                        1.0,
                        probabilities.transposed(),
                        dout,
                        Threads::One,
                    );
                    matmul(
                        MatMut::packed(&mut k_gradient, block.keys, size),
                        Into::Add,
                        1.0,
                        dscores.transposed(),
                        q,
                        Threads::One,
                    );
                    matmul_prepared(
                        MatMut::packed(&mut result, block.queries, size),
                        Into::Overwrite,
                        1.0,
                        dscores,
                        &k,
                        Threads::One,
                    );
                    for (i, result) in result.chunks_exact(size).take(block.queries).enumerate() {
                        let position = queries.start + block.first + i;
                        #[expect(
                            unsafe_code,
                            reason = "tasks write disjoint columns of one matrix"
                        )]
                        // SAFETY: this query and head belong to this task alone.
                        unsafe { dq.row(position, head * size, size) }.copy_from_slice(result);
                    }
                }
            }
            for (i, position) in keys.enumerate() {
                let range = i * size..(i + 1) * size;
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
