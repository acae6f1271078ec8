//! A gradient step and the projection of each sample back onto a sphere: `y[n] = m[n] + radius[n] v / ||v||`
//! with `v = x[n] + c[n] g[n] - m[n]`, and `m[n]` where `v = 0`. DMAP's step (Algorithms 2 and 4); without a
//! gradient the projection alone. Samplers do not differentiate it.
//!
//! `y, x, m, g: [n, ..]`; `a: [n, 2]` holds radius and c.

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan, Ptr};
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    size: usize,
    gradient: bool,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let len = self.samples * self.size;
        let a = Spec::input("a", 2 * self.samples).wide();
        vec![
            Spec::out("y", len),
            Spec::input("x", len),
            Spec::input("m", len),
            a.fill(Fill::Positive),
            Spec::input("g", len).present(self.gradient),
        ]
    }

    fn flops(&self) -> u64 {
        (8 * self.samples * self.size) as u64
    }
}

/// `y` from `x`, the centre `m`, the radius and the gradient.
pub static FORWARD: Op<Key> = Op {
    name: "sphere.forward",
    variants: &[
        Variant::kernels("plain", plan).when(|key| key.dtype == DType::F32),
        Variant::native("wide_sum", forward_wide::<f32>, forward_wide::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || {
        let sizes = [
            (1, 1, false),
            (2, 33, true),
            (3, 16_384, false),
            (2, 9_001, true),
        ];
        sizes
            .map(|(samples, size, gradient)| Key {
                dtype: DType::F32,
                samples,
                size,
                gradient,
            })
            .to_vec()
    },
};

/// Elements of a sample that one block adds up.
const CHUNK: usize = 4096;

fn plan(key: &Key) -> Plan {
    let chunks = key.size.div_ceil(CHUNK);
    let launch = |part, pointers: &[Ptr]| {
        let grid = [chunks, key.samples, 1];
        Launch::new("sphere/fwd_1_plain", key.dtype, grid, 256)
            .part(part)
            .pointers(pointers)
            .ints([key.size, CHUNK])
    };
    let [y, x, m, a, g] = [0, 1, 2, 3, 4].map(Ptr::Arg);
    let sums = Ptr::Scratch(0);
    Plan {
        launches: vec![
            launch("sums", &[sums, x, m, a, g]),
            launch("apply", &[y, sums, x, m, a, g]),
        ],
        scratch: key.samples * chunks * size_of::<f64>(),
    }
}

/// `x + c g`, or `x` without a step `(c, g)`, projected onto the sphere of `radius` around `m`.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes differ.
pub fn forward(
    cx: &Cx,
    x: &Tensor,
    step: Option<(f64, &Tensor)>,
    m: &Tensor,
    radius: f64,
) -> Result<Tensor> {
    m.expect_shape("sphere, centre", x.shape())?;
    let (c, g) = step.unzip();
    if let Some(g) = g {
        g.expect_shape("sphere, gradient", x.shape())?;
    }
    let (samples, size) = (x.shape().samples(), x.shape().per_sample());
    let key = Key {
        dtype: cx.dtype(),
        samples,
        size,
        gradient: g.is_some(),
    };
    let a = [radius, c.unwrap_or_default()].repeat(samples);
    let a = cx.upload_wide(&a, [samples, 2])?;
    let y = cx.empty(x.shape())?;
    let args = [Arg::Out(&y), Arg::In(x), Arg::In(m), Arg::In(&a), g.into()];
    FORWARD.launch(cx, &key, &args)?;
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
    let (y, x, m) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (a, g) = (args.input::<T>(3), args.optional::<T>(4));
    let samples = y.chunks_exact_mut(key.size).zip(m.chunks_exact(key.size));
    for (n, (y, m)) in samples.enumerate() {
        let (radius, c, first) = (a[2 * n], a[2 * n + 1], n * key.size);
        let x = &x[first..][..key.size];
        match g {
            Some(g) => {
                let stepped = x.iter().zip(&g[first..]).map(|(&x, &g)| x + c * g);
                y.iter_mut().zip(stepped).for_each(|(v, w)| *v = w);
            }
            None => y.copy_from_slice(x),
        }
        y.iter_mut().zip(m).for_each(|(v, &m)| *v -= m);
        let length = norm(y);
        let scale = if length == T::ZERO {
            T::ZERO
        } else {
            radius / length
        };
        y.iter_mut().zip(m).for_each(|(y, &m)| *y = m + scale * *y);
    }
}
