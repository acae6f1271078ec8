//! Backward passes that also make the sums that the group norm before them begins its own with:
//! `kernels/common/summed90.cuh`, and the textbook loops.
//!
//! A part is a tile, 16 x 16 pixels; they are counted row by row.

use rayon::prelude::*;

use super::normed::{rounded, stored_in};
use super::{Direction, Geometry, Key, VJP, vjp_key};
use super::{cases, gathered, kernels, plain};
use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::conv_norm::{Applied, Summed};
use crate::ops::tensor_cores::PATCH;
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch.
#[derive(Clone, Debug)]
pub struct SummedKey {
    /// The convolution, whose input the norm made.
    pub(super) conv: Key,
    /// The groups of the norm.
    pub(super) groups: usize,
    /// Whether a SiLU followed the norm.
    pub(super) silu: bool,
    /// What `dx` is rounded to before it is summed.
    pub(super) stored: DType,
}

impl KeyTrait for SummedKey {
    fn dtype(&self) -> DType {
        self.conv.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.conv.set_dtype(dtype);
        self.stored = stored_in(dtype, self.stored);
    }

    fn args(&self) -> Vec<Spec> {
        let sums = 2 * self.conv.samples * self.groups * parts(self);
        let mut args = self.conv.args();
        args.splice(1..1, of_norm(&self.conv, self.groups));
        args.insert(1, Spec::out("sums", sums).wide());
        args
    }

    fn flops(&self) -> u64 {
        self.conv.flops()
    }

    fn is_mixed(&self) -> bool {
        self.conv.is_mixed()
    }
}

/// Arguments of the norm that made a convolution's input.
pub(super) fn of_norm(conv: &Key, groups: usize) -> [Spec; 5] {
    let (stats, channels) = (conv.samples * groups, conv.inputs);
    [
        Spec::input("x", conv.samples * conv.x[0] * conv.x[1] * channels),
        Spec::input("mean", stats).fill(Fill::Normal(0.1)).wide(),
        Spec::input("rstd", stats).fill(Fill::Positive).wide(),
        Spec::input("norm_w", channels).fill(Fill::Positive).wide(),
        Spec::input("norm_b", channels).wide(),
    ]
}

/// `dx` from `dy`, and the sums of `dxhat` and `dxhat xhat` over the groups of each part, see
/// [`group_norm`](crate::ops::group_norm).
pub static VJP_SUMMED: Op<SummedKey> = Op {
    name: "conv2d.vjp_summed",
    variants: &[
        Variant::on_hopper("halo_128", kernels::summed)
            .when(fits)
            .where_it_pays(|key| kernels::is_worth_a_halo(&key.conv)),
        Variant::native("gathered_gemm", by_gathered::<f32>, by_gathered::<f64>).when(has_parts),
        Variant::native("plain", by_plain::<f32>, by_plain::<f64>).when(has_parts),
    ],
    cases: all,
};

/// Rows and columns of a part.
const PART: [usize; 2] = [2 * PATCH[0], PATCH[1]];

/// Parts of a sample.
fn parts(key: &SummedKey) -> usize {
    let [height, width] = key.conv.x;
    (height / PART[0]) * (width / PART[1])
}

/// Channels of a group.
fn size(key: &SummedKey) -> usize {
    key.conv.inputs / key.groups
}

/// Whether the result has whole groups and whole parts.
pub(super) fn has_parts(key: &SummedKey) -> bool {
    let [height, width] = key.conv.x;
    let whole = height.is_multiple_of(PART[0]) && width.is_multiple_of(PART[1]);
    whole && key.groups > 0 && key.conv.inputs.is_multiple_of(key.groups)
}

/// Groups are halves of 8 channels or more, but within 16.
pub(super) fn fits(key: &SummedKey) -> bool {
    kernels::fits_same_halo(&key.conv) && has_parts(key) && matches!(size(key), 4 | 8 | 16)
}

/// `dx` by `product`, and the sums of what of it is stored.
pub(super) fn by<T: Real>(
    key: &SummedKey,
    args: &mut NativeArgs<'_>,
    product: fn(&Key, &mut NativeArgs<'_>),
) {
    let (dx, sums) = (args.output::<T>(0), args.output::<T>(1));
    product(&key.conv, &mut args.inputs_of(dx, 7));
    let [x, mean, rstd, w, b] = [2, 3, 4, 5, 6].map(|i| args.input::<T>(i));
    let ([height, width], channels) = (key.conv.x, key.conv.inputs);
    let (size, parts, across) = (size(key), parts(key), width / PART[1]);
    let each = |(i, sums): (usize, &mut [T])| {
        let (of_group, part) = (i / parts, i % parts);
        let (n, group) = (of_group / key.groups, of_group % key.groups);
        let mut both = [T::ZERO; 2];
        for pixel in 0..PART[0] * PART[1] {
            let row = part / across * PART[0] + pixel / PART[1];
            let col = part % across * PART[1] + pixel % PART[1];
            for c in group * size..(group + 1) * size {
                let at = ((n * height + row) * width + col) * channels + c;
                let xhat = (x[at] - mean[of_group]) * rstd[of_group];
                let mut dxhat = rounded(Some(key.stored), dx[at]) * w[c];
                if key.silu {
                    dxhat *= (xhat * w[c] + b[c]).silu_slope();
                }
                both[0] += dxhat;
                both[1] += dxhat * xhat;
            }
        }
        sums.copy_from_slice(&both);
    };
    sums.par_chunks_exact_mut(2).enumerate().for_each(each);
}

fn by_gathered<T: Real>(key: &SummedKey, args: &mut NativeArgs<'_>) {
    by::<T>(key, args, gathered::vjp::<T>);
}

fn by_plain<T: Real>(key: &SummedKey, args: &mut NativeArgs<'_>) {
    by::<T>(key, args, plain::vjp::<T>);
}

/// As [`vjp`](super::vjp), with the sums of the backward pass of `norm`, which made the input, where the variant that is
/// taken anyway makes them.
///
/// # Errors
/// As [`vjp`](super::vjp); [`Error::Shape`] when the norm's input is not of that size.
pub fn vjp_summed(
    cx: &Cx,
    w: &Tensor,
    geometry: Geometry,
    size: [usize; 2],
    dy: &Tensor,
    norm: Option<Applied<'_>>,
) -> Result<Summed> {
    let conv = vjp_key(w, geometry, size, dy)?;
    let inputs = [Arg::In(dy), Arg::In(w), Arg::Absent];
    launch(cx, &VJP, &VJP_SUMMED, conv, &inputs, norm)
}

/// Launches the op without sums, or that with them, where there is a norm and they cost no other variant.
pub(super) fn launch(
    cx: &Cx,
    alone: &Op<Key>,
    with_sums: &Op<SummedKey>,
    conv: Key,
    inputs: &[Arg<'_>],
    norm: Option<Applied<'_>>,
) -> Result<Summed> {
    let dx = cx.empty([conv.samples, conv.x[0], conv.x[1], conv.inputs])?;
    if let Some(norm) = norm {
        let key = key_of(&conv, &norm, &dx)?;
        if alone.agrees_on(&conv, with_sums, &key, cx) {
            let sums = cx.empty_wide([conv.samples, key.groups, parts(&key), 2])?;
            let given = [norm.x, norm.mean, norm.rstd, norm.w, norm.b].map(Arg::In);
            let args = [&[Arg::Out(&dx), Arg::Out(&sums)], &given[..], inputs].concat();
            with_sums.launch(cx, &key, &args)?;
            return Ok(Summed {
                dy: dx,
                sums: Some(sums),
            });
        }
    }
    let args = [&[Arg::Out(&dx)], inputs].concat();
    alone.launch(cx, &conv, &args)?;
    Ok(dx.into())
}

/// The key of a launch whose `dx` is the cotangent of what `norm` made.
fn key_of(conv: &Key, norm: &Applied<'_>, dx: &Tensor) -> Result<SummedKey> {
    norm.x.expect_shape("conv2d.vjp_summed", dx.shape())?;
    let &[_, groups] = norm.mean.dims() else {
        let want = format!("[{}, groups]", conv.samples);
        return Err(Error::shape("conv2d.vjp_summed", want, norm.mean.shape()));
    };
    Ok(SummedKey {
        conv: conv.clone(),
        groups,
        silu: norm.silu,
        stored: conv.dtype,
    })
}

/// Groups of all sizes, beyond the last tile's edge, in a part of a unit; a tile a block, as many as take turns several
/// times, one more of one block, and several steps of channels.
pub(super) fn all() -> Vec<SummedKey> {
    let same = Geometry::same(3);
    let any = cases::of(Direction::Vjp).swap_remove(0);
    let sizes = [
        (1, [16, 16], 8, 8, 2),
        (2, [32, 32], 136, 40, 17),
        (3, [16, 48], 48, 24, 3),
        (1, [64, 32], 264, 8, 66),
        (1, [16, 16], 144, 72, 9),
        (2, [32, 32], 40, 200, 5),
    ];
    let key = |(i, (samples, x, inputs, outputs, groups)): (usize, (_, [usize; 2], _, _, _))| {
        let conv = Key {
            samples,
            x,
            y: x,
            inputs,
            outputs,
            k: 3,
            geometry: same,
            bias: i % 2 == 1,
            ..any.clone()
        };
        SummedKey {
            stored: conv.dtype,
            conv,
            groups,
            silu: i != 2,
        }
    };
    sizes.into_iter().enumerate().map(key).collect()
}
