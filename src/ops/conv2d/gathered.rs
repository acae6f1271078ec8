//! Im2col by strips: the pixels that each output pixel meets are copied into rows, which a matrix product
//! multiplies by the weights.

use rayon::prelude::*;

use super::{Geometry, Key};
use crate::dtype::Real;
use crate::runtime::gemm::{Mat, gemm};
use crate::runtime::native::NativeArgs;

/// Pixels of one strip: as many as keep the gathered rows (`k` floats each) within a few megabytes.
fn strip(pixels: usize, k: usize) -> usize {
    ((3 << 18) / k)
        .clamp(64, 1024)
        .min(pixels.div_ceil(2))
        .max(1)
}

/// Copies, for each pixel of a strip and each tap, the `c` channels that `from` names, or zeros.
fn gather<T: Real>(
    to: &mut [T],
    x: &[T],
    c: usize,
    taps: usize,
    first: usize,
    from: impl Fn(usize, usize) -> Option<usize>,
) {
    for (i, row) in to.chunks_exact_mut(taps * c).enumerate() {
        for (tap, row) in row.chunks_exact_mut(c).enumerate() {
            match from(first + i, tap) {
                Some(q) => row.copy_from_slice(&x[q * c..][..c]),
                None => row.fill(T::ZERO),
            }
        }
    }
}

pub(super) fn forward<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x, w) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (bias, shift, residual) = (
        args.optional::<T>(3),
        args.optional::<T>(4),
        args.optional::<T>(5),
    );
    let (px, py) = (key.x[0] * key.x[1], key.y[0] * key.y[1]);
    let (inputs, outputs, depth) = (key.inputs, key.outputs, key.taps() * key.inputs);
    let pointwise = key.taps() == 1 && key.geometry == Geometry::same(1);
    let strip = strip(py, depth);
    let w = Mat::rows(w, depth, outputs, outputs);
    y.par_chunks_mut(py * outputs)
        .enumerate()
        .for_each(|(n, y)| {
            let x = &x[n * px * inputs..][..px * inputs];
            y.par_chunks_mut(strip * outputs).enumerate().for_each_init(
                Vec::new,
                |rows, (s, y)| {
                    let (first, count) = (s * strip, y.len() / outputs);
                    match residual {
                        Some(r) => y.copy_from_slice(&r[(n * py + first) * outputs..][..y.len()]),
                        None => y.fill(T::ZERO),
                    }
                    for add in [bias, shift.map(|s| &s[n * outputs..][..outputs])]
                        .into_iter()
                        .flatten()
                    {
                        y.chunks_exact_mut(outputs)
                            .for_each(|y| y.iter_mut().zip(add).for_each(|(y, &a)| *y += a));
                    }
                    let rows = if pointwise {
                        &x[first * inputs..][..count * inputs]
                    } else {
                        rows.resize(count * depth, T::ZERO);
                        gather(rows, x, inputs, key.taps(), first, |p, tap| {
                            key.source(p, tap)
                        });
                        &rows[..]
                    };
                    gemm(y, outputs, true, Mat::rows(rows, count, depth, depth), w);
                },
            );
        });
}

pub(super) fn vjp<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, w) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (px, py) = (key.x[0] * key.x[1], key.y[0] * key.y[1]);
    let (inputs, outputs, depth) = (key.inputs, key.outputs, key.taps() * key.outputs);
    let strip = strip(px, depth);
    dx.par_chunks_mut(px * inputs)
        .enumerate()
        .for_each(|(n, dx)| {
            let dy = &dy[n * py * outputs..][..py * outputs];
            dx.par_chunks_mut(strip * inputs).enumerate().for_each_init(
                Vec::new,
                |rows, (s, dx)| {
                    let count = dx.len() / inputs;
                    rows.resize(count * depth, T::ZERO);
                    gather(rows, dy, outputs, key.taps(), s * strip, |q, tap| {
                        key.target(q, tap)
                    });
                    for tap in 0..key.taps() {
                        let dy = Mat::rows(&rows[tap * outputs..], count, outputs, depth);
                        let w = Mat::rows(&w[tap * inputs * outputs..], inputs, outputs, outputs);
                        gemm(dx, inputs, tap > 0, dy, w.t());
                    }
                },
            );
        });
}

/// Input channels of one task.
const BLOCK: usize = 64;

/// One task a tap and block of input channels: the pixels that a strip of output pixels meets, times that strip.
pub(super) fn wgrad<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dw, x, dy) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (px, py) = (key.x[0] * key.x[1], key.y[0] * key.y[1]);
    let (inputs, outputs) = (key.inputs, key.outputs);
    let strip = strip(py, BLOCK.min(inputs));
    let blocks = dw
        .par_chunks_mut(inputs * outputs)
        .enumerate()
        .flat_map(|(tap, dw)| {
            let blocks = dw.par_chunks_mut(BLOCK * outputs).enumerate();
            blocks.map(move |(block, dw)| (tap, block * BLOCK, dw))
        });
    blocks.for_each_init(Vec::new, |rows, (tap, first, dw)| {
        let channels = dw.len() / outputs;
        dw.fill(T::ZERO);
        for (x, dy) in x
            .chunks_exact(px * inputs)
            .zip(dy.chunks_exact(py * outputs))
        {
            for (s, dy) in dy.chunks(strip * outputs).enumerate() {
                let count = dy.len() / outputs;
                rows.resize(count * channels, T::ZERO);
                for (i, row) in rows.chunks_exact_mut(channels).enumerate() {
                    match key.source(s * strip + i, tap) {
                        Some(q) => row.copy_from_slice(&x[q * inputs + first..][..channels]),
                        None => row.fill(T::ZERO),
                    }
                }
                let x = Mat::rows(rows, count, channels, channels).t();
                gemm(dw, outputs, true, x, Mat::rows(dy, count, outputs, outputs));
            }
        }
    });
}
