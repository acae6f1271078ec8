//! The exponential moving average of a parameter over training steps, in place: `average += (1 - d) (w - average)`.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
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

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        vec![
            Spec::update("average", self.len).wide(),
            Spec::input("w", self.len).wide(),
            Spec::input("coefficients", 1).fill(Fill::Positive).wide(),
        ]
    }

    fn flops(&self) -> u64 {
        3 * self.len as u64
    }
}

/// `average` from itself and `w`.
pub static UPDATE: Op<Key> = Op {
    name: "ema.update",
    variants: &[
        Variant::kernels("vector", |key: &Key| {
            launch("ema/update_2_vector", key.len / 4)
        })
        .when(|key| key.dtype == DType::F32 && key.len.is_multiple_of(4)),
        Variant::kernels("plain", |key: &Key| launch("ema/update_1_plain", key.len))
            .when(|key| key.dtype == DType::F32),
        Variant::native("chunks", update_chunks::<f32>, update_chunks::<f64>),
        Variant::native("plain", update_plain::<f32>, update_plain::<f64>),
    ],
    cases: || {
        let key = |len| Key {
            dtype: DType::F32,
            len,
        };
        [1, 33, 4_096, 40_008].map(key).to_vec()
    },
};

/// A thread for each of `count` elements or packs of four.
fn launch(module: &'static str, count: usize) -> Plan {
    Launch::each(module, DType::F32, count).ints([count]).into()
}

/// Moves `average` towards `w`, both f32 (f64 in a run of f64). `coefficients: [1]` holds `1 - d`; it is read from
/// memory, so that a recorded step can be done again with another.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) when they are not of one shape and
/// type; [`Error::Plan`](crate::Error::Plan) when they share memory.
pub fn update(cx: &Cx, average: &Tensor, w: &Tensor, coefficients: &Tensor) -> Result<()> {
    w.expect_shape("ema.update, `w`", average.shape())?;
    let key = Key {
        dtype: average.dtype(),
        len: average.shape().elements(),
    };
    let args = [Arg::Update(average), Arg::In(w), Arg::In(coefficients)];
    UPDATE.launch(cx, &key, &args)
}

fn update_plain<T: Real>(_: &Key, args: &mut NativeArgs<'_>) {
    let (average, w) = (args.output::<T>(0), args.input::<T>(1));
    let rest = args.input::<T>(2)[0];
    for (average, &w) in average.iter_mut().zip(w) {
        *average += rest * (w - *average);
    }
}

/// Elements of one task: large against the cost of handing it to a thread.
const CHUNK: usize = 1 << 14;

fn update_chunks<T: Real>(_: &Key, args: &mut NativeArgs<'_>) {
    let (average, w) = (args.output::<T>(0), args.input::<T>(1));
    let rest = args.input::<T>(2)[0];
    average
        .par_chunks_mut(CHUNK)
        .zip(w.par_chunks(CHUNK))
        .for_each(|(average, w)| {
            wide(
                #[inline(always)]
                || {
                    for (average, &w) in average.iter_mut().zip(w) {
                        *average += rest * (w - *average);
                    }
                },
            );
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Runtime;

    /// Towards weights that stay the same the distance shrinks by d a step.
    #[test]
    fn the_average_approaches_steady_weights() -> Result<()> {
        let cx = Cx::new(Runtime::native(), DType::F64)?;
        let (average, w) = (cx.upload(&[1.0, -2.0], [2])?, cx.upload(&[0.0, 3.0], [2])?);
        let held = average.clone();
        for _ in 0..3 {
            update(&cx, &average, &w, &cx.upload_wide(&[0.25], [1])?)?;
        }
        let d = 0.75f64.powi(3);
        assert_eq!(held.to_vec::<f64>()?, [d, 3.0 - 5.0 * d]);
        Ok(())
    }
}
