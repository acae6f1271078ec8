//! High dynamic range: `y = clip(gain x, -1, 1)`, so that what is bright or dark has lost its detail (as in DAPS,
//! `forward_operator/__init__.py`, with gain 2).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Operator, Task, TaskKind, expect_image, not_linear, values};
use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::ops::clip;
use crate::tensor::Tensor;

const WHAT: &str = "high dynamic range";

pub(super) const KIND: TaskKind = TaskKind {
    name: "hdr",
    syntax: "hdr[:GAIN]",
    doc: "values times the gain (2 unless given), what is outside the range clipped",
    parse,
};

/// What there is to choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// What values are multiplied by, at least 1.
    pub gain: f64,
}

fn parse(rest: &str) -> Option<Task> {
    let gain = match values(rest)?[..] {
        [] => 2.0,
        [gain] => gain.parse().ok()?,
        _ => return None,
    };
    Some(Task::HighDynamicRange(Parameters { gain }))
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gain {
            2.0 => f.write_str("hdr"),
            gain => write!(f, "hdr:{gain}"),
        }
    }
}

impl super::Parameters for Parameters {
    fn check(&self) -> Result<()> {
        if (1.0..=1e3).contains(&self.gain) {
            return Ok(());
        }
        let why = format!("wanted a gain of 1 to 1000, got {}", self.gain);
        Err(Error::argument(WHAT, why))
    }

    fn build(&self, _: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>> {
        let gain = self.gain;
        Ok(Box::new(Clipped { size, gain }))
    }
}

/// The clipping of images of one size.
struct Clipped {
    size: [usize; 2],
    gain: f64,
}

impl Operator for Clipped {
    fn measurement_shape(&self) -> [usize; 3] {
        [self.size[0], self.size[1], 3]
    }

    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, x, self.measurement_shape())?;
        clip::forward(cx, x, self.gain)
    }

    fn vjp(&self, cx: &Cx, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, dy, self.measurement_shape())?;
        clip::vjp(cx, x, self.gain, dy)
    }

    fn adjoint(&self, _: &Cx, _: &Tensor) -> Result<Tensor> {
        not_linear(WHAT)
    }

    /// None: what was clipped is lost.
    fn pinv(&self, _: &Cx, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn condition(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, y, self.measurement_shape())?;
        Ok(y.clone())
    }
}
