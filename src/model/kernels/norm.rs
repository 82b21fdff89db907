//! LayerNorm (Ba et al. 2016) and RMSNorm (Zhang and Sennrich 2019) of rows, forward and vector-Jacobian product.

use super::for_each_rows;
use super::pairs::round_all;
use super::simd::{sum2, sum3, vectorized};

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

/// [`forward`], rounded to bf16: `out` is [N, H / 2] of [pairs](super::pairs).
pub(crate) fn forward_to_pairs(x: &[f32], norm: NormWeights<'_>, out: &mut [f32]) {
    let width = norm.weight.len();
    for_each_rows(out, width / 2, |first, out| {
        let mut normed = vec![0.0; width];
        let rows = x[first * width..].chunks_exact(width);
        for (x, out) in rows.zip(out.chunks_exact_mut(width / 2)) {
            forward_rows(x, norm, &mut normed);
            round_all(&normed, out);
        }
    });
}

/// `dx += (d norm / d x)ᵀ · dy`; all [N, H].
pub(crate) fn add_vjp(x: &[f32], dy: &[f32], norm: NormWeights<'_>, dx: &mut [f32]) {
    let width = norm.weight.len();
    for_each_rows(dx, width, |first, dx| {
        let range = first * width..first * width + dx.len();
        add_vjp_rows(&x[range.clone()], &dy[range], norm, dx);
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
    pub(crate) fn add_vjp_rows(x: &[f32], dy: &[f32], norm: NormWeights<'_>, dx: &mut [f32]) {
        let width = norm.weight.len();
        let count = width as f32;
        for ((x, dy), dx) in x
            .chunks_exact(width)
            .zip(dy.chunks_exact(width))
            .zip(dx.chunks_exact_mut(width))
        {
            let (mean, inverse) = moments(x, norm);
            // With x̂ = (x - mean) / σ and g = dy · w: dx = (g - mean(g) - x̂ · mean(g · x̂)) / σ.
            let level = if norm.centred { sum2(dy, norm.weight, |dy, w| dy * w) / count } else { 0.0 };
            let along = sum3(dy, norm.weight, x, |dy, w, x| dy * w * (x - mean)) * inverse * inverse / count;
            for (((dx, &dy), &w), &x) in dx.iter_mut().zip(dy).zip(norm.weight).zip(x) {
                *dx += (dy * w - level - (x - mean) * along) * inverse;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::rng::SeededRng;

    #[test]
    fn a_norm_in_pairs_is_the_norm_rounded() {
        let (rows, width) = (5, 38);
        let x = SeededRng::new(1, 0).normals(rows * width, 2.0);
        let weight = SeededRng::new(2, 0).normals(width, 1.0);
        let norm = NormWeights {
            weight: &weight,
            bias: None,
            epsilon: 1e-5,
            centred: false,
        };
        let mut expected = vec![0.0; rows * width];
        forward(&x, norm, &mut expected);
        let mut words = vec![0.0; rows * width / 2];
        forward_to_pairs(&x, norm, &mut words);
        let mut found = vec![0.0; rows * width];
        super::super::pairs::widen_all(&words, &mut found);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() <= expected.abs() / 256.0);
        }
    }

    #[test]
    fn the_gradient_of_both_norms_agrees_with_differences_in_double_precision() {
        let (rows, width) = (3, 37);
        let mut rng = SeededRng::new(11, 0);
        let x = rng.normals(rows * width, 2.0);
        let dy = rng.normals(rows * width, 1.0);
        let weight = rng.normals(width, 1.0);
        let bias = rng.normals(width, 1.0);
        for centred in [true, false] {
            let norm = NormWeights {
                weight: &weight,
                bias: Some(&bias),
                epsilon: 1e-5,
                centred,
            };
            let value = |x: &[f64]| -> Vec<f64> {
                let count = x.len() as f64;
                let mean = if centred {
                    x.iter().sum::<f64>() / count
                } else {
                    0.0
                };
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
                let terms = x.iter().zip(weight.iter().zip(&bias));
                terms
                    .map(|(x, (&w, &b))| {
                        (x - mean) / (variance + 1e-5).sqrt() * f64::from(w) + f64::from(b)
                    })
                    .collect()
            };
            let mut y = vec![0.0; rows * width];
            forward(&x, norm, &mut y);
            let mut dx = vec![0.25; rows * width];
            add_vjp(&x, &dy, norm, &mut dx);
            for row in 0..rows {
                let range = row * width..(row + 1) * width;
                let wide: Vec<f64> = x[range.clone()].iter().map(|&x| f64::from(x)).collect();
                for (y, exact) in y[range.clone()].iter().zip(value(&wide)) {
                    assert!((f64::from(*y) - exact).abs() < 1e-5);
                }
                for channel in 0..width {
                    let along = |h: f64| -> f64 {
                        let mut moved = wide.clone();
                        moved[channel] += h;
                        let terms = value(&moved).into_iter().zip(&dy[range.clone()]);
                        terms.map(|(y, &dy)| y * f64::from(dy)).sum()
                    };
                    let slope = (along(1e-5) - along(-1e-5)) / 2e-5;
                    let found = f64::from(dx[row * width + channel]) - 0.25;
                    assert!(
                        (found - slope).abs() < 1e-5 * slope.abs().max(1.0),
                        "{found} {slope}"
                    );
                }
            }
        }
    }
}
