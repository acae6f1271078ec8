//! A tensor with moments of its groups, which the launch that wrote it left for the group norm that reads it.

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
