//! [`Mixture`]: two Gaussians in the plane under VE noise, in closed form: the denoiser of the paper's toy (A.4).
//!
//! With noise sigma, component k has variances `v_i = c_i + sigma^2` about its mean, and responsibility
//! `r_k ~ w_k N(x; m_k, v)`. Then `E[x0 | x] = sum_k r_k e_k` with `e_ki = m_ki + c_i / v_i (x_i - m_ki)`.

use std::array;

use crate::cx::Cx;
use crate::diffusion::prior::{Denoiser, Pullback};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A point or a direction of the plane.
pub type Point = [f64; 2];

/// A mixture of two Gaussians that differ by their means alone. As a [`Denoiser`] it takes states `[n, 1, 2, 1]` of
/// [`steps_through`](crate::diffusion::schedule::steps_through), whose t is sigma, and computes on the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixture {
    /// Their weights, sum 1.
    pub weights: [f64; 2],
    /// Their means.
    pub means: [Point; 2],
    /// The variance of both in each coordinate.
    pub variances: Point,
}

impl Mixture {
    /// The toy's prior: equal weights, means (-1, -1) and (1, 1), this standard deviation.
    pub fn toy(std: f64) -> Self {
        Mixture {
            weights: [0.5; 2],
            means: [[-1.0; 2], [1.0; 2]],
            variances: [std * std; 2],
        }
    }

    /// The posterior given `x_1 + sigma n = y`: a mixture again. Without noise its first variance is 0.
    pub fn given_first(&self, y: f64, sigma: f64) -> Self {
        let (c, noise) = (self.variances[0], sigma * sigma);
        let evidence: [f64; 2] = array::from_fn(|k| {
            let from_mean = y - self.means[k][0];
            self.weights[k].ln() - 0.5 * from_mean * from_mean / (c + noise)
        });
        let kept = noise / (c + noise);
        Mixture {
            weights: shares(evidence),
            means: self
                .means
                .map(|[first, second]| [y + kept * (first - y), second]),
            variances: [c * kept, self.variances[1]],
        }
    }

    /// `E[x0 | x]` under noise sigma, and its Jacobian.
    pub fn denoise(&self, x: Point, sigma: f64) -> (Point, [Point; 2]) {
        let v = self.variances.map(|c| c + sigma * sigma);
        let keep: Point = array::from_fn(|i| self.variances[i] / v[i]);
        let from = |k: usize, i: usize| x[i] - self.means[k][i];
        let r = shares(array::from_fn(|k| {
            let far = |i: usize| from(k, i) * from(k, i) / v[i];
            self.weights[k].ln() - 0.5 * (far(0) + far(1))
        }));
        let mean_of = |of: &dyn Fn(usize) -> f64| r[0] * of(0) + r[1] * of(1);
        let e = |k: usize, i: usize| self.means[k][i] + keep[i] * from(k, i);
        let g = |k: usize, j: usize| -from(k, j) / v[j];
        let mean: Point = array::from_fn(|i| mean_of(&|k| e(k, i)));
        let slope: Point = array::from_fn(|j| mean_of(&|k| g(k, j)));
        let jacobian = array::from_fn(|i| {
            array::from_fn(|j| {
                let straight = if i == j { keep[i] } else { 0.0 };
                straight + mean_of(&|k| (e(k, i) - mean[i]) * (g(k, j) - slope[j]))
            })
        });
        (mean, jacobian)
    }

    /// The prediction at every VP state, and the Jacobian of each.
    fn predictions(x: &Tensor, t: &Tensor, of: &Self) -> Result<Vec<(Point, [Point; 2])>> {
        if x.shape().per_sample() != 2 {
            return Err(Error::shape("mixture", "[n, 1, 2, 1]", x.shape()));
        }
        let (x, t) = (x.to_f64()?, t.to_f64()?);
        let one = |(x, sigma): (&[f64], f64)| {
            // To VE; eps = (x - E) / sigma.
            let widen = (1.0 + sigma * sigma).sqrt();
            let x = [widen * x[0], widen * x[1]];
            let (mean, jacobian) = of.denoise(x, sigma);
            let eps = array::from_fn(|i| (x[i] - mean[i]) / sigma);
            let slope = array::from_fn(|i| {
                array::from_fn(|j| {
                    let straight = if i == j { 1.0 } else { 0.0 };
                    widen * (straight - jacobian[i][j]) / sigma
                })
            });
            (eps, slope)
        };
        Ok(x.chunks_exact(2).zip(t).map(one).collect())
    }
}

/// Numbers of sum 1 in proportion to the exponentials of these.
fn shares(logs: [f64; 2]) -> [f64; 2] {
    let second = 1.0 / (1.0 + (logs[0] - logs[1]).exp());
    let first = 1.0 / (1.0 + (logs[1] - logs[0]).exp());
    [first, second]
}

impl Denoiser for Mixture {
    fn predict(&self, cx: &Cx, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        let all = Self::predictions(x, t, self)?;
        let eps: Vec<f64> = all.iter().flat_map(|(eps, _)| *eps).collect();
        cx.upload(&eps, x.shape())
    }

    fn predict_vjp<'a>(
        &'a self,
        cx: &'a Cx,
        x: &Tensor,
        t: &Tensor,
    ) -> Result<(Tensor, Pullback<'a>)> {
        let all = Self::predictions(x, t, self)?;
        let eps: Vec<f64> = all.iter().flat_map(|(eps, _)| *eps).collect();
        let shape = x.shape();
        let pull = move |dy: &Tensor| {
            let dy = dy.to_f64()?;
            let back = |((_, slope), dy): (&(Point, [Point; 2]), &[f64])| -> Point {
                array::from_fn(|j| slope[0][j] * dy[0] + slope[1][j] * dy[1])
            };
            let dx: Vec<f64> = all.iter().zip(dy.chunks_exact(2)).flat_map(back).collect();
            cx.upload(&dx, shape)
        };
        Ok((cx.upload(&eps, shape)?, Box::new(pull)))
    }
}
