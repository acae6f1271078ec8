//! Super-resolution: the image reduced by antialiased bicubic interpolation, `y = A x B^T` in each channel.

use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::matrix::Banded;
use super::separable::{Separable, transposed};
use super::{Operator, Task, TaskKind, expect_image};
use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The largest factor.
const LARGEST: usize = 64;
const WHAT: &str = "super-resolution";

pub(super) const KIND: TaskKind = TaskKind {
    name: "sr",
    syntax: "sr2|sr4|sr8|sr<FACTOR>",
    doc: "super-resolution: bicubic reduction by the factor, antialiased",
    parse: |rest| Some(Task::super_resolution(rest.parse().ok()?)),
};

/// What there is to choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// How many times smaller the measurement is, 1 to 64; both sides of the image are multiples of it.
    pub factor: usize,
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sr{}", self.factor)
    }
}

impl super::Parameters for Parameters {
    fn check(&self) -> Result<()> {
        if (1..=LARGEST).contains(&self.factor) {
            return Ok(());
        }
        let why = format!("wanted a factor of 1 to {LARGEST}, got {}", self.factor);
        Err(Error::argument(WHAT, why))
    }

    fn check_size(&self, [h, w]: [usize; 2]) -> Result<()> {
        let factor = self.factor;
        if h.is_multiple_of(factor) && w.is_multiple_of(factor) {
            return Ok(());
        }
        let why = format!(
            "wanted an image with sides that are multiples of {factor}, got {h} x {w}; crop or resize it"
        );
        Err(Error::argument(WHAT, why))
    }

    fn build(&self, cx: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>> {
        Ok(Box::new(SuperResolution::new(cx, size, self.factor)?))
    }

    fn image_size(&self, measurement: [usize; 2]) -> [usize; 2] {
        measurement.map(|side| side.saturating_mul(self.factor))
    }
}

/// The reduction of images of one size.
struct SuperResolution {
    size: [usize; 2],
    factor: usize,
    matrices: [Banded; 2],
    reduce: Separable,
    reduce_transposed: Separable,
    enlarge: Separable,
    /// Dense, so made when it is first asked for.
    inverse: OnceLock<Separable>,
}

impl SuperResolution {
    fn new(cx: &Cx, size: [usize; 2], factor: usize) -> Result<Self> {
        let [h, w] = size;
        let matrices = [
            Banded::bicubic_reduce(h, factor)?,
            Banded::bicubic_reduce(w, factor)?,
        ];
        let enlarge = [
            Banded::bicubic_enlarge(h / factor, factor)?,
            Banded::bicubic_enlarge(w / factor, factor)?,
        ];
        Ok(SuperResolution {
            size,
            factor,
            reduce: Separable::new(cx, &matrices)?,
            reduce_transposed: Separable::new(cx, &transposed(&matrices))?,
            enlarge: Separable::new(cx, &enlarge)?,
            matrices,
            inverse: OnceLock::new(),
        })
    }

    fn inverse(&self, cx: &Cx) -> Result<&Separable> {
        if let Some(inverse) = self.inverse.get() {
            return Ok(inverse);
        }
        let [down, across] = &self.matrices;
        let inverse = Separable::new(cx, &[down.pinv()?, across.pinv()?])?;
        Ok(self.inverse.get_or_init(|| inverse))
    }
}

impl Operator for SuperResolution {
    fn measurement_shape(&self) -> [usize; 3] {
        [self.size[0] / self.factor, self.size[1] / self.factor, 3]
    }

    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, x, [self.size[0], self.size[1], 3])?;
        self.reduce.apply(cx, x)
    }

    fn vjp(&self, cx: &Cx, _: &Tensor, dy: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, dy, self.measurement_shape())?;
        self.reduce_transposed.apply(cx, dy)
    }

    fn pinv(&self, cx: &Cx, y: &Tensor) -> Result<Option<Tensor>> {
        expect_image(cx, WHAT, y, self.measurement_shape())?;
        self.inverse(cx)?.apply(cx, y).map(Some)
    }

    fn condition(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, y, self.measurement_shape())?;
        self.enlarge.apply(cx, y)
    }
}
