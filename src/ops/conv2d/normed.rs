//! Convolutions of an image that a norm has yet to be applied to: `kernels/common/normed90.cuh`,
//! `kernels/conv2d/fwd_11_three_outputs.cu`, and the textbook loops.

use super::{Direction, Epilogue, FORWARD, Geometry, Key};
use super::{cases, forward_key, gathered, kernels, moments, plain, result, three_outputs};
use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::conv_norm::{Measured, Normed};
use crate::ops::tensor_cores::Tile;
use crate::ops::variant::{Fill, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::Plan;
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// `y` from `x`, and what the norm multiplies it with and moves it by.
pub static FORWARD_NORMED: Op<Key> = Op {
    name: "conv2d.forward_normed",
    variants: &[
        Variant::kernels("three_outputs", three_outputs::forward)
            .when(three_outputs::fits)
            .where_it_pays(three_outputs::has_enough_tiles),
        Variant::on_hopper("halo_128", halo)
            .when(kernels::fits_same_halo)
            .where_it_pays(kernels::is_worth_a_halo),
        Variant::native(
            "gathered_gemm",
            forward_gathered::<f32>,
            forward_gathered::<f64>,
        ),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || all(cases::of(Direction::Forward)),
};

/// The same, and the moments of its groups.
pub static FORWARD_NORMED_MOMENTS: Op<Key> = Op {
    name: "conv2d.forward_normed_moments",
    variants: &[
        Variant::on_hopper("halo_128", halo)
            .when(|key| kernels::fits_same_halo(key) && moments::fits(key, Tile::Halo))
            .where_it_pays(kernels::is_worth_a_halo),
        Variant::native(
            "gathered_gemm",
            moments_gathered::<f32>,
            moments_gathered::<f64>,
        )
        .when(moments::has_parts),
        Variant::native("plain", moments_plain::<f32>, moments_plain::<f64>)
            .when(moments::has_parts),
    ],
    cases: || all(moments::cases(Direction::Forward)),
};

/// Those that the kernels take.
fn all(keys: Vec<Key>) -> Vec<Key> {
    let half = |key: &Key| {
        let key = key.half();
        kernels::fits_same_halo(&key) || three_outputs::fits(&key)
    };
    let normed = |key: Key| Key {
        normed: Some(key.dtype),
        ..key
    };
    keys.into_iter().filter(half).map(normed).collect()
}

/// The arguments after `x`.
pub(super) fn specs(key: &Key) -> [Spec; 2] {
    let each = key.samples * key.inputs;
    [
        Spec::input("norm_scale", each).fill(Fill::Positive).wide(),
        Spec::input("norm_shift", each).wide(),
    ]
}

fn halo(key: &Key) -> Plan {
    kernels::patches("conv2d/fwd_10_normed_halo", key, Tile::Halo)
}

/// Products of `x` and `w`, and what is added to them, to `y`.
type Products<T> = fn(&Key, &mut [T], [&[T]; 2], [Option<&[T]>; 3]);

/// `y` by `products`, where `x` is argument number `at`.
fn forward<T: Real>(
    key: &Key,
    args: &NativeArgs<'_>,
    y: &mut [T],
    at: usize,
    products: Products<T>,
) {
    let [x, scale, shift] = [0, 1, 2].map(|i| args.input::<T>(at + i));
    let w = args.operand::<T>(at + 3).widened();
    let sample = key.x[0] * key.x[1] * key.inputs;
    let normalise = |(i, &x): (usize, &T)| {
        let channel = i / sample * key.inputs + i % key.inputs;
        let u = x * scale[channel] + shift[channel];
        rounded(key.normed, u * u.sigmoid())
    };
    let u: Vec<T> = x.iter().enumerate().map(normalise).collect();
    let added = [4, 5, 6].map(|i| args.optional::<T>(at + i));
    products(key, y, [&u, &w], added);
}

/// What the loops in `dtype` round to where a launch stores in between: in f32 as the launch that they stand for, in f64
/// nothing.
pub(super) fn stored_in(dtype: DType, stored: DType) -> DType {
    match dtype {
        DType::F32 => stored,
        _ => dtype,
    }
}

/// As a launch would store it.
pub(super) fn rounded<T: Real>(stored: Option<DType>, value: T) -> T {
    stored.map_or(value, |dtype| T::of(dtype.nearest(value.f64())))
}

/// The same, and its moments.
fn measured<T: Real>(key: &Key, args: &mut NativeArgs<'_>, products: Products<T>) {
    let (y, moments) = (args.output::<T>(0), args.output::<T>(1));
    forward(key, args, y, 2, products);
    moments::measure(key, y, moments);
}

fn forward_gathered<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let y = args.output::<T>(0);
    forward(key, args, y, 1, gathered::products);
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let y = args.output::<T>(0);
    forward(key, args, y, 1, plain::products);
}

fn moments_gathered<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    measured::<T>(key, args, gathered::products);
}

fn moments_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    measured::<T>(key, args, plain::products);
}

/// Whether [`forward_normed`] would run the variant that [`forward`](super::forward) runs of what the norm made of `x`.
///
/// # Errors
/// As [`forward`](super::forward).
pub fn takes_norm(
    cx: &Cx,
    x: &Tensor,
    w: &Tensor,
    geometry: Geometry,
    add: Epilogue<'_>,
) -> Result<bool> {
    let key = forward_key(x, w, geometry, add, None)?;
    Ok(FORWARD.agrees(&FORWARD_NORMED, cx, &key))
}

/// As [`forward_measured`](super::forward_measured), of `silu(x scale + shift)`.
///
/// # Errors
/// As [`forward`](super::forward); [`Error::Shape`] when the scale or the shift is not `[n, i]`.
pub fn forward_normed(
    cx: &Cx,
    x: &Normed,
    w: &Tensor,
    geometry: Geometry,
    add: Epilogue<'_>,
    groups: Option<usize>,
) -> Result<Measured> {
    let key = Key {
        normed: Some(x.x.dtype()),
        ..forward_key(&x.x, w, geometry, add, groups)?
    };
    for each in [&x.scale, &x.shift] {
        if each.dims() != [key.samples, key.inputs] {
            let want = format!("[{}, {}]", key.samples, key.inputs);
            return Err(Error::shape("conv2d.forward_normed", want, each.shape()));
        }
    }
    let y = result(cx, &key)?;
    let inputs = [
        Arg::In(&x.x),
        Arg::In(&x.scale),
        Arg::In(&x.shift),
        Arg::In(w),
        add.bias.into(),
        add.shift.into(),
        add.residual.into(),
    ];
    moments::launch(
        cx,
        [&FORWARD_NORMED, &FORWARD_NORMED_MOMENTS],
        key,
        y,
        &inputs,
    )
}
