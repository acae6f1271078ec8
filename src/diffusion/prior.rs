//! The two traits through which samplers see a model: [`Denoiser`] and [`Codec`].
//!
//! A backward pass is a closure that the forward pass returns; it holds what was saved, and consuming
//! it gives the memory back.

use crate::cx::Cx;
use crate::error::Result;
use crate::tensor::Tensor;

/// A backward pass: the cotangent of the output in, the cotangent of the input out.
pub type Pullback<'a> = Box<dyn FnOnce(&Tensor) -> Result<Tensor> + 'a>;

/// A network that predicts noise (or velocity) from a noisy state: a UNet, a UNet with ControlNet, or a
/// closed form. What it predicts is the schedule's business; samplers take x0 from the schedule's
/// coefficients.
pub trait Denoiser {
    /// The prediction for `x: [n, ..]`, in variance-preserving scale, at times `t: [n]`.
    ///
    /// # Errors
    /// Whatever the model returns.
    fn predict(&self, cx: &Cx, x: &Tensor, t: &Tensor) -> Result<Tensor>;

    /// The prediction and its backward pass with respect to `x`.
    ///
    /// # Errors
    /// Whatever the model returns.
    fn predict_vjp<'a>(
        &'a self,
        cx: &'a Cx,
        x: &Tensor,
        t: &Tensor,
    ) -> Result<(Tensor, Pullback<'a>)>;
}

/// The map between images and the space diffusion runs in: an autoencoder, or nothing.
pub trait Codec {
    /// The shape of the states whose images are `[n, h, w, 3]`.
    ///
    /// # Errors
    /// When the codec cannot do that size.
    fn state_shape(&self, image: [usize; 4]) -> Result<[usize; 4]>;

    /// The image `[n, h, w, 3]` of a clean state.
    ///
    /// # Errors
    /// Whatever the model returns.
    fn decode(&self, cx: &Cx, x0: &Tensor) -> Result<Tensor>;

    /// The image and the backward pass with respect to the state.
    ///
    /// # Errors
    /// Whatever the model returns.
    fn decode_vjp<'a>(&'a self, cx: &'a Cx, x0: &Tensor) -> Result<(Tensor, Pullback<'a>)>;

    /// The clean state of an image, and the backward pass with respect to the image.
    ///
    /// # Errors
    /// Whatever the model returns.
    fn encode_vjp<'a>(&'a self, cx: &'a Cx, image: &Tensor) -> Result<(Tensor, Pullback<'a>)>;
}

/// The codec of models that work on pixels.
#[derive(Clone, Copy, Debug)]
pub struct Pixels;

impl Codec for Pixels {
    fn state_shape(&self, image: [usize; 4]) -> Result<[usize; 4]> {
        Ok(image)
    }

    fn decode(&self, _: &Cx, x0: &Tensor) -> Result<Tensor> {
        Ok(x0.clone())
    }

    fn decode_vjp<'a>(&'a self, _: &'a Cx, x0: &Tensor) -> Result<(Tensor, Pullback<'a>)> {
        Ok((x0.clone(), Box::new(|dy| Ok(dy.clone()))))
    }

    fn encode_vjp<'a>(&'a self, _: &'a Cx, image: &Tensor) -> Result<(Tensor, Pullback<'a>)> {
        Ok((image.clone(), Box::new(|dy| Ok(dy.clone()))))
    }
}
