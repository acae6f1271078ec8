//! `train`: killed and started again, given images and flags that cannot be, left without room on disk.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use posteriori::io::image::{Format, save};
use posteriori::io::weights::Checkpoint;
use posteriori::rng::Philox;
use serde_json::Value;

use super::{picture, run, run_with_little_room, tree};
use crate::training::{MODEL_FILE, configure};

const STATE: &str = "m/vae/training.safetensors";

/// Trains the tiny autoencoder in `m`.
const TRAIN: &str =
    "train autoencoder -o m --size 32x32 --batch 4 --micro 2 --lr 1e-3 --device cpu --json";

/// A folder with the configuration of a tiny model in `m`.
fn configured() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    configure(&dir.path().join("m"));
    dir
}

/// Pictures of these names and sides in `images`.
fn pictures(dir: &Path, pictures: &[(&str, usize)]) {
    fs::create_dir_all(dir.join("images")).unwrap();
    for (seed, (name, side)) in pictures.iter().enumerate() {
        let path = dir.join("images").join(name);
        save(path, &picture(*side, *side, seed), Format::Png, &[]).unwrap();
    }
}

fn start(dir: &Path, line: &str, threads: Option<&str>) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_posteriori"));
    if let Some(threads) = threads {
        command.env("RAYON_NUM_THREADS", threads);
    }
    let command = command.args(line.split_whitespace()).current_dir(dir);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The files of a training run, with what is in them. A killed process leaves hidden ones beside them.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let names = tree(&dir.join("m"))
        .into_iter()
        .filter(|name| !name.contains("/."));
    names
        .map(|name| (name.clone(), fs::read(dir.join("m").join(&name)).unwrap()))
        .collect()
}

#[test]
fn killed_at_any_moment_it_goes_on_to_the_same_bytes() {
    let line = &format!("{TRAIN} --scenes 12 --steps 10 --ema 0.9 --save-every 2");
    let whole = configured();
    run(whole.path(), line).expect(0, &[]);
    let want = files(whole.path());
    for (threads, seed) in [(None, 1), (Some("1"), 2)] {
        let dir = configured();
        let mut random = Philox::new(seed);
        let mut kills = 0;
        // A run that is killed before its first checkpoint starts anew, so there may be more kills than steps.
        while kills < 4 {
            let mut child = start(dir.path(), line, threads);
            let steps = random.below(4) as usize;
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let seen = lines
                .take(steps)
                .inspect(|line| assert!(line.is_ok()))
                .count();
            sleep(Duration::from_micros(u64::from(random.below(30_000))));
            // It may be done already; then there is nothing to kill.
            child.kill().unwrap();
            kills += 1;
            if child.wait().unwrap().code() == Some(0) || seen < steps {
                break;
            }
        }
        assert!(kills > 1, "the run was over before it could be killed");
        run(dir.path(), line).expect(0, &[]);
        let got = files(dir.path());
        let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
            files.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&got), names(&want));
        for ((name, got), (_, want)) in got.iter().zip(&want) {
            assert!(got == want, "{name} differs after {kills} kills");
        }
    }
}

#[test]
fn other_settings_and_images_are_refused() {
    let dir = configured();
    pictures(dir.path(), &[("a.png", 40), ("b.png", 40)]);
    let line = &format!("{TRAIN} -i images --steps 1");
    run(dir.path(), line).expect(0, &[]);
    let before = files(dir.path());
    let refused = |flags: &str, named: &[&str]| {
        run(dir.path(), &format!("{line} {flags}")).expect(2, named);
    };
    refused("--seed 7", &[STATE, "seed: 0 then, 7 now"]);
    refused("--weight-decay 0.5", &["weight_decay: 0.01 then, 0.5 now"]);
    refused("--augment none", &["augment: \"paper\" then, \"none\" now"]);
    refused("--kl-weight 1", &["kl weight 0.0001", "kl weight 1"]);
    refused("--subset 1", &["images: \"2 of a folder"]);
    run(dir.path(), &format!("{TRAIN} --scenes 2 --steps 1"))
        .expect(2, &["images: \"2 of a folder", "2 scenes of seed 0"]);
    // As many, but others.
    fs::rename(
        dir.path().join("images/b.png"),
        dir.path().join("images/c.png"),
    )
    .unwrap();
    refused("", &["images: \"2 of a folder"]);
    assert!(files(dir.path()) == before);
}

#[test]
fn flags_that_cannot_be_are_named_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    pictures(dir.path(), &[("a.png", 40)]);
    let common = "-i images --size 32x32 --device cpu";
    for (flags, named) in [
        (
            "--batch 4 --micro 3",
            "micro: wanted a divisor of the batch, 4, got 3",
        ),
        ("--batch 0", "batch"),
        ("--batch 99999999999", "batch: wanted at most 65536"),
        ("--steps 0", "steps"),
        ("--lr 0", "lr"),
        ("--lr nan", "lr"),
        ("--clip=-1", "clip"),
        ("--ema 1", "ema"),
        ("--weight-decay=-1", "weight-decay"),
        ("--decay linear", "linear"),
        ("--save-every 0", "save-every: wanted at least 1"),
        ("--kl-weight=-1", "kl-weight: wanted 0 or more, got -1"),
        ("--kl-weight nan", "kl-weight"),
        ("--augment more", "more"),
        ("--store f64", "f64"),
        ("--size 0x32", "--size"),
        ("--size 33x32", "--size"),
        ("--size big", "--size"),
        ("--subset 2", "subset"),
        ("--precision f16", "f16"),
        ("--device tpu", "tpu"),
        ("--scenes 4", "--scenes"),
    ] {
        let common = flags
            .split(' ')
            .next()
            .map_or(common.into(), |flag| without(common, flag));
        let code = if flags.contains("f16") { 4 } else { 2 };
        run(
            dir.path(),
            &format!("train autoencoder -o m {common} {flags}"),
        )
        .expect(code, &[named]);
        let left = tree(&dir.path().join("m"));
        assert!(
            left.iter().all(|name| name.ends_with("config.json")),
            "{flags}: {left:?}"
        );
    }
    let cse = "train cse -o c --model PIXEL --device cpu";
    let line = format!("{cse} -i images --size 32x32 --task sharpen");
    run(dir.path(), &line).expect(2, &["sharpen", "sr"]);
    // Nothing is drawn for a run that cannot be.
    let line = format!("{cse} --task sr4 --self-generated 2 --size 32x32 --batch 4 --micro 3");
    run(dir.path(), &line).expect(2, &["micro"]);
    run(dir.path(), &format!("{cse} --size 32x32 --task sr4")).expect(2, &["--input", "--scenes"]);
    run(
        dir.path(),
        &format!("{cse} --task sr3 --scenes 4 --size 32x32"),
    )
    .expect(2, &["multiples of 3"]);
    let line = "train cse -o c --model nowhere --task sr4 --scenes 4 --size 32x32 --device cpu";
    run(dir.path(), line).expect(1, &["nowhere"]);
    assert_eq!(tree(&dir.path().join("c")), [""; 0]);
}

/// `line` without `flag` and its value, so that it can be given again.
fn without(line: &str, flag: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let kept = words.chunks(2).filter(|pair| pair[0] != flag);
    kept.flatten().copied().collect::<Vec<_>>().join(" ")
}

#[test]
fn images_that_cannot_be_used() {
    let dir = configured();
    let line = &format!("{TRAIN} -i images --steps 4 --augment none");
    run(dir.path(), line).expect(1, &["images"]);
    fs::create_dir(dir.path().join("images")).unwrap();
    run(dir.path(), line).expect(1, &["images: holds no images"]);
    pictures(dir.path(), &[("s.png", 31), ("t.png", 8)]);
    let ran =
        run(dir.path(), line).expect(1, &["none of the 2 training images can be used", "32 x 32"]);
    assert_eq!(ran.records("train").len(), 0);

    // 4 images a step, 3 epochs over 5: each bad one is met again and again, and told once.
    let dir = configured();
    pictures(
        dir.path(),
        &[
            ("a.png", 40),
            ("b.png", 33),
            ("c.png", 64),
            ("small.png", 31),
        ],
    );
    fs::write(dir.path().join("images/bad.png"), "no image").unwrap();
    let ran = run(dir.path(), line).expect(0, &["skipped bad.png", "skipped small.png"]);
    assert_eq!(ran.records("train").len(), 4);
    let mut skipped: Vec<Value> = ran
        .records("skipped")
        .iter()
        .map(|r| r["item"].clone())
        .collect();
    skipped.sort_by_key(Value::to_string);
    assert_eq!(skipped, ["bad.png", "small.png"]);
}

#[test]
fn a_run_that_diverges_stops_and_leaves_the_checkpoint_before() {
    let dir = configured();
    let line =
        "train autoencoder -o m --scenes 4 --size 32x32 --batch 2 --micro 2 --device cpu --json";
    let wild = format!("{line} --lr 1e6 --clip 0 --steps 100 --save-every 1000");
    let ran =
        run(dir.path(), &wild).expect(1, &["training diverged at step", "lower the learning rate"]);
    let steps = ran.records("train").len();
    assert!(
        ran.stderr.contains(&format!("at step {steps}:")),
        "{}",
        ran.stderr
    );
    assert!(
        ran.records("error")[0]["error"]
            .as_str()
            .unwrap()
            .contains("diverged")
    );
    let state = Checkpoint::open_file(dir.path().join(STATE)).unwrap();
    assert!(!dir.path().join("m/vae").join(MODEL_FILE).exists());
    for name in state.names() {
        assert_eq!(state.need(name).unwrap().not_finite(), None, "{name}");
    }
    assert_eq!(state.about()["posteriori.losses"], "[]");
}

#[test]
fn what_is_no_number_is_neither_saved_nor_exported() {
    let dir = configured();
    let line = |flags: &str| {
        let common = "train autoencoder -o m --scenes 2 --size 32x32 --device cpu";
        format!("{common} --batch 2 --micro 2 --steps 1 --save-every 1 {flags}")
    };
    let model = dir.path().join("m/vae").join(MODEL_FILE);
    let named = [
        "training diverged at step 0: the parameter `",
        "that became ",
    ];
    run(dir.path(), &line("--lr 1e300")).expect(1, &named);
    let state = Checkpoint::open_file(dir.path().join(STATE)).unwrap();
    for name in state.names() {
        assert_eq!(state.need(name).unwrap().not_finite(), None, "{name}");
    }
    assert_eq!(state.about()["posteriori.losses"], "[]");
    assert!(!model.exists());
    // A number of 32 bits that is none of 16.
    let dir = configured();
    let model = dir.path().join("m/vae").join(MODEL_FILE);
    let named = ["of the parameter `", "` is not finite as f16"];
    run(dir.path(), &line("--lr 1e5 --store f16")).expect(1, &named);
    assert!(!model.exists());
}

/// The limit on the size of a file stands in for a disk that is full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_checkpoint_before() {
    let dir = configured();
    let line = |steps| format!("{TRAIN} --scenes 4 --steps {steps} --save-every 1");
    run(dir.path(), &line(2)).expect(0, &[]);
    let before = files(dir.path());
    let bytes = fs::metadata(dir.path().join(STATE)).unwrap().len();
    // Too little by a half.
    let ran = run_with_little_room(dir.path(), bytes / 2048, &line(4));
    ran.expect(1, &[STATE, "cannot be written", "too large"]);
    assert_eq!(tree(&dir.path().join("m")).len(), before.len());
    assert!(files(dir.path()) == before);
    let ran = run(dir.path(), &line(4)).expect(0, &[]);
    assert_eq!(ran.records("train")[0]["step"], 2);
}

#[test]
fn samples_of_a_model_are_what_the_run_says() {
    let dir = configured();
    run(dir.path(), &format!("{TRAIN} --scenes 4 --steps 1")).expect(0, &[]);
    let common = "--size 32x32 --steps 1 --batch 2 --micro 2 --device cpu --json";
    run(
        dir.path(),
        &format!("train denoiser -o m --scenes 4 {common}"),
    )
    .expect(0, &[]);
    let line = |folder: &str, flags: &str| {
        let line = format!("train cse -o {folder} --model m --task sr4 {common}");
        run(dir.path(), &format!("{line} {flags}"))
    };
    line("c", "--self-generated 3").expect(0, &[]);
    let samples = || files_of(&dir.path().join("c/self-generated"));
    let (want, state) = (samples(), dir.path().join("c/training.safetensors"));
    assert_eq!(want.len(), 3);
    // Those that are there are of another run.
    fs::remove_file(&state).unwrap();
    fs::remove_file(dir.path().join("c").join(MODEL_FILE)).unwrap();
    for (flags, named) in [
        ("--seed 7", "--seed: wanted 0"),
        ("--size 48x48", "--size: wanted 32x32"),
        ("--precision f64", "--precision: wanted f32"),
    ] {
        let flags = format!("--self-generated 3 {flags}");
        let line = format!("train cse -o c --model m --task sr4 {common} {flags}");
        let flag = flags.split(' ').nth(2).unwrap();
        let line = match flag {
            "--size" => line.replacen("--size 32x32 ", "", 1),
            _ => line,
        };
        run(dir.path(), &line).expect(2, &[named, "samples.json", "self-generated"]);
    }
    let weights = dir.path().join("m/unet").join(MODEL_FILE);
    let bytes = fs::read(&weights).unwrap();
    let mut others = bytes.clone();
    *others.last_mut().unwrap() ^= 1;
    fs::write(&weights, others).unwrap();
    line("c", "--self-generated 3").expect(2, &["--model: wanted "]);
    fs::write(&weights, bytes).unwrap();
    let notes = dir.path().join("c/self-generated/.posteriori/samples.json");
    let text = fs::read(&notes).unwrap();
    fs::remove_file(&notes).unwrap();
    line("c", "--self-generated 3").expect(2, &["samples.json: is missing"]);
    assert!(samples() == want && !state.exists());
    fs::write(&notes, text).unwrap();
    // Fewer: the first of them, as if there were no others.
    line("c", "--self-generated 2").expect(0, &[]);
    line("d", "--self-generated 2").expect(0, &[]);
    assert!(samples() == want);
    let trained = |folder: &str| fs::read(dir.path().join(folder).join(MODEL_FILE)).unwrap();
    assert!(trained("c") == trained("d"));
}

/// The files of a folder with what is in them.
fn files_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| (name.clone(), fs::read(folder.join(&name)).unwrap());
    tree(folder).into_iter().map(read).collect()
}

#[test]
fn a_folder_has_one_run_at_a_time() {
    let dir = configured();
    let line = format!("{TRAIN} --scenes 4 --steps 100000 --save-every 100000");
    let mut first = start(dir.path(), &line, None);
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    assert!(lines.next().is_some_and(|line| line.is_ok()));
    let second = run(dir.path(), &format!("{TRAIN} --scenes 4 --steps 1"));
    first.kill().unwrap();
    first.wait().unwrap();
    second.expect(
        1,
        &["m/vae/.training.lock", "another run trains in this folder"],
    );
    // The one that was killed holds nothing.
    run(dir.path(), &format!("{TRAIN} --scenes 4 --steps 1")).expect(0, &[]);
    assert!(!dir.path().join("m/vae/.training.lock").exists());
}

#[test]
fn a_denoiser_of_pixels_in_a_new_folder() {
    let dir = tempfile::tempdir().unwrap();
    let line =
        "train denoiser -o m --scenes 2 --size 32x32 --steps 1 --batch 2 --micro 2 --device cpu";
    run(dir.path(), line).expect(0, &[]);
    let line = "generate --model m -o x.png --steps 1 --size 32x32 --device cpu";
    run(dir.path(), line).expect(0, &[]);
    assert!(dir.path().join("x.png").exists());
    // One of latents, and no autoencoder beside it.
    let dir = configured();
    fs::remove_dir_all(dir.path().join("m/vae")).unwrap();
    let line =
        "train denoiser -o m --scenes 2 --size 32x32 --steps 1 --batch 2 --micro 2 --device cpu";
    let named = [
        "m/unet/config.json",
        "there is no vae/ beside it",
        "UNet2DConditionModel of 4 channels in",
        "train the autoencoder",
    ];
    run(dir.path(), line).expect(2, &named);
    assert_eq!(tree(&dir.path().join("m")), ["unet/config.json"]);
    // One of other latents.
    let dir = configured();
    let config = dir.path().join("m/vae/config.json");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("\"latent_channels\": 4", "\"latent_channels\": 8");
    fs::write(&config, text).unwrap();
    run(dir.path(), line).expect(2, &["wanted 8 channels in and out", "of 4 channels in"]);
}

#[test]
fn an_autoencoder_a_denoiser_and_an_estimator_that_restores() {
    let dir = configured();
    run(dir.path(), &format!("{TRAIN} --scenes 4 --steps 1")).expect(0, &[]);
    let common = "--size 32x32 --steps 2 --batch 2 --micro 2 --lr 1e-3 --device cpu --json";
    run(
        dir.path(),
        &format!("train denoiser -o m --scenes 4 {common}"),
    )
    .expect(0, &[]);
    let line = format!("train cse -o c --model m --task sr4 --self-generated 3 {common}");
    let ran = run(dir.path(), &line).expect(0, &[]);
    assert_eq!(ran.records("train").len(), 2);
    let drawn = ["000000.png", "000001.png", "000002.png"];
    assert_eq!(tree(&dir.path().join("c/self-generated")), drawn);
    fs::create_dir(dir.path().join("y")).unwrap();
    save(
        dir.path().join("y/a.png"),
        &picture(8, 8, 1),
        Format::Png,
        &[],
    )
    .unwrap();
    let line =
        "restore -i y -o x --model m --cse c --task sr4 --method ancestral --steps 2 --device cpu";
    run(dir.path(), line).expect(0, &[]);
    assert_eq!(tree(&dir.path().join("x")), ["a.png"]);
}
