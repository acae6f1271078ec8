//! What the backward pass makes of each channel, alone: for a launch that takes the cotangent through the norm by itself.

use super::{Key, Params, Saved, VJP_FROM_SUMS, cases_of_parts, chunks, key, parts_of, plain};
use crate::cx::Cx;
use crate::error::Result;
use crate::ops::conv_norm::{Summed, Through};
use crate::ops::variant::{Fill, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::tensor::Tensor;

/// `scale, shift, slope, offset` from the statistics and the sums of a cotangent's parts.
pub static VJP_COEFFICIENTS: Op<Key> = Op {
    name: "group_norm.vjp_coefficients",
    variants: &[
        Variant::kernels("chunks", chunks::vjp_coefficients).when(chunks::fits),
        Variant::native(
            "plain",
            plain::vjp_coefficients::<f32>,
            plain::vjp_coefficients::<f64>,
        ),
    ],
    cases: || {
        let alone = |key| Key {
            statistics: true,
            ..key
        };
        cases_of_parts(true).into_iter().map(alone).collect()
    },
};

/// The arguments of a backward pass.
pub(super) fn args(key: &Key, w: Spec, b: Spec) -> Vec<Spec> {
    let (channels, stats) = (key.samples * key.c, key.samples * key.groups);
    vec![
        Spec::out("scale", channels).wide(),
        Spec::out("shift", channels).wide(),
        Spec::out("slope", channels).wide(),
        Spec::out("offset", channels).wide(),
        Spec::input("mean", stats).fill(Fill::Normal(0.1)).wide(),
        Spec::input("rstd", stats).fill(Fill::Positive).wide(),
        w,
        b,
        Spec::input("sums", stats * key.parts * 2).wide(),
    ]
}

/// The key of a backward pass by these sums.
fn key_of(x: &Tensor, sums: &Tensor, p: Params<'_>) -> Result<Key> {
    let mut key = Key {
        backward: true,
        ..key(x, p)?
    };
    key.parts = parts_of(&key, sums, "group_norm.vjp_coefficients, sums")?;
    Ok(key)
}

/// Whether [`coefficients`] would run the variant that [`vjp_summed`](super::vjp_summed) runs, which also makes the
/// cotangent of the norm's input: it costs nothing but to leave that away. Never without sums.
///
/// # Errors
/// As [`vjp_summed`](super::vjp_summed).
pub fn leaves_the_rest_of_vjp(cx: &Cx, saved: &Saved, p: Params<'_>, dy: &Summed) -> Result<bool> {
    let Some(sums) = &dy.sums else {
        return Ok(false);
    };
    let key = key_of(saved.x.get()?, sums, p)?;
    Ok(key.silu && VJP_FROM_SUMS.agrees(&VJP_COEFFICIENTS, cx, &key))
}

/// What [`vjp_summed`](super::vjp_summed) does by `sums` but for the result, which is yet to be made of `dy`. Consumes what
/// was saved.
///
/// # Errors
/// As [`vjp_summed`](super::vjp_summed).
pub fn coefficients(
    cx: &Cx,
    saved: Saved,
    p: Params<'_>,
    dy: Tensor,
    sums: &Tensor,
) -> Result<Through> {
    let x = saved.x.get()?.clone();
    dy.expect_shape("group_norm.vjp_coefficients", x.shape())?;
    let key = Key {
        statistics: true,
        ..key_of(&x, sums, p)?
    };
    let of_channels = || cx.empty_wide([key.samples, key.c]);
    let (scale, shift) = (of_channels()?, of_channels()?);
    let (slope, offset) = (of_channels()?, of_channels()?);
    let args = [
        Arg::Out(&scale),
        Arg::Out(&shift),
        Arg::Out(&slope),
        Arg::Out(&offset),
        Arg::In(saved.mean.get()?),
        Arg::In(saved.rstd.get()?),
        Arg::In(p.w),
        Arg::In(p.b),
        Arg::In(sums),
    ];
    VJP_COEFFICIENTS.launch(cx, &key, &args)?;
    Ok(Through {
        dy,
        x,
        scale,
        shift,
        slope,
        offset,
    })
}
