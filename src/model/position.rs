//! Where a token stands: T5's relative bias. (Learned positions are a [`super::frozen::FrozenEmbedding`].)

use candle_core::{DType, Device, Result, Tensor};

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
