//! A linear combination with coefficients of each sample's own: `y[n, ..] = sum_j a[n, j] x_j[n, ..]`.
//!
//! `a: [n, terms]` lives on the device, so that a captured step reads each step's coefficients there.

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::wide;
use crate::tensor::Tensor;

/// The most terms one launch takes.
pub const TERMS: usize = 4;

const NAMES: [&str; TERMS] = ["x0", "x1", "x2", "x3"];

/// One launch.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    size: usize,
    terms: usize,
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
        let mut args = vec![
            Spec::out("y", len),
            Spec::input("a", self.samples * self.terms),
        ];
        args.extend((0..TERMS).map(|j| Spec::input(NAMES[j], len).present(j < self.terms)));
        args
    }

    fn flops(&self) -> u64 {
        (2 * self.terms * self.samples * self.size) as u64
    }
}

/// `y` from `a` and the terms. Linear in each: its adjoint is itself.
pub static FORWARD: Op<Key> = Op {
    name: "combine.forward",
    variants: &[
        Variant::native("wide", forward_wide::<f32>, forward_wide::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || {
        let sizes = [(1, 1, 1), (3, 31, 2), (2, 113, 3), (5, 48, 4)];
        sizes
            .map(|(samples, size, terms)| Key {
                dtype: DType::F32,
                samples,
                size,
                terms,
            })
            .to_vec()
    },
};

/// `sum_j a_j x_j` with the same coefficients for every sample.
///
/// # Errors
/// [`Error::Shape`] when there are no terms, more than [`TERMS`], or their shapes differ.
pub fn forward(cx: &Cx, terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    let Some((_, first)) = terms.first() else {
        return Err(Error::shape("combine", "1 to 4 terms", "none"));
    };
    let n = first.shape().samples();
    let each: Vec<f64> = terms.iter().map(|(a, _)| *a).collect();
    let a = cx.upload(&each.repeat(n), [n, terms.len()])?;
    let xs: Vec<&Tensor> = terms.iter().map(|(_, x)| *x).collect();
    per_sample(cx, &a, &xs)
}

/// `sum_j a[n, j] x_j[n, ..]` with `a: [n, terms]`.
///
/// # Errors
/// As [`forward`].
pub fn per_sample(cx: &Cx, a: &Tensor, xs: &[&Tensor]) -> Result<Tensor> {
    let shape = match xs.first() {
        Some(x) if xs.len() <= TERMS => x.shape(),
        _ => return Err(Error::shape("combine", "1 to 4 terms", xs.len())),
    };
    if let Some(x) = xs.iter().find(|x| x.shape() != shape) {
        return Err(Error::shape("combine", shape, x.shape()));
    }
    let (samples, size) = (shape.samples(), shape.per_sample());
    a.expect_shape("combine, coefficients", [samples, xs.len()])?;
    let key = Key {
        dtype: cx.dtype(),
        samples,
        size,
        terms: xs.len(),
    };
    let y = cx.empty(shape)?;
    let mut args = vec![Arg::Out(&y), Arg::In(a)];
    args.extend((0..TERMS).map(|j| Arg::from(xs.get(j).copied())));
    FORWARD.launch(cx, &key, &args)?;
    Ok(y)
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, a) = (args.output::<T>(0), args.input::<T>(1));
    let xs: Vec<&[T]> = (0..key.terms).map(|j| args.input::<T>(2 + j)).collect();
    for (i, y) in y.iter_mut().enumerate() {
        let a = &a[i / key.size * key.terms..];
        *y = xs.iter().zip(a).map(|(x, &a)| a * x[i]).sum();
    }
}

fn forward_wide<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, a) = (args.output::<T>(0), args.input::<T>(1));
    for j in 0..key.terms {
        let x = args.input::<T>(2 + j);
        let samples = y.chunks_exact_mut(key.size).zip(x.chunks_exact(key.size));
        for ((y, x), a) in samples.zip(a.chunks_exact(key.terms)) {
            let a = a[j];
            wide(|| match j {
                0 => y.iter_mut().zip(x).for_each(|(y, &x)| *y = a * x),
                _ => y.iter_mut().zip(x).for_each(|(y, &x)| *y += a * x),
            });
        }
    }
}
