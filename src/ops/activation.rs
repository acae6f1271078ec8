//! Activations, element by element: SiLU `x sigmoid(x)`, GELU `x Phi(x)` (with erf, not tanh) and
//! QuickGELU `x sigmoid(1.702 x)`. Backward: `dx = dy f'(x)`, from the input.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::wide;
use crate::tensor::Tensor;

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x sigmoid(x)`.
    Silu,
    /// `x Phi(x)`, `Phi` by erf.
    Gelu,
    /// `x sigmoid(1.702 x)`: CLIP's.
    QuickGelu,
}

impl Activation {
    /// As in the names of the kernels.
    const fn name(self) -> &'static str {
        match self {
            Activation::Silu => "silu",
            Activation::Gelu => "gelu",
            Activation::QuickGelu => "quick_gelu",
        }
    }
}

/// One launch over `samples` times `len` elements.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    len: usize,
    act: Activation,
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
        let len = self.samples * self.len;
        let x = Spec::input("x", len).fill(Fill::Normal(2.0));
        if self.backward {
            return vec![Spec::out("dx", len), Spec::input("dy", len), x];
        }
        vec![Spec::out("y", len), x]
    }

    fn flops(&self) -> u64 {
        20 * (self.samples * self.len) as u64
    }
}

/// `y = f(x)`.
pub static FORWARD: Op<Key> = Op {
    name: "activation.forward",
    variants: &[
        Variant::kernels("vector", |key| vector("activation/fwd_2_vector", key)).when(packed),
        Variant::kernels("plain", |key| plain("activation/fwd_1_plain", key)),
        Variant::native("chunks", forward_chunks::<f32>, forward_chunks::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || cases(false),
};

/// `dx = dy f'(x)`.
pub static VJP: Op<Key> = Op {
    name: "activation.vjp",
    variants: &[
        Variant::kernels("vector", |key| vector("activation/vjp_2_vector", key)).when(packed),
        Variant::kernels("plain", |key| plain("activation/vjp_1_plain", key)),
        Variant::native("chunks", vjp_chunks::<f32>, vjp_chunks::<f64>),
        Variant::native("plain", vjp_plain::<f32>, vjp_plain::<f64>),
    ],
    cases: || cases(true),
};

/// A thread for each element.
fn plain(module: &'static str, key: &Key) -> Plan {
    let len = key.samples * key.len;
    let launch = Launch::each(module, key.dtype, len).part(key.act.name());
    launch.ints([len]).into()
}

/// A thread for every 16 bytes.
fn vector(module: &'static str, key: &Key) -> Plan {
    let packs = key.samples * key.len / key.dtype.pack();
    let launch = Launch::each(module, key.dtype, packs).part(key.act.name());
    launch.ints([packs]).into()
}

/// Whether samples are whole 16 bytes, so that each is aligned.
fn packed(key: &Key) -> bool {
    key.len.is_multiple_of(key.dtype.pack())
}

fn cases(backward: bool) -> Vec<Key> {
    let acts = [Activation::Silu, Activation::Gelu, Activation::QuickGelu];
    let sizes = [(1, 1), (1, 31), (3, 11), (7, 8), (113, 203), (3, 2_600)];
    let key = |(samples, len), act| Key {
        dtype: DType::F32,
        samples,
        len,
        act,
        backward,
    };
    let all = sizes
        .into_iter()
        .flat_map(|size| acts.map(|act| key(size, act)));
    all.collect()
}

/// `y = f(x)`.
///
/// # Errors
/// What a launch returns.
pub fn forward(cx: &Cx, x: &Tensor, act: Activation) -> Result<Tensor> {
    let y = cx.empty(x.shape())?;
    let key = key(x, act, false);
    FORWARD.launch(cx, &key, &[Arg::Out(&y), Arg::In(x)])?;
    Ok(y)
}

/// `dx = dy f'(x)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `dy` is not of `x`'s shape.
pub fn vjp(cx: &Cx, x: &Tensor, act: Activation, dy: &Tensor) -> Result<Tensor> {
    dy.expect_shape("activation.vjp", x.shape())?;
    let dx = cx.empty(x.shape())?;
    let key = key(x, act, true);
    VJP.launch(cx, &key, &[Arg::Out(&dx), Arg::In(dy), Arg::In(x)])?;
    Ok(dx)
}

fn key(x: &Tensor, act: Activation, backward: bool) -> Key {
    Key {
        dtype: x.dtype(),
        samples: x.shape().samples(),
        len: x.shape().per_sample(),
        act,
        backward,
    }
}

const QUICK: f64 = 1.702;

#[inline(always)]
fn quick_gelu<T: Real>(x: T) -> T {
    x * (T::of(QUICK) * x).sigmoid()
}

#[inline(always)]
fn quick_gelu_slope<T: Real>(x: T) -> T {
    (T::of(QUICK) * x).silu_slope()
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    for (i, y) in y.iter_mut().enumerate() {
        *y = match key.act {
            Activation::Silu => x[i] * x[i].sigmoid(),
            Activation::Gelu => x[i].gelu(),
            Activation::QuickGelu => quick_gelu(x[i]),
        };
    }
}

fn vjp_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, x) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    for (i, dx) in dx.iter_mut().enumerate() {
        let slope = match key.act {
            Activation::Silu => x[i].silu_slope(),
            Activation::Gelu => x[i].gelu_slope(),
            Activation::QuickGelu => quick_gelu_slope(x[i]),
        };
        *dx = dy[i] * slope;
    }
}

/// Elements of one task: large against the cost of handing it to a thread.
const CHUNK: usize = 1 << 13;

fn forward_chunks<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    match key.act {
        Activation::Silu => map(y, x, |x| x * x.sigmoid()),
        Activation::Gelu => map(y, x, T::gelu),
        Activation::QuickGelu => map(y, x, quick_gelu),
    }
}

fn map<T: Real>(y: &mut [T], x: &[T], f: impl Fn(T) -> T + Sync) {
    y.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .for_each(|(y, x)| {
            wide(
                #[inline(always)]
                || {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = f(x);
                    }
                },
            );
        });
}

fn vjp_chunks<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, x) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    match key.act {
        Activation::Silu => map_slope(dx, dy, x, T::silu_slope),
        Activation::Gelu => map_slope(dx, dy, x, T::gelu_slope),
        Activation::QuickGelu => map_slope(dx, dy, x, quick_gelu_slope),
    }
}

fn map_slope<T: Real>(dx: &mut [T], dy: &[T], x: &[T], slope: impl Fn(T) -> T + Sync) {
    dx.par_chunks_mut(CHUNK)
        .zip(dy.par_chunks(CHUNK).zip(x.par_chunks(CHUNK)))
        .for_each(|(dx, (dy, x))| {
            wide(
                #[inline(always)]
                || {
                    for ((dx, &dy), &x) in dx.iter_mut().zip(dy).zip(x) {
                        *dx = dy * slope(x);
                    }
                },
            );
        });
}
