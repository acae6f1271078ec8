//! `y = x m` with a mask of zeros and ones: an orthogonal projection, its own adjoint and its own
//! pseudo-inverse.

use super::{Operator, expect_image};
use crate::cx::Cx;
use crate::error::Result;
use crate::ops::mask;
use crate::tensor::Tensor;

/// Inpainting, whatever the mask.
pub(super) struct Masked {
    what: &'static str,
    size: [usize; 2],
    /// `[h, w, 1]`, 1 where a pixel is kept.
    mask: Tensor,
}

impl Masked {
    pub(super) fn new(cx: &Cx, what: &'static str, size: [usize; 2], mask: &[f64]) -> Result<Self> {
        let mask = cx.constant(mask, [size[0], size[1], 1])?;
        Ok(Masked { what, size, mask })
    }

    fn apply(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        expect_image(cx, self.what, x, self.measurement_shape())?;
        mask::forward(cx, x, &self.mask)
    }
}

impl Operator for Masked {
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
        expect_image(cx, self.what, y, self.measurement_shape())?;
        Ok(y.clone())
    }
}
