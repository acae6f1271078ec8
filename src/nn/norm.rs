//! Normalisation layers: group (with or without SiLU) and layer.

use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::nn::conv::Conv2d;
use crate::nn::param::{Weights, accumulate};
use crate::ops::activation::{self, Activation};
use crate::ops::conv_norm::{Applied, Measured, Normed, Summed, Through};
use crate::ops::{group_norm, layer_norm};
use crate::tensor::Tensor;

/// Group normalisation; `silu` fuses the activation that follows it.
#[derive(Debug)]
pub struct GroupNorm {
    name: String,
    w: Tensor,
    b: Tensor,
    groups: usize,
    eps: f64,
    silu: bool,
}

/// What a convolution after a norm reads.
#[derive(Debug)]
pub enum AfterNorm {
    /// The result.
    Tensor(Tensor),
    /// What it is yet to be made of.
    Normed(Normed),
}

/// What the backward pass of a convolution before a norm reads.
#[derive(Debug)]
pub enum BeforeNorm {
    /// The cotangent of its result.
    Tensor(Tensor),
    /// What that is yet to be made of.
    Through(Box<Through>),
}

/// What [`GroupNorm::vjp`] needs.
#[derive(Debug)]
pub struct GroupNormSaved {
    norm: group_norm::Saved,
    /// The input of a SiLU that was left apart, when module outputs were recorded.
    apart: Option<Tensor>,
}

impl GroupNorm {
    /// `weight, bias: [c]`.
    ///
    /// # Errors
    /// [`Error::Weight`]; [`Error::Config`] when `groups` does not divide `c`.
    pub fn new(w: &Weights<'_>, c: usize, groups: usize, eps: f64, silu: bool) -> Result<Self> {
        if groups == 0 || !c.is_multiple_of(groups) {
            return Err(Error::config(
                w.name(),
                format!("norm_num_groups {groups} does not divide {c} channels"),
            ));
        }
        let (weight, b) = (w.get("weight", [c])?, w.get("bias", [c])?);
        Ok(GroupNorm {
            name: w.name().into(),
            w: weight,
            b,
            groups,
            eps,
            silu,
        })
    }

    /// Normalises `x`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward(&self, cx: &Cx, x: &Tensor) -> Result<(Tensor, GroupNormSaved)> {
        self.forward_measured(cx, &x.clone().into())
    }

    /// Normalises `x` by its moments, if there are any.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward_measured(&self, cx: &Cx, x: &Measured) -> Result<(Tensor, GroupNormSaved)> {
        let (u, norm) = group_norm::forward_measured(cx, x, self.params(cx))?;
        cx.tap(&self.name, &u);
        if !(cx.taps() && self.silu) {
            return Ok((u, GroupNormSaved { norm, apart: None }));
        }
        let y = activation::forward(cx, &u, Activation::Silu)?;
        Ok((
            y,
            GroupNormSaved {
                norm,
                apart: Some(u),
            },
        ))
    }

    /// The same for `conv`, which normalises `x` by itself where that costs neither the norm nor it another variant.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward_for(
        &self,
        cx: &Cx,
        conv: &Conv2d,
        x: &Measured,
    ) -> Result<(AfterNorm, GroupNormSaved)> {
        let params = self.params(cx);
        let apart = cx.taps() || !conv.takes_norm(cx, &x.x)?;
        if apart || !group_norm::leaves_the_rest(cx, x, params)? {
            let (y, saved) = self.forward_measured(cx, x)?;
            return Ok((AfterNorm::Tensor(y), saved));
        }
        let (normed, norm) = group_norm::statistics(cx, x, params)?;
        let saved = GroupNormSaved { norm, apart: None };
        Ok((AfterNorm::Normed(normed), saved))
    }

    /// How many groups.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// `dx` from `dy`, and `residual` added to it: the cotangent that reaches `x` past the norm.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp(
        &self,
        cx: &Cx,
        saved: GroupNormSaved,
        dy: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        self.vjp_summed(cx, saved, dy.clone().into(), residual)
    }

    /// The same by the sums of `dy`, if there are any. Consumes the cotangent.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp_summed(
        &self,
        cx: &Cx,
        saved: GroupNormSaved,
        dy: Summed,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let du = match &saved.apart {
            Some(u) => activation::vjp(cx, u, Activation::Silu, &dy.dy)?.into(),
            None => dy,
        };
        cx.tap_cotangent(&self.name, &du.dy);
        if cx.trains(&self.w).is_some() {
            let (dw, db) = group_norm::wgrad(cx, &saved.norm, self.params(cx), &du.dy)?;
            accumulate(cx, &self.w, dw)?;
            accumulate(cx, &self.b, db)?;
        }
        group_norm::vjp_summed(cx, saved.norm, self.params(cx), &du, residual)
    }

    /// [`GroupNorm::vjp_summed`] for `conv`, which made `x`, and takes the cotangent through the norm by itself where that
    /// costs neither the norm nor it another variant.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp_for(
        &self,
        cx: &Cx,
        conv: &Conv2d,
        saved: GroupNormSaved,
        dy: Summed,
    ) -> Result<BeforeNorm> {
        let params = self.params(cx);
        let apart = cx.taps() || cx.trains(&self.w).is_some() || !conv.takes_through(cx, &dy.dy)?;
        let leaves = !apart && group_norm::leaves_the_rest_of_vjp(cx, &saved.norm, params, &dy)?;
        match dy {
            Summed {
                dy,
                sums: Some(sums),
            } if leaves => {
                let through = group_norm::coefficients(cx, saved.norm, params, dy, &sums)?;
                Ok(BeforeNorm::Through(through.into()))
            }
            dy => Ok(BeforeNorm::Tensor(self.vjp_summed(cx, saved, dy, None)?)),
        }
    }

    /// `dx` from the cotangent `dy` of what `conv`, whose output is as large, made of the result: by one op where none of the
    /// two would run another variant alone.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp_with(
        &self,
        cx: &Cx,
        conv: &Conv2d,
        saved: GroupNormSaved,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let apart = cx.taps() || cx.trains(&self.w).is_some();
        let applied = match apart {
            true => None,
            false => self.takes_sums(cx, &saved)?,
        };
        if let Some(applied) = applied
            && let Some(dx) = conv.vjp_normed(cx, applied, dy)?
        {
            return Ok(dx);
        }
        let dh = conv.vjp_same(cx, dy)?;
        self.vjp(cx, saved, &dh, None)
    }

    /// What a convolution makes the sums of, whose `dx` is the norm's cotangent, if the norm takes them.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn takes_sums<'a>(
        &'a self,
        cx: &Cx,
        saved: &'a GroupNormSaved,
    ) -> Result<Option<Applied<'a>>> {
        match &saved.apart {
            Some(_) => Ok(None),
            None => group_norm::takes_sums(cx, &saved.norm, self.params(cx)),
        }
    }

    fn params(&self, cx: &Cx) -> group_norm::Params<'_> {
        let silu = self.silu && !cx.taps();
        group_norm::Params {
            w: &self.w,
            b: &self.b,
            groups: self.groups,
            eps: self.eps,
            silu,
        }
    }
}

/// Layer normalisation over the last dimension.
#[derive(Debug)]
pub struct LayerNorm {
    name: String,
    w: Tensor,
    b: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// `weight, bias: [c]`.
    ///
    /// # Errors
    /// [`Error::Weight`].
    pub fn new(w: &Weights<'_>, c: usize, eps: f64) -> Result<Self> {
        Ok(LayerNorm {
            name: w.name().into(),
            w: w.get("weight", [c])?,
            b: w.get("bias", [c])?,
            eps,
        })
    }

    /// Normalises each row of `x`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward(&self, cx: &Cx, x: &Tensor) -> Result<(Tensor, layer_norm::Saved)> {
        let (y, saved) = layer_norm::forward(cx, x, &self.w, &self.b, self.eps)?;
        cx.tap(&self.name, &y);
        Ok((y, saved))
    }

    /// The result of the forward pass that left `saved`.
    ///
    /// # Errors
    /// [`Error::Argument`] when that pass kept nothing.
    pub fn again(&self, cx: &Cx, saved: &layer_norm::Saved) -> Result<Tensor> {
        Ok(layer_norm::forward(cx, saved.input()?, &self.w, &self.b, self.eps)?.0)
    }

    /// `dx` from `dy`, and `residual` added to it: the cotangent that reaches `x` past the norm.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp(
        &self,
        cx: &Cx,
        saved: layer_norm::Saved,
        dy: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        cx.tap_cotangent(&self.name, dy);
        if cx.trains(&self.w).is_some() {
            let (dw, db) = layer_norm::wgrad(cx, &saved, dy)?;
            accumulate(cx, &self.w, dw)?;
            accumulate(cx, &self.b, db)?;
        }
        layer_norm::vjp(cx, saved, &self.w, dy, residual)
    }
}
