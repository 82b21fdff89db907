//! Where a token stands: T5's relative bias and rotation. (Learned positions are a [`super::frozen::FrozenEmbedding`].)

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

use super::kernels::rotary::Rotation;

/// What attention must know of a batch's positions beside their order.
#[derive(Clone, Debug, Default)]
pub struct BatchPositions {
    /// Added to scores.
    pub bias: Option<BatchBias>,
    /// Turns queries and keys.
    pub rotation: Option<Arc<Rotation>>,
}

/// Relative positions of a batch: [heads, 2 · span - 1] and span.
#[derive(Clone, Debug)]
pub struct BatchBias {
    /// [`RelativeBias::distances`] of `span`.
    pub distances: Arc<Vec<f32>>,
    /// At least the longest row.
    pub span: usize,
}

/// Rotary positions (Su et al. 2021): halves of a head's channels are turned against each other, each pair of channels
/// with its own frequency, by an angle proportional to the position.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Channels of a head that are turned, from the first.
    pub channels: usize,
    /// The frequencies are powers of it: 10,000 at first.
    pub base: f64,
    /// How a longer context than was trained is made to fit.
    pub scaling: RotaryScaling,
}

/// A change of frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RotaryScaling {
    /// None.
    None,
    /// All positions divided by a factor (Chen et al. 2023).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Low frequencies divided by a factor, high ones left, those between in proportion (Llama 3.1).
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths above `trained_positions` over this are divided.
        low_frequency: f64,
        /// Wavelengths below `trained_positions` over this are left.
        high_frequency: f64,
        /// The context before.
        trained_positions: usize,
    },
}

impl Rotary {
    /// Radians for each step of a position, for each pair of channels: [channels / 2]. In f32, as the models compute it.
    pub fn frequencies(&self) -> Vec<f32> {
        (0..self.channels / 2)
            .map(|pair| {
                let exponent = (2 * pair) as f32 / self.channels as f32;
                self.scaled(1.0 / (self.base as f32).powf(exponent))
            })
            .collect()
    }

    fn scaled(&self, frequency: f32) -> f32 {
        match self.scaling {
            RotaryScaling::None => frequency,
            RotaryScaling::Linear { factor } => frequency / factor as f32,
            RotaryScaling::Llama3 {
                factor,
                low_frequency,
                high_frequency,
                trained_positions,
            } => {
                let trained = trained_positions as f64;
                let wavelength = 2.0 * std::f64::consts::PI / f64::from(frequency);
                if wavelength < trained / high_frequency {
                    frequency
                } else if wavelength > trained / low_frequency {
                    frequency / factor as f32
                } else {
                    let share =
                        (trained / wavelength - low_frequency) / (high_frequency - low_frequency);
                    let frequency = f64::from(frequency);
                    ((1.0 - share) * frequency / factor + share * frequency) as f32
                }
            }
        }
    }

    /// The rotation of packed positions: of each its place within its row, [N].
    pub fn rotation(&self, positions: &[u32]) -> Rotation {
        Rotation::new(self.channels, &self.frequencies(), positions)
    }
}

/// T5's relative position bias (Raffel et al. 2020, section 2.1): a learned number for each head and bucket of
/// distances, shared by all layers of a stack.
#[derive(Clone, Debug)]
pub struct RelativeBias {
    /// [buckets][heads]
    table: Vec<Vec<f32>>,
    heads: usize,
    bidirectional: bool,
    max_distance: usize,
}

impl RelativeBias {
    /// From a checkpoint's table [buckets, heads].
    ///
    /// # Errors
    /// Where it is no matrix.
    pub fn new(table: &Tensor, bidirectional: bool, max_distance: usize) -> Result<Self> {
        let (_, heads) = table.dims2()?;
        let table = table
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F32)?
            .to_vec2()?;
        Ok(Self {
            table,
            heads,
            bidirectional,
            max_distance,
        })
    }

    /// Numbers held.
    pub fn parameter_count(&self) -> usize {
        self.table.len() * self.heads
    }

    /// The relative bias of every distance in a batch, times `factor`.
    pub fn of_batch(&self, longest: usize, factor: f64) -> BatchBias {
        let span = longest.max(1);
        let mut distances = self.distances(span);
        for bias in &mut distances {
            *bias *= factor as f32;
        }
        BatchBias {
            distances: Arc::new(distances),
            span,
        }
    }

    /// The bias of every head and distance (key position - query position) from `-(span - 1)` to `span - 1`:
    /// [heads, 2 · span - 1], row by row.
    pub fn distances(&self, span: usize) -> Vec<f32> {
        let span = span.max(1) as i64;
        let buckets: Vec<usize> = (1 - span..span)
            .map(|distance| {
                bucket(
                    distance,
                    self.bidirectional,
                    self.table.len(),
                    self.max_distance,
                )
            })
            .collect();
        (0..self.heads)
            .flat_map(|head| buckets.iter().map(move |&bucket| self.table[bucket][head]))
            .collect()
    }
}

/// The bucket of a distance (key position - query position): exact for short ones, logarithmic up to `max_distance`,
/// one for all beyond. Bidirectional stacks give half of the buckets to keys after the query.
fn bucket(distance: i64, bidirectional: bool, buckets: usize, max_distance: usize) -> usize {
    let mut buckets = buckets;
    let mut first = 0;
    let distance = if bidirectional {
        buckets /= 2;
        if distance > 0 {
            first = buckets;
        }
        distance.unsigned_abs() as usize
    } else {
        (-distance).max(0) as usize
    };
    let exact = buckets / 2;
    if distance < exact {
        return first + distance;
    }
    // In f32, as the models were trained: near the edges of buckets double precision decides differently.
    let ratio =
        (distance as f32 / exact as f32).ln() / ((max_distance as f64 / exact as f64).ln() as f32);
    let logarithmic = exact + (ratio * (buckets - exact) as f32) as usize;
    first + logarithmic.min(buckets - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_exact_near_and_logarithmic_far() {
        // From transformers' `T5Attention._relative_position_bucket` with 32 buckets and distance 128.
        let bidirectional = [
            (0, 0),
            (-1, 1),
            (1, 17),
            (-7, 7),
            (-8, 8),
            (-11, 8),
            (-12, 9),
            (8, 24),
            (-127, 15),
            (-500, 15),
            (500, 31),
        ];
        for (distance, expected) in bidirectional {
            assert_eq!(bucket(distance, true, 32, 128), expected, "{distance}");
        }
        let causal = [
            (0, 0),
            (5, 0),
            (-1, 1),
            (-15, 15),
            (-16, 16),
            (-18, 16),
            (-19, 17),
            (-128, 31),
            (-999, 31),
        ];
        for (distance, expected) in causal {
            assert_eq!(bucket(distance, false, 32, 128), expected, "{distance}");
        }
    }

    #[test]
    fn frequencies_fall_from_one_and_are_scaled_as_llama_3_scales_them() {
        let mut rotary = Rotary {
            channels: 8,
            base: 10_000.0,
            scaling: RotaryScaling::None,
        };
        let near = |found: &[f32], expected: &[f32]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1e-6 * expected,
                    "{found} {expected}"
                );
            }
        };
        near(&rotary.frequencies(), &[1.0, 0.1, 0.01, 0.001]);
        rotary.scaling = RotaryScaling::Linear { factor: 4.0 };
        near(&rotary.frequencies(), &[0.25, 0.025, 0.0025, 0.00025]);
        // transformers' `_compute_llama3_parameters` with factor 8, 1 and 4, and 512 trained positions: wavelengths 6,
        // 63, 628 and 6283 against 128 and 512, and with 2048 against 512 and 2048, where the third is between.
        rotary.scaling = RotaryScaling::Llama3 {
            factor: 8.0,
            low_frequency: 1.0,
            high_frequency: 4.0,
            trained_positions: 512,
        };
        near(&rotary.frequencies(), &[1.0, 0.1, 0.00125, 0.000_125]);
        rotary.scaling = RotaryScaling::Llama3 {
            factor: 8.0,
            low_frequency: 1.0,
            high_frequency: 4.0,
            trained_positions: 2048,
        };
        near(&rotary.frequencies(), &[1.0, 0.1, 0.007_840_189, 0.000_125]);
    }

    #[test]
    fn the_table_of_distances_has_distance_zero_in_the_middle() {
        let table = Tensor::arange(0f32, 64.0, &Device::Cpu)
            .unwrap()
            .reshape((32, 2))
            .unwrap();
        let bias = RelativeBias::new(&table, true, 128).unwrap();
        let distances = bias.distances(3);
        assert_eq!(distances.len(), 10);
        // Head 0: buckets 2, 1, 0, 17, 18 of distances -2..=2; a row of the table is [2b, 2b + 1].
        assert_eq!(distances[..5], [4.0, 2.0, 0.0, 34.0, 36.0]);
        assert_eq!(distances[5..], [5.0, 3.0, 1.0, 35.0, 37.0]);
    }
}
