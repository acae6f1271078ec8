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

/// One launch over `len` elements.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    len: usize,
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
        vec![
            Spec::out("y", self.len),
            Spec::input("a", self.len),
            Spec::input("b", self.len),
        ]
    }

    fn flops(&self) -> u64 {
        self.len as u64
    }
}

/// `y = a + b`.
pub static FORWARD: Op<Key> = Op {
    name: "add.forward",
    variants: &[
        Variant::kernels("plain", |key| {
            Launch::each("add/fwd_1_plain", key.dtype, key.len)
                .ints([key.len])
                .into()
        }),
        Variant::native("chunks", forward_chunks::<f32>, forward_chunks::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || {
        let key = |len| Key {
            dtype: DType::F32,
            len,
        };
        [1, 31, 33, 77, 113 * 203, 40_000].map(key).to_vec()
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
        len: a.shape().elements(),
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
