//! Phase retrieval: of the image's Fourier transform only the modulus is measured, `y = |F P (x + 1) / 2|` in each
//! channel, with P the image in a frame of zeros and F the centred orthonormal transform (as in DAPS,
//! `forward_operator/__init__.py`, with oversampling 2).
//!
//! The image is in [0, 1] there, so that the frame is black. `y` is 0 or more, and far above 1 in the middle: it is no
//! picture. Without noise it is the same, in each channel by itself, for
//!
//! - the image turned by 180 degrees in its frame;
//! - the image moved by whole pixels in its frame, what leaves on one side coming back on the other; where that leaves
//!   only black outside the middle, it is an image again.
//!
//! Nothing in `y` tells these from the truth: a sampler may return any of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::matrix::{Banded, check_frame};
use super::separable::Separable;
use super::{MOST_PIXELS, Operator, Task, TaskKind, expect_image, not_linear, values};
use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::ops::banded::{self, Matrix};
use crate::ops::modulus;
use crate::tensor::Tensor;

const WHAT: &str = "phase retrieval";
/// The usual oversampling.
const USUAL: f64 = 2.0;
/// The most oversampling: a frame as wide as the image on either side.
const MOST: f64 = 8.0;

pub(super) const KIND: TaskKind = TaskKind {
    name: "phase",
    syntax: "phase[:OVERSAMPLE]",
    doc: "the modulus of the Fourier transform, in a black frame of OVERSAMPLE (2 unless given) eighths a side",
    parse,
};

/// What there is to choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The width of the frame on either side, in eighths of the image's side, 0 to 8; rounded down to pixels.
    pub oversample: f64,
}

impl Parameters {
    /// The width of the frame on either side of a side of so many pixels.
    fn pad(&self, side: usize) -> usize {
        (self.oversample / 8.0 * side as f64) as usize
    }

    /// A side with its frame.
    fn framed(&self, side: usize) -> usize {
        side.saturating_add(self.pad(side).saturating_mul(2))
    }

    /// The longest side that, with its frame, is at most so long. A longer side has a longer frame, so this is the only
    /// one that can be exactly so long.
    fn unframed(&self, framed: usize) -> usize {
        let least = (framed as f64 / (1.0 + self.oversample / 4.0)) as usize;
        // Rounding down leaves out less than a pixel on either side.
        let near = least.saturating_sub(1)..=least.saturating_add(2);
        let fits = near.rev().find(|side| self.framed(*side) <= framed);
        fits.unwrap_or(least)
    }
}

fn parse(rest: &str) -> Option<Task> {
    let oversample = match values(rest)?[..] {
        [] => USUAL,
        [oversample] => oversample.parse().ok()?,
        _ => return None,
    };
    Some(Task::PhaseRetrieval(Parameters { oversample }))
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.oversample {
            USUAL => f.write_str("phase"),
            oversample => write!(f, "phase:{oversample}"),
        }
    }
}

impl super::Parameters for Parameters {
    fn check(&self) -> Result<()> {
        if (0.0..=MOST).contains(&self.oversample) {
            return Ok(());
        }
        let got = self.oversample;
        let why = format!("wanted an oversampling of 0 to {MOST}, got {got}");
        Err(Error::argument(WHAT, why))
    }

    fn check_size(&self, [h, w]: [usize; 2]) -> Result<()> {
        let (h, w) = (check_frame(h, self.pad(h))?, check_frame(w, self.pad(w))?);
        if h * w <= MOST_PIXELS {
            return Ok(());
        }
        let why = format!("wanted at most {MOST_PIXELS} pixels with the frame, got {h} x {w}");
        Err(Error::argument(WHAT, why))
    }

    fn build(&self, cx: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Modulus::new(cx, size, self)?))
    }

    fn image_size(&self, measurement: [usize; 2]) -> [usize; 2] {
        measurement.map(|side| self.unframed(side))
    }

    fn measures_pictures(&self) -> bool {
        false
    }
}

/// The modulus of the transform of images of one size.
struct Modulus {
    size: [usize; 2],
    framed: [usize; 2],
    /// Half the transform of the columns, which are real, and its transpose.
    down: [Matrix; 2],
    /// The transform of the rows, which are complex then, and its transpose.
    across: [Matrix; 2],
    /// `[fh, 2, fw * 3]`: the transform of the picture that is 1/2 everywhere, which [-1, 1] has at 0.
    offset: Tensor,
    shrink: Separable,
}

impl Modulus {
    fn new(cx: &Cx, [h, w]: [usize; 2], parameters: &Parameters) -> Result<Self> {
        let framed = [parameters.framed(h), parameters.framed(w)];
        let down = Banded::fourier(h, parameters.pad(h))?.scaled(0.5);
        let across = Banded::complex_fourier(w, parameters.pad(w))?;
        // Every row of the offset is put together from a row of ones and a row of i.
        let columns = down.matvec(&vec![1.0; h])?;
        let row = |re: f64, im: f64| across.matvec(&[vec![re; w], vec![im; w]].concat());
        let (of_re, of_im) = (row(1.0, 0.0)?, row(0.0, 1.0)?);
        let mut offset = Vec::with_capacity(framed[0] * of_re.len() * 3);
        for wave in columns.chunks_exact(2) {
            let row = of_re.iter().zip(&of_im);
            offset.extend(row.flat_map(|(re, im)| [wave[0] * re + wave[1] * im; 3]));
        }
        let upload = |a: &Banded| Matrix::new(cx, a.cols(), a.starts(), a.indices(), a.values());
        let both = |a: &Banded| Ok::<_, Error>([upload(a)?, upload(&a.transpose())?]);
        let shrink = [
            Banded::bilinear_resize(framed[0], h)?,
            Banded::bilinear_resize(framed[1], w)?,
        ];
        Ok(Modulus {
            size: [h, w],
            framed,
            down: both(&down)?,
            across: both(&across)?,
            offset: cx.constant(&offset, [framed[0], 2, framed[1] * 3])?,
            shrink: Separable::new(cx, &shrink)?,
        })
    }

    /// Half of F P x, `[n, fh, 2, fw * 3]`.
    fn transform(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let ([h, w], [fh, fw]) = (self.size, self.framed);
        expect_image(cx, WHAT, x, [h, w, 3])?;
        let n = x.shape().samples();
        let z = banded::forward(cx, &self.down[0], x, 1)?;
        let z = banded::forward(cx, &self.across[0], &z.view([n, fh, 2 * w, 3])?, 2)?;
        z.view([n, fh, 2, fw * 3])
    }

    /// The cotangent of `x` from that of [`Modulus::transform`].
    fn transform_vjp(&self, cx: &Cx, dz: &Tensor) -> Result<Tensor> {
        let (w, [fh, fw]) = (self.size[1], self.framed);
        let n = dz.shape().samples();
        let dx = banded::forward(cx, &self.across[1], &dz.view([n, fh, 2 * fw, 3])?, 2)?;
        banded::forward(cx, &self.down[1], &dx.view([n, 2 * fh, w, 3])?, 1)
    }
}

impl Operator for Modulus {
    fn measurement_shape(&self) -> [usize; 3] {
        [self.framed[0], self.framed[1], 3]
    }

    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let z = self.transform(cx, x)?;
        let [fh, fw] = self.framed;
        modulus::forward(cx, &z, &self.offset)?.view([x.shape().samples(), fh, fw, 3])
    }

    fn vjp(&self, cx: &Cx, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, dy, self.measurement_shape())?;
        let z = self.transform(cx, x)?;
        let [fh, fw] = self.framed;
        let dy = dy.view([dy.shape().samples(), fh, fw * 3])?;
        let dz = modulus::vjp(cx, &z, &self.offset, &dy)?;
        drop(z);
        self.transform_vjp(cx, &dz)
    }

    fn adjoint(&self, _: &Cx, _: &Tensor) -> Result<Tensor> {
        not_linear(WHAT)
    }

    /// None: the phases are lost.
    fn pinv(&self, _: &Cx, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// `y`, its values as they are, shrunk to the image's size (bilinear, antialiased).
    fn condition(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, y, self.measurement_shape())?;
        self.shrink.apply(cx, y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_has_the_size_that_was_measured() {
        for oversample in [0.0, 0.3, 1.0, 2.0, 3.7, 4.0, 8.0] {
            let parameters = Parameters { oversample };
            let mut framed = 0;
            for side in 1..3000 {
                let longer = parameters.framed(side);
                assert_eq!(parameters.unframed(longer), side, "{oversample}");
                // In between no side fits exactly, and the shorter one is returned.
                for between in framed + 1..longer {
                    assert_eq!(parameters.unframed(between), side - 1, "{oversample}");
                }
                framed = longer;
            }
        }
    }
}
