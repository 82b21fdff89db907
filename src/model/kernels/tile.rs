//! The matrix product for processors with AVX-512: both operands packed into tiles, 12 x 32 results in registers.
//!
//! The layout is that of BLIS (Van Zee and van de Geijn 2015) with one simplification: a tile's operands stream from
//! the second-level cache at some 7 bytes a cycle, so that only `DEPTH` is blocked. The right operand of a product
//! that is computed many times (a frozen weight's batch, the keys of a head) is packed once for all of them.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::{
    _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_storeu_ps,
};

use rayon::prelude::*;

use super::buffer::Buffer;
use super::matmul::{Into, MatMut, MatRef, Threads};
use super::shares::share_out;
use super::simd::will_write;
use super::turn;

/// Rows of a tile.
const ROWS: usize = 12;
/// Columns of a tile: two registers.
const COLS: usize = 32;
/// Terms of a sum that are added up in registers.
const DEPTH: usize = 512;
/// Tiles of the left operand that a task packs and works on, at most.
const TASK_TILES: usize = 6;
/// Panels of the right operand that a task works on where there are few rows.
const TASK_PANELS: usize = 4;

/// A right operand [K, C] in panels: for each block of `DEPTH` terms, for each 32 columns, [terms, 32].
pub(crate) struct Panels {
    data: Buffer,
    terms: usize,
    cols: usize,
}

impl Panels {
    /// Packs `right`.
    pub(crate) fn pack(right: MatRef<'_>, threads: Threads) -> Self {
        let (terms, cols) = (right.rows(), right.cols());
        let panels = cols.div_ceil(COLS);
        let mut data = Buffer::dirty(panels * COLS * terms);
        // One panel with all of its terms is contiguous only within a block of terms: hand out blocks of panels.
        for (block, first) in (0..terms).step_by(DEPTH).enumerate() {
            let depth = DEPTH.min(terms - first);
            let start = block * DEPTH * panels * COLS;
            let part = &mut data[start..start + depth * panels * COLS];
            let pack = |(panel, target): (usize, &mut [f32])| {
                pack_panel(right, first, panel * COLS, target);
            };
            match threads {
                Threads::One => part
                    .chunks_exact_mut(depth * COLS)
                    .enumerate()
                    .for_each(pack),
                Threads::All => part
                    .par_chunks_exact_mut(depth * COLS)
                    .enumerate()
                    .for_each(pack),
            }
        }
        Self { data, terms, cols }
    }

    /// Terms and columns.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.terms, self.cols)
    }

    /// `depth` terms of panel `panel` from `first` on, which starts a block of terms.
    fn panel(&self, first: usize, depth: usize, panel: usize) -> &[f32] {
        let panels = self.cols.div_ceil(COLS);
        let packed_depth = DEPTH.min(self.terms - first);
        let start = first * panels * COLS + panel * packed_depth * COLS;
        &self.data[start..start + depth * COLS]
    }
}

/// [terms, 32] of the columns from `col`, zeros beyond the last.
fn pack_panel(right: MatRef<'_>, first: usize, col: usize, target: &mut [f32]) {
    let width = COLS.min(right.cols() - col);
    if width < COLS {
        target.fill(0.0);
    }
    if right.rows_are_contiguous() {
        for (term, target) in target.chunks_exact_mut(COLS).enumerate() {
            target[..width].copy_from_slice(&right.row(first + term)[col..col + width]);
        }
    } else {
        let depth = target.len() / COLS;
        for half in (0..width).step_by(turn::SIDE) {
            let (rows, stride) = right.transposed().rows_from(col + half);
            let sizes = (turn::SIDE.min(width - half), depth, stride);
            turn::turn(
                &rows[first..],
                sizes,
                &mut target[half..],
                (turn::SIDE, COLS),
            );
        }
    }
}

/// Rows `row..row + 12` of terms `first..first + depth` as [terms, 12], zeros beyond the last row.
fn pack_rows(left: MatRef<'_>, row: usize, first: usize, target: &mut [f32]) {
    let height = ROWS.min(left.rows() - row);
    if height < ROWS {
        target.fill(0.0);
    }
    if left.rows_are_contiguous() {
        let (rows, stride) = left.rows_from(row);
        let depth = target.len() / ROWS;
        turn::turn(
            &rows[first..],
            (height, depth, stride),
            target,
            (ROWS, ROWS),
        );
    } else {
        let transposed = left.transposed();
        for (term, target) in target.chunks_exact_mut(ROWS).enumerate() {
            target[..height].copy_from_slice(&transposed.row(first + term)[row..row + height]);
        }
    }
}

/// `result = scale · left · right` (or added to it), where `right` may have more terms and columns than are used.
/// Only for processors with AVX-512.
pub(crate) fn product(
    result: MatMut<'_>,
    into: Into,
    scale: f32,
    left: MatRef<'_>,
    right: &Panels,
    threads: Threads,
) {
    let (rows, cols, terms) = (left.rows(), result.cols(), left.cols());
    let panels = cols.div_ceil(COLS);
    let target = Target {
        stride: result.row_stride(),
        length: result.length(),
        pointer: result.into_pointer(),
    };
    let work = |rows: std::ops::Range<usize>, panels: std::ops::Range<usize>| {
        let mut packed = Buffer::dirty(rows.len().next_multiple_of(ROWS) * DEPTH.min(terms));
        for first in (0..terms).step_by(DEPTH) {
            let depth = DEPTH.min(terms - first);
            for (tile, packed) in packed.chunks_exact_mut(ROWS * depth).enumerate() {
                if rows.start + tile * ROWS < rows.end {
                    pack_rows(left, rows.start + tile * ROWS, first, packed);
                }
            }
            let add = first > 0 || into == Into::Add;
            for panel in panels.clone() {
                let b = right.panel(first, depth, panel);
                let width = COLS.min(cols - panel * COLS);
                for (tile, row) in rows.clone().step_by(ROWS).enumerate() {
                    let a = &packed[tile * ROWS * depth..(tile + 1) * ROWS * depth];
                    let height = ROWS.min(rows.end - row);
                    target.tile(row, panel * COLS, (height, width), a, b, scale, add);
                }
            }
        }
    };
    share_out(
        rows,
        (ROWS, TASK_TILES),
        (panels, TASK_PANELS),
        threads,
        work,
    );
}

/// The result, of which tasks write disjoint tiles.
#[derive(Clone, Copy)]
struct Target {
    pointer: *mut f32,
    length: usize,
    stride: usize,
}

#[expect(unsafe_code, reason = "tasks write disjoint tiles of one matrix")]
// SAFETY: `product` gives every tile to one task.
unsafe impl Send for Target {}
#[expect(unsafe_code, reason = "tasks write disjoint tiles of one matrix")]
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    #[expect(clippy::too_many_arguments, reason = "the coordinates of a tile")]
    fn tile(
        &self,
        row: usize,
        col: usize,
        (height, width): (usize, usize),
        a: &[f32],
        b: &[f32],
        scale: f32,
        add: bool,
    ) {
        let depth = b.len() / COLS;
        assert!(a.len() >= depth * ROWS && height <= ROWS && width <= COLS);
        let start = row * self.stride + col;
        assert!(start + (height - 1) * self.stride + width <= self.length);
        #[expect(unsafe_code, reason = "AVX-512 code over pointers")]
        // SAFETY: callers have found AVX-512; `a` and `b` hold `depth` terms; the tile lies in the result by the
        // assertion above and belongs to this task alone.
        unsafe {
            let target = self.pointer.add(start);
            if height == ROWS && width == COLS {
                tile_avx512(
                    depth,
                    a.as_ptr(),
                    b.as_ptr(),
                    target,
                    self.stride,
                    scale,
                    add,
                );
                return;
            }
            let mut whole = [0.0_f32; ROWS * COLS];
            tile_avx512(
                depth,
                a.as_ptr(),
                b.as_ptr(),
                whole.as_mut_ptr(),
                COLS,
                scale,
                false,
            );
            for (i, whole) in whole.chunks_exact(COLS).take(height).enumerate() {
                let target = std::slice::from_raw_parts_mut(target.add(i * self.stride), width);
                for (target, &x) in target.iter_mut().zip(whole) {
                    *target = if add { *target + x } else { x };
                }
            }
        }
    }
}

/// One tile: `c[12][32] = scale · Σ a[term][12] b[term][32]`, or added to it.
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "AVX-512 code over pointers")]
// SAFETY: `a` and `b` must hold `depth` terms and `c` 12 rows of 32 numbers `stride` apart.
unsafe fn tile_avx512(
    depth: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    stride: usize,
    scale: f32,
    add: bool,
) {
    // SAFETY: all offsets are within what the caller promised.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for row in 0..ROWS {
            will_write(c.add(row * stride), COLS);
        }
        let (mut a, mut b) = (a, b);
        for _ in 0..depth {
            let b0 = _mm512_loadu_ps(b);
            let b1 = _mm512_loadu_ps(b.add(16));
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(i));
                sum[0] = _mm512_fmadd_ps(x, b0, sum[0]);
                sum[1] = _mm512_fmadd_ps(x, b1, sum[1]);
            }
            a = a.add(ROWS);
            b = b.add(COLS);
        }
        let scale = _mm512_set1_ps(scale);
        for (i, sum) in sums.iter().enumerate() {
            for (half, &sum) in sum.iter().enumerate() {
                let place = c.add(i * stride + half * 16);
                let mut value = _mm512_mul_ps(sum, scale);
                if add {
                    value = _mm512_add_ps(value, _mm512_loadu_ps(place));
                }
                _mm512_storeu_ps(place, value);
            }
        }
    }
}
