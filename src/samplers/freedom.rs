//! FreeDoM (Yu et al. 2023): DPS that goes back and forth between two times, equation 36.
//!
//! ```text
//! for t = T..1:
//!     repeat K times where c1 <= T - t <= c2, else once:
//!         x_{t-1} = DPS step from x_t
//!         x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) n       (but not after the last)
//! ```
//!
//! The way back is in the coordinates of the steps: in VE, `x_t = x_{t-1} + sqrt(s^2 - u^2) n`. Code of the paper's authors
//! moves VE states back by the VP formula above, and takes betas by the number of the step instead of its time.

use super::dps::Dps;
use super::{At, Problem, Sampler};
use crate::cx::Cx;
use crate::diffusion::schedule::Step;
use crate::error::Result;
use crate::tensor::Tensor;

/// FreeDoM as the paper compares it: without rescaling of the gradient.
#[derive(Clone, Copy, Debug)]
pub struct Freedom {
    /// The size of each gradient step.
    pub zeta: f64,
    /// K.
    pub repeats: usize,
    /// The first and the last step that are repeated, counted from the noisy end: c1 and c2.
    pub window: [usize; 2],
}

impl Freedom {
    fn repeats_at(&self, step: &Step) -> usize {
        let [first, last] = self.window;
        match (first..=last).contains(&step.index) {
            true => self.repeats.max(1),
            false => 1,
        }
    }
}

impl Sampler for Freedom {
    fn step(&self, cx: &Cx, problem: &Problem<'_>, at: &At<'_>, mut x: Tensor) -> Result<Tensor> {
        let dps = Dps { zeta: self.zeta };
        let last = self.repeats_at(at.step) as u32 - 1;
        let (forth, (keep, noise)) = (|k| 2 * k, at.step.back);
        for k in 0..last {
            let (next, _) = dps.follow(cx, problem, at, &x, forth(k))?;
            x = at.noisy(cx, &[(keep, &next)], noise, forth(k) + 1)?;
        }
        let (next, g) = dps.follow(cx, problem, at, &x, forth(last))?;
        at.tell(&g);
        Ok(next)
    }

    fn kind(&self, step: &Step) -> usize {
        self.repeats_at(step).min(2)
    }

    fn network_calls(&self, step: &Step) -> usize {
        self.repeats_at(step)
    }
}
