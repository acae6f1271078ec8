//! An operator on canvases: images that are larger than what was measured, which is their upper left corner.
//!
//! Models make images whose sides are multiples of some number. Others are restored on a canvas that is, exactly: the
//! measurement says nothing of what lies beyond the image, and the prior alone decides it.

use super::matrix::Banded;
use super::separable::{Separable, transposed};
use super::{Operator, expect_image};
use crate::cx::Cx;
use crate::error::Result;
use crate::tensor::Tensor;

const WHAT: &str = "canvas";

/// `f(C x)`, where C takes the corner.
pub struct Cropped<'a> {
    of_image: &'a dyn Operator,
    canvas: [usize; 2],
    crop: Separable,
    pad: Separable,
    /// Repeats the last row and column.
    extend: Separable,
}

impl<'a> Cropped<'a> {
    /// The operator `of_image`, which is for images of `size = [h, w]`, for canvases that are no smaller.
    pub fn new(
        cx: &Cx,
        of_image: &'a dyn Operator,
        size: [usize; 2],
        canvas: [usize; 2],
    ) -> Result<Self> {
        let corner = [0, 1].map(|axis| Banded::window(canvas[axis], 0, &vec![1.0; size[axis]]));
        let extend = [0, 1].map(|axis| Banded::extension(size[axis], canvas[axis]));
        Ok(Cropped {
            of_image,
            canvas,
            crop: Separable::new(cx, &corner)?,
            pad: Separable::new(cx, &transposed(&corner))?,
            extend: Separable::new(cx, &extend)?,
        })
    }

    fn corner(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let [h, w] = self.canvas;
        expect_image(cx, WHAT, x, [h, w, 3])?;
        self.crop.apply(cx, x)
    }
}

impl Operator for Cropped<'_> {
    fn measurement_shape(&self) -> [usize; 3] {
        self.of_image.measurement_shape()
    }

    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.of_image.measure(cx, &self.corner(cx, x)?)
    }

    fn vjp(&self, cx: &Cx, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let dx = self.of_image.vjp(cx, &self.corner(cx, x)?, dy)?;
        self.pad.apply(cx, &dx)
    }

    fn adjoint(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        self.pad.apply(cx, &self.of_image.adjoint(cx, y)?)
    }

    fn adjoint_vjp(&self, cx: &Cx, dx: &Tensor) -> Result<Tensor> {
        self.of_image.adjoint_vjp(cx, &self.corner(cx, dx)?)
    }

    /// The rows of C are orthonormal, so `(f C)^+ = C^T f^+`.
    fn pinv(&self, cx: &Cx, y: &Tensor) -> Result<Option<Tensor>> {
        let x = self.of_image.pinv(cx, y)?;
        x.map(|x| self.pad.apply(cx, &x)).transpose()
    }

    fn condition(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        self.extend.apply(cx, &self.of_image.condition(cx, y)?)
    }
}
