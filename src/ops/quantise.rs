//! Quantise: `y[n, i] = o[i] + q[i] round((x[n, i] - o[i]) / q[i])`, halves to even.
//!
//! `x, y: [n, h, w, c]`, `q, o: [h, w, c]`, q above 0. Its gradient is taken to be the identity (straight-through), so there is no
//! backward pass.

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
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
            Spec::out("y", len),
            Spec::input("x", len).fill(Fill::Normal(5.0)),
            Spec::input("q", self.size).fill(Fill::Positive),
            Spec::input("o", self.size),
        ]
    }

    fn flops(&self) -> u64 {
        5 * (self.samples * self.size) as u64
    }
}

/// `y` from `x`, `q` and `o`.
pub static FORWARD: Op<Key> = Op {
    name: "quantise.forward",
    variants: &[
        Variant::kernels("plain", plan).when(|key| key.dtype == DType::F32),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || {
        let key = |(samples, size)| Key {
            dtype: DType::F32,
            samples,
            size,
        };
        [(1, 1), (3, 31), (2, 16 * 16 * 3)].map(key).to_vec()
    },
};

fn plan(key: &Key) -> Plan {
    let len = key.samples * key.size;
    Launch::each("quantise/fwd_1_plain", key.dtype, len)
        .ints([len, key.size])
        .into()
}

/// `y` of `x`'s shape.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `q` or `o` has not one number for each element of a sample.
pub fn forward(cx: &Cx, x: &Tensor, q: &Tensor, o: &Tensor) -> Result<Tensor> {
    let [samples, h, w, c] = x.nhwc("quantise")?;
    q.expect_shape("quantise, q", [h, w, c])?;
    o.expect_shape("quantise, o", [h, w, c])?;
    x.expect_dtype("quantise", cx.dtype())?;
    let key = Key {
        dtype: cx.dtype(),
        samples,
        size: h * w * c,
    };
    let y = cx.empty(x.shape())?;
    FORWARD.launch(
        cx,
        &key,
        &[Arg::Out(&y), Arg::In(x), Arg::In(q), Arg::In(o)],
    )?;
    Ok(y)
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    let (q, o) = (args.input::<T>(2), args.input::<T>(3));
    for (i, y) in y.iter_mut().enumerate() {
        let (q, o) = (q[i % key.size], o[i % key.size]);
        *y = o + q * T::of(((x[i] - o) / q).f64().round_ties_even());
    }
}
