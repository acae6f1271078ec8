//! Layer normalisation over the last dimension: `xhat = (x - mean) rstd`, `y = xhat w + b`.
//!
//! `x: [n, .., c]`, `w, b: [c]`, `mean, rstd: [n, ..]`, `rstd = 1 / sqrt(var + eps)` with the biased
//! variance. Backward: `dx = rstd (dxhat - mean(dxhat) - xhat mean(dxhat xhat)) + residual`, `dxhat = dy w`, where
//! `residual`, if there is one, is the cotangent that reaches `x` past the norm.

mod wgrad;

pub use wgrad::{WGRAD, wgrad};

use rayon::prelude::*;

use crate::cx::{Cx, Kept};
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::Launch;
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::{sum, sum_pairs, wide};
use crate::tensor::Tensor;

/// One launch: `samples` times `rows` rows of `c`.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    rows: usize,
    c: usize,
    eps: f64,
    residual: bool,
    backward: bool,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let rows = self.samples * self.rows;
        let x = rows * self.c;
        let w = Spec::input("w", self.c).fill(Fill::Positive).wide();
        if self.backward {
            return vec![
                Spec::out("dx", x),
                Spec::input("dy", x),
                Spec::input("x", x),
                Spec::input("mean", rows).fill(Fill::Normal(0.1)).wide(),
                Spec::input("rstd", rows).fill(Fill::Positive).wide(),
                w,
                Spec::input("residual", x).present(self.residual),
            ];
        }
        vec![
            Spec::out("y", x),
            Spec::out("mean", rows).wide(),
            Spec::out("rstd", rows).wide(),
            Spec::input("x", x),
            w,
            Spec::input("b", self.c).wide(),
        ]
    }

    fn flops(&self) -> u64 {
        let per_element = if self.backward { 11 } else { 7 };
        per_element * (self.samples * self.rows * self.c) as u64
    }
}

/// `y, mean, rstd` from `x`.
pub static FORWARD: Op<Key> = Op {
    name: "layer_norm.forward",
    variants: &[
        Variant::kernels("registers", |key| {
            launch("layer_norm/fwd_2_registers", key)
                .floats([key.eps])
                .into()
        })
        .when(packed),
        Variant::kernels("plain", |key| {
            launch("layer_norm/fwd_1_plain", key)
                .floats([key.eps])
                .into()
        }),
        Variant::native("rows", forward_rows::<f32>, forward_rows::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || cases(false),
};

/// `dx` from `dy` and `residual`.
pub static VJP: Op<Key> = Op {
    name: "layer_norm.vjp",
    variants: &[
        Variant::kernels("registers", |key| {
            launch("layer_norm/vjp_2_registers", key).into()
        })
        .when(packed),
        Variant::kernels("plain", |key| launch("layer_norm/vjp_1_plain", key).into()),
        Variant::native("rows", vjp_rows::<f32>, vjp_rows::<f64>),
        Variant::native("plain", vjp_plain::<f32>, vjp_plain::<f64>),
    ],
    cases: || cases(true),
};

/// A warp for each row.
fn launch(module: &'static str, key: &Key) -> Launch {
    let rows = key.samples * key.rows;
    Launch::each(module, key.dtype, 32 * rows).ints([rows, key.c])
}

/// Whether a row is whole 16 bytes and a warp can hold it in registers.
fn packed(key: &Key) -> bool {
    key.c.is_multiple_of(key.dtype.pack()) && key.c <= 1280
}

fn cases(backward: bool) -> Vec<Key> {
    let key = |(i, (samples, rows, c))| Key {
        dtype: DType::F32,
        samples,
        rows,
        c,
        eps: 1e-5,
        residual: backward && i % 2 == 0,
        backward,
    };
    let sizes = [
        (1, 1, 2),
        (2, 31, 33),
        (3, 77, 31),
        (1, 113, 203),
        (2, 40, 320),
        (1, 5, 8),
        (1, 3, 1280),
    ];
    sizes.into_iter().enumerate().map(key).collect()
}

/// What the backward pass needs: the input and its statistics.
#[derive(Debug)]
pub struct Saved {
    x: Kept,
    mean: Kept,
    rstd: Kept,
}

impl Saved {
    /// The input.
    ///
    /// # Errors
    /// [`Error::Argument`] when the forward pass kept nothing.
    pub fn input(&self) -> Result<&Tensor> {
        self.x.get()
    }
}

/// Normalises `x` over its last dimension.
///
/// # Errors
/// [`Error::Shape`] when the last dimension is not `w`'s.
pub fn forward(cx: &Cx, x: &Tensor, w: &Tensor, b: &Tensor, eps: f64) -> Result<(Tensor, Saved)> {
    let key = key(x, w, eps)?;
    let y = cx.empty(x.shape())?;
    let mean = cx.empty_wide([key.samples, key.rows])?;
    let rstd = cx.empty_wide([key.samples, key.rows])?;
    let args = [
        Arg::Out(&y),
        Arg::Out(&mean),
        Arg::Out(&rstd),
        Arg::In(x),
        Arg::In(w),
        Arg::In(b),
    ];
    FORWARD.launch(cx, &key, &args)?;
    Ok((
        y,
        Saved {
            x: cx.keep(x),
            mean: cx.keep(&mean),
            rstd: cx.keep(&rstd),
        },
    ))
}

/// The cotangent of `x`, and `residual` added to it. Consumes what was saved.
///
/// # Errors
/// [`Error::Shape`] when `dy` or `residual` is not of `x`'s shape.
pub fn vjp(
    cx: &Cx,
    saved: Saved,
    w: &Tensor,
    dy: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let x = saved.input()?;
    for cotangent in [dy].into_iter().chain(residual) {
        cotangent.expect_shape("layer_norm.vjp", x.shape())?;
    }
    let key = Key {
        residual: residual.is_some(),
        backward: true,
        ..key(x, w, 0.0)?
    };
    let dx = cx.empty(x.shape())?;
    let args = [
        Arg::Out(&dx),
        Arg::In(dy),
        Arg::In(x),
        Arg::In(saved.mean.get()?),
        Arg::In(saved.rstd.get()?),
        Arg::In(w),
        residual.into(),
    ];
    VJP.launch(cx, &key, &args)?;
    Ok(dx)
}

/// The key of a forward pass.
fn key(x: &Tensor, w: &Tensor, eps: f64) -> Result<Key> {
    let c = x.shape().channels();
    if c == 0 || w.dims() != [c] || x.dims().len() < 2 {
        let want = format!("[n, .., {}]", w.shape().elements());
        return Err(Error::shape("layer_norm", want, x.shape()));
    }
    Ok(Key {
        dtype: x.dtype(),
        samples: x.shape().samples(),
        rows: x.shape().per_sample() / c,
        c,
        eps,
        residual: false,
        backward: false,
    })
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, mean, rstd) = (
        args.output::<T>(0),
        args.output::<T>(1),
        args.output::<T>(2),
    );
    let (x, w, b) = (args.input::<T>(3), args.input::<T>(4), args.input::<T>(5));
    let (c, count) = (key.c, T::of(key.c as f64));
    for (row, (y, x)) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)).enumerate() {
        let mu = x.iter().copied().sum::<T>() / count;
        let var = x.iter().map(|&x| (x - mu) * (x - mu)).sum::<T>() / count;
        let r = T::ONE / (var + T::of(key.eps)).sqrt();
        (mean[row], rstd[row]) = (mu, r);
        for i in 0..c {
            y[i] = (x[i] - mu) * r * w[i] + b[i];
        }
    }
}

fn vjp_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, x) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (mean, rstd, w) = (args.input::<T>(3), args.input::<T>(4), args.input::<T>(5));
    let residual = args.optional::<T>(6);
    let (c, count) = (key.c, T::of(key.c as f64));
    for (row, dx) in dx.chunks_exact_mut(c).enumerate() {
        let (dy, x) = (&dy[row * c..][..c], &x[row * c..][..c]);
        let xhat = |i: usize| (x[i] - mean[row]) * rstd[row];
        let m1 = (0..c).map(|i| dy[i] * w[i]).sum::<T>() / count;
        let m2 = (0..c).map(|i| dy[i] * w[i] * xhat(i)).sum::<T>() / count;
        for i in 0..c {
            dx[i] = rstd[row] * (dy[i] * w[i] - m1 - xhat(i) * m2)
                + residual.map_or(T::ZERO, |r| r[row * c + i]);
        }
    }
}

/// Rows of one task. Rows do not see each other, so nothing but speed depends on it.
fn block(key: &Key) -> usize {
    ((1 << 13) / key.c).max(1)
}

fn forward_rows<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, mean, rstd) = (
        args.output::<T>(0),
        args.output::<T>(1),
        args.output::<T>(2),
    );
    let (x, w, b) = (args.input::<T>(3), args.input::<T>(4), args.input::<T>(5));
    let (rows, c, share) = (block(key), key.c, T::of(1.0 / key.c as f64));
    y.par_chunks_mut(rows * c)
        .zip(x.par_chunks(rows * c))
        .zip(mean.par_chunks_mut(rows).zip(rstd.par_chunks_mut(rows)))
        .for_each(|((y, x), (mean, rstd))| {
            wide(
                #[inline(always)]
                || {
                    let rows = y.chunks_exact_mut(c).zip(x.chunks_exact(c));
                    for ((y, x), (mean, rstd)) in rows.zip(mean.iter_mut().zip(rstd)) {
                        let mu = sum(x) * share;
                        // y holds the deviations until they can be scaled.
                        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x - mu);
                        let var = sum_pairs(y, y, |a, b| a * b) * share;
                        let r = T::ONE / (var + T::of(key.eps)).sqrt();
                        (*mean, *rstd) = (mu, r);
                        for ((y, &w), &b) in y.iter_mut().zip(w).zip(b) {
                            *y = *y * r * w + b;
                        }
                    }
                },
            );
        });
}

fn vjp_rows<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, x) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (mean, rstd, w) = (args.input::<T>(3), args.input::<T>(4), args.input::<T>(5));
    let residual = args.optional::<T>(6);
    let (rows, c, share) = (block(key), key.c, T::of(1.0 / key.c as f64));
    dx.par_chunks_mut(rows * c)
        .zip(dy.par_chunks(rows * c).zip(x.par_chunks(rows * c)))
        .zip(mean.par_chunks(rows).zip(rstd.par_chunks(rows)))
        .enumerate()
        .for_each(|(i, ((dx, (dy, x)), (mean, rstd)))| {
            let residual = residual.map(|all| &all[i * rows * c..][..dx.len()]);
            wide(
                #[inline(always)]
                || {
                    let rows = dx.chunks_exact_mut(c).zip(dy.chunks_exact(c));
                    let stats = mean.iter().zip(rstd);
                    for (((dx, dy), x), (&mu, &r)) in rows.zip(x.chunks_exact(c)).zip(stats) {
                        // dx holds dxhat = dy w between the passes.
                        for ((dx, &dy), &w) in dx.iter_mut().zip(dy).zip(w) {
                            *dx = dy * w;
                        }
                        let m1 = sum(dx) * share;
                        let m2 = sum_pairs(dx, x, |d, x| d * ((x - mu) * r)) * share;
                        for (dx, &x) in dx.iter_mut().zip(x) {
                            *dx = r * (*dx - m1 - (x - mu) * r * m2);
                        }
                    }
                    if let Some(residual) = residual {
                        dx.iter_mut().zip(residual).for_each(|(dx, &r)| *dx += r);
                    }
                },
            );
        });
}
