//! Softmax over the last dimension: `y_i = exp(x_i - max x) / sum over j of exp(x_j - max x)`.
//!
//! `x, y: [.., c]`. Backward, from the output: `dx_i = y_i (dy_i - sum over j of dy_j y_j)`.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::{largest, sum, sum_pairs, wide};
use crate::tensor::Tensor;

/// One launch over `rows` rows of `c`.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    rows: usize,
    c: usize,
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
        let len = self.rows * self.c;
        if self.backward {
            let (y, dy) = (Spec::input("y", len), Spec::input("dy", len));
            return vec![Spec::out("dx", len), dy, y];
        }
        vec![Spec::out("y", len), Spec::input("x", len)]
    }

    fn flops(&self) -> u64 {
        let per_element = if self.backward { 4 } else { 20 };
        per_element * (self.rows * self.c) as u64
    }
}

/// `y` from `x`.
pub static FORWARD: Op<Key> = Op {
    name: "softmax.forward",
    variants: &[
        Variant::kernels("vector", |key| rows("softmax/fwd_2_vector", key)).when(in_fours),
        Variant::kernels("plain", |key| rows("softmax/fwd_1_plain", key)),
        Variant::native("rows", forward_rows::<f32>, forward_rows::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || cases(false),
};

/// `dx` from `dy`.
pub static VJP: Op<Key> = Op {
    name: "softmax.vjp",
    variants: &[
        Variant::kernels("vector", |key| rows("softmax/vjp_2_vector", key)).when(in_fours),
        Variant::kernels("plain", |key| rows("softmax/vjp_1_plain", key)),
        Variant::native("rows", vjp_rows::<f32>, vjp_rows::<f64>),
        Variant::native("plain", vjp_plain::<f32>, vjp_plain::<f64>),
    ],
    cases: || cases(true),
};

/// Whether a row is a number of loads of four elements.
fn in_fours(key: &Key) -> bool {
    key.c.is_multiple_of(4)
}

/// One warp a row, four to a block.
fn rows(module: &'static str, key: &Key) -> Plan {
    let grid = [key.rows.div_ceil(4), 1, 1];
    Launch::new(module, key.dtype, grid, 128)
        .ints([key.rows, key.c])
        .into()
}

fn cases(backward: bool) -> Vec<Key> {
    let key = |(rows, c)| Key {
        dtype: DType::F32,
        rows,
        c,
        backward,
    };
    [(1, 1), (31, 33), (77, 31), (113, 203), (300, 64), (5, 1028)]
        .map(key)
        .to_vec()
}

/// `y` from `x`.
///
/// # Errors
/// [`Error::Shape`] when `x` has no elements.
pub fn forward(cx: &Cx, x: &Tensor) -> Result<Tensor> {
    let key = key(x, false)?;
    let y = cx.empty(x.shape())?;
    FORWARD.launch(cx, &key, &[Arg::Out(&y), Arg::In(x)])?;
    Ok(y)
}

/// `dx` from `dy` and the output `y`.
///
/// # Errors
/// [`Error::Shape`] when `dy` is not of `y`'s shape.
pub fn vjp(cx: &Cx, y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    dy.expect_shape("softmax.vjp", y.shape())?;
    let key = key(y, true)?;
    let dx = cx.empty(y.shape())?;
    VJP.launch(cx, &key, &[Arg::Out(&dx), Arg::In(dy), Arg::In(y)])?;
    Ok(dx)
}

fn key(x: &Tensor, backward: bool) -> Result<Key> {
    let c = x.shape().channels();
    if c == 0 {
        return Err(Error::shape("softmax", "[.., c] with c > 0", x.shape()));
    }
    Ok(Key {
        dtype: x.dtype(),
        rows: x.shape().elements() / c,
        c,
        backward,
    })
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    for (y, x) in y.chunks_exact_mut(key.c).zip(x.chunks_exact(key.c)) {
        let most = x.iter().fold(x[0], |m, &x| m.max(x));
        let total = x.iter().map(|&x| (x - most).exp()).sum::<T>();
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (x - most).exp() / total;
        }
    }
}

fn vjp_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, y) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let rows = dx.chunks_exact_mut(key.c).zip(dy.chunks_exact(key.c));
    for ((dx, dy), y) in rows.zip(y.chunks_exact(key.c)) {
        let dot = dy.iter().zip(y).map(|(&dy, &y)| dy * y).sum::<T>();
        for i in 0..key.c {
            dx[i] = y[i] * (dy[i] - dot);
        }
    }
}

/// Elements of one task: whole rows.
fn chunk(key: &Key) -> usize {
    ((1 << 13) / key.c).max(1) * key.c
}

fn forward_rows<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    y.par_chunks_mut(chunk(key))
        .zip(x.par_chunks(chunk(key)))
        .for_each(|(y, x)| {
            wide(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(key.c).zip(x.chunks_exact(key.c)) {
                        let most = largest(x, x[0]);
                        for (y, &x) in y.iter_mut().zip(x) {
                            *y = (x - most).exp();
                        }
                        let scale = T::ONE / sum(y);
                        y.iter_mut().for_each(|y| *y *= scale);
                    }
                },
            );
        });
}

fn vjp_rows<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, y) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    dx.par_chunks_mut(chunk(key))
        .zip(dy.par_chunks(chunk(key)).zip(y.par_chunks(chunk(key))))
        .for_each(|(dx, (dy, y))| {
            wide(
                #[inline(always)]
                || {
                    let rows = dx.chunks_exact_mut(key.c).zip(dy.chunks_exact(key.c));
                    for ((dx, dy), y) in rows.zip(y.chunks_exact(key.c)) {
                        let dot = sum_pairs(dy, y, |dy, y| dy * y);
                        for ((dx, &dy), &y) in dx.iter_mut().zip(dy).zip(y) {
                            *dx = y * (dy - dot);
                        }
                    }
                },
            );
        });
}
