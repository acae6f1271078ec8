//! Cast: `y = x` in another type, between a 16-bit storage type and f32: where a network, which stores its
//! activations in 16 bits, meets the sampler, whose state is in f32. The cotangent is cast back.

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch over `len` elements; `dtype` is the 16-bit side.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    len: usize,
    direction: Direction,
}

/// Which side is f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// The result.
    Widen,
    /// The argument.
    Narrow,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let (y, x) = (Spec::out("y", self.len), Spec::input("x", self.len));
        match self.direction {
            Direction::Widen => vec![y.wide(), x],
            Direction::Narrow => vec![y, x.wide()],
        }
    }

    fn flops(&self) -> u64 {
        0
    }
}

/// `y = x`.
pub static FORWARD: Op<Key> = Op {
    name: "cast.forward",
    variants: &[
        Variant::kernels("plain", plan).when(|key| key.dtype.is_half()),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || {
        let key = |direction| {
            move |len| Key {
                dtype: DType::F32,
                len,
                direction,
            }
        };
        let lens = [1, 33, 40_000];
        let widen = lens.map(key(Direction::Widen));
        let narrow = lens.map(key(Direction::Narrow));
        [widen, narrow].concat()
    },
};

fn plan(key: &Key) -> Plan {
    let part = match key.direction {
        Direction::Widen => "widen",
        Direction::Narrow => "narrow",
    };
    Launch::each("cast/fwd_1_plain", key.dtype, key.len)
        .part(part)
        .ints([key.len])
        .into()
}

/// `x` in type `to`: itself when it is of that type already.
///
/// # Errors
/// [`Error::DType`] when the two types are not a 16-bit one and f32.
pub fn forward(cx: &Cx, x: &Tensor, to: DType) -> Result<Tensor> {
    let from = x.dtype();
    if from == to {
        return Ok(x.clone());
    }
    let (dtype, direction) = match (from, to) {
        (half, DType::F32) if half.is_half() => (half, Direction::Widen),
        (DType::F32, half) if half.is_half() => (half, Direction::Narrow),
        _ => {
            return Err(Error::DType {
                what: "cast".into(),
                want: "bf16 or f16 to f32, or f32 to bf16 or f16".into(),
                got: format!("{from} to {to}"),
            });
        }
    };
    let key = Key {
        dtype,
        len: x.shape().elements(),
        direction,
    };
    let y = cx.empty_in(to, x.shape())?;
    FORWARD.launch(cx, &key, &[Arg::Out(&y), Arg::In(x)])?;
    Ok(y)
}

/// The native engine has no 16-bit type: a copy.
fn forward_plain<T: Real>(_: &Key, args: &mut NativeArgs<'_>) {
    args.output::<T>(0).copy_from_slice(args.input::<T>(1));
}
