//! Products with a frozen matrix held in bf16 ("brain floating point"), packed once when it is loaded.
//!
//! Where the processor has AVX-512 BF16 the left operand is rounded to bf16 and `vdpbf16ps` adds products of pairs up
//! in f32; elsewhere blocks of the matrix are widened and multiplied in f32. One copy of the matrix serves both the
//! forward product and the transposed one of the backward: its unit is a square of two terms by two columns, so that
//! the other orientation is the same squares, each with two numbers exchanged, in another order.

use std::ops::{Deref, Range};
use std::sync::Arc;

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::brain_tile;
use super::buffer::Buffer;
use super::matmul::{Into, MatMut, MatRef, Threads, matmul};
use crate::sys::memory;

/// Columns of a panel, and terms of a square block.
pub(crate) const SIDE: usize = 32;
/// Squares of 2 x 2 along a side.
pub(crate) const SQUARES: usize = SIDE / 2;
/// Squares of a block of `SIDE` x `SIDE`.
const BLOCK: usize = SQUARES * SQUARES;
/// Panels that are packed at a time: the numbers of 16 fill a quarter of a page.
const PANELS_PACKED: usize = 16;
/// Columns or terms that are widened at a time where there is no instruction for bf16.
const WIDENED: usize = 1024;

/// A matrix [terms, cols] in bf16, in panels of 32 columns with all of their terms.
///
/// A panel holds for each pair of terms 16 squares; a square is, from the lowest bits, (term 0, col 0), (term 1,
/// col 0), (term 0, col 1), (term 1, col 1). Numbers beyond the matrix are zeros.
#[derive(Debug)]
pub(crate) struct BrainMatrix {
    squares: Panels,
    terms: usize,
    cols: usize,
}

/// Panels of a matrix, which others may share.
#[derive(Debug)]
struct Panels {
    squares: Arc<Vec<u64>>,
    range: Range<usize>,
}

impl Deref for Panels {
    type Target = [u64];
    fn deref(&self) -> &[u64] {
        &self.squares[self.range.clone()]
    }
}

impl From<Vec<u64>> for Panels {
    fn from(squares: Vec<u64>) -> Self {
        let range = 0..squares.len();
        Self {
            squares: Arc::new(squares),
            range,
        }
    }
}

/// Blocks of 32 that hold `count` numbers.
fn blocks(count: usize) -> usize {
    count.div_ceil(SIDE)
}

/// Exchanges the two middle numbers: a square transposed.
#[inline]
fn transposed(square: u64) -> u64 {
    (square & 0xffff_0000_0000_ffff)
        | ((square & 0xffff_0000) << 16)
        | ((square >> 16) & 0xffff_0000)
}

/// 32 lines of 32 numbers' bits, of which `count` lines of `length` numbers are there; line `i` begins at `start(i)`.
#[inline]
fn block(
    numbers: &[half::bf16],
    start: impl Fn(usize) -> usize,
    count: usize,
    length: usize,
) -> [[u16; SIDE]; SIDE] {
    let mut lines = [[0; SIDE]; SIDE];
    for (index, line) in lines[..count].iter_mut().enumerate() {
        let stored = &numbers[start(index)..][..length];
        for (bits, number) in line.iter_mut().zip(stored) {
            *bits = number.to_bits();
        }
    }
    lines
}

/// The squares of a block of 32 terms' lines.
#[inline]
fn pack_rows(lines: &[[u16; SIDE]; SIDE], target: &mut [u64]) {
    let pairs = target.chunks_exact_mut(SQUARES).zip(lines.as_chunks().0);
    for (squares, [even, odd]) in pairs {
        for (square, (even, odd)) in squares
            .iter_mut()
            .zip(even.as_chunks::<2>().0.iter().zip(odd.as_chunks::<2>().0))
        {
            let left = u64::from(even[0]) | u64::from(odd[0]) << 16;
            let right = u64::from(even[1]) | u64::from(odd[1]) << 16;
            *square = left | right << 32;
        }
    }
}

/// The squares of a block of 32 columns' lines.
#[inline]
fn pack_columns(lines: &[[u16; SIDE]; SIDE], target: &mut [u64]) {
    for (index, [left, right]) in lines.as_chunks().0.iter().enumerate() {
        let terms = left.as_chunks::<2>().0.iter().zip(right.as_chunks::<2>().0);
        for (pair, (left, right)) in terms.enumerate() {
            let low = u64::from(left[0]) | u64::from(left[1]) << 16;
            let high = u64::from(right[0]) | u64::from(right[1]) << 16;
            target[pair * SQUARES + index] = low | high << 32;
        }
    }
}

impl BrainMatrix {
    /// Packs `numbers`, which lie as [terms, cols], or as [cols, terms] where `columns_first`.
    pub(crate) fn pack(
        numbers: &[half::bf16],
        terms: usize,
        cols: usize,
        columns_first: bool,
    ) -> Self {
        assert!(
            numbers.len() == terms * cols,
            "a matrix of another size than its numbers"
        );
        let depth = blocks(terms) * SQUARES;
        let mut squares = vec![0_u64; blocks(cols) * depth * SQUARES];
        memory::large_pages(&mut squares);
        let panel = (depth * SQUARES).max(1);
        squares
            .par_chunks_mut(PANELS_PACKED * panel)
            .enumerate()
            .for_each(|(task, squares)| {
                // Block after block of terms, so that neighbouring panels read the same pages of the stored matrix.
                for first_term in (0..terms).step_by(SIDE) {
                    for (index, panel) in squares.chunks_exact_mut(panel).enumerate() {
                        let first_col = (task * PANELS_PACKED + index) * SIDE;
                        let height = SIDE.min(terms - first_term);
                        let width = SIDE.min(cols - first_col);
                        let target = &mut panel[first_term / 2 * SQUARES..][..BLOCK];
                        if columns_first {
                            let at = |col: usize| (first_col + col) * terms + first_term;
                            pack_columns(&block(numbers, at, width, height), target);
                        } else {
                            let at = |term: usize| (first_term + term) * cols + first_col;
                            pack_rows(&block(numbers, at, height, width), target);
                        }
                    }
                }
            });
        Self {
            squares: squares.into(),
            terms,
            cols,
        }
    }

    /// Columns `range` as a matrix of their own; nothing where they do not begin with a panel. Whole panels are shared.
    pub(crate) fn columns(&self, range: Range<usize>) -> Option<Self> {
        if !range.start.is_multiple_of(SIDE) || range.end > self.cols || range.is_empty() {
            return None;
        }
        let panel = blocks(self.terms) * BLOCK;
        let panels = range.start / SIDE * panel..blocks(range.end) * panel;
        let beyond = blocks(range.end) * SIDE - range.end;
        let squares = if beyond == 0 || range.end == self.cols {
            let start = self.squares.range.start;
            Panels {
                squares: self.squares.squares.clone(),
                range: start + panels.start..start + panels.end,
            }
        } else {
            // Columns of others behind the last.
            let mut squares = self.squares[panels].to_vec();
            let last = squares.len() - panel;
            for squares in squares[last..].chunks_exact_mut(SQUARES) {
                for col in SIDE - beyond..SIDE {
                    squares[col / 2] &= !(0xffff_ffff << (32 * (col % 2)));
                }
            }
            squares.into()
        };
        Some(Self {
            squares,
            terms: self.terms,
            cols: range.len(),
        })
    }

    fn at(&self, term: usize, col: usize) -> f32 {
        let depth = blocks(self.terms) * SQUARES;
        let panel = col / SIDE * depth * SQUARES;
        let square = self.squares[panel + term / 2 * SQUARES + col % SIDE / 2];
        let bits = square >> (32 * (col % 2) + 16 * (term % 2));
        f32::from_bits((bits as u32) << 16)
    }

    /// The matrix transposed, in a buffer that goes back to the pool.
    fn to_transposed(&self, threads: Threads) -> Squares {
        let (down, across) = (blocks(self.terms), blocks(self.cols));
        let mut squares = Squares::dirty(down * across * BLOCK);
        let convert = |(panel, target): (usize, &mut [u64])| {
            #[cfg(target_arch = "x86_64")]
            if brain_tile::is_supported() {
                let blocks = self.squares.as_chunks::<BLOCK>().0;
                let source = |block: usize| &blocks[block * down + panel];
                brain_tile::transpose_blocks(source, target);
                return;
            }
            for (block, target) in target.chunks_exact_mut(BLOCK).enumerate() {
                let source = &self.squares[(block * down + panel) * BLOCK..][..BLOCK];
                for (i, target) in target.chunks_exact_mut(SQUARES).enumerate() {
                    for (j, target) in target.iter_mut().enumerate() {
                        *target = transposed(source[j * SQUARES + i]);
                    }
                }
            }
        };
        let panels = squares.as_mut_slice();
        match threads {
            Threads::One => panels
                .chunks_exact_mut((across * BLOCK).max(1))
                .enumerate()
                .for_each(convert),
            Threads::All => panels
                .par_chunks_exact_mut((across * BLOCK).max(1))
                .enumerate()
                .for_each(convert),
        }
        squares
    }

    /// `out = left · self + bias`, or added to it: [M, terms] · [terms, cols].
    ///
    /// Operands in pairs are for processors that [have them](super::pairs::are_supported), and even numbers of terms and
    /// columns.
    pub(crate) fn product(
        &self,
        out: Out<'_>,
        left: Left<'_>,
        bias: Option<&[f32]>,
        threads: Threads,
    ) {
        check(&out, left, self.terms, self.cols);
        #[cfg(target_arch = "x86_64")]
        if brain_tile::is_supported() && self.terms > 0 {
            brain_tile::product(out, left, &self.squares, bias, threads);
            return;
        }
        let (mut result, into, left) = numbers_of(out, left);
        let into = result.begin_with(bias, into);
        self.product_widened(result, into, left, threads);
    }

    /// `out = left · selfᵀ`, or added to it: [M, cols] · [cols, terms]; operands as [`Self::product`].
    pub(crate) fn transposed_product(&self, out: Out<'_>, left: Left<'_>, threads: Threads) {
        check(&out, left, self.cols, self.terms);
        #[cfg(target_arch = "x86_64")]
        if brain_tile::is_supported() && self.cols > 0 {
            let transposed = self.to_transposed(threads);
            brain_tile::product(out, left, transposed.as_slice(), None, threads);
            return;
        }
        let (result, into, left) = numbers_of(out, left);
        self.transposed_product_widened(result, into, left, threads);
    }

    /// Columns `first..first + count` in f32, [count, terms].
    fn widened(&self, first: usize, count: usize) -> Buffer {
        let mut wide = Buffer::dirty(count * self.terms);
        wide.par_chunks_exact_mut(self.terms.max(1))
            .enumerate()
            .for_each(|(col, wide)| {
                for (term, wide) in wide.iter_mut().enumerate() {
                    *wide = self.at(term, first + col);
                }
            });
        wide
    }

    /// [`Self::product`] in f32.
    fn product_widened(
        &self,
        mut result: MatMut<'_>,
        into: Into,
        left: MatRef<'_>,
        threads: Threads,
    ) {
        for first in (0..self.cols).step_by(WIDENED) {
            let count = WIDENED.min(self.cols - first);
            let wide = self.widened(first, count);
            let wide = MatRef::packed(&wide, count, self.terms).transposed();
            matmul(result.columns(first, count), into, 1.0, left, wide, threads);
        }
    }

    /// [`Self::transposed_product`] in f32.
    fn transposed_product_widened(
        &self,
        mut result: MatMut<'_>,
        into: Into,
        left: MatRef<'_>,
        threads: Threads,
    ) {
        let all = result.cols();
        let mut into = into;
        for first in (0..self.cols).step_by(WIDENED) {
            let count = WIDENED.min(self.cols - first);
            let wide = self.widened(first, count);
            matmul(
                result.columns(0, all),
                into,
                1.0,
                left.columns(first, count),
                MatRef::packed(&wide, count, self.terms),
                threads,
            );
            into = Into::Add;
        }
    }
}

fn check(out: &Out<'_>, left: Left<'_>, terms: usize, cols: usize) {
    let (left, left_cols) = match left {
        Left::Numbers(left) => (left, left.cols()),
        Left::Pairs(left) => (left, 2 * left.cols()),
    };
    let (result, result_cols) = match out {
        Out::Numbers(result, _) => (result, result.cols()),
        Out::Pairs(result) => (result, 2 * result.cols()),
    };
    assert!(
        left_cols == terms && result_cols == cols && left.rows() == result.rows(),
        "matrices of sizes {}x{left_cols} and {terms}x{cols} have no product of size {}x{result_cols}",
        left.rows(),
        result.rows(),
    );
}

/// Operands where there are no pairs.
fn numbers_of<'a, 'b>(out: Out<'a>, left: Left<'b>) -> (MatMut<'a>, Into, MatRef<'b>) {
    match (out, left) {
        (Out::Numbers(result, into), Left::Numbers(left)) => (result, into, left),
        _ => unreachable!("operands in pairs on a processor without a product of them"),
    }
}

/// The left operand of a product.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// Numbers to be rounded.
    Numbers(MatRef<'a>),
    /// Words of two terms, see [`super::pairs`]; rows lie side by side.
    Pairs(MatRef<'a>),
}

/// Where a product goes.
pub(crate) enum Out<'a> {
    /// Numbers in f32.
    Numbers(MatMut<'a>, Into),
    /// Words of two neighbouring columns, overwritten.
    Pairs(MatMut<'a>),
}

/// Squares in a pooled buffer of numbers of half their size.
struct Squares {
    buffer: Buffer,
    count: usize,
}

impl Squares {
    fn dirty(count: usize) -> Self {
        // One more, since the pool's buffers may begin in the middle of a square.
        let buffer = Buffer::dirty(2 * (count + 1));
        Self { buffer, count }
    }

    #[expect(unsafe_code, reason = "numbers of 64 bits in a pool of those of 32")]
    fn as_mut_slice(&mut self) -> &mut [u64] {
        // SAFETY: every pattern of bits is a `u64` and an `f32`; `align_to_mut` keeps to the buffer.
        let (_, squares, _) = unsafe { self.buffer.align_to_mut::<u64>() };
        &mut squares[..self.count]
    }

    #[expect(unsafe_code, reason = "numbers of 64 bits in a pool of those of 32")]
    fn as_slice(&self) -> &[u64] {
        // SAFETY: as above.
        let (_, squares, _) = unsafe { self.buffer.align_to::<u64>() };
        &squares[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::rng::SeededRng;
    use half::bf16;

    /// Sizes around those of tiles, panels, blocks of terms and tasks.
    const SIZES: [(usize, usize, usize); 9] = [
        (1, 1, 1),
        (1, 70, 33),
        (3, 32, 32),
        (12, 33, 31),
        (13, 64, 100),
        (97, 31, 1025),
        (200, 70, 600),
        (8, 1100, 40),
        (2, 5, 2100),
    ];

    fn rounded(numbers: &[f32]) -> Vec<f32> {
        numbers
            .iter()
            .map(|&x| bf16::from_f32(x).to_f32())
            .collect()
    }

    /// Three loops in double precision over numbers as they are, [m, n] = [m, k] · w, and the sum of magnitudes.
    fn exact(
        m: usize,
        n: usize,
        k: usize,
        left: &[f32],
        w: impl Fn(usize, usize) -> f32,
    ) -> Vec<(f64, f64)> {
        (0..m * n)
            .map(|place| {
                let (i, j) = (place / n, place % n);
                (0..k).fold((0.0, 0.0), |(sum, size), p| {
                    let term = f64::from(left[i * k + p]) * f64::from(w(p, j));
                    (sum + term, size + term.abs())
                })
            })
            .collect()
    }

    fn assert_close(found: &[f32], exact: &[(f64, f64)], before: f64, relative: f64, what: &str) {
        for (place, (&found, &(sum, size))) in found.iter().zip(exact).enumerate() {
            let difference = (f64::from(found) - before - sum).abs();
            assert!(
                difference <= relative * size + 1e-6,
                "{what} at {place}: {difference} of {size}"
            );
        }
    }

    #[test]
    fn both_products_of_every_size_equal_three_loops_over_rounded_numbers() {
        for (m, n, k) in SIZES {
            let weight = rounded(&SeededRng::new(2, 0).normals(n * k, 1.0));
            let stored: Vec<bf16> = weight.iter().map(|&x| bf16::from_f32(x)).collect();
            for columns_first in [false, true] {
                let (terms, cols) = (k, n);
                let at = |term: usize, col: usize| {
                    weight[if columns_first {
                        col * terms + term
                    } else {
                        term * cols + col
                    }]
                };
                let matrix = BrainMatrix::pack(&stored, terms, cols, columns_first);
                for (into, threads) in [(Into::Overwrite, Threads::All), (Into::Add, Threads::One)]
                {
                    let before = if into == Into::Add { 0.5 } else { 0.0 };
                    // Left numbers that bf16 holds, so that both paths multiply the same.
                    let left = rounded(&SeededRng::new(1, 0).normals(m * terms, 1.0));
                    let sums = exact(m, cols, terms, &left, at);
                    let left = MatRef::packed(&left, m, terms);
                    let mut found = vec![0.5_f32; m * cols];
                    let out = Out::Numbers(MatMut::packed(&mut found, m, cols), into);
                    matrix.product(out, Left::Numbers(left), None, threads);
                    assert_close(&found, &sums, before, 1e-6, &format!("{m}x{k}x{n}"));
                    found.fill(0.5);
                    matrix.product_widened(
                        MatMut::packed(&mut found, m, cols),
                        into,
                        left,
                        threads,
                    );
                    assert_close(&found, &sums, before, 1e-6, &format!("widened {m}x{k}x{n}"));

                    let left = rounded(&SeededRng::new(3, 0).normals(m * cols, 1.0));
                    let sums = exact(m, terms, cols, &left, |p, j| at(j, p));
                    let left = MatRef::packed(&left, m, cols);
                    let mut found = vec![0.5_f32; m * terms];
                    let out = Out::Numbers(MatMut::packed(&mut found, m, terms), into);
                    matrix.transposed_product(out, Left::Numbers(left), threads);
                    assert_close(
                        &found,
                        &sums,
                        before,
                        1e-6,
                        &format!("transposed {m}x{n}x{k}"),
                    );
                    found.fill(0.5);
                    matrix.transposed_product_widened(
                        MatMut::packed(&mut found, m, terms),
                        into,
                        left,
                        threads,
                    );
                    assert_close(
                        &found,
                        &sums,
                        before,
                        1e-6,
                        &format!("widened, transposed {m}x{n}x{k}"),
                    );
                }
            }
        }
    }

    #[test]
    fn numbers_between_those_of_bf16_change_a_product_by_no_more_than_their_rounding() {
        let (m, n, k) = (17, 45, 777);
        let left = SeededRng::new(1, 0).normals(m * k, 1.0);
        let weight = rounded(&SeededRng::new(2, 0).normals(n * k, 1.0));
        let stored: Vec<bf16> = weight.iter().map(|&x| bf16::from_f32(x)).collect();
        let matrix = BrainMatrix::pack(&stored, k, n, true);
        let mut found = vec![0.0; m * n];
        matrix.product(
            Out::Numbers(MatMut::packed(&mut found, m, n), Into::Overwrite),
            Left::Numbers(MatRef::packed(&left, m, k)),
            None,
            Threads::All,
        );
        // bf16 keeps 8 bits: rounding to the nearest moves a number by at most 2^-9 of itself.
        let sums = exact(m, n, k, &left, |term, col| weight[col * k + term]);
        assert_close(&found, &sums, 0.0, 1.0 / 512.0, "rounded");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn products_of_pairs_are_those_of_their_numbers_rounded_where_they_are_written() {
        use super::super::pairs::{are_supported, round_all, widen_all};
        if !are_supported() {
            return;
        }
        let words_of = |numbers: &[f32]| {
            let mut words = vec![0.0; numbers.len() / 2];
            round_all(numbers, &mut words);
            words
        };
        for (m, n, k) in [
            (1, 2, 2),
            (13, 100, 64),
            (97, 34, 38),
            (200, 600, 70),
            (30, 64, 9000),
        ] {
            let stored: Vec<bf16> = SeededRng::new(2, 0)
                .normals(n * k, 1.0)
                .into_iter()
                .map(bf16::from_f32)
                .collect();
            let matrix = BrainMatrix::pack(&stored, k, n, true);
            let bias = SeededRng::new(4, 0).normals(n, 1.0);
            let left = rounded(&SeededRng::new(1, 0).normals(m * k, 1.0));
            let mut exact = vec![0.0; m * n];
            matrix.product(
                Out::Numbers(MatMut::packed(&mut exact, m, n), Into::Overwrite),
                Left::Numbers(MatRef::packed(&left, m, k)),
                Some(&bias),
                Threads::All,
            );
            let mut widened: Vec<f32> = bias.repeat(m);
            matrix.product_widened(
                MatMut::packed(&mut widened, m, n),
                Into::Add,
                MatRef::packed(&left, m, k),
                Threads::All,
            );
            for (found, expected) in exact.iter().zip(&widened) {
                assert!((found - expected).abs() < 1e-3, "{found}, not {expected}");
            }
            let words = words_of(&left);
            let left_words = Left::Pairs(MatRef::packed(&words, m, k / 2));
            let mut found = vec![1.0; m * n];
            let out = Out::Numbers(MatMut::packed(&mut found, m, n), Into::Add);
            matrix.product(out, left_words, Some(&bias), Threads::All);
            for (found, expected) in found.iter().zip(&exact) {
                assert!(
                    (found - 1.0 - expected).abs() < 1e-4,
                    "{found}, 1 + {expected}"
                );
            }
            let mut found = vec![0.0; m * n / 2];
            let out = Out::Pairs(MatMut::packed(&mut found, m, n / 2));
            matrix.product(out, left_words, Some(&bias), Threads::One);
            let mut wide = vec![0.0; m * n];
            widen_all(&found, &mut wide);
            assert_eq!(wide, rounded(&exact), "{m}x{k}x{n}");

            let left = rounded(&SeededRng::new(3, 0).normals(m * n, 1.0));
            let mut exact = vec![0.0; m * k];
            matrix.transposed_product(
                Out::Numbers(MatMut::packed(&mut exact, m, k), Into::Overwrite),
                Left::Numbers(MatRef::packed(&left, m, n)),
                Threads::All,
            );
            let words = words_of(&left);
            let left = Left::Pairs(MatRef::packed(&words, m, n / 2));
            let mut found = vec![0.0; m * k / 2];
            let out = Out::Pairs(MatMut::packed(&mut found, m, k / 2));
            matrix.transposed_product(out, left, Threads::All);
            let mut wide = vec![0.0; m * k];
            widen_all(&found, &mut wide);
            assert_eq!(wide, rounded(&exact), "transposed {m}x{n}x{k}");
        }
    }

    #[test]
    fn columns_of_a_matrix_are_a_matrix() {
        let (terms, cols) = (35, 100);
        let numbers: Vec<bf16> = (0..terms * cols)
            .map(|i| bf16::from_f32((i % 251) as f32))
            .collect();
        let whole = BrainMatrix::pack(&numbers, terms, cols, false);
        for range in [0..64, 32..70, 64..100, 96..97] {
            let part: Vec<bf16> = numbers
                .chunks_exact(cols)
                .flat_map(|row| row[range.clone()].to_vec())
                .collect();
            let part = BrainMatrix::pack(&part, terms, range.len(), false);
            assert_eq!(*whole.columns(range).unwrap().squares, *part.squares);
        }
        assert!(whole.columns(1..64).is_none());
    }

    #[test]
    fn an_empty_side_gives_zeros_or_nothing() {
        let matrix = BrainMatrix::pack(&[], 0, 3, false);
        let mut found = [1.0_f32; 6];
        matrix.product(
            Out::Numbers(MatMut::packed(&mut found, 2, 3), Into::Overwrite),
            Left::Numbers(MatRef::packed(&[], 2, 0)),
            None,
            Threads::One,
        );
        assert!(found.iter().all(|&x| x == 0.0));
    }
}
