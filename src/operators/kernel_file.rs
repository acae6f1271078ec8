//! Blur with a kernel of the user's own: an image file whose brightness is the weights.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::filtered::{Filtered, check_kernel, check_reach};
use super::{Operator, Task, TaskKind, brightness};
use crate::cx::Cx;
use crate::error::{Error, Result};

const WHAT: &str = "blur kernel";

pub(super) const KIND: TaskKind = TaskKind {
    name: "kernel",
    syntax: "kernel:FILE",
    doc: "blur with the kernel of an image file: square, of odd sides, black for 0",
    parse: |rest| {
        let file = rest.strip_prefix(':').filter(|file| !file.is_empty())?;
        Some(Task::KernelFile(Parameters {
            file: file.into(),
            kernel: None,
        }))
    },
};

/// What there is to choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Where the kernel is, or was.
    pub file: String,
    /// Its weights, row by row, sum 1. When present the file is not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Vec<f64>>,
}

impl Parameters {
    /// The weights: those given, else those of the file.
    fn weights(&self) -> Result<Cow<'_, [f64]>> {
        if let Some(kernel) = &self.kernel {
            check_kernel(WHAT, side(kernel), kernel)?;
            return Ok(Cow::Borrowed(kernel));
        }
        let ([h, w], values) = brightness(&self.file)?;
        let sum: f64 = values.iter().sum();
        if h != w || h.is_multiple_of(2) || sum == 0.0 {
            let why = format!("wanted a square of odd sides that is not all black, got {h} x {w}");
            return Err(Error::file(&self.file, why));
        }
        let kernel: Vec<f64> = values.iter().map(|v| v / sum).collect();
        check_kernel(&self.file, h, &kernel)?;
        Ok(Cow::Owned(kernel))
    }

    /// The same with its weights written out, so that the file is not needed any more.
    pub(super) fn read(&self) -> Result<Self> {
        let kernel = Some(self.weights()?.into_owned());
        Ok(Parameters {
            kernel,
            ..self.clone()
        })
    }
}

fn side(kernel: &[f64]) -> usize {
    kernel.len().isqrt()
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel:{}", self.file)
    }
}

impl super::Parameters for Parameters {
    fn check(&self) -> Result<()> {
        self.weights().map(drop)
    }

    fn check_size(&self, size: [usize; 2]) -> Result<()> {
        check_reach(WHAT, side(&self.weights()?), size)
    }

    fn build(&self, cx: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>> {
        let kernel = self.weights()?;
        let side = side(&kernel);
        Ok(Box::new(Filtered {
            what: WHAT,
            size,
            kernel: cx.constant(&kernel, [side, side])?,
        }))
    }
}
