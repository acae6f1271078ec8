//! Motion-blur kernels: the path of a shaken camera, drawn from a seed.
//!
//! This is in the manner of LeviBorodenko/motionblur, which DPS uses (a random path through a square
//! window, straighter or curlier by `intensity`), but its own generator and not bit-identical to that
//! one: keep the kernel with the measurement if others are to use it.
//!
//! The heading of the path turns by `theta'(t) = 2 pi intensity c(t)`, `t` from 0 to 1, and its speed is
//! proportional to `exp(intensity d(t) / 2)`, with `c` and `d` smooth Gaussian processes of unit
//! variance. It is scaled to a drawn length between 1/4 and 3/4 of the window, moved so that its
//! centre of mass is the window's centre, shrunk if it would leave the window, and splatted with
//! bilinear weights.

use std::f64::consts::{PI, TAU};

use crate::error::{Error, Result};
use crate::rng::{Stream, image_key};

/// The widest kernel drawn.
const WIDEST: usize = 1023;

/// Draws the `size * size` weights of a motion blur, row by row: none negative, sum 1, centre of mass
/// on the middle pixel. `size` is odd; `intensity` goes from 0, a straight line at even speed, to 1.
pub fn motion_kernel(size: usize, intensity: f64, seed: u64) -> Result<Vec<f64>> {
    if size.is_multiple_of(2) || !(3..=WIDEST).contains(&size) {
        return Err(Error::argument(
            "kernel size",
            format!("wanted an odd number from 3 to {WIDEST}, got {size}"),
        ));
    }
    if !(0.0..=1.0).contains(&intensity) {
        return Err(Error::argument(
            "intensity",
            format!("wanted 0 to 1, got {intensity}"),
        ));
    }
    let stream = Stream::new(seed, image_key("motion kernel"), 0);
    let path = centred_path(&stream, size, intensity);
    Ok(splat(&path, size))
}

/// The path as points of equal dwell time, four for each pixel of the window's width, relative to the centre.
fn centred_path(stream: &Stream, size: usize, intensity: f64) -> Vec<(f64, f64)> {
    let count = 4 * size;
    let [curl, pace] = [1, 2].map(|draw| smooth_process(stream, draw, count));
    let mut start = [0.0f64; 2];
    stream.uniforms(0, 0, &mut start);
    let mut heading = start[0] * TAU;
    let length = (0.25 + 0.5 * start[1]) * size as f64;

    let (mut x, mut y, mut travelled) = (0.0, 0.0, 0.0);
    let mut path = Vec::with_capacity(count);
    for (curl, pace) in curl.into_iter().zip(pace) {
        path.push((x, y));
        let speed = (0.5 * intensity * pace).exp();
        heading += TAU * intensity * curl / count as f64;
        x += speed * heading.cos();
        y += speed * heading.sin();
        travelled += speed;
    }

    let mean = |of: fn(&(f64, f64)) -> f64| path.iter().map(of).sum::<f64>() / count as f64;
    let (cx, cy) = (mean(|p| p.0), mean(|p| p.1));
    let reach = path
        .iter()
        .map(|(x, y)| (x - cx).abs().max((y - cy).abs()))
        .fold(0.0, f64::max);
    // half a pixel short of the border, so that bilinear weights stay in the window
    let room = size as f64 / 2.0 - 1.0;
    let scale = (length / travelled).min(room / reach);
    path.iter()
        .map(|(x, y)| ((x - cx) * scale, (y - cy) * scale))
        .collect()
}

/// `count` values over one unit of time: cosine waves of half-periods 1 to 1/4, with independent normal
/// amplitudes, a stationary Gaussian process of mean 0 and variance 1.
fn smooth_process(stream: &Stream, draw: u32, count: usize) -> Vec<f64> {
    const WAVES: usize = 4;
    let mut amplitudes = [0.0f64; 2 * WAVES];
    stream.normals(0, draw, &mut amplitudes);
    (0..count)
        .map(|i| {
            let t = i as f64 / count as f64;
            let waves = amplitudes.chunks_exact(2).enumerate().map(|(k, pair)| {
                let (sin, cos) = (PI * (k + 1) as f64 * t).sin_cos();
                pair[0] * cos + pair[1] * sin
            });
            waves.sum::<f64>() / (WAVES as f64).sqrt()
        })
        .collect()
}

/// Equal weight at every point, shared bilinearly between the four pixels around it.
fn splat(path: &[(f64, f64)], size: usize) -> Vec<f64> {
    let mut kernel = vec![0.0; size * size];
    let middle = (size / 2) as f64;
    let weight = 1.0 / path.len() as f64;
    for (x, y) in path {
        let (x, y) = (x + middle, y + middle);
        let (column, row) = (x.floor(), y.floor());
        let (fx, fy) = (x - column, y - row);
        for (dy, wy) in [(0, 1.0 - fy), (1, fy)] {
            for (dx, wx) in [(0, 1.0 - fx), (1, fx)] {
                let at = (row as usize + dy) * size + column as usize + dx;
                kernel[at] += weight * wx * wy;
            }
        }
    }
    // the weights of a point sum to 1 but for rounding
    let sum: f64 = kernel.iter().sum();
    kernel.iter_mut().for_each(|w| *w /= sum);
    kernel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_averages_about_the_middle() {
        for (size, intensity) in [(3, 1.0), (5, 0.0), (31, 1.0), (61, 0.0), (61, 0.5)] {
            for seed in 0..40 {
                let kernel = motion_kernel(size, intensity, seed).unwrap();
                assert_eq!(kernel.len(), size * size);
                assert!(kernel.iter().all(|w| *w >= 0.0));
                assert!((kernel.iter().sum::<f64>() - 1.0).abs() < 1e-14);
                let moment = |of: fn(usize, usize) -> usize| {
                    let weighted = kernel.iter().enumerate();
                    weighted.map(|(i, w)| w * of(i, size) as f64).sum::<f64>()
                };
                let middle = (size / 2) as f64;
                assert!((moment(|i, size| i % size) - middle).abs() < 1e-12);
                assert!((moment(|i, size| i / size) - middle).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_kernel_is_a_function_of_its_seed() {
        let kernels: Vec<_> = (0..20)
            .map(|seed| motion_kernel(61, 0.5, seed).unwrap())
            .collect();
        for (seed, kernel) in kernels.iter().enumerate() {
            assert_eq!(*kernel, motion_kernel(61, 0.5, seed as u64).unwrap());
            assert!(!kernels[..seed].contains(kernel));
            // a path, not a point nor a blob
            let spread = kernel.iter().filter(|w| **w > 0.0).count();
            assert!((15..600).contains(&spread), "{spread} pixels");
        }
    }

    /// At intensity 0 the second moments are those of a segment: one direction has no spread beyond
    /// the bilinear weights' (variance at most 1/4 an axis), the other length^2 / 12.
    #[test]
    fn intensity_zero_is_a_straight_line() {
        for seed in 0..20 {
            let kernel = motion_kernel(61, 0.0, seed).unwrap();
            let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
            for (i, w) in kernel.iter().enumerate() {
                let (x, y) = ((i % 61) as f64 - 30.0, (i / 61) as f64 - 30.0);
                (xx, xy, yy) = (xx + w * x * x, xy + w * x * y, yy + w * y * y);
            }
            let (mean, half) = ((xx + yy) / 2.0, ((xx - yy) / 2.0).hypot(xy));
            assert!(mean - half < 0.26, "across the line: {}", mean - half);
            let (least, most) = (0.25 * 61.0, 0.75 * 61.0 + 2.0);
            let length = (12.0 * (mean + half)).sqrt();
            assert!(length > least && length < most, "length {length}");
        }
    }

    #[test]
    fn bad_arguments_are_errors() {
        for (size, intensity) in [
            (60, 0.5),
            (1, 0.5),
            (usize::MAX, 0.5),
            (61, -0.1),
            (61, f64::NAN),
        ] {
            assert!(motion_kernel(size, intensity, 0).is_err());
        }
    }
}
