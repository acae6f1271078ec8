//! Box inpainting: a box in the middle of the image is missing and measured as 0, mid-grey in [-1, 1].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::masked::Masked;
use super::{Operator, Task, TaskKind, values};
use crate::cx::Cx;
use crate::error::{Error, Result};

const WHAT: &str = "box inpainting";

pub(super) const KIND: TaskKind = TaskKind {
    name: "inpaint",
    syntax: "inpaint[:HxW]",
    doc: "a missing box in the middle, a quarter of each side unless given",
    parse,
};

/// What there is to choose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Height and width of the hole; a quarter of each side of the image, rounded down, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hole: Option<[usize; 2]>,
}

fn parse(rest: &str) -> Option<Task> {
    let hole = match values(rest)?[..] {
        [] => None,
        [hole] => {
            let (h, w) = hole.split_once('x')?;
            Some([h.parse().ok()?, w.parse().ok()?])
        }
        _ => return None,
    };
    Some(Task::BoxInpainting(Parameters { hole }))
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hole {
            None => f.write_str("inpaint"),
            Some([h, w]) => write!(f, "inpaint:{h}x{w}"),
        }
    }
}

impl super::Parameters for Parameters {
    fn check(&self) -> Result<()> {
        match self.hole {
            Some([h, w]) if h == 0 || w == 0 => {
                let why = format!("wanted a hole of at least 1 x 1, got {h} x {w}");
                Err(Error::argument(WHAT, why))
            }
            _ => Ok(()),
        }
    }

    fn check_size(&self, [h, w]: [usize; 2]) -> Result<()> {
        match self.hole {
            Some([down, across]) if down > h || across > w => {
                let why = format!("wanted a hole inside {h} x {w}, got {down} x {across}");
                Err(Error::argument(WHAT, why))
            }
            _ => Ok(()),
        }
    }

    fn build(&self, cx: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>> {
        let [h, w] = size;
        let [down, across] = self.hole.unwrap_or([h / 4, w / 4]);
        let (top, left) = ((h - down) / 2, (w - across) / 2);
        let mut mask = vec![1.0; h * w];
        for row in mask.chunks_exact_mut(w).skip(top).take(down) {
            row[left..left + across].fill(0.0);
        }
        Ok(Box::new(Masked::new(cx, WHAT, size, &mask)?))
    }
}
