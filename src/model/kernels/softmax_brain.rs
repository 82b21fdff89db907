//! Rows of scores to rows of probabilities in bf16, and their gradients: from registers to registers, for
//! [`super::attention_brain`].
//!
//! Scores, exponentials and sums are in f32 with fused multiply-adds; two reads of a row in all for each direction.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps,
    _mm512_mask_blend_ps, _mm512_maskz_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_mul_ps,
    _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::pairs::store_words;
use super::turn;

/// Numbers of two registers, which make one of words.
pub(super) const STEP: usize = 2 * turn::SIDE;

/// Scores of one query as the product gave them, and what belongs to it.
pub(super) struct Row<'a> {
    /// Overwritten.
    pub(super) scores: &'a mut [f32],
    /// Keys that the query sees.
    pub(super) visible: usize,
    /// Factor of the scores.
    pub(super) scale: f32,
    /// Added to them: one number for each visible key, or nothing.
    pub(super) bias: &'a [f32],
}

impl Row<'_> {
    fn check(&self, numbers: usize) {
        assert!(numbers.is_multiple_of(STEP) && self.visible <= numbers);
        assert!(numbers <= self.scores.len());
        assert!(self.bias.is_empty() || self.bias.len() >= self.visible);
    }

    /// To `words` e^(score - largest), zeros from `visible` up to `numbers`, which are whole registers of words. Gives the
    /// largest score and the sum. Only for processors with AVX-512 BF16.
    pub(super) fn exponentials(&mut self, numbers: usize, words: &mut [f32]) -> (f32, f32) {
        self.check(numbers);
        assert!(numbers / 2 <= words.len());
        #[expect(unsafe_code, reason = "AVX-512 code over pointers")]
        // SAFETY: callers have found the instructions; what is read and written lies in its slices by the assertions.
        unsafe {
            exponentials(self, numbers, words.as_mut_ptr())
        }
    }

    /// With gradients `dp` of probabilities p = e^(score - lse): to `words` those of scores, scale · p · (dp - Σ p·dp), and
    /// to `probabilities` p; zeros from `visible` up to `numbers`.
    pub(super) fn gradients(
        &mut self,
        numbers: usize,
        dp: &[f32],
        lse: f32,
        (probabilities, words): (&mut [f32], &mut [f32]),
    ) {
        self.check(numbers);
        assert!(numbers <= dp.len());
        assert!(numbers / 2 <= words.len().min(probabilities.len()));
        #[expect(unsafe_code, reason = "AVX-512 code over pointers")]
        // SAFETY: as above.
        unsafe {
            gradients(
                self,
                numbers,
                dp.as_ptr(),
                lse,
                (probabilities.as_mut_ptr(), words.as_mut_ptr()),
            );
        }
    }
}

/// e^x within 2 units in the last place for x below 88; below -87 about 1e-38.
#[target_feature(enable = "avx512f")]
fn exp(x: __m512) -> __m512 {
    let constant = |x| _mm512_set1_ps(x);
    let x = _mm512_max_ps(x, constant(-87.0));
    // To the nearest whole number.
    let n = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, constant(std::f32::consts::LOG2_E)));
    let r = _mm512_fnmadd_ps(n, constant(0.693_359_4), x);
    let r = _mm512_fnmadd_ps(n, constant(-2.121_944_4e-4), r);
    let p = constant(1.987_569_1e-4);
    let p = _mm512_fmadd_ps(p, r, constant(1.398_199_9e-3));
    let p = _mm512_fmadd_ps(p, r, constant(8.333_452e-3));
    let p = _mm512_fmadd_ps(p, r, constant(4.166_579_6e-2));
    let p = _mm512_fmadd_ps(p, r, constant(1.666_666_5e-1));
    let p = _mm512_fmadd_ps(p, r, constant(0.5));
    let e = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r);
    _mm512_scalef_ps(_mm512_add_ps(e, constant(1.0)), n)
}

/// Which of the 16 numbers from `first` on come before `end`.
fn before(end: usize, first: usize) -> u16 {
    turn::first(end.saturating_sub(first))
}

/// 16 scores from `first` on with factor and bias; minus infinity where the query sees none.
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "AVX-512 code over pointers")]
// SAFETY: 16 scores must be there, and a bias for those that are seen, or none at all.
unsafe fn finished(row: &Row<'_>, first: usize) -> __m512 {
    let seen = before(row.visible, first);
    // SAFETY: as the caller promised; masked numbers are not read.
    let score = unsafe { _mm512_loadu_ps(row.scores.as_ptr().add(first)) };
    let bias = if row.bias.is_empty() {
        _mm512_setzero_ps()
    } else {
        // SAFETY: as above.
        unsafe { _mm512_maskz_loadu_ps(seen, row.bias.as_ptr().wrapping_add(first)) }
    };
    let score = _mm512_fmadd_ps(score, _mm512_set1_ps(row.scale), bias);
    _mm512_mask_blend_ps(seen, _mm512_set1_ps(f32::NEG_INFINITY), score)
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "AVX-512 code over pointers")]
// SAFETY: as `Row::exponentials` asserts.
unsafe fn exponentials(row: &mut Row<'_>, numbers: usize, words: *mut f32) -> (f32, f32) {
    // SAFETY: all offsets are below `numbers`.
    unsafe {
        let mut largest = _mm512_set1_ps(f32::NEG_INFINITY);
        for first in (0..row.visible).step_by(turn::SIDE) {
            let score = finished(row, first);
            largest = _mm512_max_ps(largest, score);
            _mm512_storeu_ps(row.scores.as_mut_ptr().add(first), score);
        }
        let largest = _mm512_reduce_max_ps(largest);
        let shift = _mm512_set1_ps(largest);
        let mut sums = [_mm512_setzero_ps(); 2];
        for first in (0..numbers).step_by(STEP) {
            let mut parts = [_mm512_setzero_ps(); 2];
            for (half, (part, sum)) in parts.iter_mut().zip(&mut sums).enumerate() {
                let first = first + half * turn::SIDE;
                let seen = before(row.visible, first);
                let score = _mm512_loadu_ps(row.scores.as_ptr().add(first));
                *part = _mm512_maskz_mov_ps(seen, exp(_mm512_sub_ps(score, shift)));
                *sum = _mm512_add_ps(*sum, *part);
            }
            store_words(parts[0], parts[1], words.add(first / 2));
        }
        let sum = _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
        (largest, sum)
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "AVX-512 code over pointers")]
// SAFETY: as `Row::gradients` asserts.
unsafe fn gradients(
    row: &mut Row<'_>,
    numbers: usize,
    dp: *const f32,
    lse: f32,
    (probabilities, words): (*mut f32, *mut f32),
) {
    // SAFETY: all offsets are below `numbers`.
    unsafe {
        let shift = _mm512_set1_ps(lse);
        let mut sums = [_mm512_setzero_ps(); 2];
        for first in (0..numbers).step_by(STEP) {
            let mut parts = [_mm512_setzero_ps(); 2];
            for (half, (part, sum)) in parts.iter_mut().zip(&mut sums).enumerate() {
                let first = first + half * turn::SIDE;
                let seen = before(row.visible, first);
                let p = exp(_mm512_sub_ps(finished(row, first), shift));
                *part = _mm512_maskz_mov_ps(seen, p);
                let dp = _mm512_maskz_loadu_ps(seen, dp.add(first));
                *sum = _mm512_fmadd_ps(*part, dp, *sum);
                _mm512_storeu_ps(row.scores.as_mut_ptr().add(first), *part);
            }
            store_words(parts[0], parts[1], probabilities.add(first / 2));
        }
        let along = _mm512_set1_ps(_mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1])));
        let scale = _mm512_set1_ps(row.scale);
        for first in (0..numbers).step_by(STEP) {
            let mut parts = [_mm512_setzero_ps(); 2];
            for (half, part) in parts.iter_mut().enumerate() {
                let first = first + half * turn::SIDE;
                let p = _mm512_loadu_ps(row.scores.as_ptr().add(first));
                let dp = _mm512_maskz_loadu_ps(before(row.visible, first), dp.add(first));
                *part = _mm512_mul_ps(_mm512_mul_ps(p, scale), _mm512_sub_ps(dp, along));
            }
            store_words(parts[0], parts[1], words.add(first / 2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::{are_supported, split, widen_all};
    use super::*;
    use crate::sys::rng::SeededRng;

    #[test]
    fn probabilities_and_gradients_are_those_of_the_definition() {
        if !are_supported() {
            return;
        }
        for visible in [1_usize, 15, 16, 17, 32, 40, 63, 64] {
            let numbers = visible.next_multiple_of(STEP) + STEP;
            let scores = SeededRng::new(1, 0).normals(numbers, 8.0);
            let bias = SeededRng::new(2, 0).normals(visible, 2.0);
            let mut dp = SeededRng::new(3, 0).normals(numbers, 1.0);
            // Beyond the visible keys lies what was there before.
            dp[visible..].fill(f32::NAN);
            for bias in [&bias[..], &[]] {
                let scale = 0.3;
                let exact: Vec<f64> = (0..visible)
                    .map(|i| {
                        let bias = bias.get(i).copied().unwrap_or(0.0);
                        f64::from(scores[i]) * f64::from(scale) + f64::from(bias)
                    })
                    .collect();
                let largest = exact.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = exact.iter().map(|x| (x - largest).exp()).sum();
                let mut wide = vec![f32::NAN; numbers];
                let mut words = vec![f32::NAN; numbers / 2];
                let mut scratch = scores.clone();
                scratch[visible..].fill(f32::NAN);
                let mut row = Row {
                    scores: &mut scratch,
                    visible,
                    scale,
                    bias,
                };
                let found = row.exponentials(numbers, &mut words);
                assert!((f64::from(found.0) - largest).abs() < 1e-5);
                assert!((f64::from(found.1) / sum - 1.0).abs() < 1e-5);
                widen_all(&words, &mut wide);
                for (i, &found) in wide.iter().enumerate() {
                    let expected = exact.get(i).map_or(0.0, |x| (x - largest).exp());
                    assert!(
                        (f64::from(found) - expected).abs() <= expected / 256.0,
                        "{i}"
                    );
                }

                let lse = largest + sum.ln();
                let p: Vec<f64> = exact.iter().map(|x| (x - lse).exp()).collect();
                let along: f64 = p.iter().zip(&dp).map(|(p, &dp)| p * f64::from(dp)).sum();
                let mut scratch = scores.clone();
                scratch[visible..].fill(f32::NAN);
                let mut row = Row {
                    scores: &mut scratch,
                    visible,
                    scale,
                    bias,
                };
                let mut probabilities = vec![f32::NAN; numbers / 2];
                let places = (&mut probabilities[..], &mut words[..]);
                row.gradients(numbers, &dp, lse as f32, places);
                widen_all(&probabilities, &mut wide);
                for (i, &found) in wide.iter().enumerate() {
                    let expected = p.get(i).copied().unwrap_or(0.0);
                    assert!(
                        (f64::from(found) - expected).abs() <= expected / 200.0,
                        "{i}"
                    );
                }
                widen_all(&words, &mut wide);
                for (i, &found) in wide.iter().enumerate() {
                    let (p, dp) = (p.get(i).copied().unwrap_or(0.0), f64::from(dp[i]));
                    let expected = if i < visible {
                        f64::from(scale) * p * (dp - along)
                    } else {
                        0.0
                    };
                    let most = f64::from(scale) * p * (dp.abs() + along.abs()) / 200.0;
                    let apart = (f64::from(found) - expected).abs();
                    let is_nothing = i >= visible && found.abs() < f32::MIN_POSITIVE;
                    assert!(apart <= most || is_nothing, "{i}: {apart}");
                }
                assert!(split(words[numbers / 2 - 1]).1.abs() < f32::MIN_POSITIVE);
            }
        }
    }
}
