//! Images of every kind: those that can be read are, the others are named and leave nothing behind.

use std::fs;
use std::path::Path;

use posteriori::io::image::{Format, encode, read, save};

use super::{folder, picture, run, tree};

fn restore(dir: &Path, model: &str) -> super::Ran {
    let line = format!("restore -i y -o x --model {model} --task sr8 --method dps --steps 1");
    run(dir, &line)
}

fn png(path: &Path, color: png::ColorType, depth: png::BitDepth, data: &[u8]) {
    let file = fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, 4, 4);
    encoder.set_color(color);
    encoder.set_depth(depth);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
}

#[test]
fn what_is_no_usable_image() {
    let dir = folder(&["good.png"]);
    let y = dir.path().join("y");
    fs::write(y.join("text.jpg"), "not a picture").unwrap();
    let whole = fs::read(y.join("good.png")).unwrap();
    fs::write(y.join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    let clear: Vec<u8> = (0..16).flat_map(|i| [9, 9, 9, 250 - i]).collect();
    png(
        &y.join("alpha.png"),
        png::ColorType::Rgba,
        png::BitDepth::Eight,
        &clear,
    );
    let ran = restore(dir.path(), "PIXEL")
        .expect(3, &["text.jpg", "cut.png", "alpha.png", "alpha channel"]);
    assert_eq!(tree(&dir.path().join("x")), ["good.png"]);
    assert_eq!(ran.stdout.lines().count(), 1);
    assert!(ran.stderr.contains("1 done, 0 skipped, 3 failed"));
    // none of it with --on-error stop, after the first
    let line = "restore -i y -o z --model PIXEL --task sr8 --method dps --steps 1 --on-error stop";
    run(dir.path(), line).expect(3, &["alpha.png"]);
    assert_eq!(tree(&dir.path().join("z")), [""; 0]);
}

#[test]
fn sizes_that_the_operator_does_not_take_and_the_model_does_not_make() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("clean")).unwrap();
    for (name, h, w) in [("one.png", 1, 1), ("odd.png", 9, 16), ("good.png", 32, 32)] {
        save(
            dir.path().join("clean").join(name),
            &picture(h, w, 1),
            Format::Png,
            &[],
        )
        .unwrap();
    }
    // no multiple of 8
    let line = "degrade -i clean -o y --task sr8";
    run(dir.path(), line).expect(3, &["one.png", "odd.png", "multiples of 8"]);
    assert_eq!(
        tree(&dir.path().join("y")),
        ["good.png", "good.png.measurement.json"]
    );
    // Sizes that the operator takes and the model does not are made on a canvas.
    let line = "restore -i clean -o x --model SD2 --task denoise --method dps --steps 1";
    run(dir.path(), line).expect(0, &[]);
    assert_eq!(
        tree(&dir.path().join("x")),
        ["good.png", "odd.png", "one.png"]
    );
    let odd = read(dir.path().join("x/odd.png")).unwrap();
    assert_eq!([odd.height, odd.width], [9, 16]);
    run(dir.path(), &format!("{line} --tile 5")).expect(2, &["--tile", "multiple of", "got 5"]);
    run(dir.path(), &format!("{line} --tile some")).expect(2, &["--tile", "`some`"]);
}

#[test]
fn sixteen_bits_opaque_alpha_and_grey() {
    let dir = folder(&[]);
    let y = dir.path().join("y");
    let deep: Vec<u8> = (0..48u16).flat_map(|i| (i * 1300).to_be_bytes()).collect();
    png(
        &y.join("deep.png"),
        png::ColorType::Rgb,
        png::BitDepth::Sixteen,
        &deep,
    );
    let opaque: Vec<u8> = (0..16).flat_map(|i| [i * 9, 40, 200, 255]).collect();
    png(
        &y.join("opaque.png"),
        png::ColorType::Rgba,
        png::BitDepth::Eight,
        &opaque,
    );
    let grey: Vec<u8> = (0..16).map(|i| i * 16).collect();
    png(
        &y.join("grey.png"),
        png::ColorType::Grayscale,
        png::BitDepth::Eight,
        &grey,
    );
    restore(dir.path(), "PIXEL").expect(0, &[]);
    assert_eq!(
        tree(&dir.path().join("x")),
        ["deep.png", "grey.png", "opaque.png"]
    );
}

#[test]
fn a_turned_photograph_is_turned_upright() {
    let dir = folder(&[]);
    let jpeg = encode(&picture(8, 4, 1), Format::Jpeg(95), &[]).unwrap();
    // APP1 with one TIFF entry: Orientation (0x0112), short, 6 (a quarter turn clockwise)
    let mut turned = jpeg[..2].to_vec();
    turned.extend(
        b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
    );
    turned.extend(&jpeg[2..]);
    fs::write(dir.path().join("y/turned.jpg"), turned).unwrap();
    restore(dir.path(), "PIXEL").expect(0, &[]);
    let image = read(dir.path().join("x/turned.jpg")).unwrap();
    assert_eq!((image.height, image.width), (32, 64));
}
