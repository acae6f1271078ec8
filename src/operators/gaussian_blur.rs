//! Gaussian blur: depthwise, separable, truncated at 4 sigma, borders mirrored without repeating the edge.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::matrix::Banded;
use super::separable::{Separable, transposed};
use super::{Operator, Task, TaskKind, expect_image, values};
use crate::cx::Cx;
use crate::error::Result;
use crate::tensor::Tensor;

const WHAT: &str = "Gaussian blur";

pub(super) const KIND: TaskKind = TaskKind {
    name: "blur",
    syntax: "blur[:SIGMA[:SIZE]]",
    doc: "Gaussian blur, sigma 3 pixels in a window of 61 unless given",
    parse,
};

/// What there is to choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The side of the window, odd; the weights end at 4 sigma if that is nearer.
    pub size: usize,
    /// The standard deviation in pixels.
    pub sigma: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters {
            size: 61,
            sigma: 3.0,
        }
    }
}

fn parse(rest: &str) -> Option<Task> {
    let mut parameters = Parameters::default();
    match values(rest)?[..] {
        [] => {}
        [sigma] => parameters.sigma = sigma.parse().ok()?,
        [sigma, size] => {
            (parameters.sigma, parameters.size) = (sigma.parse().ok()?, size.parse().ok()?);
        }
        _ => return None,
    }
    Some(Task::GaussianBlur(parameters))
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (usual, Parameters { size, sigma }) = (Parameters::default(), self);
        if *self == usual {
            f.write_str("blur")
        } else if *size == usual.size {
            write!(f, "blur:{sigma}")
        } else {
            write!(f, "blur:{sigma}:{size}")
        }
    }
}

impl super::Parameters for Parameters {
    fn check(&self) -> Result<()> {
        // wider than any window
        Banded::gaussian_blur(1024, self.size, self.sigma).map(drop)
    }

    fn check_size(&self, [h, w]: [usize; 2]) -> Result<()> {
        Banded::gaussian_blur(h.min(w), self.size, self.sigma).map(drop)
    }

    fn build(&self, cx: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>> {
        Ok(Box::new(GaussianBlur::new(cx, size, self)?))
    }
}

/// The blur of images of one size.
struct GaussianBlur {
    size: [usize; 2],
    blur: Separable,
    blur_transposed: Separable,
}

impl GaussianBlur {
    fn new(cx: &Cx, size: [usize; 2], p: &Parameters) -> Result<Self> {
        let matrices = [
            Banded::gaussian_blur(size[0], p.size, p.sigma)?,
            Banded::gaussian_blur(size[1], p.size, p.sigma)?,
        ];
        Ok(GaussianBlur {
            size,
            blur: Separable::new(cx, &matrices)?,
            blur_transposed: Separable::new(cx, &transposed(&matrices))?,
        })
    }
}

impl Operator for GaussianBlur {
    fn measurement_shape(&self) -> [usize; 3] {
        [self.size[0], self.size[1], 3]
    }

    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, x, self.measurement_shape())?;
        self.blur.apply(cx, x)
    }

    fn vjp(&self, cx: &Cx, _: &Tensor, dy: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, dy, self.measurement_shape())?;
        self.blur_transposed.apply(cx, dy)
    }

    /// None: the blur loses nearly everything above its band, and an inverse would be noise.
    fn pinv(&self, _: &Cx, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn condition(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, y, self.measurement_shape())?;
        Ok(y.clone())
    }
}
