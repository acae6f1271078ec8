//! [`Levels`]: the whole numbers that a picture is stored as, to compare pictures without a tolerance.

use std::io::Cursor;
use std::path::Path;

use super::read::{MEMORY, load};
use super::write::level;
use super::{Format, Image};
use crate::error::{Error, Result};

/// Red, green and blue of every pixel as a file stores them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bits of a channel, 8 or 16: levels go from 0 to 2^bits - 1.
    pub bits: u8,
    /// Interleaved, row by row.
    pub values: Vec<u16>,
}

/// How two pictures of one size and depth differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Pixels of which any channel differs.
    pub pixels: usize,
    /// The largest difference of a channel, in levels.
    pub largest: u16,
}

impl Levels {
    /// Those of a PNG file of red, green and blue: neither orientation nor colour profile is looked at.
    ///
    /// # Errors
    /// [`Error::File`] when it is no such file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        decode(&load(path)?).map_err(|why| Error::file(path, why))
    }

    /// Those that [`save`](super::save) stores of an image.
    ///
    /// # Errors
    /// [`Error::Argument`] when the format is not PNG.
    pub fn of(image: &Image, format: Format) -> Result<Self> {
        let bits = match format {
            Format::Png => 8,
            Format::Png16 => 16,
            other => {
                let why = format!("wanted png or png16, whose levels are compared, got {other}");
                return Err(Error::argument("format", why));
            }
        };
        let most = f64::from((1_u32 << bits) - 1);
        let values = image.pixels.iter().map(|v| level(*v, most) as u16);
        Ok(Levels {
            width: image.width,
            height: image.height,
            bits,
            values: values.collect(),
        })
    }

    /// The format of a file that stores these.
    pub fn format(&self) -> Format {
        match self.bits {
            16 => Format::Png16,
            _ => Format::Png,
        }
    }

    /// How `other` differs from this.
    ///
    /// # Errors
    /// [`Error::Shape`] when it is of another size or depth.
    pub fn compare(&self, other: &Levels) -> Result<Difference> {
        let kind = |l: &Levels| format!("{} x {} of {} bits", l.height, l.width, l.bits);
        let (want, got) = (kind(self), kind(other));
        if want != got || self.values.len() != other.values.len() {
            return Err(Error::shape("picture", want, got));
        }
        let mut difference = Difference::default();
        let pixels = self.values.chunks(3).zip(other.values.chunks(3));
        for (a, b) in pixels.filter(|(a, b)| a != b) {
            difference.pixels += 1;
            let largest = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max();
            difference.largest = difference.largest.max(largest.unwrap_or(0));
        }
        Ok(difference)
    }
}

/// Errors are the reason alone.
fn decode(bytes: &[u8]) -> Result<Levels, String> {
    let broken = |e: png::DecodingError| format!("cannot be decoded as PNG: {e}");
    let mut reader = png::Decoder::new(Cursor::new(bytes))
        .read_info()
        .map_err(broken)?;
    let size = reader.output_buffer_size();
    let Some(size) = size.filter(|size| *size as u64 <= MEMORY) else {
        return Err(format!(
            "is too large: its pixels take more than the {MEMORY} bytes allowed"
        ));
    };
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).map_err(broken)?;
    pixels.truncate(frame.buffer_size());
    let (bits, values) = match (frame.color_type, frame.bit_depth) {
        (png::ColorType::Rgb, png::BitDepth::Eight) => {
            (8, pixels.into_iter().map(u16::from).collect())
        }
        (png::ColorType::Rgb, png::BitDepth::Sixteen) => {
            let words = pixels.as_chunks::<2>().0.iter();
            (16, words.map(|word| u16::from_be_bytes(*word)).collect())
        }
        (colour, depth) => {
            return Err(format!(
                "wanted red, green and blue of 8 or 16 bits, as posteriori writes them, got {colour:?} of {depth:?} bits; \
                 another program has changed the file"
            ));
        }
    };
    Ok(Levels {
        width: frame.width as usize,
        height: frame.height as usize,
        bits,
        values,
    })
}
