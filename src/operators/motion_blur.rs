//! Motion blur: correlation of each channel with one kernel, borders mirrored without repeating the edge.
//! The kernel is given, or the path of [`motion`](super::motion) that a seed draws.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::filtered::{Filtered, check_kernel, check_reach};
use super::motion::motion_kernel;
use super::{Operator, Task, TaskKind, values};
use crate::cx::Cx;
use crate::error::Result;

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
    /// [`Error::Argument`](crate::Error::Argument) when those given are not `size * size` finite numbers of sum 1, or there are
    /// none to be drawn with these settings.
    pub fn weights(&self) -> Result<Cow<'_, [f64]>> {
        let Some(kernel) = &self.kernel else {
            return motion_kernel(self.size, self.intensity, self.seed).map(Cow::Owned);
        };
        check_kernel("motion kernel", self.size, kernel)?;
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

    fn check_size(&self, size: [usize; 2]) -> Result<()> {
        check_reach(WHAT, self.size, size)
    }

    fn build(&self, cx: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>> {
        let kernel = cx.constant(&self.weights()?, [self.size, self.size])?;
        Ok(Box::new(Filtered {
            what: WHAT,
            size,
            kernel,
        }))
    }
}
