//! `clip/*`, `text/*`, `unet/*`, `cn/*`, `vae/*`, `act/*`, `gradact/*`: the networks, their VJPs and what
//! happens inside them.

use std::ops::Range;
use std::path::Path;

use super::goldens::{arrange, corner, download, upload};
use super::{Models, Sink, of, portable};
use crate::cx::Cx;
use crate::diffusion::prior::{Codec, Denoiser};
use crate::error::{Error, Result};
use crate::models::config::Config;
use crate::models::controlnet::ControlNet;
use crate::models::text::{TextConfig, TextModel};
use crate::models::unet::UNet;
use crate::ops::combine;
use crate::pipeline::prior::{Conditional, Latents, Unguided, hint, load, stored};
use crate::tensor::Tensor;

pub(super) fn text(cx: &Cx, model: &Path, sink: &mut Sink<'_>) -> Result<()> {
    let Some(root) = ["clip", "text"]
        .into_iter()
        .find(|r| sink.goldens.has(&format!("{r}/ids")))
    else {
        return Ok(());
    };
    let (cx, folder) = (&cx.network(), model.join("text_encoder"));
    let config = TextConfig::read(&Config::open(&folder)?)?;
    let net = load(cx, &folder, &mut Vec::new(), |w| TextModel::new(w, config))?;
    let name = format!("{root}/ids");
    let ids: Vec<i32> = sink
        .goldens
        .values(&name)?
        .into_iter()
        .map(|id| id as i32)
        .collect();
    let (cx, taps) = cx.forward_only().tapped();
    let [samples, _] = sink.goldens.dims(&name)?;
    let (last, _) = net.forward(&cx, &ids, samples)?;
    sink.put(&format!("{root}/last_hidden_state"), download(&last)?)?;
    for i in 0..=net.config().layers {
        let tap = if i == 0 {
            "embeddings".into()
        } else {
            format!("layers.{}", i - 1)
        };
        if let Some(h) = taps.borrow().outputs.get(&tap) {
            sink.put(&format!("{root}/hidden/{i}"), download(h)?)?;
        }
    }
    Ok(())
}

/// What a case of `unet/<tag>` or `cn/<tag>` is evaluated at.
struct Case {
    x: Tensor,
    cot: Tensor,
    t: Tensor,
    context: Option<Tensor>,
}

/// Reads a tag: `t500`, `tmix`, `rect`, `small`, or the latent side of a full-size file.
fn case(cx: &Cx, sink: &Sink<'_>, tag: &str) -> Result<Option<Case>> {
    let goldens = sink.goldens;
    let net = &cx.network();
    let stored = |name: &str| goldens.tensor(cx, name);
    if tag.parse::<usize>().is_ok() {
        let context = Some(goldens.tensor(net, "unet/ctx")?);
        let (x, cot) = (
            stored(&format!("unet/{tag}/z"))?,
            stored(&format!("unet/{tag}/cot"))?,
        );
        return Ok(Some(Case {
            x,
            cot,
            t: cx.upload(&[500.0], [1])?,
            context,
        }));
    }
    let context = || {
        if goldens.has("in/ctx") {
            goldens.tensor(net, "in/ctx").map(Some)
        } else {
            Ok(None)
        }
    };
    if tag == "rect" {
        let context = context()?.map(|c| c.samples(1..2)).transpose()?;
        let (x, cot) = (stored("in/z_rect")?, stored("in/cot_rect")?);
        return Ok(Some(Case {
            x,
            cot,
            t: cx.upload(&[321.0], [1])?,
            context,
        }));
    }
    let mut x = stored("in/z")?;
    let n = x.shape().samples();
    let t = match tag {
        "tmix" if n == 2 => vec![37.0, 801.0],
        "small" => {
            x = combine::forward(cx, &[(0.01, &x)])?;
            vec![500.0; n]
        }
        _ => match tag.strip_prefix('t').and_then(|t| t.parse::<f64>().ok()) {
            Some(t) => vec![t; n],
            None => return Ok(None),
        },
    };
    Ok(Some(Case {
        x,
        cot: stored("in/cot_eps")?,
        t: cx.upload(&t, [n])?,
        context: context()?,
    }))
}

/// What samplers are run with: the UNet alone and, where there is one, with the ControlNet, both of the goldens' first
/// contexts.
pub(super) struct Networks<'a> {
    unet: &'a UNet,
    context: Option<Tensor>,
    /// With the embedding of the goldens' condition image.
    controlnet: Option<(&'a ControlNet, Tensor)>,
}

impl<'a> Networks<'a> {
    /// For so many samples; the ControlNet only if `conditional`.
    pub(super) fn new(
        cx: &Cx,
        models: &Models<'a>,
        sink: &Sink<'_>,
        samples: usize,
        conditional: bool,
    ) -> Result<Self> {
        let hinted = |controlnet| {
            let image = sink.goldens.tensor(cx, "in/cond")?.samples(0..1)?;
            Ok((controlnet, hint(cx, controlnet, &image)?))
        };
        let controlnet = models.controlnet.filter(|_| conditional);
        Ok(Networks {
            unet: &models.prior.unet,
            context: context(cx, sink, samples)?,
            controlnet: controlnet.map(hinted).transpose()?,
        })
    }

    pub(super) fn plain(&self) -> Unguided<'_> {
        Unguided {
            unet: self.unet,
            context: self.context.as_ref(),
        }
    }

    pub(super) fn conditional(&self) -> Option<Conditional<'_>> {
        let (controlnet, hint) = self.controlnet.as_ref()?;
        Some(Conditional {
            unet: self.unet,
            context: self.context.as_ref(),
            controlnet,
            hint,
            scale: 1.0,
        })
    }
}

/// The goldens' first contexts, if they have any.
pub(super) fn context(cx: &Cx, sink: &Sink<'_>, samples: usize) -> Result<Option<Tensor>> {
    if !sink.goldens.has("in/ctx") {
        return Ok(None);
    }
    let all = sink.goldens.tensor(&cx.network(), "in/ctx")?;
    all.samples(0..samples).map(Some)
}

fn put_denoiser(
    cx: &Cx,
    net: &dyn Denoiser,
    case: &Case,
    name: &str,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let (eps, pull) = net.predict_vjp(cx, &case.x, &case.t)?;
    sink.put(&format!("{name}/eps"), download(&eps)?)?;
    sink.put(&format!("{name}/vjp_z"), download(&pull(&case.cot)?)?)
}

pub(super) fn unet(cx: &Cx, models: &Models<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let unet = &models.prior.unet;
    for tag in sink.goldens.words("unet/") {
        let Some(case) = case(cx, sink, tag)? else {
            continue;
        };
        let net = Unguided {
            unet,
            context: case.context.as_ref(),
        };
        let name = format!("unet/{tag}");
        of(&name, put_denoiser(cx, &net, &case, &name, sink))?;
    }
    if sink.wants("unet/time_proj") {
        let t = cx.upload(&[1.0, 250.0, 500.0, 999.0], [4])?;
        let (net, time) = (&cx.network(), unet.encoder().time_embedding());
        sink.put("unet/time_proj", download(&time.sinusoids(net, &t)?)?)?;
        sink.put("unet/time_embedding", download(&time.forward(net, &t)?)?)?;
    }
    Ok(())
}

pub(super) fn controlnet(cx: &Cx, models: &Models<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let Some(controlnet) = models.controlnet else {
        return Ok(());
    };
    let unet = &models.prior.unet;
    for tag in sink.goldens.words("cn/") {
        let (at, scale) = tag.split_once("_scale").unwrap_or((tag, "1"));
        let (Some(case), Ok(scale)) = (case(cx, sink, at)?, scale.parse()) else {
            continue;
        };
        let image = match at.parse::<usize>() {
            Ok(latents) => {
                let side = image_side(sink, &format!("unet/{at}/z"), latents)?;
                generated(cx, sink, &format!("cn/cond{latents}"), side, 0.5)?
            }
            Err(_) => sink.goldens.tensor(cx, "in/cond")?,
        };
        let hint = &hint(cx, controlnet, &image)?;
        let context = case.context.as_ref();
        let net = Conditional {
            unet,
            context,
            controlnet,
            hint,
            scale,
        };
        let name = format!("cn/{tag}");
        of(&name, put_denoiser(cx, &net, &case, &name, sink))?;
        if !sink.wants(&format!("cn/{tag}/vjp_z_frozen")) {
            continue;
        }
        let (cx, x) = (&cx.network(), stored(&cx.network(), &case.x)?);
        let cot = stored(cx, &case.cot)?;
        let (residuals, _) = controlnet.forward(&cx.forward_only(), &x, &case.t, context, hint)?;
        for (i, skip) in residuals.skips.iter().enumerate() {
            sink.put(&format!("cn/{tag}/residual/{i}"), download(skip)?)?;
        }
        sink.put(&format!("cn/{tag}/residual/mid"), download(&residuals.mid)?)?;
        let (_, saved) = unet.forward(cx, &x, &case.t, context, Some(&residuals))?;
        let (frozen, _) = unet.vjp(cx, saved, &cot, false)?;
        sink.put(&format!("cn/{tag}/vjp_z_frozen"), download(&frozen)?)?;
    }
    Ok(())
}

/// The side of the image that belongs to the golden `name`, which must be latents of this side as its own name says.
fn image_side(sink: &Sink<'_>, name: &str, side: usize) -> Result<usize> {
    let [n, c, h, w] = sink.goldens.dims(name)?;
    match side.checked_mul(8) {
        Some(image) if [n, h, w] == [1, side, side] => Ok(image),
        _ => Err(Error::shape(
            name,
            format!("[1, {c}, {side}, {side}], as it is called"),
            format!("{:?}", [n, c, h, w]),
        )),
    }
}

/// An image of this side that is not stored: portable normals, rounded to f32, times `scale`.
fn generated(cx: &Cx, sink: &Sink<'_>, name: &str, side: usize, scale: f64) -> Result<Tensor> {
    let shape = [1, 3, side, side];
    let values = portable::normals(sink.goldens.seed(), name, shape.iter().product(), 0.0, 1.0);
    let values: Vec<f64> = values
        .into_iter()
        .map(|v| f64::from(v as f32) * scale)
        .collect();
    upload(cx, &values, &shape)
}

pub(super) fn vae(cx: &Cx, models: &Models<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let Some(vae) = &models.prior.vae else {
        return Ok(());
    };
    let (goldens, codec) = (sink.goldens, Latents { vae });
    for (tag, input, scale) in [
        ("encode", "in/img", 1.0),
        ("encode_small", "in/img", 0.01),
        ("enc", "vae/enc/x", 1.0),
    ] {
        if !goldens.has(&format!("vae/{tag}/mean")) {
            continue;
        }
        let net = &cx.network();
        let x = combine::forward(cx, &[(scale, &goldens.tensor(cx, input)?)])?;
        let (mean, logvar, saved) = vae.encode(net, &stored(net, &x)?)?;
        sink.put(&format!("vae/{tag}/mean"), download(&mean)?)?;
        let clamped = download(&logvar)?
            .into_iter()
            .map(|v| v.clamp(-30.0, 20.0))
            .collect();
        sink.put(&format!("vae/{tag}/logvar"), clamped)?;
        if sink.wants(&format!("vae/{tag}/vjp_x")) {
            let dlogvar = combine::forward(net, &[(0.0, &logvar)])?;
            let dmean = goldens.tensor(net, "in/cot_mean")?;
            let dx = vae.encode_vjp(net, saved, &dmean, &dlogvar)?;
            sink.put(&format!("vae/{tag}/vjp_x"), download(&dx)?)?;
        }
    }
    for (tag, scale) in [("decode", 1.0), ("decode_small", 0.01)] {
        let name = format!("vae/{tag}/img");
        if !goldens.has(&name) {
            continue;
        }
        let z = combine::forward(cx, &[(scale, &goldens.tensor(cx, "in/z0")?)])?;
        let (image, pull) = codec.decode_vjp(cx, &z)?;
        let [n, h, w, c] = image.nhwc("image")?;
        sink.put(
            &name,
            corner(
                &download(&image)?,
                &[n, c, h, w],
                &goldens.entry(&name)?.shape,
            ),
        )?;
        sink.put(
            &format!("vae/{tag}/vjp_z"),
            download(&pull(&goldens.tensor(cx, "in/cot_img")?)?)?,
        )?;
    }
    for tag in goldens.words("vae/") {
        if let Ok(latents) = tag.parse() {
            decoded(cx, &codec, tag, latents, sink)?;
        }
    }
    Ok(())
}

/// `vae/<tag>/*` of a full-size file: latents of this side, which `tag` is.
fn decoded(
    cx: &Cx,
    codec: &Latents<'_>,
    tag: &str,
    latents: usize,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let name = |what| format!("vae/{tag}/{what}");
    let side = image_side(sink, &name("z"), latents)?;
    let (image, pull) = codec.decode_vjp(cx, &sink.goldens.tensor(cx, &name("z"))?)?;
    image.expect_shape(&name("img"), [1, side, side, 3])?;
    sink.put(&name("img"), download(&image)?)?;
    let crop = name("img_crop64");
    if sink.wants(&crop) {
        if side < CROP.end {
            let want = format!("an image of {} x {} or more", CROP.end, CROP.end);
            return Err(Error::shape(crop, want, format!("{side} x {side}")));
        }
        sink.put(&crop, cropped(&download(&image)?, side))?;
    }
    let cot = generated(cx, sink, &format!("vae/cot{tag}"), side, 1.0)?;
    sink.put(&name("vjp_z"), download(&pull(&cot)?)?)
}

/// The rows and columns of `img_crop64`.
const CROP: Range<usize> = 96..160;

/// Those of square planes of this side.
fn cropped(values: &[f64], side: usize) -> Vec<f64> {
    let rows = values.chunks_exact(side).enumerate();
    rows.filter(|(row, _)| CROP.contains(&(row % side)))
        .flat_map(|(_, row)| row[CROP].iter().copied())
        .collect()
}

/// Every module's output and its cotangent, in the UNet, the decoder and the encoder.
pub(super) fn activations(cx: &Cx, models: &Models<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let goldens = sink.goldens;
    if goldens.any("act/unet/") {
        let (cx, taps) = cx.tapped();
        let first = |name: &str| goldens.tensor(&cx, name)?.samples(0..1);
        let context = if goldens.has("in/ctx") {
            Some(stored(&cx.network(), &first("in/ctx")?)?)
        } else {
            None
        };
        let net = Unguided {
            unet: &models.prior.unet,
            context: context.as_ref(),
        };
        let (_, pull) = net.predict_vjp(&cx, &first("in/z")?, &cx.upload(&[500.0], [1])?)?;
        pull(&first("in/cot_eps")?)?;
        put_taps(&taps.borrow(), "unet", "", sink)?;
    }
    let Some(vae) = &models.prior.vae else {
        return Ok(());
    };
    if goldens.any("act/vae.decoder/") {
        let (cx, taps) = cx.tapped();
        let codec = Latents { vae };
        let (_, pull) = codec.decode_vjp(&cx, &goldens.tensor(&cx, "in/z0")?)?;
        pull(&goldens.tensor(&cx, "in/cot_img")?)?;
        put_taps(&taps.borrow(), "vae.decoder", "decoder.", sink)?;
    }
    if goldens.any("act/vae.encoder/") {
        let (cx, taps) = cx.network().tapped();
        vae.encode(&cx, &goldens.tensor(&cx, "in/img")?)?;
        put_taps(&taps.borrow(), "vae.encoder", "encoder.", sink)?;
    }
    Ok(())
}

fn put_taps(taps: &crate::cx::Taps, net: &str, prefix: &str, sink: &mut Sink<'_>) -> Result<()> {
    for (kind, tensors) in [("act", &taps.outputs), ("gradact", &taps.cotangents)] {
        for (module, t) in tensors {
            let Some(module) = module.strip_prefix(prefix) else {
                continue;
            };
            let name = format!("{kind}/{net}/{module}");
            if sink.wants(&name) {
                let full = sink.goldens.full_shape(&name)?;
                let values = arrange(t, &full).map_err(|e| Error::config(&name, e.to_string()))?;
                sink.put(&name, values)?;
            }
        }
    }
    Ok(())
}
