//! Tiles of `vdpbf16ps` for a packed bf16 matrix: up to 12 x 32 results in registers, pairs of terms at a time.
//!
//! As `tile.rs`, with half of the bytes and twice the products in a register. The left operand is rounded to bf16, to
//! the nearest, while it is packed.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::ops::Range;

use rayon::prelude::*;

use super::brain::{SIDE, SQUARES};
use super::buffer::Buffer;
use super::matmul::{Into, MatMut, MatRef, Threads};
use super::simd::{Level, level, vectorized};
use super::turn;

/// Rows of a tile.
const ROWS: usize = 12;
/// Pairs of terms that are added up in registers: a panel of them is 64 kB.
const DEPTH: usize = 512;
/// Rows of the left operand that a task packs and works on.
const TASK_ROWS: usize = 8 * ROWS;
/// Panels that a task works on where there are few rows.
const TASK_PANELS: usize = 4;

/// Whether this processor has the instructions.
pub(crate) fn is_supported() -> bool {
    level() == Level::Avx512 && is_x86_feature_detected!("avx512bf16")
}

vectorized! {
    /// Rounds pairs of numbers to the nearest of bf16, the first in the lower half of a number's bits; a last one without
    /// a partner gets 0.
    pub(crate) fn round_pairs(numbers: &[f32], pairs: &mut [f32]) {
        let (twos, last) = numbers.as_chunks::<2>();
        for (pair, &[low, high]) in pairs.iter_mut().zip(twos) {
            *pair = f32::from_bits(round(low) | round(high) << 16);
        }
        if let (Some(pair), &[only]) = (pairs.get_mut(twos.len()), last) {
            *pair = f32::from_bits(round(only));
        }
    }
}

/// To the nearest, ties to even; what is no number stays none.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if x.is_nan() { 0x7fc0 } else { rounded }
}

/// Rows `row..row + 12` as [pairs, 12] of the pairs from `first` on; zeros beyond the last row. `lines` is a place for
/// 12 rows of pairs.
fn pack_rows(
    left: MatRef<'_>,
    row: usize,
    first: usize,
    lines: &mut [f32],
    column: &mut Vec<f32>,
    target: &mut [f32],
) {
    let height = ROWS.min(left.rows() - row);
    let pairs = target.len() / ROWS;
    let terms = (2 * pairs).min(left.cols() - 2 * first);
    for (i, line) in lines.chunks_exact_mut(pairs).take(height).enumerate() {
        if left.rows_are_contiguous() {
            round_pairs(&left.row(row + i)[2 * first..2 * first + terms], line);
        } else {
            let turned = left.transposed();
            column.clear();
            column.extend((0..terms).map(|term| turned.row(2 * first + term)[row + i]));
            round_pairs(column, line);
        }
    }
    turn::turn(lines, (height, pairs, pairs), target, (ROWS, ROWS));
}

/// `result = left · right`, or added to it; `right` is packed as [`super::brain::BrainMatrix`] says and has as many
/// terms as `left` has columns. Only where [`is_supported`].
pub(crate) fn product(
    result: MatMut<'_>,
    into: Into,
    left: MatRef<'_>,
    right: &[u64],
    threads: Threads,
) {
    let (rows, cols) = (left.rows(), result.cols());
    let pairs = left.cols().div_ceil(2);
    // Blocks of 32 terms are whole in the packed matrix.
    let packed_pairs = left.cols().div_ceil(SIDE) * SQUARES;
    let panels = cols.div_ceil(SIDE);
    assert!(
        right.len() >= panels * packed_pairs * SQUARES,
        "a packed matrix is too short"
    );
    let target = Target {
        stride: result.row_stride(),
        length: result.length(),
        pointer: result.into_pointer(),
    };
    let work = |rows: Range<usize>, panels: Range<usize>| {
        let depth = DEPTH.min(pairs);
        let mut packed = Buffer::dirty(rows.len().next_multiple_of(ROWS) * depth);
        let (mut lines, mut column) = (Buffer::dirty(ROWS * depth), vec![]);
        for first in (0..pairs).step_by(DEPTH) {
            let depth = DEPTH.min(pairs - first);
            for (tile, packed) in packed.chunks_exact_mut(ROWS * depth).enumerate() {
                let row = rows.start + tile * ROWS;
                if row < rows.end {
                    pack_rows(left, row, first, &mut lines, &mut column, packed);
                }
            }
            let add = first > 0 || into == Into::Add;
            for panel in panels.clone() {
                let start = (panel * packed_pairs + first) * SQUARES;
                let b = &right[start..start + depth * SQUARES];
                let width = SIDE.min(cols - panel * SIDE);
                for (tile, row) in rows.clone().step_by(ROWS).enumerate() {
                    let a = &packed[tile * ROWS * depth..(tile + 1) * ROWS * depth];
                    let height = ROWS.min(rows.end - row);
                    target.tile(row, panel * SIDE, (height, width), a, b, add);
                }
            }
        }
    };
    let chunks = rows.div_ceil(TASK_ROWS);
    let chunk = |chunk: usize| chunk * TASK_ROWS..rows.min((chunk + 1) * TASK_ROWS);
    match threads {
        Threads::One => (0..chunks).for_each(|part| work(chunk(part), 0..panels)),
        Threads::All => {
            // Few rows: share the columns out as well.
            let parts = if chunks >= 2 * rayon::current_num_threads() {
                1
            } else {
                panels.div_ceil(TASK_PANELS).max(1)
            };
            let per_part = panels.div_ceil(parts);
            (0..chunks * parts)
                .into_par_iter()
                .with_max_len(1)
                .for_each(|task| {
                    let first = task % parts * per_part;
                    work(
                        chunk(task / parts),
                        first.min(panels)..panels.min(first + per_part),
                    );
                });
        }
    }
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
    fn tile(
        &self,
        row: usize,
        col: usize,
        (height, width): (usize, usize),
        a: &[f32],
        b: &[u64],
        add: bool,
    ) {
        let depth = b.len() / SQUARES;
        assert!(a.len() >= depth * ROWS && height <= ROWS && width <= SIDE);
        let start = row * self.stride + col;
        assert!(start + (height - 1) * self.stride + width <= self.length);
        #[expect(unsafe_code, reason = "AVX-512 code over pointers")]
        // SAFETY: callers have found the instructions; `a` and `b` hold `depth` pairs; the tile lies in the result by
        // the assertion above and belongs to this task alone.
        unsafe {
            let target = self.pointer.add(start);
            if width == SIDE {
                rows_of_tile(
                    height,
                    depth,
                    a.as_ptr(),
                    b.as_ptr(),
                    target,
                    self.stride,
                    add,
                );
                return;
            }
            let mut whole = [0.0_f32; ROWS * SIDE];
            rows_of_tile(
                height,
                depth,
                a.as_ptr(),
                b.as_ptr(),
                whole.as_mut_ptr(),
                SIDE,
                false,
            );
            for (i, whole) in whole.chunks_exact(SIDE).take(height).enumerate() {
                let target = std::slice::from_raw_parts_mut(target.add(i * self.stride), width);
                for (target, &x) in target.iter_mut().zip(whole) {
                    *target = if add { *target + x } else { x };
                }
            }
        }
    }
}

/// The tile of `height` rows.
#[expect(unsafe_code, reason = "AVX-512 code over pointers")]
// SAFETY: as `tile`, with `height` rows.
unsafe fn rows_of_tile(
    height: usize,
    depth: usize,
    a: *const f32,
    b: *const u64,
    c: *mut f32,
    stride: usize,
    add: bool,
) {
    // SAFETY: as the caller promised.
    unsafe {
        match height {
            1 => tile::<1>(depth, a, b, c, stride, add),
            2 => tile::<2>(depth, a, b, c, stride, add),
            3 => tile::<3>(depth, a, b, c, stride, add),
            4 => tile::<4>(depth, a, b, c, stride, add),
            5 => tile::<5>(depth, a, b, c, stride, add),
            6 => tile::<6>(depth, a, b, c, stride, add),
            7 => tile::<7>(depth, a, b, c, stride, add),
            8 => tile::<8>(depth, a, b, c, stride, add),
            9 => tile::<9>(depth, a, b, c, stride, add),
            10 => tile::<10>(depth, a, b, c, stride, add),
            11 => tile::<11>(depth, a, b, c, stride, add),
            _ => tile::<ROWS>(depth, a, b, c, stride, add),
        }
    }
}

/// `c[HEIGHT][32] = Σ a[pair][12] · b[pair][32]`, or added to it.
#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "AVX-512 code over pointers")]
// SAFETY: `a` must hold `depth` times 12 pairs, `b` as many times 32, and `c` `HEIGHT` rows of 32 numbers `stride` apart.
unsafe fn tile<const HEIGHT: usize>(
    depth: usize,
    a: *const f32,
    b: *const u64,
    c: *mut f32,
    stride: usize,
    add: bool,
) {
    // SAFETY: all offsets are within what the caller promised; both types are 512 bits without meaning.
    unsafe {
        let bits = |x: __m512i| std::mem::transmute::<__m512i, __m512bh>(x);
        let mut sums = [[_mm512_setzero_ps(); 2]; HEIGHT];
        let (mut a, mut b) = (a, b);
        for _ in 0..depth {
            let b0 = bits(_mm512_loadu_si512(b.cast()));
            let b1 = bits(_mm512_loadu_si512(b.add(8).cast()));
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = bits(_mm512_set1_epi32(*a.add(i).cast::<i32>()));
                sum[0] = _mm512_dpbf16_ps(sum[0], x, b0);
                sum[1] = _mm512_dpbf16_ps(sum[1], x, b1);
            }
            a = a.add(ROWS);
            b = b.add(SQUARES);
        }
        for (i, sum) in sums.iter().enumerate() {
            for (half, &sum) in sum.iter().enumerate() {
                let place = c.add(i * stride + half * 16);
                let value = if add {
                    _mm512_add_ps(sum, _mm512_loadu_ps(place))
                } else {
                    sum
                };
                _mm512_storeu_ps(place, value);
            }
        }
    }
}
