//! Rows into columns, 16 x 16 numbers of 32 bits at a time, for operands that are packed for AVX-512.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::{
    __m512, _mm512_castpd_ps, _mm512_castps_pd, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_unpackhi_pd, _mm512_unpackhi_ps,
    _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};

/// Numbers along a side of what is turned in registers.
pub(crate) const SIDE: usize = 16;

/// Writes row `r` of `source` (of `rows` of them, at most 16, `stride` apart) to column `r` of `target`, whose rows are
/// `target_stride` apart: for each of `columns`, `width` numbers, zeros beyond the rows. Only for processors with AVX-512.
pub(crate) fn turn(
    source: &[f32],
    (rows, columns, stride): (usize, usize, usize),
    target: &mut [f32],
    (width, target_stride): (usize, usize),
) {
    if columns == 0 {
        return;
    }
    assert!(rows <= width && width <= SIDE && (1..=source.len()).contains(&columns));
    assert!(rows == 0 || (rows - 1) * stride + columns <= source.len());
    assert!((columns - 1) * target_stride + width <= target.len());
    #[expect(unsafe_code, reason = "AVX-512 code over pointers")]
    // SAFETY: callers have found AVX-512; rows and columns lie in their slices by the assertions.
    unsafe {
        turn_avx512(
            source.as_ptr(),
            (rows, columns, stride),
            target.as_mut_ptr(),
            (width, target_stride),
        );
    }
}

/// A mask of the first `count` numbers of a register.
pub(super) fn first(count: usize) -> u16 {
    if count >= SIDE { !0 } else { (1 << count) - 1 }
}

#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "AVX-512 code over pointers")]
// SAFETY: as `turn` asserts.
unsafe fn turn_avx512(
    source: *const f32,
    (rows, columns, stride): (usize, usize, usize),
    target: *mut f32,
    (width, target_stride): (usize, usize),
) {
    let stored = first(width);
    for column in (0..columns).step_by(SIDE) {
        let count = SIDE.min(columns - column);
        let loaded = first(count);
        let mut lines = [_mm512_setzero_ps(); SIDE];
        for (row, line) in lines.iter_mut().enumerate() {
            if row < rows {
                // SAFETY: `count` numbers of this row from `column` on are within the source.
                *line = unsafe { _mm512_maskz_loadu_ps(loaded, source.add(row * stride + column)) };
            }
        }
        let turned = turn_square(&lines);
        for (place, line) in turned.iter().enumerate().take(count) {
            // SAFETY: `width` numbers of this row of the target are within it.
            unsafe {
                let target = target.add((column + place) * target_stride);
                _mm512_mask_storeu_ps(target, stored, *line);
            }
        }
    }
}

/// 16 x 16 numbers transposed: pairs of rows, then fours, then quarters of registers.
#[target_feature(enable = "avx512f")]
fn turn_square(rows: &[__m512; SIDE]) -> [__m512; SIDE] {
    let zero = _mm512_setzero_ps();
    let mut pairs = [zero; SIDE];
    for i in 0..SIDE / 2 {
        pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    // fours[4 g + c]: of rows 4 g..4 g + 4, column c of each quarter.
    let mut fours = [zero; SIDE];
    for group in 0..4 {
        for half in 0..2 {
            let low = _mm512_castps_pd(pairs[4 * group + half]);
            let high = _mm512_castps_pd(pairs[4 * group + 2 + half]);
            fours[4 * group + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            fours[4 * group + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    }
    let mut turned = [zero; SIDE];
    for column in 0..4 {
        // Quarters 0 and 1, or 2 and 3, of rows 0..8 and 8..16.
        let low = _mm512_shuffle_f32x4::<0x44>(fours[column], fours[4 + column]);
        let high = _mm512_shuffle_f32x4::<0xee>(fours[column], fours[4 + column]);
        let later_low = _mm512_shuffle_f32x4::<0x44>(fours[8 + column], fours[12 + column]);
        let later_high = _mm512_shuffle_f32x4::<0xee>(fours[8 + column], fours[12 + column]);
        turned[column] = _mm512_shuffle_f32x4::<0x88>(low, later_low);
        turned[4 + column] = _mm512_shuffle_f32x4::<0xdd>(low, later_low);
        turned[8 + column] = _mm512_shuffle_f32x4::<0x88>(high, later_high);
        turned[12 + column] = _mm512_shuffle_f32x4::<0xdd>(high, later_high);
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Level, level};
    use super::*;

    #[test]
    fn every_number_of_a_row_comes_to_its_column_and_nothing_else_is_written() {
        if level() != Level::Avx512 {
            return;
        }
        for (rows, columns, width) in [(16, 16, 16), (12, 40, 12), (5, 17, 12), (1, 3, 16)] {
            let (stride, target_stride) = (columns + 3, width + 5);
            let source: Vec<f32> = (0..rows * stride).map(|x| x as f32).collect();
            let mut target = vec![-1.0; columns * target_stride];
            turn(
                &source,
                (rows, columns, stride),
                &mut target,
                (width, target_stride),
            );
            for (place, found) in target.iter().enumerate() {
                let (column, row) = (place / target_stride, place % target_stride);
                let expected = if row < rows {
                    source[row * stride + column]
                } else if row < width {
                    0.0
                } else {
                    -1.0
                };
                assert!((found - expected).abs() < 0.5, "{rows} {columns} {place}");
            }
        }
    }
}
