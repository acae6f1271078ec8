//! What a noise predictor is trained on: images as clean states, mixed with noise.

use crate::cx::Cx;
use crate::diffusion::schedule::{Prediction, Schedule};
use crate::error::{Error, Result};
use crate::io::image::Image;
use crate::models::vae::Vae;
use crate::ops::{cast, combine, gaussian, noise, sum};
use crate::rng::Stream;
use crate::tensor::Tensor;
use crate::train::{Loss, stream};

/// The draws of a sample's [`stream`], all at step 0.
const TIME: u32 = 0;
const POSTERIOR: u32 = 1;
const NOISE: u32 = 2;

/// Noisy states, their times, and what is to be predicted from them.
pub(crate) struct Noised {
    /// `[n, h, w, c]`, `sqrt(a) z0 + sqrt(1 - a) eps`, in the networks' type.
    pub(crate) x: Tensor,
    /// `[n]`, uniform over the schedule's steps.
    pub(crate) t: Tensor,
    /// Like `x`, in f32: noise or velocity, as the schedule says.
    pub(crate) target: Tensor,
}

impl Noised {
    /// Noises the images of samples `first ..` of a run with this seed; `cx` is a run of samplers ([`Cx::state`]).
    pub(super) fn new(
        cx: &Cx,
        vae: Option<&Vae>,
        schedule: &Schedule,
        images: &Tensor,
        seed: u64,
        first: u64,
    ) -> Result<Self> {
        let n = images.shape().samples();
        let streams: Vec<Stream> = (0..n as u64).map(|i| stream(seed, first + i)).collect();
        let clean = match vae {
            Some(vae) => latents(cx, vae, images, &streams)?,
            None => images.clone(),
        };
        let alphas = schedule.alphas_cumprod();
        let time = |stream: &Stream| {
            let mut drawn = [0.0];
            stream.uniforms::<f64>(0, TIME, &mut drawn);
            ((drawn[0] * alphas.len() as f64) as usize).min(alphas.len() - 1)
        };
        let times: Vec<usize> = streams.iter().map(time).collect();
        let eps = noise::normals(cx, clean.shape(), &streams, 0, NOISE)?;
        let mix = |of: fn(f64, f64) -> [f64; 2]| {
            let pair = |&t: &usize| of(alphas[t].sqrt(), (1.0 - alphas[t]).sqrt());
            let coefficients: Vec<f64> = times.iter().flat_map(pair).collect();
            let coefficients = cx.upload_wide(&coefficients, [n, 2])?;
            combine::per_sample(cx, &coefficients, &[&clean, &eps], None)
        };
        let x = mix(|signal, noise| [signal, noise])?;
        let target = match schedule.prediction() {
            Prediction::Epsilon => eps.clone(),
            Prediction::V => mix(|signal, noise| [-noise, signal])?,
        };
        let t: Vec<f64> = times.iter().map(|&t| t as f64).collect();
        Ok(Noised {
            x: cast::forward(cx, &x, cx.network().dtype())?,
            t: cx.upload_wide(&t, [n])?,
            target,
        })
    }

    /// The mean square error of a prediction, and the cotangent to go back with, in the networks' type.
    pub(super) fn loss(&self, cx: &Cx, prediction: &Tensor) -> Result<(Loss, Tensor)> {
        let difference = combine::forward(cx, &[(1.0, prediction), (-1.0, &self.target)])?;
        let count = difference.shape().elements() as f64;
        let squares = sum::squares(cx, &difference, None)?.to_f64()?;
        let loss = Loss {
            value: squares[0] / count,
            parts: Vec::new(),
            scale: 2.0 / count,
        };
        Ok((loss, cast::forward(cx, &difference, cx.network().dtype())?))
    }
}

/// A sample of each image's posterior, times the scaling factor: what the diffusion runs on.
fn latents(cx: &Cx, vae: &Vae, images: &Tensor, streams: &[Stream]) -> Result<Tensor> {
    let net = &cx.network().forward_only();
    let (mean, logvar, _) = vae.encode(net, &cast::forward(cx, images, net.dtype())?)?;
    let [mean, logvar] = [&mean, &logvar].map(|t| cast::forward(cx, t, cx.dtype()));
    let (mean, logvar) = (mean?, logvar?);
    let n = noise::normals(cx, mean.shape(), streams, 0, POSTERIOR)?;
    let (z, _, _) = gaussian::forward(cx, &mean, &logvar, &n)?;
    combine::forward(cx, &[(vae.config().scaling_factor, &z)])
}

/// Images of one size as `[n, h, w, 3]`.
pub(super) fn upload(cx: &Cx, images: &[Image]) -> Result<Tensor> {
    let (h, w) = images.first().map_or((0, 0), |i| (i.height, i.width));
    let mut values = Vec::with_capacity(images.len() * h * w * 3);
    for image in images {
        if [image.height, image.width] != [h, w] {
            let got = format!("[{}, {}, 3]", image.height, image.width);
            return Err(Error::shape(
                "training image",
                format!("[{h}, {w}, 3]"),
                got,
            ));
        }
        values.extend_from_slice(&image.pixels);
    }
    cx.upload(&values, [images.len(), h, w, 3])
}
