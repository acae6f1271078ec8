//! Random inpainting: each pixel, all three channels of it, is missing with one probability and then
//! measured as 0.
//!
//! Pixel i, row by row, is missing when element i of the uniform field of the stream of `seed` and image
//! key `image_key("random inpainting")`, sample, step and draw 0, is below the probability.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::masked::Masked;
use super::{Operator, Task, TaskKind, values};
use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::rng::{Stream, image_key};

const WHAT: &str = "random inpainting";

pub(super) const KIND: TaskKind = TaskKind {
    name: "random",
    syntax: "random:PROBABILITY[:SEED]",
    doc: "pixels missing with this probability, drawn from the seed (0 unless given)",
    parse,
};

/// What there is to choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The probability that a pixel is missing, 0 to less than 1.
    pub drop: f64,
    /// What the mask is drawn from.
    pub seed: u64,
}

fn parse(rest: &str) -> Option<Task> {
    let (drop, seed) = match values(rest)?[..] {
        [drop] => (drop.parse().ok()?, 0),
        [drop, seed] => (drop.parse().ok()?, seed.parse().ok()?),
        _ => return None,
    };
    Some(Task::RandomInpainting(Parameters { drop, seed }))
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seed {
            0 => write!(f, "random:{}", self.drop),
            seed => write!(f, "random:{}:{seed}", self.drop),
        }
    }
}

impl super::Parameters for Parameters {
    fn check(&self) -> Result<()> {
        if (0.0..1.0).contains(&self.drop) {
            return Ok(());
        }
        let why = format!(
            "wanted a probability of 0 to less than 1, got {}",
            self.drop
        );
        Err(Error::argument(WHAT, why))
    }

    fn build(&self, cx: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>> {
        let mut mask = vec![0.0f64; size[0] * size[1]];
        Stream::new(self.seed, image_key(WHAT), 0).uniforms(0, 0, &mut mask);
        for m in &mut mask {
            *m = if *m < self.drop { 0.0 } else { 1.0 };
        }
        Ok(Box::new(Masked::new(cx, WHAT, size, &mask)?))
    }
}
