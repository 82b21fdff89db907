//! One source, several instruction sets: loops compiled for what the processor at hand can do, and the few
//! transcendental functions in a form that vectorises.

/// Says that `count` numbers will be written before long: results go to memory that has left the caches, and a store
/// that has to wait for its line holds up those behind it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(clippy::inline_always, reason = "a few instructions in an inner loop")]
pub(crate) fn will_write(numbers: *const f32, count: usize) {
    const LINE: usize = 16;
    for first in (0..count).step_by(LINE) {
        #[expect(unsafe_code, reason = "a hint that takes an address")]
        // SAFETY: a hint has no effect on what memory holds, and may name any address.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_ET0 }>(
                numbers.wrapping_add(first).cast(),
            );
        }
    }
}

/// Compiles a function three times (baseline, AVX2, AVX-512) and picks one at run time.
///
/// The body must be plain loops over slices; what it calls must be `#[inline(always)]`.
macro_rules! vectorized {
    ($(#[$meta:meta])* pub(crate) fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        pub(crate) fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::inline_always, clippy::too_many_arguments, reason = "compiled once per instruction set")]
            fn generic($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,fma")]
                #[allow(clippy::too_many_arguments, reason = "as the generic one")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { generic($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "as the generic one")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { generic($($arg),*) }
                match $crate::model::kernels::simd::level() {
                    $crate::model::kernels::simd::Level::Avx512 => {
                        #[expect(unsafe_code, reason = "calls code for instructions that were detected")]
                        // SAFETY: `level` found these instruction sets on this processor.
                        return unsafe { avx512($($arg),*) };
                    }
                    $crate::model::kernels::simd::Level::Avx2 => {
                        #[expect(unsafe_code, reason = "calls code for instructions that were detected")]
                        // SAFETY: `level` found these instruction sets on this processor.
                        return unsafe { avx2($($arg),*) };
                    }
                    $crate::model::kernels::simd::Level::Baseline => {}
                }
            }
            generic($($arg),*)
        }
    };
}
pub(crate) use vectorized;

/// What the processor at hand can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// What every processor of this architecture can do.
    Baseline,
    /// 8 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 16 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The best level of this processor (the standard library remembers the answer).
#[inline]
pub(crate) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        let fma = is_x86_feature_detected!("fma");
        if fma
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
        {
            return Level::Avx512;
        }
        if fma && is_x86_feature_detected!("avx2") {
            return Level::Avx2;
        }
    }
    Level::Baseline
}

/// Lanes of the partial sums: one AVX-512 register, two of AVX2.
pub(crate) const LANES: usize = 16;

/// e^x within 2 units in the last place, after Cephes' `expf`: reduction by ln 2 in two parts and a polynomial of
/// degree 5. Below -87 the result is about 1e-38, never a denormal; above 88 it stays finite.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
pub(crate) fn exp(x: f32) -> f32 {
    /// 1.5 · 2^23: adding and subtracting it rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    // `n`, a whole number in -126..=127, stands in the lowest bits of `rounded`. (A cast from `n` would be checked and
    // keep the loop from being vectorised.)
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits());
    let scale = f32::from_bits(exponent.wrapping_add(127) << 23);
    e * scale
}

/// 1 / (1 + e^-x).
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function within 5e-7, rounding included (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
pub(crate) fn erf(x: f32) -> f32 {
    let z = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = 1.061_405_4;
    let p = p * t - 1.453_152;
    let p = p * t + 1.421_413_7;
    let p = p * t - 0.284_496_74;
    let p = p * t + 0.254_829_6;
    (1.0 - p * t * exp(-z * z)).copysign(x)
}

/// Largest of `row`, in lanes; -inf where it is empty.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
pub(crate) fn max(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = row.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let rest = chunks.remainder().iter().copied();
    lanes
        .into_iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, f32::max)
}

/// Sum of `term(a, b)` over two slices of one length, in lanes: a fixed order, whatever the instruction set.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
pub(crate) fn sum2(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (mut left, mut right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (a, b) in (&mut left).zip(&mut right) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += term(a, b);
        }
    }
    let mut total = 0.0;
    for lane in lanes {
        total += lane;
    }
    for (&a, &b) in left.remainder().iter().zip(right.remainder()) {
        total += term(a, b);
    }
    total
}

/// [`sum2`] of three slices.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
pub(crate) fn sum3(a: &[f32], b: &[f32], c: &[f32], term: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (mut first, mut second, mut third) = (
        a.chunks_exact(LANES),
        b.chunks_exact(LANES),
        c.chunks_exact(LANES),
    );
    for ((a, b), c) in (&mut first).zip(&mut second).zip(&mut third) {
        for (((lane, &a), &b), &c) in lanes.iter_mut().zip(a).zip(b).zip(c) {
            *lane += term(a, b, c);
        }
    }
    let mut total = 0.0;
    for lane in lanes {
        total += lane;
    }
    let rest = first
        .remainder()
        .iter()
        .zip(second.remainder())
        .zip(third.remainder());
    for ((&a, &b), &c) in rest {
        total += term(a, b, c);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_erf_agree_with_double_precision() {
        for i in -8000..8000 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            let relative = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(relative < 3e-7, "exp({x}): {relative}");
        }
        // erf by its integral, Simpson's rule.
        let mut integral = 0.0_f64;
        let h = 1e-3_f64;
        let f = |t: f64| (-t * t).exp() * 2.0 / std::f64::consts::PI.sqrt();
        for i in 0..5000 {
            let a = f64::from(i) * h;
            assert!(
                (f64::from(erf(a as f32)) - integral).abs() < 6e-7,
                "erf({a})"
            );
            assert!((f64::from(erf(-a as f32)) + integral).abs() < 6e-7);
            integral += h / 6.0 * (f(a) + 4.0 * f(a + h / 2.0) + f(a + h));
        }
    }

    #[test]
    fn exp_of_extreme_numbers_is_finite_and_not_negative() {
        for x in [f32::NEG_INFINITY, -1e9, -104.0, 104.0, 1e9] {
            let y = exp(x);
            assert!(y.is_finite() && y >= 0.0, "exp({x}) = {y}");
        }
    }
}
