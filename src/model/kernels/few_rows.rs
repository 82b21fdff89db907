//! The matrix product of few rows, as a step of decoding has them: the right operand is read once, where it lies.
//!
//! Packing a weight for large tiles costs more than its product with a few rows, which the memory bounds. A result is
//! summed in one order whatever rows stand beside it, so that an answer does not depend on its batch.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_set1_ps, _mm512_setzero_ps,
};

use rayon::prelude::*;

use super::matmul::{Into, MatMut, MatRef, Threads};
use super::turn::first;

/// Numbers of a register.
const LANES: usize = 16;
/// Rows, and columns or registers of columns, of a tile.
const SIDE: usize = 4;
/// Columns of a strip.
const STRIP: usize = SIDE * LANES;
/// Strips of a task, at most.
const STRIPS: usize = 4;
/// Terms that all strips and rows of a task have behind them before the next are read.
const TERMS: usize = 128;
/// Multiplications below which other threads are no help.
const SMALL: usize = 1 << 18;

/// `result = scale · left · right` (or added to it), where the numbers of a row of `left` lie side by side. Only for
/// processors with AVX-512.
pub(crate) fn product(
    result: MatMut<'_>,
    into: Into,
    scale: f32,
    left: MatRef<'_>,
    right: MatRef<'_>,
    threads: Threads,
) {
    let (rows, cols, terms) = (left.rows(), right.cols(), left.cols());
    assert!(right.rows() == terms && result.rows() == rows && result.cols() == cols);
    let target = Target {
        stride: result.row_stride(),
        length: result.length(),
        pointer: result.into_pointer(),
    };
    // Where there are columns for all threads, a task's are many, so that what it reads lies side by side.
    let strips = cols.div_ceil(STRIP);
    let task_strips = (strips / rayon::current_num_threads()).clamp(1, STRIPS);
    let width = task_strips * STRIP;
    let work = |task: usize| {
        let columns = task * width..cols.min((task + 1) * width);
        if right.rows_are_contiguous() {
            target.add_rows(columns, into, scale, left, right);
        } else {
            target.dot_columns(columns, into, scale, left, right.transposed());
        }
    };
    let tasks = cols.div_ceil(width);
    if threads == Threads::One || rows * cols * terms < SMALL {
        (0..tasks).for_each(work);
    } else {
        let least = tasks.div_ceil(8 * rayon::current_num_threads()).max(1);
        (0..tasks)
            .into_par_iter()
            .with_min_len(least)
            .for_each(work);
    }
}

/// The result, of which tasks write disjoint columns.
#[derive(Clone, Copy)]
struct Target {
    pointer: *mut f32,
    length: usize,
    stride: usize,
}

#[expect(unsafe_code, reason = "tasks write disjoint columns of one matrix")]
// SAFETY: `product` gives every column to one task.
unsafe impl Send for Target {}
#[expect(unsafe_code, reason = "tasks write disjoint columns of one matrix")]
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// Columns of the result from as many rows of `right`, the operand transposed: sums along both rows.
    fn dot_columns(
        self,
        columns: std::ops::Range<usize>,
        into: Into,
        scale: f32,
        left: MatRef<'_>,
        right: MatRef<'_>,
    ) {
        let mut column = columns.start;
        while column < columns.end {
            let width = if columns.end - column >= SIDE {
                SIDE
            } else {
                1
            };
            let mut row = 0;
            while row < left.rows() {
                let height = if left.rows() - row >= SIDE { SIDE } else { 1 };
                let mut sums = [[0.0_f32; SIDE]; SIDE];
                let rows = |at: usize, most: usize| {
                    std::array::from_fn(|i| left.row(at + i.min(most - 1)))
                };
                let weights: [&[f32]; SIDE] =
                    std::array::from_fn(|i| right.row(column + i.min(width - 1)));
                let lefts: [&[f32]; SIDE] = rows(row, height);
                #[expect(unsafe_code, reason = "AVX-512 code")]
                // SAFETY: callers have found AVX-512.
                unsafe {
                    match (height, width) {
                        (SIDE, SIDE) => dots::<SIDE, SIDE>(lefts, weights, &mut sums),
                        (SIDE, _) => dots::<SIDE, 1>(lefts, weights, &mut sums),
                        (_, SIDE) => dots::<1, SIDE>(lefts, weights, &mut sums),
                        _ => dots::<1, 1>(lefts, weights, &mut sums),
                    }
                }
                for (i, sums) in sums.iter().enumerate().take(height) {
                    let start = (row + i) * self.stride + column;
                    assert!(start + width <= self.length);
                    #[expect(unsafe_code, reason = "a part of a shared matrix")]
                    // SAFETY: within the result by the assertion, and columns of this task alone.
                    let target =
                        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), width) };
                    for (target, sum) in target.iter_mut().zip(sums) {
                        let value = sum * scale;
                        *target = if into == Into::Add {
                            *target + value
                        } else {
                            value
                        };
                    }
                }
                row += height;
            }
            column += width;
        }
    }

    /// Columns of the result from the same of every row of `right`: each number is summed in blocks of terms.
    fn add_rows(
        self,
        columns: std::ops::Range<usize>,
        into: Into,
        scale: f32,
        left: MatRef<'_>,
        right: MatRef<'_>,
    ) {
        for first in (0..right.rows()).step_by(TERMS) {
            let terms = first..right.rows().min(first + TERMS);
            let add = first > 0 || into == Into::Add;
            for start in columns.clone().step_by(STRIP) {
                let strip = start..columns.end.min(start + STRIP);
                self.add_terms(strip, terms.clone(), (scale, add), left, right);
            }
        }
    }

    /// A strip of [`Self::add_rows`] from some of the terms.
    fn add_terms(
        self,
        strip: std::ops::Range<usize>,
        terms: std::ops::Range<usize>,
        (scale, add): (f32, bool),
        left: MatRef<'_>,
        right: MatRef<'_>,
    ) {
        let width = strip.len();
        let (weights, weight_stride) = right.columns(strip.start, width).rows_from(terms.start);
        assert!(width <= STRIP && (terms.len() - 1) * weight_stride + width <= weights.len());
        let mut row = 0;
        while row < left.rows() {
            let height = if left.rows() - row >= SIDE { SIDE } else { 1 };
            let lefts: [&[f32]; SIDE] =
                std::array::from_fn(|i| &left.row(row + i.min(height - 1))[terms.clone()]);
            let start = row * self.stride + strip.start;
            assert!(start + (height - 1) * self.stride + width <= self.length);
            #[expect(unsafe_code, reason = "AVX-512 code over pointers")]
            // SAFETY: callers have found AVX-512; both matrices hold these columns and terms by the assertions, and the
            // columns of the result are this task's alone.
            unsafe {
                let target = (self.pointer.add(start), self.stride);
                let weights = (weights.as_ptr(), weight_stride);
                if height == SIDE {
                    axpys::<SIDE>(lefts, weights, target, (width, scale, add));
                } else {
                    axpys::<1>(lefts, weights, target, (width, scale, add));
                }
            }
            row += height;
        }
    }
}

/// The sums of products of the first `ROWS` of `left` with the first `COLS` of `right`.
#[target_feature(enable = "avx512f")]
fn dots<const ROWS: usize, const COLS: usize>(
    left: [&[f32]; SIDE],
    right: [&[f32]; SIDE],
    sums: &mut [[f32; SIDE]; SIDE],
) {
    let terms = left[0].len();
    assert!(left.iter().chain(&right).all(|row| row.len() == terms));
    let mut totals = [[_mm512_setzero_ps(); COLS]; ROWS];
    for term in (0..terms).step_by(LANES) {
        let mask = first(terms - term);
        #[expect(unsafe_code, reason = "loads of registers")]
        // SAFETY: the mask leaves out what is beyond the `terms` numbers that every row has.
        let load = |row: &[f32]| -> __m512 {
            unsafe { _mm512_maskz_loadu_ps(mask, row.as_ptr().add(term)) }
        };
        let weights: [__m512; COLS] = std::array::from_fn(|i| load(right[i]));
        for (totals, left) in totals.iter_mut().zip(left) {
            let x = load(left);
            for (total, &weight) in totals.iter_mut().zip(&weights) {
                *total = _mm512_fmadd_ps(x, weight, *total);
            }
        }
    }
    for (sums, totals) in sums.iter_mut().zip(&totals) {
        for (sum, &total) in sums.iter_mut().zip(totals) {
            *sum = _mm512_reduce_add_ps(total);
        }
    }
}

/// `width` columns, at most 64, of the first `ROWS` of `left` times `weights` (rows a stride apart).
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "AVX-512 code over pointers")]
// SAFETY: `weights` must hold `width` numbers of as many rows as `left` has terms, and the target `width` numbers of
// `ROWS` rows.
unsafe fn axpys<const ROWS: usize>(
    left: [&[f32]; SIDE],
    (weights, weight_stride): (*const f32, usize),
    (target, stride): (*mut f32, usize),
    (width, scale, add): (usize, f32, bool),
) {
    let masks: [u16; SIDE] = std::array::from_fn(|i| first(width.saturating_sub(i * LANES)));
    let mut totals = [[_mm512_setzero_ps(); SIDE]; ROWS];
    for term in 0..left[0].len() {
        // SAFETY: the masks leave out what is beyond `width`.
        let weights: [__m512; SIDE] = std::array::from_fn(|i| unsafe {
            let place = weights.wrapping_add(term * weight_stride + i * LANES);
            _mm512_maskz_loadu_ps(masks[i], place)
        });
        for (totals, left) in totals.iter_mut().zip(left) {
            let x = _mm512_set1_ps(left[term]);
            for (total, &weight) in totals.iter_mut().zip(&weights) {
                *total = _mm512_fmadd_ps(x, weight, *total);
            }
        }
    }
    let scale = _mm512_set1_ps(scale);
    for (i, totals) in totals.iter().enumerate() {
        for (j, (&total, &mask)) in totals.iter().zip(&masks).enumerate() {
            let place = target.wrapping_add(i * stride + j * LANES);
            let mut value = _mm512_mul_ps(total, scale);
            // SAFETY: as above.
            unsafe {
                if add {
                    value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, place));
                }
                _mm512_mask_storeu_ps(place, mask, value);
            }
        }
    }
}
