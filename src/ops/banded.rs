//! Banded: a sparse matrix applied along one axis, `y[o, r, i] = sum of values[k] x[o, indices[k], i]`
//! over `k` in `starts[r] .. starts[r + 1]`.
//!
//! `x: [outer, cols, inner]`, `y: [outer, rows, inner]`, both views of images; `starts: [rows + 1]`,
//! `indices, values: [elements]`. The cotangent is the same op with the transposed matrix.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::wide;
use crate::tensor::Tensor;

/// One launch: `samples` times `outer` times `cols` times `inner` numbers in, `rows` for `cols` out.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    outer: usize,
    rows: usize,
    cols: usize,
    inner: usize,
    elements: usize,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let lines = self.samples * self.outer * self.inner;
        vec![
            Spec::out("y", lines * self.rows),
            Spec::input("x", lines * self.cols),
            Spec::input("starts", self.rows + 1).fill(Fill::Starts(self.elements)),
            Spec::input("indices", self.elements).fill(Fill::Ids(self.cols)),
            Spec::input("values", self.elements),
        ]
    }

    fn flops(&self) -> u64 {
        2 * (self.samples * self.outer * self.inner * self.elements) as u64
    }
}

/// `y` from `x` and the matrix.
pub static FORWARD: Op<Key> = Op {
    name: "banded.forward",
    variants: &[
        Variant::kernels("plain", plan).when(|key| key.dtype == DType::F32),
        Variant::native(
            "registers",
            forward_registers::<f32>,
            forward_registers::<f64>,
        )
        .when(|key| (1..=4).contains(&key.inner)),
        Variant::native("rows", forward_rows::<f32>, forward_rows::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases,
};

fn cases() -> Vec<Key> {
    let sizes = [
        (1, 1, 1, 1, 1, 1),
        (2, 31, 8, 33, 3, 64),
        (2, 7, 5, 9, 4, 40),
        (3, 1, 31, 16, 60, 7),
        (1, 3, 33, 113, 203, 500),
    ];
    let key = |(samples, outer, rows, cols, inner, elements)| Key {
        dtype: DType::F32,
        samples,
        outer,
        rows,
        cols,
        inner,
        elements,
    };
    sizes.into_iter().map(key).collect()
}

fn plan(key: &Key) -> Plan {
    let len = key.samples * key.outer * key.rows * key.inner;
    Launch::each("banded/fwd_1_plain", key.dtype, len)
        .ints([len, key.rows, key.cols, key.inner])
        .into()
}

/// A sparse matrix on the device.
#[derive(Clone, Debug)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    starts: Tensor,
    indices: Tensor,
    values: Tensor,
}

impl Matrix {
    /// Uploads a matrix with `cols` columns whose row r has the elements `starts[r] .. starts[r + 1]` of
    /// `indices`, their columns, and `values`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the three lists do not belong together, or a column is not below `cols`.
    pub fn new(
        cx: &Cx,
        cols: usize,
        starts: &[usize],
        indices: &[u32],
        values: &[f64],
    ) -> Result<Self> {
        let elements = indices.len();
        let ascend = starts.windows(2).all(|pair| pair[0] <= pair[1]);
        let span = starts.first() == Some(&0) && starts.last() == Some(&elements);
        let inside = indices.iter().all(|&i| (i as usize) < cols);
        let addressable = i32::try_from(elements).is_ok() && i32::try_from(cols).is_ok();
        if !(elements > 0 && ascend && span && inside && addressable && values.len() == elements) {
            let want = format!(
                "ascending starts from 0 to {elements}, {elements} columns below {cols} and {elements} values"
            );
            let got = format!(
                "{} starts, columns up to {}, {} values",
                starts.len(),
                indices.iter().max().copied().unwrap_or(0),
                values.len()
            );
            return Err(Error::shape("banded, matrix", want, got));
        }
        let starts_i32: Vec<i32> = starts.iter().map(|&s| s as i32).collect();
        let indices_i32: Vec<i32> = indices.iter().map(|&i| i as i32).collect();
        Ok(Matrix {
            rows: starts.len() - 1,
            cols,
            starts: Tensor::permanent(cx.rt(), &starts_i32, [starts.len()])?,
            indices: Tensor::permanent(cx.rt(), &indices_i32, [elements])?,
            values: cx.constant(values, [elements])?,
        })
    }

    /// The number of rows, the length of the result.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns, the length of the argument.
    pub fn cols(&self) -> usize {
        self.cols
    }
}

/// Applies `matrix` along axis 1 (down), 2 (across) or 3 (channels) of the image `x`.
///
/// # Errors
/// [`Error::Shape`] when that axis of `x` is not as long as the matrix has columns, [`Error::DType`]
/// when `x` is not of the matrix's type.
pub fn forward(cx: &Cx, matrix: &Matrix, x: &Tensor, axis: usize) -> Result<Tensor> {
    let mut dims = x.nhwc("banded")?;
    if !(1..4).contains(&axis) || dims[axis] != matrix.cols {
        let want = format!(
            "[n, h, w, c] with {} elements along axis {axis} (1 to 3)",
            matrix.cols
        );
        return Err(Error::shape("banded", want, x.shape()));
    }
    x.expect_dtype("banded", cx.dtype())?;
    matrix.values.expect_dtype("banded, matrix", cx.dtype())?;
    let key = Key {
        dtype: cx.dtype(),
        samples: dims[0],
        outer: dims[1..axis].iter().product(),
        rows: matrix.rows,
        cols: matrix.cols,
        inner: dims[axis + 1..].iter().product(),
        elements: matrix.values.shape().elements(),
    };
    dims[axis] = matrix.rows;
    let y = cx.empty(dims)?;
    let args = [
        Arg::Out(&y),
        Arg::In(x),
        Arg::In(&matrix.starts),
        Arg::In(&matrix.indices),
        Arg::In(&matrix.values),
    ];
    FORWARD.launch(cx, &key, &args)?;
    Ok(y)
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    let (starts, indices) = (args.input::<i32>(2), args.input::<i32>(3));
    let values = args.input::<T>(4);
    for (at, y) in y.iter_mut().enumerate() {
        let (o, r, i) = (
            at / key.inner / key.rows,
            at / key.inner % key.rows,
            at % key.inner,
        );
        let mut sum = T::ZERO;
        for k in starts[r] as usize..starts[r + 1] as usize {
            sum += values[k] * x[(o * key.cols + indices[k] as usize) * key.inner + i];
        }
        *y = sum;
    }
}

/// One row of the result after another: the element-wise loop runs over `inner`.
fn forward_rows<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    let (starts, indices) = (args.input::<i32>(2), args.input::<i32>(3));
    let values = args.input::<T>(4);
    let rows = y.par_chunks_mut(key.inner.max(1)).enumerate();
    rows.for_each(|(at, y)| {
        let (o, r) = (at / key.rows, at % key.rows);
        wide(|| {
            y.fill(T::ZERO);
            for k in starts[r] as usize..starts[r + 1] as usize {
                let value = values[k];
                let x = &x[(o * key.cols + indices[k] as usize) * key.inner..][..y.len()];
                y.iter_mut().zip(x).for_each(|(y, &x)| *y += value * x);
            }
        });
    });
}

/// Few numbers in a row (the channels of an image): their sums stay in registers.
fn forward_registers<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    match key.inner {
        1 => registers::<T, 1>(key, args),
        2 => registers::<T, 2>(key, args),
        3 => registers::<T, 3>(key, args),
        _ => registers::<T, 4>(key, args),
    }
}

fn registers<T: Real, const INNER: usize>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    let (starts, indices) = (args.input::<i32>(2), args.input::<i32>(3));
    let values = args.input::<T>(4);
    let (x, _) = x.as_chunks::<INNER>();
    let (y, _) = y.as_chunks_mut::<INNER>();
    let lines = y
        .par_chunks_mut(key.rows.max(1))
        .zip(x.par_chunks(key.cols.max(1)));
    lines.for_each(|(y, x)| {
        for (y, range) in y.iter_mut().zip(starts.windows(2)) {
            let mut sum = [T::ZERO; INNER];
            let range = range[0] as usize..range[1] as usize;
            for (&value, &i) in values[range.clone()].iter().zip(&indices[range]) {
                let x = &x[i as usize];
                for c in 0..INNER {
                    sum[c] += value * x[c];
                }
            }
            *y = sum;
        }
    });
}
