//! GEGLU: `y = a g Phi(g)` with `x = [a, g]` split in half along the last dimension.
//!
//! `x: [n, .., 2c]`, `y: [n, .., c]`. Backward, from the input: `da = dy g Phi(g)`,
//! `dg = dy a (Phi(g) + g phi(g))`.

use rayon::prelude::*;

use crate::cx::{Cx, Kept};
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::wide;
use crate::tensor::Tensor;

/// One launch over `rows` rows of `2c`.
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
        let half = self.rows * self.c;
        let x = Spec::input("x", 2 * half);
        if self.backward {
            return vec![Spec::out("dx", 2 * half), Spec::input("dy", half), x];
        }
        vec![Spec::out("y", half), x]
    }

    fn flops(&self) -> u64 {
        let per_element = if self.backward { 50 } else { 25 };
        per_element * (self.rows * self.c) as u64
    }
}

/// `y` from `x`.
pub static FORWARD: Op<Key> = Op {
    name: "geglu.forward",
    variants: &[
        Variant::kernels("vector", |key| vector("geglu/fwd_2_vector", key)).when(packed),
        Variant::kernels("plain", |key| {
            Launch::each("geglu/fwd_1_plain", key.dtype, key.rows * key.c)
                .ints([key.rows, key.c])
                .into()
        }),
        Variant::native("rows", forward_rows::<f32>, forward_rows::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || cases(false),
};

/// `dx` from `dy`.
pub static VJP: Op<Key> = Op {
    name: "geglu.vjp",
    variants: &[
        Variant::kernels("vector", |key| vector("geglu/vjp_2_vector", key)).when(packed),
        Variant::kernels("plain", |key| {
            Launch::each("geglu/vjp_1_plain", key.dtype, key.rows * key.c)
                .ints([key.rows, key.c])
                .into()
        }),
        Variant::native("rows", vjp_rows::<f32>, vjp_rows::<f64>),
        Variant::native("plain", vjp_plain::<f32>, vjp_plain::<f64>),
    ],
    cases: || cases(true),
};

/// A thread for every 16 bytes of `y`.
fn vector(module: &'static str, key: &Key) -> Plan {
    let packs = key.rows * key.c / key.dtype.pack();
    let launch = Launch::each(module, key.dtype, packs);
    launch.ints([packs, key.c]).into()
}

/// Whether rows are whole 16 bytes, so that each is aligned.
fn packed(key: &Key) -> bool {
    key.c.is_multiple_of(key.dtype.pack())
}

fn cases(backward: bool) -> Vec<Key> {
    let key = |(rows, c)| Key {
        dtype: DType::F32,
        rows,
        c,
        backward,
    };
    [(1, 1), (31, 33), (77, 31), (113, 203), (300, 64)]
        .map(key)
        .to_vec()
}

/// What the backward pass needs: the input.
#[derive(Debug)]
pub struct Saved {
    x: Kept,
}

impl Saved {
    /// What [`forward`] saves of `x`.
    pub fn of(cx: &Cx, x: &Tensor) -> Self {
        Saved { x: cx.keep(x) }
    }

    /// The input, for a backward pass that goes through another op too.
    ///
    /// # Errors
    /// [`Error::Argument`] when the forward pass kept nothing.
    pub fn input(&self) -> Result<&Tensor> {
        self.x.get()
    }
}

/// `y: [n, .., c]` from `x: [n, .., 2c]`.
///
/// # Errors
/// [`Error::Shape`] when the last dimension is odd.
pub fn forward(cx: &Cx, x: &Tensor) -> Result<(Tensor, Saved)> {
    let key = key(x, false)?;
    let y = cx.empty(x.shape().with_channels(key.c))?;
    FORWARD.launch(cx, &key, &[Arg::Out(&y), Arg::In(x)])?;
    Ok((y, Saved::of(cx, x)))
}

/// The cotangent of `x`. Consumes what was saved.
///
/// # Errors
/// [`Error::Shape`] when `dy` is not of `y`'s shape.
pub fn vjp(cx: &Cx, saved: Saved, dy: &Tensor) -> Result<Tensor> {
    let x = saved.input()?;
    let key = key(x, true)?;
    dy.expect_shape("geglu.vjp", x.shape().with_channels(key.c))?;
    let dx = cx.empty(x.shape())?;
    VJP.launch(cx, &key, &[Arg::Out(&dx), Arg::In(dy), Arg::In(x)])?;
    Ok(dx)
}

fn key(x: &Tensor, backward: bool) -> Result<Key> {
    let both = x.shape().channels();
    if both == 0 || !both.is_multiple_of(2) || x.dims().is_empty() {
        return Err(Error::shape("geglu", "[n, .., 2c]", x.shape()));
    }
    Ok(Key {
        dtype: x.dtype(),
        rows: x.shape().elements() / both,
        c: both / 2,
        backward,
    })
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    for (i, y) in y.iter_mut().enumerate() {
        let at = i / key.c * 2 * key.c + i % key.c;
        *y = x[at] * x[at + key.c].gelu();
    }
}

fn vjp_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, x) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    for (i, &dy) in dy.iter().enumerate() {
        let at = i / key.c * 2 * key.c + i % key.c;
        let (a, g) = (x[at], x[at + key.c]);
        dx[at] = dy * g.gelu();
        dx[at + key.c] = dy * a * g.gelu_slope();
    }
}

/// Rows of one task.
fn block(key: &Key) -> usize {
    ((1 << 13) / key.c).max(1)
}

fn forward_rows<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    let (rows, c) = (block(key), key.c);
    y.par_chunks_mut(rows * c)
        .zip(x.par_chunks(rows * 2 * c))
        .for_each(|(y, x)| {
            wide(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(2 * c)) {
                        let (a, g) = x.split_at(c);
                        for ((y, &a), &g) in y.iter_mut().zip(a).zip(g) {
                            *y = a * g.gelu();
                        }
                    }
                },
            );
        });
}

fn vjp_rows<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, x) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (rows, c) = (block(key), key.c);
    dx.par_chunks_mut(rows * 2 * c)
        .zip(dy.par_chunks(rows * c).zip(x.par_chunks(rows * 2 * c)))
        .for_each(|(dx, (dy, x))| {
            wide(
                #[inline(always)]
                || {
                    let rows = dx.chunks_exact_mut(2 * c).zip(dy.chunks_exact(c));
                    for ((dx, dy), x) in rows.zip(x.chunks_exact(2 * c)) {
                        let ((da, dg), (a, g)) = (dx.split_at_mut(c), x.split_at(c));
                        let slopes = da.iter_mut().zip(dg).zip(a.iter().zip(g));
                        for (((da, dg), (&a, &g)), &dy) in slopes.zip(dy) {
                            *da = dy * g.gelu();
                            *dg = dy * a * g.gelu_slope();
                        }
                    }
                },
            );
        });
}
