//! CPU kernels on plain slices of `f32`: what the frozen engine spends its time in.
//!
//! Nothing here knows candle or a model. Every kernel is deterministic for a given number of threads: each number of a
//! result is computed by one task, in one order, whichever thread runs it.

pub(crate) mod activation;
pub(crate) mod attention;
#[cfg(target_arch = "x86_64")]
pub(crate) mod attention_brain;
#[cfg(target_arch = "x86_64")]
pub(crate) mod attention_tile;
pub(crate) mod brain;
#[cfg(target_arch = "x86_64")]
pub(crate) mod brain_tile;
pub(crate) mod buffer;
pub(crate) mod cross_entropy;
#[cfg(target_arch = "x86_64")]
mod few_rows;
mod heap;
pub(crate) mod matmul;
pub(crate) mod memory_attention;
pub(crate) mod norm;
pub(crate) mod pairs;
pub(crate) mod rotary;
#[cfg(target_arch = "x86_64")]
mod shares;
pub(crate) mod simd;
#[cfg(target_arch = "x86_64")]
mod softmax_brain;
pub(crate) mod tile;
#[cfg(target_arch = "x86_64")]
pub(crate) mod turn;

use rayon::prelude::*;

/// Rows of a matrix that one task handles: small enough to share the work, large enough to pay for the task.
fn rows_per_task(rows: usize) -> usize {
    rows.div_ceil(rayon::current_num_threads() * 4).max(1)
}

/// Runs `work(first_row, rows)` over the rows of a matrix `width` wide, in parallel.
pub(crate) fn for_each_rows(
    matrix: &mut [f32],
    width: usize,
    work: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    if matrix.is_empty() {
        return;
    }
    let rows = matrix.len() / width;
    let per_task = rows_per_task(rows);
    matrix
        .par_chunks_mut(per_task * width)
        .enumerate()
        .for_each(|(task, part)| work(task * per_task, part));
}
