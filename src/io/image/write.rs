//! Writing: PNG with 8 or 16 bits, JPEG, lossless WebP, float TIFF, always through [`write_atomic`].
//! A NaN or infinity is an error, never a black pixel; the rest is clamped to [-1, 1] and rounded, but for float TIFF.
//! To add a format: a variant of [`Format`] and the arms the compiler asks for.

use std::fmt;
use std::path::Path;

use image::codecs::{jpeg::JpegEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::{Image, tiff};
use crate::error::{Error, Result};
use crate::io::atomic::{failed, write_atomic};

/// The quality of a JPEG when none is given.
const QUALITY: u8 = 95;

/// A format to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 8 bits a channel.
    Png,
    /// 16 bits a channel.
    Png16,
    /// Quality 1 to 100.
    Jpeg(u8),
    /// Lossless, 8 bits a channel.
    WebP,
    /// 32-bit floats: every value as it is. For measurements; few programs show it as a picture.
    Tiff,
}

impl Format {
    /// Reads the name the command line uses: `png`, `png16`, `jpg`, `jpg:95`, `webp`, `tiff`.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, quality) = match text.split_once(':') {
            Some((name, quality)) => (name, Some(quality)),
            None => (text, None),
        };
        match (name, quality) {
            ("png", None) => Ok(Format::Png),
            ("png16", None) => Ok(Format::Png16),
            ("webp", None) => Ok(Format::WebP),
            ("tiff", None) => Ok(Format::Tiff),
            ("jpg" | "jpeg", None) => Ok(Format::Jpeg(QUALITY)),
            ("jpg" | "jpeg", Some(quality)) => match quality.parse() {
                Ok(quality @ 1..=100) => Ok(Format::Jpeg(quality)),
                _ => Err(Error::argument(
                    "format",
                    format!("wanted a JPEG quality from 1 to 100, as in jpg:95, got `{quality}`"),
                )),
            },
            _ => Err(Error::argument(
                "format",
                format!("wanted png, png16, jpg, jpg:QUALITY, webp or tiff, got `{text}`"),
            )),
        }
    }

    /// The format a file name asks for, none if its extension is not one that is written.
    pub fn of(path: impl AsRef<Path>) -> Option<Self> {
        let extension = path.as_ref().extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "png" => Some(Format::Png),
            "jpg" | "jpeg" => Some(Format::Jpeg(QUALITY)),
            "webp" => Some(Format::WebP),
            "tif" | "tiff" => Some(Format::Tiff),
            _ => None,
        }
    }

    /// The extension of its files.
    pub const fn extension(self) -> &'static str {
        match self {
            Format::Png | Format::Png16 => "png",
            Format::Jpeg(_) => "jpg",
            Format::WebP => "webp",
            Format::Tiff => "tiff",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Png16 => f.write_str("png16"),
            Format::Jpeg(quality) => write!(f, "jpg:{quality}"),
            Format::Png | Format::WebP | Format::Tiff => f.write_str(self.extension()),
        }
    }
}

/// Writes the image, replacing the file once it is whole. `text` (keyword, text) goes into a PNG, where
/// [`super::read_text`] finds it; the other formats have no place for it and leave it out.
pub fn save(
    path: impl AsRef<Path>,
    image: &Image,
    format: Format,
    text: &[(String, String)],
) -> Result<()> {
    let path = path.as_ref();
    let bytes = encode(image, format, text)?;
    write_atomic(path, |w| w.write_all(&bytes).map_err(failed(path)))
}

/// The bytes of the file that [`save`] writes.
pub fn encode(image: &Image, format: Format, text: &[(String, String)]) -> Result<Vec<u8>> {
    image.check("image to write")?;
    if let Some(at) = image.pixels.iter().position(|v| !v.is_finite()) {
        let (y, x) = (at / 3 / image.width, at / 3 % image.width);
        let why = format!("pixel x = {x}, y = {y} is {}", image.pixels[at]);
        return Err(Error::argument(
            "image to write",
            format!("{why}; wanted finite values"),
        ));
    }
    let unfit = |why: String| {
        let size = format!("{} x {} as {format}", image.width, image.height);
        Error::argument("image to write", format!("{size}: {why}"))
    };
    let side = |n: usize| u32::try_from(n).map_err(|_| unfit("the format has no such size".into()));
    let (width, height) = (side(image.width)?, side(image.height)?);
    let failed = |e: image::ImageError| unfit(e.to_string());
    let rgb = ExtendedColorType::Rgb8;
    let mut file = Vec::new();
    match format {
        Format::Png | Format::Png16 => {
            check_text(text)?;
            png(&mut file, image, (width, height), format, text)
                .map_err(|e| unfit(e.to_string()))?;
        }
        Format::Jpeg(quality) => {
            if !(1..=100).contains(&quality) {
                let why = format!("wanted a JPEG quality from 1 to 100, got {quality}");
                return Err(Error::argument("format", why));
            }
            JpegEncoder::new_with_quality(&mut file, quality)
                .write_image(&bytes(image), width, height, rgb)
                .map_err(failed)?;
        }
        Format::WebP => WebPEncoder::new_lossless(&mut file)
            .write_image(&bytes(image), width, height, rgb)
            .map_err(failed)?,
        Format::Tiff => {
            file = tiff::encode(image, (width, height)).map_err(|e| unfit(e.to_string()))?;
        }
    }
    Ok(file)
}

fn png(
    file: &mut Vec<u8>,
    image: &Image,
    (width, height): (u32, u32),
    format: Format,
    text: &[(String, String)],
) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
    for (keyword, text) in text {
        encoder.add_itxt_chunk(keyword.clone(), text.clone())?;
    }
    let data = if format == Format::Png16 {
        encoder.set_depth(png::BitDepth::Sixteen);
        let words = image.pixels.iter().map(|&v| level(v, 65535.0) as u16);
        words.flat_map(u16::to_be_bytes).collect()
    } else {
        encoder.set_depth(png::BitDepth::Eight);
        bytes(image)
    };
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&data)?;
    writer.finish()
}

fn bytes(image: &Image) -> Vec<u8> {
    let levels = image.pixels.iter().map(|&v| level(v, 255.0) as u8);
    levels.collect()
}

/// The whole number from 0 to `max` nearest to a value in [-1, 1], halves away from 0.
pub(super) fn level(v: f32, max: f64) -> f64 {
    ((f64::from(v).clamp(-1.0, 1.0) + 1.0) / 2.0 * max).round()
}

/// What the PNG format asks of a keyword: 1 to 79 printable Latin-1 characters, no space at either end.
fn check_text(text: &[(String, String)]) -> Result<()> {
    for (keyword, text) in text {
        let printable = |c: char| matches!(c, ' '..='~' | '\u{a1}'..='\u{ff}');
        let fits = (1..=79).contains(&keyword.chars().count())
            && keyword.chars().all(printable)
            && keyword.trim() == keyword;
        if !fits {
            return Err(Error::argument(
                "text",
                format!("wanted a keyword of 1 to 79 Latin-1 characters, got `{keyword}`"),
            ));
        }
        if text.contains('\0') {
            let why = format!("the text of `{keyword}` holds a NUL, which PNG does not allow");
            return Err(Error::argument("text", why));
        }
    }
    Ok(())
}
