//! Colourisation: of the colours only the brightness is measured, the same in all three channels.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::matrix::Banded;
use super::{Operator, Task, TaskKind, expect_image};
use crate::cx::Cx;
use crate::error::Result;
use crate::ops::banded::{self, Matrix};
use crate::tensor::Tensor;

const WHAT: &str = "colorization";
/// Rec. 601.
const BRIGHTNESS: [f64; 3] = [0.299, 0.587, 0.114];

pub(super) const KIND: TaskKind = TaskKind {
    name: "color",
    syntax: "color",
    doc: "a grey image, of which the colours are to be found",
    parse: |rest| {
        rest.is_empty()
            .then_some(Task::Colorization(Parameters::default()))
    },
};

/// There is nothing to choose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("color")
    }
}

impl super::Parameters for Parameters {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn build(&self, cx: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>> {
        let square: f64 = BRIGHTNESS.iter().map(|w| w * w).sum();
        let grey = Banded::dense(&[BRIGHTNESS; 3]);
        // The pseudo-inverse of 1 w^T is w 1^T / (3 w^T w).
        let inverse = Banded::dense(&BRIGHTNESS.map(|w| [w / (3.0 * square); 3]));
        let upload = |a: &Banded| Matrix::new(cx, a.cols(), a.starts(), a.indices(), a.values());
        Ok(Box::new(Brightness {
            size,
            transposed: upload(&grey.transpose())?,
            grey: upload(&grey)?,
            inverse: upload(&inverse)?,
        }))
    }
}

/// `y = 1 w^T x` at every pixel.
struct Brightness {
    size: [usize; 2],
    grey: Matrix,
    transposed: Matrix,
    inverse: Matrix,
}

impl Brightness {
    fn apply(&self, cx: &Cx, matrix: &Matrix, x: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, x, self.measurement_shape())?;
        banded::forward(cx, matrix, x, 3)
    }
}

impl Operator for Brightness {
    fn measurement_shape(&self) -> [usize; 3] {
        [self.size[0], self.size[1], 3]
    }

    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.apply(cx, &self.grey, x)
    }

    fn vjp(&self, cx: &Cx, _: &Tensor, dy: &Tensor) -> Result<Tensor> {
        self.apply(cx, &self.transposed, dy)
    }

    fn pinv(&self, cx: &Cx, y: &Tensor) -> Result<Option<Tensor>> {
        self.apply(cx, &self.inverse, y).map(Some)
    }

    fn condition(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, y, self.measurement_shape())?;
        Ok(y.clone())
    }
}
