//! ReSample (Song et al. 2023): DPS that now and then solves for the measurement and goes back to the noise level from
//! there, equations 37 to 39.
//!
//! ```text
//! for t = T..1:
//!     z_{t-1} = DPS step from z_t;  z0 = E[z0 | z_t]
//!     after every N-th step, but the last:
//!         z* = argmin 1/2 || f(D(z)) - y ||^2 from z0              (latent stage, K steps of descent)
//!         z* = E(argmin 1/2 || f(x) - y ||^2) from x = D(z0)       (pixel stage)
//!         eta = 40 (1 - abar_{t-1}) / (1 - abar_t) (1 - abar_t / abar_{t-1})
//!         z_{t-1} ~ N((eta sqrt(abar) z* + (1 - abar) z_{t-1}) / (eta + 1 - abar), eta (1 - abar) / (eta + 1 - abar)),  abar = abar_{t-1}
//! ```
//!
//! So the original. Equation 39 as printed gives each mean the other's weight, takes abar at t, and z0 for `z_{t-1}`:
//! [`Blend::Printed`]. The printed norm of equation 37 is not squared. Code of the paper's authors takes eta by the number of
//! the step, and the formula above, which is of VP states, for VE states; here they are rescaled.

use super::dps::Dps;
use super::{At, Problem, Sampler, misfit};
use crate::cx::Cx;
use crate::diffusion::schedule::Step;
use crate::error::Result;
use crate::ops::adamw::{self, State};
use crate::ops::{cast, combine, residual};
use crate::tensor::Tensor;

/// ReSample.
#[derive(Clone, Copy, Debug)]
pub struct Resample {
    /// The size of the gradient steps of DPS.
    pub zeta: f64,
    /// N: resamples after every so many steps; 0 for never.
    pub every: usize,
    /// How it solves, and what it makes of that.
    pub solve: Solve,
}

/// How ReSample solves for the measurement, and goes back to the noise level from there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Solve {
    /// Where it solves.
    pub stages: Stages,
    /// K: steps of descent; with 0 there is nothing to resample from, and this is DPS.
    pub iterations: usize,
    /// The size of a step of descent.
    pub rate: f64,
    /// How it descends.
    pub descent: Descent,
    /// The factor of eta, 40.
    pub strength: f64,
    /// How z* and the state are combined.
    pub blend: Blend,
}

/// Where ReSample solves for the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stages {
    /// In the space of the states.
    Latent,
    /// In the space of images, which are then encoded.
    Pixel,
    /// As the original: not in the first third of the run, on pixels in the second, on states in the last.
    Both,
}

/// How ReSample descends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descent {
    /// `v -= rate g`.
    Gradient,
    /// Adam with the usual decay rates, 0.9 and 0.999.
    Adam,
}

/// How ReSample combines z* and the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blend {
    /// `(eta sqrt(abar) z* + (1 - abar) z_{t-1}) / (eta + 1 - abar)`, abar at t - 1.
    Original,
    /// Equation 39 as printed: `(eta sqrt(abar) z0 + (1 - abar) z*) / (eta + 1 - abar)`, abar at t.
    Printed,
}

impl Sampler for Resample {
    fn step(&self, cx: &Cx, problem: &Problem<'_>, at: &At<'_>, x: Tensor) -> Result<Tensor> {
        let (next, g) = Dps { zeta: self.zeta }.follow(cx, problem, at, &x, 0)?;
        at.tell(&g);
        drop(x);
        let x0 = g.x0;
        let solved = match self.stage(at.step) {
            None => return Ok(next),
            Some(Stage::Latent) => self.on_latents(cx, problem, &x0)?,
            Some(Stage::Pixel) => self.on_pixels(cx, problem, &x0)?,
        };
        let (now, then) = (at.step.alpha_bar, at.step.alpha_bar_next);
        let eta = self.solve.strength * (1.0 - then) / (1.0 - now) * (1.0 - now / then);
        let scale = at.step.scale_next / then.sqrt(); // from VP to the coordinates of the steps
        let abar = match self.solve.blend {
            Blend::Original => then,
            Blend::Printed => now,
        };
        let sum = eta + 1.0 - abar;
        let terms = match self.solve.blend {
            Blend::Original => [
                (scale * eta * abar.sqrt() / sum, &solved),
                ((1.0 - abar) / sum, &next),
            ],
            Blend::Printed => [
                (scale * eta * abar.sqrt() / sum, &x0),
                (scale * (1.0 - abar) / sum, &solved),
            ],
        };
        at.noisy(cx, &terms, scale * (eta * (1.0 - abar) / sum).sqrt(), 1)
    }

    fn kind(&self, step: &Step) -> usize {
        match self.stage(step) {
            None => 0,
            Some(Stage::Latent) => 1,
            Some(Stage::Pixel) => 2,
        }
    }
}

enum Stage {
    Latent,
    Pixel,
}

impl Resample {
    fn stage(&self, step: &Step) -> Option<Stage> {
        let due = self.every > 0 && (step.index + 1).is_multiple_of(self.every);
        if !due || step.is_last() || self.solve.iterations == 0 {
            return None;
        }
        match self.solve.stages {
            Stages::Latent => Some(Stage::Latent),
            Stages::Pixel => Some(Stage::Pixel),
            Stages::Both => match 3 * step.index / step.of {
                0 => None,
                1 => Some(Stage::Pixel),
                _ => Some(Stage::Latent),
            },
        }
    }

    fn on_latents(&self, cx: &Cx, problem: &Problem<'_>, x0: &Tensor) -> Result<Tensor> {
        let measurement = problem.measured()?;
        self.descend(cx, x0, |v| {
            let (loss, grad) = misfit(cx, problem.codec, measurement, v)?;
            times_loss(cx, &loss, &grad)
        })
    }

    fn on_pixels(&self, cx: &Cx, problem: &Problem<'_>, x0: &Tensor) -> Result<Tensor> {
        let m = problem.measured()?;
        let forward = &cx.forward_only();
        let image = problem.codec.decode(forward, x0)?;
        let image = cast::forward(cx, &image, cx.dtype())?;
        let image = self.descend(cx, &image, |v| {
            let f = m.operator.measure(cx, v)?;
            let (loss, unit) = residual::forward(cx, &f, m.y)?;
            let grad = m.operator.vjp(cx, v, &unit)?;
            times_loss(cx, &loss, &grad)
        })?;
        Ok(problem.codec.encode_vjp(forward, &image)?.0)
    }

    /// The steps of descent from `start`.
    fn descend(
        &self,
        cx: &Cx,
        start: &Tensor,
        gradient: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let zero = || combine::forward(cx, &[(0.0, start)]);
        let mut v = combine::forward(cx, &[(1.0, start)])?;
        match self.solve.descent {
            Descent::Gradient => {
                for _ in 0..self.solve.iterations {
                    let g = gradient(&v)?;
                    v = combine::forward(cx, &[(1.0, &v), (-self.solve.rate, &g)])?;
                }
            }
            Descent::Adam => {
                let (mean, square) = (zero()?, zero()?);
                let settings = adamw::Settings {
                    beta1: 0.9,
                    beta2: 0.999,
                    eps: 1e-8,
                };
                for t in 1..=self.solve.iterations as u32 {
                    let g = gradient(&v)?;
                    let now = settings.coefficients(t, self.solve.rate, 0.0, 1.0);
                    let state = State {
                        w: &v,
                        m: &mean,
                        v: &square,
                        copy: None,
                    };
                    adamw::step(cx, settings, state, &g, &cx.upload_wide(&now, [now.len()])?)?;
                }
            }
        }
        Ok(v)
    }
}

/// From the gradient of a norm to that of half its square.
fn times_loss(cx: &Cx, loss: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let n = loss.shape().samples();
    combine::per_sample(cx, &loss.view([n, 1])?, &[grad], None)
}
