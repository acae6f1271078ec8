//! DSG, diffusion with spherical Gaussian constraint (Yang et al. 2024): equations 40 and 41.
//!
//! ```text
//! for t = T..1:
//!     mean, sigma = p(x_{t-1} | x_t);  g = grad_{x_t} || f(D(E[x0 | x_t])) - y ||
//!     u* = - sqrt(d) sigma g / ||g||
//!     u  = sigma n + rate (u* - sigma n)
//!     x_{t-1} = mean + sqrt(d) sigma u / ||u||
//! ```
//!
//! At the last step sigma is zero: the sphere is the point `mean`. Published code adds 1e-8 to both norms; here a zero
//! gradient or direction leaves `mean` instead.

use super::ancestral::Ancestral;
use super::{At, Problem, Sampler};
use crate::cx::Cx;
use crate::error::Result;
use crate::ops::{combine, sphere};
use crate::tensor::Tensor;

/// DSG.
#[derive(Clone, Copy, Debug)]
pub struct Dsg {
    /// From 0, the noise alone, to 1, the gradient alone.
    pub rate: f64,
    /// Guidance at every so many steps, the first among them; 1 in the paper.
    pub interval: usize,
}

impl Sampler for Dsg {
    fn step(&self, cx: &Cx, problem: &Problem<'_>, at: &At<'_>, x: Tensor) -> Result<Tensor> {
        if !at.step.index.is_multiple_of(self.interval.max(1)) {
            return Ancestral.step(cx, problem, at, x);
        }
        let g = at.guidance(cx, problem, at.step, &x)?;
        at.tell(&g);
        let (a, b) = at.step.mean;
        let mean = combine::forward(cx, &[(a, &x), (b, &g.x0)])?;
        if at.step.sigma == 0.0 {
            return Ok(mean);
        }
        let radius = (mean.shape().per_sample() as f64).sqrt() * at.step.sigma;
        let steepest = sphere::forward(cx, &mean, Some((-1.0, &g.grad)), &mean, radius)?;
        let drawn = at.draw(cx, &[(1.0, &mean)])?;
        let between = combine::forward(cx, &[(1.0 - self.rate, &drawn), (self.rate, &steepest)])?;
        sphere::forward(cx, &between, None, &mean, radius)
    }
}
