//! Percentile bootstrap intervals of means (Efron, "Bootstrap methods: another look at the jackknife", 1979).

use crate::rng::{Stream, image_key};

/// Means of this many resamples.
pub const RESAMPLES: u32 = 10_000;

/// What lies below the interval, and above it.
const TAIL: f64 = 0.025;

/// A mean and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The mean of the values.
    pub mean: f64,
    /// The 2.5th percentile of the means of resamples.
    pub low: f64,
    /// The 97.5th.
    pub high: f64,
}

/// The mean of the values with its interval over resamples of as many values, drawn with replacement; none of
/// no values. The same values give the same interval.
pub fn mean(values: &[f64]) -> Option<Interval> {
    let last = values.len().checked_sub(1)?;
    let n = values.len() as f64;
    let stream = Stream::new(0, image_key("bootstrap"), 0);
    let mut u = vec![0.0_f64; values.len()];
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|resample| {
            stream.uniforms(0, resample, &mut u);
            let drawn = u.iter().map(|u| values[((u * n) as usize).min(last)]);
            drawn.sum::<f64>() / n
        })
        .collect();
    means.sort_by(f64::total_cmp);
    Some(Interval {
        mean: values.iter().sum::<f64>() / n,
        low: quantile(&means, TAIL),
        high: quantile(&means, 1.0 - TAIL),
    })
}

/// A quantile of sorted values, between two of them by a straight line.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    // Also where both are the same infinity.
    if below == above {
        return below;
    }
    below + (at - at.floor()) * (above - below)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of a resample of n values has the variance s^2 / n (s^2 with divisor n), and is nearly normal.
    #[test]
    fn of_normal_data_it_is_the_normal_interval() {
        let n = 400;
        for seed in 0..4 {
            let mut x = vec![0.0_f64; n];
            Stream::new(seed, 1, 0).normals(0, 0, &mut x);
            x.iter_mut().for_each(|v| *v = 20.0 + 3.0 * *v);
            let mean_of = |f: &dyn Fn(f64) -> f64| x.iter().map(|v| f(*v)).sum::<f64>() / n as f64;
            let m = mean_of(&|v| v);
            let error = (mean_of(&|v| (v - m).powi(2)) / n as f64).sqrt();
            let got = mean(&x).unwrap();
            // The standard error of a percentile p of B draws is sqrt(p (1 - p) / B) / density: 0.027 of `error`.
            let bound = 5.0 * 0.027 * error;
            assert!((got.mean - m).abs() < 1e-12);
            assert!((got.low - (m - 1.96 * error)).abs() < bound, "{got:?}");
            assert!((got.high - (m + 1.96 * error)).abs() < bound, "{got:?}");
        }
    }

    /// Of 0, 0, 0, 1 the mean is k / 4 with the binomial probabilities of B(4, 1/4): P(k = 0) = 0.316,
    /// P(k >= 3) = 0.051, P(k = 4) = 0.004.
    #[test]
    fn of_few_values_it_is_the_binomial() {
        let Interval { mean, low, high } = mean(&[0.0, 0.0, 0.0, 1.0]).unwrap();
        assert_eq!((mean, low, high), (0.25, 0.0, 0.75));
    }

    #[test]
    fn constants_one_value_and_none() {
        let of = |mean| Interval {
            mean,
            low: mean,
            high: mean,
        };
        assert_eq!(mean(&[2.5; 7]), Some(of(2.5)));
        assert_eq!(mean(&[-1.7]), Some(of(-1.7)));
        assert_eq!(mean(&[f64::INFINITY; 3]), Some(of(f64::INFINITY)));
        assert_eq!(mean(&[]), None);
    }
}
