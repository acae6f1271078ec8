//! Denoising: the image itself is measured, and only the noise is to be removed.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Operator, Task, TaskKind, expect_image};
use crate::cx::Cx;
use crate::error::Result;
use crate::tensor::Tensor;

const WHAT: &str = "denoising";

pub(super) const KIND: TaskKind = TaskKind {
    name: "denoise",
    syntax: "denoise",
    doc: "the image itself, with noise",
    parse: |rest| {
        rest.is_empty()
            .then_some(Task::Denoising(Parameters::default()))
    },
};

/// There is nothing to choose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("denoise")
    }
}

impl super::Parameters for Parameters {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn build(&self, _: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Identity { size }))
    }
}

/// `y = x`.
struct Identity {
    size: [usize; 2],
}

impl Identity {
    fn apply(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, x, self.measurement_shape())?;
        Ok(x.clone())
    }
}

impl Operator for Identity {
    fn measurement_shape(&self) -> [usize; 3] {
        [self.size[0], self.size[1], 3]
    }

    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.apply(cx, x)
    }

    fn vjp(&self, cx: &Cx, _: &Tensor, dy: &Tensor) -> Result<Tensor> {
        self.apply(cx, dy)
    }

    fn pinv(&self, cx: &Cx, y: &Tensor) -> Result<Option<Tensor>> {
        self.apply(cx, y).map(Some)
    }

    fn condition(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        self.apply(cx, y)
    }
}
