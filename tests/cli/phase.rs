//! Phase retrieval, whose measurement is no picture: from `degrade` to every command that takes a task; float TIFF, which
//! keeps it.

use std::fs;
use std::path::Path;

use posteriori::io::image::{Format, read, read_text, read_values, save};

use super::{picture, run, tree};
use crate::oracle;
use crate::report::whole;

/// A folder with `clean`, in it two pictures that are not square.
fn clean() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("clean")).unwrap();
    for (seed, name) in ["a.png", "b.png"].iter().enumerate() {
        let path = dir.path().join("clean").join(name);
        save(path, &picture(32, 64, seed), Format::Png, &[]).unwrap();
    }
    dir
}

#[test]
fn degrade_restore_evaluate() {
    let dir = clean();
    let at = |name: &str| dir.path().join(name);
    run(dir.path(), "degrade -i clean -o y --task phase").expect(0, &[]);
    let files = [
        "a.tiff",
        "a.tiff.measurement.json",
        "b.tiff",
        "b.tiff.measurement.json",
    ];
    assert_eq!(tree(&at("y")), files);
    let y = read_values(at("y/a.tiff")).unwrap();
    assert_eq!([y.height, y.width], [48, 96]);
    assert!(y.pixels.iter().copied().fold(0.0, f32::max) > 10.0);
    assert!(read(at("y/a.tiff")).is_err());

    // What the file holds is what was measured: the truth has no residual at all.
    let line = "evaluate --restored clean --truth clean --measurements y --json";
    let ran = run(dir.path(), line).expect(0, &[]);
    assert_eq!(ran.records("item").len(), 3);
    for record in ran.records("item") {
        assert_eq!(record["residual"], 0.0, "{record}");
    }

    let line = "restore -i y -o x --model PIXEL --method dps --steps 2 --batch 2";
    run(dir.path(), line).expect(0, &[]);
    assert_eq!(tree(&at("x")), ["a.png", "b.png"]);
    let x = read(at("x/a.png")).unwrap();
    assert_eq!([x.height, x.width], [32, 64]);
    let record = read_text(at("x/a.png")).unwrap();
    assert!(
        record
            .iter()
            .any(|(_, text)| text.contains("phase-retrieval"))
    );
    let line = "evaluate --restored x --truth clean --measurements y";
    let ran = run(dir.path(), line).expect(0, &[]);
    assert!(ran.stdout.contains("residual"), "{}", ran.stdout);

    // Without the file beside it the task is asked for, and gives the image's size.
    fs::create_dir(at("bare")).unwrap();
    fs::copy(at("y/b.tiff"), at("bare/b.tiff")).unwrap();
    let line = "restore -i bare -o z --model PIXEL --method dps --steps 2";
    run(dir.path(), line).expect(3, &["--task"]);
    run(dir.path(), &format!("{line} --task phase")).expect(0, &[]);
    assert!(read(at("z/b.png")).unwrap() == read(at("x/b.png")).unwrap());
    run(
        dir.path(),
        &format!("{line} --task phase:1 --exists overwrite"),
    )
    .expect(3, &["b.tiff", "wanted shape [47, 96, 3], got [48, 96, 3]"]);
    // A measurement is not a picture to others.
    run(dir.path(), "degrade -i y -o w --task blur")
        .expect(3, &["a.tiff", "no picture", "restore"]);
}

#[test]
fn a_format_that_would_clip_is_refused() {
    let dir = clean();
    let line = "degrade -i clean -o y --task phase";
    for format in ["png", "png16", "jpg:90", "webp", "keep"] {
        let line = format!("{line} --format {format}");
        run(dir.path(), &line).expect(2, &["--format", "phase", "clip", "tiff"]);
    }
    let line = "degrade -i clean/a.png --task phase";
    run(dir.path(), &format!("{line} -o y.png")).expect(2, &["y.png", "clip", "tiff"]);
    run(
        dir.path(),
        "degrade -i clean -o y --task phase --noise poisson:1",
    )
    .expect(3, &["poisson", "photons"]);
    assert_eq!(tree(dir.path()), ["clean/a.png", "clean/b.png"]);
    run(dir.path(), &format!("{line} -o y.tif --noise 0.05")).expect(0, &[]);
    run(dir.path(), &format!("{line} -o y2 --format tiff")).expect(0, &[]);
    let found = tree(dir.path());
    for name in ["y.tif", "y.tif.measurement.json", "y2/a.tiff"] {
        assert!(found.iter().any(|file| file == name), "{found:?}");
    }
}

#[test]
fn other_measurements_may_be_kept_as_they_are() {
    let dir = clean();
    let at = |name: &str| dir.path().join(name);
    run(
        dir.path(),
        "degrade -i clean -o y --task sr4 --noise 0.8 --format tiff",
    )
    .expect(0, &[]);
    let y = read_values(at("y/a.tiff")).unwrap();
    assert_eq!([y.height, y.width], [8, 16]);
    assert!(y.pixels.iter().any(|v| v.abs() > 1.0));
    let line = "--model PIXEL --method dps --steps 2";
    for (more, format) in [
        ("", "png"),
        ("--format keep", "png"),
        ("--format png16", "png"),
    ] {
        let out = format!("x{}", more.len());
        run(dir.path(), &format!("restore -i y -o {out} {line} {more}")).expect(0, &[]);
        assert_eq!(
            tree(&at(&out)),
            [format!("a.{format}"), format!("b.{format}")]
        );
    }
    // What is restored or drawn is a picture.
    for command in [
        &format!("restore -i y -o x {line} --format tiff"),
        &format!("restore -i y/a.tiff -o x.tiff {line}"),
        "generate -o g --model PIXEL --format tiff",
        "generate -o g.tif --model PIXEL --format tiff",
    ] {
        run(dir.path(), command).expect(2, &["picture", "tiff", "png"]);
    }
    assert!(!at("x.tiff").exists() && !at("g").exists() && !at("g.tif").exists());
}

#[test]
fn every_method_takes_it_but_psld() {
    let dir = clean();
    run(dir.path(), "degrade -i clean/a.png -o y --task phase").expect(0, &[]);
    for method in ["dmap", "dsg", "freedom", "resample"] {
        let model = if method == "resample" { "SD2" } else { "PIXEL" };
        let line = format!("restore -i y -o {method} --model {model} --method {method} --steps 3");
        run(dir.path(), &line).expect(0, &[]);
    }
    let line = "restore -i y -o psld --model SD2 --method psld --steps 2";
    run(dir.path(), line).expect(3, &["linear", "phase retrieval"]);
    run(
        dir.path(),
        "plan --model PIXEL --method dps --task phase --size 32x64",
    )
    .expect(0, &[]);
}

#[test]
fn a_study_and_a_diagnosis_show_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = oracle::checkpoint("tiny-pixel");
    let text = format!(
        "model = '{}'\nscenes = {{ count = 2, size = '32x64' }}\ntasks = ['phase']\nsteps = 2\n\
         [[row]]\nname = 'DPS'\nmethod = 'dps'\n",
        model.display()
    );
    fs::write(dir.path().join("s.toml"), text).unwrap();
    run(dir.path(), "study s.toml -o s --report").expect(0, &[]);
    let found = tree(&dir.path().join("s"));
    assert!(
        found.iter().any(|file| file == "sheet-phase.png"),
        "{found:?}"
    );
    whole(&fs::read_to_string(dir.path().join("s/report.html")).unwrap());
    let line = "diagnose diversity --model PIXEL --task phase --scene 1 --size 32x32 -o d --samples 2 --steps 2 --report";
    run(dir.path(), line).expect(0, &[]);
}

#[test]
fn an_estimator_is_trained_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let line = "train cse -o c --model SD2 --task phase --scenes 4 --size 32x64 --batch 2 --steps 2 --device cpu";
    run(dir.path(), line).expect(0, &[]);
    let weights = "c/diffusion_pytorch_model.safetensors";
    assert!(Path::new(&dir.path().join(weights)).exists());
}
