//! Diffusion posterior sampling: Algorithm 1 on pixels, Algorithm 3 on latents (equations 3 and 19).
//!
//! ```text
//! for t = T..1:
//!     x0 = E[x0 | x_t]
//!     x_{t-1} ~ p(x_{t-1} | x_t, x0)
//!     x_{t-1} = x_{t-1} - zeta grad_{x_t} || f(D(x0)) - y ||
//! ```
//!
//! The last two lines are one launch.

use super::{At, Guidance, Problem, Sampler};
use crate::cx::Cx;
use crate::error::Result;
use crate::tensor::Tensor;

/// DPS with step size `zeta`, in the coordinates of the steps.
#[derive(Clone, Copy, Debug)]
pub struct Dps {
    /// How far each step follows the gradient of the loss (not squared).
    pub zeta: f64,
}

impl Sampler for Dps {
    fn step(&self, cx: &Cx, problem: &Problem<'_>, at: &At<'_>, x: Tensor) -> Result<Tensor> {
        let (next, g) = self.follow(cx, problem, at, &x, 0)?;
        at.tell(&g);
        Ok(next)
    }
}

impl Dps {
    /// The step from `x` with the noise of this draw, and the gradient that it followed.
    pub(super) fn follow(
        &self,
        cx: &Cx,
        problem: &Problem<'_>,
        at: &At<'_>,
        x: &Tensor,
        draw: u32,
    ) -> Result<(Tensor, Guidance)> {
        let g = at.guidance(cx, problem, at.step, x)?;
        let (a, b) = at.step.mean;
        let terms = [(a, x), (b, &g.x0), (-self.zeta, &g.grad)];
        let next = at.noisy(cx, &terms, at.step.sigma, draw)?;
        Ok((next, g))
    }
}
