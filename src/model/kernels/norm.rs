//! LayerNorm (Ba et al. 2016) and RMSNorm (Zhang and Sennrich 2019) of rows, forward and vector-Jacobian product.

use super::for_each_rows;
use super::simd::{sum2, vectorized};

/// Weight and bias of a norm, as the kernels want them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormWeights<'a> {
    /// [H]
    pub(crate) weight: &'a [f32],
    /// [H], where there is one.
    pub(crate) bias: Option<&'a [f32]>,
    /// Added to the variance (or mean square).
    pub(crate) epsilon: f32,
    /// Whether the mean is taken off (LayerNorm) or not (RMSNorm).
    pub(crate) centred: bool,
}

/// `out = norm(x)`; both [N, H].
pub(crate) fn forward(x: &[f32], norm: NormWeights<'_>, out: &mut [f32]) {
    let width = norm.weight.len();
    for_each_rows(out, width, |first, out| {
        forward_rows(&x[first * width..first * width + out.len()], norm, out);
    });
}

/// `dx = base + (d norm / d x)ᵀ · dy`; all [N, H]. `base` is the gradient that goes around the norm.
pub(crate) fn vjp(x: &[f32], dy: &[f32], base: &[f32], norm: NormWeights<'_>, dx: &mut [f32]) {
    let width = norm.weight.len();
    for_each_rows(dx, width, |first, dx| {
        let range = first * width..first * width + dx.len();
        vjp_rows(
            &x[range.clone()],
            &dy[range.clone()],
            &base[range],
            norm,
            dx,
        );
    });
}

/// Mean (0 where the norm is not centred) and 1 / standard deviation of a row.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
fn moments(x: &[f32], norm: NormWeights<'_>) -> (f32, f32) {
    let count = x.len() as f32;
    let mean = if norm.centred {
        sum2(x, x, |x, _| x) / count
    } else {
        0.0
    };
    let variance = sum2(x, x, |x, _| (x - mean) * (x - mean)) / count;
    (mean, 1.0 / (variance + norm.epsilon).sqrt())
}

vectorized! {
    pub(crate) fn forward_rows(x: &[f32], norm: NormWeights<'_>, out: &mut [f32]) {
        let width = norm.weight.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let (mean, inverse) = moments(x, norm);
            for ((out, &x), &w) in out.iter_mut().zip(x).zip(norm.weight) {
                *out = (x - mean) * inverse * w;
            }
            if let Some(bias) = norm.bias {
                for (out, &b) in out.iter_mut().zip(bias) {
                    *out += b;
                }
            }
        }
    }
}

vectorized! {
    pub(crate) fn vjp_rows(x: &[f32], dy: &[f32], base: &[f32], norm: NormWeights<'_>, dx: &mut [f32]) {
        let width = norm.weight.len();
        let count = width as f32;
        for (((x, dy), base), dx) in x
            .chunks_exact(width)
            .zip(dy.chunks_exact(width))
            .zip(base.chunks_exact(width))
            .zip(dx.chunks_exact_mut(width))
        {
            let (mean, inverse) = moments(x, norm);
            // With x̂ = (x - mean) / σ and g = dy · w: dx = (g - mean(g) - x̂ · mean(g · x̂)) / σ.
            for ((dx, &dy), &w) in dx.iter_mut().zip(dy).zip(norm.weight) {
                *dx = dy * w;
            }
            let along = sum2(dx, x, |g, x| g * (x - mean)) * inverse / count;
            let level = if norm.centred { sum2(dx, dx, |g, _| g) / count } else { 0.0 };
            for ((dx, &x), &base) in dx.iter_mut().zip(x).zip(base) {
                *dx = base + (*dx - level - (x - mean) * inverse * along) * inverse;
            }
        }
    }
}
