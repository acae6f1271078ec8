//! Mask: `y[n, p, c] = x[n, p, c] m[p]`, one weight a pixel for all samples and channels.
//!
//! `x, y: [n, h, w, c]`, `m: [h, w, 1]`. The cotangent is the same product.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    pixels: usize,
    c: usize,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let image = self.samples * self.pixels * self.c;
        vec![
            Spec::out("y", image),
            Spec::input("x", image),
            Spec::input("m", self.pixels),
        ]
    }

    fn flops(&self) -> u64 {
        (self.samples * self.pixels * self.c) as u64
    }
}

/// `y = x m`; its own VJP.
pub static FORWARD: Op<Key> = Op {
    name: "mask.forward",
    variants: &[
        Variant::kernels("plain", plan).when(|key| key.dtype == DType::F32),
        Variant::native("blocks", forward_blocks::<f32>, forward_blocks::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases,
};

fn cases() -> Vec<Key> {
    let sizes = [(1, 1, 1), (2, 31, 3), (3, 33 * 5, 4), (1, 113 * 203, 3)];
    let key = |(samples, pixels, c)| Key {
        dtype: DType::F32,
        samples,
        pixels,
        c,
    };
    sizes.into_iter().map(key).collect()
}

fn plan(key: &Key) -> Plan {
    let len = key.samples * key.pixels * key.c;
    Launch::each("mask/fwd_1_plain", key.dtype, len)
        .ints([len, key.pixels, key.c])
        .into()
}

/// `y = x m` with `m: [h, w, 1]`.
///
/// # Errors
/// [`Error::Shape`] when `m` is not of the size of `x`.
pub fn forward(cx: &Cx, x: &Tensor, m: &Tensor) -> Result<Tensor> {
    let [samples, h, w, c] = x.nhwc("mask")?;
    if m.dims() != [h, w, 1] {
        return Err(Error::shape("mask, m", format!("[{h}, {w}, 1]"), m.shape()));
    }
    x.expect_dtype("mask", cx.dtype())?;
    m.expect_dtype("mask, m", cx.dtype())?;
    let key = Key {
        dtype: cx.dtype(),
        samples,
        pixels: h * w,
        c,
    };
    let y = cx.empty(x.shape())?;
    FORWARD.launch(cx, &key, &[Arg::Out(&y), Arg::In(x), Arg::In(m)])?;
    Ok(y)
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x, m) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    for (i, y) in y.iter_mut().enumerate() {
        *y = x[i] * m[i / key.c % key.pixels];
    }
}

/// Pixels of one block.
const BLOCK: usize = 4096;

fn forward_blocks<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x, m) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (sample, block, c) = (key.pixels * key.c, BLOCK * key.c, key.c.max(1));
    for (y, x) in y
        .chunks_exact_mut(sample.max(1))
        .zip(x.chunks_exact(sample.max(1)))
    {
        let blocks = y.par_chunks_mut(block).zip(x.par_chunks(block));
        blocks.zip(m.par_chunks(BLOCK)).for_each(|((y, x), m)| {
            let pixels = y.chunks_exact_mut(c).zip(x.chunks_exact(c));
            for ((y, x), &m) in pixels.zip(m) {
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * m);
            }
        });
    }
}
