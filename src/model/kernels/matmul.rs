//! Matrix products of strided `f32` matrices: our own tiles where the processor has AVX-512, else the `gemm` crate.

#[cfg(target_arch = "x86_64")]
use std::sync::Arc;

use gemm::Parallelism;

#[cfg(target_arch = "x86_64")]
use super::few_rows;
use super::simd::{Level, level};
#[cfg(target_arch = "x86_64")]
use super::tile;

/// A matrix to read: `rows` x `cols` numbers at `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MatRef<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// Rows of `cols` numbers, `row_stride` apart.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        let this = Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        };
        assert!(
            this.last() <= data.len(),
            "a matrix reaches beyond its data"
        );
        this
    }

    /// Rows of `cols` numbers, end to end.
    pub(crate) fn packed(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::new(data, rows, cols, cols)
    }

    /// The same numbers, rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Columns `first..first + count`.
    pub(crate) fn columns(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.cols, "columns beyond a matrix");
        let start = (first * self.col_stride).min(self.data.len());
        Self {
            data: &self.data[start..],
            cols: count,
            ..self
        }
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Whether the numbers of a row lie side by side (else those of a column do).
    pub(crate) fn rows_are_contiguous(&self) -> bool {
        self.col_stride == 1
    }

    /// A row whose numbers lie side by side.
    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        debug_assert!(self.rows_are_contiguous());
        &self.data[row * self.row_stride..row * self.row_stride + self.cols]
    }

    /// The numbers from a row on whose numbers lie side by side, and the distance of rows.
    pub(crate) fn rows_from(&self, row: usize) -> (&'a [f32], usize) {
        debug_assert!(self.rows_are_contiguous());
        (&self.data[row * self.row_stride..], self.row_stride)
    }

    fn last(&self) -> usize {
        if self.rows == 0 || self.cols == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride + 1
    }
}

/// A matrix to write, of rows `row_stride` apart.
#[derive(Debug)]
pub(crate) struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// Rows of `cols` numbers, `row_stride` apart.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        let last = if rows == 0 || cols == 0 {
            0
        } else {
            (rows - 1) * row_stride + cols
        };
        assert!(last <= data.len(), "a matrix reaches beyond its data");
        Self {
            data,
            rows,
            cols,
            row_stride,
        }
    }

    /// Rows of `cols` numbers, end to end.
    pub(crate) fn packed(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::new(data, rows, cols, cols)
    }
}

impl MatMut<'_> {
    /// Columns `first..first + count`.
    pub(crate) fn columns(&mut self, first: usize, count: usize) -> MatMut<'_> {
        assert!(first + count <= self.cols, "columns beyond a matrix");
        let start = first.min(self.data.len());
        MatMut::new(&mut self.data[start..], self.rows, count, self.row_stride)
    }

    /// Sets every row to `bias`, or adds it, where there is one; gives what is left to do with a product.
    pub(crate) fn begin_with(&mut self, bias: Option<&[f32]>, into: Into) -> Into {
        let Some(bias) = bias else {
            return into;
        };
        for row in self.data.chunks_mut(self.row_stride.max(1)).take(self.rows) {
            let row = &mut row[..self.cols];
            match into {
                Into::Add => super::attention::add(row, bias),
                Into::Overwrite => row.copy_from_slice(bias),
            }
        }
        Into::Add
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Distance of rows.
    pub(crate) fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Numbers of the slice.
    pub(crate) fn length(&self) -> usize {
        self.data.len()
    }

    /// First number, for kernels that write disjoint parts from several threads.
    pub(crate) fn into_pointer(self) -> *mut f32 {
        self.data.as_mut_ptr()
    }
}

/// Whether a product uses the thread pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// This thread only: the caller is one of many tasks.
    One,
    /// All threads of the pool.
    All,
}

/// What happens to the numbers that the result already holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Into {
    /// They are replaced.
    Overwrite,
    /// The product is added to them.
    Add,
}

/// Below this many rows, packing the right operand costs more than the faster tiles gain.
const WORTH_PACKING: usize = 64;

/// The right operand of one or more products.
pub(crate) enum Right<'a> {
    /// As it lies.
    View(MatRef<'a>),
    /// Packed for our tiles, perhaps for other products too.
    #[cfg(target_arch = "x86_64")]
    Packed(Arc<tile::Panels>),
}

/// A right operand packed once for products at several times; holds nothing where nothing is packed.
pub(crate) struct Repeated {
    #[cfg(target_arch = "x86_64")]
    panels: Option<Arc<tile::Panels>>,
}

impl Repeated {
    /// Packs `right` where that pays.
    pub(crate) fn pack(right: MatRef<'_>, threads: Threads) -> Self {
        let _ = (right, threads);
        Self {
            #[cfg(target_arch = "x86_64")]
            panels: (level() == Level::Avx512)
                .then(|| Arc::new(tile::Panels::pack(right, threads))),
        }
    }

    /// The operand, which was packed from `right`.
    pub(crate) fn of<'a>(&'a self, right: MatRef<'a>) -> Right<'a> {
        #[cfg(target_arch = "x86_64")]
        if let Some(panels) = &self.panels {
            return Right::Packed(panels.clone());
        }
        Right::View(right)
    }
}

impl<'a> Right<'a> {
    /// Prepares `right` for products with `rows` rows in all.
    pub(crate) fn prepare(right: MatRef<'a>, rows: usize, threads: Threads) -> Self {
        #[cfg(target_arch = "x86_64")]
        if rows >= WORTH_PACKING && level() == Level::Avx512 {
            return Self::Packed(Arc::new(tile::Panels::pack(right, threads)));
        }
        let _ = (rows, threads, level);
        Self::View(right)
    }
}

/// `result = scale · left · right` (or added to it).
pub(crate) fn matmul(
    result: MatMut<'_>,
    into: Into,
    scale: f32,
    left: MatRef<'_>,
    right: MatRef<'_>,
    threads: Threads,
) {
    let right = Right::prepare(right, left.rows, threads);
    assert!(
        right_sizes(&right) == (left.cols, result.cols),
        "a product of other sizes"
    );
    matmul_prepared(result, into, scale, left, &right, threads);
}

fn right_sizes(right: &Right<'_>) -> (usize, usize) {
    match right {
        Right::View(right) => (right.rows, right.cols),
        #[cfg(target_arch = "x86_64")]
        Right::Packed(right) => right.sizes(),
    }
}

/// [`matmul`] with a right operand prepared before, of which the leading rows and columns that fit are used.
pub(crate) fn matmul_prepared(
    result: MatMut<'_>,
    into: Into,
    scale: f32,
    left: MatRef<'_>,
    right: &Right<'_>,
    threads: Threads,
) {
    let (terms, cols) = right_sizes(right);
    assert!(
        left.rows == result.rows && result.cols <= cols && left.cols <= terms,
        "matrices of sizes {}x{} and {terms}x{cols} have no product of size {}x{}",
        left.rows,
        left.cols,
        result.rows,
        result.cols
    );
    if result.rows == 0 || result.cols == 0 {
        return;
    }
    if left.cols == 0 {
        if into == Into::Overwrite {
            for row in 0..result.rows {
                result.data[row * result.row_stride..][..result.cols].fill(0.0);
            }
        }
        return;
    }
    let right = match right {
        Right::View(right) => *right,
        #[cfg(target_arch = "x86_64")]
        Right::Packed(right) => {
            tile::product(result, into, scale, left, right, threads);
            return;
        }
    };
    #[cfg(target_arch = "x86_64")]
    if left.rows < WORTH_PACKING && left.rows_are_contiguous() && level() == Level::Avx512 {
        // The first columns and terms alone may be used.
        let right = MatRef {
            rows: left.cols,
            cols: result.cols,
            ..right
        };
        few_rows::product(result, into, scale, left, right, threads);
        return;
    }
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(rayon::current_num_threads()),
    };
    #[expect(unsafe_code, reason = "the gemm crate takes pointers")]
    // SAFETY: the constructors checked that every row and column named here lies in its slice, and `result` borrows
    // its slice mutably, so nothing else reads or writes it.
    unsafe {
        gemm::gemm(
            result.rows,
            result.cols,
            left.cols,
            result.data.as_mut_ptr(),
            1,
            result.row_stride as isize,
            into == Into::Add,
            left.data.as_ptr(),
            left.col_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.col_stride as isize,
            right.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::rng::SeededRng;

    #[test]
    fn packed_products_of_every_shape_equal_three_loops() {
        // Around the sizes of tiles, panels, tasks and blocks of terms; both operands either way round.
        for (m, n, k) in [
            (1, 1, 1),
            (12, 32, 8),
            (13, 33, 3),
            (97, 31, 513),
            (200, 70, 600),
            (50, 300, 64),
            (5, 5, 0),
        ] {
            let left = SeededRng::new(1, 0).normals(m * k, 1.0);
            let right = SeededRng::new(2, 0).normals(n * k, 1.0);
            for (left_is_transposed, right_is_transposed) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                let a = if left_is_transposed {
                    MatRef::packed(&left, k, m).transposed()
                } else {
                    MatRef::packed(&left, m, k)
                };
                let b = if right_is_transposed {
                    MatRef::packed(&right, n, k).transposed()
                } else {
                    MatRef::packed(&right, k, n)
                };
                let at = |x: &MatRef<'_>, i: usize, j: usize| {
                    x.data[i * x.row_stride + j * x.col_stride]
                };
                for (into, threads, is_packed) in [
                    (Into::Overwrite, Threads::All, true),
                    (Into::Add, Threads::One, true),
                    (Into::Overwrite, Threads::All, false),
                    (Into::Add, Threads::One, false),
                ] {
                    let mut result = vec![0.5_f32; m * n];
                    // As for many rows, so that the tiles run wherever the processor can; and as it lies.
                    let prepared = if is_packed {
                        Right::prepare(b, 1000, threads)
                    } else {
                        Right::View(b)
                    };
                    matmul_prepared(
                        MatMut::packed(&mut result, m, n),
                        into,
                        2.0,
                        a,
                        &prepared,
                        threads,
                    );
                    let before = if into == Into::Add { 0.5 } else { 0.0 };
                    for i in 0..m {
                        for j in 0..n {
                            let dot: f64 = (0..k)
                                .map(|p| f64::from(at(&a, i, p)) * f64::from(at(&b, p, j)))
                                .sum();
                            let difference =
                                (f64::from(result[i * n + j]) - before - 2.0 * dot).abs();
                            assert!(difference < 1e-3, "{m}x{k}x{n} at [{i}, {j}]: {difference}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_prepared_operand_can_be_used_in_part() {
        let (m, n, k) = (20, 70, 600);
        let left = SeededRng::new(1, 0).normals(m * k, 1.0);
        let right = SeededRng::new(2, 0).normals(n * k, 1.0);
        let whole = MatRef::packed(&right, k, n);
        for (terms, cols) in [(600, 33), (10, 70), (513, 32), (512, 1)] {
            let a = MatRef::new(&left, m, terms, k);
            let part = MatRef::new(&right, terms, cols, n);
            let mut expected = vec![0.0; m * cols];
            matmul(
                MatMut::packed(&mut expected, m, cols),
                Into::Overwrite,
                1.0,
                a,
                part,
                Threads::One,
            );
            for prepared in [
                Right::prepare(whole, 1000, Threads::One),
                Right::View(whole),
            ] {
                let mut found = vec![0.0; m * cols];
                matmul_prepared(
                    MatMut::packed(&mut found, m, cols),
                    Into::Overwrite,
                    1.0,
                    a,
                    &prepared,
                    Threads::One,
                );
                for (found, expected) in found.iter().zip(&expected) {
                    assert!((found - expected).abs() < 1e-3, "{terms}x{cols}");
                }
            }
        }
    }

    #[test]
    fn a_product_of_transposed_and_strided_matrices_is_that_of_three_loops() {
        let (m, n, k) = (7, 9, 11);
        let left = SeededRng::new(1, 0).normals(m * 20, 1.0);
        let right = SeededRng::new(2, 0).normals(n * 13, 1.0);
        let mut result = vec![1.0_f32; m * 10];
        matmul(
            MatMut::new(&mut result, m, n, 10),
            Into::Add,
            0.5,
            MatRef::new(&left, m, k, 20),
            MatRef::new(&right, n, k, 13).transposed(),
            Threads::One,
        );
        for i in 0..m {
            for j in 0..n {
                let dot: f32 = (0..k).map(|p| left[i * 20 + p] * right[j * 13 + p]).sum();
                assert!((result[i * 10 + j] - (1.0 + 0.5 * dot)).abs() < 1e-4);
            }
            assert!(
                (result[i * 10 + 9] - 1.0).abs() < f32::EPSILON,
                "beyond the columns"
            );
        }
    }
}
