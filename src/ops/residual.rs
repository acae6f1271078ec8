//! The guidance loss of each sample, not squared, and its gradient with respect to the measurement:
//! `loss[n] = ||f[n] - y[n]||`, `unit[n] = (f[n] - y[n]) / loss[n]`, zero where the loss is zero.
//!
//! The norm is over one sample, never over the batch: a batch norm would shrink every sample's step.

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
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
        vec![
            Spec::out("loss", self.samples),
            Spec::out("unit", len),
            Spec::input("f", len),
            Spec::input("y", len),
        ]
    }

    fn flops(&self) -> u64 {
        (4 * self.samples * self.size) as u64
    }
}

/// `loss, unit` from `f` and `y`.
pub static FORWARD: Op<Key> = Op {
    name: "residual.forward",
    variants: &[
        Variant::kernels("plain", plan).when(|key| key.dtype == DType::F32),
        Variant::native("wide_sum", forward_wide::<f32>, forward_wide::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || {
        let sizes = [(1, 1), (2, 33), (3, 12_288), (2, 9_001)];
        sizes
            .map(|(samples, size)| Key {
                dtype: DType::F32,
                samples,
                size,
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
        Launch::new("residual/fwd_1_plain", key.dtype, grid, 256)
            .part(part)
            .pointers(pointers)
            .ints([key.size, CHUNK])
    };
    let [loss, unit, f, y] = [0, 1, 2, 3].map(Ptr::Arg);
    let sums = Ptr::Scratch(0);
    Plan {
        launches: vec![
            launch("sums", &[sums, f, y]),
            launch("apply", &[loss, unit, sums, f, y]),
        ],
        scratch: key.samples * chunks * size_of::<f64>(),
    }
}

/// `(loss: [n], unit)` of `f` and `y`, both `[n, ..]`.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes differ.
pub fn forward(cx: &Cx, f: &Tensor, y: &Tensor) -> Result<(Tensor, Tensor)> {
    y.expect_shape("residual, measurement", f.shape())?;
    let (samples, size) = (f.shape().samples(), f.shape().per_sample());
    let key = Key {
        dtype: cx.dtype(),
        samples,
        size,
    };
    let loss = cx.empty([samples])?;
    let unit = cx.empty(f.shape())?;
    FORWARD.launch(
        cx,
        &key,
        &[Arg::Out(&loss), Arg::Out(&unit), Arg::In(f), Arg::In(y)],
    )?;
    Ok((loss, unit))
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    with_sum(key, args, |r: &[T]| {
        r.iter().map(|&r| r * r).sum::<T>().sqrt()
    });
}

/// Sums squares in f64: the loss of 786,432 pixels keeps its last digits.
fn forward_wide<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    with_sum(key, args, |r: &[T]| {
        T::of(r.iter().map(|r| r.f64() * r.f64()).sum::<f64>().sqrt())
    });
}

fn with_sum<T: Real>(key: &Key, args: &mut NativeArgs<'_>, norm: fn(&[T]) -> T) {
    let (loss, unit) = (args.output::<T>(0), args.output::<T>(1));
    let (f, y) = (args.input::<T>(2), args.input::<T>(3));
    unit.iter_mut()
        .zip(f)
        .zip(y)
        .for_each(|((r, &f), &y)| *r = f - y);
    for (loss, r) in loss.iter_mut().zip(unit.chunks_exact_mut(key.size)) {
        *loss = norm(r);
        let scale = if *loss == T::ZERO {
            T::ZERO
        } else {
            T::ONE / *loss
        };
        r.iter_mut().for_each(|r| *r *= scale);
    }
}
