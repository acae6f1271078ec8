//! Group normalisation, with SiLU fused when asked for.
//!
//! Over each sample's pixels and each of `groups` runs of channels: `xhat = (x - mean) rstd`,
//! `u = xhat w + b`, `y = u` or `y = u sigmoid(u)`. `x: [n, .., c]`, `w, b: [c]`,
//! `mean, rstd: [n, groups]`, `rstd = 1 / sqrt(var + eps)` with the biased variance.

use rayon::prelude::*;

use crate::cx::{Cx, Kept};
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::Launch;
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::wide;
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
    backward: bool,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn with_dtype(&self, dtype: DType) -> Self {
        Key {
            dtype,
            ..self.clone()
        }
    }

    fn args(&self) -> Vec<Spec> {
        let (x, stats) = (
            self.samples * self.pixels * self.c,
            self.samples * self.groups,
        );
        let w = Spec::input("w", self.c).fill(Fill::Positive).wide();
        let b = Spec::input("b", self.c).wide();
        if self.backward {
            return vec![
                Spec::out("dx", x),
                Spec::input("dy", x),
                Spec::input("x", x),
                Spec::input("mean", stats).fill(Fill::Normal(0.1)).wide(),
                Spec::input("rstd", stats).fill(Fill::Positive).wide(),
                w,
                b,
            ];
        }
        vec![
            Spec::out("y", x),
            Spec::out("mean", stats).wide(),
            Spec::out("rstd", stats).wide(),
            Spec::input("x", x),
            w,
            b,
        ]
    }

    fn flops(&self) -> u64 {
        let per_element = if self.backward { 20 } else { 10 };
        per_element * (self.samples * self.pixels * self.c) as u64
    }
}

/// `y, mean, rstd` from `x`.
pub static FORWARD: Op<Key> = Op {
    name: "group_norm.forward",
    variants: &[
        Variant::kernels("plain", |key| {
            let grid = [key.groups, key.samples, 1];
            Launch::new("group_norm/fwd_1_plain", key.dtype, grid, 256)
                .ints([key.pixels, key.c, key.groups, usize::from(key.silu)])
                .floats([key.eps])
                .into()
        }),
        Variant::native("blocks", forward_blocks::<f32>, forward_blocks::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || cases(false),
};

/// `dx` from `dy`.
pub static VJP: Op<Key> = Op {
    name: "group_norm.vjp",
    variants: &[
        Variant::kernels("plain", |key| {
            let grid = [key.groups, key.samples, 1];
            Launch::new("group_norm/vjp_1_plain", key.dtype, grid, 256)
                .ints([key.pixels, key.c, key.groups, usize::from(key.silu)])
                .into()
        }),
        Variant::native("blocks", vjp_blocks::<f32>, vjp_blocks::<f64>),
        Variant::native("plain", vjp_plain::<f32>, vjp_plain::<f64>),
    ],
    cases: || cases(true),
};

fn cases(backward: bool) -> Vec<Key> {
    let sizes = [
        (1, 1, 2, 1),
        (2, 31, 30, 1),
        (3, 77, 24, 24),
        (1, 113 * 9, 96, 32),
        (2, 300, 40, 8),
    ];
    let key = |(i, (samples, pixels, c, groups)): (usize, (usize, usize, usize, usize))| Key {
        dtype: DType::F32,
        samples,
        pixels,
        c,
        groups,
        eps: 1e-5,
        silu: i % 2 == 1,
        backward,
    };
    sizes.into_iter().enumerate().map(key).collect()
}

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
    let key = key(x, p, false)?;
    let y = cx.empty(x.shape())?;
    let mean = cx.empty_wide([key.samples, key.groups])?;
    let rstd = cx.empty_wide([key.samples, key.groups])?;
    let args = [
        Arg::Out(&y),
        Arg::Out(&mean),
        Arg::Out(&rstd),
        Arg::In(x),
        Arg::In(p.w),
        Arg::In(p.b),
    ];
    FORWARD.launch(cx, &key, &args)?;
    Ok((
        y,
        Saved {
            x: cx.keep(x),
            mean: cx.keep(&mean),
            rstd: cx.keep(&rstd),
        },
    ))
}

/// The cotangent of `x`. Consumes what was saved.
///
/// # Errors
/// [`Error::Shape`] when `dy` is not of `x`'s shape.
pub fn vjp(cx: &Cx, saved: Saved, p: Params<'_>, dy: &Tensor) -> Result<Tensor> {
    let x = saved.x.get()?;
    dy.expect_shape("group_norm.vjp", x.shape())?;
    let key = key(x, p, true)?;
    let dx = cx.empty(x.shape())?;
    let (mean, rstd) = (Arg::In(saved.mean.get()?), Arg::In(saved.rstd.get()?));
    let args = [
        Arg::Out(&dx),
        Arg::In(dy),
        Arg::In(x),
        mean,
        rstd,
        Arg::In(p.w),
        Arg::In(p.b),
    ];
    VJP.launch(cx, &key, &args)?;
    Ok(dx)
}

fn key(x: &Tensor, p: Params<'_>, backward: bool) -> Result<Key> {
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
        backward,
    })
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, mean, rstd) = (
        args.output::<T>(0),
        args.output::<T>(1),
        args.output::<T>(2),
    );
    let (x, w, b) = (args.input::<T>(3), args.input::<T>(4), args.input::<T>(5));
    let size = key.c / key.groups;
    let count = T::of((key.pixels * size) as f64);
    for n in 0..key.samples {
        for g in 0..key.groups {
            let index = |i: usize| (n * key.pixels + i / size) * key.c + g * size + i % size;
            let all = || (0..key.pixels * size).map(index);
            let mu = all().map(|i| x[i]).sum::<T>() / count;
            let var = all().map(|i| (x[i] - mu) * (x[i] - mu)).sum::<T>() / count;
            let r = T::ONE / (var + T::of(key.eps)).sqrt();
            (mean[n * key.groups + g], rstd[n * key.groups + g]) = (mu, r);
            for i in all() {
                let u = (x[i] - mu) * r * w[i % key.c] + b[i % key.c];
                y[i] = if key.silu { u * u.sigmoid() } else { u };
            }
        }
    }
}

fn vjp_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, x) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (mean, rstd) = (args.input::<T>(3), args.input::<T>(4));
    let (w, b) = (args.input::<T>(5), args.input::<T>(6));
    let size = key.c / key.groups;
    let count = T::of((key.pixels * size) as f64);
    for n in 0..key.samples {
        for g in 0..key.groups {
            let (mu, r) = (mean[n * key.groups + g], rstd[n * key.groups + g]);
            let index = |i: usize| (n * key.pixels + i / size) * key.c + g * size + i % size;
            let all = || (0..key.pixels * size).map(index);
            let xhat = |i: usize| (x[i] - mu) * r;
            let dxhat = |i: usize| {
                let c = i % key.c;
                let du = if key.silu {
                    dy[i] * (xhat(i) * w[c] + b[c]).silu_slope()
                } else {
                    dy[i]
                };
                du * w[c]
            };
            let m1 = all().map(dxhat).sum::<T>() / count;
            let m2 = all().map(|i| dxhat(i) * xhat(i)).sum::<T>() / count;
            for i in all() {
                dx[i] = r * (dxhat(i) - m1 - xhat(i) * m2);
            }
        }
    }
}

/// Pixels of one block: its channels stay in the second-level cache between the two looks at them.
const BLOCK: usize = 64;

/// The sums of one group over one block: how many, their mean, their squared deviations from it.
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Chan et al.: the moments of two parts together.
    fn join(self, other: Moments) -> Moments {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let delta = other.mean - self.mean;
        let mean = self.mean + delta * other.count / count;
        let squares =
            self.squares + other.squares + delta * delta * self.count * other.count / count;
        Moments {
            count,
            mean,
            squares,
        }
    }
}

fn block_moments<T: Real>(x: &[T], c: usize, groups: usize) -> Vec<Moments> {
    let size = c / groups;
    let count = (x.len() / groups) as f64;
    let mut sums = vec![T::ZERO; c];
    wide(
        #[inline(always)]
        || {
            for row in x.chunks_exact(c) {
                sums.iter_mut().zip(row).for_each(|(s, &x)| *s += x);
            }
        },
    );
    let group_sum = |sums: &[T], g: usize| {
        sums[g * size..][..size]
            .iter()
            .map(|s| s.f64())
            .sum::<f64>()
    };
    let means: Vec<f64> = (0..groups).map(|g| group_sum(&sums, g) / count).collect();
    let mu: Vec<T> = (0..c).map(|i| T::of(means[i / size])).collect();
    sums.fill(T::ZERO);
    wide(
        #[inline(always)]
        || {
            for row in x.chunks_exact(c) {
                for ((s, &x), &mu) in sums.iter_mut().zip(row).zip(&mu) {
                    *s += (x - mu) * (x - mu);
                }
            }
        },
    );
    // The deviations were taken from the rounded mean: correct for the part that rounding moved.
    let moments = |g: usize| {
        let moved = means[g] - T::of(means[g]).f64();
        Moments {
            count,
            mean: means[g],
            squares: group_sum(&sums, g) - count * moved * moved,
        }
    };
    (0..groups).map(moments).collect()
}

fn forward_blocks<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, mean, rstd) = (
        args.output::<T>(0),
        args.output::<T>(1),
        args.output::<T>(2),
    );
    let (x, w, b) = (args.input::<T>(3), args.input::<T>(4), args.input::<T>(5));
    let (sample, c, groups) = (key.pixels * key.c, key.c, key.groups);
    for n in 0..key.samples {
        let x = &x[n * sample..][..sample];
        let parts: Vec<Vec<Moments>> = x
            .par_chunks(BLOCK * c)
            .map(|x| block_moments(x, c, groups))
            .collect();
        let (mean, rstd) = (
            &mut mean[n * groups..][..groups],
            &mut rstd[n * groups..][..groups],
        );
        for g in 0..groups {
            let all = parts
                .iter()
                .fold(Moments::default(), |sum, part| sum.join(part[g]));
            mean[g] = T::of(all.mean);
            rstd[g] = T::of(1.0 / (all.squares / all.count + key.eps).sqrt());
        }
        // u = x scale + shift, with the statistics folded into each channel's affine.
        let scale: Vec<T> = (0..c).map(|i| rstd[i * groups / c] * w[i]).collect();
        let shift: Vec<T> = (0..c)
            .map(|i| b[i] - mean[i * groups / c] * scale[i])
            .collect();
        let y = &mut y[n * sample..][..sample];
        y.par_chunks_mut(BLOCK * c)
            .zip(x.par_chunks(BLOCK * c))
            .for_each(|(y, x)| {
                wide(
                    #[inline(always)]
                    || {
                        for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                            for (((y, &x), &scale), &shift) in
                                y.iter_mut().zip(x).zip(&scale).zip(&shift)
                            {
                                let u = x * scale + shift;
                                *y = if key.silu { u * u.sigmoid() } else { u };
                            }
                        }
                    },
                );
            });
    }
}

/// What each channel of a sample is multiplied with and moved by: `xhat = x rs - mu_rs`.
struct Channels<'a, T> {
    rs: Vec<T>,
    mu_rs: Vec<T>,
    w: &'a [T],
    b: &'a [T],
}

impl<T: Real> Channels<'_, T> {
    /// `dx = dxhat = du w` over a block of pixels, and each channel's sums of `dxhat` and `dxhat xhat`.
    #[inline(always)]
    fn sums(&self, silu: bool, dx: &mut [T], x: &[T], dy: &[T], s1: &mut [T], s2: &mut [T]) {
        let c = self.w.len();
        let (rs, mu_rs, w, b) = (&self.rs[..c], &self.mu_rs[..c], self.w, &self.b[..c]);
        let (s1, s2) = (&mut s1[..c], &mut s2[..c]);
        let rows = dx.chunks_exact_mut(c).zip(x.chunks_exact(c));
        for ((dx, x), dy) in rows.zip(dy.chunks_exact(c)) {
            for i in 0..c {
                let xhat = x[i] * rs[i] - mu_rs[i];
                let du = if silu {
                    dy[i] * (xhat * w[i] + b[i]).silu_slope()
                } else {
                    dy[i]
                };
                dx[i] = du * w[i];
                s1[i] += dx[i];
                s2[i] += dx[i] * xhat;
            }
        }
    }

    /// `dx = rstd (dxhat - m1 - xhat m2)`, where `dx` holds `dxhat`.
    #[inline(always)]
    fn finish(&self, dx: &mut [T], x: &[T], m1: &[T], m2: &[T]) {
        let c = self.w.len();
        let (rs, mu_rs, m1, m2) = (&self.rs[..c], &self.mu_rs[..c], &m1[..c], &m2[..c]);
        for (dx, x) in dx.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            for i in 0..c {
                let xhat = x[i] * rs[i] - mu_rs[i];
                dx[i] = rs[i] * (dx[i] - m1[i] - xhat * m2[i]);
            }
        }
    }
}

fn vjp_blocks<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, x) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (mean, rstd) = (args.input::<T>(3), args.input::<T>(4));
    let (w, b) = (args.input::<T>(5), args.input::<T>(6));
    let (sample, c, groups) = (key.pixels * key.c, key.c, key.groups);
    for n in 0..key.samples {
        let group = |i: usize| n * groups + i * groups / c;
        let rs: Vec<T> = (0..c).map(|i| rstd[group(i)]).collect();
        let mu_rs = (0..c).map(|i| mean[group(i)] * rs[i]).collect();
        let channels = Channels { rs, mu_rs, w, b };
        let (x, dy) = (&x[n * sample..][..sample], &dy[n * sample..][..sample]);
        let dx = &mut dx[n * sample..][..sample];
        let sums: Vec<(Vec<T>, Vec<T>)> = dx
            .par_chunks_mut(BLOCK * c)
            .zip(x.par_chunks(BLOCK * c).zip(dy.par_chunks(BLOCK * c)))
            .map(|(dx, (x, dy))| {
                let (mut s1, mut s2) = (vec![T::ZERO; c], vec![T::ZERO; c]);
                wide(
                    #[inline(always)]
                    || channels.sums(key.silu, dx, x, dy, &mut s1, &mut s2),
                );
                (s1, s2)
            })
            .collect();
        let count = (key.pixels * c / groups) as f64;
        let mut means = vec![(0.0, 0.0); groups];
        for (s1, s2) in &sums {
            for i in 0..c {
                let m = &mut means[i * groups / c];
                *m = (m.0 + s1[i].f64() / count, m.1 + s2[i].f64() / count);
            }
        }
        let m1: Vec<T> = (0..c).map(|i| T::of(means[i * groups / c].0)).collect();
        let m2: Vec<T> = (0..c).map(|i| T::of(means[i * groups / c].1)).collect();
        dx.par_chunks_mut(BLOCK * c)
            .zip(x.par_chunks(BLOCK * c))
            .for_each(|(dx, x)| {
                wide(
                    #[inline(always)]
                    || channels.finish(dx, x, &m1, &m2),
                );
            });
    }
}
