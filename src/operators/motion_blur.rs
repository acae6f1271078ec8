//! Motion blur: correlation of each channel with one kernel, borders mirrored without repeating the edge.
//! The kernel is given, or the path of [`motion`](super::motion) that a seed draws.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::motion::motion_kernel;
use super::{Operator, Task, TaskKind, expect_image, values};
use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::ops::filter2d;
use crate::tensor::Tensor;

/// The widest kernel.
const WIDEST: usize = 1023;
const WHAT: &str = "motion blur";

pub(super) const KIND: TaskKind = TaskKind {
    name: "motion",
    syntax: "motion[:SEED]",
    doc: "motion blur, 61 pixels wide, of intensity 0.5, drawn from the seed (0 unless given)",
    parse,
};

/// What there is to choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The side of the kernel, odd.
    pub size: usize,
    /// How curly the path is, 0 to 1.
    pub intensity: f64,
    /// What the path is drawn from.
    pub seed: u64,
    /// The `size * size` weights, row by row, sum 1. When present these count, not the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Vec<f64>>,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters {
            size: 61,
            intensity: 0.5,
            seed: 0,
            kernel: None,
        }
    }
}

impl Parameters {
    /// The weights: those given, else those drawn.
    ///
    /// # Errors
    /// [`Error::Argument`] when those given are not `size * size` finite numbers of sum 1, or there are
    /// none to be drawn with these settings.
    pub fn weights(&self) -> Result<Cow<'_, [f64]>> {
        let Some(kernel) = &self.kernel else {
            return motion_kernel(self.size, self.intensity, self.seed).map(Cow::Owned);
        };
        if self.size.is_multiple_of(2) || self.size > WIDEST {
            let why = format!("wanted an odd size up to {WIDEST}, got {}", self.size);
            return Err(Error::argument("motion kernel", why));
        }
        let sum: f64 = kernel.iter().sum();
        // written so that a NaN fails
        let averages = (sum - 1.0).abs() <= 1e-4;
        if kernel.len() != self.size * self.size || !averages {
            let why = format!(
                "wanted {0} x {0} finite weights of sum 1, got {1} of sum {sum}",
                self.size,
                kernel.len()
            );
            return Err(Error::argument("motion kernel", why));
        }
        Ok(Cow::Borrowed(kernel))
    }

    /// The same with its weights written out, so that they do not depend on who draws them.
    pub(super) fn drawn(&self) -> Result<Self> {
        let kernel = Some(self.weights()?.into_owned());
        Ok(Parameters {
            kernel,
            ..self.clone()
        })
    }
}

fn parse(rest: &str) -> Option<Task> {
    let mut parameters = Parameters::default();
    match values(rest)?[..] {
        [] => {}
        [seed] => parameters.seed = seed.parse().ok()?,
        _ => return None,
    }
    Some(Task::MotionBlur(parameters))
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seed {
            0 => f.write_str("motion"),
            seed => write!(f, "motion:{seed}"),
        }
    }
}

impl super::Parameters for Parameters {
    fn check(&self) -> Result<()> {
        self.weights().map(drop)
    }

    fn check_size(&self, [h, w]: [usize; 2]) -> Result<()> {
        let least = self.size / 2 + 1;
        if h.min(w) >= least {
            return Ok(());
        }
        let why = format!("wanted an image with sides of at least {least}, got {h} x {w}");
        Err(Error::argument(WHAT, why))
    }

    fn build(&self, cx: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>> {
        let kernel = cx.constant(&self.weights()?, [self.size, self.size])?;
        Ok(Box::new(MotionBlur { size, kernel }))
    }
}

/// The blur of images of one size.
struct MotionBlur {
    size: [usize; 2],
    kernel: Tensor,
}

impl Operator for MotionBlur {
    fn measurement_shape(&self) -> [usize; 3] {
        [self.size[0], self.size[1], 3]
    }

    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, x, self.measurement_shape())?;
        filter2d::forward(cx, x, &self.kernel)
    }

    fn vjp(&self, cx: &Cx, _: &Tensor, dy: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, dy, self.measurement_shape())?;
        filter2d::vjp(cx, &self.kernel, dy)
    }

    /// None: it would be dense and amplify noise without bound.
    fn pinv(&self, _: &Cx, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn condition(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, y, self.measurement_shape())?;
        Ok(y.clone())
    }
}
