//! Group normalisation, with SiLU fused when asked for.
//!
//! Over each sample's pixels and each of `groups` runs of channels: `xhat = (x - mean) rstd`,
//! `u = xhat w + b`, `y = u` or `y = u sigmoid(u)`. `x: [n, .., c]`, `w, b: [c]`,
//! `mean, rstd: [n, groups]`, `rstd = 1 / sqrt(var + eps)` with the biased variance. The backward pass adds a `residual`
//! like `x`, if there is one: the cotangent that reaches `x` past the norm.
//!
//! Where the launch that wrote `x` left moments of its parts ([`Measured`]), the statistics are made of these. Where the one
//! that reads `y` can make it of `x` by itself ([`Normed`](crate::ops::conv_norm::Normed)), they are all that is made.
//!
//! `dx = rstd (dxhat - m1 - xhat m2) + residual`, `m1 = mean(dxhat)`, `m2 = mean(dxhat xhat)` over the group, with
//! `dxhat = du w`, and `du = dy`, or `dy` times the slope of SiLU at `u`. Where the launch that wrote `dy` left the sums of
//! `dxhat` and `dxhat xhat` over its parts ([`Summed`]), the means are made of these. Where the one that reads `dx` can make it of `dy`
//! and `x` by itself ([`Through`](crate::ops::conv_norm::Through)), what it takes for that is all that is made.

mod blocks;
mod chunks;
mod cluster;
mod coefficients;
mod plain;
mod resident;
mod statistics;
mod wgrad;

pub use coefficients::{VJP_COEFFICIENTS, coefficients, leaves_the_rest_of_vjp};
pub use statistics::{STATISTICS, leaves_the_rest, statistics};
pub use wgrad::{WGRAD, wgrad};

use crate::cx::{Cx, Kept};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::conv_norm::{Applied, Measured, Summed};
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::Launch;
use crate::tensor::Tensor;

/// One launch.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    pixels: usize,
    c: usize,
    groups: usize,
    eps: f64,
    silu: bool,
    residual: bool,
    backward: bool,
    /// Parts of a sample of which moments are given, or the sums of a backward pass; 0: none are.
    parts: usize,
    /// Nothing but the statistics, and what they make of each channel; backward, nothing but the latter.
    statistics: bool,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let (x, stats) = (
            self.samples * self.pixels * self.c,
            self.samples * self.groups,
        );
        let w = Spec::input("w", self.c).fill(Fill::Positive).wide();
        let b = Spec::input("b", self.c).wide();
        let moments = Spec::input("moments", stats * self.parts * 2)
            .fill(Fill::Positive)
            .wide();
        match (self.statistics, self.backward) {
            (true, true) => return coefficients::args(self, w, b),
            (true, false) => return statistics::args(self, w, b, moments),
            (false, _) => {}
        }
        if self.backward {
            let mut args = vec![
                Spec::out("dx", x),
                Spec::input("dy", x),
                Spec::input("x", x),
                Spec::input("mean", stats).fill(Fill::Normal(0.1)).wide(),
                Spec::input("rstd", stats).fill(Fill::Positive).wide(),
                w,
                b,
                Spec::input("residual", x).present(self.residual),
            ];
            if self.parts > 0 {
                args.push(Spec::input("sums", stats * self.parts * 2).wide());
            }
            return args;
        }
        let mut args = vec![
            Spec::out("y", x),
            Spec::out("mean", stats).wide(),
            Spec::out("rstd", stats).wide(),
            Spec::input("x", x),
            w,
            b,
        ];
        if self.parts > 0 {
            args.push(moments);
        }
        args
    }

    fn flops(&self) -> u64 {
        let (per_element, elements) = match (self.backward, self.statistics, self.parts) {
            (true, true, parts) => (2, parts * self.groups),
            (true, _, 0) => (20, self.pixels * self.c),
            (true, ..) => (10, self.pixels * self.c),
            (false, true, 0) => (5, self.pixels * self.c),
            (false, true, parts) => (10, parts * self.groups),
            (false, false, _) => (10, self.pixels * self.c),
        };
        per_element * (self.samples * elements) as u64
    }
}

/// `y, mean, rstd` from `x`.
pub static FORWARD: Op<Key> = Op {
    name: "group_norm.forward",
    variants: &[
        Variant::on_hopper("cluster", cluster::forward)
            .when(cluster::fits)
            .where_it_pays(cluster::pays),
        Variant::kernels("resident", resident::forward).when(resident::fits),
        Variant::kernels("chunks", chunks::forward).when(chunks::fits),
        Variant::kernels("plain", |key| {
            let grid = [key.groups, key.samples, 1];
            Launch::new("group_norm/fwd_1_plain", key.dtype, grid, 256)
                .ints([key.pixels, key.c, key.groups, usize::from(key.silu)])
                .floats([key.eps])
                .into()
        }),
        Variant::native("blocks", blocks::forward::<f32>, blocks::forward::<f64>),
        Variant::native("plain", plain::forward::<f32>, plain::forward::<f64>),
    ],
    cases: || cases(false),
};

/// The same with the statistics from moments of parts of `x`, which is read once.
pub static FROM_MOMENTS: Op<Key> = Op {
    name: "group_norm.from_moments",
    variants: &[
        Variant::kernels("chunks", chunks::from_moments).when(chunks::fits),
        Variant::native(
            "plain",
            plain::from_moments::<f32>,
            plain::from_moments::<f64>,
        ),
    ],
    cases: || cases_of_parts(false),
};

/// `dx` from `dy` and `residual`.
pub static VJP: Op<Key> = Op {
    name: "group_norm.vjp",
    variants: &[
        Variant::on_hopper("cluster", cluster::vjp)
            .when(cluster::fits)
            .where_it_pays(cluster::pays),
        Variant::kernels("resident", resident::vjp).when(resident::fits),
        Variant::kernels("chunks", chunks::vjp).when(chunks::fits),
        Variant::kernels("plain", |key| {
            let grid = [key.groups, key.samples, 1];
            Launch::new("group_norm/vjp_1_plain", key.dtype, grid, 256)
                .ints([key.pixels, key.c, key.groups, usize::from(key.silu)])
                .into()
        }),
        Variant::native("blocks", blocks::vjp::<f32>, blocks::vjp::<f64>),
        Variant::native("plain", plain::vjp::<f32>, plain::vjp::<f64>),
    ],
    cases: || cases(true),
};

/// The same from sums of parts of `dy`, which is read once, as `x` is.
pub static VJP_FROM_SUMS: Op<Key> = Op {
    name: "group_norm.vjp_from_sums",
    variants: &[
        Variant::kernels("chunks", chunks::vjp_from_sums).when(chunks::fits),
        Variant::native(
            "plain",
            plain::vjp_from_sums::<f32>,
            plain::vjp_from_sums::<f64>,
        ),
    ],
    cases: || cases_of_parts(true),
};

fn cases(backward: bool) -> Vec<Key> {
    let sizes = [
        (1, 1, 2, 1),
        (2, 31, 30, 1),
        (3, 77, 24, 24),
        (1, 113 * 9, 96, 32),
        (2, 300, 40, 8),
        (1, 50, 320, 32),
        (2, 131, 320, 32),
        (3, 9, 24, 1),
        (1, 70, 8, 8),
        (1, 5, 2560, 32),
        (1, 2_100, 8, 2),
        (2, 33, 64, 8),
        (1, 1_033, 1_032, 4),
        // A group of exactly the memory that a block has without asking.
        (1, 1_536, 16, 1),
        (2, 3, 1_024, 64),
    ];
    let key = |(i, (samples, pixels, c, groups)): (usize, (usize, usize, usize, usize))| Key {
        dtype: DType::F32,
        samples,
        pixels,
        c,
        groups,
        eps: 1e-5,
        silu: i % 2 == 1,
        residual: backward && i % 3 == 0,
        backward,
        parts: 0,
        statistics: false,
    };
    sizes.into_iter().enumerate().map(key).collect()
}

/// Few parts, and as many as take several warps.
fn cases_of_parts(backward: bool) -> Vec<Key> {
    let sizes = [
        (1, 64, 8, 1, 1),
        (3, 130, 24, 3, 10),
        (2, 300, 32, 8, 300),
        (2, 1_033, 40, 5, 1_033),
        (1, 4_099, 8, 2, 4_099),
    ];
    let key = |(i, (samples, pixels, c, groups, parts))| Key {
        dtype: DType::F32,
        samples,
        pixels,
        c,
        groups,
        eps: 1e-5,
        silu: i % 2 == 1,
        residual: backward && i % 3 == 0,
        backward,
        parts,
        statistics: false,
    };
    sizes.into_iter().enumerate().map(key).collect()
}

/// For the number of parts before it is known: variants take any.
const ANY: usize = 1;

/// What the backward pass needs: the input and its statistics.
#[derive(Debug)]
pub struct Saved {
    x: Kept,
    mean: Kept,
    rstd: Kept,
}

/// The affine parameters and settings of one normalisation.
#[derive(Clone, Copy, Debug)]
pub struct Params<'a> {
    /// Scale, `[c]`.
    pub w: &'a Tensor,
    /// Shift, `[c]`.
    pub b: &'a Tensor,
    /// How many groups the channels fall into.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Whether `y = u sigmoid(u)`.
    pub silu: bool,
}

/// Normalises `x`.
///
/// # Errors
/// [`Error::Shape`] when the channels are not `w`'s, or not a multiple of `groups`.
pub fn forward(cx: &Cx, x: &Tensor, p: Params<'_>) -> Result<(Tensor, Saved)> {
    normalise(cx, x, None, p)
}

/// Normalises `x` by its moments, if there are any.
///
/// # Errors
/// As [`forward`]; [`Error::Shape`] when the moments are not those of `groups` of `x`.
pub fn forward_measured(cx: &Cx, x: &Measured, p: Params<'_>) -> Result<(Tensor, Saved)> {
    normalise(cx, &x.x, x.moments.as_ref(), p)
}

/// The groups, if there are any, of which a norm of `x` takes moments: [`forward_measured`] would run the variant that
/// [`forward`] runs, without reading `x` for its statistics.
pub fn takes_moments(
    cx: &Cx,
    [samples, pixels, c]: [usize; 3],
    groups: Option<usize>,
) -> Option<usize> {
    let groups = groups.filter(|&groups| groups > 0 && c.is_multiple_of(groups))?;
    let key = Key {
        dtype: cx.dtype(),
        samples,
        pixels,
        c,
        groups,
        eps: 0.0,
        silu: false,
        residual: false,
        backward: false,
        parts: ANY,
        statistics: false,
    };
    let agrees = FORWARD.agrees(&FROM_MOMENTS, cx, &key);
    agrees.then_some(groups)
}

fn normalise(
    cx: &Cx,
    x: &Tensor,
    moments: Option<&Tensor>,
    p: Params<'_>,
) -> Result<(Tensor, Saved)> {
    let key = key_of(x, moments, p)?;
    let y = cx.empty(x.shape())?;
    let mean = cx.empty_wide([key.samples, key.groups])?;
    let rstd = cx.empty_wide([key.samples, key.groups])?;
    let mut args = vec![
        Arg::Out(&y),
        Arg::Out(&mean),
        Arg::Out(&rstd),
        Arg::In(x),
        Arg::In(p.w),
        Arg::In(p.b),
    ];
    args.extend(moments.map(Arg::In));
    op(&key).launch(cx, &key, &args)?;
    Ok((
        y,
        Saved {
            x: cx.keep(x),
            mean: cx.keep(&mean),
            rstd: cx.keep(&rstd),
        },
    ))
}

/// The key of a forward pass with these moments of `x`.
fn key_of(x: &Tensor, moments: Option<&Tensor>, p: Params<'_>) -> Result<Key> {
    let mut key = key(x, p)?;
    if let Some(moments) = moments {
        key.parts = parts_of(&key, moments, "group_norm, moments")?;
    }
    Ok(key)
}

/// How many parts of each sample and group `of` has a pair of.
fn parts_of(key: &Key, of: &Tensor, what: &str) -> Result<usize> {
    match *of.dims() {
        [n, groups, parts, 2]
            if [n, groups] == [key.samples, key.groups]
                && parts > 0
                && key.pixels.is_multiple_of(parts) =>
        {
            Ok(parts)
        }
        _ => {
            let want = format!(
                "[{}, {}, parts, 2] with equal parts of {} pixels",
                key.samples, key.groups, key.pixels
            );
            Err(Error::shape(what, want, of.shape()))
        }
    }
}

/// The forward pass of a key.
fn op(key: &Key) -> &'static Op<Key> {
    match key.parts {
        0 => &FORWARD,
        _ => &FROM_MOMENTS,
    }
}

/// What sums of its parts are made of by the launch that writes `dy`, if the backward pass takes them: it would run the
/// variant that it runs without, which reads `dy` and `x` for its sums.
///
/// # Errors
/// [`Error::Shape`] when `p` is of another norm; [`Error::Argument`] when nothing was kept.
pub fn takes_sums<'a>(cx: &Cx, saved: &'a Saved, p: Params<'a>) -> Result<Option<Applied<'a>>> {
    let applied = Applied {
        x: saved.x.get()?,
        mean: saved.mean.get()?,
        rstd: saved.rstd.get()?,
        w: p.w,
        b: p.b,
        silu: p.silu,
    };
    let key = Key {
        backward: true,
        parts: ANY,
        ..key(applied.x, p)?
    };
    Ok(Some(applied).filter(|_| VJP.agrees(&VJP_FROM_SUMS, cx, &key)))
}

/// The cotangent of `x`, and `residual` added to it. Consumes what was saved.
///
/// # Errors
/// [`Error::Shape`] when `dy` or `residual` is not of `x`'s shape.
pub fn vjp(
    cx: &Cx,
    saved: Saved,
    p: Params<'_>,
    dy: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    vjp_summed(cx, saved, p, &dy.clone().into(), residual)
}

/// The same by the sums of parts of `dy`, if there are any.
///
/// # Errors
/// As [`vjp`]; [`Error::Shape`] when the sums are not those of `groups`.
pub fn vjp_summed(
    cx: &Cx,
    saved: Saved,
    p: Params<'_>,
    Summed { dy, sums }: &Summed,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let x = saved.x.get()?;
    for cotangent in [dy].into_iter().chain(residual) {
        cotangent.expect_shape("group_norm.vjp", x.shape())?;
    }
    let mut key = Key {
        residual: residual.is_some(),
        backward: true,
        ..key(x, p)?
    };
    if let Some(sums) = sums {
        key.parts = parts_of(&key, sums, "group_norm.vjp, sums")?;
    }
    let dx = cx.empty(x.shape())?;
    let (mean, rstd) = (Arg::In(saved.mean.get()?), Arg::In(saved.rstd.get()?));
    let mut args = vec![
        Arg::Out(&dx),
        Arg::In(dy),
        Arg::In(x),
        mean,
        rstd,
        Arg::In(p.w),
        Arg::In(p.b),
        residual.into(),
    ];
    args.extend(sums.as_ref().map(Arg::In));
    match key.parts {
        0 => VJP.launch(cx, &key, &args)?,
        _ => VJP_FROM_SUMS.launch(cx, &key, &args)?,
    }
    Ok(dx)
}

/// The key of a forward pass.
fn key(x: &Tensor, p: Params<'_>) -> Result<Key> {
    let c = x.shape().channels();
    if c == 0 || p.w.dims() != [c] || p.groups == 0 || !c.is_multiple_of(p.groups) {
        let want = format!("[n, .., {}] in {} groups", p.w.shape().elements(), p.groups);
        return Err(Error::shape("group_norm", want, x.shape()));
    }
    let (samples, pixels) = (x.shape().samples(), x.shape().per_sample() / c);
    let Params {
        groups, eps, silu, ..
    } = p;
    Ok(Key {
        dtype: x.dtype(),
        samples,
        pixels,
        c,
        groups,
        eps,
        silu,
        residual: false,
        backward: false,
        parts: 0,
        statistics: false,
    })
}

#[cfg(all(test, feature = "emu"))]
mod tests {
    use super::*;
    use crate::rng::Philox;
    use crate::runtime::Runtime;
    use crate::runtime::emu::Schedule;

    /// With a mean of 1000 deviations a rounded mean moves the variance by 1000 epsilon at most; E[x^2] - E[x]^2
    /// would move it by a million.
    #[test]
    fn a_large_mean_leaves_the_variance_its_digits() -> Result<()> {
        let (pixels, c) = (300, 16);
        let mut random = Philox::new(1);
        let x: Vec<f32> = (0..pixels * c)
            .map(|_| 1000.0 + random.normal() as f32)
            .collect();
        let count = x.len() as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let squares = x.iter().map(|&x| (f64::from(x) - mean).powi(2));
        let rstd = 1.0 / (squares.sum::<f64>() / count + 1e-5).sqrt();
        for variant in ["resident", "chunks", "plain"] {
            let cx = Cx::new(Runtime::emu(Schedule::InOrder), DType::F32)?
                .forcing(FORWARD.name, variant);
            let params = Params {
                w: &cx.constant(&[1.0; 16], [c])?,
                b: &cx.constant(&[0.0; 16], [c])?,
                groups: 1,
                eps: 1e-5,
                silu: false,
            };
            let (_, saved) = forward(&cx, &cx.upload(&x, [1, pixels, c])?, params)?;
            let got = f64::from(saved.rstd.get()?.to_vec::<f32>()?[0]);
            let error = (got / rstd - 1.0).abs();
            assert!(
                error < 1000.0 * f64::from(f32::EPSILON),
                "{variant}: {got} {rstd}"
            );
        }
        Ok(())
    }
}
