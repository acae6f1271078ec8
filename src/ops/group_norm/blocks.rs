//! Blocks of pixels on all processors: the moments or sums of each block, their join, the result.

use rayon::prelude::*;

use super::Key;
use crate::dtype::Real;
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::wide;

/// Pixels of one block of `c` channels: they stay in the second-level cache between the two looks at them.
fn block(c: usize) -> usize {
    ((1 << 14) / c).max(1)
}

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

pub(super) fn forward<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, mean, rstd) = (
        args.output::<T>(0),
        args.output::<T>(1),
        args.output::<T>(2),
    );
    let (x, w, b) = (args.input::<T>(3), args.input::<T>(4), args.input::<T>(5));
    let (sample, c, groups) = (key.pixels * key.c, key.c, key.groups);
    let block = block(c) * c;
    let statistics = mean.par_chunks_mut(groups).zip(rstd.par_chunks_mut(groups));
    let samples = y.par_chunks_mut(sample).zip(x.par_chunks(sample));
    samples.zip(statistics).for_each(|((y, x), (mean, rstd))| {
        let parts: Vec<Vec<Moments>> = x
            .par_chunks(block)
            .map(|x| block_moments(x, c, groups))
            .collect();
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
        let blocks = y.par_chunks_mut(block).zip(x.par_chunks(block));
        blocks.for_each(|(y, x)| match key.silu {
            true => wide(
                #[inline(always)]
                || affine(y, x, &scale, &shift, |u| u * u.sigmoid()),
            ),
            false => wide(
                #[inline(always)]
                || affine(y, x, &scale, &shift, |u| u),
            ),
        });
    });
}

/// `y = f(x scale + shift)` over a block of pixels.
#[inline(always)]
fn affine<T: Real>(y: &mut [T], x: &[T], scale: &[T], shift: &[T], f: impl Fn(T) -> T) {
    let c = scale.len();
    for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
        for (((y, &x), &scale), &shift) in y.iter_mut().zip(x).zip(scale).zip(shift) {
            *y = f(x * scale + shift);
        }
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
    /// `dx = dxhat = du w` over a block of pixels, where `du = dy slope(u)`, and each channel's sums of `dxhat` and
    /// `dxhat xhat`.
    #[inline(always)]
    fn sums(
        &self,
        slope: impl Fn(T) -> T,
        dx: &mut [T],
        [x, dy]: [&[T]; 2],
        [s1, s2]: [&mut [T]; 2],
    ) {
        let c = self.w.len();
        let (rs, mu_rs, w, b) = (&self.rs[..c], &self.mu_rs[..c], self.w, &self.b[..c]);
        let (s1, s2) = (&mut s1[..c], &mut s2[..c]);
        let rows = dx.chunks_exact_mut(c).zip(x.chunks_exact(c));
        for ((dx, x), dy) in rows.zip(dy.chunks_exact(c)) {
            for i in 0..c {
                let xhat = x[i] * rs[i] - mu_rs[i];
                dx[i] = dy[i] * slope(xhat * w[i] + b[i]) * w[i];
                s1[i] += dx[i];
                s2[i] += dx[i] * xhat;
            }
        }
    }

    /// `dx = rstd (dxhat - m1 - xhat m2) + residual`, where `dx` holds `dxhat`.
    #[inline(always)]
    fn finish(&self, dx: &mut [T], x: &[T], m1: &[T], m2: &[T], residual: Option<&[T]>) {
        let c = self.w.len();
        let (rs, mu_rs, m1, m2) = (&self.rs[..c], &self.mu_rs[..c], &m1[..c], &m2[..c]);
        for (dx, x) in dx.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            for i in 0..c {
                let xhat = x[i] * rs[i] - mu_rs[i];
                dx[i] = rs[i] * (dx[i] - m1[i] - xhat * m2[i]);
            }
        }
        if let Some(residual) = residual {
            dx.iter_mut().zip(residual).for_each(|(dx, &r)| *dx += r);
        }
    }
}

pub(super) fn vjp<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, x) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (mean, rstd) = (args.input::<T>(3), args.input::<T>(4));
    let (w, b, residual) = (
        args.input::<T>(5),
        args.input::<T>(6),
        args.optional::<T>(7),
    );
    let (sample, c, groups) = (key.pixels * key.c, key.c, key.groups);
    let block = block(c) * c;
    let samples = x.par_chunks(sample).zip(dy.par_chunks(sample));
    let samples = dx.par_chunks_mut(sample).zip(samples).enumerate();
    samples.for_each(|(n, (dx, (x, dy)))| {
        let group = |i: usize| n * groups + i * groups / c;
        let rs: Vec<T> = (0..c).map(|i| rstd[group(i)]).collect();
        let mu_rs = (0..c).map(|i| mean[group(i)] * rs[i]).collect();
        let channels = Channels { rs, mu_rs, w, b };
        let blocks = x.par_chunks(block).zip(dy.par_chunks(block));
        let sums: Vec<(Vec<T>, Vec<T>)> = dx
            .par_chunks_mut(block)
            .zip(blocks)
            .map(|(dx, (x, dy))| {
                let (mut s1, mut s2) = (vec![T::ZERO; c], vec![T::ZERO; c]);
                let sums = [&mut s1[..], &mut s2[..]];
                match key.silu {
                    true => wide(
                        #[inline(always)]
                        || channels.sums(|u| u.silu_slope(), dx, [x, dy], sums),
                    ),
                    false => wide(
                        #[inline(always)]
                        || channels.sums(|_| T::ONE, dx, [x, dy], sums),
                    ),
                }
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
        let blocks = dx.par_chunks_mut(block).zip(x.par_chunks(block));
        blocks.enumerate().for_each(|(i, (dx, x))| {
            let residual = residual.map(|all| &all[n * sample + i * block..][..dx.len()]);
            wide(
                #[inline(always)]
                || channels.finish(dx, x, &m1, &m2, residual),
            );
        });
    });
}
