//! Training a conditional score estimator: a ControlNet that sees the measurement, over a frozen UNet
//! (Xu et al. 2025, 4.2 and B.2): mean square error of the noise, `t` uniform.

use crate::cx::Cx;
use crate::error::Result;
use crate::io::image::Image;
use crate::models::controlnet::ControlNet;
use crate::operators::Operator;
use crate::ops::cast;
use crate::pipeline::prior::Prior;
use crate::tensor::Tensor;
use crate::train::noised::{Noised, upload};
use crate::train::{Loss, Objective};

/// The loss of a ControlNet.
pub struct Conditioning {
    /// The network that is trained.
    pub controlnet: ControlNet,
    /// The frozen prior.
    pub prior: Prior,
    /// `[micro, s, c]`: the text context of every sample.
    pub context: Option<Tensor>,
    /// What makes the measurement of an image.
    pub operator: Box<dyn Operator>,
    /// Of everything random.
    pub seed: u64,
}

impl Objective for Conditioning {
    fn backward(&self, cx: &Cx, first: u64, images: &[Image]) -> Result<Loss> {
        let (net, cx) = (&cx.network(), &cx.state());
        let images = upload(cx, images)?;
        let condition = self
            .operator
            .condition(cx, &self.operator.measure(cx, &images)?)?;
        let Prior { unet, vae, .. } = &self.prior;
        let schedule = &self.prior.schedule;
        let noised = Noised::new(cx, vae.as_ref(), schedule, &images, self.seed, first)?;
        drop(images);
        let (Noised { x, t, .. }, context) = (&noised, self.context.as_ref());

        let condition = cast::forward(cx, &condition, net.dtype())?;
        let (hint, hint_saved) = self.controlnet.embed_hint(net, &condition)?;
        let (residuals, control) = self.controlnet.forward(net, x, t, context, &hint)?;
        let (prediction, decoder) = unet.forward_from_residuals(net, x, t, context, &residuals)?;
        drop(residuals);

        let (loss, dy) = noised.loss(cx, &prediction)?;
        let dresiduals = unet.residuals_vjp(net, decoder, &dy)?;
        let (_, dhint) = self.controlnet.vjp(net, control, dresiduals)?;
        self.controlnet.embed_hint_vjp(net, hint_saved, &dhint)?;
        Ok(loss)
    }
}
