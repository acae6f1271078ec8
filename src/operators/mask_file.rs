//! Inpainting with a mask of the user's own: an image file, white where a pixel is kept, black where it is missing.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::masked::Masked;
use super::{Operator, Task, TaskKind, brightness};
use crate::cx::Cx;
use crate::error::{Error, Result};

const WHAT: &str = "mask";

pub(super) const KIND: TaskKind = TaskKind {
    name: "mask",
    syntax: "mask:FILE",
    doc: "pixels missing where an image file of the same size is black",
    parse: |rest| {
        let file = rest.strip_prefix(':').filter(|file| !file.is_empty())?;
        Some(Task::MaskFile(Parameters {
            file: file.into(),
            mask: None,
        }))
    },
};

/// What there is to choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Where the mask is, or was.
    pub file: String,
    /// The mask. When present the file is not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Runs>,
}

/// A mask as the lengths of its runs, row by row: kept, missing, kept and so on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runs {
    /// `[h, w]`
    pub size: [usize; 2],
    /// Their lengths; the first, of kept pixels, may be 0.
    pub lengths: Vec<u32>,
}

impl Runs {
    fn of(size: [usize; 2], values: &[f64]) -> Self {
        let (mut lengths, mut kept) = (vec![0], true);
        for value in values {
            if (*value >= 0.5) != kept {
                kept = !kept;
                lengths.push(0);
            }
            if let Some(length) = lengths.last_mut() {
                *length += 1;
            }
        }
        Runs { size, lengths }
    }

    /// 1 where a pixel is kept, else 0.
    fn values(&self) -> Vec<f64> {
        let runs = self.lengths.iter().zip([1.0, 0.0].into_iter().cycle());
        runs.flat_map(|(length, value)| (0..*length).map(move |_| value))
            .collect()
    }

    fn check(&self) -> Result<()> {
        let [h, w] = self.size;
        let all: u64 = self.lengths.iter().map(|length| u64::from(*length)).sum();
        if h.checked_mul(w).is_some_and(|pixels| pixels as u64 == all) {
            return Ok(());
        }
        let why = format!("wanted runs of {h} x {w} pixels, got {all}");
        Err(Error::argument(WHAT, why))
    }
}

impl Parameters {
    fn runs(&self) -> Result<Cow<'_, Runs>> {
        match &self.mask {
            Some(mask) => mask.check().map(|()| Cow::Borrowed(mask)),
            None => {
                let (size, values) = brightness(&self.file)?;
                Ok(Cow::Owned(Runs::of(size, &values)))
            }
        }
    }

    /// The same with the mask written out, so that the file is not needed any more.
    pub(super) fn read(&self) -> Result<Self> {
        let mask = Some(self.runs()?.into_owned());
        Ok(Parameters {
            mask,
            ..self.clone()
        })
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mask:{}", self.file)
    }
}

impl super::Parameters for Parameters {
    fn check(&self) -> Result<()> {
        self.runs().map(drop)
    }

    fn check_size(&self, [h, w]: [usize; 2]) -> Result<()> {
        let [mask_h, mask_w] = self.runs()?.size;
        if [h, w] == [mask_h, mask_w] {
            return Ok(());
        }
        let why = format!("wanted an image of the mask's size, {mask_h} x {mask_w}, got {h} x {w}");
        Err(Error::argument(WHAT, why))
    }

    fn build(&self, cx: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Masked::new(
            cx,
            WHAT,
            size,
            &self.runs()?.values(),
        )?))
    }
}
