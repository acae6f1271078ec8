//! Training a KL autoencoder (Kingma & Welling 2014; Rombach et al. 2022 without the adversary): mean square error
//! of the image plus a small divergence of the latent from the unit normal.

use crate::cx::Cx;
use crate::error::Result;
use crate::io::image::Image;
use crate::models::vae::Vae;
use crate::ops::{cast, combine, gaussian, noise, sum};
use crate::rng::Stream;
use crate::train::noised::upload;
use crate::train::{Loss, Objective, stream};

/// The loss of an autoencoder.
#[derive(Debug)]
pub struct Autoencoding {
    /// The network that is trained.
    pub vae: Vae,
    /// What the mean divergence of a latent element counts against the mean square error of an image element.
    pub kl_weight: f64,
    /// The seed of everything random.
    pub seed: u64,
}

impl Objective for Autoencoding {
    fn backward(&self, cx: &Cx, first: u64, images: &[Image]) -> Result<Loss> {
        let (net, cx) = (&cx.network(), &cx.state());
        let x = upload(cx, images)?;
        let (mean, logvar, encoder) = self.vae.encode(net, &cast::forward(cx, &x, net.dtype())?)?;
        let mean = cast::forward(cx, &mean, cx.dtype())?;
        let logvar = cast::forward(cx, &logvar, cx.dtype())?;
        let positions = first..first + images.len() as u64;
        let streams: Vec<Stream> = positions.map(|p| stream(self.seed, p)).collect();
        let n = noise::normals(cx, mean.shape(), &streams, 0, 0)?;
        let (z, kl, posterior) = gaussian::forward(cx, &mean, &logvar, &n)?;
        let (image, decoder) = self.vae.decode(net, &cast::forward(cx, &z, net.dtype())?)?;

        let difference = combine::forward(cx, &[(1.0, &image), (-1.0, &x)])?;
        let (pixels, elements) = (x.shape().elements() as f64, z.shape().elements() as f64);
        let square = sum::squares(cx, &difference, None)?.to_f64()?[0] / pixels;
        let divergence = sum::over_rows(cx, &kl)?.to_f64()?.iter().sum::<f64>() / elements;
        drop((image, x, kl));

        let dy = cast::forward(cx, &difference, net.dtype())?;
        let dz = cast::forward(cx, &self.vae.decode_vjp(net, decoder, &dy)?, cx.dtype())?;
        // In units of `scale`: the difference is the gradient of half the sum of squares.
        let scale = 2.0 / pixels;
        let weight = self.kl_weight / elements / scale;
        let (dmean, dlogvar) = gaussian::vjp(cx, posterior, &dz, weight)?;
        let dmean = cast::forward(cx, &dmean, net.dtype())?;
        let dlogvar = cast::forward(cx, &dlogvar, net.dtype())?;
        self.vae.encode_vjp(net, encoder, &dmean, &dlogvar)?;
        Ok(Loss {
            value: square + self.kl_weight * divergence,
            parts: vec![("mse", square), ("kl", divergence)],
            scale,
        })
    }
}
