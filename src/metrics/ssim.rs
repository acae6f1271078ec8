//! Structural similarity (Wang et al., 2004), as torchmetrics computes it with its defaults.
//! SSIM = mean of (2 ma mb + c1)(2 sab + c2) / ((ma^2 + mb^2 + c1)(saa + sbb + c2)): m, s are means and covariances
//! under an 11 x 11 Gaussian window (sigma 1.5), c1 = 0.01^2, c2 = 0.03^2, over windows that lie wholly inside.

use super::{comparable, unit};
use crate::error::{Error, Result};
use crate::io::image::Image;

/// The side of the window. torchmetrics pads by reflection and cuts the padded border off again, which leaves
/// the windows inside the image.
const WINDOW: usize = 11;
const SIGMA: f64 = 1.5;
const C1: f64 = 0.01 * 0.01;
const C2: f64 = 0.03 * 0.03;

/// The SSIM of two images of the same size, 11 x 11 or larger: the mean of the three channels'.
pub fn ssim(a: &Image, b: &Image) -> Result<f64> {
    comparable("ssim", a, b)?;
    if a.width < WINDOW || a.height < WINDOW {
        let got = format!("({}, {}, 3)", a.height, a.width);
        return Err(Error::shape("ssim", "(11 or more, 11 or more, 3)", got));
    }
    let sum: f64 = (0..3).map(|channel| ssim_channel(a, b, channel)).sum();
    Ok(sum / 3.0)
}

fn ssim_channel(a: &Image, b: &Image, channel: usize) -> f64 {
    let plane = |image: &Image| -> Vec<f64> {
        let values = image.pixels.iter().skip(channel).step_by(3);
        values.map(|&v| unit(v)).collect()
    };
    let (x, y) = (plane(a), plane(b));
    let product =
        |p: &[f64], q: &[f64]| -> Vec<f64> { p.iter().zip(q).map(|(p, q)| p * q).collect() };
    let blur = |p: &[f64]| blur(p, a.width, a.height);
    let (mx, my) = (blur(&x), blur(&y));
    let (xx, yy, xy) = (
        blur(&product(&x, &x)),
        blur(&product(&y, &y)),
        blur(&product(&x, &y)),
    );
    let mut sum = 0.0;
    for i in 0..mx.len() {
        // A variance a rounding error below 0 is 0.
        let sxx = (xx[i] - mx[i] * mx[i]).max(0.0);
        let syy = (yy[i] - my[i] * my[i]).max(0.0);
        let sxy = xy[i] - mx[i] * my[i];
        let above = (2.0 * mx[i] * my[i] + C1) * (2.0 * sxy + C2);
        let below = (mx[i] * mx[i] + my[i] * my[i] + C1) * (sxx + syy + C2);
        sum += above / below;
    }
    sum / mx.len() as f64
}

/// The Gaussian mean under each window inside a plane: rows first, then columns.
fn blur(plane: &[f64], width: usize, height: usize) -> Vec<f64> {
    let mut window = [0.0; WINDOW];
    for (i, w) in window.iter_mut().enumerate() {
        let d = (i as f64 - (WINDOW / 2) as f64) / SIGMA;
        *w = (-d * d / 2.0).exp();
    }
    let total: f64 = window.iter().sum();
    let mean = |at: &dyn Fn(usize) -> f64| -> f64 {
        let terms = window.iter().enumerate().map(|(i, w)| w * at(i));
        terms.sum::<f64>() / total
    };
    let (wide, high) = (width - WINDOW + 1, height - WINDOW + 1);
    let rows: Vec<f64> = (0..height * wide)
        .map(|i| mean(&|k| plane[i / wide * width + i % wide + k]))
        .collect(); // (height, wide)
    (0..high * wide)
        .map(|i| mean(&|k| rows[i + k * wide]))
        .collect() // (high, wide)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{image, noise};
    use super::*;

    // The goldens: torchmetrics' structural_similarity_index_measure(preds, target, data_range=1.0), its function
    // body written out on torch 2.11 in float64 (torchmetrics itself was not installed):
    //   d = arange(-5, 6); k = exp(-(d / 1.5)**2 / 2); k /= k.sum(); kernel = outer(k, k), one for each channel
    //   p, t = pad(p, 5, "reflect"), pad(t, 5, "reflect")
    //   mp, mt, pp, tt, pt = conv2d of p, t, p p, t t, p t
    //   full = ((2 mp mt + c1)(2 (pt - mp mt) + c2)) / ((mp^2 + mt^2 + c1)(clamp(pp - mp^2, 0) + clamp(tt - mt^2, 0) + c2))
    //   full[..., 5:-5, 5:-5].mean()
    // a, n = noise of seeds 1, 2 (height, width, 3); columns: (a, 0.75 a + 0.25 n), (a, n), (0.5 everywhere, n).
    const GOLDEN: [(usize, usize, [f64; 3]); 3] = [
        (
            11,
            11,
            [
                0.9165807145101206,
                -0.08221607126779905,
                0.012648304418930981,
            ],
        ),
        (
            17,
            13,
            [
                0.9081733010681687,
                -0.08702508874497027,
                0.010863316783136418,
            ],
        ),
        (
            31,
            40,
            [
                0.918789569296408,
                0.0018772878649418435,
                0.010676682748775606,
            ],
        ),
    ];

    #[test]
    fn against_torchmetrics() {
        for (width, height, want) in GOLDEN {
            let (a, n) = (noise(width, height, 1), noise(width, height, 2));
            let mix = a.iter().zip(&n).map(|(a, n)| 0.75 * a + 0.25 * n);
            let mix = image(width, height, mix);
            let flat = image(width, height, std::iter::repeat_n(0.5, a.len()));
            let a = image(width, height, a.into_iter());
            let n = image(width, height, n.into_iter());
            // The images are f32, the goldens' were not: 2^-24 in each value.
            for ((x, y), want) in [(&a, &mix), (&a, &n), (&flat, &n)].into_iter().zip(want) {
                let got = ssim(x, y).unwrap();
                assert!(
                    (got - want).abs() < 1e-6,
                    "{width} x {height}: {got} {want}"
                );
            }
            assert!((ssim(&a, &a).unwrap() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn flat_images_follow_the_formula() {
        let flat = |v: f64| image(12, 12, std::iter::repeat_n(v, 432));
        let want = (2.0 * 0.25 * 0.75 + C1) / (0.0625 + 0.5625 + C1);
        assert!((ssim(&flat(0.25), &flat(0.75)).unwrap() - want).abs() < 1e-9);
    }

    #[test]
    fn too_small_is_an_error() {
        let small = image(10, 30, std::iter::repeat_n(0.5, 900));
        let text = ssim(&small, &small).unwrap_err().to_string();
        assert!(text.contains("11 or more"), "{text}");
    }
}
