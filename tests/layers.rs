//! Every layer and model in f64: the backward pass against central differences of the forward pass.

use posteriori::diffusion::prior::{Codec, Denoiser};
use posteriori::io::weights::Checkpoint;
use posteriori::nn::attention::{Attention, SpatialAttention};
use posteriori::nn::conv::Conv2d;
use posteriori::nn::linear::Linear;
use posteriori::nn::norm::{GroupNorm, LayerNorm};
use posteriori::nn::param::Weights;
use posteriori::nn::resample::{Downsample, Upsample};
use posteriori::nn::resnet::{ResnetBlock, ResnetConfig};
use posteriori::nn::time::Temb;
use posteriori::nn::transformer::{Transformer2d, TransformerConfig};
use posteriori::pipeline::prior::{Conditional, Latents, Prior, Unguided, open_controlnet};
use posteriori::rng::Philox;
use posteriori::runtime::Runtime;
use posteriori::{Cx, DType, Result, Shape, Tensor};

use crate::oracle;

fn cx() -> Cx {
    Cx::new(Runtime::native(), DType::F64).unwrap()
}

fn normals(cx: &Cx, random: &mut Philox, shape: Shape) -> Tensor {
    let values: Vec<f64> = (0..shape.elements()).map(|_| random.normal()).collect();
    cx.upload(&values, shape).unwrap()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `<vjp(dy), v>` against `<dy, (f(x + h v) - f(x - h v)) / 2h>` along three directions. The truncation
/// error of the difference is of order h^2 = 1e-10 times a third derivative, the rounding error of order
/// 1e-16 / h = 1e-11: 1e-7 leaves room for the depth of a network and catches any wrong term.
fn check(
    what: &str,
    cx: &Cx,
    shape: impl Into<Shape>,
    forward: impl Fn(&Tensor) -> Result<Tensor>,
    vjp: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) {
    const H: f64 = 1e-5;
    let mut random = Philox::new(11);
    let x = normals(cx, &mut random, shape.into());
    let dy = normals(cx, &mut random, forward(&x).unwrap().shape());
    let dx = vjp(&x, &dy).unwrap().to_f64().unwrap();
    let (x_values, dy_values) = (x.to_f64().unwrap(), dy.to_f64().unwrap());
    for _ in 0..3 {
        let v: Vec<f64> = (0..x_values.len()).map(|_| random.normal()).collect();
        let at = |h: f64| {
            let moved: Vec<f64> = x_values.iter().zip(&v).map(|(x, v)| x + h * v).collect();
            forward(&cx.upload(&moved, x.shape()).unwrap())
                .unwrap()
                .to_f64()
                .unwrap()
        };
        let difference = (dot(&dy_values, &at(H)) - dot(&dy_values, &at(-H))) / (2.0 * H);
        let got = dot(&dx, &v);
        let size = dot(&dx, &dx).sqrt() * dot(&v, &v).sqrt() / (v.len() as f64).sqrt();
        let error = (got - difference).abs() / size;
        assert!(
            error < 1e-7,
            "{what}: vjp {got:e}, difference {difference:e}, error {error:e}"
        );
    }
}

fn weights<'a>(cx: &'a Cx, model: &str, component: &str) -> Weights<'a> {
    Weights::open(
        cx,
        Checkpoint::open(oracle::checkpoint(model).join(component)).unwrap(),
    )
}

#[test]
fn convolutions_and_linear_maps() {
    let cx = &cx();
    let w = weights(cx, "tiny-sd2", "unet");
    let layer = Linear::new(&w.at("time_embedding.linear_1"), 32, 128, true).unwrap();
    check(
        "linear",
        cx,
        [3, 32],
        |x| layer.forward(cx, x, None),
        |_, dy| layer.vjp(cx, dy),
    );
    let layer = Conv2d::same(&w.at("conv_in"), 4, 32, 3).unwrap();
    check(
        "conv",
        cx,
        [2, 5, 7, 4],
        |x| layer.forward(cx, x, None),
        |_, dy| layer.vjp_same(cx, dy),
    );
    for padding in [0, 1] {
        let layer = Downsample::new(&w.at("down_blocks.0.downsamplers.0"), 32, padding).unwrap();
        let forward = |x: &Tensor| Ok(layer.forward(cx, x)?.0);
        check("downsample", cx, [2, 6, 8, 32], forward, |_, dy| {
            layer.vjp(cx, [6, 8], dy)
        });
    }
    let layer = Upsample::new(&w.at("up_blocks.0.upsamplers.0"), 64).unwrap();
    check(
        "upsample",
        cx,
        [1, 3, 5, 64],
        |x| layer.forward(cx, x),
        |_, dy| layer.vjp(cx, dy),
    );
}

#[test]
fn norms() {
    let cx = &cx();
    let w = weights(cx, "tiny-sd2", "unet");
    for silu in [false, true] {
        let layer = GroupNorm::new(&w.at("conv_norm_out"), 32, 8, 1e-5, silu).unwrap();
        let forward = |x: &Tensor| Ok(layer.forward(cx, x)?.0);
        check("group norm", cx, [2, 3, 5, 32], forward, |x, dy| {
            layer.vjp(cx, layer.forward(cx, x)?.1, dy, None)
        });
    }
    let block = w.at("down_blocks.0.attentions.0.transformer_blocks.0");
    let layer = LayerNorm::new(&block.at("norm1"), 32, 1e-5).unwrap();
    let forward = |x: &Tensor| Ok(layer.forward(cx, x)?.0);
    check("layer norm", cx, [2, 7, 32], forward, |x, dy| {
        layer.vjp(cx, layer.forward(cx, x)?.1, dy, None)
    });
}

#[test]
fn attention() {
    let cx = &cx();
    let w = weights(cx, "tiny-sd2", "unet");
    let block = w.at("down_blocks.0.attentions.0.transformer_blocks.0");
    let layer = Attention::new(&block.at("attn1"), 32, 32, 2).unwrap();
    let zero = |x: &Tensor| cx.upload(&vec![0.0; x.shape().elements()], x.shape());
    let run = |x: &Tensor| layer.forward(cx, x, None, &zero(x)?);
    check(
        "self",
        cx,
        [2, 9, 32],
        |x| Ok(run(x)?.0),
        |x, dy| layer.vjp(cx, run(x)?.1, dy),
    );
    let layer = Attention::new(&block.at("attn2"), 32, 32, 2).unwrap();
    let context = normals(cx, &mut Philox::new(3), [1, 77, 32].into());
    let run = |x: &Tensor| layer.forward(cx, x, Some(&context), &zero(x)?);
    check(
        "cross",
        cx,
        [2, 9, 32],
        |x| Ok(run(x)?.0),
        |x, dy| layer.vjp_query(cx, run(x)?.1, dy),
    );
    let w = weights(cx, "tiny-sd2", "text_encoder");
    let layer = Attention::causal(&w.at("text_model.encoder.layers.0.self_attn"), 32, 4).unwrap();
    let run = |x: &Tensor| layer.forward(cx, x, None, &zero(x)?);
    check(
        "causal",
        cx,
        [1, 11, 32],
        |x| Ok(run(x)?.0),
        |x, dy| layer.vjp(cx, run(x)?.1, dy),
    );
    let w = weights(cx, "tiny-sd2", "vae");
    let layer =
        SpatialAttention::new(&w.at("decoder.mid_block.attentions.0"), 64, 1, 8, 1e-6).unwrap();
    let run = |x: &Tensor| layer.forward(cx, x);
    check(
        "spatial",
        cx,
        [1, 3, 5, 64],
        |x| Ok(run(x)?.0),
        |x, dy| layer.vjp(cx, run(x)?.1, dy),
    );
}

#[test]
fn blocks() {
    let cx = &cx();
    let w = weights(cx, "tiny-sd2", "unet");
    let config = ResnetConfig {
        inputs: 32,
        outputs: 64,
        time: Some(128),
        groups: 8,
        eps: 1e-5,
    };
    let layer = ResnetBlock::new(&w.at("down_blocks.1.resnets.0"), config).unwrap();
    let temb = Temb::of(normals(cx, &mut Philox::new(4), [2, 128].into()));
    let run = |x: &Tensor| layer.forward(cx, x, Some(&temb));
    check(
        "resnet",
        cx,
        [2, 4, 6, 32],
        |x| Ok(run(x)?.0),
        |x, dy| layer.vjp(cx, run(x)?.1, dy),
    );
    let config = TransformerConfig {
        c: 32,
        heads: 2,
        context: 32,
        groups: 8,
        layers: 1,
    };
    let layer = Transformer2d::new(&w.at("down_blocks.0.attentions.0"), config).unwrap();
    let context = normals(cx, &mut Philox::new(5), [1, 77, 32].into());
    let run = |x: &Tensor| layer.forward(cx, x, &context);
    check(
        "transformer",
        cx,
        [1, 4, 4, 32],
        |x| Ok(run(x)?.0),
        |x, dy| layer.vjp(cx, run(x)?.1, dy),
    );
}

#[test]
fn models() {
    let cx = &cx();
    for model in ["tiny-sd2", "tiny-sd1", "tiny-pixel"] {
        let folder = oracle::checkpoint(model);
        let prior = Prior::open(cx, &folder).unwrap();
        let config = prior.unet.config().clone();
        let context = config
            .context
            .map(|c| normals(cx, &mut Philox::new(6), [1, 77, c].into()));
        let t = cx.upload(&[321.0], [1]).unwrap();
        let shape = Shape::from([1, 8, 8, config.in_channels]);
        let net = Unguided {
            unet: &prior.unet,
            context: context.as_ref(),
        };
        check(
            model,
            cx,
            shape,
            |x| net.predict(cx, x, &t),
            |x, dy| net.predict_vjp(cx, x, &t)?.1(dy),
        );
        let Some(vae) = &prior.vae else { continue };
        let codec = Latents { vae };
        check(
            "decode",
            cx,
            [1, 2, 3, 4],
            |x| codec.decode(cx, x),
            |x, dy| codec.decode_vjp(cx, x)?.1(dy),
        );
        let encode = |x: &Tensor| Ok(codec.encode_vjp(cx, x)?.0);
        check("encode", cx, [1, 16, 24, 3], encode, |x, dy| {
            codec.encode_vjp(cx, x)?.1(dy)
        });
        let controlnet =
            open_controlnet(cx, &folder.join("controlnet"), &prior.unet, &mut Vec::new()).unwrap();
        let hint = normals(cx, &mut Philox::new(7), [1, 64, 64, 3].into());
        let (hint, _) = controlnet.embed_hint(cx, &hint).unwrap();
        let (unet, context) = (&prior.unet, context.as_ref());
        let net = Conditional {
            unet,
            context,
            controlnet: &controlnet,
            hint: &hint,
            scale: 0.7,
        };
        check(
            "controlnet",
            cx,
            shape,
            |x| net.predict(cx, x, &t),
            |x, dy| net.predict_vjp(cx, x, &t)?.1(dy),
        );
    }
}

#[test]
fn a_backward_pass_needs_a_keeping_forward_pass() {
    let cx = Cx::native();
    let w = weights(&cx, "tiny-sd2", "unet");
    let layer = GroupNorm::new(&w.at("conv_norm_out"), 32, 8, 1e-5, true).unwrap();
    let x = normals(&cx, &mut Philox::new(1), [1, 2, 2, 32].into());
    let (y, saved) = layer.forward(&cx.forward_only(), &x).unwrap();
    let message = layer.vjp(&cx, saved, &y, None).unwrap_err().to_string();
    assert!(message.contains("kept nothing"), "{message}");
}
