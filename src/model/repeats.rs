//! Rows that are equal, bit by bit: what a layer makes of one it makes of all.
//!
//! In front of the first layer a token's row is its embedding wherever it stands (unless positions have been added), and
//! every row of a batch begins with the same virtual tokens: some two thirds of the first projection are repetitions.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rayon::prelude::*;

use super::intermediate::{Intermediate, gather};
use super::kernels::buffer::Buffer;

/// Below this many different rows a product may be summed in another order, see [`super::kernels::matmul`].
const FEWEST: usize = 64;

/// Which rows of a matrix are equal.
pub(crate) struct Repeats {
    /// The first row of each kind.
    first: Vec<u32>,
    /// The kind of each row.
    kinds: Vec<u32>,
}

impl Repeats {
    /// The repetitions among the rows of `x` [N, width]; nothing where they are few.
    pub(crate) fn of(x: &[f32], width: usize) -> Option<Self> {
        const SAMPLES: usize = 8;
        let count = x.len() / width.max(1);
        if count <= FEWEST {
            return None;
        }
        let row = |number: u32| &x[number as usize * width..][..width];
        let bits = |number: u32| row(number).iter().map(|x| x.to_bits());
        let mut this = Self {
            first: vec![],
            kinds: Vec::with_capacity(count),
        };
        let mut by_samples = HashMap::with_capacity(count);
        for number in 0..u32::try_from(count).ok()? {
            let samples: [u32; SAMPLES] =
                std::array::from_fn(|i| row(number)[i * width / SAMPLES].to_bits());
            let new = u32::try_from(this.first.len()).ok()?;
            let kind = match by_samples.entry(samples) {
                Entry::Vacant(place) => *place.insert(new),
                Entry::Occupied(found) => {
                    let first = this.first[*found.get() as usize];
                    // Rows that differ elsewhere are kinds of their own, each time.
                    if bits(first).eq(bits(number)) {
                        *found.get()
                    } else {
                        new
                    }
                }
            };
            if kind == new {
                this.first.push(number);
            }
            this.kinds.push(kind);
        }
        let different = this.first.len();
        (different >= FEWEST && different <= count / 8 * 7).then_some(this)
    }

    /// The first row of each kind of `x` [N, width], end to end.
    pub(crate) fn once(&self, x: &[f32], width: usize) -> Buffer {
        gather(x, width, &self.first)
    }

    /// For each row what was made of its kind: [kinds, width] to [N, width].
    pub(crate) fn spread(&self, of_kinds: &Intermediate, width: usize) -> Intermediate {
        let mut all = Intermediate::dirty(of_kinds.form, self.kinds.len() * width);
        let words = of_kinds.form.words(width);
        all.words
            .par_chunks_exact_mut(words)
            .with_min_len(64)
            .zip(&self.kinds)
            .for_each(|(to, &kind)| {
                to.copy_from_slice(&of_kinds.words[kind as usize * words..][..words]);
            });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::intermediate::Form;
    use super::*;

    #[test]
    fn rows_once_and_spread_again_are_the_rows() {
        const WIDTH: usize = 24;
        // A hundred kinds, of which some differ in a number that is no sample.
        let row = |kind: usize| {
            (0..WIDTH).map(move |i| match i {
                1 => (kind % 3) as f32,
                _ => (kind / 3 * WIDTH + i) as f32,
            })
        };
        let x: Vec<f32> = (0..1000).flat_map(|i| row(i * 37 % 100)).collect();
        let repeats = Repeats::of(&x, WIDTH).expect("repetitions");
        let once = repeats.once(&x, WIDTH);
        assert!(once.len() >= 100 * WIDTH && once.len() < x.len());
        let mut of_kinds = Intermediate::dirty(Form::Numbers, once.len());
        of_kinds.words.copy_from_slice(&once);
        assert_eq!(&*repeats.spread(&of_kinds, WIDTH).words, &x[..]);
    }

    #[test]
    fn different_or_few_rows_are_left_alone() {
        let x: Vec<f32> = (0..4000).map(|i| i as f32).collect();
        assert!(Repeats::of(&x, 8).is_none());
        assert!(Repeats::of(&[1.0; 4000], 8).is_none());
        assert!(Repeats::of(&[1.0; 80], 8).is_none());
    }
}
