//! `AutoencoderKL`: images of side `8h` to latents of side `h` and back.

use serde_json::json;

use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::models::blocks::{
    Condition, DownBlock, DownSaved, MidBlock, MidSaved, MixerConfig, UpBlock, UpSaved,
};
use crate::models::config::Config;
use crate::nn::conv::Conv2d;
use crate::nn::norm::{GroupNorm, GroupNormSaved};
use crate::nn::param::Weights;
use crate::nn::resnet::ResnetConfig;
use crate::ops::concat;
use crate::ops::conv_norm::Measured;
use crate::tensor::Tensor;

/// The autoencoder's `config.json`.
#[derive(Clone, Debug)]
pub struct VaeConfig {
    /// Channels of the image.
    pub in_channels: usize,
    /// Channels of the latent.
    pub latent_channels: usize,
    /// Channels of each level, from the finest.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of an encoder level; a decoder level has one more.
    pub layers_per_block: usize,
    /// Groups of every norm.
    pub groups: usize,
    /// The latent that diffusion sees is this times the posterior's mean.
    pub scaling_factor: f64,
}

/// Added to the variance in every norm of the autoencoder.
const EPS: f64 = 1e-6;

impl VaeConfig {
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn read(c: &Config) -> Result<Self> {
        c.expect_class(&["AutoencoderKL"])?;
        c.only("act_fn", &[json!("silu"), json!("swish")])?;
        for key in [
            "use_quant_conv",
            "use_post_quant_conv",
            "mid_block_add_attention",
        ] {
            c.only(key, &[json!(true)])?;
        }
        c.only("shift_factor", &[json!(0)])?;
        c.only("out_channels", &[json!(c.count("in_channels", Some(3))?)])?;
        let block_out_channels = c.counts("block_out_channels", None)?;
        for (key, class) in [
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ] {
            let types = c.texts(key)?;
            if types.len() != block_out_channels.len() || types.iter().any(|t| *t != class) {
                let want = format!("{} times {class}", block_out_channels.len());
                return Err(c.wrong(key, &want, Some(&json!(types))));
            }
        }
        Ok(VaeConfig {
            in_channels: c.count("in_channels", Some(3))?,
            latent_channels: c.count("latent_channels", Some(4))?,
            block_out_channels,
            layers_per_block: c.layers("layers_per_block", Some(1))?,
            groups: c.count("norm_num_groups", Some(32))?,
            scaling_factor: c.positive("scaling_factor", 0.18215)?,
        })
    }

    /// Image pixels per latent pixel, along each side.
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    fn resnet(&self, inputs: usize, outputs: usize) -> ResnetConfig {
        ResnetConfig {
            inputs,
            outputs,
            time: None,
            groups: self.groups,
            eps: EPS,
        }
    }

    fn mid(&self, w: &Weights<'_>) -> Result<MidBlock> {
        let c = self.block_out_channels[self.block_out_channels.len() - 1];
        let mixer = MixerConfig::Spatial {
            heads: 1,
            groups: self.groups,
            eps: EPS,
        };
        MidBlock::new(&w.at("mid_block"), self.resnet(c, c), mixer)
    }
}

/// The autoencoder.
#[derive(Debug)]
pub struct Vae {
    config: VaeConfig,
    encoder: Encoder,
    quant_conv: Conv2d,
    post_quant_conv: Conv2d,
    decoder: Decoder,
}

/// What [`Vae::encode_vjp`] needs.
#[derive(Debug)]
pub struct EncodeSaved {
    down: Vec<DownSaved>,
    mid: MidSaved,
    norm: GroupNormSaved,
}

/// What [`Vae::decode_vjp`] needs.
#[derive(Debug)]
pub struct DecodeSaved {
    mid: MidSaved,
    up: Vec<UpSaved>,
    norm: GroupNormSaved,
}

impl Vae {
    /// # Errors
    /// [`Error::Weight`] when the weights do not fit the configuration, [`Error::Config`].
    pub fn new(w: &Weights<'_>, config: VaeConfig) -> Result<Self> {
        let latent = config.latent_channels;
        Ok(Vae {
            encoder: Encoder::new(&w.at("encoder"), &config)?,
            quant_conv: Conv2d::same(&w.at("quant_conv"), 2 * latent, 2 * latent, 1)?,
            post_quant_conv: Conv2d::same(&w.at("post_quant_conv"), latent, latent, 1)?,
            decoder: Decoder::new(&w.at("decoder"), &config)?,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// The posterior's mean and log-variance (not clamped), each `[n, h, w, c]`, of `x: [n, 8h, 8w, 3]`.
    /// The mean is not multiplied by the scaling factor.
    ///
    /// # Errors
    /// [`Error::Shape`] when the image's sides are no multiples of [`VaeConfig::factor`].
    pub fn encode(&self, cx: &Cx, x: &Tensor) -> Result<(Tensor, Tensor, EncodeSaved)> {
        let [_, h, w, c] = x.nhwc("vae.encode")?;
        let factor = self.config.factor();
        if c != self.config.in_channels || h % factor != 0 || w % factor != 0 || h * w == 0 {
            let want = format!(
                "[n, h, w, {}] with h and w multiples of {factor}",
                self.config.in_channels
            );
            return Err(Error::shape("vae.encode", want, x.shape()));
        }
        let (h, saved) = self.encoder.forward(cx, x)?;
        let moments = self.quant_conv.forward(cx, &h, None)?;
        let (mean, logvar) = concat::vjp(cx, &moments, self.config.latent_channels)?;
        Ok((mean, logvar, saved))
    }

    /// The cotangent of the image from those of the mean and the log-variance.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn encode_vjp(
        &self,
        cx: &Cx,
        saved: EncodeSaved,
        dmean: &Tensor,
        dlogvar: &Tensor,
    ) -> Result<Tensor> {
        let dmoments = concat::forward(cx, dmean, dlogvar)?;
        let dh = self.quant_conv.vjp_same(cx, &dmoments)?;
        self.encoder.vjp(cx, saved, &dh)
    }

    /// The image `[n, 8h, 8w, 3]` of `z: [n, h, w, c]`, which has been divided by the scaling factor.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn decode(&self, cx: &Cx, z: &Tensor) -> Result<(Tensor, DecodeSaved)> {
        let h = self.post_quant_conv.forward(cx, z, None)?;
        self.decoder.forward(cx, h)
    }

    /// `dz` from the cotangent of the image.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn decode_vjp(&self, cx: &Cx, saved: DecodeSaved, dy: &Tensor) -> Result<Tensor> {
        let dh = self.decoder.vjp(cx, saved, dy)?;
        self.post_quant_conv.vjp_same(cx, &dh)
    }
}

#[derive(Debug)]
struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn new(w: &Weights<'_>, config: &VaeConfig) -> Result<Self> {
        let widths = &config.block_out_channels;
        let last = widths.len() - 1;
        let block = |level: usize| {
            let resnet = config.resnet(widths[level.saturating_sub(1)], widths[level]);
            let halve = (level < last).then_some(0);
            let w = w.at("down_blocks").at(level);
            DownBlock::new(
                &w,
                config.layers_per_block,
                resnet,
                MixerConfig::None,
                halve,
            )
        };
        Ok(Encoder {
            conv_in: Conv2d::same(&w.at("conv_in"), config.in_channels, widths[0], 3)?,
            down_blocks: (0..=last).map(block).collect::<Result<_>>()?,
            mid_block: config.mid(w)?,
            conv_norm_out: GroupNorm::new(
                &w.at("conv_norm_out"),
                widths[last],
                config.groups,
                EPS,
                true,
            )?,
            conv_out: Conv2d::same(
                &w.at("conv_out"),
                widths[last],
                2 * config.latent_channels,
                3,
            )?,
        })
    }

    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<(Tensor, EncodeSaved)> {
        // 1. in
        let mut h = Measured::from(self.conv_in.forward(cx, x, None)?);
        // 2. down
        let mut down = Vec::new();
        for block in &self.down_blocks {
            let (y, saved) = block.forward(cx, h, None, Condition::default())?;
            h = y;
            down.push(saved);
        }
        // 3. mid
        let (y, mid) = self.mid_block.forward(cx, &h, Condition::default(), true)?;
        h = y;
        // 4. out
        let (normed, norm) = self.conv_norm_out.forward_for(cx, &self.conv_out, &h)?;
        drop(h);
        let y = self.conv_out.forward_after(cx, &normed, None, None, None)?;
        Ok((y.x, EncodeSaved { down, mid, norm }))
    }

    fn vjp(&self, cx: &Cx, saved: EncodeSaved, dy: &Tensor) -> Result<Tensor> {
        // 4. out
        let (norm, conv) = (&self.conv_norm_out, &self.conv_out);
        let mut dh = norm.vjp_with(cx, conv, saved.norm, dy)?;
        // 3. mid
        dh = self.mid_block.vjp(cx, saved.mid, &dh)?;
        // 2. down
        for (block, saved) in self.down_blocks.iter().zip(saved.down).rev() {
            dh = block.vjp(cx, saved, dh, None)?;
        }
        // 1. in
        self.conv_in.vjp_same(cx, &dh)
    }
}

#[derive(Debug)]
struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn new(w: &Weights<'_>, config: &VaeConfig) -> Result<Self> {
        let widths = &config.block_out_channels;
        let last = widths.len() - 1;
        let block = |b: usize| {
            let level = last - b;
            let (before, outputs) = (widths[(level + 1).min(last)], widths[level]);
            let mut inputs = vec![outputs; config.layers_per_block + 1];
            inputs[0] = before;
            let resnet = config.resnet(before, outputs);
            UpBlock::new(
                &w.at("up_blocks").at(b),
                &inputs,
                resnet,
                MixerConfig::None,
                level > 0,
            )
        };
        Ok(Decoder {
            conv_in: Conv2d::same(&w.at("conv_in"), config.latent_channels, widths[last], 3)?,
            mid_block: config.mid(w)?,
            up_blocks: (0..=last).map(block).collect::<Result<_>>()?,
            conv_norm_out: GroupNorm::new(
                &w.at("conv_norm_out"),
                widths[0],
                config.groups,
                EPS,
                true,
            )?,
            conv_out: Conv2d::same(&w.at("conv_out"), widths[0], config.in_channels, 3)?.wide(),
        })
    }

    fn forward(&self, cx: &Cx, z: Tensor) -> Result<(Tensor, DecodeSaved)> {
        // 1. in
        let mut h = Measured::from(self.conv_in.forward(cx, &z, None)?);
        drop(z);
        // 2. mid
        let (y, mid) = self.mid_block.forward(cx, &h, Condition::default(), true)?;
        h = y;
        // 3. up
        let mut up = Vec::new();
        for block in &self.up_blocks {
            let (y, saved) = block.forward(cx, h, None, Condition::default())?;
            h = y;
            up.push(saved);
        }
        // 4. out
        let (normed, norm) = self.conv_norm_out.forward_for(cx, &self.conv_out, &h)?;
        drop(h);
        let y = self.conv_out.forward_after(cx, &normed, None, None, None)?;
        Ok((y.x, DecodeSaved { mid, up, norm }))
    }

    fn vjp(&self, cx: &Cx, saved: DecodeSaved, dy: &Tensor) -> Result<Tensor> {
        // 4. out
        let (norm, conv) = (&self.conv_norm_out, &self.conv_out);
        let mut dh = norm.vjp_with(cx, conv, saved.norm, dy)?;
        // 3. up
        for (block, saved) in self.up_blocks.iter().zip(saved.up).rev() {
            dh = block.vjp(cx, saved, dh, &mut Vec::new())?;
        }
        // 2. mid
        dh = self.mid_block.vjp(cx, saved.mid, &dh)?;
        // 1. in
        self.conv_in.vjp_same(cx, &dh)
    }
}
