//! 2-D convolution with a square kernel, channels last.

use crate::cx::Cx;
use crate::error::Result;
use crate::nn::norm::{AfterNorm, BeforeNorm};
use crate::nn::param::{Weights, accumulate};
use crate::ops::conv_norm::{Applied, Measured, Summed};
use crate::ops::conv2d::{self, Epilogue, Geometry};
use crate::ops::{group_norm, sum};
use crate::tensor::Tensor;

/// A convolution. Frozen, it saves nothing; trained, its input.
#[derive(Debug)]
pub struct Conv2d {
    name: String,
    w: Tensor,
    b: Tensor,
    geometry: Geometry,
    wide: bool,
}

impl Conv2d {
    /// Stride 1, output as large as the input; `k` odd.
    ///
    /// # Errors
    /// [`crate::Error::Weight`].
    pub fn same(w: &Weights<'_>, inputs: usize, outputs: usize, k: usize) -> Result<Self> {
        Self::new(w, inputs, outputs, k, Geometry::same(k))
    }

    /// `weight: [o, i, k, k]` and `bias: [o]`.
    ///
    /// # Errors
    /// [`crate::Error::Weight`].
    pub fn new(
        w: &Weights<'_>,
        inputs: usize,
        outputs: usize,
        k: usize,
        geometry: Geometry,
    ) -> Result<Self> {
        let b = w.get("bias", [outputs])?;
        Ok(Conv2d {
            name: w.name().into(),
            w: w.kernel("weight", outputs, inputs, k)?,
            b,
            geometry,
            wide: false,
        })
    }

    /// The same with its output in f32 beside 16-bit activations: a network's last layer.
    pub fn wide(self) -> Self {
        Conv2d { wide: true, ..self }
    }

    /// `y = conv(x) + b + residual`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn forward(&self, cx: &Cx, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        Ok(self.forward_measured(cx, x, None, residual, None)?.x)
    }

    /// The same plus `shift: [n, o]`, with moments where a group norm of so many groups reads `y` next and takes them.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn forward_measured(
        &self,
        cx: &Cx,
        x: &Tensor,
        shift: Option<&Tensor>,
        residual: Option<&Tensor>,
        groups: Option<usize>,
    ) -> Result<Measured> {
        cx.keep_input(&self.w, x);
        let alone = self.epilogue();
        if cx.taps() {
            cx.tap(
                &self.name,
                &conv2d::forward(cx, x, &self.w, self.geometry, alone)?,
            );
        }
        let add = Epilogue {
            shift,
            residual,
            ..alone
        };
        let groups = self.taken(cx, x, groups)?;
        conv2d::forward_measured(cx, x, &self.w, self.geometry, add, groups)
    }

    /// As [`Conv2d::forward_measured`], of what a norm left.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn forward_after(
        &self,
        cx: &Cx,
        x: &AfterNorm,
        shift: Option<&Tensor>,
        residual: Option<&Tensor>,
        groups: Option<usize>,
    ) -> Result<Measured> {
        let x = match x {
            AfterNorm::Tensor(x) => {
                return self.forward_measured(cx, x, shift, residual, groups);
            }
            AfterNorm::Normed(x) => x,
        };
        let add = Epilogue {
            shift,
            residual,
            ..self.epilogue()
        };
        let groups = self.taken(cx, &x.x, groups)?;
        conv2d::forward_normed(cx, x, &self.w, self.geometry, add, groups)
    }

    /// Whether it normalises its input by itself, if that is yet to be: never while it is trained, for it keeps its input.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn takes_norm(&self, cx: &Cx, x: &Tensor) -> Result<bool> {
        let takes = conv2d::takes_norm(cx, x, &self.w, self.geometry, self.epilogue())?;
        Ok(takes && cx.trains(&self.w).is_none())
    }

    /// What it adds by itself.
    fn epilogue(&self) -> Epilogue<'_> {
        Epilogue {
            bias: Some(&self.b),
            wide: self.wide,
            ..Default::default()
        }
    }

    /// `groups`, if a norm of the result takes moments.
    fn taken(&self, cx: &Cx, x: &Tensor, groups: Option<usize>) -> Result<Option<usize>> {
        let [n, h, w, _] = x.nhwc(&self.name)?;
        let [.., outputs] = self.w.nhwc(&self.name)?;
        // Of strided convolutions none has moments at hand, so that y has the pixels of x.
        Ok(group_norm::takes_moments(cx, [n, h * w, outputs], groups))
    }

    /// `dx` from `dy`, for an input of `size = [h, w]`. `shift` and `residual` get `dy` (summed over
    /// pixels for `shift`).
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn vjp(&self, cx: &Cx, size: [usize; 2], dy: &Tensor) -> Result<Tensor> {
        Ok(self.vjp_summed(cx, size, dy, None)?.dy)
    }

    fn vjp_summed(
        &self,
        cx: &Cx,
        size: [usize; 2],
        dy: &Tensor,
        norm: Option<Applied<'_>>,
    ) -> Result<Summed> {
        cx.tap_cotangent(&self.name, dy);
        self.wgrad(cx, dy)?;
        conv2d::vjp_summed(cx, &self.w, self.geometry, size, dy, norm)
    }

    /// The gradients of weight and bias from `dy`, if they are trained: what [`Conv2d::vjp`] does besides `dx`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn wgrad(&self, cx: &Cx, dy: &Tensor) -> Result<()> {
        let Some(x) = cx.kept_input(&self.w)? else {
            return Ok(());
        };
        let [k, ..] = self.w.nhwc(&self.name)?;
        accumulate(cx, &self.w, conv2d::wgrad(cx, &x, self.geometry, k, dy)?)?;
        accumulate(cx, &self.b, sum::over_rows(cx, dy)?)
    }

    /// The cotangent of the input of `norm`, which made this one's, from `dy`; `None` where the two backward passes are apart:
    /// while it is trained, and where together they would cost another variant.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn vjp_normed(&self, cx: &Cx, norm: Applied<'_>, dy: &Tensor) -> Result<Option<Tensor>> {
        match cx.trains(&self.w) {
            Some(_) => Ok(None),
            None => conv2d::vjp_normed(cx, &self.w, self.geometry, norm, dy),
        }
    }

    /// As [`Conv2d::vjp`] for a layer whose output is as large as its input.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn vjp_same(&self, cx: &Cx, dy: &Tensor) -> Result<Tensor> {
        Ok(self.vjp_same_summed(cx, dy, None)?.dy)
    }

    /// The same, with the sums of the vjp of `norm`, which made the input, where that costs no other variant.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn vjp_same_summed(
        &self,
        cx: &Cx,
        dy: &Tensor,
        norm: Option<Applied<'_>>,
    ) -> Result<Summed> {
        let [_, h, w, _] = dy.nhwc(&self.name)?;
        self.vjp_summed(cx, [h, w], dy, norm)
    }

    /// As [`Conv2d::vjp_same_summed`], of what the norm behind it left.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn vjp_same_before(
        &self,
        cx: &Cx,
        dy: &BeforeNorm,
        norm: Option<Applied<'_>>,
    ) -> Result<Summed> {
        let dy = match dy {
            BeforeNorm::Tensor(dy) => return self.vjp_same_summed(cx, dy, norm),
            BeforeNorm::Through(dy) => dy,
        };
        let [_, h, w, _] = dy.dy.nhwc(&self.name)?;
        conv2d::vjp_through(cx, &self.w, self.geometry, [h, w], dy, norm)
    }

    /// Whether it takes a cotangent through the norm behind it by itself, for a layer whose output is as large as its input:
    /// never while it is trained, for its gradient is made of what the norm leaves.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn takes_through(&self, cx: &Cx, dy: &Tensor) -> Result<bool> {
        let [_, h, w, _] = dy.nhwc(&self.name)?;
        let takes = conv2d::takes_through(cx, &self.w, self.geometry, [h, w], dy)?;
        Ok(takes && cx.trains(&self.w).is_none())
    }
}
