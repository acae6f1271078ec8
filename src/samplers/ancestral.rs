//! No guidance: the reverse process of the prior, ancestral (DDPM) or DDIM as the steps say.

use super::{At, Problem, Sampler, tweedie};
use crate::cx::Cx;
use crate::error::Result;
use crate::tensor::Tensor;

/// The reverse process alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ancestral;

impl Sampler for Ancestral {
    fn step(&self, cx: &Cx, problem: &Problem<'_>, at: &At<'_>, x: Tensor) -> Result<Tensor> {
        let x0 = tweedie(cx, problem.denoiser, at.step, &x)?;
        (at.watch)("z0", &x0);
        let (a, b) = at.step.mean;
        at.draw(cx, &[(a, &x), (b, &x0)])
    }
}
