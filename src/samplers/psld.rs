//! PSLD (Rout et al. 2024): DPS with a second loss that asks the autoencoder to keep what was measured, equation 35.
//!
//! ```text
//! for t = T..1:
//!     z0 = E[z0 | z_t]
//!     z_{t-1} ~ p(z_{t-1} | z_t, z0)
//!     z_{t-1} = z_{t-1} - zeta  grad_{z_t} || f(D(z0)) - y ||
//!                       - gamma grad_{z_t} || z0 - E(f^T y + D(z0) - f^T f(D(z0))) ||
//! ```
//!
//! The printed equation lacks the decoder in its first loss. `f^T` is the adjoint: published code enlarges by repeating pixels for
//! super-resolution, and takes the identity for blurs. E is the mean of the encoder; published code draws from it.

use super::guidance::through_network;
use super::{At, Measurement, Problem, Sampler};
use crate::cx::Cx;
use crate::diffusion::prior::Codec;
use crate::error::Result;
use crate::ops::{cast, combine, residual};
use crate::tensor::Tensor;

/// PSLD, for linear operators.
#[derive(Clone, Copy, Debug)]
pub struct Psld {
    /// What the distance to the measurement counts.
    pub zeta: f64,
    /// What the gluing loss counts.
    pub gamma: f64,
}

impl Sampler for Psld {
    fn step(&self, cx: &Cx, problem: &Problem<'_>, at: &At<'_>, x: Tensor) -> Result<Tensor> {
        let measurement = problem.measured()?;
        let g = through_network(cx, problem, at.step, &x, |x0| {
            let both = self.losses(cx, problem.codec, measurement, x0)?;
            (at.watch)("glue", &both.glue);
            Ok((both.misfit, both.grad))
        })?;
        let g = at.followed(cx, g)?;
        at.tell(&g);
        let (a, b) = at.step.mean;
        at.draw(cx, &[(a, &x), (b, &g.x0), (-1.0, &g.grad)])
    }
}

/// Both losses of a clean state.
#[derive(Debug)]
pub struct Losses {
    /// `||f(D(x0)) - y||`, `[n]`.
    pub misfit: Tensor,
    /// `||x0 - E(f^T y + D(x0) - f^T f(D(x0)))||`, `[n]`.
    pub glue: Tensor,
    /// The gradient of `zeta misfit + gamma glue` with respect to `x0`.
    pub grad: Tensor,
}

impl Psld {
    /// # Errors
    /// Whatever the codec or operator returns; operators that are not linear have no adjoint.
    pub fn losses(
        &self,
        cx: &Cx,
        codec: &dyn Codec,
        Measurement { operator, y }: Measurement<'_>,
        x0: &Tensor,
    ) -> Result<Losses> {
        let (image, pull_image) = codec.decode_vjp(cx, x0)?;
        let image = cast::forward(cx, &image, cx.dtype())?;
        let f = operator.measure(cx, &image)?;
        let (misfit, unit) = residual::forward(cx, &f, y)?;

        let of_y = operator.adjoint(cx, y)?;
        let of_f = operator.adjoint(cx, &f)?;
        let glued = combine::forward(cx, &[(1.0, &of_y), (1.0, &image), (-1.0, &of_f)])?;
        drop((f, of_y, of_f));
        let (encoded, pull_encoded) = codec.encode_vjp(cx, &glued)?;
        let (glue, gap) = residual::forward(cx, x0, &encoded)?;
        drop((glued, encoded));

        let d_encoded = combine::forward(cx, &[(-self.gamma, &gap)])?;
        let d_glued = pull_encoded(&d_encoded)?;
        let back = operator.adjoint_vjp(cx, &d_glued)?;
        let d_f = combine::forward(cx, &[(self.zeta, &unit), (-1.0, &back)])?;
        let through_f = operator.vjp(cx, &image, &d_f)?;
        drop((image, unit, back, d_f));
        let d_image = combine::forward(cx, &[(1.0, &d_glued), (1.0, &through_f)])?;
        let through_image = pull_image(&d_image)?;
        let grad = combine::forward(cx, &[(self.gamma, &gap), (1.0, &through_image)])?;
        Ok(Losses { misfit, glue, grad })
    }
}
