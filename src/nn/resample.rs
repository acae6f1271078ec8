//! Changes of resolution: strided convolution down, nearest neighbour and convolution up.

use crate::cx::Cx;
use crate::error::Result;
use crate::nn::conv::Conv2d;
use crate::nn::param::Weights;
use crate::ops::conv_norm::Measured;
use crate::ops::conv2d::{self, Epilogue, Geometry};
use crate::ops::{group_norm, upsample};
use crate::tensor::Tensor;

/// `downsamplers.0`: a 3x3 convolution of stride 2.
#[derive(Debug)]
pub struct Downsample {
    name: String,
    conv: Conv2d,
}

impl Downsample {
    /// `padding` 1 pads all sides (SD's UNet); 0 pads one row below and one column to the right
    /// (the autoencoder, and UNets whose config says `downsample_padding: 0`).
    ///
    /// # Errors
    /// [`crate::Error::Weight`].
    pub fn new(w: &Weights<'_>, c: usize, padding: usize) -> Result<Self> {
        let geometry = match padding {
            0 => Geometry {
                stride: 2,
                before: 0,
                after: 1,
            },
            p => Geometry {
                stride: 2,
                before: p,
                after: p,
            },
        };
        Ok(Downsample {
            name: w.name().into(),
            conv: Conv2d::new(&w.at("conv"), c, c, 3, geometry)?,
        })
    }

    /// `[n, h, w, c]` to `[n, h/2, w/2, c]`; the size of `x` is what `vjp` needs.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn forward(&self, cx: &Cx, x: &Tensor) -> Result<(Tensor, [usize; 2])> {
        let [_, h, w, _] = x.nhwc(&self.name)?;
        let y = self.conv.forward(cx, x, None)?;
        cx.tap(&self.name, &y);
        Ok((y, [h, w]))
    }

    /// `dx` from `dy`, for an input of `size`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn vjp(&self, cx: &Cx, size: [usize; 2], dy: &Tensor) -> Result<Tensor> {
        cx.tap_cotangent(&self.name, dy);
        self.conv.vjp(cx, size, dy)
    }
}

/// `upsamplers.0`: nearest neighbour x2, then a 3x3 convolution.
#[derive(Debug)]
pub struct Upsample {
    name: String,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// Frozen: one transposed convolution, see [`upsample_conv`](crate::ops::upsample_conv).
    Folded { name: String, w: Tensor, b: Tensor },
    /// Trained: one after the other, by the weights that the optimiser updates in place.
    Apart(Conv2d),
}

/// The geometry of the folded kernel of 4 x 4, from the large image to the small one.
const HALVING: Geometry = Geometry {
    stride: 2,
    before: 1,
    after: 1,
};

impl Upsample {
    /// # Errors
    /// [`crate::Error::Weight`].
    pub fn new(w: &Weights<'_>, c: usize) -> Result<Self> {
        let (name, conv) = (w.name().into(), w.at("conv"));
        let form = if w.are_trained() {
            Form::Apart(Conv2d::same(&conv, c, c, 3)?)
        } else {
            Form::Folded {
                name: conv.name().into(),
                w: conv.upsampling_kernel("weight", c, c)?,
                b: conv.get("bias", [c])?,
            }
        };
        Ok(Upsample { name, form })
    }

    /// `[n, h, w, c]` to `[n, 2h, 2w, c]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        Ok(self.forward_measured(cx, x, None)?.x)
    }

    /// The same, with moments where a group norm of so many groups reads `y` next and takes them.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn forward_measured(&self, cx: &Cx, x: &Tensor, groups: Option<usize>) -> Result<Measured> {
        let y = match &self.form {
            Form::Apart(conv) => {
                conv.forward_measured(cx, &upsample::forward(cx, x)?, None, None, groups)?
            }
            Form::Folded { name, w, b } => {
                let [n, height, width, c] = x.nhwc(&self.name)?;
                let size = [2 * height, 2 * width];
                let groups = group_norm::takes_moments(cx, [n, size[0] * size[1], c], groups);
                let y = conv2d::transposed_measured(cx, w, HALVING, size, x, Some(b), groups)?;
                cx.tap(name, &y.x);
                y
            }
        };
        cx.tap(&self.name, &y.x);
        Ok(y)
    }

    /// `dx` from `dy`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn vjp(&self, cx: &Cx, dy: &Tensor) -> Result<Tensor> {
        cx.tap_cotangent(&self.name, dy);
        match &self.form {
            Form::Apart(conv) => upsample::vjp(cx, &conv.vjp_same(cx, dy)?),
            Form::Folded { name, w, .. } => {
                cx.tap_cotangent(name, dy);
                conv2d::forward(cx, dy, w, HALVING, Epilogue::default())
            }
        }
    }
}
