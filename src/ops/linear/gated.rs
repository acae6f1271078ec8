//! The backward pass of a map and of the GEGLU that made its input, in one launch: `dh = dy w`, `da = dh g Phi(g)`,
//! `dg = dh a (Phi(g) + g phi(g))`, with `x = [a, g]` and `dx = [da, dg]` split in half along the last dimension.
//!
//! `dh: [n, .., k]`, as wide as half of `x: [n, .., 2k]`, is never in memory, nor rounded: `kernels/common/geglu.cuh`. Depths
//! are not cut: what would be is left apart.

use rayon::prelude::*;

use super::kernels::{boxes, fits_boxes, fits_tiles, gated, is_large, is_wide, plain_gated};
use super::native::{block_rows, per_sample_blocks};
use super::{Key, VJP, key};
use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::tensor_cores::Tile;
use crate::ops::variant::{Op, Variant};
use crate::runtime::Arg;
use crate::runtime::gemm::{Mat, gemm};
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::wide;
use crate::tensor::Tensor;

/// `dx` from `dy`, through the map and the GEGLU before it.
pub static VJP_GEGLU: Op<Key> = Op {
    name: "linear.vjp_geglu",
    variants: &[
        Variant::on_hopper("tma_256", |key| {
            boxes("linear/vjp_10_geglu_tma", key, Tile::WidePatches)
        })
        .when(fits_boxes)
        .where_it_pays(is_wide),
        Variant::on_hopper("wgmma_256", |key| {
            gated("linear/vjp_9_geglu_wgmma", key, Tile::WideWarpgroups)
        })
        .when(fits_tiles)
        .where_it_pays(is_wide),
        Variant::on_hopper("tma_128", |key| {
            boxes("linear/vjp_10_geglu_tma", key, Tile::Patches)
        })
        .when(fits_boxes)
        .where_it_pays(is_large),
        Variant::on_hopper("wgmma_128", |key| {
            gated("linear/vjp_9_geglu_wgmma", key, Tile::Warpgroups)
        })
        .when(fits_tiles)
        .where_it_pays(is_large),
        Variant::kernels("tensor_cores_128", |key| {
            gated("linear/vjp_8_geglu_tensor_cores", key, Tile::Large)
        })
        .when(fits_tiles)
        .where_it_pays(is_large),
        Variant::kernels("tensor_cores_64", |key| {
            gated("linear/vjp_8_geglu_tensor_cores", key, Tile::Small)
        })
        .when(fits_tiles),
        Variant::kernels("plain", |key| plain_gated("linear/vjp_7_geglu_plain", key)),
        Variant::native("gemm", by_gemm::<f32>, by_gemm::<f64>),
        Variant::native("plain", plain::<f32>, plain::<f64>),
    ],
    cases,
};

fn cases() -> Vec<Key> {
    let sizes = [
        (1, 1, 1, 1),
        (2, 1, 33, 31),
        (3, 77, 32, 40),
        (1, 113, 203, 65),
        (2, 70, 136, 88),
        (1, 130, 24, 200),
        // More than one tile of each kind either way, and more steps than stages.
        (2, 130, 264, 280),
    ];
    let case = |(samples, rows, k, m)| Key {
        dtype: DType::F32,
        samples,
        rows,
        k,
        m,
        parts: 1,
        narrow: [None; 3],
        bias: false,
        residual: false,
        backward: true,
        geglu: true,
    };
    let mut cases = sizes.map(case).to_vec();
    for narrow in [DType::F16, DType::Bf16] {
        cases.push(Key {
            narrow: [Some(narrow), None, None],
            ..cases[2].clone()
        });
    }
    cases
}

/// Whether [`vjp_geglu`] would run the variant that [`vjp`](super::vjp) runs of `dy`.
///
/// # Errors
/// As [`vjp`](super::vjp).
pub fn takes_geglu(cx: &Cx, w: &Tensor, dy: &Tensor) -> Result<bool> {
    Ok(VJP.agrees(&VJP_GEGLU, cx, &gated_key(w, dy)?))
}

/// The cotangent of `x: [n, .., 2k]` from `dy`, that of the map's result, where GEGLU made the map's input of `x`.
///
/// # Errors
/// As [`vjp`](super::vjp); [`Error::Shape`](crate::Error::Shape) when `x` is not twice as wide as `w`, of `dy`'s rows.
pub fn vjp_geglu(cx: &Cx, w: &Tensor, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let key = gated_key(w, dy)?;
    x.expect_shape("linear.vjp_geglu", dy.shape().with_channels(2 * key.k))?;
    let dx = cx.empty(x.shape())?;
    let args = [Arg::Out(&dx), Arg::In(dy), Arg::In(w), Arg::In(x)];
    VJP_GEGLU.launch(cx, &key, &args)?;
    Ok(dx)
}

fn gated_key(w: &Tensor, dy: &Tensor) -> Result<Key> {
    Ok(Key {
        geglu: true,
        ..key(dy, &[w], 0, false, false)?
    })
}

fn plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, x) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(3));
    let w = args.operand::<T>(key.weights_at()).widened();
    for i in 0..key.samples * key.rows * key.k {
        let (row, l) = (i / key.k, i % key.k);
        let mut dh = T::ZERO;
        for j in 0..key.m {
            dh += dy[row * key.m + j] * w[j * key.k + l];
        }
        let at = row * 2 * key.k + l;
        let (a, g) = (x[at], x[at + key.k]);
        dx[at] = dh * g.gelu();
        dx[at + key.k] = dh * a * g.gelu_slope();
    }
}

/// Block by block of rows, whose `dh` stays in the cache.
fn by_gemm<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, x) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(3));
    let w = args.operand::<T>(key.weights_at()).widened();
    let w = Mat::rows(&w, key.m, key.k, key.k);
    let width = 2 * key.k;
    let blocks = per_sample_blocks(dx, key.rows * width, block_rows(key) * width);
    blocks.for_each(|(start, dx)| {
        let rows = dx.len() / width;
        let dy = &dy[start / width * key.m..][..rows * key.m];
        let mut dh = vec![T::ZERO; rows * key.k];
        gemm(&mut dh, key.k, false, Mat::rows(dy, rows, key.m, key.m), w);
        wide(
            #[inline(always)]
            || through_geglu(dx, &dh, &x[start..][..rows * width], key.k),
        );
    });
}

/// Rows of `[da, dg]` from those of `dh: [.., k]` and `[a, g]`.
#[inline(always)]
fn through_geglu<T: Real>(dx: &mut [T], dh: &[T], x: &[T], k: usize) {
    let rows = dx.chunks_exact_mut(2 * k).zip(x.chunks_exact(2 * k));
    for ((dx, x), dh) in rows.zip(dh.chunks_exact(k)) {
        let ((da, dg), (a, g)) = (dx.split_at_mut(k), x.split_at(k));
        let slopes = da.iter_mut().zip(dg).zip(a.iter().zip(g));
        for (((da, dg), (&a, &g)), &dh) in slopes.zip(dh) {
            *da = dh * g.gelu();
            *dg = dh * a * g.gelu_slope();
        }
    }
}
