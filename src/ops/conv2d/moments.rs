//! Moments of the groups of a result, beside it: `kernels/common/moments90.cuh`, and the textbook loops.
//!
//! A part is 64 pixels, 4 x 16 of the result or of one phase of it: half a patch. Parts are counted phase by phase, then
//! row by row of patches.

use rayon::prelude::*;

use super::kernels;
use super::{Direction, Geometry, Key, gathered, plain};
use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::conv_norm::Measured;
use crate::ops::tensor_cores::{PATCH, Tile};
use crate::ops::variant::{Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// `y` from `x`, and the moments of its groups.
pub static FORWARD_MOMENTS: Op<Key> = Op {
    name: "conv2d.forward_moments",
    variants: &[
        Variant::on_hopper("halo_128", |key| {
            kernels::patches("conv2d/fwd_9_halo", key, Tile::Halo)
        })
        .when(|key| kernels::fits_halo(key) && fits(key, Tile::Halo))
        .where_it_pays(kernels::is_worth_a_halo),
        Variant::on_hopper("tma_256", |key| {
            kernels::patches("conv2d/fwd_8_tma", key, Tile::WidePatches)
        })
        .when(|key| fits(key, Tile::WidePatches))
        .where_it_pays(kernels::is_wide),
        Variant::on_hopper("tma_128", |key| {
            kernels::patches("conv2d/fwd_8_tma", key, Tile::Patches)
        })
        .when(|key| fits(key, Tile::Patches))
        .where_it_pays(kernels::is_large),
        Variant::native(
            "gathered_gemm",
            forward_gathered::<f32>,
            forward_gathered::<f64>,
        )
        .when(has_parts),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>).when(has_parts),
    ],
    cases: || cases(Direction::Forward),
};

/// `dx` from `dy`, and the moments of its groups: of a transposed convolution.
pub static VJP_MOMENTS: Op<Key> = Op {
    name: "conv2d.vjp_moments",
    variants: &[
        Variant::on_hopper("halo_128", |key| {
            kernels::patches("conv2d/vjp_10_halo", key, Tile::Halo)
        })
        .when(|key| kernels::fits_halo(key) && fits(key, Tile::Halo))
        .where_it_pays(kernels::is_worth_a_halo),
        Variant::on_hopper("tma_256", |key| {
            kernels::patches("conv2d/vjp_9_tma", key, Tile::WidePatches)
        })
        .when(|key| fits(key, Tile::WidePatches))
        .where_it_pays(kernels::is_wide),
        Variant::on_hopper("tma_128", |key| {
            kernels::patches("conv2d/vjp_9_tma", key, Tile::Patches)
        })
        .when(|key| fits(key, Tile::Patches))
        .where_it_pays(kernels::is_large),
        Variant::native("gathered_gemm", vjp_gathered::<f32>, vjp_gathered::<f64>).when(has_parts),
        Variant::native("plain", vjp_plain::<f32>, vjp_plain::<f64>).when(has_parts),
    ],
    cases: || cases(Direction::Vjp),
};

/// Pixels of a part.
const PART: usize = PATCH[0] * PATCH[1] / 2;

/// Parts of a sample.
pub(super) fn parts(key: &Key) -> usize {
    kernels::of_sample(key)[0] / PART
}

/// The output `[n, groups, parts, 2]`.
pub(super) fn spec(key: &Key) -> Spec {
    Spec::out("moments", key.samples * key.groups * parts(key) * 2).wide()
}

/// Channels of a group.
pub(super) fn size(key: &Key) -> usize {
    kernels::of_sample(key)[1] / key.groups
}

/// Whether the result has whole groups and whole parts.
pub(super) fn has_parts(key: &Key) -> bool {
    let channels = kernels::of_sample(key)[1];
    key.groups > 0 && channels.is_multiple_of(key.groups) && kernels::has_patches(key)
}

/// Whether groups are whole units of 1/32 of a tile's columns, so many that halves of them join, and in one tile.
pub(super) fn fits(key: &Key, tile: Tile) -> bool {
    let cols = tile.cols() as usize;
    let are_units = || size(key).is_power_of_two() && (cols / 32..=cols).contains(&size(key));
    kernels::fits_patches(key) && has_parts(key) && are_units()
}

/// The part that a pixel of the result is in.
fn part_of(key: &Key, pixel: usize) -> usize {
    let ([height, width], stride) = match key.direction {
        Direction::Vjp => (key.x, key.geometry.stride),
        _ => (key.y, 1),
    };
    let (row, col) = (pixel / width, pixel % width);
    let phase = row % stride * stride + col % stride;
    let (row, col) = (row / stride, col / stride);
    let across = width / stride / PATCH[1];
    let of_phase = height / stride / PATCH[0] * across;
    let patch = phase * of_phase + row / PATCH[0] * across + col / PATCH[1];
    2 * patch + row % PATCH[0] / (PATCH[0] / 2)
}

/// The moments of a result.
pub(super) fn measure<T: Real>(key: &Key, y: &[T], moments: &mut [T]) {
    let ([pixels, channels], size, parts) = (kernels::of_sample(key), size(key), parts(key));
    let mut of_part = vec![Vec::with_capacity(PART); parts];
    (0..pixels).for_each(|pixel| of_part[part_of(key, pixel)].push(pixel));
    let count = T::of((PART * size) as f64);
    let each = |(i, moments): (usize, &mut [T])| {
        let (n, group) = (i / parts / key.groups, i / parts % key.groups);
        let values = || {
            let row = |&pixel: &usize| &y[(n * pixels + pixel) * channels + group * size..][..size];
            of_part[i % parts].iter().flat_map(row).copied()
        };
        let mean = values().sum::<T>() / count;
        let squares = values().map(|v| (v - mean) * (v - mean)).sum::<T>();
        moments.copy_from_slice(&[mean, squares]);
    };
    moments.par_chunks_exact_mut(2).enumerate().for_each(each);
}

/// `y` by `product`, and its moments.
fn measured<T: Real>(key: &Key, args: &mut NativeArgs<'_>, product: fn(&Key, &mut NativeArgs<'_>)) {
    let (y, moments) = (args.output::<T>(0), args.output::<T>(1));
    product(key, &mut args.inputs_of(y, 2));
    measure(key, y, moments);
}

pub(super) fn forward_gathered<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    measured::<T>(key, args, gathered::forward::<T>);
}

pub(super) fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    measured::<T>(key, args, plain::forward::<T>);
}

pub(super) fn vjp_gathered<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    measured::<T>(key, args, gathered::vjp::<T>);
}

pub(super) fn vjp_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    measured::<T>(key, args, plain::vjp::<T>);
}

/// Launches the op without moments, or that with them, where they are asked for and cost no other variant.
pub(super) fn launch(
    cx: &Cx,
    [alone, with_moments]: [&Op<Key>; 2],
    mut key: Key,
    y: Tensor,
    inputs: &[Arg<'_>],
) -> Result<Measured> {
    if key.groups == 0 || !alone.agrees(with_moments, cx, &key) {
        key.groups = 0;
        let args = [&[Arg::Out(&y)], inputs].concat();
        alone.launch(cx, &key, &args)?;
        return Ok(y.into());
    }
    let moments = cx.empty_wide([key.samples, key.groups, parts(&key), 2])?;
    let args = [&[Arg::Out(&y), Arg::Out(&moments)], inputs].concat();
    with_moments.launch(cx, &key, &args)?;
    Ok(Measured {
        x: y,
        moments: Some(moments),
    })
}

/// Groups of one unit and of several, beyond the last tile's edge, several parts and phases, and more tiles than blocks,
/// of few steps.
pub(super) fn cases(direction: Direction) -> Vec<Key> {
    let halving = Geometry {
        stride: 2,
        before: 1,
        after: 1,
    };
    // Of the result: its size, the channels that it is made of, its own, their groups.
    let all = match direction {
        Direction::Vjp => vec![
            (2, [16, 32], 24, 128, 4, halving, 32),
            (1, [16, 64], 16, 264, 4, halving, 33),
            (3, [16, 32], 8, 256, 4, halving, 16),
            (2, [8, 32], 16, 32, 3, Geometry::same(3), 2),
            (1, [32, 32], 16, 136, 4, halving, 17),
        ],
        _ => vec![
            (3, [8, 16], 72, 136, 3, Geometry::same(3), 17),
            (2, [16, 32], 24, 128, 3, Geometry::same(3), 32),
            (1, [16, 16], 136, 512, 1, Geometry::same(1), 32),
            (4, [16, 32], 8, 256, 1, Geometry::same(1), 8),
            (2, [32, 32], 16, 72, 3, Geometry::same(3), 18),
        ],
    };
    type Sizes = (usize, [usize; 2], usize, usize, usize, Geometry, usize);
    let key = |(i, (samples, size, depth, channels, k, geometry, groups)): (usize, Sizes)| {
        let small = |size: usize| geometry.out(size, k).expect("the cases are large enough");
        let (x, y, inputs, outputs) = match direction {
            Direction::Vjp => (size, size.map(small), channels, depth),
            _ => (size, size, depth, channels),
        };
        let forward = direction == Direction::Forward;
        Key {
            dtype: DType::F32,
            samples,
            x,
            y,
            inputs,
            outputs,
            k,
            geometry,
            bias: i % 2 == 0,
            shift: forward && i % 3 == 0,
            residual: forward && i % 4 != 2,
            wide: false,
            direction,
            groups,
            normed: None,
            narrow: None,
        }
    };
    all.into_iter().enumerate().map(key).collect()
}
