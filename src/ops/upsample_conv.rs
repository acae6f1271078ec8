//! Nearest-neighbour upsampling and a 3x3 convolution as one transposed convolution: its weights.
//!
//! `conv(upsample(x))` meets copies of one pixel of `x` at neighbouring taps, whose weights can be summed beforehand.
//! What is left, on each axis and with zeros outside of `x`, is
//!
//! `y[2i] = w0 x[i - 1] + (w1 + w2) x[i]`, `y[2i + 1] = (w0 + w1) x[i] + w2 x[i + 1]`:
//!
//! a transposed convolution of stride 2, padding 1 and the four weights `w2, w1 + w2, w0 + w1, w0`. It multiplies 4/9
//! as often, and the upsampled image is stored nowhere. Its directions are those of conv2d, exchanged: `conv2d.vjp`
//! makes `y`, `conv2d.forward` the cotangent of `x`. What is computed here is the weights:
//!
//! `y[r, c, o, i] = sum over a, b in {0, 1} of x[o, i, 2 - r + a, 2 - c + b]`, zero outside of 3 x 3.
//!
//! `x: [o, i, 3, 3]` as the file holds it, in f32, f16 or bf16; `y: [4, 4, o, i]` in the storage type. What is summed
//! is the file's values, in float. Rounded to 16 bits each by itself, folded weights are as far from exact as unfolded
//! ones, relatively; but unfolded, all pixels of a flat region get the same error, and folded, each of the four phases
//! would get its own: a checkerboard, and a residual that follows it. So the kernels round the four weights of a phase
//! from the sum of most terms to that of fewest, each with what rounding took from those before it. In bf16, root mean
//! squares of the error relative to the output for random weights: of flat input 0.6e-3, where nearest values give
//! 1.7e-3; of input whose neighbours correlate by 0.5, 1.8e-3 and 1.7e-3; of white noise 2.3e-3 and 1.7e-3.
//! `tests/upsampling.rs` holds the result to the bound of the unfolded form in each type.

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
    outputs: usize,
    inputs: usize,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let matrix = self.outputs * self.inputs;
        let x = Spec::input("x", 9 * matrix).always(self.file);
        vec![Spec::out("y", 16 * matrix), x]
    }

    fn flops(&self) -> u64 {
        // On each axis two of the four are a sum of two: 36 terms for 16 elements.
        20 * (self.outputs * self.inputs) as u64
    }
}

/// `y` from `x`.
pub static FOLD: Op<Key> = Op {
    name: "upsample_conv.fold",
    variants: &[
        Variant::kernels("plain", |key| {
            let part = match key.file {
                DType::F16 => "from_f16",
                DType::Bf16 => "from_bf16",
                _ => "from_f32",
            };
            let len = 4 * key.outputs * key.inputs;
            Launch::each("upsample_conv/fold_1_plain", key.dtype, len)
                .part(part)
                .ints([key.outputs, key.inputs])
                .into()
        }),
        Variant::native("plain", fold_plain::<f32>, fold_plain::<f64>),
    ],
    cases: || {
        let files = [DType::F32, DType::F16, DType::Bf16];
        let sizes = [(1, 1), (5, 3), (31, 33), (40, 64)];
        let key = |file, (outputs, inputs)| Key {
            dtype: DType::F32,
            file,
            outputs,
            inputs,
        };
        let all = files
            .iter()
            .flat_map(|&file| sizes.map(|size| key(file, size)));
        all.collect()
    },
};

/// `y: [4, 4, o, i]` in the type `to` from `x: [o, i, 9]`, f32, f16 or bf16.
///
/// # Errors
/// [`Error::DType`] when `x` is of another type, [`Error::Shape`] when it is of another shape.
pub fn fold(cx: &Cx, x: &Tensor, to: DType) -> Result<Tensor> {
    let [outputs, inputs, taps] = x.ntc("upsample_conv")?;
    if taps != 9 {
        return Err(Error::shape("upsample_conv", "[o, i, 9]", x.shape()));
    }
    if !matches!(x.dtype(), DType::F32 | DType::F16 | DType::Bf16) {
        return Err(Error::DType {
            what: "upsample_conv".into(),
            want: "f32, f16 or bf16".into(),
            got: x.dtype().to_string(),
        });
    }
    let key = Key {
        dtype: to,
        file: x.dtype(),
        outputs,
        inputs,
    };
    let y = cx.empty_in(to, [4, 4, outputs, inputs])?;
    FOLD.launch(cx, &key, &[Arg::Out(&y), Arg::In(x)])?;
    Ok(y)
}

fn fold_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let y = args.output::<T>(0);
    match key.file {
        DType::F16 => fold_into(y, args.input::<half::f16>(1), |x| T::of(x.to_f64())),
        DType::Bf16 => fold_into(y, args.input::<half::bf16>(1), |x| T::of(x.to_f64())),
        _ => fold_into(y, args.input::<f32>(1), |x| T::of(f64::from(x))),
    }
}

/// `y` from `x` in host memory.
pub fn folded<T: Real>(x: &[T]) -> Vec<T> {
    let mut y = vec![T::ZERO; x.len() / 9 * 16];
    fold_into(&mut y, x, |x| x);
    y
}

fn fold_into<T: Real, F: Copy>(y: &mut [T], x: &[F], convert: impl Fn(F) -> T) {
    let meets = |tap: usize| 2usize.saturating_sub(tap)..=(3 - tap).min(2);
    for (tap, y) in y.chunks_exact_mut(x.len() / 9).enumerate() {
        for (y, kernel) in y.iter_mut().zip(x.chunks_exact(9)) {
            *y = T::ZERO;
            for row in meets(tap / 4) {
                for col in meets(tap % 4) {
                    *y += convert(kernel[3 * row + col]);
                }
            }
        }
    }
}
