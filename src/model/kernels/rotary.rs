//! Rotary positions: pairs of channels turned by an angle that grows with the position, forward and backward.

use rayon::prelude::*;

use super::pairs::{Form, round_all, widen_all};
use super::rows_per_task;

/// The angles of a packed batch. A rotation's vector-Jacobian product is the rotation back.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Channels of a head that are turned: the first half against the second.
    channels: usize,
    /// [N, channels / 2] cosines, then sines: of each position a row of `channels`.
    angles: Vec<f32>,
}

impl Rotation {
    /// Angles of `positions` [N] at `frequencies` [channels / 2]; angles in f32, as the models compute them.
    pub(crate) fn new(channels: usize, frequencies: &[f32], positions: &[u32]) -> Self {
        let mut angles = Vec::with_capacity(positions.len() * channels);
        for &position in positions {
            let turned = frequencies.iter().map(|&f| f64::from(position as f32 * f));
            angles.extend(turned.clone().map(|angle| angle.cos() as f32));
            angles.extend(turned.map(|angle| angle.sin() as f32));
        }
        Self { channels, angles }
    }

    /// Channels of a head that are turned.
    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// Cosines of each position and pair of channels: [N, channels / 2], row by row.
    pub(crate) fn cosines(&self) -> Vec<f32> {
        self.halves(0)
    }

    /// Sines, as [`Self::cosines`].
    pub(crate) fn sines(&self) -> Vec<f32> {
        self.halves(1)
    }

    fn halves(&self, which: usize) -> Vec<f32> {
        self.angles
            .chunks_exact(self.channels / 2)
            .skip(which)
            .step_by(2)
            .flatten()
            .copied()
            .collect()
    }

    /// Turns the first `heads` heads of `size` channels in every row of `matrix`, which has `stride` numbers of either
    /// form, in place; `back` undoes it.
    pub(crate) fn apply(
        &self,
        form: Form,
        matrix: &mut [f32],
        stride: usize,
        (heads, size): (usize, usize),
        back: bool,
    ) {
        if matrix.is_empty() {
            return;
        }
        let (words, turned) = (form.words(stride), form.words(heads * size));
        let per_task = rows_per_task(matrix.len() / words);
        matrix
            .par_chunks_mut(per_task * words)
            .zip(self.angles.par_chunks(per_task * self.channels))
            .for_each(|(rows, angles)| {
                let mut wide = vec![];
                for (row, angles) in rows
                    .chunks_exact_mut(words)
                    .zip(angles.chunks_exact(self.channels))
                {
                    let row = &mut row[..turned];
                    match form {
                        Form::Numbers => self.turn_row(row, size, angles, back),
                        Form::Pairs => {
                            wide.resize(heads * size, 0.0);
                            widen_all(row, &mut wide);
                            self.turn_row(&mut wide, size, angles, back);
                            round_all(&wide, row);
                        }
                    }
                }
            });
    }

    /// Turns the heads of one position.
    fn turn_row(&self, heads: &mut [f32], size: usize, angles: &[f32], back: bool) {
        let half = self.channels / 2;
        let sign = if back { -1.0 } else { 1.0 };
        let (cosines, sines) = angles.split_at(half);
        for head in heads.chunks_exact_mut(size) {
            let (first, second) = head[..self.channels].split_at_mut(half);
            for (((a, b), &cosine), &sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                let sine = sign * sine;
                (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_turned_by_position_times_frequency_and_back() {
        let rotation = Rotation::new(2, &[0.5], &[0, 3]);
        // Two heads of three channels of which two are turned, and a channel beyond the heads.
        let row = [1.0, 0.0, 7.0, 0.0, 2.0, 8.0, 9.0];
        let mut matrix = [row, row].concat();
        rotation.apply(Form::Numbers, &mut matrix, 7, (2, 3), false);
        let (sine, cosine) = 1.5_f32.sin_cos();
        assert_eq!(matrix[..7], row);
        let expected = [cosine, sine, 7.0, -2.0 * sine, 2.0 * cosine, 8.0, 9.0];
        for (found, expected) in matrix[7..].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        rotation.apply(Form::Numbers, &mut matrix, 7, (2, 3), true);
        for (found, expected) in matrix[7..].iter().zip(row) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert_eq!(rotation.cosines().len(), 2);
        assert!((rotation.sines()[1] - sine).abs() < 1e-6);
    }
    #[test]
    fn pairs_are_turned_as_their_numbers_are() {
        let rotation = Rotation::new(4, &[0.5, 0.1], &[0, 3, 7]);
        let numbers: Vec<f32> = (0..3 * 14).map(|i| (i % 9) as f32 - 4.0).collect();
        let mut words = vec![0.0; numbers.len() / 2];
        round_all(&numbers, &mut words);
        let mut expected = numbers.clone();
        rotation.apply(Form::Numbers, &mut expected, 14, (2, 6), false);
        rotation.apply(Form::Pairs, &mut words, 14, (2, 6), false);
        let mut found = vec![0.0; numbers.len()];
        widen_all(&words, &mut found);
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() <= expected.abs() / 256.0,
                "{found} {expected}"
            );
        }
    }
}
