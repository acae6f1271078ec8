//! `ControlNetModel`: the UNet's encoder half with an image as hint, whose outputs, through 1x1
//! convolutions, are added to the UNet's skips. Here: the conditional score estimator.

use crate::cx::{Cx, Kept};
use crate::error::{Error, Result};
use crate::models::blocks::Condition;
use crate::models::config::Config;
use crate::models::unet::{Encoder, EncoderSaved, Features, UNetConfig};
use crate::nn::conv::Conv2d;
use crate::nn::param::Weights;
use crate::nn::time::Temb;
use crate::ops::activation::{self, Activation};
use crate::ops::conv2d::Geometry;
use crate::tensor::Tensor;

/// ControlNet's `config.json`.
#[derive(Clone, Debug)]
pub struct ControlNetConfig {
    /// The encoder's configuration, as a UNet's.
    pub unet: UNetConfig,
    /// Channels of the hint network, from the finest.
    pub hint_channels: Vec<usize>,
    /// Channels of the hint image.
    pub conditioning_channels: usize,
}

impl ControlNetConfig {
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn read(c: &Config) -> Result<Self> {
        c.expect_class(&["ControlNetModel"])?;
        c.only("controlnet_conditioning_channel_order", &["rgb".into()])?;
        let default: &[usize] = &[16, 32, 96, 256];
        Ok(ControlNetConfig {
            unet: UNetConfig::read(c)?,
            hint_channels: c.counts("conditioning_embedding_out_channels", Some(default))?,
            conditioning_channels: c.count("conditioning_channels", Some(3))?,
        })
    }
}

/// ControlNet.
#[derive(Debug)]
pub struct ControlNet {
    hint: HintNet,
    encoder: Encoder,
    controlnet_down_blocks: Vec<Conv2d>,
    controlnet_mid_block: Conv2d,
}

/// What [`ControlNet::vjp`] needs.
#[derive(Debug)]
pub struct ControlNetSaved {
    temb: Temb,
    encoder: EncoderSaved,
}

/// What [`ControlNet::embed_hint_vjp`] needs: the input of every SiLU.
#[derive(Debug)]
pub struct HintSaved(Vec<Kept>);

impl ControlNet {
    /// # Errors
    /// [`Error::Weight`] when the weights do not fit the configuration, [`Error::Config`].
    pub fn new(w: &Weights<'_>, config: &ControlNetConfig) -> Result<Self> {
        let skips = config.unet.skip_channels();
        let zero =
            |(i, &c): (usize, &usize)| Conv2d::same(&w.at("controlnet_down_blocks").at(i), c, c, 1);
        let last = config.unet.block_out_channels[config.unet.block_out_channels.len() - 1];
        Ok(ControlNet {
            hint: HintNet::new(&w.at("controlnet_cond_embedding"), config)?,
            encoder: Encoder::new(w, &config.unet)?,
            controlnet_down_blocks: skips.iter().enumerate().map(zero).collect::<Result<_>>()?,
            controlnet_mid_block: Conv2d::same(&w.at("controlnet_mid_block"), last, last, 1)?,
        })
    }

    /// The hint image's embedding, constant over a run: `image: [n or 1, 8h, 8w, 3]` to
    /// `[n or 1, h, w, c]`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn embed_hint(&self, cx: &Cx, image: &Tensor) -> Result<(Tensor, HintSaved)> {
        self.hint.forward(cx, image)
    }

    /// Leaves the gradients of the hint network, if it is trained, from the cotangent of its output.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn embed_hint_vjp(&self, cx: &Cx, saved: HintSaved, dhint: &Tensor) -> Result<()> {
        self.hint.vjp(cx, saved, dhint)
    }

    /// The residuals for `x: [n, h, w, c]` at `t: [n]`, with the embedded hint of the same `n`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward(
        &self,
        cx: &Cx,
        x: &Tensor,
        t: &Tensor,
        context: Option<&Tensor>,
        hint: &Tensor,
    ) -> Result<(Features, ControlNetSaved)> {
        let temb = self.encoder.time_embedding().activated(cx, t)?;
        let given = Condition {
            temb: Some(&temb),
            context,
        };
        let (features, encoder) = self.encoder.forward(cx, x, given, Some(hint))?;
        let zeros = self.controlnet_down_blocks.iter();
        let skips = zeros
            .zip(&features.skips)
            .map(|(zero, skip)| zero.forward(cx, skip, None))
            .collect::<Result<_>>()?;
        let mid = self.controlnet_mid_block.forward(cx, &features.mid, None)?;
        Ok((Features { skips, mid }, ControlNetSaved { temb, encoder }))
    }

    /// The cotangents of `x` and of the embedded hint from those of the residuals.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp(&self, cx: &Cx, saved: ControlNetSaved, dy: Features) -> Result<(Tensor, Tensor)> {
        if dy.skips.len() != self.controlnet_down_blocks.len() {
            return Err(Error::shape(
                "controlnet.vjp",
                self.controlnet_down_blocks.len(),
                dy.skips.len(),
            ));
        }
        let zeros = self.controlnet_down_blocks.iter();
        let skips = zeros
            .zip(&dy.skips)
            .map(|(zero, dy)| zero.vjp_same(cx, dy))
            .collect::<Result<_>>()?;
        let mid = self.controlnet_mid_block.vjp_same(cx, &dy.mid)?;
        let cotangents = self
            .encoder
            .vjp(cx, saved.encoder, Features { skips, mid })?;
        self.encoder.time_embedding().vjp(cx, saved.temb)?;
        Ok(cotangents)
    }
}

/// `controlnet_cond_embedding`: convolutions with SiLU between them, three of them halving.
#[derive(Debug)]
struct HintNet {
    conv_in: Conv2d,
    blocks: Vec<Conv2d>,
    conv_out: Conv2d,
}

impl HintNet {
    fn new(w: &Weights<'_>, config: &ControlNetConfig) -> Result<Self> {
        let widths = &config.hint_channels;
        let halving = Geometry {
            stride: 2,
            before: 1,
            after: 1,
        };
        let mut blocks = Vec::new();
        for (i, pair) in widths.windows(2).enumerate() {
            let at = |j: usize| w.at("blocks").at(2 * i + j);
            blocks.push(Conv2d::same(&at(0), pair[0], pair[0], 3)?);
            blocks.push(Conv2d::new(&at(1), pair[0], pair[1], 3, halving)?);
        }
        let last = widths[widths.len() - 1];
        Ok(HintNet {
            conv_in: Conv2d::same(&w.at("conv_in"), config.conditioning_channels, widths[0], 3)?,
            blocks,
            conv_out: Conv2d::same(
                &w.at("conv_out"),
                last,
                config.unet.block_out_channels[0],
                3,
            )?,
        })
    }

    fn forward(&self, cx: &Cx, image: &Tensor) -> Result<(Tensor, HintSaved)> {
        let mut saved = Vec::new();
        let mut h = self.conv_in.forward(cx, image, None)?;
        for conv in self.blocks.iter().chain([&self.conv_out]) {
            saved.push(cx.keep(&h));
            h = activation::forward(cx, &h, Activation::Silu)?;
            h = conv.forward(cx, &h, None)?;
        }
        Ok((h, HintSaved(saved)))
    }

    fn vjp(&self, cx: &Cx, HintSaved(saved): HintSaved, dy: &Tensor) -> Result<()> {
        let mut dh = dy.clone();
        let convs = self.blocks.iter().chain([&self.conv_out]);
        for (conv, saved) in convs.rev().zip(saved.iter().rev()) {
            let h = saved.get()?;
            let [_, height, width, _] = h.nhwc("controlnet_cond_embedding")?;
            dh = conv.vjp(cx, [height, width], &dh)?;
            dh = activation::vjp(cx, h, Activation::Silu, &dh)?;
        }
        self.conv_in.wgrad(cx, &dh)
    }
}
