//! No guidance: the reverse process of the prior, ancestral (DDPM) or DDIM as the steps say.

use super::{At, Problem, Sampler, tweedie};
use crate::cx::Cx;
use crate::error::Result;
use crate::ops::combine;
use crate::tensor::Tensor;

/// The reverse process alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ancestral;

impl Sampler for Ancestral {
    fn step(&self, cx: &Cx, problem: &Problem<'_>, at: &At<'_>, x: Tensor) -> Result<Tensor> {
        let x0 = tweedie(cx, problem.denoiser, at.step, &x)?;
        (at.watch)("z0", &x0);
        transition(cx, at, &x, &x0)
    }
}

/// A draw from `p(x_{t-1} | x_t, x0)`.
pub(super) fn transition(cx: &Cx, at: &At<'_>, x: &Tensor, x0: &Tensor) -> Result<Tensor> {
    let (a, b) = at.step.mean;
    if at.step.sigma == 0.0 {
        return combine::forward(cx, &[(a, x), (b, x0)]);
    }
    combine::forward(cx, &[(a, x), (b, x0), (at.step.sigma, &(at.noise)(0)?)])
}
