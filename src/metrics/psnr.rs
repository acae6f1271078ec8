//! Peak signal-to-noise ratio of one image against another, in dB.
//! PSNR = -10 log10( mean over pixels and channels of (a - b)^2 ), a and b in [0, 1].
//! Per image: the average over a set is the mean of these, not the PSNR of the mean error.

use super::{comparable, unit};
use crate::error::Result;
use crate::io::image::Image;

/// The PSNR of two images of the same size; infinite if they are equal.
pub fn psnr(a: &Image, b: &Image) -> Result<f64> {
    comparable("psnr", a, b)?;
    let squares = a.pixels.iter().zip(&b.pixels);
    let sum: f64 = squares.map(|(&a, &b)| (unit(a) - unit(b)).powi(2)).sum();
    Ok(-10.0 * (sum / a.pixels.len() as f64).log10())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{image, noise};
    use super::*;

    #[test]
    fn against_numbers_by_hand_and_torch() {
        let flat = |v: f64| image(2, 2, std::iter::repeat_n(v, 12));
        assert_eq!(psnr(&flat(0.3), &flat(0.3)).unwrap(), f64::INFINITY);
        assert!((psnr(&flat(0.25), &flat(0.75)).unwrap() - 20.0 * 2f64.log10()).abs() < 1e-12);
        assert!(psnr(&flat(0.0), &flat(1.0)).unwrap().abs() < 1e-12);
        // 10 log10(1 / ((a - b)^2).mean()) in float64, on the images of ssim.rs.
        for (width, height, mixed, other) in [
            (11, 11, 19.965422305069843, 7.924222478510594),
            (17, 13, 19.652545738377114, 7.611345911817865),
            (31, 40, 19.735097165536196, 7.6938973389769485),
        ] {
            let (a, n) = (noise(width, height, 1), noise(width, height, 2));
            let mix = a.iter().zip(&n).map(|(a, n)| 0.75 * a + 0.25 * n);
            let b = image(width, height, mix);
            let a = image(width, height, a.iter().copied());
            let n = image(width, height, n.into_iter());
            assert!((psnr(&a, &b).unwrap() - mixed).abs() < 1e-5);
            assert!((psnr(&a, &n).unwrap() - other).abs() < 1e-5);
        }
    }
}
