//! Tests of reading, writing and listing pictures.
//! The truths are the formats' own arithmetic (v / 255, v / 65535), EXIF's eight orientations and the
//! published Display P3 and sRGB definitions.

use super::*;
use moxcms::ColorProfile;
use std::path::PathBuf;

fn noise(width: usize, height: usize, max: u32) -> Vec<u32> {
    let mut state = 1u32;
    let mut next = move || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) % (max + 1)
    };
    (0..width * height * 3).map(|_| next()).collect()
}

fn image(width: usize, height: usize, levels: &[u32], max: f64) -> Image {
    let value = |&v: &u32| (2.0 * f64::from(v) / max - 1.0) as f32;
    Image::new(width, height, levels.iter().map(value).collect()).unwrap()
}

/// A PNG made by the png crate directly: colour type, depth, raw samples, and what `more` adds.
fn raw_png(
    (width, height): (u32, u32),
    colour: png::ColorType,
    depth: png::BitDepth,
    data: &[u8],
    more: impl FnOnce(&mut png::Info<'_>),
) -> Vec<u8> {
    let mut info = png::Info::with_size(width, height);
    info.color_type = colour;
    info.bit_depth = depth;
    more(&mut info);
    let mut file = Vec::new();
    let encoder = png::Encoder::with_info(&mut file, info).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    file
}

fn read_bytes(bytes: &[u8]) -> Result<Image> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.png");
    std::fs::write(&path, bytes).unwrap();
    read(&path)
}

fn why(bytes: &[u8]) -> String {
    let text = read_bytes(bytes).unwrap_err().to_string();
    assert!(text.contains("in.png: "), "{text}");
    text
}

use png::BitDepth::{Eight, One, Sixteen};
use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};

#[test]
fn lossless_formats_come_back_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    for (width, height) in [(1, 1), (31, 17), (256, 3)] {
        for (format, max) in [
            (Format::Png, 255),
            (Format::WebP, 255),
            (Format::Png16, 65535),
        ] {
            let before = image(width, height, &noise(width, height, max), f64::from(max));
            let path = dir.path().join("x");
            save(&path, &before, format, &[]).unwrap();
            assert_eq!(read(&path).unwrap(), before, "{format} {width} x {height}");
        }
    }
    // All levels, among them the ends.
    let every: Vec<u32> = (0..65536).chain([0, 65535]).collect();
    let before = image(21846, 1, &every, 65535.0);
    assert_eq!(
        read_bytes(&encode(&before, Format::Png16, &[]).unwrap()).unwrap(),
        before
    );
    // A JPEG at best quality of a flat picture is near.
    let flat = image(16, 16, &[200; 16 * 16 * 3], 255.0);
    let back = read_bytes(&encode(&flat, Format::Jpeg(100), &[]).unwrap()).unwrap();
    assert!(
        back.pixels
            .iter()
            .all(|v| (v - flat.pixels[0]).abs() < 3.0 / 255.0)
    );
}

#[test]
fn depths_grey_and_palette() {
    let words = [0u16, 1, 32767, 32768, 65534, 65535];
    let data: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
    let got = read_bytes(&raw_png((2, 1), Rgb, Sixteen, &data, |_| {})).unwrap();
    let want = words.map(|w| (f64::from(w) / 32767.5 - 1.0) as f32);
    assert_eq!((got.width, got.height), (2, 1));
    assert_eq!(got.pixels, want);
    let grey = read_bytes(&raw_png((6, 1), Grayscale, Sixteen, &data, |_| {})).unwrap();
    assert_eq!(grey.pixels, want.map(|v| [v; 3]).concat());
    let bits = read_bytes(&raw_png((3, 1), Grayscale, One, &[0b1010_0000], |_| {})).unwrap();
    assert_eq!(
        bits.pixels,
        [1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0]
    );
    let palette = read_bytes(&raw_png((2, 1), Indexed, Eight, &[1, 0], |info| {
        info.palette = Some(vec![255, 0, 0, 0, 255, 51].into());
    }));
    assert_eq!(palette.unwrap().pixels, [-1.0, 1.0, -0.6, 1.0, -1.0, -1.0]);
    let ppm = read_bytes(b"P6 2 1 255\n\x00\x33\xff\xff\x33\x00").unwrap();
    assert_eq!(ppm.pixels, [-1.0, -0.6, 1.0, 1.0, -0.6, -1.0]);
}

#[test]
fn alpha_is_dropped_when_opaque_and_refused_when_not() {
    let opaque = raw_png(
        (2, 1),
        Rgba,
        Eight,
        &[0, 51, 255, 255, 255, 255, 255, 255],
        |_| {},
    );
    assert_eq!(
        read_bytes(&opaque).unwrap().pixels,
        [-1.0, -0.6, 1.0, 1.0, 1.0, 1.0]
    );
    let half = raw_png(
        (2, 1),
        Rgba,
        Eight,
        &[0, 51, 255, 254, 255, 255, 255, 255],
        |_| {},
    );
    let text = why(&half);
    assert!(
        text.contains("1 pixels that are not fully opaque; flatten"),
        "{text}"
    );
    let grey = raw_png((1, 1), GrayscaleAlpha, Sixteen, &[1, 2, 255, 254], |_| {});
    assert!(why(&grey).contains("flatten"));
    let palette = raw_png((1, 1), Indexed, Eight, &[0], |info| {
        info.palette = Some(vec![255, 0, 0].into());
        info.trns = Some(vec![0].into());
    });
    assert!(why(&palette).contains("flatten"));
}

#[test]
fn all_eight_orientations() {
    // Stored as  0 1 2   What each tag makes of it is EXIF's definition: which corner of the
    //            3 4 5   scene the stored first row and column are.
    let upright: [(u16, usize, [u32; 6]); 8] = [
        (1, 3, [0, 1, 2, 3, 4, 5]),
        (2, 3, [2, 1, 0, 5, 4, 3]),
        (3, 3, [5, 4, 3, 2, 1, 0]),
        (4, 3, [3, 4, 5, 0, 1, 2]),
        (5, 2, [0, 3, 1, 4, 2, 5]),
        (6, 2, [3, 0, 4, 1, 5, 2]),
        (7, 2, [5, 2, 4, 1, 3, 0]),
        (8, 2, [2, 5, 1, 4, 0, 3]),
    ];
    for (tag, width, order) in upright {
        // A TIFF header, one entry: orientation (0x112), a short.
        let mut exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01".to_vec();
        exif.extend(tag.to_be_bytes());
        exif.extend([0; 6]);
        let grey: Vec<u8> = (0..6).map(|v| v * 51).collect();
        let file = raw_png((3, 2), Grayscale, Eight, &grey, |info| {
            info.exif_metadata = Some(exif.clone().into());
        });
        let got = read_bytes(&file).unwrap();
        let levels: Vec<u32> = order.iter().flat_map(|v| [v * 51; 3]).collect();
        assert_eq!(
            got,
            image(width, 6 / width, &levels, 255.0),
            "orientation {tag}"
        );
        // The same in a JPEG, where it is usually met. 8 x 8 blocks survive the compression.
        let pixels: Vec<u8> = (0..16 * 24)
            .flat_map(|i| [((i / 24 / 8 * 3 + i % 24 / 8) * 51) as u8; 3])
            .collect();
        let mut jpeg = Vec::new();
        let mut encoder = ::image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 100);
        ::image::ImageEncoder::set_exif_metadata(&mut encoder, exif).unwrap();
        encoder
            .encode(&pixels, 24, 16, ::image::ExtendedColorType::Rgb8)
            .unwrap();
        let got = read_bytes(&jpeg).unwrap();
        assert_eq!((got.width, got.height), (width * 8, 48 / width));
        for (i, v) in order.iter().enumerate() {
            let (x, y) = (i % width * 8 + 4, i / width * 8 + 4);
            let value = got.pixels[(y * got.width + x) * 3];
            assert!(
                (value - (*v as f32 * 0.4 - 1.0)).abs() < 0.03,
                "orientation {tag}"
            );
        }
    }
}

fn with_profile(colour: png::ColorType, data: &[u8], icc: &[u8]) -> Vec<u8> {
    let size = ((data.len() / colour.samples()) as u32, 1);
    raw_png(size, colour, Eight, data, |info| {
        info.icc_profile = Some(icc.to_vec().into());
    })
}

#[test]
fn colour_profiles_are_converted() {
    let srgb = ColorProfile::new_srgb().encode().unwrap();
    let levels: Vec<u8> = (0..=255).flat_map(|v| [v, 255 - v, v / 2]).collect();
    let got = read_bytes(&with_profile(Rgb, &levels, &srgb)).unwrap();
    let again = encode(&got, Format::Png, &[]).unwrap();
    let plain = raw_png((256, 1), Rgb, Eight, &levels, |_| {});
    assert_eq!(read_bytes(&again).unwrap(), read_bytes(&plain).unwrap());

    // Display P3 to sRGB: the same curve, linear values through the product of the published matrices.
    let p3 = ColorProfile::new_display_p3().encode().unwrap();
    let data = [200u8, 120, 60, 128, 128, 128, 30, 90, 160];
    let got = read_bytes(&with_profile(Rgb, &data, &p3)).unwrap();
    let matrix = [
        [1.2249401, -0.2249404, 0.0],
        [-0.0420569, 1.0420571, 0.0],
        [-0.0196376, -0.0786361, 1.0982735],
    ];
    let linear = |v: f64| match v {
        v if v <= 0.04045 => v / 12.92,
        v => ((v + 0.055) / 1.055).powf(2.4),
    };
    let curve = |v: f64| match v {
        v if v <= 0.0031308 => 12.92 * v,
        v => 1.055 * v.powf(1.0 / 2.4) - 0.055,
    };
    for (pixel, got) in data.chunks(3).zip(got.pixels.chunks(3)) {
        for (row, got) in matrix.iter().zip(got) {
            let sum: f64 = (0..3)
                .map(|i| row[i] * linear(f64::from(pixel[i]) / 255.0))
                .sum();
            let want = 2.0 * curve(sum.clamp(0.0, 1.0)) - 1.0;
            assert!(
                (f64::from(*got) - want).abs() < 2e-3,
                "{pixel:?}: {got} {want}"
            );
        }
    }
    assert!((got.pixels[0] - (2.0 * 200.0 / 255.0 - 1.0)).abs() > 0.02);

    // A grey profile with gamma 1: linear light.
    let grey = ColorProfile::new_gray_with_gamma(1.0).encode().unwrap();
    let got = read_bytes(&with_profile(Grayscale, &[0, 64, 255], &grey)).unwrap();
    for (v, got) in [0.0, 64.0 / 255.0, 1.0]
        .into_iter()
        .zip(got.pixels.chunks(3))
    {
        let want = 2.0 * curve(v) - 1.0;
        assert!(
            got.iter().all(|g| (f64::from(*g) - want).abs() < 2e-3),
            "{got:?} {want}"
        );
    }
    // Grey pixels under an RGB profile are equal parts of it.
    let got = read_bytes(&with_profile(Grayscale, &[0, 100, 255], &p3)).unwrap();
    let want = 2.0 * 100.0 / 255.0 - 1.0;
    assert!(
        got.pixels[3..6].iter().all(|g| (g - want).abs() < 2e-3),
        "{got:?}"
    );
}

#[test]
fn an_unusable_profile_is_refused_and_never_panics() {
    let p3 = ColorProfile::new_display_p3().encode().unwrap();
    assert!(why(&with_profile(Rgb, &[1, 2, 3], b"no profile")).contains("colour profile"));
    let grey = ColorProfile::new_gray_with_gamma(2.2).encode().unwrap();
    let text = why(&with_profile(Rgb, &[1, 2, 3], &grey));
    assert!(
        text.contains("is for Gray and its pixels are RGB"),
        "{text}"
    );
    for at in 0..p3.len() {
        let mut bad = p3.clone();
        bad[at] ^= [0xff, 0x01, 0x80][at % 3];
        drop(super::read::to_srgb(&bad, vec![0.5; 3], 3));
        drop(super::read::to_srgb(&p3[..at], vec![0.5; 3], 3));
    }
}

#[test]
fn what_is_no_whole_image_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let none = read(dir.path().join("none.png")).unwrap_err().to_string();
    assert!(none.contains("none.png: cannot be read"), "{none}");
    assert!(
        read(dir.path())
            .unwrap_err()
            .to_string()
            .contains("this is none")
    );
    assert!(why(b"").contains("no image of a known kind; wanted PNG"));
    assert!(why(b"hello, I am a text file").contains("no image of a known kind"));
    assert!(why(b"GIF89a\x01\0\x01\0\0\0\0").contains("kind gif; wanted PNG"));
    assert!(why(b"P6 0 0 255\n").starts_with('/'));
    let huge = why(b"P6 60000 60000 255\n");
    assert!(
        huge.contains("too large") && huge.contains("shrink"),
        "{huge}"
    );
    let mut png = raw_png((1, 1), Rgb, Eight, &[1, 2, 3], |_| {});
    png[16..20].copy_from_slice(&[0; 4]);
    assert!(why(&png).contains("cannot be decoded"));
}

#[test]
fn a_cut_or_damaged_file_is_an_error_and_never_a_panic() {
    let (width, height) = (40, 30);
    let picture = image(width, height, &noise(width, height, 255), 255.0);
    let rgb: Vec<u8> = noise(width, height, 255).iter().map(|&v| v as u8).collect();
    let buffer = ::image::RgbImage::from_raw(40, 30, rgb).unwrap();
    let mut files = Vec::new();
    for format in [Format::Png, Format::Jpeg(90), Format::WebP, Format::Tiff] {
        files.push((format.to_string(), encode(&picture, format, &[]).unwrap()));
    }
    for format in [
        ::image::ImageFormat::Tiff,
        ::image::ImageFormat::Bmp,
        ::image::ImageFormat::Pnm,
    ] {
        let mut file = std::io::Cursor::new(Vec::new());
        buffer.write_to(&mut file, format).unwrap();
        files.push((format!("{format:?}"), file.into_inner()));
    }
    for (name, file) in files {
        let whole = super::read::decode(&file).unwrap();
        assert_eq!((whole.width, whole.height), (40, 30), "{name}");
        for part in 0..20 {
            let cut = file.len() * part / 20;
            assert!(
                super::read::decode(&file[..cut]).is_err(),
                "{name} cut at {cut}"
            );
        }
        let mut state = 3u64;
        for _ in 0..150 {
            let mut bad = file.clone();
            for _ in 0..3 {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                // Mostly the headers, which lie in front.
                let reach = if state >> 62 == 0 { bad.len() } else { 120 };
                bad[(state >> 20) as usize % reach] = (state >> 50) as u8;
            }
            drop(super::read::decode(&bad));
        }
    }
}

#[test]
fn values_are_clamped_and_rounded_and_never_silently_black() {
    // 0 is level 127.5, a half, and goes up; around level 0.5 each side goes its way.
    let half = -1.0 + 1.0 / 255.0;
    let before = Image::new(2, 1, vec![-7.0, 7.0, half + 1e-6, half - 1e-6, 0.0, 1.0]).unwrap();
    let got = read_bytes(&encode(&before, Format::Png, &[]).unwrap()).unwrap();
    let levels: Vec<f32> = got.pixels.iter().map(|v| (v + 1.0) * 127.5).collect();
    let want = [0.0, 255.0, 1.0, 0.0, 128.0, 255.0];
    assert!(
        levels.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-3),
        "{levels:?}"
    );
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let image = Image::new(2, 1, vec![0.0, 0.0, 0.0, 0.0, bad, 0.0]).unwrap();
        for format in [
            Format::Png,
            Format::Png16,
            Format::Jpeg(90),
            Format::WebP,
            Format::Tiff,
        ] {
            let text = encode(&image, format, &[]).unwrap_err().to_string();
            assert!(text.contains("pixel x = 1, y = 0 is"), "{text}");
        }
    }
    assert!(Image::new(2, 2, vec![0.0; 11]).is_err());
    assert!(Image::new(0, 0, vec![]).is_err());
    assert!(Image::new(usize::MAX, 2, vec![0.0; 3]).is_err());
    let wide = Image::new(70_000, 1, vec![0.0; 210_000]).unwrap();
    for format in [Format::Jpeg(90), Format::WebP] {
        let text = encode(&wide, format, &[]).unwrap_err().to_string();
        assert!(text.contains("70000 x 1 as"), "{text}");
    }
    assert!(encode(&before, Format::Jpeg(0), &[]).is_err());
}

/// A TIFF made by the tiff crate directly: its pixels, and what `more` adds.
fn raw_tiff<C: ::tiff::encoder::colortype::ColorType>(
    (width, height): (u32, u32),
    pixels: &[C::Inner],
    more: &[(::tiff::tags::Tag, &str)],
) -> Vec<u8>
where
    [C::Inner]: ::tiff::encoder::TiffValue,
{
    let mut file = std::io::Cursor::new(Vec::new());
    let mut encoder = ::tiff::encoder::TiffEncoder::new(&mut file).unwrap();
    let mut writer = encoder.new_image::<C>(width, height).unwrap();
    for (tag, text) in more {
        writer.encoder().write_tag(*tag, *text).unwrap();
    }
    writer.write_data(pixels).unwrap();
    file.into_inner()
}

#[test]
fn float_tiff_keeps_every_value() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("y.TIF");
    let values = [170.25, -0.0, 1e-42, -3e38, f32::MIN_POSITIVE, 0.1];
    let image = Image::new(2, 1, values.to_vec()).unwrap();
    image.save(&path).unwrap();
    let back = read_values(&path).unwrap();
    assert_eq!([back.height, back.width], [1, 2]);
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&back.pixels), bits(&values));
    let text = read(&path).unwrap_err().to_string();
    assert!(
        text.contains("y.TIF") && text.contains("got 170.25") && text.contains("measurement"),
        "{text}"
    );
    // As a picture, where it is one; large enough for several strips.
    let picture = self::image(300, 201, &noise(300, 201, 65535), 65535.0);
    save(&path, &picture, Format::Tiff, &[]).unwrap();
    assert_eq!(read(&path).unwrap(), picture);
    assert_eq!(read_values(&path).unwrap(), picture);
}

#[test]
fn float_tiff_that_does_not_say_what_it_means_is_refused() {
    use ::tiff::encoder::colortype::{Gray32Float, RGB32Float, RGB64Float, RGBA32Float};
    use ::tiff::tags::Tag;
    let decode = |file: &[u8]| super::read::decode(file);
    let refused = |file: &[u8], words: &[&str]| {
        let text = decode(file).unwrap_err();
        for word in words {
            assert!(text.contains(word), "{text} lacks {word}");
        }
    };
    let mark = (
        Tag::ImageDescription,
        "posteriori values of another program",
    );
    let six = [0.5f32, 2.0, -7.0, 0.0, 1.0, 0.25];
    let file = raw_tiff::<RGB32Float>((2, 1), &six, &[mark]);
    assert_eq!(decode(&file).unwrap().pixels, six);
    let advice = [
        "does not say what they mean",
        "ImageDescription",
        "`posteriori values`",
    ];
    refused(&raw_tiff::<RGB32Float>((2, 1), &six, &[]), &advice);
    let other = (Tag::ImageDescription, "linear light");
    refused(&raw_tiff::<RGB32Float>((2, 1), &six, &[other]), &advice);
    refused(&raw_tiff::<Gray32Float>((3, 2), &six, &[]), &advice);
    let mut file = std::io::Cursor::new(Vec::new());
    let floats = ::image::Rgb32FImage::from_raw(2, 1, six.to_vec()).unwrap();
    floats
        .write_to(&mut file, ::image::ImageFormat::Tiff)
        .unwrap();
    refused(&file.into_inner(), &advice);

    let three = ["three channels of 32 bits"];
    refused(&raw_tiff::<Gray32Float>((3, 2), &six, &[mark]), &three);
    let eight = [&six[..], &six[..2]].concat();
    refused(&raw_tiff::<RGBA32Float>((2, 1), &eight, &[mark]), &three);
    let doubles = six.map(f64::from);
    refused(&raw_tiff::<RGB64Float>((2, 1), &doubles, &[mark]), &three);
    for bad in [f32::NAN, f32::INFINITY] {
        let pixels = [0.0, 0.0, 0.0, 0.0, bad, 0.0];
        let file = raw_tiff::<RGB32Float>((2, 1), &pixels, &[mark]);
        refused(&file, &["pixel x = 1, y = 0", "finite"]);
    }
    let profile = (Tag::IccProfile, "any");
    let file = raw_tiff::<RGB32Float>((2, 1), &six, &[mark, profile]);
    refused(&file, &["colour profile", "strip"]);
}

#[test]
fn text_comes_back_and_nothing_half_written_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.png");
    let picture = image(3, 2, &noise(3, 2, 255), 255.0);
    let text = [
        (
            "posteriori".to_owned(),
            "{\"seed\": 7, \"π\": \"é 日本 😀\"}\n".to_owned(),
        ),
        ("Größe".to_owned(), String::new()),
        ("long".to_owned(), "x".repeat(300_000)),
    ];
    for format in [Format::Png, Format::Png16] {
        save(&path, &picture, format, &text).unwrap();
        assert_eq!(read_text(&path).unwrap(), text);
        assert_eq!(read(&path).unwrap().pixels.len(), 18);
    }
    picture.save(&path).unwrap();
    assert!(read_text(&path).unwrap().is_empty());
    assert_eq!(read(&path).unwrap(), picture);
    for keyword in ["", " x", &"k".repeat(80), "日本", "a\0b"] {
        let text = [(keyword.to_owned(), String::new())];
        let got = save(&path, &picture, Format::Png, &text)
            .unwrap_err()
            .to_string();
        assert!(got.starts_with("text: wanted a keyword"), "{got}");
    }
    let nul = [("k".to_owned(), "a\0".to_owned())];
    assert!(save(&path, &picture, Format::Png, &nul).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let jpeg = dir.path().join("x.JPG");
    picture.save(&jpeg).unwrap();
    assert!(
        read_text(&jpeg)
            .unwrap_err()
            .to_string()
            .contains("is no PNG")
    );
    let text = picture
        .save(dir.path().join("x.gif"))
        .unwrap_err()
        .to_string();
    assert!(text.contains("x.gif: the extension"), "{text}");
    std::fs::write(&path, b"\x89PNG\r\n\x1a\n").unwrap();
    assert!(
        read_text(&path)
            .unwrap_err()
            .to_string()
            .contains("its text cannot")
    );
}

#[test]
fn formats_by_name() {
    for (text, format) in [
        ("png", Format::Png),
        ("png16", Format::Png16),
        ("webp", Format::WebP),
        ("tiff", Format::Tiff),
        ("jpg:80", Format::Jpeg(80)),
    ] {
        assert_eq!(Format::parse(text).unwrap(), format);
        assert_eq!(format.to_string(), text);
    }
    assert_eq!(Format::parse("jpg").unwrap(), Format::Jpeg(95));
    for bad in [
        "", "gif", "png:3", "jpg:", "jpg:0", "jpg:101", "jpg:x", "jpg:95:1",
    ] {
        let text = Format::parse(bad).unwrap_err().to_string();
        assert!(text.starts_with("format: wanted"), "{text}");
    }
}

#[test]
fn lists_images_and_is_not_trapped_by_links() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir_all(at("b/deep")).unwrap();
    std::fs::create_dir(at("dir.png")).unwrap();
    for name in [
        "c.PNG",
        "a.jpg",
        "note.txt",
        ".hidden.png",
        "b/x.tiff",
        "b/deep/y.webp",
        "png",
    ] {
        std::fs::write(at(name), b"").unwrap();
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(dir.path(), at("b/loop")).unwrap();
        std::os::unix::fs::symlink(dir.path(), at("b/loop.png")).unwrap();
    }
    let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(list(dir.path(), false).unwrap(), paths(&["a.jpg", "c.PNG"]));
    let all = paths(&["a.jpg", "b/deep/y.webp", "b/x.tiff", "c.PNG"]);
    assert_eq!(list(dir.path(), true).unwrap(), all);
    let none = list(at("none"), true).unwrap_err().to_string();
    assert!(none.contains("none: wanted a folder"), "{none}");
}
