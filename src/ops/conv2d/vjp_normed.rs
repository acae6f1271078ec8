//! Backward passes that go on through the group norm and the SiLU before them, where that costs less than to write what is
//! in between: `kernels/conv2d/vjp_14_normed_three_outputs.cu`, and the textbook loops.

use super::normed::{rounded, stored_in};
use super::summed::of_norm;
use super::{Direction, Geometry, Key, VJP, vjp_key};
use super::{cases, gathered, plain, three_outputs};
use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::conv_norm::Applied;
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch.
#[derive(Clone, Debug)]
pub struct VjpNormedKey {
    /// The convolution, whose input the norm made.
    pub(super) conv: Key,
    /// The groups of the norm.
    pub(super) groups: usize,
    /// What the cotangent in between is rounded to.
    stored: DType,
}

impl KeyTrait for VjpNormedKey {
    fn dtype(&self) -> DType {
        self.conv.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.conv.set_dtype(dtype);
        self.stored = stored_in(dtype, self.stored);
    }

    fn args(&self) -> Vec<Spec> {
        let mut args = self.conv.args();
        args.splice(1..1, of_norm(&self.conv, self.groups));
        args
    }

    /// What is in between is made twice.
    fn flops(&self) -> u64 {
        2 * self.conv.flops()
    }

    fn is_mixed(&self) -> bool {
        self.conv.is_mixed()
    }
}

/// `dx` of the norm's input from `dy`, see [`group_norm`](crate::ops::group_norm).
pub static VJP_NORMED: Op<VjpNormedKey> = Op {
    name: "conv2d.vjp_normed",
    variants: &[
        Variant::kernels("three_outputs", three_outputs::vjp_normed)
            .when(|key| three_outputs::fits(&key.conv)),
        Variant::native("gathered_gemm", by_gathered::<f32>, by_gathered::<f64>),
        Variant::native("plain", by_plain::<f32>, by_plain::<f64>),
    ],
    cases: all,
};

/// `dx` from the cotangent that `product` makes.
fn through<T: Real>(
    key: &VjpNormedKey,
    args: &mut NativeArgs<'_>,
    product: fn(&Key, &mut NativeArgs<'_>),
) {
    let dx = args.output::<T>(0);
    let mut dh = vec![T::ZERO; dx.len()];
    product(&key.conv, &mut args.inputs_of(&mut dh, 6));
    let [x, mean, rstd, w, b] = [1, 2, 3, 4, 5].map(|i| args.input::<T>(i));
    let (pixels, c) = (key.conv.x[0] * key.conv.x[1], key.conv.inputs);
    let size = c / key.groups;
    let count = T::of((pixels * size) as f64);
    for (group, (&mu, &r)) in mean.iter().zip(rstd).enumerate() {
        let first = group / key.groups * pixels * c + group % key.groups * size;
        let all = || (0..pixels * size).map(|i| first + i / size * c + i % size);
        let xhat = |i: usize| (x[i] - mu) * r;
        let dxhat = |i: usize| {
            let (w, b) = (w[i % c], b[i % c]);
            rounded(Some(key.stored), dh[i]) * (xhat(i) * w + b).silu_slope() * w
        };
        let m1 = all().map(dxhat).sum::<T>() / count;
        let m2 = all().map(|i| dxhat(i) * xhat(i)).sum::<T>() / count;
        for i in all() {
            dx[i] = r * (dxhat(i) - m1 - xhat(i) * m2);
        }
    }
}

fn by_gathered<T: Real>(key: &VjpNormedKey, args: &mut NativeArgs<'_>) {
    through::<T>(key, args, gathered::vjp::<T>);
}

fn by_plain<T: Real>(key: &VjpNormedKey, args: &mut NativeArgs<'_>) {
    through::<T>(key, args, plain::vjp::<T>);
}

/// As [`vjp`](super::vjp), and on through `norm` and its SiLU, which made the input: the cotangent of the norm's input.
/// `None` where that would cost another variant than [`vjp`](super::vjp) runs.
///
/// # Errors
/// As [`vjp`](super::vjp); [`Error::Shape`] when the norm is of another image.
pub fn vjp_normed(
    cx: &Cx,
    w: &Tensor,
    geometry: Geometry,
    norm: Applied<'_>,
    dy: &Tensor,
) -> Result<Option<Tensor>> {
    let [_, height, width, _] = norm.x.nhwc("conv2d.vjp_normed")?;
    let conv = vjp_key(w, geometry, [height, width], dy)?;
    let shape = [conv.samples, height, width, conv.inputs];
    norm.x.expect_shape("conv2d.vjp_normed", shape)?;
    let groups = match *norm.mean.dims() {
        [n, groups] if n == conv.samples && groups > 0 && conv.inputs.is_multiple_of(groups) => {
            groups
        }
        _ => {
            let want = format!("[{}, groups of {}]", conv.samples, conv.inputs);
            return Err(Error::shape("conv2d.vjp_normed", want, norm.mean.shape()));
        }
    };
    let key = VjpNormedKey {
        groups,
        stored: conv.dtype,
        conv,
    };
    if !norm.silu || !VJP.agrees_on(&key.conv, &VJP_NORMED, &key, cx) {
        return Ok(None);
    }
    let dx = cx.empty(shape)?;
    let args = [
        Arg::Out(&dx),
        Arg::In(norm.x),
        Arg::In(norm.mean),
        Arg::In(norm.rstd),
        Arg::In(norm.w),
        Arg::In(norm.b),
        Arg::In(dy),
        Arg::In(w),
        Arg::Absent,
    ];
    VJP_NORMED.launch(cx, &key, &args)?;
    Ok(Some(dx))
}

/// The backward passes that the kernels take, in groups of all sizes; one of chunks that are more than a stage, and one of so
/// few pixels that the means are large.
fn all() -> Vec<VjpNormedKey> {
    let mut keys = cases::of(Direction::Vjp);
    keys.retain(|key| three_outputs::fits(&key.half()));
    let any = keys[0].clone();
    let more = [(1, [257, 256], 32, 1), (2, [2, 3], 256, 3)];
    keys.extend(more.map(|(samples, x, inputs, outputs)| Key {
        samples,
        x,
        y: x,
        inputs,
        outputs,
        ..any.clone()
    }));
    let normed = |(i, conv): (usize, Key)| VjpNormedKey {
        groups: [4, 2, 32, 1, 64][i % 5],
        stored: conv.dtype,
        conv,
    };
    keys.into_iter().enumerate().map(normed).collect()
}
