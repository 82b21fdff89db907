//! Activations of the feed-forward layers, plain and gated, forward and vector-Jacobian product in one pass each.

use super::for_each_rows;
use super::pairs::{Form, join, split};
use super::simd::{LANES, erf, exp, sigmoid, vectorized};

/// The non-linearity of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// max(x, 0)²
    SquaredRelu,
    /// GELU by its tanh approximation (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// GELU by the error function (`gelu`).
    GeluErf,
    /// x · sigmoid(x) (`silu`, `swish`).
    Silu,
}

/// √(2/π)
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// Value and derivative.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
fn evaluate(activation: Activation, x: f32) -> (f32, f32) {
    match activation {
        Activation::Relu => (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }),
        Activation::SquaredRelu => {
            let positive = x.max(0.0);
            (positive * positive, 2.0 * positive)
        }
        Activation::GeluTanh => {
            // (1 + tanh z) / 2 = sigmoid(2z)
            let s = sigmoid(2.0 * SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
            let slope = 2.0 * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x);
            (x * s, s + x * s * (1.0 - s) * slope)
        }
        Activation::GeluErf => {
            let cdf = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
            // 1/√(2π) · e^(-x²/2)
            (x * cdf, cdf + x * 0.398_942_3 * exp(-0.5 * x * x))
        }
        Activation::Silu => {
            let s = sigmoid(x);
            (x * s, s + x * s * (1.0 - s))
        }
    }
}

/// `out = act(u)` or, gated, `out = act(u[.., ..F]) · u[.., F..]`; `out` is [N, F], `u` is [N, F] or [N, 2F], both
/// of one form, and `width` is F in numbers.
pub(crate) fn forward(
    form: Form,
    (activation, gated): (Activation, bool),
    width: usize,
    u: &[f32],
    out: &mut [f32],
) {
    let (words, factor) = (form.words(width), if gated { 2 } else { 1 });
    let rows = match form {
        Form::Numbers => forward_rows,
        Form::Pairs => forward_rows_of_pairs,
    };
    for_each_rows(out, words, |first, out| {
        let start = first * words * factor;
        let u = &u[start..start + out.len() * factor];
        rows(activation, gated, words, u, out);
    });
}

/// Gradient of [`forward`]: turns `u` into `du`, given `dy` [N, F] of the same form.
pub(crate) fn vjp_in_place(
    form: Form,
    (activation, gated): (Activation, bool),
    width: usize,
    dy: &[f32],
    u: &mut [f32],
) {
    let (words, factor) = (form.words(width), if gated { 2 } else { 1 });
    let rows = match form {
        Form::Numbers => vjp_rows,
        Form::Pairs => vjp_rows_of_pairs,
    };
    for_each_rows(u, words * factor, |first, u| {
        let start = first * words;
        let dy = &dy[start..start + u.len() / factor];
        rows(activation, gated, words, dy, u);
    });
}

/// One loop for each activation, so that the choice is made outside of it.
macro_rules! by_activation {
    ($activation:expr, |$fixed:ident| $body:block) => {
        match $activation {
            Activation::Relu => {
                let $fixed = Activation::Relu;
                $body
            }
            Activation::SquaredRelu => {
                let $fixed = Activation::SquaredRelu;
                $body
            }
            Activation::GeluTanh => {
                let $fixed = Activation::GeluTanh;
                $body
            }
            Activation::GeluErf => {
                let $fixed = Activation::GeluErf;
                $body
            }
            Activation::Silu => {
                let $fixed = Activation::Silu;
                $body
            }
        }
    };
}

vectorized! {
    pub(crate) fn forward_rows(activation: Activation, gated: bool, width: usize, u: &[f32], out: &mut [f32]) {
        by_activation!(activation, |fixed| {
            if gated {
                for (u, out) in u.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
                    let (gate, value) = u.split_at(width);
                    for ((out, &gate), &value) in out.iter_mut().zip(gate).zip(value) {
                        *out = evaluate(fixed, gate).0 * value;
                    }
                }
            } else {
                for (&u, out) in u.iter().zip(out) {
                    *out = evaluate(fixed, u).0;
                }
            }
        });
    }
}

/// Gradients of gates and values from theirs of their products. Over arrays, since the compiler does not vectorise this
/// over slices of which two are written.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
fn gated_vjp<const COUNT: usize>(
    activation: Activation,
    gate: &[f32; COUNT],
    value: &[f32; COUNT],
    dy: &[f32; COUNT],
) -> ([f32; COUNT], [f32; COUNT]) {
    let (mut dgate, mut dvalue) = ([0.0; COUNT], [0.0; COUNT]);
    for i in 0..COUNT {
        let (y, slope) = evaluate(activation, gate[i]);
        dgate[i] = dy[i] * value[i] * slope;
        dvalue[i] = dy[i] * y;
    }
    (dgate, dvalue)
}

vectorized! {
    pub(crate) fn vjp_rows(activation: Activation, gated: bool, width: usize, dy: &[f32], u: &mut [f32]) {
        by_activation!(activation, |fixed| {
            if gated {
                for (u, dy) in u.chunks_exact_mut(2 * width).zip(dy.chunks_exact(width)) {
                    let (gate, value) = u.split_at_mut(width);
                    let (gates, last_gates) = gate.as_chunks_mut::<LANES>();
                    let (values, last_values) = value.as_chunks_mut::<LANES>();
                    let (dys, last_dys) = dy.as_chunks::<LANES>();
                    for ((gate, value), dy) in gates.iter_mut().zip(values).zip(dys) {
                        (*gate, *value) = gated_vjp(fixed, gate, value, dy);
                    }
                    for ((gate, value), &dy) in last_gates.iter_mut().zip(last_values).zip(last_dys) {
                        ([*gate], [*value]) = gated_vjp(fixed, &[*gate], &[*value], &[dy]);
                    }
                }
            } else {
                for (u, &dy) in u.iter_mut().zip(dy) {
                    *u = dy * evaluate(fixed, *u).1;
                }
            }
        });
    }
}

vectorized! {
    /// Rows of `width` words, or twice that where gated.
    pub(crate) fn forward_rows_of_pairs(activation: Activation, gated: bool, width: usize, u: &[f32], out: &mut [f32]) {
        by_activation!(activation, |fixed| {
            if gated {
                for (u, out) in u.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
                    let (gate, value) = u.split_at(width);
                    for ((out, &gate), &value) in out.iter_mut().zip(gate).zip(value) {
                        let (gate, value) = (split(gate), split(value));
                        *out = join(evaluate(fixed, gate.0).0 * value.0, evaluate(fixed, gate.1).0 * value.1);
                    }
                }
            } else {
                for (&u, out) in u.iter().zip(out) {
                    let u = split(u);
                    *out = join(evaluate(fixed, u.0).0, evaluate(fixed, u.1).0);
                }
            }
        });
    }
}

/// [`gated_vjp`] of words.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be part of the vectorised loop")]
fn gated_vjp_of_pairs<const COUNT: usize>(
    activation: Activation,
    gate: &[f32; COUNT],
    value: &[f32; COUNT],
    dy: &[f32; COUNT],
) -> ([f32; COUNT], [f32; COUNT]) {
    let low = |words: &[f32; COUNT]| words.map(|word| split(word).0);
    let high = |words: &[f32; COUNT]| words.map(|word| split(word).1);
    let (dgate_low, dvalue_low) = gated_vjp(activation, &low(gate), &low(value), &low(dy));
    let (dgate_high, dvalue_high) = gated_vjp(activation, &high(gate), &high(value), &high(dy));
    let (mut dgate, mut dvalue) = ([0.0; COUNT], [0.0; COUNT]);
    for i in 0..COUNT {
        dgate[i] = join(dgate_low[i], dgate_high[i]);
        dvalue[i] = join(dvalue_low[i], dvalue_high[i]);
    }
    (dgate, dvalue)
}

vectorized! {
    /// Rows of `width` words, or twice that where gated.
    pub(crate) fn vjp_rows_of_pairs(activation: Activation, gated: bool, width: usize, dy: &[f32], u: &mut [f32]) {
        by_activation!(activation, |fixed| {
            if gated {
                for (u, dy) in u.chunks_exact_mut(2 * width).zip(dy.chunks_exact(width)) {
                    let (gate, value) = u.split_at_mut(width);
                    let (gates, last_gates) = gate.as_chunks_mut::<LANES>();
                    let (values, last_values) = value.as_chunks_mut::<LANES>();
                    let (dys, last_dys) = dy.as_chunks::<LANES>();
                    for ((gate, value), dy) in gates.iter_mut().zip(values).zip(dys) {
                        (*gate, *value) = gated_vjp_of_pairs(fixed, gate, value, dy);
                    }
                    for ((gate, value), &dy) in last_gates.iter_mut().zip(last_values).zip(last_dys) {
                        ([*gate], [*value]) = gated_vjp_of_pairs(fixed, &[*gate], &[*value], &[dy]);
                    }
                }
            } else {
                for (u, &dy) in u.iter_mut().zip(dy) {
                    let ((low, high), dy) = (split(*u), split(dy));
                    *u = join(dy.0 * evaluate(fixed, low).1, dy.1 * evaluate(fixed, high).1);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::{round_all, widen_all};
    use super::*;

    const ALL: [Activation; 5] = [
        Activation::Relu,
        Activation::SquaredRelu,
        Activation::GeluTanh,
        Activation::GeluErf,
        Activation::Silu,
    ];

    /// The definitions, in double precision.
    fn exact(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::Relu => x.max(0.0),
            Activation::SquaredRelu => x.max(0.0).powi(2),
            Activation::GeluTanh => {
                let z = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + z.tanh())
            }
            Activation::GeluErf => {
                // Φ(x) by Simpson's rule from 0.
                let steps = 400;
                let h = x / f64::from(steps);
                let f = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
                let area: f64 = (0..steps)
                    .map(|i| {
                        let a = f64::from(i) * h;
                        h / 6.0 * (f(a) + 4.0 * f(a + h / 2.0) + f(a + h))
                    })
                    .sum();
                x * (0.5 + area)
            }
            Activation::Silu => x / (1.0 + (-x).exp()),
        }
    }

    #[test]
    fn values_and_slopes_agree_with_the_definitions() {
        for activation in ALL {
            for i in -400..400 {
                let x = i as f32 * 0.02 + 0.001;
                let (y, slope) = evaluate(activation, x);
                let wide = f64::from(x);
                assert!(
                    (f64::from(y) - exact(activation, wide)).abs() < 2e-6,
                    "{activation:?} {x}"
                );
                let h = 1e-4;
                let difference =
                    (exact(activation, wide + h) - exact(activation, wide - h)) / (2.0 * h);
                assert!(
                    (f64::from(slope) - difference).abs() < 1e-5,
                    "{activation:?} {x}"
                );
            }
        }
    }

    #[test]
    fn gradients_of_gates_wider_than_a_register_are_those_of_single_numbers() {
        let width = 2 * LANES + 5;
        let u: Vec<f32> = (0..4 * width)
            .map(|i| (i as f32 * 0.37).sin() * 3.0)
            .collect();
        let dy: Vec<f32> = (0..2 * width).map(|i| (i as f32 * 0.61).cos()).collect();
        for activation in ALL {
            let mut found = u.clone();
            let form = Form::Numbers;
            vjp_in_place(form, (activation, true), width, &dy, &mut found);
            for (place, &dy) in dy.iter().enumerate() {
                let gate = place / width * 2 * width + place % width;
                let (y, slope) = evaluate(activation, u[gate]);
                assert!((found[gate] - dy * u[gate + width] * slope).abs() < 1e-6);
                assert!((found[gate + width] - dy * y).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_gate_multiplies_the_activated_first_half_by_the_second() {
        let u = [1.0, -2.0, 3.0, 0.5];
        let mut out = [0.0; 2];
        forward(Form::Numbers, (Activation::Relu, true), 2, &u, &mut out);
        assert_eq!(out.map(f32::to_bits), [3.0_f32, 0.0].map(f32::to_bits));
        let mut du = u;
        let kind = (Activation::Relu, true);
        vjp_in_place(Form::Numbers, kind, 2, &[1.0, 1.0], &mut du);
        assert_eq!(
            du.map(f32::to_bits),
            [3.0_f32, 0.0, 1.0, 0.0].map(f32::to_bits)
        );
    }

    #[test]
    fn values_and_gradients_of_pairs_are_those_of_their_numbers_rounded() {
        let width = 2 * (2 * LANES + 5);
        let draw = |count: usize, factor: f32| {
            let numbers: Vec<f32> = (0..count)
                .map(|i| (i as f32 * factor).sin() * 3.0)
                .collect();
            let mut words = vec![0.0; count / 2];
            round_all(&numbers, &mut words);
            (wide(&words), words)
        };
        fn wide(words: &[f32]) -> Vec<f32> {
            let mut numbers = vec![0.0; 2 * words.len()];
            widen_all(words, &mut numbers);
            numbers
        }
        let close = |found: &[f32], expected: &[f32]| {
            let mut pairs = found.iter().zip(expected);
            pairs.all(|(found, expected)| (found - expected).abs() <= expected.abs() / 256.0)
        };
        for activation in ALL {
            for gated in [false, true] {
                let factor = if gated { 2 } else { 1 };
                let (mut u, mut u_words) = draw(2 * width * factor, 0.37);
                let (dy, dy_words) = draw(2 * width, 0.61);
                let (mut out, mut words) = (vec![0.0; 2 * width], vec![0.0; width]);
                let kind = (activation, gated);
                forward(Form::Numbers, kind, width, &u, &mut out);
                forward(Form::Pairs, kind, width, &u_words, &mut words);
                assert!(close(&wide(&words), &out), "{activation:?}");
                vjp_in_place(Form::Numbers, kind, width, &dy, &mut u);
                vjp_in_place(Form::Pairs, kind, width, &dy_words, &mut u_words);
                assert!(close(&wide(&u_words), &u), "{activation:?}");
            }
        }
    }
}
