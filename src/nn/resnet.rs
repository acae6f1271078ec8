//! The residual block: `y = skip(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + proj(temb))))`.

use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::nn::conv::Conv2d;
use crate::nn::linear::Linear;
use crate::nn::norm::{BeforeNorm, GroupNorm, GroupNormSaved};
use crate::nn::param::Weights;
use crate::nn::time::Temb;
use crate::ops::conv_norm::Measured;
use crate::ops::sum;
use crate::tensor::Tensor;

/// Sizes of a [`ResnetBlock`].
#[derive(Clone, Copy, Debug)]
pub struct ResnetConfig {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Channels of the time embedding; `None` in the autoencoder.
    pub time: Option<usize>,
    /// Groups of both norms.
    pub groups: usize,
    /// Added to the variance in both norms.
    pub eps: f64,
}

/// `resnets.{i}` of every UNet, ControlNet and autoencoder block.
#[derive(Debug)]
pub struct ResnetBlock {
    name: String,
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

/// What [`ResnetBlock::vjp`] needs.
#[derive(Debug)]
pub struct ResnetSaved {
    norm1: GroupNormSaved,
    norm2: GroupNormSaved,
    /// Where the time embedding's cotangent is collected, if its projection is trained.
    temb: Option<Temb>,
}

impl ResnetBlock {
    /// `norm1, conv1, time_emb_proj, norm2, conv2, conv_shortcut`; the last only when the widths differ.
    ///
    /// # Errors
    /// [`Error::Weight`], [`Error::Config`].
    pub fn new(w: &Weights<'_>, config: ResnetConfig) -> Result<Self> {
        let ResnetConfig {
            inputs,
            outputs,
            time,
            groups,
            eps,
        } = config;
        let time_emb_proj = time
            .map(|t| Linear::new(&w.at("time_emb_proj"), t, outputs, true))
            .transpose()?;
        let shortcut = || Conv2d::same(&w.at("conv_shortcut"), inputs, outputs, 1);
        Ok(ResnetBlock {
            name: w.name().into(),
            norm1: GroupNorm::new(&w.at("norm1"), inputs, groups, eps, true)?,
            conv1: Conv2d::same(&w.at("conv1"), inputs, outputs, 3)?,
            time_emb_proj,
            norm2: GroupNorm::new(&w.at("norm2"), outputs, groups, eps, true)?,
            conv2: Conv2d::same(&w.at("conv2"), outputs, outputs, 3)?,
            conv_shortcut: (inputs != outputs).then(shortcut).transpose()?,
        })
    }

    /// `x: [n, h, w, inputs]`, `temb: [n, time]` after its SiLU.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward(
        &self,
        cx: &Cx,
        x: &Tensor,
        temb: Option<&Temb>,
    ) -> Result<(Tensor, ResnetSaved)> {
        let (y, saved) = self.forward_measured(cx, &x.clone().into(), temb, false)?;
        Ok((y.x, saved))
    }

    /// The same, by the moments of `x`, if there are any; with those of `y` where a norm of the same groups reads it `next`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward_measured(
        &self,
        cx: &Cx,
        x: &Measured,
        temb: Option<&Temb>,
        next: bool,
    ) -> Result<(Measured, ResnetSaved)> {
        let groups = Some(self.norm2.groups());
        let mut kept = None;
        let shift = match (&self.time_emb_proj, temb) {
            (Some(proj), Some(temb)) => {
                kept = cx.trains(proj.weight()).map(|_| temb.clone());
                Some(temb.project(cx, proj)?)
            }
            (None, None) => None,
            _ => {
                return Err(Error::shape(
                    &self.name,
                    "a time embedding exactly when it has weights",
                    "other",
                ));
            }
        };
        let (normed, norm1) = self.norm1.forward_for(cx, &self.conv1, x)?;
        let shift = shift.as_ref();
        let h = self.conv1.forward_after(cx, &normed, shift, None, groups)?;
        drop(normed);
        let (normed, norm2) = self.norm2.forward_for(cx, &self.conv2, &h)?;
        drop(h);
        let skip = match &self.conv_shortcut {
            Some(conv) => conv.forward(cx, &x.x, None)?,
            None => x.x.clone(),
        };
        let groups = groups.filter(|_| next);
        let (conv2, skip) = (&self.conv2, Some(&skip));
        let y = conv2.forward_after(cx, &normed, None, skip, groups)?;
        cx.tap(&self.name, &y.x);
        let temb = kept;
        Ok((y, ResnetSaved { norm1, norm2, temb }))
    }

    /// `dx` from `dy`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp(&self, cx: &Cx, saved: ResnetSaved, dy: &Tensor) -> Result<Tensor> {
        cx.tap_cotangent(&self.name, dy);
        let norm2 = self.norm2.takes_sums(cx, &saved.norm2)?;
        let dh = self.conv2.vjp_same_summed(cx, dy, norm2)?;
        let dh = match (&self.time_emb_proj, &saved.temb) {
            (Some(proj), Some(temb)) => {
                let dh = self.norm2.vjp_summed(cx, saved.norm2, dh, None)?;
                temb.project_vjp(cx, proj, &sum::per_sample(cx, &dh)?)?;
                BeforeNorm::Tensor(dh)
            }
            _ => self.norm2.vjp_for(cx, &self.conv1, saved.norm2, dh)?,
        };
        let norm1 = self.norm1.takes_sums(cx, &saved.norm1)?;
        let du = self.conv1.vjp_same_before(cx, &dh, norm1)?;
        drop(dh);
        let skip = match &self.conv_shortcut {
            Some(conv) => conv.vjp_same(cx, dy)?,
            None => dy.clone(),
        };
        self.norm1.vjp_summed(cx, saved.norm1, du, Some(&skip))
    }
}
