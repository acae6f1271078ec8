//! What a tensor has beside it on its way into a group norm, and on its way past one: moments of its groups, which the
//! launch that wrote it left; what each channel is multiplied with and moved by, for the launch that reads it next.

use crate::tensor::Tensor;

/// A tensor, and moments where the launch that wrote it left any.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The tensor, `[n, .., c]`.
    pub x: Tensor,
    /// Of each part of each group of its channels the mean and the sum of the squared deviations from it,
    /// `[n, groups, parts, 2]` in f32. A sample's pixels are parts of equally many, in whatever order, and the values
    /// are those before they were rounded to be stored.
    pub moments: Option<Tensor>,
}

impl From<Tensor> for Measured {
    fn from(x: Tensor) -> Self {
        Measured { x, moments: None }
    }
}

/// A tensor that a norm and its SiLU have yet to be applied to: `silu(x scale + shift)`.
#[derive(Clone, Debug)]
pub struct Normed {
    /// The tensor, `[n, .., c]`.
    pub x: Tensor,
    /// Per sample and channel, `[n, c]` in f32.
    pub scale: Tensor,
    /// Likewise.
    pub shift: Tensor,
}
