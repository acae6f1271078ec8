//! A linear combination with coefficients of each sample's own, and noise:
//! `y[n, ..] = sum_j a[n, j] x_j[n, ..] + s[n] normal(address[n])`: each element-wise line of a sampler's step
//! is one launch, its noise drawn where it is added.
//!
//! `a: [n, terms]`, with noise `[n, terms + 1]`, its last column `s`, lives on the device, so that a captured
//! step reads each step's coefficients there. The noise is the standard
//! normal field that [`rng`](crate::rng) has at `addresses: [n, 5]`.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::rng::{ADDRESS, Stream};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::wide;
use crate::tensor::Tensor;

/// The most terms one launch takes, besides noise that is drawn in it.
pub const TERMS: usize = 4;

const NAMES: [&str; TERMS] = ["x0", "x1", "x2", "x3"];

/// One launch.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    size: usize,
    terms: usize,
    noise: bool,
}

impl Key {
    /// The coefficients of one sample.
    fn columns(&self) -> usize {
        self.terms + usize::from(self.noise)
    }
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
        let mut args = vec![
            Spec::out("y", len),
            Spec::input("a", self.samples * self.columns()).wide(),
        ];
        args.extend((0..TERMS).map(|j| Spec::input(NAMES[j], len).present(j < self.terms)));
        let addresses = Spec::input("addresses", self.samples * ADDRESS).fill(Fill::Ids(1 << 20));
        args.push(addresses.present(self.noise));
        args
    }

    fn flops(&self) -> u64 {
        // as the noise op counts its draws
        let each = 2 * self.terms + if self.noise { 60 } else { 0 };
        (each * self.samples * self.size) as u64
    }
}

/// `y` from `a`, the terms and the addresses. Linear in each term: its adjoint is itself.
pub static FORWARD: Op<Key> = Op {
    name: "combine.forward",
    variants: &[
        Variant::kernels("packs", |key: &Key| plan("combine/fwd_2_packs", key))
            .when(|key| key.size.is_multiple_of(4)),
        Variant::kernels("plain", |key| plan("combine/fwd_1_plain", key)),
        Variant::native("blocks", forward_blocks::<f32>, forward_blocks::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || {
        let sizes = [
            (1, 1, 1, false),
            (3, 31, 2, true),
            (2, 113, 3, false),
            (5, 48, 4, false),
            (2, 8, 1, true),
            (3, 4100, 3, true),
            (1, 4097, 4, true),
        ];
        sizes
            .map(|(samples, size, terms, noise)| Key {
                dtype: DType::F32,
                samples,
                size,
                terms,
                noise,
            })
            .to_vec()
    },
};

fn plan(module: &'static str, key: &Key) -> Plan {
    let threads = key.size.div_ceil(4); // one a Philox counter
    let grid = [threads.div_ceil(256), key.samples, 1];
    Launch::new(module, key.dtype, grid, 256)
        .ints([key.size, key.terms])
        .into()
}

/// `sum_j a_j x_j` with the same coefficients for every sample.
///
/// # Errors
/// [`Error::Shape`] when there are no terms, more than [`TERMS`], or their shapes differ.
pub fn forward(cx: &Cx, terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    for_all(cx, terms, None)
}

/// `sum_j a_j x_j + scale n` with the same coefficients for every sample; `addresses: [n, 5]` of the noise.
///
/// # Errors
/// As [`forward`]; [`Error::Shape`] or [`Error::DType`] when there is not one address of five i32 a sample.
pub fn with_noise(
    cx: &Cx,
    terms: &[(f64, &Tensor)],
    scale: f64,
    addresses: &Tensor,
) -> Result<Tensor> {
    for_all(cx, terms, Some((scale, addresses)))
}

fn for_all(cx: &Cx, terms: &[(f64, &Tensor)], noise: Option<(f64, &Tensor)>) -> Result<Tensor> {
    let (mut a, xs): (Vec<f64>, Vec<&Tensor>) = terms.iter().copied().unzip();
    let (scale, addresses) = noise.unzip();
    a.extend(scale);
    let samples = xs.first().map_or(1, |x| x.shape().samples());
    let a = cx.upload_wide(&a.repeat(samples), [samples, a.len()])?;
    per_sample(cx, &a, &xs, addresses)
}

/// Overwrites `to`, which nobody else may hold, with `from`: a state that stays at one place through a run.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ, [`Error::Plan`] when somebody else holds `to`.
pub fn assign(cx: &Cx, to: &Tensor, from: &Tensor) -> Result<()> {
    to.expect_shape("combine, result", from.shape())?;
    let samples = from.shape().samples();
    let a = cx.upload_wide(&vec![1.0; samples], [samples, 1])?;
    launch(cx, to, &a, &[from], None)
}

/// `sum_j a[n, j] x_j[n, ..]` with `a: [n, terms]`; with addresses, `a: [n, terms + 1]` and the noise there.
///
/// # Errors
/// As [`with_noise`].
pub fn per_sample(
    cx: &Cx,
    a: &Tensor,
    xs: &[&Tensor],
    addresses: Option<&Tensor>,
) -> Result<Tensor> {
    let shape = match xs.first() {
        Some(x) if xs.len() <= TERMS => x.shape(),
        _ => return Err(Error::shape("combine", "1 to 4 terms", xs.len())),
    };
    if let Some(x) = xs.iter().find(|x| x.shape() != shape) {
        return Err(Error::shape("combine", shape, x.shape()));
    }
    if let Some(addresses) = addresses {
        addresses.expect_shape("combine, addresses", [shape.samples(), ADDRESS])?;
    }
    let y = cx.empty(shape)?;
    launch(cx, &y, a, xs, addresses)?;
    Ok(y)
}

fn launch(
    cx: &Cx,
    y: &Tensor,
    a: &Tensor,
    xs: &[&Tensor],
    addresses: Option<&Tensor>,
) -> Result<()> {
    let shape = y.shape();
    let key = Key {
        dtype: cx.dtype(),
        samples: shape.samples(),
        size: shape.per_sample(),
        terms: xs.len(),
        noise: addresses.is_some(),
    };
    a.expect_shape("combine, coefficients", [key.samples, key.columns()])?;
    let mut args = vec![Arg::Out(y), Arg::In(a)];
    args.extend((0..TERMS).map(|j| Arg::from(xs.get(j).copied())));
    args.push(addresses.into());
    FORWARD.launch(cx, &key, &args)
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, a) = (args.output::<T>(0), args.input::<T>(1));
    let xs: Vec<&[T]> = (0..key.terms).map(|j| args.input::<T>(2 + j)).collect();
    let addresses = args.optional::<i32>(2 + TERMS);
    for (i, y) in y.iter_mut().enumerate() {
        let (n, element) = (i / key.size, i % key.size);
        let a = &a[n * key.columns()..][..key.columns()];
        *y = xs.iter().zip(a).map(|(x, &a)| a * x[i]).sum();
        if let Some(addresses) = addresses {
            let (stream, step, draw) = Stream::parse(&addresses[n * ADDRESS..]);
            let mut normal = [T::ZERO];
            stream.normals_from(step, draw, element as u64, &mut normal);
            *y += a[key.terms] * normal[0];
        }
    }
}

/// Elements of one block, a multiple of Philox's four: small enough to stay in the first cache.
const BLOCK: usize = 4096;

fn forward_blocks<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, a) = (args.output::<T>(0), args.input::<T>(1));
    let xs: Vec<&[T]> = (0..key.terms).map(|j| args.input::<T>(2 + j)).collect();
    let addresses = args.optional::<i32>(2 + TERMS);
    let samples = y.par_chunks_mut(key.size.max(1)).enumerate();
    samples.for_each(|(n, y)| {
        let a = &a[n * key.columns()..][..key.columns()];
        y.par_chunks_mut(BLOCK).enumerate().for_each(|(b, y)| {
            let first = b * BLOCK;
            match addresses {
                Some(addresses) => {
                    let (stream, step, draw) = Stream::parse(&addresses[n * ADDRESS..]);
                    stream.normals_from(step, draw, first as u64, y);
                    y.iter_mut().for_each(|y| *y = a[key.terms] * *y);
                }
                None => y.fill(T::ZERO),
            }
            for (x, &a) in xs.iter().zip(a) {
                let x = &x[n * key.size + first..][..y.len()];
                wide(|| y.iter_mut().zip(x).for_each(|(y, &x)| *y += a * x));
            }
        });
    });
}
