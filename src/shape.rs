//! [`Shape`]: up to four dimensions, always contiguous, channels last (NHWC for images, NTC for tokens).

use std::fmt;

use crate::dtype::DType;

/// The dimensions of a tensor, outermost first. Images are `[n, h, w, c]`, tokens `[n, t, c]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; 4],
    rank: u8,
}

impl Shape {
    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..usize::from(self.rank)]
    }

    /// How many elements a tensor of this shape has; where that is beyond what can be counted, more than any memory holds.
    pub fn elements(&self) -> usize {
        self.dims().iter().fold(1, |n, d| n.saturating_mul(*d))
    }

    /// How many bytes its elements take in this type; as above.
    pub fn bytes(&self, dtype: DType) -> usize {
        self.elements().saturating_mul(dtype.size())
    }

    /// The first dimension: the samples of the batch. 1 for a scalar.
    pub fn samples(&self) -> usize {
        self.dims().first().copied().unwrap_or(1)
    }

    /// The last dimension: the channels. 1 for a scalar.
    pub fn channels(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// This shape with another last dimension.
    pub fn with_channels(mut self, c: usize) -> Self {
        if self.rank > 0 {
            self.dims[usize::from(self.rank) - 1] = c;
        }
        self
    }

    /// This shape with another first dimension.
    pub fn with_samples(mut self, n: usize) -> Self {
        self.dims[0] = n;
        self
    }

    /// Elements of one sample.
    pub fn per_sample(&self) -> usize {
        let dims = self.dims().iter().skip(1);
        dims.fold(1, |n, d| n.saturating_mul(*d))
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(d: [usize; N]) -> Self {
        const { assert!(N <= 4, "a shape has at most four dimensions") };
        let mut dims = [1; 4];
        dims[..N].copy_from_slice(&d);
        Shape {
            dims,
            rank: N as u8,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}
