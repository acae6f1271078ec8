//! Repack: a weight from the checkpoint's layout and type to the engine's, on the device:
//! `y[tap, i, o] = x[o, i, tap]`.
//!
//! `x: [outputs, inputs, taps]` as the file holds it, in f32, f16 or bf16; `y: [taps, inputs, outputs]` in the
//! storage type. With `taps = outputs = 1` the order stays and only the type changes.

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::Launch;
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    file: DType,
    taps: usize,
    inputs: usize,
    outputs: usize,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let len = self.taps * self.inputs * self.outputs;
        vec![Spec::out("y", len), Spec::input("x", len).always(self.file)]
    }

    fn flops(&self) -> u64 {
        0
    }
}

/// `y` from `x`.
pub static FORWARD: Op<Key> = Op {
    name: "repack.forward",
    variants: &[
        Variant::kernels("plain", |key| {
            let part = match key.file {
                DType::F16 => "from_f16",
                DType::Bf16 => "from_bf16",
                _ => "from_f32",
            };
            let len = key.taps * key.inputs * key.outputs;
            Launch::each("repack/fwd_1_plain", key.dtype, len)
                .part(part)
                .ints([key.taps, key.inputs, key.outputs])
                .into()
        }),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || {
        let files = [DType::F32, DType::F16, DType::Bf16];
        let sizes = [(1, 1, 1), (1, 31 * 33, 1), (9, 31, 33), (9, 64, 40)];
        let key = |file, (taps, inputs, outputs)| Key {
            dtype: DType::F32,
            file,
            taps,
            inputs,
            outputs,
        };
        let all = files
            .iter()
            .flat_map(|&file| sizes.map(|size| key(file, size)));
        all.collect()
    },
};

/// `y: [taps, inputs, outputs]` in the type `to` from `x: [outputs, inputs, taps]`, f32, f16 or bf16.
///
/// # Errors
/// [`Error::DType`] when `x` is of another type, [`Error::Shape`] when it has not three dimensions.
pub fn forward(cx: &Cx, x: &Tensor, to: DType) -> Result<Tensor> {
    let [outputs, inputs, taps] = x.ntc("repack")?;
    if !matches!(x.dtype(), DType::F32 | DType::F16 | DType::Bf16) {
        return Err(Error::DType {
            what: "repack".into(),
            want: "f32, f16 or bf16".into(),
            got: x.dtype().to_string(),
        });
    }
    let key = Key {
        dtype: to,
        file: x.dtype(),
        taps,
        inputs,
        outputs,
    };
    let y = cx.empty_in(to, [taps, inputs, outputs])?;
    FORWARD.launch(cx, &key, &[Arg::Out(&y), Arg::In(x)])?;
    Ok(y)
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let y = args.output::<T>(0);
    match key.file {
        DType::F16 => permute(key, y, args.input::<half::f16>(1), |x| T::of(x.to_f64())),
        DType::Bf16 => permute(key, y, args.input::<half::bf16>(1), |x| T::of(x.to_f64())),
        _ => permute(key, y, args.input::<f32>(1), |x| T::of(f64::from(x))),
    }
}

fn permute<T, F: Copy>(key: &Key, y: &mut [T], x: &[F], convert: impl Fn(F) -> T) {
    let (taps, inputs, outputs) = (key.taps, key.inputs, key.outputs);
    for (at, y) in y.iter_mut().enumerate() {
        let (tap, i, o) = (at / outputs / inputs, at / outputs % inputs, at % outputs);
        *y = convert(x[(o * inputs + i) * taps + tap]);
    }
}
