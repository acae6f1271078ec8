//! Reading: decoded by content, turned upright by its EXIF orientation, converted to sRGB by its ICC profile.
//! What has no single right reading is refused by name: transparency, CMYK profiles, float pixels but those that say what
//! they are.
//! To add a format: its feature of the `image` crate in Cargo.toml, its extension in `list.rs`.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

use super::{Image, tiff};
use crate::error::{Error, Result};

/// The most memory one picture may take while decoding and as the `f32` it becomes: 89 million pixels.
pub(super) const MEMORY: u64 = 1 << 30;

/// Reads PNG, JPEG, WebP, TIFF, BMP or PNM. Of an animation or a multi-page file, the first picture.
///
/// # Errors
/// [`Error::File`] saying why it is no picture.
pub fn read(path: impl AsRef<Path>) -> Result<Image> {
    let path = path.as_ref();
    let image = read_values(path)?;
    let outside = image.pixels.iter().find(|v| !(-1.0..=1.0).contains(*v));
    match outside {
        None => Ok(image),
        Some(value) => {
            let why = format!(
                "is no picture: wanted values from -1 to 1, got {value:?}; it may be a measurement, which restore takes"
            );
            Err(Error::file(path, why))
        }
    }
}

/// The same, and any finite values of a float TIFF as [`super::Format::Tiff`] writes it.
///
/// # Errors
/// As [`read`].
pub fn read_values(path: impl AsRef<Path>) -> Result<Image> {
    let path = path.as_ref();
    let bytes = load(path)?;
    decode(&bytes).map_err(|why| Error::file(path, why))
}

/// The text a PNG carries, in the order of the file within each kind of chunk: keyword and text.
pub fn read_text(path: impl AsRef<Path>) -> Result<Vec<(String, String)>> {
    let path = path.as_ref();
    let bytes = load(path)?;
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err(Error::file(
            path,
            "is no PNG, and only those carry a record",
        ));
    }
    texts(&bytes).map_err(|e| Error::file(path, format!("its text cannot be read: {e}")))
}

pub(super) fn load(path: &Path) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::file(path, format!("cannot be read: {e}"));
    let meta = std::fs::metadata(path).map_err(failed)?;
    if !meta.is_file() {
        return Err(Error::file(path, "wanted an image file, this is none"));
    }
    if meta.len() > MEMORY {
        let why = format!("is {} bytes long, the most read is {MEMORY}", meta.len());
        return Err(Error::file(path, why));
    }
    std::fs::read(path).map_err(failed)
}

/// Bytes of one text of an image, at most: a few that are stored can claim to be gigabytes.
const MOST_TEXT: usize = 16 << 20;

fn texts(bytes: &[u8]) -> Result<Vec<(String, String)>, png::DecodingError> {
    let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info()?;
    // Text may stand after the pixels.
    reader.finish()?;
    let info = reader.info();
    let mut all = Vec::new();
    for chunk in &info.uncompressed_latin1_text {
        all.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    for mut chunk in info.compressed_latin1_text.iter().cloned() {
        chunk.decompress_text_with_limit(MOST_TEXT)?;
        all.push((chunk.keyword.clone(), chunk.get_text()?));
    }
    for mut chunk in info.utf8_text.iter().cloned() {
        chunk.decompress_text_with_limit(MOST_TEXT)?;
        all.push((chunk.keyword.clone(), chunk.get_text()?));
    }
    Ok(all)
}

/// Fails for a picture without pixels, and for one that takes too much memory, decoded or as numbers.
fn expect_fits([width, height]: [u32; 2], decoded: u64) -> Result<(), String> {
    let number = 3 * size_of::<f32>() as u64;
    let size = (u64::from(width) * u64::from(height)).saturating_mul(number);
    if size == 0 {
        return Err(format!("has no pixels: it is {width} x {height}"));
    }
    if size > MEMORY || decoded > MEMORY {
        return Err(format!(
            "is too large: {width} x {height} pixels take more than the {MEMORY} bytes allowed; cut or shrink it first"
        ));
    }
    Ok(())
}

/// Errors here are the reason alone; the caller adds the path.
pub(super) fn decode(bytes: &[u8]) -> Result<Image, String> {
    const KNOWN: &str = "wanted PNG, JPEG, WebP, TIFF, BMP or PNM";
    let broken = |e: image::ImageError| match e {
        image::ImageError::Limits(_) => format!(
            "is too large: to decode it takes more than the {MEMORY} bytes allowed; cut or shrink it first"
        ),
        e => format!("cannot be decoded: {e}"),
    };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| format!("cannot be read: {e}"))?;
    match reader.format() {
        None => return Err(format!("is no image of a known kind; {KNOWN}")),
        Some(format) if !format.reading_enabled() => {
            let name = format.extensions_str().first().unwrap_or(&"unknown");
            return Err(format!("is an image of the kind {name}; {KNOWN}"));
        }
        Some(ImageFormat::Jpeg) => jpeg_is_whole(bytes)?,
        // Its decoder would name no size.
        Some(ImageFormat::Png) => {
            let mut header = png::Decoder::new(Cursor::new(bytes));
            if let Ok(info) = header.read_header_info() {
                expect_fits([info.width, info.height], 0)?;
            }
        }
        Some(ImageFormat::Tiff) => {
            if let Some(values) = tiff::decode(bytes, MEMORY)? {
                return Ok(values);
            }
        }
        Some(_) => {}
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MEMORY);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    expect_fits([width, height], decoder.total_bytes())?;
    let orientation = decoder.orientation().map_err(broken)?;
    let profile = decoder.icc_profile().map_err(broken)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let pixels = match profile.filter(|p| !p.is_empty()) {
        None => {
            let (samples, channels) = samples(&picture, |v| 2.0 * v - 1.0)?;
            to_rgb(samples, channels)
        }
        Some(profile) => {
            let (samples, channels) = samples(&picture, |v| v)?;
            let rgb = to_srgb(&profile, samples, channels)?;
            rgb.into_iter().map(|v| 2.0 * v - 1.0).collect()
        }
    };
    Image::new(width, height, pixels).map_err(|e| e.to_string())
}

/// A JPEG that ends before its end-of-image marker. The decoder fills the missing part with grey
/// and reports success, which would then be restored as if it were the picture.
fn jpeg_is_whole(bytes: &[u8]) -> Result<(), String> {
    const CUT: &str = "is cut short: the JPEG has no end marker; copy or download it again";
    let mut at = 2;
    loop {
        // Between segments, and inside entropy-coded data: on to the next marker.
        while *bytes.get(at).ok_or(CUT)? != 0xff {
            at += 1;
        }
        at += 1;
        match *bytes.get(at).ok_or(CUT)? {
            // Another fill byte: this 0xff may begin the marker.
            0xff => {}
            // The end.
            0xd9 => return Ok(()),
            // A stuffed 0xff, or a marker without a length.
            0x00 | 0x01 | 0xd0..=0xd8 => at += 1,
            _ => {
                let length = bytes.get(at + 1..at + 3).ok_or(CUT)?;
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
        }
    }
}

/// The colour samples, [0, 1] passed through `scale` before they are rounded to `f32`, and how many a pixel has.
fn samples(picture: &DynamicImage, scale: fn(f64) -> f64) -> Result<(Vec<f32>, usize), String> {
    use DynamicImage as D;
    match picture {
        D::ImageLuma8(p) => colours(p, 1, false, 255.0, scale),
        D::ImageLumaA8(p) => colours(p, 1, true, 255.0, scale),
        D::ImageRgb8(p) => colours(p, 3, false, 255.0, scale),
        D::ImageRgba8(p) => colours(p, 3, true, 255.0, scale),
        D::ImageLuma16(p) => colours(p, 1, false, 65535.0, scale),
        D::ImageLumaA16(p) => colours(p, 1, true, 65535.0, scale),
        D::ImageRgb16(p) => colours(p, 3, false, 65535.0, scale),
        D::ImageRgba16(p) => colours(p, 3, true, 65535.0, scale),
        other => Err(format!(
            "has pixels of the kind {:?}; wanted 8 or 16 bits a channel: convert it first",
            other.color()
        )),
    }
}

fn colours<T: Copy + Into<f64>>(
    samples: &[T],
    channels: usize,
    alpha: bool,
    max: f64,
    scale: fn(f64) -> f64,
) -> Result<(Vec<f32>, usize), String> {
    let pixels = samples.chunks_exact(channels + usize::from(alpha));
    if alpha {
        let clear = pixels.clone().filter(|p| p[channels].into() != max).count();
        if clear > 0 {
            return Err(format!(
                "has an alpha channel with {clear} pixels that are not fully opaque; flatten it onto a background first"
            ));
        }
    }
    let colours = pixels
        .flat_map(|p| &p[..channels])
        .map(|&v| scale(v.into() / max) as f32)
        .collect();
    Ok((colours, channels))
}

fn to_rgb(samples: Vec<f32>, channels: usize) -> Vec<f32> {
    match channels {
        1 => samples.into_iter().flat_map(|v| [v; 3]).collect(),
        _ => samples,
    }
}

/// From the colours of an ICC profile to sRGB, both in [0, 1].
pub(super) fn to_srgb(
    profile: &[u8],
    samples: Vec<f32>,
    channels: usize,
) -> Result<Vec<f32>, String> {
    const DO: &str = "convert the image to sRGB, or strip the profile if it is wrong";
    let unusable = |e: moxcms::CmsError| format!("its colour profile cannot be used: {e}; {DO}");
    let from = ColorProfile::new_from_slice(profile).map_err(unusable)?;
    let (samples, layout) = match (from.color_space, channels) {
        (DataColorSpace::Gray, 1) => (samples, Layout::Gray),
        // A grey picture under an RGB profile is common; it means equal parts.
        (DataColorSpace::Rgb, _) => (to_rgb(samples, channels), Layout::Rgb),
        (space, _) => {
            let kind = if channels == 1 { "grey" } else { "RGB" };
            return Err(format!(
                "its colour profile is for {space:?} and its pixels are {kind}; {DO}"
            ));
        }
    };
    let to = ColorProfile::new_srgb();
    let transform = from
        .create_transform_f32(layout, &to, Layout::Rgb, TransformOptions::default())
        .map_err(unusable)?;
    let count = samples.len() / if layout == Layout::Gray { 1 } else { 3 };
    let mut rgb = vec![0.0; count * 3];
    transform.transform(&samples, &mut rgb).map_err(unusable)?;
    if rgb.iter().any(|v| !v.is_finite()) {
        return Err(format!(
            "its colour profile gives colours that are no numbers; {DO}"
        ));
    }
    for v in &mut rgb {
        *v = v.clamp(0.0, 1.0);
    }
    Ok(rgb)
}
