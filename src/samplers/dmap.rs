//! DMAP: maximise the posterior on the sphere where the next state lies. Algorithm 2 on pixels,
//! Algorithm 4 on latents (equation 16).
//!
//! ```text
//! for t = T..1:
//!     mean, sigma = p(x_{t-1} | x_t);  w = mean + sigma n
//!     repeat K times:
//!         w = w - zeta grad_w || f(D(E[x0 | w])) - y ||       (the network at the next time)
//!         w = mean + sqrt(d) sigma (w - mean) / || w - mean ||
//!     x_{t-1} = w
//! ```
//!
//! The two lines of the loop are one op. At the last step sigma is zero: the sphere is the point `mean`, and no gradient is evaluated.

use super::{At, Problem, Sampler, tweedie};
use crate::cx::Cx;
use crate::diffusion::schedule::Step;
use crate::error::Result;
use crate::ops::{combine, sphere};
use crate::tensor::Tensor;

/// DMAP with `ascents` gradient steps of size `zeta`, in the coordinates of the steps.
#[derive(Clone, Copy, Debug)]
pub struct Dmap {
    /// The size of each gradient step.
    pub zeta: f64,
    /// K.
    pub ascents: usize,
    /// Project after every gradient step (the paper), or once after the last.
    pub project: Project,
}

/// When DMAP projects back onto the sphere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Project {
    /// After every gradient step.
    Each,
    /// After the last gradient step.
    Last,
}

impl Sampler for Dmap {
    fn step(&self, cx: &Cx, problem: &Problem<'_>, at: &At<'_>, x: Tensor) -> Result<Tensor> {
        let x0 = tweedie(cx, problem.denoiser, at.step, &x)?;
        (at.watch)("z0", &x0);
        let mean = combine::forward(cx, &[(at.step.mean.0, &x), (at.step.mean.1, &x0)])?;
        drop((x, x0));
        let (Some(next), true) = (at.next, ascends(at.step)) else {
            return at.draw(cx, &[(1.0, &mean)]);
        };
        let radius = (mean.shape().per_sample() as f64).sqrt() * at.step.sigma;
        let mut w = at.draw(cx, &[(1.0, &mean)])?;
        for k in 0..self.ascents {
            let g = at.guidance(cx, problem, next, &w)?;
            (at.watch)("loss", &g.loss);
            (at.watch)("grad", &g.grad);
            w = if self.project == Project::Each || k + 1 == self.ascents {
                sphere::forward(cx, &w, Some((-self.zeta, &g.grad)), &mean, radius)?
            } else {
                combine::forward(cx, &[(1.0, &w), (-self.zeta, &g.grad)])?
            };
        }
        Ok(w)
    }

    fn network_calls(&self, step: &Step) -> usize {
        match ascends(step) {
            true => 1 + self.ascents,
            false => 1,
        }
    }
}

/// Whether the sphere of a step is more than a point, and there is a next time.
fn ascends(step: &Step) -> bool {
    !step.is_last() && step.sigma > 0.0
}
