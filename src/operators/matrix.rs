//! The sparse matrices of one image axis: a separable operator is one of these along the rows and
//! one along the columns. Rows are stored one after another (CSR), columns ascending, in f64; the
//! adjoint of an operator is the transpose of its matrices, borders included.

use std::f64::consts::PI;

use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::ops::banded::Matrix;

/// The largest axis these matrices are built for.
const LONGEST: usize = 1 << 16;
/// The largest blur window.
const WIDEST: usize = 1023;
/// The most elements a dense result may have: a pseudo-inverse is dense.
const MOST_DENSE: usize = 1 << 26;

/// A sparse matrix with few elements in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Banded {
    rows: usize,
    cols: usize,
    starts: Vec<usize>,
    indices: Vec<u32>,
    values: Vec<f64>,
}

impl Banded {
    /// The antialiased bicubic reduction by an integer factor F, as the DPS code resizes: Keys' kernel
    /// (a = -1/2) stretched by F, 4F taps normalised to sum 1, borders mirrored with the edge
    /// repeated (`1 0 | 0 1 .. n-1 | n-1 n-2`). The result has `ceil(n_in / F)` rows; where F does
    /// not divide `n_in`, the overhang is shared between both ends.
    pub fn bicubic_reduce(n_in: usize, factor: usize) -> Result<Self> {
        check_length("bicubic reduction", n_in, 1)?;
        if !(1..=n_in).contains(&factor) {
            return Err(Error::argument(
                "factor",
                format!("wanted 1 to the image size {n_in}, got {factor}"),
            ));
        }
        let (n, f) = (n_in as f64, factor as f64);
        let n_out = n_in.div_ceil(factor);
        let shift = (n_out as f64 - n / f) / 2.0;
        Ok(Self::from_rows(n_out, n_in, |o, row| {
            let centre = (o as f64 - shift + 0.5) * f - 0.5;
            let first = (centre - 2.0 * f).floor() as i64;
            let last = (centre + 2.0 * f).ceil() as i64;
            let taps: Vec<(i64, f64)> = (first..=last)
                .map(|i| (i, cubic((i as f64 - centre) / f, -0.5)))
                .collect();
            let sum: f64 = taps.iter().map(|tap| tap.1).sum();
            row.extend(
                taps.into_iter()
                    .map(|(i, w)| (mirror_edge(i, n_in), w / sum)),
            );
        }))
    }

    /// The bicubic enlargement by an integer factor that makes a ControlNet's conditioning image,
    /// torch's `interpolate(mode="bicubic", align_corners=False)`: a = -3/4, 4 taps, border clamped.
    pub fn bicubic_enlarge(n_in: usize, factor: usize) -> Result<Self> {
        check_length("bicubic enlargement", n_in, 1)?;
        if factor == 0 || n_in.saturating_mul(factor) > LONGEST {
            return Err(Error::argument(
                "factor",
                format!(
                    "wanted 1 to {} for size {n_in}, got {factor}",
                    LONGEST / n_in
                ),
            ));
        }
        let last = n_in as i64 - 1;
        Ok(Self::from_rows(n_in * factor, n_in, |o, row| {
            let source = (o as f64 + 0.5) / factor as f64 - 0.5;
            let base = source.floor();
            row.extend((-1..=2).map(|k| {
                let at = (base as i64 + k).clamp(0, last) as usize;
                (at, cubic(base + k as f64 - source, -0.75))
            }));
        }))
    }

    /// Bilinear resizing to `n_out` rows, antialiased as Pillow and torchvision do it: a triangle as wide as two
    /// pixels of the input or of the result, whichever are larger, cut at the borders, normalised to sum 1.
    pub fn bilinear_resize(n_in: usize, n_out: usize) -> Result<Self> {
        check_length("bilinear resizing", n_in, 1)?;
        check_length("bilinear resizing", n_out, 1)?;
        let scale = n_in as f64 / n_out as f64;
        let support = scale.max(1.0);
        Ok(Self::from_rows(n_out, n_in, |o, row| {
            let centre = (o as f64 + 0.5) * scale - 0.5;
            let first = (centre - support).ceil().max(0.0) as usize;
            let last = ((centre + support).floor() as usize).min(n_in - 1);
            let weight = |i: usize| (1.0 - ((i as f64 - centre) / support).abs()).max(0.0);
            let sum: f64 = (first..=last).map(weight).sum();
            row.extend((first..=last).map(|i| (i, weight(i) / sum)));
        }))
    }

    /// The blur with a Gaussian of this standard deviation, truncated at 4 sigma (and at the kernel
    /// window `size`, odd) and normalised to sum 1; borders mirrored, the edge not repeated
    /// (`2 1 | 0 1 .. n-1 | n-2 n-3`).
    pub fn gaussian_blur(n: usize, size: usize, sigma: f64) -> Result<Self> {
        if size.is_multiple_of(2) || size > WIDEST {
            return Err(Error::argument(
                "kernel size",
                format!("wanted an odd number up to {WIDEST}, got {size}"),
            ));
        }
        if !(sigma > 0.0 && sigma.is_finite()) {
            return Err(Error::argument(
                "sigma",
                format!("wanted a number of pixels above 0, got {sigma:?}"),
            ));
        }
        let radius = ((4.0 * sigma + 0.5) as usize).min(size / 2);
        check_length("Gaussian blur", n, radius + 1)?;
        let radius = radius as i64;
        let weights: Vec<f64> = (-radius..=radius)
            .map(|k| (-0.5 * (k as f64 / sigma).powi(2)).exp())
            .collect();
        let sum: f64 = weights.iter().sum();
        Ok(Self::from_rows(n, n, |o, row| {
            let taps = (-radius..=radius).zip(&weights);
            row.extend(taps.map(|(k, w)| (mirror_inside(o as i64 + k, n), w / sum)));
        }))
    }

    /// These elements, row by row.
    pub fn dense<const N: usize>(rows: &[[f64; N]]) -> Self {
        Self::from_rows(rows.len(), N, |o, row| {
            row.extend(rows[o].iter().copied().enumerate())
        })
    }

    /// The orthonormal cosine transform (DCT-II) of every eight in turn; its transpose is the way back.
    pub fn cosine_blocks(n: usize) -> Result<Self> {
        check_multiple("cosine transform", n, 8)?;
        Ok(Self::from_rows(n, n, |o, row| {
            let (block, k) = (o / 8 * 8, (o % 8) as f64);
            let size = if k == 0.0 { 0.125f64 } else { 0.25 }.sqrt();
            let wave = |i: usize| size * ((2 * i + 1) as f64 * k * PI / 16.0).cos();
            row.extend((0..8).map(|i| (block + i, wave(i))));
        }))
    }

    /// The orthonormal Fourier transform of `n` real numbers with `pad` zeros before and behind them, both sides centred:
    /// of the `m = n + 2 pad` places, and of the m waves, the one at `m / 2`, rounded down, is number 0. Row `2 k` is the
    /// real part of wave k, row `2 k + 1` the imaginary part.
    pub fn fourier(n: usize, pad: usize) -> Result<Self> {
        let m = check_frame(n, pad)?;
        Ok(Self::from_rows(2 * m, n, |o, row| {
            row.extend((0..n).map(|i| (i, wave(m, o / 2, i + pad)[o % 2])));
        }))
    }

    /// The same of `n` complex numbers; of them, and of the waves, all real parts lie before all imaginary ones.
    pub fn complex_fourier(n: usize, pad: usize) -> Result<Self> {
        let m = check_frame(n, pad)?;
        Ok(Self::from_rows(2 * m, 2 * n, |o, row| {
            row.extend((0..n).flat_map(|i| {
                let [re, im] = wave(m, o % m, i + pad);
                let [of_re, of_im] = if o < m { [re, -im] } else { [im, re] };
                [(i, of_re), (n + i, of_im)]
            }));
        }))
    }

    /// The mean of every two.
    pub fn halve(n: usize) -> Result<Self> {
        check_multiple("halving", n, 2)?;
        Ok(Self::from_rows(n / 2, n, |o, row| {
            row.extend([(2 * o, 0.5), (2 * o + 1, 0.5)])
        }))
    }

    /// Every one twice.
    pub fn repeat(n: usize) -> Result<Self> {
        check_length("repeating", n, 1)?;
        Ok(Self::from_rows(2 * n, n, |o, row| row.push((o / 2, 1.0))))
    }

    /// The same on the device.
    pub(crate) fn upload(&self, cx: &Cx) -> Result<Matrix> {
        Matrix::new(cx, self.cols, &self.starts, &self.indices, &self.values)
    }

    /// Elements `start ..` of n, each multiplied by its weight; none of them lies beyond the end.
    pub(crate) fn window(n: usize, start: usize, weights: &[f64]) -> Self {
        Self::from_rows(weights.len(), n, |o, row| row.push((start + o, weights[o])))
    }

    /// The n elements there are, the last of them repeated up to `n_out`.
    pub(crate) fn extension(n: usize, n_out: usize) -> Self {
        Self::from_rows(n_out, n, |o, row| row.push((o.min(n - 1), 1.0)))
    }

    /// Builds row by row: `fill` pushes (column, weight), columns in any order and repeated.
    fn from_rows(
        rows: usize,
        cols: usize,
        mut fill: impl FnMut(usize, &mut Vec<(usize, f64)>),
    ) -> Self {
        let (mut starts, mut indices, mut values) = (vec![0], Vec::new(), Vec::new());
        let mut row: Vec<(usize, f64)> = Vec::new();
        for o in 0..rows {
            row.clear();
            fill(o, &mut row);
            row.sort_by_key(|element| element.0);
            for same in row.chunk_by(|a, b| a.0 == b.0) {
                let weight: f64 = same.iter().map(|element| element.1).sum();
                if weight != 0.0 {
                    indices.push(same[0].0 as u32);
                    values.push(weight);
                }
            }
            starts.push(indices.len());
        }
        Banded {
            rows,
            cols,
            starts,
            indices,
            values,
        }
    }

    /// The number of rows, the length of the result.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns, the length of the argument.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row r's elements are `starts[r] .. starts[r + 1]` of [`indices`](Self::indices) and
    /// [`values`](Self::values); `rows + 1` long.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// The column of each element.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// The value of each element.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Row r's elements as (column, value); nothing past the last row.
    pub fn row(&self, r: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let range = match self.starts.get(r..r.saturating_add(2)) {
            Some(&[start, end]) => start..end,
            _ => 0..0,
        };
        let indices = self.indices[range.clone()].iter().map(|&i| i as usize);
        indices.zip(self.values[range].iter().copied())
    }

    /// `A x`.
    pub fn matvec(&self, x: &[f64]) -> Result<Vec<f64>> {
        if x.len() != self.cols {
            return Err(Error::shape("matvec", self.cols, x.len()));
        }
        Ok((0..self.rows)
            .map(|r| self.row(r).map(|(c, value)| value * x[c]).sum())
            .collect())
    }

    /// `s A`.
    pub fn scaled(mut self, s: f64) -> Self {
        self.values.iter_mut().for_each(|value| *value *= s);
        self
    }

    /// `A B`.
    pub fn times(&self, b: &Self) -> Result<Self> {
        if self.cols != b.rows {
            return Err(Error::shape("matrix product", self.cols, b.rows));
        }
        Ok(Self::from_rows(self.rows, b.cols, |o, row| {
            for (k, left) in self.row(o) {
                row.extend(b.row(k).map(|(c, right)| (c, left * right)));
            }
        }))
    }

    /// `A^T`.
    pub fn transpose(&self) -> Self {
        let mut starts = vec![0; self.cols + 1];
        for &c in &self.indices {
            starts[c as usize + 1] += 1;
        }
        for c in 0..self.cols {
            starts[c + 1] += starts[c];
        }
        let mut next = starts.clone();
        let (mut indices, mut values) = (vec![0; self.values.len()], vec![0.0; self.values.len()]);
        for r in 0..self.rows {
            for (c, value) in self.row(r) {
                (indices[next[c]], values[next[c]]) = (r as u32, value);
                next[c] += 1;
            }
        }
        Banded {
            rows: self.cols,
            cols: self.rows,
            starts,
            indices,
            values,
        }
    }

    /// The pseudo-inverse `A^T (A A^T)^-1` of a matrix whose rows are independent, so that
    /// `A A^+ = I`. It is dense.
    pub fn pinv(&self) -> Result<Self> {
        let n = self.rows;
        let most = n.max(self.cols).saturating_mul(n);
        if most > MOST_DENSE {
            return Err(Error::argument(
                "pseudo-inverse",
                format!(
                    "wanted at most {MOST_DENSE} elements, got {n} x {}",
                    self.cols
                ),
            ));
        }
        let lower = cholesky(self.gram(), n).ok_or_else(|| {
            Error::argument(
                "pseudo-inverse",
                format!(
                    "wanted independent rows, but the {n} x {} matrix has none or dependent ones",
                    self.cols
                ),
            )
        })?;
        // row c of the result is (A A^T)^-1 times column c of A
        let columns = self.transpose();
        let mut b = vec![0.0; n];
        Ok(Self::from_rows(self.cols, n, |c, row| {
            b.fill(0.0);
            for (r, value) in columns.row(c) {
                b[r] = value;
            }
            solve(&lower, n, &mut b);
            row.extend(b.iter().copied().enumerate());
        }))
    }

    /// `A A^T`, dense.
    fn gram(&self) -> Vec<f64> {
        let n = self.rows;
        let columns = self.transpose();
        let mut gram = vec![0.0; n * n];
        for r in 0..n {
            for (c, value) in self.row(r) {
                for (other, with) in columns.row(c) {
                    gram[r * n + other] += value * with;
                }
            }
        }
        gram
    }
}

/// The lower triangle L of `a = L L^T`, or nothing when a pivot is lost to rounding.
fn cholesky(mut a: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    let largest = (0..n).map(|i| a[i * n + i]).fold(0.0, f64::max);
    for i in 0..n {
        for j in 0..=i {
            let (above, below) = a.split_at(i * n);
            let row_i = &below[..j];
            let row_j = if i == j {
                row_i
            } else {
                &above[j * n..j * n + j]
            };
            let dot: f64 = row_i.iter().zip(row_j).map(|(x, y)| x * y).sum();
            let rest = a[i * n + j] - dot;
            a[i * n + j] = if i != j {
                rest / a[j * n + j]
            } else if rest > 1e-12 * largest {
                rest.sqrt()
            } else {
                return None;
            };
        }
    }
    Some(a)
}

/// Solves `L L^T x = b` in place.
fn solve(lower: &[f64], n: usize, b: &mut [f64]) {
    for i in 0..n {
        let dot: f64 = (0..i).map(|j| lower[i * n + j] * b[j]).sum();
        b[i] = (b[i] - dot) / lower[i * n + i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|j| lower[j * n + i] * b[j]).sum();
        b[i] = (b[i] - dot) / lower[i * n + i];
    }
}

/// `exp(-2 pi i (k - h) (j - h) / m) / sqrt(m)` with `h = m / 2` rounded down: its two parts.
fn wave(m: usize, k: usize, j: usize) -> [f64; 2] {
    let half = m as i64 / 2;
    let turns = ((k as i64 - half) * (j as i64 - half)).rem_euclid(m as i64);
    let angle = -2.0 * PI * turns as f64 / m as f64;
    [angle.cos(), angle.sin()].map(|part| part / (m as f64).sqrt())
}

/// The length of a signal of `n` with `pad` on either side, if the matrices of its Fourier transform are not too large.
pub(super) fn check_frame(n: usize, pad: usize) -> Result<usize> {
    let m = pad.saturating_mul(2).saturating_add(n);
    check_length("Fourier transform", n, 1)?;
    check_length("Fourier transform", m, 1)?;
    // Of complex numbers each matrix has two rows and two columns a number.
    let most = MOST_DENSE / 4;
    if n * m > most {
        let why = format!(
            "the Fourier transform of {n} pixels in a frame of {m} wanted a product of at most {most}; shrink the image"
        );
        return Err(Error::argument("image size", why));
    }
    Ok(m)
}

fn check_multiple(what: &str, n: usize, of: usize) -> Result<()> {
    check_length(what, n, of)?;
    match n.is_multiple_of(of) {
        true => Ok(()),
        false => Err(Error::argument(
            "image size",
            format!("{what} wants sides that are multiples of {of}, got {n}"),
        )),
    }
}

fn check_length(what: &str, n: usize, least: usize) -> Result<()> {
    if n < least || n > LONGEST {
        return Err(Error::argument(
            "image size",
            format!("the {what} wanted at least {least} and at most {LONGEST} pixels, got {n}"),
        ));
    }
    Ok(())
}

/// Keys' cubic convolution kernel with parameter a.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

/// Index i of a signal mirrored at its borders with the edge repeated, however far outside.
fn mirror_edge(i: i64, n: usize) -> usize {
    let n = n as i64;
    let m = i.rem_euclid(2 * n);
    m.min(2 * n - 1 - m) as usize
}

/// Index i of a signal mirrored at its borders without repeating the edge, however far outside.
fn mirror_inside(i: i64, n: usize) -> usize {
    let period = (2 * (n as i64 - 1)).max(1);
    let m = i.rem_euclid(period);
    m.min(period - m).min(n as i64 - 1) as usize
}
