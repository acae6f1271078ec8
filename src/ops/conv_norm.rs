//! What passes between a convolution and the group norm beside it, so that one of the two need not read a tensor again:
//!
//! - [`Measured`], from a convolution to the norm after it: its result and the moments of that;
//! - [`Normed`], from a norm to the convolution after it: the norm's input, and what each channel is multiplied with and
//!   moved by;
//! - [`Applied`], backward, from a norm to the convolution after it: what the norm was applied to, of which the convolution
//!   makes sums;
//! - [`Summed`], backward, from a convolution to the norm before it: its cotangent and these sums;
//! - [`Through`], backward, from a norm to the convolution before it: the norm's cotangent, and what takes it through.

use crate::tensor::Tensor;

/// A tensor, and moments where the launch that wrote it left any.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The tensor, `[n, .., c]`.
    pub x: Tensor,
    /// The mean of each part of each group of its channels and the sum of the squared deviations from it,
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

/// What a norm was applied to and by what, of which the sums of its backward pass are made beside the cotangent.
#[derive(Clone, Copy, Debug)]
pub struct Applied<'a> {
    /// The norm's input, `[n, .., c]`.
    pub x: &'a Tensor,
    /// Its statistics, `[n, groups]` in f32.
    pub mean: &'a Tensor,
    /// Likewise.
    pub rstd: &'a Tensor,
    /// The norm's scale, `[c]`.
    pub w: &'a Tensor,
    /// Its shift, `[c]`.
    pub b: &'a Tensor,
    /// Whether a SiLU followed.
    pub silu: bool,
}

/// The cotangent of what a norm made, and sums where the launch that wrote it left any.
#[derive(Clone, Debug)]
pub struct Summed {
    /// The cotangent, `[n, .., c]`.
    pub dy: Tensor,
    /// The sums of `dxhat` and `dxhat xhat` (`ops::group_norm`) over each part of each group of its channels,
    /// `[n, groups, parts, 2]` in f32: those of the cotangent as it is stored.
    pub sums: Option<Tensor>,
}

/// The cotangent of what a norm and its SiLU made, which has yet to go through them: `du scale + x slope + offset`, where
/// `du` is `dy` times the slope of SiLU at `x scale + shift`.
#[derive(Clone, Debug)]
pub struct Through {
    /// The cotangent, `[n, .., c]`.
    pub dy: Tensor,
    /// The norm's input, likewise.
    pub x: Tensor,
    /// Per sample and channel, `[n, c]` in f32.
    pub scale: Tensor,
    /// Likewise.
    pub shift: Tensor,
    /// Likewise.
    pub slope: Tensor,
    /// Likewise.
    pub offset: Tensor,
}

impl From<Tensor> for Summed {
    fn from(dy: Tensor) -> Self {
        Summed { dy, sums: None }
    }
}
