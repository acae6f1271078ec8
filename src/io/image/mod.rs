//! Pictures on disk and in memory. Inside there is one kind: RGB, sRGB, [-1, 1], height x width x 3.
//! [`read`] brings every file to it or refuses by name; [`save`] writes it whole or not at all.
//! A measurement need not be a picture: [`Format::Tiff`] and [`read_values`] keep any finite value.
//! x = 2 v / (2^bits - 1) - 1, and back with rounding half up.

use std::path::Path;

use crate::error::{Error, Result};

mod levels;
mod list;
mod read;
mod tiff;
mod write;

pub use levels::{Difference, Levels};
pub use list::{Listed, list, list_readable};
pub use read::{read, read_text, read_values};
pub use write::{Format, encode, save};

/// A picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Interleaved red, green, blue in sRGB, row by row: -1 is black, 1 is white. Of a measurement that is no picture,
    /// what was measured.
    pub pixels: Vec<f32>,
}

impl Image {
    /// An image from its pixels, of which there must be height x width x 3, more than none.
    pub fn new(width: usize, height: usize, pixels: Vec<f32>) -> Result<Self> {
        let image = Image {
            width,
            height,
            pixels,
        };
        image.check("image")?;
        Ok(image)
    }

    /// Whether the sizes agree; the fields are public, so users of an image ask.
    pub fn check(&self, what: &str) -> Result<()> {
        let Image { width, height, .. } = self;
        let want = width.checked_mul(*height).and_then(|n| n.checked_mul(3));
        if want != Some(self.pixels.len()) || self.pixels.is_empty() {
            let want = format!("({height}, {width}, 3), at least one pixel");
            let got = format!("{} values", self.pixels.len());
            return Err(Error::shape(what, want, got));
        }
        Ok(())
    }

    /// Writes the image in the format of the name's extension; see [`save`] for all choices.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let format = Format::of(path).ok_or_else(|| {
            Error::file(
                path,
                "the extension names no format that can be written; wanted .png, .jpg, .webp or .tiff",
            )
        })?;
        save(path, self, format, &[])
    }
}

#[cfg(test)]
mod tests;
