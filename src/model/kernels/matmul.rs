//! Matrix products of strided `f32` matrices, over the `gemm` crate.

use gemm::Parallelism;

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

    /// Its first `count` rows.
    pub(crate) fn first_rows(self, count: usize) -> Self {
        assert!(count <= self.rows, "a matrix has {} rows", self.rows);
        Self {
            rows: count,
            ..self
        }
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

/// `result = scale · left · right` (or added to it).
pub(crate) fn matmul(
    result: MatMut<'_>,
    into: Into,
    scale: f32,
    left: MatRef<'_>,
    right: MatRef<'_>,
    threads: Threads,
) {
    assert!(
        left.rows == result.rows && right.cols == result.cols && left.cols == right.rows,
        "matrices of sizes {}x{} and {}x{} have no product of size {}x{}",
        left.rows,
        left.cols,
        right.rows,
        right.cols,
        result.rows,
        result.cols
    );
    if result.rows == 0 || result.cols == 0 {
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
            assert_eq!(
                result[i * 10 + 9],
                1.0,
                "beyond the columns nothing changes"
            );
        }
    }
}
