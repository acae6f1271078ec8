//! Weight gradients of every kind of layer in f64, against central differences of the forward pass.

use posteriori::models::text::{TextConfig, TextModel};
use posteriori::nn::attention::{Attention, SpatialAttention};
use posteriori::nn::conv::Conv2d;
use posteriori::nn::linear::Linear;
use posteriori::nn::norm::{GroupNorm, LayerNorm};
use posteriori::nn::param::Weights;
use posteriori::nn::resample::{Downsample, Upsample};
use posteriori::nn::resnet::{ResnetBlock, ResnetConfig};
use posteriori::nn::time::{Temb, TimeEmbedding};
use posteriori::nn::transformer::{Transformer2d, TransformerConfig};
use posteriori::ops::activation::Activation;
use posteriori::ops::add;
use posteriori::ops::conv2d::Geometry;
use posteriori::ops::embed::Wave;
use posteriori::{Cx, Result, Shape, Tensor};

use super::gradients::{agree, cx};
use super::{drawn, normals};

/// What takes the cotangent of an output back.
type Back<'a> = Box<dyn FnOnce(&Tensor) -> Result<()> + 'a>;
/// An output, and the way back.
type Forward<'a> = Result<(Tensor, Back<'a>)>;

/// The backward pass of a layer; what becomes of its input is not asked here.
fn back<'a, R>(vjp: impl FnOnce(&Tensor) -> Result<R> + 'a) -> Back<'a> {
    Box::new(move |dy| vjp(dy).map(drop))
}

/// The loss is the inner product of the output with a random cotangent.
fn check<M>(
    what: &str,
    cx: &Cx,
    x: impl Into<Shape>,
    new: impl Fn(&Weights<'_>) -> Result<M>,
    forward: impl for<'a> Fn(&'a Cx, &'a M, &'a Tensor) -> Forward<'a>,
) {
    let (layer, parameters) = drawn(cx, |w| new(&w.at("layer")));
    let x = normals(cx, 1, x);
    agree(what, cx, &parameters, |cx| {
        let (y, back) = forward(cx, &layer, &x)?;
        let dy = normals(cx, 2, y.shape());
        back(&dy)?;
        let pairs = y.to_f64()?.into_iter().zip(dy.to_f64()?);
        Ok((pairs.map(|(y, dy)| y * dy).sum(), 1.0))
    });
}

#[test]
fn linear_maps() {
    let cx = &cx();
    for bias in [false, true] {
        let new = |w: &Weights<'_>| Linear::new(w, 5, 7, bias);
        check("linear", cx, [2, 3, 5], new, |cx, layer, x| {
            Ok((layer.forward(cx, x, None)?, back(|dy| layer.vjp(cx, dy))))
        });
    }
}

#[test]
fn convolutions() {
    let cx = &cx();
    let halving = Geometry {
        stride: 2,
        before: 1,
        after: 1,
    };
    for (what, k, geometry) in [
        ("conv 1x1", 1, Geometry::same(1)),
        ("conv 3x3", 3, Geometry::same(3)),
        ("conv of stride 2", 3, halving),
    ] {
        let new = |w: &Weights<'_>| Conv2d::new(w, 3, 5, k, geometry);
        check(what, cx, [2, 4, 6, 3], new, |cx, layer, x| {
            let y = layer.forward(cx, x, None)?;
            Ok((y, back(|dy| layer.vjp(cx, [4, 6], dy))))
        });
    }
    for padding in [0, 1] {
        let new = |w: &Weights<'_>| Downsample::new(w, 4, padding);
        check("downsample", cx, [2, 4, 6, 4], new, |cx, layer, x| {
            let (y, size) = layer.forward(cx, x)?;
            Ok((y, back(move |dy| layer.vjp(cx, size, dy))))
        });
    }
    let new = |w: &Weights<'_>| Upsample::new(w, 4);
    check("upsample", cx, [2, 3, 5, 4], new, |cx, layer, x| {
        Ok((layer.forward(cx, x)?, back(|dy| layer.vjp(cx, dy))))
    });
}

#[test]
fn norms() {
    let cx = &cx();
    for silu in [false, true] {
        let new = |w: &Weights<'_>| GroupNorm::new(w, 8, 4, 1e-5, silu);
        check("group norm", cx, [2, 3, 5, 8], new, |cx, layer, x| {
            let (y, saved) = layer.forward(cx, x)?;
            Ok((y, back(move |dy| layer.vjp(cx, saved, dy, None))))
        });
    }
    let new = |w: &Weights<'_>| LayerNorm::new(w, 8, 1e-5);
    check("layer norm", cx, [2, 7, 8], new, |cx, layer, x| {
        let (y, saved) = layer.forward(cx, x)?;
        Ok((y, back(move |dy| layer.vjp(cx, saved, dy, None))))
    });
}

#[test]
fn attention() {
    let cx = &cx();
    let new = |w: &Weights<'_>| Attention::new(w, 8, 8, 2);
    check("self-attention", cx, [2, 5, 8], new, |cx, layer, x| {
        let (y, saved) = layer.forward(cx, x, None, x)?;
        Ok((y, back(move |dy| layer.vjp(cx, saved, dy))))
    });
    let context = &normals(cx, 3, [2, 7, 6]);
    let new = |w: &Weights<'_>| Attention::new(w, 8, 6, 2);
    check("cross-attention", cx, [2, 5, 8], new, |cx, layer, x| {
        let (y, saved) = layer.forward(cx, x, Some(context), x)?;
        Ok((y, back(move |dy| layer.vjp_query(cx, saved, dy))))
    });
    let new = |w: &Weights<'_>| SpatialAttention::new(w, 8, 2, 4, 1e-6);
    check("spatial", cx, [2, 2, 3, 8], new, |cx, layer, x| {
        let (y, saved) = layer.forward(cx, x)?;
        Ok((y, back(move |dy| layer.vjp(cx, saved, dy))))
    });
}

#[test]
fn blocks() {
    let cx = &cx();
    let temb = &Temb::of(normals(cx, 4, [2, 6]));
    for (outputs, time) in [(8, None), (12, None), (8, Some(6)), (12, Some(6))] {
        let config = ResnetConfig {
            inputs: 8,
            outputs,
            time,
            groups: 4,
            eps: 1e-5,
        };
        let new = |w: &Weights<'_>| ResnetBlock::new(w, config);
        check("resnet", cx, [2, 4, 3, 8], new, |cx, layer, x| {
            let (y, saved) = layer.forward(cx, x, time.map(|_| temb))?;
            Ok((y, back(move |dy| layer.vjp(cx, saved, dy))))
        });
    }
    let config = TransformerConfig {
        c: 8,
        heads: 2,
        context: 6,
        groups: 4,
        layers: 2,
    };
    let context = &normals(cx, 5, [2, 7, 6]);
    let new = |w: &Weights<'_>| Transformer2d::new(w, config);
    check("transformer", cx, [2, 3, 2, 8], new, |cx, layer, x| {
        let (y, saved) = layer.forward(cx, x, context)?;
        Ok((y, back(move |dy| layer.vjp(cx, saved, dy))))
    });
}

/// The embedding and two projections of it, whose cotangents are summed.
#[test]
fn time_embedding() {
    let cx = &cx();
    let wave = Wave {
        flip_sin_to_cos: true,
        freq_shift: 0.0,
    };
    let t = &cx.upload(&[3.0, 700.0], [2]).unwrap();
    let new = |w: &Weights<'_>| {
        let projection = |name| Linear::new(&w.at(name), 16, 5, true);
        let projections = [projection("a")?, projection("b")?];
        Ok((TimeEmbedding::new(&w.at("time"), 4, wave)?, projections))
    };
    check("time embedding", cx, [1], new, |cx, (time, [a, b]), _| {
        let temb = time.activated(cx, t)?;
        let (to_a, to_b) = (temb.project(cx, a)?, temb.project(cx, b)?);
        let y = add::forward(cx, &to_a, &to_b)?;
        let back = back(move |dy| {
            temb.project_vjp(cx, b, dy)?;
            temb.project_vjp(cx, a, dy)?;
            time.vjp(cx, temb)
        });
        Ok((y, back))
    });
}

/// Of the tokens one comes twice in a prompt and in both, and not every row of the tables is met.
#[test]
fn text_encoder() {
    let cx = &cx();
    for activation in [Activation::Gelu, Activation::QuickGelu] {
        let config = TextConfig {
            hidden_size: 8,
            intermediate_size: 12,
            layers: 2,
            heads: 2,
            activation,
            vocab_size: 9,
            positions: 5,
            eps: 1e-5,
        };
        let new = |w: &Weights<'_>| TextModel::new(w, config.clone());
        check("text encoder", cx, [1], new, |cx, text, _| {
            let (y, saved) = text.forward(cx, &[8, 1, 1, 0, 1, 5, 2, 5], 2)?;
            Ok((y, back(move |dy| text.vjp(cx, saved, dy))))
        });
    }
}
