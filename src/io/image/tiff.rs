//! Float TIFF: red, green and blue as 32-bit floats, exactly the values of an [`Image`], neither clipped nor scaled. What
//! does not fit into a picture's range is kept this way.
//!
//! A float TIFF says nowhere what its values mean, so only one that says so itself is read: its ImageDescription begins
//! with `posteriori values`. By that -1 is black and 1 is white where the values are a picture's.

use std::io::Cursor;

use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::encoder::{TiffEncoder, colortype::RGB32Float};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

use super::Image;

/// What the ImageDescription begins with.
const MARK: &str = "posteriori values";
/// The whole of it, as it is written.
const DESCRIPTION: &str = "posteriori values: as they are, neither clipped nor scaled; of a picture, -1 is black and 1 is white";
/// The sample format of floats.
const FLOAT: u16 = 3;

/// The bytes of a file; the sides are those of the image.
pub(super) fn encode(image: &Image, (width, height): (u32, u32)) -> Result<Vec<u8>, TiffError> {
    let mut file = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut file)?;
    let mut writer = encoder.new_image::<RGB32Float>(width, height)?;
    writer
        .encoder()
        .write_tag(Tag::ImageDescription, DESCRIPTION)?;
    writer.write_data(&image.pixels)?;
    Ok(file.into_inner())
}

/// The image of a TIFF of floats; none when its pixels are no floats, or its header cannot be read. Takes at most `memory`
/// bytes for them.
///
/// Errors are the reason alone.
pub(super) fn decode(bytes: &[u8], memory: u64) -> Result<Option<Image>, String> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = memory as usize;
    limits.intermediate_buffer_size = memory as usize;
    let decoder = Decoder::new(Cursor::new(bytes));
    let Ok(mut decoder) = decoder.map(|decoder| decoder.with_limits(limits)) else {
        return Ok(None);
    };
    let formats = decoder.find_tag_unsigned_vec::<u16>(Tag::SampleFormat);
    if !formats.is_ok_and(|all| all.is_some_and(|all| all.contains(&FLOAT))) {
        return Ok(None);
    }
    let description = decoder.get_tag_ascii_string(Tag::ImageDescription);
    if !description.is_ok_and(|text| text.starts_with(MARK)) {
        return Err(format!(
            "has float pixels and does not say what they mean; wanted 8 or 16 bits a channel, or an ImageDescription that \
             begins with `{MARK}`, as degrade writes it, by which -1 is black and 1 is white: convert it first"
        ));
    }
    let broken = |e: TiffError| format!("cannot be decoded: {e}");
    let kind = decoder.colortype().map_err(broken)?;
    let size @ (width, height) = decoder.dimensions().map_err(broken)?;
    if kind != ColorType::RGB(32) {
        return Err(format!(
            "has float pixels of the kind {kind:?}; wanted three channels of 32 bits"
        ));
    }
    for (tag, what) in [
        (Tag::Orientation, "an orientation"),
        (Tag::IccProfile, "a colour profile"),
    ] {
        let found = decoder.find_tag(tag).map_err(broken)?;
        // An orientation of 1 is upright.
        if !matches!(found.map(|value| value.into_u16()), None | Some(Ok(1))) {
            return Err(format!(
                "has {what}, and values are read as they lie; strip it"
            ));
        }
    }
    let DecodingResult::F32(pixels) = decoder.read_image().map_err(broken)? else {
        return Err("has float pixels of another kind; wanted 32 bits a channel".into());
    };
    let image = Image {
        width: width as usize,
        height: height as usize,
        pixels,
    };
    if image.check("values").is_err() {
        let got = image.pixels.len();
        return Err(format!(
            "has {got} float values for {size:?} pixels of three channels side by side; convert it first"
        ));
    }
    if let Some(at) = image.pixels.iter().position(|v| !v.is_finite()) {
        let (y, x) = (at / 3 / image.width, at / 3 % image.width);
        return Err(format!(
            "pixel x = {x}, y = {y} is {}; wanted finite values",
            image.pixels[at]
        ));
    }
    Ok(Some(image))
}
