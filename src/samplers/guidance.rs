//! The gradient that guidance follows: `d ||f(D(E[x0 | x])) - y|| / dx`, through network, decoder and operator.

use super::{At, Measurement, Problem, network_input, times};
use crate::cx::Cx;
use crate::diffusion::prior::Codec;
use crate::diffusion::schedule::Step;
use crate::error::{Error, Result};
use crate::ops::{combine, residual};
use crate::tensor::Tensor;

/// What one gradient evaluation yields.
#[derive(Debug)]
pub struct Guidance {
    /// `E[x0 | x]`.
    pub x0: Tensor,
    /// `||f(D(x0)) - y||` of each sample, `[n]`.
    pub loss: Tensor,
    /// Its gradient with respect to `x`, in the coordinates of `x`.
    pub grad: Tensor,
}

/// Evaluates loss and gradient at the state `x`, which is at the time of `step`.
///
/// # Errors
/// [`Error::Argument`] without a measurement; whatever the model or operator returns.
pub fn guidance(cx: &Cx, problem: &Problem<'_>, step: &Step, x: &Tensor) -> Result<Guidance> {
    let measurement = problem.measured()?;
    through_network(cx, problem, step, x, |x0| {
        misfit(cx, problem.codec, measurement, x0)
    })
}

/// The same for any loss of `x0` that `of` returns with its gradient.
pub(super) fn through_network(
    cx: &Cx,
    problem: &Problem<'_>,
    step: &Step,
    x: &Tensor,
    of: impl FnOnce(&Tensor) -> Result<(Tensor, Tensor)>,
) -> Result<Guidance> {
    let (a, b) = step.x0_from;
    let input = network_input(cx, step, x)?;
    let (prediction, pull_prediction) =
        problem
            .guide
            .predict_vjp(cx, &input, &times(cx, step, x)?)?;
    let x0 = combine::forward(cx, &[(a, x), (b, &prediction)])?;
    drop((input, prediction));

    let (loss, d_x0) = of(&x0)?;

    let d_prediction = combine::forward(cx, &[(b, &d_x0)])?;
    let d_input = pull_prediction(&d_prediction)?;
    let grad = combine::forward(cx, &[(a, &d_x0), (step.input, &d_input)])?;
    Ok(Guidance { x0, loss, grad })
}

/// `||f(D(x0)) - y||` of each sample, `[n]`, and its gradient with respect to `x0`.
///
/// # Errors
/// Whatever the codec or operator returns.
pub fn misfit(
    cx: &Cx,
    codec: &dyn Codec,
    measurement: Measurement<'_>,
    x0: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let (image, pull_image) = codec.decode_vjp(cx, x0)?;
    let f = measurement.operator.measure(cx, &image)?;
    let (loss, unit) = residual::forward(cx, &f, measurement.y)?;
    drop(f);
    let d_image = measurement.operator.vjp(cx, &image, &unit)?;
    drop((image, unit));
    Ok((loss, pull_image(&d_image)?))
}

impl At<'_> {
    /// [`guidance`] at the time of `step`, with what the problem follows in place of the gradient.
    pub(super) fn guidance(
        &self,
        cx: &Cx,
        problem: &Problem<'_>,
        step: &Step,
        x: &Tensor,
    ) -> Result<Guidance> {
        self.followed(cx, guidance(cx, problem, step, x)?)
    }

    /// The same evaluation with what is followed in place of the gradient.
    pub(super) fn followed(&self, cx: &Cx, g: Guidance) -> Result<Guidance> {
        let grad = self.following.of(cx, g.grad)?;
        Ok(Guidance { grad, ..g })
    }
}

impl<'a> Problem<'a> {
    /// The measurement.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is none.
    pub fn measured(&self) -> Result<Measurement<'a>> {
        self.measurement.ok_or_else(|| {
            let why = "guidance needs a measurement; use `ancestral` to sample the prior";
            Error::argument("method", why)
        })
    }
}
