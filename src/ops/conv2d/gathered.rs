//! Im2col by strips: the pixels that each output pixel meets are copied into rows, which a matrix product
//! multiplies by the weights.

use rayon::prelude::*;

use super::plain::vjp_by;
use super::{Geometry, Key, Phase};
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

/// For each pixel and each tap, a copy of the `c` channels that `from` names, or zeros.
fn gather<T: Real>(
    to: &mut Vec<T>,
    x: &[T],
    c: usize,
    pixels: impl ExactSizeIterator<Item = usize>,
    taps: &[usize],
    from: impl Fn(usize, usize) -> Option<usize>,
) {
    let depth = taps.len() * c;
    to.resize(pixels.len() * depth, T::ZERO);
    for (i, pixel) in pixels.enumerate() {
        for (row, &tap) in to[i * depth..].chunks_exact_mut(c).zip(taps) {
            match from(pixel, tap) {
                Some(q) => row.copy_from_slice(&x[q * c..][..c]),
                None => row.fill(T::ZERO),
            }
        }
    }
}

pub(super) fn forward<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x, w) = (
        args.output::<T>(0),
        args.input::<T>(1),
        args.operand::<T>(2).widened(),
    );
    let added = [3, 4, 5].map(|i| args.optional::<T>(i));
    products(key, y, [x, &w], added);
}

/// `added`: bias, shift and residual.
pub(super) fn products<T: Real>(
    key: &Key,
    y: &mut [T],
    [x, w]: [&[T]; 2],
    [bias, shift, residual]: [Option<&[T]>; 3],
) {
    let (px, py) = (key.x[0] * key.x[1], key.y[0] * key.y[1]);
    let (inputs, outputs, depth) = (key.inputs, key.outputs, key.taps() * key.inputs);
    let pointwise = key.taps() == 1 && key.geometry == Geometry::same(1);
    let strip = strip(py, depth);
    let taps: Vec<usize> = (0..key.taps()).collect();
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
                        let pixels = first..first + count;
                        gather(rows, x, inputs, pixels, &taps, |p, tap| key.source(p, tap));
                        &rows[..]
                    };
                    gemm(y, outputs, true, Mat::rows(rows, count, depth, depth), w);
                },
            );
        });
}

pub(super) fn vjp<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    vjp_by::<T>(key, args, vjp_products);
}

/// Phase by phase: see [`Key::phases`].
pub(super) fn vjp_products<T: Real>(
    key: &Key,
    dx: &mut [T],
    [dy, w]: [&[T]; 2],
    bias: Option<&[T]>,
) {
    let (px, py) = (key.x[0] * key.x[1], key.y[0] * key.y[1]);
    let (inputs, outputs, phases) = (key.inputs, key.outputs, key.phases());
    let most = phases
        .iter()
        .map(|phase| phase.taps.len())
        .max()
        .unwrap_or(0);
    let strip = strip(px, most.max(1) * outputs);
    dx.par_chunks_mut(px * inputs)
        .enumerate()
        .for_each(|(n, dx)| {
            let dy = &dy[n * py * outputs..][..py * outputs];
            let strips = dx.par_chunks_mut(strip * inputs).enumerate();
            strips.for_each_init(Default::default, |(rows, sums), (s, dx)| {
                let (first, count) = (s * strip, dx.len() / inputs);
                for Phase { pixels, taps } in &phases {
                    let [start, end] =
                        [first, first + count].map(|q| pixels.partition_point(|&p| p < q));
                    let (pixels, depth) = (&pixels[start..end], taps.len() * outputs);
                    if pixels.is_empty() {
                        continue;
                    }
                    gather(rows, dy, outputs, pixels.iter().copied(), taps, |q, tap| {
                        key.target(q, tap)
                    });
                    start_with(sums, pixels.len(), inputs, bias);
                    for (t, tap) in taps.iter().enumerate() {
                        let dy = Mat::rows(&rows[t * outputs..], pixels.len(), outputs, depth);
                        let w = Mat::rows(&w[tap * inputs * outputs..], inputs, outputs, outputs);
                        gemm(sums, inputs, true, dy, w.t());
                    }
                    for (sums, q) in sums.chunks_exact(inputs).zip(pixels) {
                        dx[(q - first) * inputs..][..inputs].copy_from_slice(sums);
                    }
                }
            });
        });
}

/// `rows` rows of `bias`, or of zeros.
fn start_with<T: Real>(sums: &mut Vec<T>, rows: usize, width: usize, bias: Option<&[T]>) {
    sums.clear();
    match bias {
        Some(bias) => sums.extend(bias.iter().cycle().take(rows * width)),
        None => sums.resize(rows * width, T::ZERO),
    }
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
