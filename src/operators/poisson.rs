//! Poisson noise: photons that are counted. A value y in [-1, 1] stands for `127.5 (y + 1)` of 256 levels, below 0 for none; of
//! `rate` photons a level, k come, and `k / (127.5 rate) - 1` is measured (as in DPS, `guided_diffusion/measurements.py`).

use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::rng::{self, Stream};
use crate::tensor::Tensor;

/// The most photons of a level: of more than 700 photons in all, e^-700 is too small a number.
pub const MOST: f64 = 2.5;
const LEVELS: f64 = 127.5;

/// Whether a rate is usable.
///
/// # Errors
/// [`Error::Argument`] when it is not above 0 and at most [`MOST`].
pub fn check(rate: f64) -> Result<()> {
    if rate > 0.0 && rate <= MOST {
        return Ok(());
    }
    let why = format!("wanted more than 0 and at most {MOST} photons a level, got {rate:?}");
    Err(Error::argument("poisson", why))
}

/// What is counted where `y` shines: element i of one sample comes from element i of the uniform field at step
/// [`rng::MEASUREMENT`], draw 1, of its stream. Values above 1 count as 1.
///
/// # Errors
/// [`Error::Argument`] when the rate is not usable.
pub fn count(cx: &Cx, y: &Tensor, rate: f64, stream: Stream) -> Result<Tensor> {
    check(rate)?;
    let mut values = y.to_f64()?;
    let mut uniforms = vec![0.0f64; values.len()];
    stream.uniforms(rng::MEASUREMENT, 1, &mut uniforms);
    for (y, u) in values.iter_mut().zip(uniforms) {
        let mean = rate * LEVELS * (y.clamp(-1.0, 1.0) + 1.0);
        *y = quantile(mean, u) / (rate * LEVELS) - 1.0;
    }
    cx.upload(&values, y.shape())
}

/// The smallest k whose distribution function reaches u, which is below 1.
fn quantile(mean: f64, u: f64) -> f64 {
    let mut k = 0.0;
    let mut probability = (-mean).exp();
    let mut reached = probability;
    // Far in the tail the sum stands still below 1.
    let last = mean + 40.0 * (mean + 1.0).sqrt();
    while reached < u && k < last {
        k += 1.0;
        probability *= mean / k;
        reached += probability;
    }
    k
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance are both lambda: within five standard errors, whose squares are lambda / n and
    /// (lambda + 2 lambda^2) / n.
    #[test]
    fn counts_are_of_poisson() {
        let n = 40_000;
        for mean in [0.0, 0.3, 7.0, 120.0, 637.0] {
            let mut uniforms = vec![0.0f64; n];
            Stream::new(1, 2, 3).uniforms(0, 0, &mut uniforms);
            let counts: Vec<f64> = uniforms.iter().map(|u| quantile(mean, *u)).collect();
            let average = counts.iter().sum::<f64>() / n as f64;
            let variance = counts.iter().map(|k| (k - average).powi(2)).sum::<f64>() / n as f64;
            let error = |square: f64| 5.0 * (square / n as f64).sqrt() + 1e-12;
            assert!(
                (average - mean).abs() < error(mean),
                "{mean}: mean {average}"
            );
            let spread = mean + 2.0 * mean * mean;
            assert!(
                (variance - mean).abs() < error(spread),
                "{mean}: variance {variance}"
            );
        }
    }

    #[test]
    fn quantiles_of_a_small_mean() {
        // P(0) = 0.3679, P(1) = 0.3679, P(2) = 0.1839
        for (u, want) in [
            (0.36, 0.0),
            (0.37, 1.0),
            (0.735, 1.0),
            (0.736, 2.0),
            (0.9197, 3.0),
        ] {
            assert_eq!(quantile(1.0, u), want);
        }
    }
}
