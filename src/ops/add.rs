//! Add: `y = a + b`, element by element, of equal shapes. Both cotangents are `dy` itself.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::Launch;
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::wide;
use crate::tensor::Tensor;

/// One launch over `samples` times `len` elements.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    len: usize,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        vec![
            Spec::out("y", self.samples * self.len),
            Spec::input("a", self.samples * self.len),
            Spec::input("b", self.samples * self.len),
        ]
    }

    fn flops(&self) -> u64 {
        (self.samples * self.len) as u64
    }
}

/// `y = a + b`.
pub static FORWARD: Op<Key> = Op {
    name: "add.forward",
    variants: &[
        Variant::kernels("vector", |key: &Key| {
            let packs = key.samples * key.len / key.dtype.pack();
            Launch::each("add/fwd_2_vector", key.dtype, packs)
                .ints([packs])
                .into()
        })
        .when(|key| key.len.is_multiple_of(key.dtype.pack())),
        Variant::kernels("plain", |key| {
            let len = key.samples * key.len;
            Launch::each("add/fwd_1_plain", key.dtype, len)
                .ints([len])
                .into()
        }),
        Variant::native("chunks", forward_chunks::<f32>, forward_chunks::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || {
        let key = |(samples, len)| Key {
            dtype: DType::F32,
            samples,
            len,
        };
        let sizes = [(1, 1), (3, 11), (1, 77), (113, 203), (7, 8), (2, 20_000)];
        sizes.map(key).to_vec()
    },
};

/// `y = a + b`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the shapes differ.
pub fn forward(cx: &Cx, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    b.expect_shape("add", a.shape())?;
    let key = Key {
        dtype: a.dtype(),
        samples: a.shape().samples(),
        len: a.shape().per_sample(),
    };
    let y = cx.empty(a.shape())?;
    FORWARD.launch(cx, &key, &[Arg::Out(&y), Arg::In(a), Arg::In(b)])?;
    Ok(y)
}

fn forward_plain<T: Real>(_: &Key, args: &mut NativeArgs<'_>) {
    let (y, a, b) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    for (i, y) in y.iter_mut().enumerate() {
        *y = a[i] + b[i];
    }
}

/// Elements of one task: large against the cost of handing it to a thread.
const CHUNK: usize = 1 << 14;

fn forward_chunks<T: Real>(_: &Key, args: &mut NativeArgs<'_>) {
    let (y, a, b) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    y.par_chunks_mut(CHUNK)
        .zip(a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK)))
        .for_each(|(y, (a, b))| {
            wide(
                #[inline(always)]
                || {
                    for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                        *y = a + b;
                    }
                },
            );
        });
}
