//! Training a conditional score estimator: a ControlNet that sees the measurement, over a frozen UNet
//! (Xu et al. 2025, 4.2 and B.2): mean square error of the noise, `t` uniform.

use crate::cx::Cx;
use crate::error::Result;
use crate::io::image::Image;
use crate::models::controlnet::ControlNet;
use crate::models::unet::UNet;
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
    /// The seed of everything random.
    pub seed: u64,
}

impl Objective for Conditioning {
    fn backward(&self, cx: &Cx, first: u64, images: &[Image]) -> Result<Loss> {
        let (net, cx) = (&cx.network(), &cx.state());
        let images = upload(cx, images)?;
        let condition = self
            .operator
            .condition(cx, &self.operator.measure(cx, &images)?)?;
        let Prior {
            unet,
            vae,
            schedule,
            ..
        } = &self.prior;
        let noised = Noised::new(cx, vae.as_ref(), schedule, &images, self.seed, first)?;
        drop(images);
        let condition = cast::forward(cx, &condition, net.dtype())?;
        let context = self.context.as_ref();
        backward(net, &self.controlnet, unet, context, &noised, &condition)
    }
}

/// The loss of a ControlNet that sees `condition`, `[n, h, w, 3]` in the networks' type; leaves its gradients.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape).
pub(crate) fn backward(
    net: &Cx,
    controlnet: &ControlNet,
    unet: &UNet,
    context: Option<&Tensor>,
    noised: &Noised,
    condition: &Tensor,
) -> Result<Loss> {
    let Noised { x, t, .. } = noised;
    let (hint, hint_saved) = controlnet.embed_hint(net, condition)?;
    let (residuals, control) = controlnet.forward(net, x, t, context, &hint)?;
    let (prediction, decoder) = unet.forward_from_residuals(net, x, t, context, &residuals)?;
    drop(residuals);

    let (loss, dy) = noised.loss(&net.state(), &prediction)?;
    let dresiduals = unet.residuals_vjp(net, decoder, &dy)?;
    let (_, dhint) = controlnet.vjp(net, control, dresiduals)?;
    controlnet.embed_hint_vjp(net, hint_saved, &dhint)?;
    Ok(loss)
}
