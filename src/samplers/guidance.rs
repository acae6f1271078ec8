//! The gradient that guidance follows: `d ||f(D(E[x0 | x])) - y|| / dx`, through network, decoder and operator.

use super::{Problem, network_input, times};
use crate::cx::Cx;
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
    let measurement = problem.measurement.ok_or_else(|| {
        Error::argument(
            "method",
            "guidance needs a measurement; use `ancestral` to sample the prior",
        )
    })?;
    let (a, b) = step.x0_from;

    let input = network_input(cx, step, x)?;
    let (prediction, pull_prediction) =
        problem
            .guide
            .predict_vjp(cx, &input, &times(cx, step, x)?)?;
    let x0 = combine::forward(cx, &[(a, x), (b, &prediction)])?;
    drop((input, prediction));
    let (image, pull_image) = problem.codec.decode_vjp(cx, &x0)?;
    let f = measurement.operator.measure(cx, &image)?;
    let (loss, unit) = residual::forward(cx, &f, measurement.y)?;
    drop(f);

    let d_image = measurement.operator.vjp(cx, &image, &unit)?;
    drop((image, unit));
    let d_x0 = pull_image(&d_image)?;
    drop(d_image);
    let d_prediction = combine::forward(cx, &[(b, &d_x0)])?;
    let d_input = pull_prediction(&d_prediction)?;
    let grad = combine::forward(cx, &[(a, &d_x0), (step.input, &d_input)])?;
    Ok(Guidance { x0, loss, grad })
}
