//! Operators that are not linear, photons, and kernels and masks from files.

use std::path::Path;

use posteriori::io::image::{Format, Image, read, save};
use posteriori::operators::{Measurement, Task};
use posteriori::{Cx, Tensor};

use crate::operators::{double, normal};

fn measured(cx: &Cx, task: &str, x: &Tensor) -> Vec<f64> {
    let [_, h, w, _] = x.nhwc("x").unwrap();
    let f = Task::parse(task).unwrap().build(cx, [h, w]).unwrap();
    f.measure(cx, x).unwrap().to_f64().unwrap()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn high_dynamic_range_clips() {
    let cx = &double();
    let x = normal(cx, "x", [2, 7, 5, 3]);
    let values = x.to_f64().unwrap();
    for (task, gain) in [("hdr", 2.0), ("hdr:1", 1.0), ("hdr:7.5", 7.5)] {
        let want: Vec<f64> = values.iter().map(|v| (gain * v).clamp(-1.0, 1.0)).collect();
        assert_eq!(measured(cx, task, &x), want);
        // Central differences, away from the corners.
        let f = Task::parse(task).unwrap().build(cx, [7, 5]).unwrap();
        let v = normal(cx, "v", [2, 7, 5, 3]);
        let got = f.vjp(cx, &x, &v).unwrap().to_f64().unwrap();
        let v = v.to_f64().unwrap();
        for i in 0..values.len() {
            let inside = (gain * values[i]).abs() < 1.0;
            assert_eq!(got[i], if inside { gain * v[i] } else { 0.0 });
        }
    }
}

/// The levels of a picture with one colour and varying brightness, so that decoders cannot differ in how they enlarge colours.
fn shaded(side: usize) -> Vec<f64> {
    let mut levels = Vec::new();
    for y in 0..side {
        for x in 0..side {
            let wave = (0.4 * x as f64 + 0.1).sin() * (0.3 * y as f64).cos();
            let tile = ((x / 4 + y / 4) % 2) as f64;
            let light = 128.0 + 60.0 * wave + 20.0 * tile;
            levels.extend(
                [30.0, -10.0, -25.0]
                    .map(|colour| (light + colour).round_ties_even().clamp(0.0, 255.0)),
            );
        }
    }
    levels
}

/// Against Pillow 13.0 (`Image.save(.., "JPEG", quality=q, subsampling=2)`, decoded): pixels (3 i mod 16, i). That rounds Y, Cb, Cr and
/// waves to whole numbers on the way, and the result to bytes: less than a level on average. A wave that falls to another
/// multiple of its step is ten levels and more.
#[test]
fn jpeg_is_that_of_pillow() {
    let cx = &double();
    let levels = shaded(16);
    let values: Vec<f64> = levels.iter().map(|v| v / 127.5 - 1.0).collect();
    let x = cx.upload(&values, [1, 16, 16, 3]).unwrap();
    let pillow: [(&str, [[u8; 3]; 16]); 3] = [
        (
            "jpeg:10",
            [
                [170, 130, 122],
                [223, 183, 175],
                [195, 155, 147],
                [153, 113, 105],
                [158, 118, 110],
                [166, 126, 118],
                [155, 115, 107],
                [134, 94, 86],
                [165, 125, 117],
                [215, 175, 167],
                [208, 168, 160],
                [128, 88, 80],
                [111, 71, 63],
                [146, 106, 98],
                [197, 157, 149],
                [174, 134, 126],
            ],
        ),
        (
            "jpeg:50",
            [
                [167, 128, 111],
                [214, 175, 158],
                [204, 165, 148],
                [146, 107, 90],
                [140, 101, 84],
                [154, 115, 98],
                [162, 123, 106],
                [128, 89, 72],
                [164, 125, 108],
                [215, 176, 159],
                [212, 173, 156],
                [136, 97, 80],
                [111, 72, 55],
                [145, 106, 89],
                [204, 165, 148],
                [166, 127, 110],
            ],
        ),
        (
            "jpeg:90",
            [
                [163, 124, 109],
                [211, 172, 157],
                [206, 167, 152],
                [136, 97, 82],
                [141, 102, 87],
                [157, 118, 103],
                [166, 127, 112],
                [132, 93, 78],
                [165, 126, 111],
                [210, 171, 156],
                [210, 171, 156],
                [126, 87, 72],
                [111, 72, 57],
                [148, 109, 94],
                [200, 161, 146],
                [166, 127, 112],
            ],
        ),
    ];
    for (task, want) in pillow {
        let got = measured(cx, task, &x);
        let mut errors = Vec::new();
        for (i, want) in want.iter().enumerate() {
            let at = (16 * i + 3 * i % 16) * 3;
            let levels = got[at..at + 3].iter().map(|got| 127.5 * (got + 1.0));
            errors.extend(
                levels
                    .zip(want)
                    .map(|(got, want)| (got - f64::from(*want)).abs()),
            );
        }
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let most = errors.iter().copied().fold(0.0, f64::max);
        assert!(mean < 1.0 && most < 5.0, "{task}: {mean}, at most {most}");
    }
}

#[test]
fn jpeg_of_a_jpeg_is_itself() {
    let cx = &double();
    let x = normal(cx, "x", [2, 32, 16, 3]);
    for task in ["jpeg:5", "jpeg:50", "jpeg:95"] {
        let once = measured(cx, task, &x);
        let again = measured(cx, task, &cx.upload(&once, [2, 32, 16, 3]).unwrap());
        for (once, again) in once.iter().zip(&again) {
            assert!((once - again).abs() < 1e-6, "{task}: {once} {again}");
        }
    }
}

/// Of very large images rounding is nothing: what is left is the linear map whose transpose the gradient takes.
#[test]
fn the_gradient_of_jpeg_is_the_transpose_of_what_it_does_besides_rounding() {
    const LARGE: f64 = 1e9;
    let cx = &double();
    let (x, v) = (
        normal(cx, "x", [1, 16, 32, 3]),
        normal(cx, "v", [1, 16, 32, 3]),
    );
    let large: Vec<f64> = x.to_f64().unwrap().iter().map(|x| LARGE * x).collect();
    let f = Task::parse("jpeg:40").unwrap().build(cx, [16, 32]).unwrap();
    let forward = f
        .measure(cx, &cx.upload(&large, x.shape()).unwrap())
        .unwrap();
    let left = dot(&forward.to_f64().unwrap(), &v.to_f64().unwrap()) / LARGE;
    let right = dot(
        &x.to_f64().unwrap(),
        &f.vjp(cx, &x, &v).unwrap().to_f64().unwrap(),
    );
    assert!(
        (left - right).abs() < 1e-6 * (1.0 + right.abs()),
        "{left} {right}"
    );
}

#[test]
fn psld_is_told_that_a_task_is_not_linear() {
    let cx = &double();
    for task in ["hdr", "jpeg:50"] {
        let f = Task::parse(task).unwrap().build(cx, [16, 16]).unwrap();
        let y = normal(cx, "y", [1, 16, 16, 3]);
        let message = f.adjoint(cx, &y).unwrap_err().to_string();
        assert!(
            message.contains("linear") && message.contains("psld"),
            "{message}"
        );
    }
    let message = Task::parse("jpeg:50")
        .unwrap()
        .check_size([16, 24])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("multiples of 16") && message.contains("16 x 24"),
        "{message}"
    );
}

fn picture(side: usize) -> Image {
    let pixels = shaded(side)
        .iter()
        .map(|v| (v / 127.5 - 1.0) as f32)
        .collect();
    Image::new(side, side, pixels).unwrap()
}

#[test]
fn photons_are_counted() {
    let x = picture(64);
    let task = Task::parse("denoise").unwrap();
    let counted = |rate| {
        Measurement::new(task.clone(), 0.0, 7, [64, 64])
            .unwrap()
            .counting(rate)
    };
    // The variance of a level is the level over the rate.
    for rate in [0.1, 1.0, 2.5] {
        let y = counted(rate).unwrap().measure(&x, 3).unwrap();
        assert!(y.pixels == counted(rate).unwrap().measure(&x, 3).unwrap().pixels);
        assert!(y.pixels != counted(rate).unwrap().measure(&x, 4).unwrap().pixels);
        let level = |v: &f32| 127.5 * (f64::from(*v) + 1.0);
        let pairs = || x.pixels.iter().map(level).zip(y.pixels.iter().map(level));
        let n = x.pixels.len() as f64;
        let mean = pairs().map(|(x, y)| y - x).sum::<f64>() / n;
        let spread = pairs()
            .map(|(x, y)| (y - x) * (y - x) * rate / x)
            .sum::<f64>()
            / n;
        assert!(
            mean.abs() < 5.0 * (130.0 / rate / n).sqrt(),
            "{rate}: {mean}"
        );
        assert!(
            (spread - 1.0).abs() < 5.0 * (3.0 / n).sqrt(),
            "{rate}: {spread}"
        );
    }
    let file = counted(0.5).unwrap();
    let again = Measurement::from_json("m", &file.to_json().unwrap()).unwrap();
    assert_eq!(again, file);
    for rate in [0.0, -1.0, 2.6, f64::NAN] {
        assert!(counted(rate).unwrap_err().to_string().contains("photons"));
    }
}

fn write(path: &Path, [h, w]: [usize; 2], white: impl Fn(usize, usize) -> f32) {
    let pixels = (0..h * w * 3).map(|i| 2.0 * white(i / 3 / w, i / 3 % w) - 1.0);
    let image = Image::new(w, h, pixels.collect()).unwrap();
    save(path, &image, Format::Png, &[]).unwrap();
}

#[test]
fn kernels_and_masks_come_from_files() {
    let cx = &double();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let task = |word: &str, name: &str| format!("{word}:{}", file(name).display());
    let x = normal(cx, "x", [1, 6, 9, 3]);
    let values = x.to_f64().unwrap();

    // One white pixel to the right of the middle: the image moves to the left.
    write(&file("k.png"), [3, 3], |i, j| {
        if (i, j) == (1, 2) { 1.0 } else { 0.0 }
    });
    let moved = measured(cx, &task("kernel", "k.png"), &x);
    for i in 0..6 {
        for j in 0..8 {
            assert_eq!(
                moved[(i * 9 + j) * 3..][..3],
                values[(i * 9 + j + 1) * 3..][..3]
            );
        }
    }
    let kept = |i: usize, j: usize| (i + j).is_multiple_of(3);
    write(
        &file("m.png"),
        [6, 9],
        |i, j| if kept(i, j) { 1.0 } else { 0.0 },
    );
    let masked = measured(cx, &task("mask", "m.png"), &x);
    for (i, (got, x)) in masked.iter().zip(&values).enumerate() {
        assert_eq!(*got, if kept(i / 27, i / 3 % 9) { *x } else { 0.0 });
    }

    // A measurement file holds what they said when they are gone.
    for (word, name) in [("kernel", "k.png"), ("mask", "m.png")] {
        let parsed = Task::parse(&task(word, name)).unwrap();
        let measurement = Measurement::new(parsed, 0.0, 0, [6, 9]).unwrap();
        let before = measured(cx, &task(word, name), &x);
        std::fs::remove_file(file(name)).unwrap();
        let again = Measurement::from_json("m", &measurement.to_json().unwrap()).unwrap();
        let f = again.operator(cx).unwrap();
        assert_eq!(f.measure(cx, &x).unwrap().to_f64().unwrap(), before);
        assert!(
            Task::parse(&task(word, name))
                .unwrap_err()
                .to_string()
                .contains(name)
        );
    }

    write(&file("even.png"), [4, 4], |_, _| 1.0);
    write(&file("black.png"), [3, 3], |_, _| 0.0);
    for name in ["even.png", "black.png"] {
        let message = Task::parse(&task("kernel", name)).unwrap_err().to_string();
        assert!(
            message.contains("odd sides") && message.contains(name),
            "{message}"
        );
    }
    let mask = Task::parse(&task("mask", "even.png")).unwrap();
    let message = mask.check_size([4, 5]).unwrap_err().to_string();
    assert!(
        message.contains("4 x 4") && message.contains("4 x 5"),
        "{message}"
    );
    assert!(read(file("even.png")).is_ok());
}
