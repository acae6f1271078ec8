//! Attention with its projections: over tokens ([`Attention`]) and over pixels ([`SpatialAttention`]).

use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::nn::linear::Linear;
use crate::nn::norm::{GroupNorm, GroupNormSaved};
use crate::nn::param::Weights;
use crate::ops::attention;
use crate::ops::conv_norm::Measured;
use crate::tensor::Tensor;

/// The names of the four projections in a checkpoint.
type Names = [&'static str; 4];

/// Multi-head attention: `out(softmax(q k^T / sqrt(d)) v)`, from a query and a context.
#[derive(Debug)]
pub struct Attention {
    name: String,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
    causal: bool,
}

impl Attention {
    /// `to_q, to_k, to_v` without bias, `to_out.0` with: a transformer block's `attn1` or `attn2`.
    ///
    /// # Errors
    /// [`Error::Weight`]; [`Error::Config`] when `heads` does not divide `c`.
    pub fn new(w: &Weights<'_>, c: usize, context: usize, heads: usize) -> Result<Self> {
        Self::with_names(
            w,
            ["to_q", "to_k", "to_v", "to_out.0"],
            c,
            context,
            heads,
            [false, true],
        )
    }

    /// The text encoder's `self_attn`: each token sees itself and those before it.
    ///
    /// # Errors
    /// As [`Attention::new`].
    pub fn causal(w: &Weights<'_>, c: usize, heads: usize) -> Result<Self> {
        let names = ["q_proj", "k_proj", "v_proj", "out_proj"];
        Ok(Attention {
            causal: true,
            ..Self::with_names(w, names, c, c, heads, [true, true])?
        })
    }

    fn with_names(
        w: &Weights<'_>,
        names: Names,
        c: usize,
        context: usize,
        heads: usize,
        [bias, out_bias]: [bool; 2],
    ) -> Result<Self> {
        if heads == 0 || !c.is_multiple_of(heads) {
            return Err(Error::config(
                w.name(),
                format!("{heads} attention heads do not divide {c} channels"),
            ));
        }
        Ok(Attention {
            name: w.name().into(),
            to_q: Linear::new(&w.at(names[0]), c, c, bias)?,
            to_k: Linear::new(&w.at(names[1]), context, c, bias)?,
            to_v: Linear::new(&w.at(names[2]), context, c, bias)?,
            to_out: Linear::new(&w.at(names[3]), c, c, out_bias)?,
            heads,
            causal: false,
        })
    }

    /// `residual + attention(x, context)`; self-attention when `context` is `None`.
    /// `x: [n, t, c]`, `context: [n or 1, s, c']`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward(
        &self,
        cx: &Cx,
        x: &Tensor,
        context: Option<&Tensor>,
        residual: &Tensor,
    ) -> Result<(Tensor, attention::Saved)> {
        let [q, k, v] = match context {
            None => Linear::forward_three(cx, self.of_input(), x)?,
            Some(context) => [
                self.to_q.forward(cx, x, None)?,
                self.to_k.forward_once(cx, context)?,
                self.to_v.forward_once(cx, context)?,
            ],
        };
        let (o, saved) = attention::forward(cx, &q, &k, &v, self.heads, self.causal)?;
        let y = self.to_out.forward_last(cx, &self.name, &o, residual)?;
        Ok((y, saved))
    }

    /// The cotangent of `x` from `dy` in self-attention; the residual's is `dy`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp(&self, cx: &Cx, saved: attention::Saved, dy: &Tensor) -> Result<Tensor> {
        cx.tap_cotangent(&self.name, dy);
        let d_o = self.to_out.vjp(cx, dy)?;
        let (dq, dkv) = attention::vjp(cx, saved, &d_o, true)?;
        drop(d_o);
        let (dk, dv) = dkv.expect("asked for with `true`");
        Linear::vjp_three(cx, self.of_input(), [&dq, &dk, &dv])
    }

    /// What self-attention maps its input by.
    fn of_input(&self) -> [&Linear; 3] {
        [&self.to_q, &self.to_k, &self.to_v]
    }

    /// The cotangent of `x` from `dy` in cross-attention to a constant context. Where the layer is trained, every
    /// sample needs a context of its own.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp_query(&self, cx: &Cx, saved: attention::Saved, dy: &Tensor) -> Result<Tensor> {
        cx.tap_cotangent(&self.name, dy);
        let d_o = self.to_out.vjp(cx, dy)?;
        let trained = cx.trains(self.to_k.weight()).is_some();
        let (dq, dkv) = attention::vjp(cx, saved, &d_o, trained)?;
        if let Some((dk, dv)) = dkv {
            self.to_k.wgrad(cx, &dk)?;
            self.to_v.wgrad(cx, &dv)?;
        }
        self.to_q.vjp(cx, &dq)
    }
}

/// Self-attention over the pixels of an image, normalised before and added to its input:
/// the autoencoder's mid block and the unconditional UNet's attention blocks.
#[derive(Debug)]
pub struct SpatialAttention {
    name: String,
    group_norm: GroupNorm,
    attention: Attention,
}

/// What [`SpatialAttention::vjp`] needs.
#[derive(Debug)]
pub struct SpatialSaved {
    norm: GroupNormSaved,
    attention: attention::Saved,
}

impl SpatialAttention {
    /// `group_norm`, then `to_q, to_k, to_v, to_out.0`, all with bias; files from before diffusers 0.15
    /// call them `query, key, value, proj_attn`.
    ///
    /// # Errors
    /// [`Error::Weight`], [`Error::Config`].
    pub fn new(w: &Weights<'_>, c: usize, heads: usize, groups: usize, eps: f64) -> Result<Self> {
        let renamed = [
            ["to_q", "query"],
            ["to_k", "key"],
            ["to_v", "value"],
            ["to_out.0", "proj_attn"],
        ];
        let names = renamed.map(|names| w.either(names));
        // The block's own name belongs to its sum with the input: the inner attention gets none.
        let attention = Attention::with_names(w, names, c, c, heads, [true, true])?;
        let attention = Attention {
            name: format!("{}.attention", w.name()),
            ..attention
        };
        let group_norm = GroupNorm::new(&w.at("group_norm"), c, groups, eps, false)?;
        Ok(SpatialAttention {
            name: w.name().into(),
            group_norm,
            attention,
        })
    }

    /// `x: [n, h, w, c]` to the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward(&self, cx: &Cx, x: &Tensor) -> Result<(Tensor, SpatialSaved)> {
        self.forward_measured(cx, &x.clone().into())
    }

    /// The same, by the moments of `x`, if there are any.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward_measured(&self, cx: &Cx, x: &Measured) -> Result<(Tensor, SpatialSaved)> {
        let [n, h, w, c] = x.x.nhwc(&self.name)?;
        let tokens = Measured {
            x: x.x.view([n, h * w, c])?,
            moments: x.moments.clone(),
        };
        let (normed, norm) = self.group_norm.forward_measured(cx, &tokens)?;
        let (y, attention) = self.attention.forward(cx, &normed, None, &tokens.x)?;
        let y = y.view([n, h, w, c])?;
        cx.tap(&self.name, &y);
        Ok((y, SpatialSaved { norm, attention }))
    }

    /// `dx` from `dy`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp(&self, cx: &Cx, saved: SpatialSaved, dy: &Tensor) -> Result<Tensor> {
        cx.tap_cotangent(&self.name, dy);
        let [n, h, w, c] = dy.nhwc(&self.name)?;
        let dy = dy.view([n, h * w, c])?;
        let dh = self.attention.vjp(cx, saved.attention, &dy)?;
        let dx = self.group_norm.vjp(cx, saved.norm, &dh, Some(&dy))?;
        dx.view([n, h, w, c])
    }
}
