//! Backward passes of a cotangent that has yet to go through the norm behind the convolution: `kernels/common/through90.cuh`,
//! and the textbook loops.

use super::normed::rounded;
use super::summed::{self, SummedKey};
use super::{Direction, Geometry, Key, VJP, vjp_key};
use super::{cases, gathered, kernels, plain};
use crate::cx::Cx;
use crate::dtype::Real;
use crate::error::{Error, Result};
use crate::ops::conv_norm::{Applied, Summed, Through};
use crate::ops::tensor_cores::Tile;
use crate::ops::variant::{Fill, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// `dx` from `dy`, the norm's input, and what its backward pass makes of them.
pub static VJP_THROUGH: Op<Key> = Op {
    name: "conv2d.vjp_through",
    variants: &[
        Variant::on_hopper("halo_128", |key| {
            kernels::patches("conv2d/vjp_12_through_halo", key, Tile::Halo)
        })
        .when(kernels::fits_same_halo)
        .where_it_pays(kernels::is_worth_a_halo),
        Variant::native("gathered_gemm", by_gathered::<f32>, by_gathered::<f64>),
        Variant::native("plain", by_plain::<f32>, by_plain::<f64>),
    ],
    cases: || {
        let all = cases::of(Direction::Vjp).into_iter().map(through);
        all.filter(|key| kernels::fits_same_halo(&key.half()))
            .collect()
    },
};

/// The same, and the sums of the norm before, as [`VJP_SUMMED`](super::VJP_SUMMED).
pub static VJP_THROUGH_SUMMED: Op<SummedKey> = Op {
    name: "conv2d.vjp_through_summed",
    variants: &[
        Variant::on_hopper("halo_128", kernels::summed)
            .when(summed::fits)
            .where_it_pays(|key| kernels::is_worth_a_halo(&key.conv)),
        Variant::native(
            "gathered_gemm",
            summed_by_gathered::<f32>,
            summed_by_gathered::<f64>,
        )
        .when(summed::has_parts),
        Variant::native("plain", summed_by_plain::<f32>, summed_by_plain::<f64>)
            .when(summed::has_parts),
    ],
    cases: || {
        let with = |key: SummedKey| SummedKey {
            conv: through(key.conv),
            ..key
        };
        summed::all().into_iter().map(with).collect()
    },
};

/// The key of a cotangent that has yet to go through a norm.
fn through(key: Key) -> Key {
    Key {
        normed: Some(key.dtype),
        ..key
    }
}

/// The arguments after `dy`.
pub(super) fn specs(key: &Key) -> [Spec; 5] {
    let each = key.samples * key.outputs;
    [
        Spec::input("through_x", each * key.y[0] * key.y[1]),
        Spec::input("scale", each).fill(Fill::Positive).wide(),
        Spec::input("shift", each).wide(),
        Spec::input("slope", each).fill(Fill::Normal(0.1)).wide(),
        Spec::input("offset", each).fill(Fill::Normal(0.1)).wide(),
    ]
}

/// `dx` by `products`.
fn vjp<T: Real>(key: &Key, args: &mut NativeArgs<'_>, products: plain::VjpProducts<T>) {
    let dx = args.output::<T>(0);
    let [dy, x, scale, shift, slope, offset] = [1, 2, 3, 4, 5, 6].map(|i| args.input::<T>(i));
    let w = args.operand::<T>(7).widened();
    let sample = key.y[0] * key.y[1] * key.outputs;
    let made = |(i, (&dy, &x)): (usize, (&T, &T))| {
        let c = i / sample * key.outputs + i % key.outputs;
        let du = dy * (x * scale[c] + shift[c]).silu_slope();
        rounded(key.normed, du * scale[c] + (x * slope[c] + offset[c]))
    };
    let d: Vec<T> = dy.iter().zip(x).enumerate().map(made).collect();
    products(key, dx, [&d, &w], args.optional::<T>(8));
}

fn by_gathered<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    vjp::<T>(key, args, gathered::vjp_products);
}

fn by_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    vjp::<T>(key, args, plain::vjp_products);
}

fn summed_by_gathered<T: Real>(key: &SummedKey, args: &mut NativeArgs<'_>) {
    summed::by::<T>(key, args, by_gathered::<T>);
}

fn summed_by_plain<T: Real>(key: &SummedKey, args: &mut NativeArgs<'_>) {
    summed::by::<T>(key, args, by_plain::<T>);
}

/// Whether [`vjp_through`] would run the variant that [`vjp`](super::vjp) runs of what the norm makes of `dy`.
///
/// # Errors
/// As [`vjp`](super::vjp).
pub fn takes_through(
    cx: &Cx,
    w: &Tensor,
    geometry: Geometry,
    size: [usize; 2],
    dy: &Tensor,
) -> Result<bool> {
    let key = vjp_key(w, geometry, size, dy)?;
    Ok(VJP.agrees(&VJP_THROUGH, cx, &key))
}

/// As [`vjp_summed`](super::vjp_summed), of what the norm behind makes of its cotangent.
///
/// # Errors
/// As [`vjp`](super::vjp); [`Error::Shape`] when a part of `dy` is not of its size.
pub fn vjp_through(
    cx: &Cx,
    w: &Tensor,
    geometry: Geometry,
    size: [usize; 2],
    dy: &Through,
    norm: Option<Applied<'_>>,
) -> Result<Summed> {
    let key = through(vjp_key(w, geometry, size, &dy.dy)?);
    dy.x.expect_shape("conv2d.vjp_through", dy.dy.shape())?;
    let of_channels = [&dy.scale, &dy.shift, &dy.slope, &dy.offset];
    for each in of_channels {
        if each.dims() != [key.samples, key.outputs] {
            let want = format!("[{}, {}]", key.samples, key.outputs);
            return Err(Error::shape("conv2d.vjp_through", want, each.shape()));
        }
    }
    let inputs = [
        Arg::In(&dy.dy),
        Arg::In(&dy.x),
        Arg::In(&dy.scale),
        Arg::In(&dy.shift),
        Arg::In(&dy.slope),
        Arg::In(&dy.offset),
        Arg::In(w),
        Arg::Absent,
    ];
    summed::launch(cx, &VJP_THROUGH, &VJP_THROUGH_SUMMED, key, &inputs, norm)
}
