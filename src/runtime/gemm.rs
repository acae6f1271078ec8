//! Matrix products of the native runtime: a checked face over the `gemm` crate.
//!
//! Always single-threaded: callers split the work into blocks whose sizes depend on one sample's shape
//! only, which keeps a sample's bits independent of the batch and of the number of threads.

use crate::dtype::Real;

/// A matrix in a slice: element (i, j) is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub struct Mat<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row: usize,
    col: usize,
}

impl<'a, T> Mat<'a, T> {
    /// `rows` x `cols`, rows `row` elements apart, columns adjacent.
    ///
    /// # Panics
    /// When the slice is too short: a broken invariant of the caller.
    pub fn rows(data: &'a [T], rows: usize, cols: usize, row: usize) -> Self {
        Self::strided(data, rows, cols, row, 1)
    }

    /// As [`Mat::rows`] with any column distance.
    ///
    /// # Panics
    /// When the slice is too short.
    pub fn strided(data: &'a [T], rows: usize, cols: usize, row: usize, col: usize) -> Self {
        assert!(
            fits(data.len(), rows, cols, row, col),
            "a {rows} x {cols} matrix does not fit its slice"
        );
        Mat {
            data,
            rows,
            cols,
            row,
            col,
        }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Mat {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row: self.col,
            col: self.row,
        }
    }
}

fn fits(len: usize, rows: usize, cols: usize, row: usize, col: usize) -> bool {
    let last = |n: usize, apart: usize| n.checked_sub(1)?.checked_mul(apart);
    let both = last(rows, row).zip(last(cols, col));
    let end = both.and_then(|(a, b)| a.checked_add(b));
    rows == 0 || cols == 0 || end.is_some_and(|end| end < len)
}

/// `c = a b + keep c`, with `c` of `rows` x `cols`, rows `row` elements apart; `keep` is true to add.
///
/// # Panics
/// When the sizes disagree: a broken invariant of the caller.
pub fn gemm<T: Real>(c: &mut [T], row: usize, keep: bool, a: Mat<'_, T>, b: Mat<'_, T>) {
    scaled(c, row, keep, T::ONE, a, b);
}

/// As [`gemm()`] with the product multiplied by `alpha`.
///
/// # Panics
/// When the sizes disagree.
pub fn scaled<T: Real>(
    c: &mut [T],
    row: usize,
    keep: bool,
    alpha: T,
    a: Mat<'_, T>,
    b: Mat<'_, T>,
) {
    assert_eq!(a.cols, b.rows, "inner dimensions");
    assert!(
        row >= b.cols && fits(c.len(), a.rows, b.cols, row, 1),
        "the product does not fit its slice"
    );
    // SAFETY: all three matrices lie inside their slices (asserted here and in `Mat::strided`), the rows
    // of `c` do not overlap (row >= cols), and `c` is borrowed exclusively.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            c.as_mut_ptr(),
            1,
            row as isize,
            keep,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            T::ONE,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition_in_every_layout() {
        let (m, k, n) = (5, 7, 3);
        let a: Vec<f64> = (0..m * k).map(|i| (i as f64 * 0.7).sin()).collect();
        let b: Vec<f64> = (0..k * n).map(|i| (i as f64 * 1.3).cos()).collect();
        let want = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum::<f64>();
        let mut c = vec![1.0; m * 4];
        scaled(
            &mut c,
            4,
            true,
            2.0,
            Mat::rows(&a, m, k, k),
            Mat::rows(&b, k, n, n),
        );
        for i in 0..m {
            for j in 0..n {
                assert!((c[i * 4 + j] - 1.0 - 2.0 * want(i, j)).abs() < 1e-14);
            }
            assert!(c[i * 4 + 3] == 1.0);
        }
        let mut transposed = vec![0.0; n * m];
        let (at, bt) = (Mat::rows(&a, m, k, k).t(), Mat::rows(&b, k, n, n).t());
        gemm(&mut transposed, m, false, bt, at);
        for i in 0..m {
            for j in 0..n {
                assert!((transposed[j * m + i] - want(i, j)).abs() < 1e-14);
            }
        }
    }
}
