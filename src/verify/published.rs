//! [`Published`]: an operator with what published code of PSLD takes for its adjoint.

use crate::cx::Cx;
use crate::error::Result;
use crate::operators::Operator;
use crate::ops::upsample;
use crate::tensor::Tensor;

/// For super-resolution pixels repeated, for a blur the measurement itself; a mask is its own adjoint.
pub(super) struct Published<'a> {
    operator: &'a dyn Operator,
    /// How often both sides of the measurement are doubled; `None` for the adjoint.
    doublings: Option<u32>,
}

impl<'a> Published<'a> {
    /// For the operator of a task.
    pub(super) fn new(task: &str, operator: &'a dyn Operator) -> Self {
        let factor = task
            .strip_prefix("sr")
            .and_then(|factor| factor.parse::<u32>().ok());
        let doublings = match factor {
            Some(factor) => Some(factor.ilog2()),
            None => task.starts_with("blur").then_some(0),
        };
        Published {
            operator,
            doublings,
        }
    }
}

impl Operator for Published<'_> {
    fn measurement_shape(&self) -> [usize; 3] {
        self.operator.measurement_shape()
    }

    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.operator.measure(cx, x)
    }

    fn vjp(&self, cx: &Cx, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        self.operator.vjp(cx, x, dy)
    }

    fn adjoint(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        match self.doublings {
            Some(n) => (0..n).try_fold(y.clone(), |y, _| upsample::forward(cx, &y)),
            None => self.operator.adjoint(cx, y),
        }
    }

    fn adjoint_vjp(&self, cx: &Cx, dx: &Tensor) -> Result<Tensor> {
        match self.doublings {
            Some(n) => (0..n).try_fold(dx.clone(), |dx, _| upsample::vjp(cx, &dx)),
            None => self.operator.adjoint_vjp(cx, dx),
        }
    }

    fn pinv(&self, cx: &Cx, y: &Tensor) -> Result<Option<Tensor>> {
        self.operator.pinv(cx, y)
    }

    fn condition(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        self.operator.condition(cx, y)
    }
}
