//! `info` and `repro`: what a picture says of itself, and whether it holds.

use std::fs;
use std::path::Path;

use posteriori::io::image::{self, Format, Levels, encode};
use serde_json::Value;

use super::{copy, folder, picture, run};
use crate::oracle;

const RESTORE: &str = "restore -i y -o x --model PIXEL --task sr8 --method dmap --steps 3 -q";

/// The record of a picture, read without the program.
fn record(picture: &Path) -> Value {
    let texts = image::read_text(picture).unwrap();
    let (_, text) = texts.iter().find(|(key, _)| key == "posteriori").unwrap();
    serde_json::from_str(text).unwrap()
}

/// Saves the picture again with its texts, after `change` of its levels and of its record.
fn resave(path: &Path, levels: impl Fn(&mut [f32]), change: impl Fn(&mut Value)) {
    let mut picture = image::read(path).unwrap();
    levels(&mut picture.pixels);
    let mut texts = image::read_text(path).unwrap();
    for (key, text) in &mut texts {
        if key == "posteriori" {
            let mut record: Value = serde_json::from_str(text).unwrap();
            change(&mut record);
            *text = record.to_string();
        }
    }
    fs::write(path, encode(&picture, Format::Png, &texts).unwrap()).unwrap();
}

#[test]
fn what_a_batch_made_is_made_again_alone() {
    let dir = folder(&["z.png", "a.png", "m.png"]);
    run(dir.path(), &format!("{RESTORE} --batch 3")).expect(0, &[]);
    run(
        dir.path(),
        "generate -o g --model PIXEL --steps 3 --count 2 --format png16 --batch 2 --size 16x24",
    )
    .expect(0, &[]);
    let before = super::tree(dir.path());
    let line = "repro x/z.png x/a.png x/m.png g/sample-00001.png --json";
    let ran = run(dir.path(), line).expect(0, &[]);
    let found = ran.records("repro");
    assert_eq!(found.len(), 4);
    for (one, bits) in found.iter().zip([8, 8, 8, 16]) {
        assert_eq!(one["verdict"], "identical", "{one}");
        assert_eq!(
            (&one["same_file"], &one["bits"]),
            (&Value::Bool(true), &bits.into())
        );
    }
    assert_eq!(ran.records("summary")[0]["identical"], 4);
    assert_eq!(super::tree(dir.path()), before);
    // The measurement is elsewhere, and so is the model.
    fs::rename(dir.path().join("y"), dir.path().join("moved")).unwrap();
    copy(&oracle::checkpoint("tiny-pixel"), &dir.path().join("model"));
    run(dir.path(), "repro x/a.png x/z.png").expect(
        3,
        &["is gone: there is no y/a.png (looked for in /", "--input"],
    );
    run(
        dir.path(),
        "repro x/a.png x/z.png --input moved --model model",
    )
    .expect(0, &[]);
    run(dir.path(), "repro x/a.png --input moved/z.png").expect(3, &["it is another"]);
}

#[test]
fn masks_kernels_and_samples_are_made_again() {
    let dir = folder(&["a.png"]);
    let at = |name: &str| dir.path().join(name);
    let mask = picture(32, 32, 1);
    image::save(at("mask.png"), &mask, Format::Png, &[]).unwrap();
    image::save(at("kernel.png"), &picture(3, 3, 1), Format::Png, &[]).unwrap();
    image::save(at("b.png"), &picture(32, 32, 2), Format::Png, &[]).unwrap();
    let run = |line: &str| run(dir.path(), line);
    let how = "-q --model PIXEL --method dps --steps 3 --seed 5 --format png16";
    for (task, out) in [
        ("mask:mask.png", "m.png"),
        ("kernel:kernel.png", "k.png"),
        ("random:0.4:3", "r.png"),
    ] {
        run(&format!("restore -i b.png -o {out} --task {task} {how}")).expect(0, &[]);
    }
    run("degrade -i b.png -o noisy.png --task jpeg:30 --noise 0.1 -q").expect(0, &[]);
    run(&format!("restore -i noisy.png -o s/ --samples 2 {how}")).expect(0, &[]);
    // The record suffices: what the tasks were read from is gone.
    for file in ["mask.png", "kernel.png", "noisy.png.measurement.json"] {
        fs::remove_file(at(file)).unwrap();
    }
    let ran = run("repro m.png k.png r.png s/noisy-s1.png").expect(0, &[]);
    let same = ran
        .stdout
        .matches("identical, the file to the byte")
        .count();
    assert_eq!(same, 4, "{}", ran.stdout);
}

#[test]
fn what_is_not_as_it_was_is_named() {
    let dir = folder(&["a.png", "b.png"]);
    run(dir.path(), RESTORE).expect(0, &[]);
    let at = |name: &str| dir.path().join(name);
    // One pixel, by two levels.
    let nudge =
        |pixels: &mut [f32]| pixels[30] += if pixels[30] > 0.0 { -4.0 } else { 4.0 } / 255.0;
    resave(&at("x/a.png"), nudge, |_| {});
    let ran = run(dir.path(), "repro x/a.png x/b.png --json").expect(3, &[]);
    let found = ran.records("repro");
    assert_eq!(found[0]["verdict"], "differs");
    assert_eq!(found[0]["differing"], 1);
    assert_eq!(found[0]["largest"], 2);
    assert_eq!(found[1]["verdict"], "identical");
    let summary = &ran.records("summary")[0];
    assert_eq!(
        (&summary["differ"], &summary["identical"]),
        (&1.into(), &1.into())
    );
    // The same pixels under another version's record.
    resave(
        &at("x/b.png"),
        |_| {},
        |record| record["engine"] = "posteriori 0.0.1".into(),
    );
    let ran = run(dir.path(), "repro x/b.png").expect(0, &["made by posteriori 0.0.1"]);
    assert!(ran.stdout.contains("in another file"), "{}", ran.stdout);
    // Another measurement.
    let y = at("y/b.png");
    let kept = fs::read(&y).unwrap();
    image::save(&y, &picture(4, 4, 7), Format::Png, &[]).unwrap();
    run(dir.path(), "repro x/b.png").expect(3, &["the measurement", "was changed"]);
    fs::write(&y, kept).unwrap();
    // A weight with one bit changed.
    let model = at("model");
    copy(&oracle::checkpoint("tiny-pixel"), &model);
    let weights = model.join("unet/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let hash = record(&at("x/b.png"))["model_hash"]
        .as_str()
        .unwrap()
        .to_owned();
    run(dir.path(), "repro x/b.png --model model")
        .expect(3, &["--model: wanted the folder of hash", &hash, "--model"]);
    run(dir.path(), "repro x/b.png --cse model/unet")
        .expect(3, &["--cse: wanted none", "model/unet of hash"]);
    // A runtime and a precision that are not to be had; a record with a gap; none at all.
    for (field, value, named) in [
        ("runtime", Value::from("abacus"), "abacus"),
        ("precision", "f16".into(), "f16"),
        ("seed", Value::Null, "`seed`"),
        ("operator", Value::from("sr8"), "`operator`"),
        ("key", "xyz".into(), "hexadecimal"),
    ] {
        run(dir.path(), &format!("{RESTORE} --exists overwrite")).expect(0, &[]);
        resave(
            &at("x/a.png"),
            |_| {},
            |record| record[field] = value.clone(),
        );
        run(dir.path(), "repro x/a.png").expect(3, &[named]);
    }
    run(dir.path(), "repro y/b.png y/none.png").expect(3, &["carries no record", "y/none.png"]);
    run(dir.path(), "repro x/b.png --device tpu").expect(2, &["tpu"]);
    run(dir.path(), "repro").expect(2, &["FILE"]);
}

#[test]
fn a_conditional_score_estimator_is_of_the_record() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("y")).unwrap();
    picture(8, 8, 1).save(dir.path().join("y/a.png")).unwrap();
    let cse = oracle::checkpoint("tiny-sd2").join("controlnet");
    copy(&cse, &dir.path().join("cse"));
    let how = "--cse cse --task sr4 --method dps --steps 2 -q";
    run(dir.path(), &format!("restore -i y -o x --model SD2 {how}")).expect(0, &[]);
    run(dir.path(), "repro x/a.png").expect(0, &[]);
    let moved = dir.path().join("moved");
    fs::rename(dir.path().join("cse"), &moved).unwrap();
    run(dir.path(), "repro x/a.png").expect(3, &["cse"]);
    run(dir.path(), "repro x/a.png --cse moved").expect(0, &[]);
    let weights = moved.join("diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(weights, bytes).unwrap();
    run(dir.path(), "repro x/a.png --cse moved").expect(3, &["--cse: wanted the folder of hash"]);
}

#[cfg(feature = "emu")]
#[test]
fn another_runtime_is_told() {
    let dir = folder(&["a.png"]);
    run(dir.path(), RESTORE).expect(0, &[]);
    let ran = run(dir.path(), "repro x/a.png --device emu --json");
    let found = &ran.records("repro")[0];
    assert!(
        found["warnings"][0]
            .as_str()
            .unwrap()
            .contains("runtime native, this is emu")
    );
    // Other kernels, the same mathematics.
    assert!(found["largest"].as_u64().unwrap() <= 1, "{found}");
}

#[test]
fn info_tells_what_is_in_the_record() {
    let dir = folder(&["a.png", "b.png"]);
    run(dir.path(), RESTORE).expect(0, &[]);
    let ran = run(dir.path(), "info x/a.png --json").expect(0, &[]);
    let info = &ran.records("info")[0];
    assert_eq!(
        (&info["item"], &info["kind"]),
        (&"x/a.png".into(), &"picture".into())
    );
    assert_eq!(info["record"], record(&dir.path().join("x/a.png")));
    let ran = run(dir.path(), "info x/a.png x/.posteriori/journal.jsonl").expect(0, &[]);
    for line in [
        "x/a.png",
        "  task  ",
        "sr8",
        "steps",
        "3  (flag)",
        "done    2",
        "measurement",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
    run(dir.path(), "degrade -i x -o d --task motion -q").expect(0, &[]);
    let ran = run(dir.path(), "info d/a.png.measurement.json").expect(0, &[]);
    assert!(ran.stdout.contains("3721 values"), "{}", ran.stdout);
    // One file is the command; of several the others are told.
    run(dir.path(), "info y/a.png").expect(1, &["y/a.png: carries no record"]);
    run(dir.path(), "info none.png").expect(1, &["none.png"]);
    let ran = run(dir.path(), "info y/a.png x/a.png --json").expect(3, &["y/a.png"]);
    assert_eq!(ran.records("info").len(), 1);
    run(dir.path(), "info").expect(2, &["FILE"]);
    // A record may be anybody's: nothing of it reaches the terminal as a command.
    resave(
        &dir.path().join("x/a.png"),
        |_| {},
        |record| record["image"] = "\u{1b}[2J".into(),
    );
    let ran = run(dir.path(), "info x/a.png").expect(0, &[]);
    assert!(!ran.stdout.contains('\u{1b}') && ran.stdout.contains("[2J"));
}

#[test]
fn levels_are_what_a_file_stores() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.png");
    let picture = picture(5, 7, 3);
    for (format, most) in [(Format::Png, 255.0), (Format::Png16, 65535.0)] {
        image::save(&path, &picture, format, &[]).unwrap();
        let levels = Levels::read(&path).unwrap();
        assert_eq!(levels, Levels::of(&picture, format).unwrap());
        for (level, value) in levels.values.iter().zip(&picture.pixels) {
            let exact = (f64::from(*value) + 1.0) / 2.0 * most;
            assert!((f64::from(*level) - exact).abs() <= 0.5);
        }
        let mut other = levels.clone();
        other.values[4] ^= 1;
        other.values[5] += 9;
        let difference = levels.compare(&other).unwrap();
        assert_eq!((difference.pixels, difference.largest), (1, 9));
        other.width = 1;
        assert!(levels.compare(&other).is_err());
    }
    assert!(Levels::of(&picture, Format::Jpeg(90)).is_err());
    let refused = |bytes: &[u8], why: &str| {
        fs::write(&path, bytes).unwrap();
        let error = Levels::read(&path).unwrap_err().to_string();
        assert!(error.contains("x.png") && error.contains(why), "{error}");
    };
    let whole = encode(&picture, Format::Png, &[]).unwrap();
    refused(&whole[..whole.len() / 2], "cannot be decoded");
    refused(b"no picture", "cannot be decoded");
    let mut grey = Vec::new();
    let mut encoder = png::Encoder::new(&mut grey, 1, 1);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[7]).unwrap();
    writer.finish().unwrap();
    refused(&grey, "another program has changed the file");
}
