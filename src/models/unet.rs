//! The UNet that predicts noise: `UNet2DConditionModel` (SD 1.x and 2.x) and `UNet2DModel`
//! (unconditional, on pixels). [`Encoder`] is its first half, which ControlNet shares.

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
use crate::nn::time::{Temb, TimeEmbedding};
use crate::nn::transformer::TransformerConfig;
use crate::ops::add;
use crate::ops::conv_norm::Measured;
use crate::ops::embed::Wave;
use crate::tensor::Tensor;

/// A UNet's `config.json`.
#[derive(Clone, Debug)]
pub struct UNetConfig {
    /// Channels of the noisy input.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Channels of each level, from the finest.
    pub block_out_channels: Vec<usize>,
    /// Which levels have attention.
    pub attention: Vec<bool>,
    /// Residual blocks of a down block; an up block has one more.
    pub layers_per_block: usize,
    /// Attention heads of each level.
    pub heads: Vec<usize>,
    /// Channels of the text context; `None` for the unconditional UNet.
    pub context: Option<usize>,
    /// Transformer blocks in each attention layer.
    pub transformer_layers: usize,
    /// Groups of every group norm.
    pub groups: usize,
    /// Added to the variance in residual blocks.
    pub eps: f64,
    /// Padding of the halving convolutions.
    pub downsample_padding: usize,
    /// The sinusoids' order and offset.
    pub wave: Wave,
    /// The image side the model was trained at, in its own pixels.
    pub sample_size: usize,
}

impl UNetConfig {
    /// Reads a UNet's or ControlNet's configuration.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn read(c: &Config) -> Result<Self> {
        let class = c.expect_class(&["UNet2DConditionModel", "UNet2DModel", "ControlNetModel"])?;
        let conditional = class != "UNet2DModel";
        let (channels, mid) = match conditional {
            true => (4, "UNetMidBlock2DCrossAttn"),
            false => (3, "UNetMidBlock2D"),
        };
        refuse_unknown(c, mid)?;
        let block_out_channels = c.counts("block_out_channels", None)?;
        let levels = block_out_channels.len();
        let layers_per_block = c.layers("layers_per_block", Some(2))?;
        let attention = attention_levels(c, levels, class)?;
        let heads = if c.has("num_attention_heads") {
            c.per_block("num_attention_heads", levels)?
        } else if conditional {
            // Named for the head's width, but a count in every published model.
            c.per_block("attention_head_dim", levels)?
        } else {
            let dim = if c.has("attention_head_dim") {
                Some(c.count("attention_head_dim", None)?)
            } else {
                None
            };
            block_out_channels
                .iter()
                .map(|&c| c / dim.unwrap_or(c).min(c))
                .collect()
        };
        Ok(UNetConfig {
            in_channels: c.count("in_channels", Some(channels))?,
            out_channels: c.count("out_channels", Some(channels))?,
            attention,
            layers_per_block,
            heads,
            context: conditional
                .then(|| c.count("cross_attention_dim", Some(1280)))
                .transpose()?,
            transformer_layers: c.layers("transformer_layers_per_block", Some(1))?,
            groups: c.count("norm_num_groups", Some(32))?,
            eps: c.positive("norm_eps", 1e-5)?,
            downsample_padding: c.between("downsample_padding", [0, 1], Some(1))?,
            wave: Wave {
                flip_sin_to_cos: c.flag("flip_sin_to_cos", true)?,
                freq_shift: c.real("freq_shift", 0.0)?,
            },
            sample_size: c.count("sample_size", Some(64))?,
            block_out_channels,
        })
    }

    /// How many times smaller the last level is than the input, along each side.
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    fn mixer(&self, level: usize, attention: bool) -> MixerConfig {
        let (c, heads, groups) = (
            self.block_out_channels[level],
            self.heads[level],
            self.groups,
        );
        match self.context {
            _ if !attention => MixerConfig::None,
            Some(context) => MixerConfig::Transformer(TransformerConfig {
                c,
                heads,
                context,
                groups,
                layers: self.transformer_layers,
            }),
            None => MixerConfig::Spatial {
                heads,
                groups,
                eps: self.eps,
            },
        }
    }

    fn resnet(&self, inputs: usize, outputs: usize) -> ResnetConfig {
        let time = Some(4 * self.block_out_channels[0]);
        ResnetConfig {
            inputs,
            outputs,
            time,
            groups: self.groups,
            eps: self.eps,
        }
    }

    /// The channels of every skip, in the order they are made.
    pub(crate) fn skip_channels(&self) -> Vec<usize> {
        let last = self.block_out_channels.len() - 1;
        let mut skips = vec![self.block_out_channels[0]];
        for (level, &c) in self.block_out_channels.iter().enumerate() {
            skips.extend(std::iter::repeat_n(
                c,
                self.layers_per_block + usize::from(level < last),
            ));
        }
        skips
    }
}

fn refuse_unknown(c: &Config, mid: &str) -> Result<()> {
    c.only("act_fn", &[json!("silu"), json!("swish")])?;
    c.only("center_input_sample", &[json!(false)])?;
    c.only("dual_cross_attention", &[json!(false)])?;
    c.only("only_cross_attention", &[json!(false)])?;
    c.only("mid_block_scale_factor", &[json!(1)])?;
    c.only("mid_block_type", &[json!(mid)])?;
    c.only("resnet_skip_time_act", &[json!(false)])?;
    c.only("resnet_out_scale_factor", &[json!(1)])?;
    c.only("attention_type", &[json!("default")])?;
    c.only("resnet_time_scale_shift", &[json!("default")])?;
    c.only("time_embedding_type", &[json!("positional")])?;
    c.only("downsample_type", &[json!("conv")])?;
    c.only("upsample_type", &[json!("conv")])?;
    c.only("add_attention", &[json!(true)])?;
    c.only("conv_in_kernel", &[json!(3)])?;
    c.only("conv_out_kernel", &[json!(3)])?;
    c.only("global_pool_conditions", &[json!(false)])?;
    for key in [
        "class_embed_type",
        "addition_embed_type",
        "encoder_hid_dim",
        "time_cond_proj_dim",
        "time_embedding_dim",
        "time_embedding_act_fn",
        "timestep_post_act",
        "num_class_embeds",
        "cross_attention_norm",
        "reverse_transformer_layers_per_block",
        "attn_norm_num_groups",
    ] {
        c.only(key, &[json!(false)])?;
    }
    Ok(())
}

/// Which levels have attention, from the block types; up must mirror down.
fn attention_levels(c: &Config, levels: usize, class: &str) -> Result<Vec<bool>> {
    let (with, without) = match class {
        "UNet2DModel" => ("Attn", ""),
        _ => ("CrossAttn", ""),
    };
    let read = |key: &str, direction: &str| -> Result<Vec<bool>> {
        let types = c.texts(key)?;
        if types.len() != levels {
            return Err(c.wrong(key, &format!("{levels} block types"), Some(&json!(types))));
        }
        let one = |t: &&str| match *t {
            t if t == format!("{with}{direction}Block2D") => Ok(true),
            t if t == format!("{without}{direction}Block2D") => Ok(false),
            t => Err(c.wrong(
                key,
                &format!("{with}{direction}Block2D or {direction}Block2D"),
                Some(&json!(t)),
            )),
        };
        types.iter().map(one).collect()
    };
    let down = read("down_block_types", "Down")?;
    if class != "ControlNetModel" {
        let up = read("up_block_types", "Up")?;
        if up.iter().rev().ne(down.iter()) {
            return Err(c.wrong(
                "up_block_types",
                "the mirror image of down_block_types",
                None,
            ));
        }
    }
    Ok(down)
}

/// `conv_in`, `time_embedding`, `down_blocks`, `mid_block`: the UNet's first half, and ControlNet's body.
#[derive(Debug)]
pub struct Encoder {
    conv_in: Conv2d,
    time_embedding: TimeEmbedding,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
}

/// What [`Encoder::vjp`] needs.
#[derive(Debug)]
pub struct EncoderSaved {
    down: Vec<DownSaved>,
    mid: MidSaved,
}

/// The encoder's outputs: one tensor for every skip in the order they are made, and the mid block's.
/// ControlNet's residuals and all their cotangents have the same form.
#[derive(Clone, Debug)]
pub struct Features {
    /// For each skip connection.
    pub skips: Vec<Tensor>,
    /// For the mid block.
    pub mid: Tensor,
}

impl Encoder {
    /// # Errors
    /// [`Error::Weight`], [`Error::Config`].
    pub fn new(w: &Weights<'_>, config: &UNetConfig) -> Result<Self> {
        let widths = &config.block_out_channels;
        let last = widths.len() - 1;
        let block = |level: usize| {
            let inputs = widths[level.saturating_sub(1)];
            let resnet = config.resnet(inputs, widths[level]);
            let mixer = config.mixer(level, config.attention[level]);
            let halve = (level < last).then_some(config.downsample_padding);
            DownBlock::new(
                &w.at("down_blocks").at(level),
                config.layers_per_block,
                resnet,
                mixer,
                halve,
            )
        };
        let mid = config.resnet(widths[last], widths[last]);
        Ok(Encoder {
            conv_in: Conv2d::same(&w.at("conv_in"), config.in_channels, widths[0], 3)?,
            time_embedding: TimeEmbedding::new(&w.at("time_embedding"), widths[0], config.wave)?,
            down_blocks: (0..widths.len()).map(block).collect::<Result<_>>()?,
            mid_block: MidBlock::new(&w.at("mid_block"), mid, config.mixer(last, true))?,
        })
    }

    /// The time embedding.
    pub fn time_embedding(&self) -> &TimeEmbedding {
        &self.time_embedding
    }

    /// `x: [n, h, w, c]`; `hint`, of the width of `conv_in`, is added to its output (ControlNet).
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward(
        &self,
        cx: &Cx,
        x: &Tensor,
        given: Condition<'_>,
        hint: Option<&Tensor>,
    ) -> Result<(Features, EncoderSaved)> {
        // 1. in
        let mut h = Measured::from(self.conv_in.forward(cx, x, hint)?);
        let mut skips = vec![h.x.clone()];
        // 2. down
        let mut down = Vec::new();
        for block in &self.down_blocks {
            let (y, saved) = block.forward(cx, h, Some(&mut skips), given)?;
            h = y;
            down.push(saved);
        }
        // 3. mid
        let (mid, mid_saved) = self.mid_block.forward(cx, &h, given, false)?;
        let mid = mid.x;
        Ok((
            Features { skips, mid },
            EncoderSaved {
                down,
                mid: mid_saved,
            },
        ))
    }

    /// `dx`, and the cotangent of the hint (it is `conv_in`'s output's), from the cotangents of the outputs.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp(
        &self,
        cx: &Cx,
        saved: EncoderSaved,
        cotangent: Features,
    ) -> Result<(Tensor, Tensor)> {
        let Features {
            skips: mut dskips,
            mid: dmid,
        } = cotangent;
        // 3. mid
        let mut dh = self.mid_block.vjp(cx, saved.mid, &dmid)?;
        drop(dmid);
        // 2. down
        for (block, saved) in self.down_blocks.iter().zip(saved.down).rev() {
            dh = block.vjp(cx, saved, dh, Some(&mut dskips))?;
        }
        // 1. in
        let first = dskips
            .pop()
            .ok_or_else(|| Error::shape("skips", "one for conv_in", "none left"))?;
        dh = add::forward(cx, &dh, &first)?;
        drop(first);
        Ok((self.conv_in.vjp_same(cx, &dh)?, dh))
    }
}

/// The UNet.
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    encoder: Encoder,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// What [`UNet::vjp`] needs.
#[derive(Debug)]
pub struct UNetSaved {
    temb: Temb,
    encoder: EncoderSaved,
    decoder: DecoderSaved,
}

/// What [`UNet::residuals_vjp`] needs.
#[derive(Debug)]
pub struct DecoderSaved {
    up: Vec<UpSaved>,
    norm: GroupNormSaved,
}

impl UNet {
    /// # Errors
    /// [`Error::Weight`] when the weights do not fit the configuration, [`Error::Config`].
    pub fn new(w: &Weights<'_>, config: UNetConfig) -> Result<Self> {
        let levels = config.block_out_channels.len();
        let mut skips = config.skip_channels();
        let mut width = config.block_out_channels[levels - 1];
        let mut up_blocks = Vec::new();
        for (b, level) in (0..levels).rev().enumerate() {
            let outputs = config.block_out_channels[level];
            let mut inputs = Vec::new();
            for _ in 0..=config.layers_per_block {
                inputs.push(
                    width
                        + skips
                            .pop()
                            .expect("skip_channels counts one for each stage"),
                );
                width = outputs;
            }
            let mixer = config.mixer(level, config.attention[level]);
            let resnet = config.resnet(0, outputs);
            up_blocks.push(UpBlock::new(
                &w.at("up_blocks").at(b),
                &inputs,
                resnet,
                mixer,
                level > 0,
            )?);
        }
        let (first, groups, eps) = (config.block_out_channels[0], config.groups, config.eps);
        Ok(UNet {
            encoder: Encoder::new(w, &config)?,
            up_blocks,
            conv_norm_out: GroupNorm::new(&w.at("conv_norm_out"), first, groups, eps, true)?,
            conv_out: Conv2d::same(&w.at("conv_out"), first, config.out_channels, 3)?.wide(),
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The first half.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The prediction for `x: [n, h, w, in]` at times `t: [n]` with `context: [n or 1, s, c]`;
    /// `residuals` (ControlNet's) are added to the skips and the mid block's output.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward(
        &self,
        cx: &Cx,
        x: &Tensor,
        t: &Tensor,
        context: Option<&Tensor>,
        residuals: Option<&Features>,
    ) -> Result<(Tensor, UNetSaved)> {
        self.check_input(x)?;
        let temb = self.encoder.time_embedding.activated(cx, t)?;
        let given = Condition {
            temb: Some(&temb),
            context,
        };
        let (mut features, encoder) = self.encoder.forward(cx, x, given, None)?;
        if let Some(residuals) = residuals {
            features = add_features(cx, features, residuals)?;
        }
        let (y, decoder) = self.decode(cx, features, given)?;
        let saved = UNetSaved {
            temb,
            encoder,
            decoder,
        };
        Ok((y, saved))
    }

    /// [`UNet::forward`] for a backward pass to the residuals alone, which a frozen UNet's encoder does not see:
    /// nothing of it is kept.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward_from_residuals(
        &self,
        cx: &Cx,
        x: &Tensor,
        t: &Tensor,
        context: Option<&Tensor>,
        residuals: &Features,
    ) -> Result<(Tensor, DecoderSaved)> {
        self.check_input(x)?;
        let temb = self.encoder.time_embedding.activated(cx, t)?;
        let given = Condition {
            temb: Some(&temb),
            context,
        };
        let encoder = self.encoder.forward(&cx.forward_only(), x, given, None)?;
        let features = add_features(cx, encoder.0, residuals)?;
        self.decode(cx, features, given)
    }

    /// The second half.
    fn decode(
        &self,
        cx: &Cx,
        features: Features,
        given: Condition<'_>,
    ) -> Result<(Tensor, DecoderSaved)> {
        let Features { mut skips, mid } = features;
        let mut h = Measured::from(mid);
        // 4. up
        let mut up = Vec::new();
        for block in &self.up_blocks {
            let (y, saved) = block.forward(cx, h, Some(&mut skips), given)?;
            h = y;
            up.push(saved);
        }
        // 5. out
        let (normed, norm) = self.conv_norm_out.forward_for(cx, &self.conv_out, &h)?;
        drop(h);
        let y = self.conv_out.forward_after(cx, &normed, None, None, None)?;
        Ok((y.x, DecoderSaved { up, norm }))
    }

    /// The cotangent of `x` from that of the prediction; and, if `residuals`, those of the residuals.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp(
        &self,
        cx: &Cx,
        saved: UNetSaved,
        dy: &Tensor,
        residuals: bool,
    ) -> Result<(Tensor, Option<Features>)> {
        let cotangent = self.residuals_vjp(cx, saved.decoder, dy)?;
        let dresiduals = residuals.then(|| cotangent.clone());
        let (dx, _) = self.encoder.vjp(cx, saved.encoder, cotangent)?;
        self.encoder.time_embedding.vjp(cx, saved.temb)?;
        Ok((dx, dresiduals))
    }

    /// The cotangents of the residuals from that of the prediction.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn residuals_vjp(&self, cx: &Cx, saved: DecoderSaved, dy: &Tensor) -> Result<Features> {
        // 5. out
        let (norm, conv) = (&self.conv_norm_out, &self.conv_out);
        let mut dh = norm.vjp_with(cx, conv, saved.norm, dy)?;
        // 4. up
        let mut skips = Vec::new();
        for (block, saved) in self.up_blocks.iter().zip(saved.up).rev() {
            dh = block.vjp(cx, saved, dh, &mut skips)?;
        }
        Ok(Features { skips, mid: dh })
    }

    fn check_input(&self, x: &Tensor) -> Result<()> {
        let [_, h, w, c] = x.nhwc("unet")?;
        let multiple = self.config.factor();
        if c == self.config.in_channels && h % multiple == 0 && w % multiple == 0 && h * w > 0 {
            return Ok(());
        }
        let want = format!(
            "[n, h, w, {}] with h and w multiples of {multiple}",
            self.config.in_channels
        );
        Err(Error::shape("unet", want, x.shape()))
    }
}

fn add_features(cx: &Cx, features: Features, more: &Features) -> Result<Features> {
    if features.skips.len() != more.skips.len() {
        return Err(Error::shape(
            "residuals",
            features.skips.len(),
            more.skips.len(),
        ));
    }
    let pairs = features.skips.iter().zip(&more.skips);
    let skips = pairs
        .map(|(a, b)| add::forward(cx, a, b))
        .collect::<Result<_>>()?;
    Ok(Features {
        skips,
        mid: add::forward(cx, &features.mid, &more.mid)?,
    })
}
