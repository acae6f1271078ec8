//! `y = k * x`: correlation of each channel with one kernel, borders mirrored without repeating the edge.

use super::{Operator, expect_image};
use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::ops::filter2d;
use crate::tensor::Tensor;

/// The widest kernel.
pub(super) const WIDEST: usize = 1023;

/// A blur of images of one size, whatever the kernel.
pub(super) struct Filtered {
    pub(super) what: &'static str,
    pub(super) size: [usize; 2],
    /// `[k, k]`
    pub(super) kernel: Tensor,
}

/// Whether these are `size * size` weights that average.
pub(super) fn check_kernel(what: &str, size: usize, kernel: &[f64]) -> Result<()> {
    if size.is_multiple_of(2) || size > WIDEST {
        let why = format!("wanted an odd size up to {WIDEST}, got {size}");
        return Err(Error::argument(what, why));
    }
    let sum: f64 = kernel.iter().sum();
    // written so that a NaN fails
    let averages = (sum - 1.0).abs() <= 1e-4;
    if kernel.len() == size * size && averages {
        return Ok(());
    }
    let got = kernel.len();
    let why = format!("wanted {size} x {size} finite weights of sum 1, got {got} of sum {sum}");
    Err(Error::argument(what, why))
}

/// Whether a kernel of this size fits into an image.
pub(super) fn check_reach(what: &str, size: usize, [h, w]: [usize; 2]) -> Result<()> {
    let least = size / 2 + 1;
    if h.min(w) >= least {
        return Ok(());
    }
    let why = format!("wanted an image with sides of at least {least}, got {h} x {w}");
    Err(Error::argument(what, why))
}

impl Operator for Filtered {
    fn measurement_shape(&self) -> [usize; 3] {
        [self.size[0], self.size[1], 3]
    }

    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        expect_image(cx, self.what, x, self.measurement_shape())?;
        filter2d::forward(cx, x, &self.kernel)
    }

    fn vjp(&self, cx: &Cx, _: &Tensor, dy: &Tensor) -> Result<Tensor> {
        expect_image(cx, self.what, dy, self.measurement_shape())?;
        filter2d::vjp(cx, &self.kernel, dy)
    }

    /// None: it would be dense and amplify noise without bound.
    fn pinv(&self, _: &Cx, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn condition(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        expect_image(cx, self.what, y, self.measurement_shape())?;
        Ok(y.clone())
    }
}
