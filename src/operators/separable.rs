//! Two sparse matrices, one down the rows of an image and one across its columns: `y = D x A^T`.

use super::matrix::Banded;
use crate::cx::Cx;
use crate::error::Result;
use crate::ops::banded::{self, Matrix};
use crate::tensor::Tensor;

/// A separable operator on the device.
#[derive(Debug)]
pub(crate) struct Separable {
    down: Matrix,
    across: Matrix,
}

impl Separable {
    pub(crate) fn new(cx: &Cx, [down, across]: &[Banded; 2]) -> Result<Self> {
        Ok(Separable {
            down: down.upload(cx)?,
            across: across.upload(cx)?,
        })
    }

    pub(crate) fn of(down: &Matrix, across: &Matrix) -> Self {
        Separable {
            down: down.clone(),
            across: across.clone(),
        }
    }

    pub(crate) fn apply(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        // the pass down the rows is the faster one: it gets the larger image
        if self.down.rows() <= self.down.cols() {
            let y = banded::forward(cx, &self.down, x, 1)?;
            banded::forward(cx, &self.across, &y, 2)
        } else {
            let y = banded::forward(cx, &self.across, x, 2)?;
            banded::forward(cx, &self.down, &y, 1)
        }
    }
}

/// Both transposed.
pub(crate) fn transposed([down, across]: &[Banded; 2]) -> [Banded; 2] {
    [down.transpose(), across.transpose()]
}
