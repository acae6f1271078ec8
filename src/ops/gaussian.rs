//! The autoencoder's posterior: a sample of a normal distribution, and its divergence from the unit one.
//!
//! `z = mean + exp(logvar / 2) n`, `kl = (mean^2 + exp(logvar) - 1 - logvar) / 2`, element by element, with
//! `logvar` clamped to [-30, 20] as diffusers does (diffusers: models/autoencoders/vae.py). Backward, of
//! `<dz, z> + weight sum(kl)`: `dmean = dz + weight mean`, `dlogvar = (dz n exp(logvar / 2) + weight (exp(logvar) - 1)) / 2`,
//! and 0 where it was clamped.

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::Launch;
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// Where the log-variance is clamped.
const CLAMP: (f64, f64) = (-30.0, 20.0);

/// One launch over `len` elements.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    len: usize,
    /// The weight of the divergence, in the backward pass.
    weight: f64,
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
        let len = self.len;
        let inputs = ["mean", "logvar", "n"].map(|name| Spec::input(name, len));
        let first = if self.backward {
            vec![
                Spec::out("dmean", len),
                Spec::out("dlogvar", len),
                Spec::input("dz", len),
            ]
        } else {
            vec![Spec::out("z", len), Spec::out("kl", len)]
        };
        first.into_iter().chain(inputs).collect()
    }

    fn flops(&self) -> u64 {
        20 * self.len as u64
    }
}

/// `z, kl` from `mean, logvar, n`.
pub static FORWARD: Op<Key> = Op {
    name: "gaussian.forward",
    variants: &[
        Variant::kernels("plain", |key| {
            Launch::each("gaussian/fwd_1_plain", key.dtype, key.len)
                .ints([key.len])
                .into()
        }),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || cases(false),
};

/// `dmean, dlogvar` from `dz`.
pub static VJP: Op<Key> = Op {
    name: "gaussian.vjp",
    variants: &[
        Variant::kernels("plain", |key| {
            Launch::each("gaussian/vjp_1_plain", key.dtype, key.len)
                .ints([key.len])
                .floats([key.weight])
                .into()
        }),
        Variant::native("plain", vjp_plain::<f32>, vjp_plain::<f64>),
    ],
    cases: || cases(true),
};

fn cases(backward: bool) -> Vec<Key> {
    let key = |len| Key {
        dtype: DType::F32,
        len,
        weight: 0.1,
        backward,
    };
    [1, 33, 3_000].map(key).to_vec()
}

/// What the backward pass needs.
#[derive(Debug)]
pub struct Saved {
    mean: Tensor,
    logvar: Tensor,
    n: Tensor,
}

/// A sample `z`, and the divergence `kl` of each element, from standard normals `n`; all of one shape.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the shapes differ.
pub fn forward(
    cx: &Cx,
    mean: &Tensor,
    logvar: &Tensor,
    n: &Tensor,
) -> Result<(Tensor, Tensor, Saved)> {
    logvar.expect_shape("gaussian, logvar", mean.shape())?;
    n.expect_shape("gaussian, n", mean.shape())?;
    let (z, kl) = (cx.empty(mean.shape())?, cx.empty(mean.shape())?);
    let key = Key {
        dtype: mean.dtype(),
        len: mean.shape().elements(),
        weight: 0.0,
        backward: false,
    };
    let args = [
        Arg::Out(&z),
        Arg::Out(&kl),
        Arg::In(mean),
        Arg::In(logvar),
        Arg::In(n),
    ];
    FORWARD.launch(cx, &key, &args)?;
    let [mean, logvar, n] = [mean, logvar, n].map(Tensor::clone);
    Ok((z, kl, Saved { mean, logvar, n }))
}

/// The cotangents of mean and log-variance from that of `z`, with `weight` on the divergence.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `dz` is of another shape.
pub fn vjp(cx: &Cx, saved: Saved, dz: &Tensor, weight: f64) -> Result<(Tensor, Tensor)> {
    let Saved { mean, logvar, n } = &saved;
    dz.expect_shape("gaussian.vjp", mean.shape())?;
    let (dmean, dlogvar) = (cx.empty(mean.shape())?, cx.empty(mean.shape())?);
    let key = Key {
        dtype: mean.dtype(),
        len: mean.shape().elements(),
        weight,
        backward: true,
    };
    let args = [
        Arg::Out(&dmean),
        Arg::Out(&dlogvar),
        Arg::In(dz),
        Arg::In(mean),
        Arg::In(logvar),
        Arg::In(n),
    ];
    VJP.launch(cx, &key, &args)?;
    Ok((dmean, dlogvar))
}

fn clamp<T: Real>(logvar: T) -> T {
    let (low, high) = (T::of(CLAMP.0), T::of(CLAMP.1));
    if logvar < low {
        low
    } else if logvar > high {
        high
    } else {
        logvar
    }
}

fn forward_plain<T: Real>(_: &Key, args: &mut NativeArgs<'_>) {
    let (z, kl) = (args.output::<T>(0), args.output::<T>(1));
    let (mean, logvar, n) = (args.input::<T>(2), args.input::<T>(3), args.input::<T>(4));
    let half = T::of(0.5);
    for i in 0..z.len() {
        let (m, l) = (mean[i], clamp(logvar[i]));
        z[i] = m + (half * l).exp() * n[i];
        kl[i] = half * (m * m + l.exp() - T::ONE - l);
    }
}

fn vjp_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dmean, dlogvar) = (args.output::<T>(0), args.output::<T>(1));
    let (dz, mean) = (args.input::<T>(2), args.input::<T>(3));
    let (logvar, n) = (args.input::<T>(4), args.input::<T>(5));
    let (half, weight) = (T::of(0.5), T::of(key.weight));
    for i in 0..dz.len() {
        let l = logvar[i];
        dmean[i] = dz[i] + weight * mean[i];
        dlogvar[i] = match clamp(l) == l {
            true => half * (dz[i] * n[i] * (half * l).exp() + weight * (l.exp() - T::ONE)),
            false => T::ZERO,
        };
    }
}
