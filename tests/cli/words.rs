//! What the program says is so: messages name what was given, and options that would do nothing are refused.

use std::fs;
use std::process::Stdio;

use posteriori::io::image::{Format, save};
use serde_json::{Value, json};

use super::{command, copy, finished, folder, picture, run, tree};
use crate::oracle;

#[cfg(target_os = "linux")]
#[test]
fn a_stdout_that_takes_nothing_is_a_failure_and_one_without_a_reader_is_none() {
    let dir = folder(&[]);
    for line in ["completions bash", "--help", "plan --model PIXEL --json"] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full");
        let mut program = command(dir.path(), line);
        program.stdout(full.unwrap()).stderr(Stdio::piped());
        let output = program.spawn().unwrap().wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}: {stderr}");
        assert!(stderr.contains("stdout cannot be written"), "{stderr}");

        let mut program = command(dir.path(), line);
        program.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = program.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert!(output.stderr.is_empty(), "{line}");
    }
}

#[test]
fn a_line_that_cannot_be_parsed_is_told_as_json_too() {
    let dir = folder(&[]);
    for (line, named) in [
        ("nonsense --json", "'nonsense'"),
        ("--json restore -i y", "--output <PATH>"),
        ("plan --json --unheard-of", "'--unheard-of'"),
    ] {
        let ran = run(dir.path(), line).expect(2, &[named]);
        let errors = ran.records("error");
        assert_eq!(errors.len(), 1, "{}", ran.stdout);
        assert!(errors[0]["item"].is_null());
        let text = errors[0]["error"].as_str().unwrap();
        assert!(text.contains(named) && !text.contains("Usage"), "{text}");
    }
    // After `--` it is a value.
    let ran = run(dir.path(), "info --nonsense -- --json").expect(2, &["--nonsense"]);
    assert!(ran.stdout.is_empty());
    let ran = run(dir.path(), "plan --help --json").expect(0, &[]);
    assert!(ran.stdout.contains("Usage"));
}

#[test]
fn the_name_of_what_is_generated_decides_its_format() {
    let dir = folder(&[]);
    let line = |more: &str| {
        run(
            dir.path(),
            &format!("generate --model PIXEL --steps 1 {more}"),
        )
    };
    for (name, start) in [("g.jpg", &b"\xff\xd8"[..]), ("g.webp", b"RIFF")] {
        line(&format!("-o {name}")).expect(0, &[]);
        let bytes = fs::read(dir.path().join(name)).unwrap();
        assert!(bytes.starts_with(start), "{name}");
    }
    line("-o g.jpg --format png").expect(2, &["--format: png contradicts the name g.jpg"]);
    line("-o g.tiff").expect(2, &["--output: g.tiff"]);
    for name in ["g.bmp", "g.gif"] {
        line(&format!("-o {name}")).expect(2, &["--output", name, ".png"]);
        line(&format!("-o {name} --count 2")).expect(2, &["--output", name, "folder"]);
    }
    assert_eq!(tree(dir.path()), ["g.jpg", "g.webp"]);
    line("-o a.b/").expect(0, &[]);
    fs::write(dir.path().join("file"), "").unwrap();
    let ran = line("-o file/g.png --json").expect(1, &["file"]);
    assert!(ran.records("progress").is_empty());
}

#[test]
fn what_would_match_nothing_is_refused() {
    let dir = folder(&[]);
    let goldens = oracle::data("fixtures/tiny-pixel.safetensors");
    let verify = |model: &str, only: &str| {
        let goldens = goldens.display();
        let line = format!("verify --model {model} --goldens {goldens} --only {only}");
        run(dir.path(), &line)
    };
    verify("PIXEL", "zzz").expect(2, &["--only", "`zzz`", "unet/"]);
    verify("PIXEL", "sched --only zzz").expect(2, &["--only", "`zzz`"]);
    // Goldens of another model.
    verify("SD2", "unet/t500/eps").expect(1, &["unet/t", "wanted shape", "of this model?"]);
    let bench = "bench --runtime native --op add";
    run(dir.path(), &format!("{bench} --only zzz")).expect(2, &["--only", "`zzz`", "plain"]);
    #[cfg(feature = "cuda")]
    run(dir.path(), "kernels --only zzz").expect(2, &["--only", "`zzz`", "conv2d"]);
}

#[test]
fn options_that_would_do_nothing_are_refused() {
    let dir = folder(&["a.png"]);
    for (line, named) in [
        (
            "restore -i y -o x --model PIXEL --cse-scale 2",
            "--cse-scale",
        ),
        (
            "restore -i y/a.png -o x --model PIXEL --recursive",
            "--recursive",
        ),
        (
            "restore -i y/a.png -o x --model PIXEL --shard 0/2",
            "--shard",
        ),
        (
            "degrade -i y/a.png -o x --task sr2 --recursive",
            "--recursive",
        ),
        ("bench --runtime native --task sr8", "--task"),
        ("bench --runtime native --steps 2", "--steps"),
        ("bench --runtime native --batch 2", "--batch"),
        ("bench --runtime native --size 8x8", "--size"),
        ("bench --model PIXEL --step=1 --csv x.csv", "--csv"),
        ("bench --model PIXEL --step=1 --op add", "--op"),
        ("bench --model PIXEL --predict=1 --only plain", "--only"),
        ("bench --model PIXEL --step=0", "error: --step: "),
        ("bench --model PIXEL --predict=0", "error: --predict: "),
        ("plan --model=", "error: --model: "),
        ("plan --model PIXEL --cse=", "error: --cse: "),
        (
            "plan --model PIXEL --method dsg --zeta 1.5",
            "zeta: wanted a rate of 0 to 1",
        ),
    ] {
        run(dir.path(), line).expect(2, &[named]);
    }
    assert_eq!(tree(dir.path()), ["y/a.png"]);
}

#[test]
fn outputs_that_cannot_be_are_told_before_anything_is_computed() {
    let dir = folder(&["a.png"]);
    fs::write(dir.path().join("file"), "").unwrap();
    for line in [
        "bench --runtime native --op add --csv file/x.csv",
        "evaluate --restored y --truth y --csv file/x.csv",
        "evaluate --restored y --truth y --csv y",
        "demo -o file/x.png",
    ] {
        let ran = run(dir.path(), line).expect(1, &[]);
        assert!(ran.stdout.is_empty(), "{line}: {}", ran.stdout);
    }
}

#[test]
fn a_demo_that_could_not_be_shown_is_not_begun() {
    let dir = folder(&[]);
    for (name, named) in [
        ("demo.txt", "names no format"),
        ("demo", "names no format"),
        ("demo.tiff", "tiff keeps measurements"),
    ] {
        let line = format!("demo -o {name} --scenes 1 --steps 2 --device cpu");
        let ran = run(dir.path(), &line).expect(2, &["--output: ", name, named]);
        assert!(ran.stdout.is_empty(), "{name}: {}", ran.stdout);
    }
    assert_eq!(tree(dir.path()), [""; 0]);
}

#[test]
fn evaluate_of_images_smaller_than_the_window_of_ssim() {
    let dir = tempfile::tempdir().unwrap();
    for (name, side) in [("a.png", 8), ("b.png", 16)] {
        for (seed, folder) in ["x", "y"].iter().enumerate() {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            let path = dir.path().join(folder).join(name);
            save(path, &picture(side, side, seed), Format::Png, &[]).unwrap();
        }
    }
    let line = "evaluate --restored x --truth y --csv v.csv";
    let ran = run(dir.path(), line).expect(0, &["2 done, 0 skipped, 0 failed"]);
    assert!(ran.stdout.contains("ssim -"), "{}", ran.stdout);
    let ran = run(dir.path(), &format!("{line} --json")).expect(0, &[]);
    let [small, large, mean] = &ran.records("item")[..] else {
        panic!("two images and their means")
    };
    assert!(small["psnr"].is_number() && small["ssim"].is_null());
    let [a, b, of_both] = [small, large, mean].map(|item| item["psnr"].as_f64().unwrap());
    assert!((of_both - (a + b) / 2.0).abs() < 1e-9);
    assert_eq!(mean["ssim"], large["ssim"]);
    let csv = fs::read_to_string(dir.path().join("v.csv")).unwrap();
    assert_eq!(csv.lines().nth(1), Some(&*format!("a.png,{a},")));
    // Of other sizes: no metric has a value.
    save(
        dir.path().join("y/a.png"),
        &picture(9, 8, 1),
        Format::Png,
        &[],
    )
    .unwrap();
    run(dir.path(), line).expect(3, &["failed: a.png", "1 failed"]);
}

#[test]
fn evaluate_names_true_images_without_a_restoration() {
    let dir = folder(&[]);
    for name in ["x/a-s1.jpg", "y/a.png", "y/b.png", "y/sub/c.png"] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let format = Format::of(&path).unwrap();
        save(path, &picture(32, 32, 1), format, &[]).unwrap();
    }
    let ran = run(dir.path(), "evaluate --restored x --truth y");
    ran.expect(
        0,
        &["2 of the 3 images in y have no restoration: b.png, sub/c.png"],
    );
}

#[test]
fn doctor_loads_what_restore_would_load() {
    let dir = folder(&[]);
    let ran = run(dir.path(), "doctor --model embedded --device cpu").expect(0, &[]);
    for row in ["✓ model", "✓ controlnet", "cse-sr4 loads"] {
        assert!(ran.stdout.contains(row), "{}", ran.stdout);
    }
    let broken = |code, damage: &dyn Fn(&std::path::Path), named: &[&str]| {
        let model = dir.path().join("model");
        fs::remove_dir_all(&model).ok();
        copy(&oracle::checkpoint("tiny-sd2"), &model);
        damage(&model);
        let ran = run(dir.path(), "doctor --model model --device cpu").expect(code, &[]);
        for name in named {
            assert!(
                ran.stdout.contains(name),
                "wanted `{name}` in:\n{}",
                ran.stdout
            );
        }
    };
    let controlnet = "controlnet/diffusion_pytorch_model.safetensors";
    let cut = |model: &std::path::Path| {
        let bytes = fs::read(model.join(controlnet)).unwrap();
        fs::write(model.join(controlnet), &bytes[..bytes.len() - 7]).unwrap();
    };
    broken(1, &cut, &["✗ controlnet", controlnet, "fix:"]);
    let garble = |model: &std::path::Path| {
        fs::create_dir_all(model.join("tokenizer")).unwrap();
        fs::write(model.join("tokenizer/vocab.json"), "{").unwrap();
    };
    broken(2, &garble, &["✗ tokenizer", "tokenizer/vocab.json"]);
    #[cfg(unix)]
    broken(
        1,
        &|model| std::os::unix::fs::symlink("nowhere", model.join("unet/link")).unwrap(),
        &["✗ file", "model/unet/link: ", "✓ model"],
    );
}

/// Counts of what a journal of these lines says.
fn counted(lines: &[Value]) -> Value {
    let dir = folder(&[]);
    let head = json!({
        "schema": "run", "engine": "e", "model": "m", "runtime": "native", "precision": "f32", "settings": {},
    });
    let lines = [head].into_iter().chain(lines.iter().cloned());
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    fs::write(dir.path().join("j.jsonl"), text).unwrap();
    let ran = run(dir.path(), "info j.jsonl --json").expect(0, &[]);
    let record = &ran.records("info")[0]["record"];
    json!([record["done"], record["far"], record["failed"]])
}

#[test]
fn a_journals_restorations_are_counted_not_its_lines() {
    let done = |item: &str, sample: u32, verdict: &str| {
        json!({
            "schema": "item", "item": item, "sample": sample, "output": item, "task": "sr8",
            "residual": 1.0, "verdict": verdict, "seconds": 1.0,
        })
    };
    let failed = |item: &str, sample: Option<u32>| match sample {
        Some(n) => json!({ "schema": "error", "item": item, "sample": n, "error": "e" }),
        None => json!({ "schema": "error", "item": item, "error": "e" }),
    };
    assert_eq!(counted(&[]), json!([0, 0, 0]));
    assert_eq!(
        counted(&[
            failed("a", None),
            failed("a", Some(0)),
            failed("b", Some(1)),
            done("a", 0, "far"),
            done("a", 1, "ok"),
            done("a", 0, "ok"),
            done("c", 0, "far"),
            failed("d", None),
            failed("d", None),
        ]),
        json!([3, 1, 2])
    );
}

#[test]
fn a_dry_run_says_and_refuses_what_the_run_would() {
    let dir = folder(&["a.png", "b.png"]);
    let line = "restore -i y -o x --model PIXEL --task sr8 --method dps --steps 1";
    let run = |more: &str| run(dir.path(), &format!("{line} {more}"));
    run("").expect(0, &[]);
    fs::remove_file(dir.path().join("x/b.png")).unwrap();
    let ran = run("--dry-run --json").expect(0, &["x/a.png exists", "1 done, 1 skipped, 0 failed"]);
    let verdicts: Vec<String> = ran
        .records("item")
        .iter()
        .map(|item| format!("{} {}", item["item"], item["verdict"]))
        .collect();
    assert_eq!(verdicts, ["\"a.png\" \"skipped\"", "\"b.png\" \"planned\""]);
    assert_eq!(ran.records("plan")[0]["images"], 1);
    run("--dry-run --exists error").expect(3, &["x/a.png: exists already"]);
    run("--dry-run --exists error --on-error stop").expect(3, &["0 done, 0 skipped, 1 failed"]);
    for more in ["--zeta 2", "--zeta 2 --dry-run"] {
        run(more).expect(2, &["--zeta: wanted 4.8", "x/.posteriori/journal.jsonl"]);
    }
    let ran = run("--zeta 2 --dry-run --exists overwrite --json").expect(0, &[]);
    assert_eq!(ran.records("plan")[0]["images"], 2);
    assert_eq!(tree(&dir.path().join("x")), ["a.png"]);
}

#[test]
fn names_that_collide_are_told_with_what_helps() {
    let dir = folder(&["a.png", "a.jpg"]);
    let line = "restore -i y -o x --model PIXEL --task sr8";
    let ran = run(dir.path(), &format!("{line} --format webp"));
    ran.expect(2, &["error: --format", "x/a.webp", "leave --format out"]);
    // Written as PNG, for want of a writer.
    fs::copy(dir.path().join("y/a.png"), dir.path().join("y/a.bmp")).unwrap();
    run(dir.path(), line).expect(2, &["error: --input", "a.bmp and a.png", "rename one"]);
}

#[test]
fn pictures_beyond_the_memory_allowed_are_told_so() {
    let dir = folder(&[]);
    // A bitmap that claims a size and has no pixels.
    let mut header = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    header.extend(30_000_u32.to_le_bytes());
    header.extend(30_000_u32.to_le_bytes());
    header.extend([1, 0, 24, 0]);
    header.extend([0; 24]);
    fs::write(dir.path().join("large.bmp"), header).unwrap();
    let ran = finished(command(
        dir.path(),
        "degrade -i large.bmp -o x.png --task sr2",
    ));
    ran.expect(3, &["too large", "30000 x 30000", "shrink"]);
}
