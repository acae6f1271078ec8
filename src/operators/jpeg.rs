//! JPEG: brightness and colour differences, those at half the size, in blocks of eight by eight cosines, each rounded to a
//! multiple of its step (ITU-T T.81, tables K.1 and K.2, scaled by the quality as libjpeg does).
//!
//! The gradient takes the rounding for the identity (straight-through). Left out: the rounding of decoded values to bytes,
//! and their clipping.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::matrix::Banded;
use super::separable::{Separable, transposed};
use super::{Operator, Task, TaskKind, expect_image, not_linear, values};
use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::ops::banded::{self, Matrix};
use crate::ops::{combine, quantise};
use crate::tensor::Tensor;

const WHAT: &str = "JPEG";
/// Values from -1 to 1 in levels.
const LEVELS: f64 = 127.5;
/// JFIF: Y, Cb and Cr of R, G and B.
const TO_YCC: [[f64; 3]; 3] = [
    [0.299, 0.587, 0.114],
    [-0.168_735_892, -0.331_264_108, 0.5],
    [0.5, -0.418_687_589, -0.081_312_411],
];
const FROM_YCC: [[f64; 3]; 3] = [
    [1.0, 0.0, 1.402],
    [1.0, -0.344_136_286, -0.714_136_286],
    [1.0, 1.772, 0.0],
];
const BRIGHTNESS: [u8; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113,
    92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];
const COLOUR: [u8; 64] = [
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
];

pub(super) const KIND: TaskKind = TaskKind {
    name: "jpeg",
    syntax: "jpeg:QUALITY",
    doc: "JPEG compression of this quality, 1 to 100; sides are multiples of 16",
    parse,
};

/// What there is to choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// 1 to 100.
    pub quality: u32,
}

fn parse(rest: &str) -> Option<Task> {
    match values(rest)?[..] {
        [quality] => Some(Task::Jpeg(Parameters {
            quality: quality.parse().ok()?,
        })),
        _ => None,
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "jpeg:{}", self.quality)
    }
}

impl Parameters {
    /// The steps of a table, in levels.
    fn steps(&self, table: &[u8; 64]) -> [f64; 64] {
        let scale = match self.quality {
            low @ 0..50 => 5000 / low.max(1),
            high => 200 - 2 * high.min(100),
        };
        table.map(|step| f64::from(((u32::from(step) * scale + 50) / 100).clamp(1, 255)))
    }
}

impl super::Parameters for Parameters {
    fn check(&self) -> Result<()> {
        if (1..=100).contains(&self.quality) {
            return Ok(());
        }
        let why = format!("wanted a quality of 1 to 100, got {}", self.quality);
        Err(Error::argument(WHAT, why))
    }

    fn check_size(&self, [h, w]: [usize; 2]) -> Result<()> {
        if h.is_multiple_of(16) && w.is_multiple_of(16) {
            return Ok(());
        }
        let why = format!("wanted sides that are multiples of 16, got {h} x {w}");
        Err(Error::argument(WHAT, why))
    }

    fn build(&self, cx: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>> {
        let [y, cb, cr] = TO_YCC;
        const NONE: [f64; 3] = [0.0; 3];
        let brightness = Plane::new(cx, size, [y, NONE, NONE], false, &self.steps(&BRIGHTNESS))?;
        let colour = Plane::new(cx, size, [NONE, cb, cr], true, &self.steps(&COLOUR))?;
        Ok(Box::new(Jpeg {
            size,
            planes: [brightness, colour],
        }))
    }
}

/// A part of an image that is compressed in one way: the other channels are zero, and stay so.
struct Plane {
    mix: [Matrix; 2],
    unmix: [Matrix; 2],
    waves: [Separable; 2],
    values: [Separable; 2],
    /// `[h, w, 3]`
    steps: Tensor,
    /// What is rounded to 0, `[h, w, 3]`: JPEG takes 128 levels off, and zero here is level 127.5.
    origin: Tensor,
}

impl Plane {
    fn new(
        cx: &Cx,
        [h, w]: [usize; 2],
        mix: [[f64; 3]; 3],
        half: bool,
        steps: &[f64; 64],
    ) -> Result<Self> {
        let upload = |a: &Banded| Matrix::new(cx, a.cols(), a.starts(), a.indices(), a.values());
        let both = |a: Banded| Ok::<_, Error>([upload(&a)?, upload(&a.transpose())?]);
        let pair = |a: [Banded; 2]| {
            Ok::<_, Error>([
                Separable::new(cx, &a)?,
                Separable::new(cx, &transposed(&a))?,
            ])
        };
        let (into, back) = match half {
            false => {
                let cosines = [Banded::cosine_blocks(h)?, Banded::cosine_blocks(w)?];
                let back = transposed(&cosines);
                (cosines, back)
            }
            true => {
                let cosines = [Banded::cosine_blocks(h / 2)?, Banded::cosine_blocks(w / 2)?];
                let [down, across] = &cosines;
                let into = [
                    down.times(&Banded::halve(h)?)?,
                    across.times(&Banded::halve(w)?)?,
                ];
                let back = [
                    Banded::repeat(h / 2)?.times(&down.transpose())?,
                    Banded::repeat(w / 2)?.times(&across.transpose())?,
                ];
                (into, back)
            }
        };
        let rows = [into[0].rows(), into[1].rows()];
        // Row and column of an element in its block.
        let place = |i: usize| (i / 3 / rows[1] % 8, i / 3 % rows[1] % 8);
        let step = |i: usize| steps[place(i).0 * 8 + place(i).1];
        // A block of half levels has the first wave alone, eight times as large.
        let first = |i: usize| i.is_multiple_of(3) && place(i) == (0, 0);
        let origin = |i: usize| if first(i) && !half { 8.0 * 0.5 } else { 0.0 };
        let of = |value: &dyn Fn(usize) -> f64| {
            let all: Vec<f64> = (0..rows[0] * rows[1] * 3).map(value).collect();
            cx.constant(&all, [rows[0], rows[1], 3])
        };
        Ok(Plane {
            mix: both(Banded::dense(&mix.map(|row| row.map(|v| LEVELS * v))))?,
            unmix: both(Banded::dense(&FROM_YCC.map(|row| row.map(|v| v / LEVELS))))?,
            waves: pair(into)?,
            values: pair(back)?,
            steps: of(&step)?,
            origin: of(&origin)?,
        })
    }

    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut y = banded::forward(cx, &self.mix[0], x, 3)?;
        y = self.waves[0].apply(cx, &y)?;
        y = quantise::forward(cx, &y, &self.steps, &self.origin)?;
        y = self.values[0].apply(cx, &y)?;
        banded::forward(cx, &self.unmix[0], &y, 3)
    }

    fn vjp(&self, cx: &Cx, dy: &Tensor) -> Result<Tensor> {
        let mut dx = banded::forward(cx, &self.unmix[1], dy, 3)?;
        dx = self.values[1].apply(cx, &dx)?;
        dx = self.waves[1].apply(cx, &dx)?;
        banded::forward(cx, &self.mix[1], &dx, 3)
    }
}

/// The compression of images of one size: brightness, and colour differences at half the size.
struct Jpeg {
    size: [usize; 2],
    planes: [Plane; 2],
}

impl Operator for Jpeg {
    fn measurement_shape(&self) -> [usize; 3] {
        [self.size[0], self.size[1], 3]
    }

    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, x, self.measurement_shape())?;
        let [brightness, colour] = &self.planes;
        let (y, c) = (brightness.measure(cx, x)?, colour.measure(cx, x)?);
        combine::forward(cx, &[(1.0, &y), (1.0, &c)])
    }

    fn vjp(&self, cx: &Cx, _: &Tensor, dy: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, dy, self.measurement_shape())?;
        let [brightness, colour] = &self.planes;
        let (y, c) = (brightness.vjp(cx, dy)?, colour.vjp(cx, dy)?);
        combine::forward(cx, &[(1.0, &y), (1.0, &c)])
    }

    fn adjoint(&self, _: &Cx, _: &Tensor) -> Result<Tensor> {
        not_linear(WHAT)
    }

    /// None: what was rounded off is lost.
    fn pinv(&self, _: &Cx, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn condition(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        expect_image(cx, WHAT, y, self.measurement_shape())?;
        Ok(y.clone())
    }
}
