//! Noise: `y = x + scale n`, or `y = scale n` without an `x`, where `n` is the standard normal field that
//! [`rng`](crate::rng) has at each sample's address.
//!
//! `x, y: [n, ..]`, element i of a sample being element i of its field; `addresses: [n, 5]` (i32, the
//! bits of u32) holds key low, key high, sample, step and draw.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::rng::{ADDRESS, Stream};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// One launch.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    elements: usize,
    scale: f64,
    base: bool,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let all = self.samples * self.elements;
        vec![
            Spec::out("y", all),
            Spec::input("addresses", self.samples * ADDRESS).fill(Fill::Ids(1 << 20)),
            Spec::input("x", all).present(self.base),
        ]
    }

    fn flops(&self) -> u64 {
        // ten rounds of Philox for four elements, a logarithm, a root and two circular functions for two
        60 * (self.samples * self.elements) as u64
    }
}

/// `y` from the addresses and `x`.
pub static FORWARD: Op<Key> = Op {
    name: "noise.forward",
    variants: &[
        Variant::kernels("plain", plan).when(|key| key.dtype == DType::F32),
        Variant::native("blocks", forward_blocks::<f32>, forward_blocks::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases,
};

fn cases() -> Vec<Key> {
    let sizes = [
        (1, 1, 1.0, false),
        (3, 31, 1.0, false),
        (2, 113 * 203, 1.0, false),
        (2, 33, 0.3, false),
        (5, 4097, 0.05, true),
    ];
    let key = |(samples, elements, scale, base)| Key {
        dtype: DType::F32,
        samples,
        elements,
        scale,
        base,
    };
    sizes.into_iter().map(key).collect()
}

fn plan(key: &Key) -> Plan {
    let threads = key.elements.div_ceil(4); // one a Philox counter
    let grid = [threads.div_ceil(256), key.samples, 1];
    Launch::new("noise/fwd_1_plain", key.dtype, grid, 256)
        .ints([key.elements])
        .floats([key.scale])
        .into()
}

/// Standard normals of this shape: one field a sample, at the sample's row of `addresses: [n, 5]`.
///
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] when there is not one address of five i32 a sample.
pub fn forward(cx: &Cx, shape: Shape, addresses: &Tensor) -> Result<Tensor> {
    run(cx, shape, addresses, None, 1.0)
}

/// Standard normals of this shape: sample i from `streams[i]` at this step and draw.
///
/// # Errors
/// [`Error::Shape`] when there is not one stream a sample.
pub fn normals(
    cx: &Cx,
    shape: impl Into<Shape>,
    streams: &[Stream],
    step: u32,
    draw: u32,
) -> Result<Tensor> {
    let addresses = addresses(cx, streams, step, draw)?;
    run(cx, shape.into(), &addresses, None, 1.0)
}

/// `x + scale n` with the normals of [`normals`].
///
/// # Errors
/// [`Error::Shape`] when there is not one stream a sample, [`Error::DType`] when `x` is not of the
/// run's type.
pub fn add(
    cx: &Cx,
    x: &Tensor,
    scale: f64,
    streams: &[Stream],
    step: u32,
    draw: u32,
) -> Result<Tensor> {
    x.expect_dtype("noise", cx.dtype())?;
    let addresses = addresses(cx, streams, step, draw)?;
    run(cx, x.shape(), &addresses, Some(x), scale)
}

/// The addresses of one draw of each stream, `[n, 5]`.
///
/// # Errors
/// [`Error::Plan`] when there is no room.
pub fn addresses(cx: &Cx, streams: &[Stream], step: u32, draw: u32) -> Result<Tensor> {
    let words = streams.iter().flat_map(|stream| stream.address(step, draw));
    let words: Vec<i32> = words.collect();
    Tensor::from_slice(cx.rt(), &words, [streams.len(), ADDRESS])
}

fn run(
    cx: &Cx,
    shape: Shape,
    addresses: &Tensor,
    x: Option<&Tensor>,
    scale: f64,
) -> Result<Tensor> {
    let samples = shape.samples();
    if addresses.dims() != [samples, ADDRESS] {
        return Err(Error::shape(
            "noise, addresses",
            format!("[{samples}, {ADDRESS}], one for each sample of {shape}"),
            addresses.shape(),
        ));
    }
    addresses.expect_dtype("noise, addresses", DType::I32)?;
    let key = Key {
        dtype: cx.dtype(),
        samples,
        elements: shape.per_sample(),
        scale,
        base: x.is_some(),
    };
    let y = cx.empty(shape)?;
    FORWARD.launch(cx, &key, &[Arg::Out(&y), Arg::In(addresses), x.into()])?;
    Ok(y)
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, addresses, x) = (
        args.output::<T>(0),
        args.input::<i32>(1),
        args.optional::<T>(2),
    );
    for (i, y) in y.iter_mut().enumerate() {
        let (n, element) = (i / key.elements, i % key.elements);
        let (stream, step, draw) = Stream::parse(&addresses[n * ADDRESS..]);
        let mut normal = [T::ZERO];
        stream.normals_from(step, draw, element as u64, &mut normal);
        *y = x.map_or(T::ZERO, |x| x[i]) + T::of(key.scale) * normal[0];
    }
}

/// Elements of one block, a multiple of Philox's four.
const BLOCK: usize = 4096;

fn forward_blocks<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, addresses, x) = (
        args.output::<T>(0),
        args.input::<i32>(1),
        args.optional::<T>(2),
    );
    let samples = y.par_chunks_mut(key.elements.max(1)).enumerate();
    samples.for_each(|(n, y)| {
        let (stream, step, draw) = Stream::parse(&addresses[n * ADDRESS..]);
        y.par_chunks_mut(BLOCK).enumerate().for_each(|(b, y)| {
            let first = b * BLOCK;
            stream.normals_from(step, draw, first as u64, y);
            let scale = T::of(key.scale);
            match x {
                Some(x) => {
                    let x = &x[n * key.elements + first..];
                    y.iter_mut().zip(x).for_each(|(y, &x)| *y = x + scale * *y);
                }
                None => y.iter_mut().for_each(|y| *y = scale * *y),
            }
        });
    });
}
