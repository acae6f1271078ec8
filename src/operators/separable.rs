//! Two sparse matrices, one down the rows of an image and one across its columns: `y = D x A^T`.

use super::matrix::Banded;
use crate::cx::Cx;
use crate::error::Result;
use crate::ops::banded::{self, Matrix};
use crate::tensor::Tensor;

/// A separable operator on the device.
#[derive(Debug)]
pub(super) struct Separable {
    down: Matrix,
    across: Matrix,
}

impl Separable {
    pub(super) fn new(cx: &Cx, [down, across]: &[Banded; 2]) -> Result<Self> {
        let upload = |a: &Banded| Matrix::new(cx, a.cols(), a.starts(), a.indices(), a.values());
        Ok(Separable {
            down: upload(down)?,
            across: upload(across)?,
        })
    }

    pub(super) fn apply(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
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
pub(super) fn transposed([down, across]: &[Banded; 2]) -> [Banded; 2] {
    [down.transpose(), across.transpose()]
}
