//! The statistics alone, and what each channel is multiplied with and moved by: for a launch that normalises what it reads.

use super::{Key, Params, Saved, cases, cases_of_parts, chunks, key_of, op, plain};
use crate::cx::Cx;
use crate::error::Result;
use crate::ops::conv_norm::{Measured, Normed};
use crate::ops::variant::{Op, Spec, Variant};
use crate::runtime::Arg;

/// `scale, shift, mean, rstd` from `x`, or from moments of its parts.
pub static STATISTICS: Op<Key> = Op {
    name: "group_norm.statistics",
    variants: &[
        Variant::kernels("chunks", chunks::statistics).when(chunks::fits),
        Variant::native("plain", plain::statistics::<f32>, plain::statistics::<f64>),
    ],
    cases: || {
        let alone = |key| Key {
            statistics: true,
            ..key
        };
        let all = cases(false).into_iter().chain(cases_of_parts(false));
        all.map(alone).collect()
    },
};

/// `x` is absent where moments are given.
pub(super) fn args(key: &Key, w: Spec, b: Spec, moments: Spec) -> Vec<Spec> {
    let (channels, stats) = (key.samples * key.c, key.samples * key.groups);
    let given = key.parts > 0;
    vec![
        Spec::out("scale", channels).wide(),
        Spec::out("shift", channels).wide(),
        Spec::out("mean", stats).wide(),
        Spec::out("rstd", stats).wide(),
        Spec::input("x", channels * key.pixels).present(!given),
        w,
        b,
        moments.present(given),
    ]
}

/// Whether [`statistics`] would run the variant that [`forward_measured`](super::forward_measured) runs, which also looks
/// at `x` again: it costs nothing but to leave that away.
///
/// # Errors
/// As [`forward_measured`](super::forward_measured).
pub fn leaves_the_rest(cx: &Cx, x: &Measured, p: Params<'_>) -> Result<bool> {
    let key = key_of(&x.x, x.moments.as_ref(), p)?;
    Ok(key.silu && op(&key).agrees(&STATISTICS, cx, &key))
}

/// What [`forward_measured`](super::forward_measured) does but for the result, which is yet to be made of `x`.
///
/// # Errors
/// As [`forward_measured`](super::forward_measured).
pub fn statistics(cx: &Cx, x: &Measured, p: Params<'_>) -> Result<(Normed, Saved)> {
    let Measured { x, moments } = x;
    let key = Key {
        statistics: true,
        ..key_of(x, moments.as_ref(), p)?
    };
    let of_channels = || cx.empty_wide([key.samples, key.c]);
    let of_groups = || cx.empty_wide([key.samples, key.groups]);
    let (scale, shift) = (of_channels()?, of_channels()?);
    let (mean, rstd) = (of_groups()?, of_groups()?);
    let args = [
        Arg::Out(&scale),
        Arg::Out(&shift),
        Arg::Out(&mean),
        Arg::Out(&rstd),
        if moments.is_some() {
            Arg::Absent
        } else {
            Arg::In(x)
        },
        Arg::In(p.w),
        Arg::In(p.b),
        moments.as_ref().into(),
    ];
    STATISTICS.launch(cx, &key, &args)?;
    let saved = Saved {
        x: cx.keep(x),
        mean: cx.keep(&mean),
        rstd: cx.keep(&rstd),
    };
    let x = x.clone();
    Ok((Normed { x, scale, shift }, saved))
}
