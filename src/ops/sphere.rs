//! Projection of each sample onto a sphere: `y[n] = m[n] + radius[n] (x[n] - m[n]) / ||x[n] - m[n]||`,
//! and `m[n]` where `x[n] = m[n]`. DMAP's step (Algorithms 2 and 4). Samplers do not differentiate it.

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    size: usize,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn with_dtype(&self, dtype: DType) -> Self {
        Key {
            dtype,
            ..self.clone()
        }
    }

    fn args(&self) -> Vec<Spec> {
        let len = self.samples * self.size;
        let radius = Spec::input("radius", self.samples).fill(Fill::Positive);
        vec![
            Spec::out("y", len),
            Spec::input("x", len),
            Spec::input("m", len),
            radius,
        ]
    }

    fn flops(&self) -> u64 {
        (6 * self.samples * self.size) as u64
    }
}

/// `y` from `x`, the centre `m` and the radius.
pub static FORWARD: Op<Key> = Op {
    name: "sphere.forward",
    variants: &[
        Variant::native("wide_sum", forward_wide::<f32>, forward_wide::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || {
        let sizes = [(1, 1), (2, 33), (3, 16_384)];
        sizes
            .map(|(samples, size)| Key {
                dtype: DType::F32,
                samples,
                size,
            })
            .to_vec()
    },
};

/// `x` projected onto the sphere of `radius` around `m`; `x, m: [n, ..]`.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes differ.
pub fn forward(cx: &Cx, x: &Tensor, m: &Tensor, radius: f64) -> Result<Tensor> {
    m.expect_shape("sphere, centre", x.shape())?;
    let (samples, size) = (x.shape().samples(), x.shape().per_sample());
    let key = Key {
        dtype: cx.dtype(),
        samples,
        size,
    };
    let radius = cx.upload(&vec![radius; samples], [samples])?;
    let y = cx.empty(x.shape())?;
    FORWARD.launch(
        cx,
        &key,
        &[Arg::Out(&y), Arg::In(x), Arg::In(m), Arg::In(&radius)],
    )?;
    Ok(y)
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    with_sum(key, args, |u: &[T]| {
        u.iter().map(|&u| u * u).sum::<T>().sqrt()
    });
}

/// Sums squares in f64.
fn forward_wide<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    with_sum(key, args, |u: &[T]| {
        T::of(u.iter().map(|u| u.f64() * u.f64()).sum::<f64>().sqrt())
    });
}

fn with_sum<T: Real>(key: &Key, args: &mut NativeArgs<'_>, norm: fn(&[T]) -> T) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    let (m, radius) = (args.input::<T>(2), args.input::<T>(3));
    y.iter_mut()
        .zip(x)
        .zip(m)
        .for_each(|((u, &x), &m)| *u = x - m);
    let samples = y.chunks_exact_mut(key.size).zip(m.chunks_exact(key.size));
    for ((y, m), &radius) in samples.zip(radius) {
        let length = norm(y);
        let scale = if length == T::ZERO {
            T::ZERO
        } else {
            radius / length
        };
        y.iter_mut().zip(m).for_each(|(y, &m)| *y = m + scale * *y);
    }
}
