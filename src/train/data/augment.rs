//! One crop of a training image: where it lies, how it is resized, flipped and coloured.
//! The definitions are pytorch/vision's (`torchvision/transforms/transforms.py`: `RandomResizedCrop`,
//! `RandomHorizontalFlip`, `ColorJitter`, `Resize`, `CenterCrop`); the draws are our own.

use super::jitter::Change;
use crate::error::{Error, Result};
use crate::io::image::Image;
use crate::operators::matrix::Banded;
use crate::rng::{Philox, image_key, stream_key};

/// The longest side of a crop.
const LONGEST: usize = 1 << 13;
/// The least and most width by height of a random crop.
const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// How often a crop is drawn before the middle is taken.
const ATTEMPTS: usize = 10;

/// What is done to each image.
#[derive(Clone, Debug, PartialEq)]
pub struct Augment {
    /// Height and width of the result.
    pub size: [usize; 2],
    /// The area of a random crop, as parts of the image's, least and most; none to take the middle.
    pub scale: Option<(f64, f64)>,
    /// The probability of a horizontal flip.
    pub flip: f64,
    /// The largest change of brightness, contrast and saturation, as a part of them, and of hue, in turns; 0 to 0.5.
    pub jitter: f64,
}

impl Augment {
    /// As the paper trains its ControlNet: crops of 0.8 to 2 of the area, flipped half of the time, colours changed
    /// by up to 0.1. Draws of an area above 1 fit nowhere, so most crops are the middle.
    pub fn paper(size: [usize; 2]) -> Self {
        Augment {
            size,
            scale: Some((0.8, 2.0)),
            flip: 0.5,
            jitter: 0.1,
        }
    }

    /// The middle of the image resized to just cover `size`; nothing random.
    pub fn none(size: [usize; 2]) -> Self {
        Augment {
            size,
            scale: None,
            flip: 0.0,
            jitter: 0.0,
        }
    }

    /// Whether the settings can be meant.
    ///
    /// # Errors
    /// [`Error::Argument`] with the setting that cannot.
    pub fn check(&self) -> Result<()> {
        let wrong = |name: &str, want: &str, got: String| {
            let name = format!("augmentation, {name}");
            Err(Error::argument(name, format!("wanted {want}, got {got}")))
        };
        let [h, w] = self.size;
        if ![h, w].iter().all(|side| (1..=LONGEST).contains(side)) {
            let want = format!("sides of 1 to {LONGEST} pixels");
            return wrong("size", &want, format!("{h} x {w}"));
        }
        if let Some((least, most)) = self.scale
            && !(0.0 < least && least <= most && most.is_finite())
        {
            return wrong("scale", "0 < least <= most", format!("{least} and {most}"));
        }
        if !(0.0..=1.0).contains(&self.flip) {
            return wrong("flip", "a probability", self.flip.to_string());
        }
        if !(0.0..=0.5).contains(&self.jitter) {
            return wrong("jitter", "0 to 0.5", self.jitter.to_string());
        }
        Ok(())
    }

    /// The crop of an image at a position of a training run: [`size`](Self::size) pixels in [-1, 1].
    ///
    /// # Errors
    /// [`Error::Argument`] when the image is smaller than the result: with random crops its short side must be as
    /// long as the short side of the result, without them no side may be shorter.
    pub fn apply(&self, image: &Image, seed: u64, position: u64) -> Result<Image> {
        self.check()?;
        image.check("training image")?;
        self.fits(image)?;
        let key = stream_key(seed, image_key("augmentation"));
        let mut random = Philox::new(stream_key(key, position));
        let [h, w] = self.size;
        let [down, across] = match self.scale {
            Some(scale) => {
                let crop = random_crop(&mut random, [image.height, image.width], scale);
                [(crop[0], h), (crop[1], w)].map(|(from, n)| Axis::crop(from, n))
            }
            None => middle([image.height, image.width], self.size),
        };
        let mut result = resample(image, &down?, &across?, self.size)?;
        if random.uniform() < self.flip {
            flip(&mut result);
        }
        if self.jitter > 0.0 {
            jitter(&mut result, &mut random, self.jitter);
        }
        Ok(result)
    }

    fn fits(&self, image: &Image) -> Result<()> {
        let [h, w] = self.size;
        let (height, width) = (image.height, image.width);
        let (fits, want) = match self.scale {
            Some(_) => {
                let side = h.min(w);
                (
                    height.min(width) >= side,
                    format!("a short side of at least {side} pixels"),
                )
            }
            None => (
                height >= h && width >= w,
                format!("at least {h} x {w} pixels"),
            ),
        };
        if fits {
            return Ok(());
        }
        let why = format!("wanted {want} (height x width), got {height} x {width}");
        Err(Error::argument("size of a training image", why))
    }
}

/// A stretch of pixels along one side of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub first: usize,
    pub length: usize,
}

/// A crop of `RandomResizedCrop`, down and across: an area uniform in `scale` and a ratio log-uniform in [`RATIO`],
/// anywhere; after ten that do not fit, the middle of an allowed ratio.
pub(super) fn random_crop(
    random: &mut Philox,
    sides: [usize; 2],
    scale: (f64, f64),
) -> [Stretch; 2] {
    let [height, width] = sides.map(|side| side as f64);
    let between = |random: &mut Philox, (a, b): (f64, f64)| a + (b - a) * random.uniform();
    for _ in 0..ATTEMPTS {
        let area = height * width * between(random, scale);
        let logarithms = (libm::log(RATIO.0), libm::log(RATIO.1));
        let ratio = libm::exp(between(random, logarithms));
        let w = (area * ratio).sqrt().round_ties_even();
        let h = (area / ratio).sqrt().round_ties_even();
        if 0.0 < w && w <= width && 0.0 < h && h <= height {
            return [(h, height), (w, width)].map(|(length, side)| {
                // uniform is below 1, the product could round up
                let first = (random.uniform() * (side - length + 1.0))
                    .floor()
                    .min(side - length);
                Stretch {
                    first: first as usize,
                    length: length as usize,
                }
            });
        }
    }
    let ratio = width / height;
    let (h, w) = if ratio < RATIO.0 {
        ((width / RATIO.0).round_ties_even(), width)
    } else if ratio > RATIO.1 {
        (height, (height * RATIO.1).round_ties_even())
    } else {
        (height, width)
    };
    [(h as usize, sides[0]), (w as usize, sides[1])].map(|(length, side)| {
        let length = length.clamp(1, side);
        Stretch {
            first: (side - length) / 2,
            length,
        }
    })
}

/// One side of an image resized, and what is taken of it.
struct Axis {
    matrix: Banded,
    /// The pixel of the image that column 0 stands for.
    column: usize,
    /// The row that is pixel 0 of the result.
    row: usize,
}

impl Axis {
    /// A stretch resized to n pixels.
    fn crop(from: Stretch, n: usize) -> Result<Self> {
        Ok(Axis {
            matrix: Banded::bilinear_resize(from.length, n)?,
            column: from.first,
            row: 0,
        })
    }

    /// Row o of the result as (pixel, weight).
    fn taps(&self, o: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let row = self.matrix.row(self.row + o);
        row.map(|(column, weight)| (self.column + column, weight))
    }
}

/// `Resize` to just cover `size`, then `CenterCrop`.
fn middle([height, width]: [usize; 2], [h, w]: [usize; 2]) -> [Result<Axis>; 2] {
    let covered = if h * width >= w * height {
        [h, h * width / height]
    } else {
        [w * height / width, w]
    };
    [(height, covered[0], h), (width, covered[1], w)].map(|(side, resized, taken)| {
        Ok(Axis {
            matrix: Banded::bilinear_resize(side, resized)?,
            column: 0,
            row: ((resized - taken) as f64 / 2.0).round_ties_even() as usize,
        })
    })
}

/// The image resized along its rows, then down its columns.
fn resample(image: &Image, down: &Axis, across: &Axis, [h, w]: [usize; 2]) -> Result<Image> {
    let rows = down.column..down.column + down.matrix.cols();
    let mut narrow = vec![0.0; rows.len() * w * 3];
    for (y, line) in rows.zip(narrow.chunks_exact_mut(w * 3)) {
        let from = &image.pixels[y * image.width * 3..][..image.width * 3];
        for (x, pixel) in line.chunks_exact_mut(3).enumerate() {
            for (at, weight) in across.taps(x) {
                for (v, from) in pixel.iter_mut().zip(&from[at * 3..]) {
                    *v += weight * f64::from(*from);
                }
            }
        }
    }
    let mut pixels = Vec::with_capacity(h * w * 3);
    let mut line = vec![0.0; w * 3];
    for y in 0..h {
        line.fill(0.0);
        for (at, weight) in down.taps(y) {
            let from = &narrow[(at - down.column) * w * 3..];
            for (v, from) in line.iter_mut().zip(from) {
                *v += weight * from;
            }
        }
        pixels.extend(line.iter().map(|v| *v as f32));
    }
    Image::new(w, h, pixels)
}

fn flip(image: &mut Image) {
    let (pixels, _) = image.pixels.as_chunks_mut::<3>();
    for row in pixels.chunks_exact_mut(image.width) {
        row.reverse();
    }
}

/// `ColorJitter` of this strength: four changes in an order of chance.
fn jitter(image: &mut Image, random: &mut Philox, strength: f64) {
    let mut change = || strength * (2.0 * random.uniform() - 1.0);
    let mut changes = [
        Change::Brightness(1.0 + change()),
        Change::Contrast(1.0 + change()),
        Change::Saturation(1.0 + change()),
        Change::Hue(change()),
    ];
    for last in (1..4).rev() {
        changes.swap(last as usize, random.below(last + 1) as usize);
    }
    let (values, _) = image.pixels.as_chunks_mut::<3>();
    let mut pixels: Vec<[f64; 3]> = values
        .iter()
        .map(|pixel| pixel.map(|v| (f64::from(v) + 1.0) / 2.0))
        .collect();
    for change in changes {
        change.apply(&mut pixels);
    }
    for (value, pixel) in values.iter_mut().zip(pixels) {
        *value = pixel.map(|v| (2.0 * v - 1.0) as f32);
    }
}
