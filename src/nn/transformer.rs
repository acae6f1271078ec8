//! The spatial transformer of SD's UNet: norm, projection, blocks of self-attention, cross-attention
//! and a gated feed-forward, projection, sum with the input.

use crate::cx::Cx;
use crate::error::Result;
use crate::nn::attention::Attention;
use crate::nn::linear::Linear;
use crate::nn::norm::{GroupNorm, GroupNormSaved, LayerNorm};
use crate::nn::param::Weights;
use crate::ops::{attention, geglu, layer_norm};
use crate::runtime::kernel::Target;
use crate::tensor::Tensor;

/// Sizes of a [`Transformer2d`].
#[derive(Clone, Copy, Debug)]
pub struct TransformerConfig {
    /// Channels of the image.
    pub c: usize,
    /// Attention heads.
    pub heads: usize,
    /// Channels of the text context.
    pub context: usize,
    /// Groups of the norm.
    pub groups: usize,
    /// Transformer blocks.
    pub layers: usize,
}

/// `attentions.{i}` of SD's UNet.
#[derive(Debug)]
pub struct Transformer2d {
    name: String,
    norm: GroupNorm,
    proj_in: Linear,
    transformer_blocks: Vec<Block>,
    proj_out: Linear,
}

/// What [`Transformer2d::vjp`] needs.
#[derive(Debug)]
pub struct TransformerSaved {
    norm: GroupNormSaved,
    blocks: Vec<BlockSaved>,
}

impl Transformer2d {
    /// `norm` (eps 1e-6), `proj_in`, `transformer_blocks`, `proj_out`. The projections are stored as
    /// linear layers (SD 2) or 1x1 convolutions (SD 1): the same thing on tokens.
    ///
    /// # Errors
    /// [`crate::Error::Weight`], [`crate::Error::Config`].
    pub fn new(w: &Weights<'_>, config: TransformerConfig) -> Result<Self> {
        let c = config.c;
        let block = |i| Block::new(&w.at("transformer_blocks").at(i), config);
        Ok(Transformer2d {
            name: w.name().into(),
            norm: GroupNorm::new(&w.at("norm"), c, config.groups, 1e-6, false)?,
            proj_in: Linear::new(&w.at("proj_in"), c, c, true)?,
            transformer_blocks: (0..config.layers).map(block).collect::<Result<_>>()?,
            proj_out: Linear::new(&w.at("proj_out"), c, c, true)?,
        })
    }

    /// `x: [n, h, w, c]`, `context: [n or 1, s, c']`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn forward(
        &self,
        cx: &Cx,
        x: &Tensor,
        context: &Tensor,
    ) -> Result<(Tensor, TransformerSaved)> {
        let [n, h, w, c] = x.nhwc(&self.name)?;
        let tokens = x.view([n, h * w, c])?;
        let (mut t, norm) = self.norm.forward(cx, &tokens)?;
        t = self.proj_in.forward(cx, &t, None)?;
        let mut blocks = Vec::new();
        for block in &self.transformer_blocks {
            let (y, saved) = block.forward(cx, t, context)?;
            t = y;
            blocks.push(saved);
        }
        let y = self
            .proj_out
            .forward(cx, &t, Some(&tokens))?
            .view([n, h, w, c])?;
        cx.tap(&self.name, &y);
        Ok((y, TransformerSaved { norm, blocks }))
    }

    /// `dx` from `dy`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn vjp(&self, cx: &Cx, saved: TransformerSaved, dy: &Tensor) -> Result<Tensor> {
        cx.tap_cotangent(&self.name, dy);
        let [n, h, w, c] = dy.nhwc(&self.name)?;
        let dy = dy.view([n, h * w, c])?;
        let mut dt = self.proj_out.vjp(cx, &dy)?;
        for (block, saved) in self.transformer_blocks.iter().zip(saved.blocks).rev() {
            dt = block.vjp(cx, saved, dt)?;
        }
        dt = self.proj_in.vjp(cx, &dt)?;
        let dx = self.norm.vjp(cx, saved.norm, &dt, Some(&dy))?;
        dx.view([n, h, w, c])
    }
}

/// `transformer_blocks.{i}`.
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

#[derive(Debug)]
struct BlockSaved {
    norm1: layer_norm::Saved,
    attn1: attention::Saved,
    norm2: layer_norm::Saved,
    attn2: attention::Saved,
    norm3: layer_norm::Saved,
    /// `None` where the backward pass makes it again.
    ff: Option<geglu::Saved>,
}

impl Block {
    fn new(w: &Weights<'_>, config: TransformerConfig) -> Result<Self> {
        let TransformerConfig {
            c, heads, context, ..
        } = config;
        Ok(Block {
            norm1: LayerNorm::new(&w.at("norm1"), c, 1e-5)?,
            attn1: Attention::new(&w.at("attn1"), c, c, heads)?,
            norm2: LayerNorm::new(&w.at("norm2"), c, 1e-5)?,
            attn2: Attention::new(&w.at("attn2"), c, context, heads)?,
            norm3: LayerNorm::new(&w.at("norm3"), c, 1e-5)?,
            ff: FeedForward::new(&w.at("ff"), c)?,
        })
    }

    fn forward(&self, cx: &Cx, mut x: Tensor, context: &Tensor) -> Result<(Tensor, BlockSaved)> {
        let (h, norm1) = self.norm1.forward(cx, &x)?;
        let (y, attn1) = self.attn1.forward(cx, &h, None, &x)?;
        x = y;
        let (h, norm2) = self.norm2.forward(cx, &x)?;
        let (y, attn2) = self.attn2.forward(cx, &h, Some(context), &x)?;
        x = y;
        let (h, norm3) = self.norm3.forward(cx, &x)?;
        let (y, ff) = self.ff.forward(cx, h, &x)?;
        let ff = (!self.ff.gates_again(cx)).then_some(ff);
        Ok((
            y,
            BlockSaved {
                norm1,
                attn1,
                norm2,
                attn2,
                norm3,
                ff,
            },
        ))
    }

    fn vjp(&self, cx: &Cx, saved: BlockSaved, mut dy: Tensor) -> Result<Tensor> {
        let ff = match saved.ff {
            Some(saved) => saved,
            None => self
                .ff
                .gate_again(cx, self.norm3.again(cx, &saved.norm3)?)?,
        };
        let mut dh = self.ff.vjp(cx, ff, &dy)?;
        dy = self.norm3.vjp(cx, saved.norm3, &dh, Some(&dy))?;
        dh = self.attn2.vjp_query(cx, saved.attn2, &dy)?;
        dy = self.norm2.vjp(cx, saved.norm2, &dh, Some(&dy))?;
        dh = self.attn1.vjp(cx, saved.attn1, &dy)?;
        self.norm1.vjp(cx, saved.norm1, &dh, Some(&dy))
    }
}

/// `ff`: a linear layer to twice `4c`, one half gating the other by GELU, and back to `c`.
#[derive(Debug)]
struct FeedForward {
    name: String,
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    fn new(w: &Weights<'_>, c: usize) -> Result<Self> {
        let proj = Linear::new(&w.at("net.0.proj"), c, 8 * c, true)?;
        Ok(FeedForward {
            name: w.name().into(),
            proj,
            out: Linear::new(&w.at("net.2"), 4 * c, c, true)?,
        })
    }

    fn forward(&self, cx: &Cx, mut h: Tensor, residual: &Tensor) -> Result<(Tensor, geglu::Saved)> {
        h = self.proj.forward(cx, &h, None)?;
        let (gated, saved) = geglu::forward(cx, &h)?;
        drop(h);
        let y = self.out.forward_last(cx, &self.name, &gated, residual)?;
        Ok((y, saved))
    }

    /// Whether the backward pass makes GEGLU's input again: on processors, where it would be two fifths of what a UNet keeps,
    /// and is a sixteenth of its work.
    fn gates_again(&self, cx: &Cx) -> bool {
        let frozen = cx.trains(self.proj.weight()).is_none();
        cx.rt().target() == Target::Native && frozen && !cx.taps()
    }

    /// What [`FeedForward::forward`] saves of `h`.
    fn gate_again(&self, cx: &Cx, h: Tensor) -> Result<geglu::Saved> {
        Ok(geglu::Saved::of(cx, &self.proj.forward(cx, &h, None)?))
    }

    fn vjp(&self, cx: &Cx, saved: geglu::Saved, dy: &Tensor) -> Result<Tensor> {
        cx.tap_cotangent(&self.name, dy);
        let dh = self.out.vjp_geglu(cx, saved, dy)?;
        self.proj.vjp(cx, &dh)
    }
}
