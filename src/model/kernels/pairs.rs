//! Numbers in bf16, two to a word of 32 bits: what lies between products with weights in bf16.
//!
//! A row of numbers is a row of half as many words, the first of two numbers in the lower bits (in memory, on a
//! little-endian processor, simply one bf16 after the other). Words travel as `f32` whose bits they are, so that buffers,
//! column groups and transpositions serve both; nothing computes with such a word as a number. The left operands of
//! `vdpbf16ps` have this form, so that nothing is rounded or packed twice.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512;

use super::simd::vectorized;

/// How the numbers between the products of a sub-layer are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// In f32.
    Numbers,
    /// In bf16, two to a word.
    Pairs,
}

impl Form {
    /// Words of so many numbers, of which there is an even number where they are pairs.
    pub(crate) fn words(self, numbers: usize) -> usize {
        match self {
            Self::Numbers => numbers,
            Self::Pairs => numbers / 2,
        }
    }
}

/// Whether products with weights in bf16 take and give words here: the processor has the instructions.
pub(crate) fn are_supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        super::brain_tile::is_supported()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// The bits of the nearest of bf16, ties to even; what is no number stays none.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
pub(crate) fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if x.is_nan() { 0x7fc0 } else { rounded }
}

/// The word of two numbers.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
pub(crate) fn join(low: f32, high: f32) -> f32 {
    f32::from_bits(round(low) | round(high) << 16)
}

/// The two numbers of a word.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
pub(crate) fn split(word: f32) -> (f32, f32) {
    let bits = word.to_bits();
    (
        f32::from_bits(bits << 16),
        f32::from_bits(bits & 0xffff_0000),
    )
}

/// Rounds numbers to words; a last number without a partner gets 0.
pub(crate) fn round_all(numbers: &[f32], words: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if are_supported() {
        let whole = numbers.len() / 32;
        assert!(
            numbers.len().div_ceil(2) <= words.len(),
            "too few words for so many numbers"
        );
        #[expect(unsafe_code, reason = "AVX-512 code over pointers")]
        // SAFETY: the instructions are there, and 32 times `whole` numbers and 16 times as many words in their slices.
        unsafe {
            round_avx512(numbers.as_ptr(), whole, words.as_mut_ptr());
        }
        let rest = &numbers[32 * whole..];
        if !rest.is_empty() {
            round_by_loop(rest, &mut words[16 * whole..]);
        }
        return;
    }
    round_by_loop(numbers, words);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "AVX-512 code over pointers")]
// SAFETY: 32 times `count` numbers and 16 times `count` words must be there.
unsafe fn round_avx512(numbers: *const f32, count: usize, words: *mut f32) {
    use std::arch::x86_64::_mm512_loadu_ps;
    for i in 0..count {
        // SAFETY: within what the caller promised.
        unsafe {
            let low = _mm512_loadu_ps(numbers.add(32 * i));
            let high = _mm512_loadu_ps(numbers.add(32 * i + 16));
            store_words(low, high, words.add(16 * i));
        }
    }
}

/// 32 numbers as a register of words.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "AVX-512 code over pointers")]
// SAFETY: 16 words must be there.
pub(super) unsafe fn store_words(low: __m512, high: __m512, words: *mut f32) {
    use std::arch::x86_64::{__m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_storeu_si512};
    // SAFETY: as the caller promised; both types are 512 bits without meaning.
    unsafe {
        let rounded = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
        _mm512_storeu_si512(words.cast(), rounded);
    }
}

vectorized! {
    pub(crate) fn round_by_loop(numbers: &[f32], words: &mut [f32]) {
        let (twos, last) = numbers.as_chunks::<2>();
        for (word, &[low, high]) in words.iter_mut().zip(twos) {
            *word = join(low, high);
        }
        if let (Some(word), &[only]) = (words.get_mut(twos.len()), last) {
            *word = join(only, 0.0);
        }
    }
}

vectorized! {
    /// The numbers of words, which are half as many or one less.
    pub(crate) fn widen_all(words: &[f32], numbers: &mut [f32]) {
        let (twos, last) = numbers.as_chunks_mut::<2>();
        for (two, &word) in twos.iter_mut().zip(words) {
            (two[0], two[1]) = split(word);
        }
        if let (Some(&word), [only]) = (words.get(twos.len()), last) {
            *only = split(word).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn numbers_are_rounded_as_half_rounds_them_and_come_back() {
        for count in [0, 1, 2, 31, 32, 33, 64, 131] {
            let numbers: Vec<f32> = (0..count)
                .map(|i| ((i * i) as f32 * 0.37).sin() * 10_f32.powi(i % 7 - 3))
                .collect();
            let mut words = vec![f32::NAN; numbers.len().div_ceil(2)];
            round_all(&numbers, &mut words);
            let mut found = vec![0.0; numbers.len()];
            widen_all(&words, &mut found);
            for (found, x) in found.iter().zip(&numbers) {
                let expected = bf16::from_f32(*x).to_f32();
                assert_eq!(found.to_bits(), expected.to_bits(), "{x} of {count}");
            }
        }
        assert!(split(join(f32::NAN, 1.0)).0.is_nan());
    }
}
