//! The pieces that UNet, ControlNet and autoencoder share: a residual block with what follows it,
//! down and up blocks, the mid block.

use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::nn::attention::{SpatialAttention, SpatialSaved};
use crate::nn::param::Weights;
use crate::nn::resample::{Downsample, Upsample};
use crate::nn::resnet::{ResnetBlock, ResnetConfig, ResnetSaved};
use crate::nn::time::Temb;
use crate::nn::transformer::{Transformer2d, TransformerConfig, TransformerSaved};
use crate::ops::conv_norm::Measured;
use crate::ops::{add, concat};
use crate::tensor::Tensor;

/// What is given to every block besides the image.
#[derive(Clone, Copy, Debug, Default)]
pub struct Condition<'a> {
    /// The time embedding.
    pub temb: Option<&'a Temb>,
    /// `[n or 1, s, c]`.
    pub context: Option<&'a Tensor>,
}

/// Which mixing layer follows a residual block.
#[derive(Clone, Copy, Debug)]
pub enum MixerConfig {
    /// None.
    None,
    /// Self- and cross-attention (text-conditioned UNets).
    Transformer(TransformerConfig),
    /// Self-attention over pixels (unconditional UNets, autoencoders).
    Spatial {
        /// Attention heads.
        heads: usize,
        /// Groups of its norm.
        groups: usize,
        /// Added to the variance.
        eps: f64,
    },
}

#[derive(Debug)]
enum Mixer {
    None,
    Transformer(Box<Transformer2d>),
    Spatial(Box<SpatialAttention>),
}

#[derive(Debug)]
enum MixerSaved {
    None,
    Transformer(Box<TransformerSaved>),
    Spatial(Box<SpatialSaved>),
}

impl Mixer {
    fn new(w: &Weights<'_>, c: usize, config: MixerConfig) -> Result<Self> {
        Ok(match config {
            MixerConfig::None => Mixer::None,
            MixerConfig::Transformer(config) => {
                Mixer::Transformer(Transformer2d::new(w, config)?.into())
            }
            MixerConfig::Spatial { heads, groups, eps } => {
                Mixer::Spatial(SpatialAttention::new(w, c, heads, groups, eps)?.into())
            }
        })
    }

    fn forward(
        &self,
        cx: &Cx,
        x: Measured,
        context: Option<&Tensor>,
    ) -> Result<(Measured, MixerSaved)> {
        Ok(match self {
            Mixer::None => (x, MixerSaved::None),
            Mixer::Transformer(layer) => {
                let context = context.ok_or_else(|| {
                    Error::shape("transformer", "a text context [n, s, c]", "none")
                })?;
                let (y, saved) = layer.forward(cx, &x.x, context)?;
                (y.into(), MixerSaved::Transformer(saved.into()))
            }
            Mixer::Spatial(layer) => {
                let (y, saved) = layer.forward_measured(cx, &x)?;
                (y.into(), MixerSaved::Spatial(saved.into()))
            }
        })
    }

    fn vjp(&self, cx: &Cx, saved: MixerSaved, dy: Tensor) -> Result<Tensor> {
        match (self, saved) {
            (Mixer::Transformer(layer), MixerSaved::Transformer(saved)) => {
                layer.vjp(cx, *saved, &dy)
            }
            (Mixer::Spatial(layer), MixerSaved::Spatial(saved)) => layer.vjp(cx, *saved, &dy),
            _ => Ok(dy),
        }
    }
}

/// `resnets.{i}` and, if there is one, `attentions.{i}`.
#[derive(Debug)]
struct Stage {
    resnet: ResnetBlock,
    mixer: Mixer,
}

#[derive(Debug)]
struct StageSaved {
    resnet: ResnetSaved,
    mixer: MixerSaved,
}

impl Stage {
    fn new(w: &Weights<'_>, i: usize, resnet: ResnetConfig, mixer: MixerConfig) -> Result<Self> {
        let mixer = Mixer::new(&w.at("attentions").at(i), resnet.outputs, mixer)?;
        Ok(Stage {
            resnet: ResnetBlock::new(&w.at("resnets").at(i), resnet)?,
            mixer,
        })
    }

    /// `next`: whether a norm reads the result.
    fn forward(
        &self,
        cx: &Cx,
        x: &Measured,
        given: Condition<'_>,
        next: bool,
    ) -> Result<(Measured, StageSaved)> {
        let next = match self.mixer {
            Mixer::None => next,
            Mixer::Spatial(_) => true,
            Mixer::Transformer(_) => false,
        };
        let (h, resnet) = self.resnet.forward_measured(cx, x, given.temb, next)?;
        let (y, mixer) = self.mixer.forward(cx, h, given.context)?;
        Ok((y, StageSaved { resnet, mixer }))
    }

    fn vjp(&self, cx: &Cx, saved: StageSaved, dy: Tensor) -> Result<Tensor> {
        let dh = self.mixer.vjp(cx, saved.mixer, dy)?;
        self.resnet.vjp(cx, saved.resnet, &dh)
    }
}

/// `down_blocks.{b}`: stages, then a halving unless it is the last block.
#[derive(Debug)]
pub struct DownBlock {
    stages: Vec<Stage>,
    downsample: Option<Downsample>,
}

/// What [`DownBlock::vjp`] needs.
#[derive(Debug)]
pub struct DownSaved {
    stages: Vec<StageSaved>,
    size: Option<[usize; 2]>,
}

impl DownBlock {
    /// `layers` stages from `resnet.inputs` to `resnet.outputs`; `halve` is the padding of the halving
    /// convolution, if there is one.
    ///
    /// # Errors
    /// [`Error::Weight`], [`Error::Config`].
    pub fn new(
        w: &Weights<'_>,
        layers: usize,
        resnet: ResnetConfig,
        mixer: MixerConfig,
        halve: Option<usize>,
    ) -> Result<Self> {
        let stage = |i| {
            let inputs = if i == 0 {
                resnet.inputs
            } else {
                resnet.outputs
            };
            Stage::new(w, i, ResnetConfig { inputs, ..resnet }, mixer)
        };
        let downsample =
            |padding| Downsample::new(&w.at("downsamplers.0"), resnet.outputs, padding);
        Ok(DownBlock {
            stages: (0..layers).map(stage).collect::<Result<_>>()?,
            downsample: halve.map(downsample).transpose()?,
        })
    }

    /// The last output, which a norm reads next; every output on the way is also pushed onto `skips`, if there are any.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward(
        &self,
        cx: &Cx,
        mut x: Measured,
        mut skips: Option<&mut Vec<Tensor>>,
        given: Condition<'_>,
    ) -> Result<(Measured, DownSaved)> {
        let mut push = |x: &Tensor| skips.iter_mut().for_each(|skips| skips.push(x.clone()));
        let mut saved = DownSaved {
            stages: Vec::new(),
            size: None,
        };
        for (i, stage) in self.stages.iter().enumerate() {
            let next = i + 1 < self.stages.len() || self.downsample.is_none();
            let (y, kept) = stage.forward(cx, &x, given, next)?;
            x = y;
            push(&x.x);
            saved.stages.push(kept);
        }
        if let Some(downsample) = &self.downsample {
            let (y, size) = downsample.forward(cx, &x.x)?;
            x = y.into();
            push(&x.x);
            saved.size = Some(size);
        }
        Ok((x, saved))
    }

    /// `dx` from the cotangent of the last output; each output's cotangent as a skip is popped off
    /// `dskips` and added on the way.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp(
        &self,
        cx: &Cx,
        saved: DownSaved,
        mut dy: Tensor,
        mut dskips: Option<&mut Vec<Tensor>>,
    ) -> Result<Tensor> {
        let mut join = |dy: Tensor| match &mut dskips {
            Some(dskips) => add::forward(cx, &dy, &pop(dskips)?),
            None => Ok(dy),
        };
        if let (Some(downsample), Some(size)) = (&self.downsample, saved.size) {
            dy = downsample.vjp(cx, size, &join(dy)?)?;
        }
        for (stage, saved) in self.stages.iter().zip(saved.stages).rev() {
            dy = stage.vjp(cx, saved, join(dy)?)?;
        }
        Ok(dy)
    }
}

fn pop(skips: &mut Vec<Tensor>) -> Result<Tensor> {
    skips
        .pop()
        .ok_or_else(|| Error::shape("skips", "one a stage", "none left"))
}

/// `up_blocks.{b}`: stages, each after a concatenation with a skip, then a doubling unless it is the last.
#[derive(Debug)]
pub struct UpBlock {
    stages: Vec<Stage>,
    upsample: Option<Upsample>,
    /// The groups of all norms.
    groups: usize,
}

/// What [`UpBlock::vjp`] needs.
#[derive(Debug)]
pub struct UpSaved {
    stages: Vec<StageSaved>,
    /// The channels of each stage's input before its skip; 0 without skips.
    widths: Vec<usize>,
}

impl UpBlock {
    /// One stage for each of `inputs`, the channels that stage's residual block takes.
    ///
    /// # Errors
    /// [`Error::Weight`], [`Error::Config`].
    pub fn new(
        w: &Weights<'_>,
        inputs: &[usize],
        resnet: ResnetConfig,
        mixer: MixerConfig,
        double: bool,
    ) -> Result<Self> {
        let stage = |(i, &inputs)| Stage::new(w, i, ResnetConfig { inputs, ..resnet }, mixer);
        let upsample = || Upsample::new(&w.at("upsamplers.0"), resnet.outputs);
        Ok(UpBlock {
            stages: inputs
                .iter()
                .enumerate()
                .map(stage)
                .collect::<Result<_>>()?,
            upsample: double.then(upsample).transpose()?,
            groups: resnet.groups,
        })
    }

    /// Takes one skip from the end of `skips` for each stage; with `skips: None` there are none, and norms read all results.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward(
        &self,
        cx: &Cx,
        mut x: Measured,
        mut skips: Option<&mut Vec<Tensor>>,
        given: Condition<'_>,
    ) -> Result<(Measured, UpSaved)> {
        let mut saved = UpSaved {
            stages: Vec::new(),
            widths: Vec::new(),
        };
        for (i, stage) in self.stages.iter().enumerate() {
            let mut width = 0;
            if let Some(skips) = &mut skips {
                let skip = pop(skips)?;
                width = x.x.shape().channels();
                x = concat::forward(cx, &x.x, &skip)?.into();
            }
            let next = match i + 1 < self.stages.len() {
                true => skips.is_none(),
                false => self.upsample.is_none(),
            };
            let (y, kept) = stage.forward(cx, &x, given, next)?;
            x = y;
            saved.stages.push(kept);
            saved.widths.push(width);
        }
        if let Some(upsample) = &self.upsample {
            let groups = skips.is_none().then_some(self.groups);
            x = upsample.forward_measured(cx, &x.x, groups)?;
        }
        Ok((x, saved))
    }

    /// `dx` from `dy`; pushes the skips' cotangents onto `dskips`, in the order the skips were made.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp(
        &self,
        cx: &Cx,
        saved: UpSaved,
        mut dy: Tensor,
        dskips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        if let Some(upsample) = &self.upsample {
            dy = upsample.vjp(cx, &dy)?;
        }
        let kept = saved.stages.into_iter().zip(saved.widths);
        for (stage, (saved, width)) in self.stages.iter().zip(kept).rev() {
            dy = stage.vjp(cx, saved, dy)?;
            if width > 0 {
                let (dx, dskip) = concat::vjp(cx, &dy, width)?;
                dskips.push(dskip);
                dy = dx;
            }
        }
        Ok(dy)
    }
}

/// `mid_block`: a residual block, a mixing layer, a residual block.
#[derive(Debug)]
pub struct MidBlock {
    first: Stage,
    last: ResnetBlock,
}

/// What [`MidBlock::vjp`] needs.
#[derive(Debug)]
pub struct MidSaved {
    first: StageSaved,
    last: ResnetSaved,
}

impl MidBlock {
    /// `resnets.0`, `attentions.0`, `resnets.1`.
    ///
    /// # Errors
    /// [`Error::Weight`], [`Error::Config`].
    pub fn new(w: &Weights<'_>, resnet: ResnetConfig, mixer: MixerConfig) -> Result<Self> {
        let last = ResnetBlock::new(&w.at("resnets").at(1), resnet)?;
        Ok(MidBlock {
            first: Stage::new(w, 0, resnet, mixer)?,
            last,
        })
    }

    /// `x: [n, h, w, c]` to the same shape; `next`: whether a norm reads the result.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn forward(
        &self,
        cx: &Cx,
        x: &Measured,
        given: Condition<'_>,
        next: bool,
    ) -> Result<(Measured, MidSaved)> {
        let (h, first) = self.first.forward(cx, x, given, true)?;
        let (y, last) = self.last.forward_measured(cx, &h, given.temb, next)?;
        Ok((y, MidSaved { first, last }))
    }

    /// `dx` from `dy`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn vjp(&self, cx: &Cx, saved: MidSaved, dy: &Tensor) -> Result<Tensor> {
        let dh = self.last.vjp(cx, saved.last, dy)?;
        self.first.vjp(cx, saved.first, dh)
    }
}
