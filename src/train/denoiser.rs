//! Training a UNet to predict noise, on pixels or in the latent space of a frozen autoencoder (Ho et al. 2020,
//! algorithm 1): `t` uniform, mean square error.

use crate::cx::Cx;
use crate::diffusion::schedule::Schedule;
use crate::error::Result;
use crate::io::image::Image;
use crate::models::unet::UNet;
use crate::models::vae::Vae;
use crate::tensor::Tensor;
use crate::train::noised::{Noised, upload};
use crate::train::{Loss, Objective};

/// The loss of a UNet.
#[derive(Debug)]
pub struct Denoising {
    /// The network that is trained.
    pub unet: UNet,
    /// The frozen autoencoder of latent models.
    pub vae: Option<Vae>,
    /// The noise.
    pub schedule: Schedule,
    /// `[micro, s, c]`: the text context of every sample.
    pub context: Option<Tensor>,
    /// The seed of everything random.
    pub seed: u64,
}

impl Objective for Denoising {
    fn backward(&self, cx: &Cx, first: u64, images: &[Image]) -> Result<Loss> {
        let (net, cx) = (&cx.network(), &cx.state());
        let images = upload(cx, images)?;
        let vae = self.vae.as_ref();
        let noised = Noised::new(cx, vae, &self.schedule, &images, self.seed, first)?;
        let context = self.context.as_ref();
        let (prediction, saved) = self
            .unet
            .forward(net, &noised.x, &noised.t, context, None)?;
        let (loss, dy) = noised.loss(cx, &prediction)?;
        self.unet.vjp(net, saved, &dy, false)?;
        Ok(loss)
    }
}
