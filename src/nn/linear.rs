//! `y = x w^T + b`, over the last dimension.

use crate::cx::Cx;
use crate::error::Result;
use crate::nn::param::{Weights, accumulate};
use crate::ops::{add, geglu, linear, sum};
use crate::tensor::Tensor;

/// A linear layer. Frozen, it saves nothing: `dx = dy w`; trained, its input.
#[derive(Debug)]
pub struct Linear {
    name: String,
    w: Tensor,
    b: Option<Tensor>,
}

impl Linear {
    /// `weight: [m, k]` and, if `bias`, `bias: [m]`.
    ///
    /// # Errors
    /// [`crate::Error::Weight`].
    pub fn new(w: &Weights<'_>, k: usize, m: usize, bias: bool) -> Result<Self> {
        let b = bias.then(|| w.get("bias", [m])).transpose()?;
        Ok(Linear {
            name: w.name().into(),
            w: w.matrix("weight", m, k)?,
            b,
        })
    }

    /// `y = x w^T + b + residual`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn forward(&self, cx: &Cx, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        cx.keep_input(&self.w, x);
        if !cx.taps() {
            return linear::forward(cx, x, &self.w, self.b.as_ref(), residual);
        }
        let y = linear::forward(cx, x, &self.w, self.b.as_ref(), None)?;
        cx.tap(&self.name, &y);
        residual.map_or(Ok(y.clone()), |r| add::forward(cx, &y, r))
    }

    /// As [`Linear::forward`] of the last layer of `module`: what that makes, before `residual`, is observed by its name too.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn forward_last(
        &self,
        cx: &Cx,
        module: &str,
        x: &Tensor,
        residual: &Tensor,
    ) -> Result<Tensor> {
        if !cx.taps() {
            return self.forward(cx, x, Some(residual));
        }
        let y = self.forward(cx, x, None)?;
        cx.tap(module, &y);
        add::forward(cx, &y, residual)
    }

    /// `y` of an `x` that stays the same for a whole run: computed once.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_once(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        cx.once([&self.w, x], |cx| self.forward(cx, x, None))
    }

    /// `y` of three layers of one shape from the same `x`, in one launch.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn forward_three(cx: &Cx, layers: [&Linear; 3], x: &Tensor) -> Result<[Tensor; 3]> {
        let w = layers.map(|layer| &layer.w);
        w.iter().for_each(|w| cx.keep_input(w, x));
        let y = linear::forward_three(cx, x, w, layers.map(|layer| layer.b.as_ref()))?;
        let named = layers.iter().zip(&y);
        named.for_each(|(layer, y)| cx.tap(&layer.name, y));
        Ok(y)
    }

    /// `[m, k]`.
    pub fn weight(&self) -> &Tensor {
        &self.w
    }

    /// `dx` from `dy`, which is the cotangent of the forward pass's residual too.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn vjp(&self, cx: &Cx, dy: &Tensor) -> Result<Tensor> {
        cx.tap_cotangent(&self.name, dy);
        self.wgrad(cx, dy)?;
        linear::vjp(cx, &self.w, dy)
    }

    /// The cotangent of a GEGLU's input from `dy`, where its result was this layer's input: in one launch, where that costs
    /// the product no better variant.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn vjp_geglu(&self, cx: &Cx, saved: geglu::Saved, dy: &Tensor) -> Result<Tensor> {
        if !linear::takes_geglu(cx, &self.w, dy)? {
            return geglu::vjp(cx, saved, &self.vjp(cx, dy)?);
        }
        cx.tap_cotangent(&self.name, dy);
        self.wgrad(cx, dy)?;
        linear::vjp_geglu(cx, &self.w, saved.input()?, dy)
    }

    /// `dx` from the `dy` of each of three layers of one shape, in one launch.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn vjp_three(cx: &Cx, layers: [&Linear; 3], dy: [&Tensor; 3]) -> Result<Tensor> {
        for (layer, dy) in layers.iter().zip(dy) {
            cx.tap_cotangent(&layer.name, dy);
            layer.wgrad(cx, dy)?;
        }
        linear::vjp_three(cx, layers.map(|layer| &layer.w), dy)
    }

    /// The gradients of weight and bias from `dy`, if they are trained: what [`Linear::vjp`] does besides `dx`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn wgrad(&self, cx: &Cx, dy: &Tensor) -> Result<()> {
        let Some(x) = cx.kept_input(&self.w)? else {
            return Ok(());
        };
        accumulate(cx, &self.w, linear::wgrad(cx, &x, dy)?)?;
        match &self.b {
            Some(b) => accumulate(cx, b, sum::over_rows(cx, dy)?),
            None => Ok(()),
        }
    }
}
