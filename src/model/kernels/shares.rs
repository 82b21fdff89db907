//! How a product's rows are shared out.

use std::ops::Range;

use rayon::prelude::*;

use super::matmul::Threads;

/// Runs `work(rows, panels)` for all rows of a product and all panels of its columns: parts of at most `most` tiles of
/// `tile` rows with all of the panels; where that gives too few parts, with `few` panels each.
pub(super) fn share_out(
    rows: usize,
    (tile, most): (usize, usize),
    (panels, few): (usize, usize),
    threads: Threads,
    work: impl Fn(Range<usize>, Range<usize>) + Sync,
) {
    if threads == Threads::One {
        let shares = Shares::new(rows, tile, most, 1);
        return (0..shares.count).for_each(|part| work(shares.rows(part), 0..panels));
    }
    let threads = rayon::current_num_threads();
    let shares = Shares::new(rows, tile, most, threads);
    let across = if shares.count >= 2 * threads {
        1
    } else {
        panels.div_ceil(few)
    };
    (0..shares.count * across)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| {
            let (down, part) = (task / across, task % across);
            let panels = part * panels / across..(part + 1) * panels / across;
            work(shares.rows(down), panels);
        });
}

/// Rows in parts of whole tiles (the last may lack some rows) that differ by one tile at most, as many for each thread,
/// so that no thread waits for a whole part of another.
#[derive(Clone, Copy, Debug)]
struct Shares {
    rows: usize,
    tile: usize,
    count: usize,
}

impl Shares {
    /// `rows` in parts of at most `most` tiles of `tile` rows for `threads` threads.
    fn new(rows: usize, tile: usize, most: usize, threads: usize) -> Self {
        let tiles = rows.div_ceil(tile);
        let parts = tiles.div_ceil(most);
        // A matrix of few rows is left in few parts: their columns can be shared out as well.
        let count = if parts >= 2 * threads {
            parts.next_multiple_of(threads).min(tiles)
        } else {
            parts
        };
        Self { rows, tile, count }
    }

    /// Rows of a part.
    fn rows(&self, part: usize) -> Range<usize> {
        let tiles = self.rows.div_ceil(self.tile);
        let start = |part: usize| (part * tiles / self.count * self.tile).min(self.rows);
        start(part)..start(part + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_rows_in_order_and_differ_by_a_tile_at_most() {
        for rows in 0..700 {
            for (most, threads) in [(8, 1), (8, 2), (3, 8), (1, 2)] {
                let shares = Shares::new(rows, 12, most, threads);
                let parts: Vec<_> = (0..shares.count).map(|i| shares.rows(i)).collect();
                assert_eq!(parts.iter().map(Range::len).sum::<usize>(), rows);
                assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
                assert!(
                    parts
                        .iter()
                        .all(|part| part.len() <= most * 12 && part.start % 12 == 0)
                );
                let tiles = parts.iter().map(|part| part.len().div_ceil(12));
                assert!(tiles.clone().max().unwrap_or(0) - tiles.min().unwrap_or(0) <= 1);
                assert!(
                    parts.len() < 2 * threads
                        || parts.len() % threads == 0
                        || parts.len() * 12 >= rows
                );
            }
        }
    }
}
