//! Weighted cross-entropy of softmax, and its gradient in the place of the logits.

use rayon::prelude::*;

use super::simd::{max, vectorized};

/// Turns `logits` [M, C] into the gradient of `Σ weight · cross-entropy` and writes each weighted loss to `losses` [M].
///
/// Every label must be below `classes`.
pub(crate) fn in_place(
    classes: usize,
    logits: &mut [f32],
    labels: &[u32],
    weights: &[f32],
    losses: &mut [f32],
) {
    logits
        .par_chunks_mut(classes.max(1))
        .zip(losses.par_iter_mut())
        .zip(labels.par_iter().zip(weights))
        .for_each(|((logits, loss), (&label, &weight))| {
            let label = label as usize;
            let chosen = logits[label];
            let (largest, sum) = softmax_row(logits, weight);
            *loss = weight * (sum.ln() + largest - chosen);
            logits[label] -= weight;
        });
}

vectorized! {
    /// Turns `row` into `weight · softmax(row)`; gives the largest number and the sum of e^(x - largest).
    pub(crate) fn softmax_row(row: &mut [f32], weight: f32) -> (f32, f32) {
        let largest = max(row);
        let sum = super::attention::exponentials(row, largest);
        let factor = weight / sum;
        for x in row.iter_mut() {
            *x *= factor;
        }
        (largest, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_and_its_gradient_are_those_of_the_definition() {
        let logits = [0.5_f32, -1.0, 2.0, 80.0, -80.0, 0.0];
        let mut gradient = logits;
        let mut losses = [0.0; 2];
        in_place(3, &mut gradient, &[2, 1], &[1.0, 0.25], &mut losses);
        for (row, (label, weight)) in [(2, 1.0), (1, 0.25)].into_iter().enumerate() {
            let row_logits: Vec<f64> = logits[row * 3..row * 3 + 3]
                .iter()
                .map(|&x| f64::from(x))
                .collect();
            let sum: f64 = row_logits.iter().map(|x| x.exp()).sum();
            let loss = weight * (sum.ln() - row_logits[label]);
            assert!((f64::from(losses[row]) - loss).abs() < 1e-5 * loss.abs().max(1.0));
            for class in 0..3 {
                let p = row_logits[class].exp() / sum;
                let expected = weight * (p - f64::from(u8::from(class == label)));
                assert!((f64::from(gradient[row * 3 + class]) - expected).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_weight_of_zero_leaves_neither_loss_nor_gradient() {
        let mut logits = [1.0, 2.0];
        let mut losses = [9.0];
        in_place(2, &mut logits, &[0], &[0.0], &mut losses);
        assert_eq!((logits, losses), ([0.0, 0.0], [0.0]));
    }
}
