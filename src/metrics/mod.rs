//! Metrics: how alike two images are, as numbers with intervals.
//!
//! To add one: a file with a function of two images, its `mod` line, and a row in [`METRICS`].
//! The command line, its help and the tests walk that table.
//! Images come as they are everywhere, in [-1, 1], and are compared in [0, 1], in `f64`, unclamped.

use crate::error::{Error, Result};
use crate::io::image::Image;

pub mod bootstrap;
pub mod psnr;
pub mod ssim;

/// How alike two images are.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name on the command line and in reports.
    pub name: &'static str,
    /// One line for the help.
    pub doc: &'static str,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// The value for two images of the same size.
    pub compute: fn(&Image, &Image) -> Result<f64>,
}

/// Every metric.
pub static METRICS: &[Metric] = &[
    Metric {
        name: "psnr",
        doc: "peak signal-to-noise ratio over all channels, in dB; infinite for equal images",
        higher_is_better: true,
        compute: psnr::psnr,
    },
    Metric {
        name: "ssim",
        doc: "structural similarity, 11 x 11 Gaussian window, mean of the channels; 1 for equal images",
        higher_is_better: true,
        compute: ssim::ssim,
    },
];

/// Both images hold together, have one size, and hold only finite values.
fn comparable(what: &str, a: &Image, b: &Image) -> Result<()> {
    for image in [a, b] {
        image.check(what)?;
        if let Some(at) = image.pixels.iter().position(|v| !v.is_finite()) {
            let (y, x) = (at / 3 / image.width, at / 3 % image.width);
            let why = format!(
                "pixel x = {x}, y = {y} is {}; wanted finite values",
                image.pixels[at]
            );
            return Err(Error::argument(what, why));
        }
    }
    if (a.width, a.height) != (b.width, b.height) {
        let size = |i: &Image| format!("({}, {}, 3)", i.height, i.width);
        return Err(Error::shape(what, size(a), size(b)));
    }
    Ok(())
}

/// From [-1, 1] to [0, 1].
fn unit(v: f32) -> f64 {
    (f64::from(v) + 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a linear congruential generator, mixed: `a * share + n * (1 - share)`, in [0, 1] before [-1, 1].
    /// The same three lines make them in the Python that made the goldens (see `ssim.rs`).
    pub(super) fn noise(width: usize, height: usize, seed: u32) -> Vec<f64> {
        let mut state = seed;
        let mut next = move || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            f64::from(state >> 24) / 255.0
        };
        (0..width * height * 3).map(|_| next()).collect()
    }

    pub(super) fn image(width: usize, height: usize, unit: impl Iterator<Item = f64>) -> Image {
        let pixels = unit.map(|v| (2.0 * v - 1.0) as f32).collect();
        Image::new(width, height, pixels).unwrap()
    }

    #[test]
    fn every_metric_is_best_for_equal_images_and_refuses_what_cannot_be_compared() {
        let a = image(12, 13, noise(12, 13, 1).into_iter());
        let b = image(13, 12, noise(12, 13, 2).into_iter());
        let c = image(12, 13, noise(12, 13, 3).into_iter());
        for metric in METRICS {
            let best = (metric.compute)(&a, &a).unwrap();
            let other = (metric.compute)(&a, &c).unwrap();
            assert!((best > other) == metric.higher_is_better, "{}", metric.name);
            assert_eq!((metric.compute)(&c, &a).unwrap(), other, "{}", metric.name);
            let text = (metric.compute)(&a, &b).unwrap_err().to_string();
            assert!(
                text.contains("wanted shape (13, 12, 3), got (12, 13, 3)"),
                "{text}"
            );
            let mut bad = a.clone();
            bad.pixels[40] = f32::NAN;
            assert!(
                (metric.compute)(&a, &bad)
                    .unwrap_err()
                    .to_string()
                    .contains("x = 1, y = 1")
            );
            bad.pixels.pop();
            assert!((metric.compute)(&a, &bad).is_err());
        }
    }
}
