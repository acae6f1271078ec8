//! The textbook loops: one group after the other.

use super::Key;
use crate::dtype::Real;
use crate::runtime::native::NativeArgs;

pub(super) fn forward<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, mean, rstd) = (
        args.output::<T>(0),
        args.output::<T>(1),
        args.output::<T>(2),
    );
    let (x, w, b) = (args.input::<T>(3), args.input::<T>(4), args.input::<T>(5));
    of_groups(key, x, mean, rstd);
    apply(key, y, [x, mean, rstd, w, b]);
}

/// The same from the moments of parts of equally many values.
pub(super) fn from_moments<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, mean, rstd) = (
        args.output::<T>(0),
        args.output::<T>(1),
        args.output::<T>(2),
    );
    let (x, w, b) = (args.input::<T>(3), args.input::<T>(4), args.input::<T>(5));
    join(key, args.input::<T>(6), mean, rstd);
    apply(key, y, [x, mean, rstd, w, b]);
}

/// From either, what each channel is multiplied with and moved by.
pub(super) fn statistics<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let [scale, shift, mean, rstd] = [0, 1, 2, 3].map(|i| args.output::<T>(i));
    let (w, b) = (args.input::<T>(5), args.input::<T>(6));
    match args.optional::<T>(4) {
        Some(x) => of_groups(key, x, mean, rstd),
        None => join(key, args.input::<T>(7), mean, rstd),
    }
    for (i, (scale, shift)) in scale.iter_mut().zip(shift).enumerate() {
        let (n, c) = (i / key.c, i % key.c);
        let group = n * key.groups + c * key.groups / key.c;
        *scale = rstd[group] * w[c];
        *shift = b[c] - mean[group] * *scale;
    }
}

fn of_groups<T: Real>(key: &Key, x: &[T], mean: &mut [T], rstd: &mut [T]) {
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
        }
    }
}

fn join<T: Real>(key: &Key, moments: &[T], mean: &mut [T], rstd: &mut [T]) {
    let size = key.c / key.groups;
    let parts = T::of(key.parts as f64);
    let of_part = T::of((key.pixels / key.parts * size) as f64);
    for (i, of) in moments.chunks_exact(2 * key.parts).enumerate() {
        let mu = of.iter().step_by(2).copied().sum::<T>() / parts;
        let squares = of
            .chunks_exact(2)
            .map(|m| m[1] + of_part * (m[0] - mu) * (m[0] - mu));
        let var = squares.sum::<T>() / (parts * of_part);
        (mean[i], rstd[i]) = (mu, T::ONE / (var + T::of(key.eps)).sqrt());
    }
}

fn apply<T: Real>(key: &Key, y: &mut [T], [x, mean, rstd, w, b]: [&[T]; 5]) {
    let size = key.c / key.groups;
    for (i, y) in y.iter_mut().enumerate() {
        let (n, c) = (i / (key.pixels * key.c), i % key.c);
        let group = n * key.groups + c / size;
        let u = (x[i] - mean[group]) * rstd[group] * w[c] + b[c];
        *y = if key.silu { u * u.sigmoid() } else { u };
    }
}

pub(super) fn vjp<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    vjp_by::<T>(key, args, None);
}

/// The same from the sums of parts.
pub(super) fn vjp_from_sums<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let sums = args.input::<T>(8);
    vjp_by(key, args, Some(sums));
}

/// From the sums of parts, what each channel is multiplied with and moved by: the result is `du scale + x slope + offset`.
pub(super) fn vjp_coefficients<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let [scale, shift, slope, offset] = [0, 1, 2, 3].map(|i| args.output::<T>(i));
    let [mean, rstd, w, b, sums] = [4, 5, 6, 7, 8].map(|i| args.input::<T>(i));
    let count = T::of((key.pixels * (key.c / key.groups)) as f64);
    for i in 0..key.samples * key.c {
        let (n, c) = (i / key.c, i % key.c);
        let group = n * key.groups + c * key.groups / key.c;
        let of = &sums[group * 2 * key.parts..][..2 * key.parts];
        let means =
            [0, 1].map(|first| of.iter().skip(first).step_by(2).copied().sum::<T>() / count);
        let (mu, r, [m1, m2]) = (mean[group], rstd[group], means);
        scale[i] = r * w[c];
        shift[i] = b[c] - mu * r * w[c];
        slope[i] = -r * r * m2;
        offset[i] = r * (mu * r * m2 - m1);
    }
}

fn vjp_by<T: Real>(key: &Key, args: &mut NativeArgs<'_>, sums: Option<&[T]>) {
    let (dx, dy, x) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (mean, rstd) = (args.input::<T>(3), args.input::<T>(4));
    let (w, b, residual) = (
        args.input::<T>(5),
        args.input::<T>(6),
        args.optional::<T>(7),
    );
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
            let (s1, s2) = match sums {
                Some(sums) => {
                    let of = &sums[(n * key.groups + g) * 2 * key.parts..][..2 * key.parts];
                    let each = |first| of.iter().skip(first).step_by(2).copied();
                    (each(0).sum::<T>(), each(1).sum::<T>())
                }
                None => (
                    all().map(dxhat).sum::<T>(),
                    all().map(|i| dxhat(i) * xhat(i)).sum::<T>(),
                ),
            };
            let (m1, m2) = (s1 / count, s2 / count);
            for i in all() {
                dx[i] = r * (dxhat(i) - m1 - xhat(i) * m2) + residual.map_or(T::ZERO, |r| r[i]);
            }
        }
    }
}
