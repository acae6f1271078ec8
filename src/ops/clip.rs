//! Clip: `y = min(max(g x, -1), 1)`; backward `dx = g dy` where `g x` lies in [-1, 1], else 0.
//!
//! `x, y: [n, ..]`. What a camera does whose range is too small for the scene.

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    len: usize,
    gain: f64,
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
        let x = Spec::input("x", self.len);
        match self.backward {
            true => vec![Spec::out("dx", self.len), Spec::input("dy", self.len), x],
            false => vec![Spec::out("y", self.len), x],
        }
    }

    fn flops(&self) -> u64 {
        3 * self.len as u64
    }
}

/// `y = clip(g x)`.
pub static FORWARD: Op<Key> = Op {
    name: "clip.forward",
    variants: &[
        Variant::kernels("plain", |key| plan("clip/fwd_1_plain", key))
            .when(|key| key.dtype == DType::F32),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || cases(false),
};

/// `dx` from `dy` and `x`.
pub static VJP: Op<Key> = Op {
    name: "clip.vjp",
    variants: &[
        Variant::kernels("plain", |key| plan("clip/vjp_1_plain", key))
            .when(|key| key.dtype == DType::F32),
        Variant::native("plain", vjp_plain::<f32>, vjp_plain::<f64>),
    ],
    cases: || cases(true),
};

fn cases(backward: bool) -> Vec<Key> {
    let key = |(len, gain)| Key {
        dtype: DType::F32,
        len,
        gain,
        backward,
    };
    [(1, 2.0), (31, 0.5), (77 * 203, 2.0)].map(key).to_vec()
}

fn plan(module: &'static str, key: &Key) -> Plan {
    Launch::each(module, key.dtype, key.len)
        .ints([key.len])
        .floats([key.gain])
        .into()
}

fn key(x: &Tensor, gain: f64, backward: bool) -> Key {
    Key {
        dtype: x.dtype(),
        len: x.shape().elements(),
        gain,
        backward,
    }
}

/// `y` of `x`'s shape.
///
/// # Errors
/// [`Error::DType`](crate::Error::DType) when `x` is not of the samplers' type.
pub fn forward(cx: &Cx, x: &Tensor, gain: f64) -> Result<Tensor> {
    x.expect_dtype("clip", cx.dtype())?;
    let y = cx.empty(x.shape())?;
    FORWARD.launch(cx, &key(x, gain, false), &[Arg::Out(&y), Arg::In(x)])?;
    Ok(y)
}

/// `dx` of `x`'s shape.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `dy` is not of `x`'s shape.
pub fn vjp(cx: &Cx, x: &Tensor, gain: f64, dy: &Tensor) -> Result<Tensor> {
    dy.expect_shape("clip.vjp", x.shape())?;
    let dx = cx.empty(x.shape())?;
    let args = [Arg::Out(&dx), Arg::In(dy), Arg::In(x)];
    VJP.launch(cx, &key(x, gain, true), &args)?;
    Ok(dx)
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    let (gain, one) = (T::of(key.gain), T::of(1.0));
    for (y, &x) in y.iter_mut().zip(x) {
        let v = gain * x;
        *y = match () {
            () if v > one => one,
            () if v < -one => -one,
            () => v,
        };
    }
}

fn vjp_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, x) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (gain, one) = (T::of(key.gain), T::of(1.0));
    for ((dx, &dy), &x) in dx.iter_mut().zip(dy).zip(x) {
        let v = gain * x;
        *dx = if v > one || v < -one {
            T::ZERO
        } else {
            gain * dy
        };
    }
}
