//! Whole runs: one that stops and goes on is one that never stopped; what comes out is a model; what a run begins with.

use std::fs;
use std::path::Path;

use posteriori::io::image::Image;
use posteriori::io::weights::{Checkpoint, Kind};
use posteriori::pipeline::Pipeline;
use posteriori::pipeline::job::{Method, Restore};
use posteriori::rng::Stream;
use posteriori::train::data::{Augment, Batches, Source};
use posteriori::train::job::{Job, Model, Progress};
use posteriori::train::{Decay, Record, Settings};
use posteriori::{Device, Result, Task};

use super::{MODEL_FILE, configure};
#[cfg(feature = "emu")]
use crate::oracle;

const SIZE: [usize; 2] = [32, 32];
const STATE_FILE: &str = "training.safetensors";

fn job(folder: &Path, model: Model, steps: usize) -> Job {
    let settings = Settings {
        steps,
        batch: 4,
        micro: 2,
        lr: 1e-3,
        warmup: 3,
        ema: Some(0.9),
        seed: 8,
        ..Settings::default()
    };
    Job {
        model,
        folder: folder.to_owned(),
        size: SIZE,
        settings,
        made_of: vec![("images", "8 scenes".into())],
        save_every: 4,
        kind: Kind::F32,
    }
}

/// The losses of the steps that were taken.
fn run(job: &Job) -> Result<Vec<f64>> {
    let records = run_on(&Device::cpu(), job)?;
    Ok(records.iter().map(|record| record.loss).collect())
}

fn run_on(device: &Device, job: &Job) -> Result<Vec<Record>> {
    let images = Batches::new(Source::scenes(3, 8)?, Augment::paper(SIZE), 8)?;
    let mut records = Vec::new();
    job.run(device, &images, &mut |progress| {
        if let Progress::Step(record) = progress {
            records.push(record.clone());
        }
    })?;
    Ok(records)
}

fn autoencoder() -> Model {
    Model::Autoencoder { kl_weight: 1e-3 }
}

fn cse(prior: &Path) -> Model {
    Model::Cse {
        task: Task::super_resolution(4),
        prior: prior.to_owned(),
    }
}

/// A model folder after one step of its autoencoder and one of its denoiser.
fn prior() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    run(&job(folder.path(), autoencoder(), 1)).unwrap();
    run(&job(folder.path(), Model::Denoiser, 1)).unwrap();
    folder
}

/// A folder in which this can be trained from the beginning.
fn fresh(model: &Model, prior: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    match model {
        Model::Cse { .. } => {}
        Model::Autoencoder { .. } => configure(folder.path()),
        Model::Denoiser => {
            configure(folder.path());
            let vae = folder.path().join("vae");
            for name in ["config.json", MODEL_FILE] {
                fs::copy(prior.join("vae").join(name), vae.join(name)).unwrap();
            }
        }
    }
    folder
}

fn same_files(component: &Path, other: &Path) {
    for name in [STATE_FILE, MODEL_FILE, "config.json", "loss.svg"] {
        let [a, b] = [component, other].map(|folder| fs::read(folder.join(name)).unwrap());
        assert!(a == b, "{name} of {} differs", component.display());
    }
}

#[test]
fn a_run_that_goes_on_is_one_that_never_stopped() {
    let prior = prior();
    for model in [autoencoder(), Model::Denoiser, cse(prior.path())] {
        let [whole, parts] = [(); 2].map(|()| fresh(&model, prior.path()));
        let at = |folder: &tempfile::TempDir, steps| job(folder.path(), model.clone(), steps);
        let want = run(&at(&whole, 12)).unwrap();
        let first = run(&at(&parts, 5)).unwrap();
        let one_thread = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        let rest = one_thread.install(|| run(&at(&parts, 12))).unwrap();
        assert_eq!((want.len(), first.len(), rest.len()), (12, 5, 7));
        assert_eq!([first, rest].concat(), want);
        same_files(&at(&parts, 12).component(), &at(&whole, 12).component());
        // There is nothing left to do, and doing that changes nothing.
        assert!(run(&at(&parts, 12)).unwrap().is_empty());
        same_files(&at(&parts, 12).component(), &at(&whole, 12).component());
    }
}

#[test]
fn a_run_of_another_recipe_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    let first = job(folder.path(), autoencoder(), 2);
    run(&first).unwrap();
    let state = folder.path().join("vae").join(STATE_FILE);
    let before = fs::read(&state).unwrap();
    type Change = fn(&mut Job);
    let changes: [(Change, &str); 9] = [
        (|job| job.settings.lr = 1e-4, "lr: 0.001 then, 0.0001 now"),
        (|job| job.settings.seed = 9, "seed: 8 then, 9 now"),
        (|job| job.settings.micro = 4, "micro: 2 then, 4 now"),
        (|job| job.settings.warmup = 0, "warmup: 3 then, 0 now"),
        (|job| job.settings.clip = None, "clip: 1.0 then, null now"),
        (|job| job.settings.ema = None, "ema: 0.9 then, null now"),
        (
            |job| job.settings.decay = Decay::Cosine,
            "decay: \"constant\" then, \"cosine\" now",
        ),
        (|job| job.settings.steps = 1, "steps: 2 then, 1 now"),
        (
            |job| job.made_of[0].1 = "9 scenes".into(),
            "images: \"8 scenes\" then, \"9 scenes\" now",
        ),
    ];
    for (change, named) in changes {
        let mut other = first.clone();
        change(&mut other);
        let message = run(&other).unwrap_err().to_string();
        assert!(
            message.contains(named) && message.contains(STATE_FILE),
            "{message}"
        );
        assert!(fs::read(&state).unwrap() == before, "{named}");
    }
    let other = Device::cpu().with_precision("f64").unwrap();
    let message = run_on(&other, &first).unwrap_err().to_string();
    assert!(
        message.contains("precision: \"f32\" then, \"f64\" now"),
        "{message}"
    );
    // A falling learning rate falls otherwise in a longer run.
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    let mut falling = job(folder.path(), autoencoder(), 2);
    falling.settings.decay = Decay::Cosine;
    run(&falling).unwrap();
    falling.settings.steps = 3;
    let message = run(&falling).unwrap_err().to_string();
    assert!(message.contains("steps: 2 then, 3 now"), "{message}");
}

#[test]
fn a_run_over_other_frozen_weights_is_refused() {
    let prior = prior();
    for model in [Model::Denoiser, cse(prior.path())] {
        let folder = fresh(&model, prior.path());
        run(&job(folder.path(), model.clone(), 1)).unwrap();
        let frozen = match &model {
            Model::Denoiser => folder.path().join("vae"),
            _ => prior.path().join("unet"),
        };
        let file = frozen.join(MODEL_FILE);
        let mut bytes = fs::read(&file).unwrap();
        // The last bit of the last value but its sign and exponent.
        let at = bytes.len() - 4;
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        let message = run(&job(folder.path(), model, 2)).unwrap_err().to_string();
        assert!(message.contains("frozen weights: "), "{message}");
    }
}

#[test]
fn values_that_a_run_drew_and_left_are_not_the_next_ones() {
    let [left, clean] = [(); 2].map(|()| fresh(&autoencoder(), Path::new("")));
    fs::write(left.path().join("vae/drawn.safetensors"), "of another seed").unwrap();
    for folder in [&left, &clean] {
        run(&job(folder.path(), autoencoder(), 2)).unwrap();
    }
    same_files(&left.path().join("vae"), &clean.path().join("vae"));
    assert!(!left.path().join("vae/drawn.safetensors").exists());
}

#[test]
fn checkpoints_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    let job = job(folder.path(), autoencoder(), 2);
    run(&job).unwrap();
    let component = folder.path().join("vae");
    let (state, model) = (component.join(STATE_FILE), component.join(MODEL_FILE));
    let whole = fs::read(&state).unwrap();
    fs::write(&state, &whole[..whole.len() / 2]).unwrap();
    let message = run(&job).unwrap_err().to_string();
    assert!(message.contains(STATE_FILE), "{message}");
    fs::copy(&model, &state).unwrap();
    let message = run(&job).unwrap_err().to_string();
    assert!(message.contains("no checkpoint of training"), "{message}");
}

/// What is trained opens and draws pictures; the autoencoder's scaling factor makes latents of unit variance.
#[test]
fn what_comes_out_is_a_model() {
    let folder = prior();
    let pipeline = Pipeline::open(folder.path(), Device::cpu()).unwrap();
    assert_eq!(pipeline.unread(), [""; 0]);
    let scale = pipeline
        .prior()
        .vae
        .as_ref()
        .unwrap()
        .config()
        .scaling_factor;
    assert!(scale > 0.0 && scale != 0.8, "{scale}");
    let restore = Restore::new(Task::super_resolution(4), Method::ancestral().steps(3));
    let generated = pipeline
        .generate(&restore, SIZE, &[Stream::new(1, 2, 0)], |_| ())
        .unwrap();
    let finite = |image: &Image| image.pixels.iter().all(|v| v.is_finite());
    for image in generated {
        let image = image.unwrap().image;
        assert!([image.height, image.width] == SIZE && finite(&image));
    }

    let controlnet = tempfile::tempdir().unwrap();
    let mut training = job(controlnet.path(), cse(folder.path()), 2);
    training.kind = Kind::F16;
    run(&training).unwrap();
    let conditional = Pipeline::open(folder.path(), Device::cpu()).unwrap();
    let conditional = conditional.with_controlnet(controlnet.path()).unwrap();
    assert_eq!(conditional.unread(), [""; 0]);
    let y = Image::new(8, 8, vec![0.25; 8 * 8 * 3]).unwrap();
    let restored = conditional.restore(&restore, &y, |_| ()).unwrap().image;
    assert!([restored.height, restored.width] == SIZE && finite(&restored));
    assert_ne!(
        restored.pixels,
        pipeline.restore(&restore, &y, |_| ()).unwrap().image.pixels
    );
    // The averages in 16 bits.
    let [model, state] = [MODEL_FILE, STATE_FILE]
        .map(|name| Checkpoint::open_file(controlnet.path().join(name)).unwrap());
    for name in model.names() {
        let (stored, average) = (
            model.need(name).unwrap(),
            state.need(&format!("ema.{name}")).unwrap(),
        );
        assert_eq!(stored.dtype, Kind::F16);
        let rounded = |v: f32| half::f16::from_f32(v).to_f32();
        let want: Vec<f32> = average.to_f32().unwrap().into_iter().map(rounded).collect();
        assert_eq!(stored.to_f32().unwrap(), want, "{name}");
    }
}

/// The values of a file by name.
fn tensors(path: &Path) -> Vec<(String, Vec<f32>)> {
    let file = Checkpoint::open_file(path).unwrap();
    let value = |name: &str| (name.to_owned(), file.need(name).unwrap().to_f32().unwrap());
    file.names().map(value).collect()
}

#[test]
fn a_model_that_is_there_is_not_trained_over() {
    let folder = prior();
    for (component, model) in [("vae", autoencoder()), ("unet", Model::Denoiser)] {
        let component = folder.path().join(component);
        fs::remove_file(component.join(STATE_FILE)).unwrap();
        let left = || -> Vec<_> {
            let files = fs::read_dir(&component).unwrap();
            let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
            paths.sort();
            let bytes = |path: &std::path::PathBuf| fs::read(path).unwrap();
            paths
                .iter()
                .map(|path| (path.clone(), bytes(path)))
                .collect()
        };
        let mut before = MODEL_FILE;
        for name in [
            MODEL_FILE,
            "diffusion_pytorch_model.fp16.safetensors",
            "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model.bin",
            "other.safetensors",
        ] {
            fs::rename(component.join(before), component.join(name)).unwrap();
            before = name;
            let there = left();
            let error = run(&job(folder.path(), model.clone(), 1)).unwrap_err();
            assert!(matches!(error, posteriori::Error::Config { .. }), "{error}");
            let message = error.to_string();
            let named = message.contains(name) && message.contains("another output folder");
            assert!(named, "{message}");
            assert!(left() == there, "{name}");
        }
    }
}

/// A ControlNet begins with the values of its UNet, and such that it changes nothing.
#[test]
fn what_a_run_begins_with() {
    let folder = prior();
    let begins = |job: &Job| {
        let images = Batches::new(Source::scenes(3, 8).unwrap(), Augment::none(SIZE), 8).unwrap();
        let state = job.component().join(STATE_FILE);
        let mut start = Vec::new();
        job.run(&Device::cpu(), &images, &mut |progress| {
            if let Progress::Step(record) = progress
                && record.step == 0
            {
                start = tensors(&state);
            }
        })
        .unwrap();
        start.retain(|(name, _)| !["adamw.", "ema."].iter().any(|kind| name.starts_with(kind)));
        start
    };
    let unet = tensors(&folder.path().join("unet").join(MODEL_FILE));
    let controlnet = tempfile::tempdir().unwrap();
    let start = begins(&job(controlnet.path(), cse(folder.path()), 1));
    let mut copied = 0;
    for (name, values) in &start {
        let of_unet = unet.iter().find(|(of_unet, _)| of_unet == name);
        if let Some((_, of_unet)) = of_unet {
            assert_eq!(values, of_unet, "{name}");
            copied += 1;
        }
        let silent = [
            "controlnet_down_blocks.",
            "controlnet_mid_block.",
            "controlnet_cond_embedding.conv_out.",
        ];
        let zero = values.iter().all(|v| *v == 0.0);
        assert!(
            zero || !silent.iter().any(|of| name.starts_with(of)),
            "{name}"
        );
    }
    let shared = unet.iter().filter(|(name, _)| {
        !["up_blocks.", "conv_out.", "conv_norm_out."]
            .iter()
            .any(|of| name.starts_with(of))
    });
    assert_eq!(copied, shared.count());
}

#[test]
fn sizes_that_a_model_cannot_take_are_refused_before_any_work() {
    let folder = prior();
    let controlnet = tempfile::tempdir().unwrap();
    let new = tempfile::tempdir().unwrap();
    configure(new.path());
    for (folder, model, size, named) in [
        (new.path(), autoencoder(), [32, 33], "multiples of 2"),
        (new.path(), Model::Denoiser, [34, 32], "multiples of 4"),
        (
            controlnet.path(),
            cse(folder.path()),
            [32, 34],
            "multiples of 4",
        ),
    ] {
        let mut job = job(folder, model, 1);
        job.size = size;
        let message = run(&job).unwrap_err().to_string();
        let [h, w] = size;
        assert!(
            message.contains(named)
                && message.contains(&format!("{h}"))
                && message.contains(&format!("{w}")),
            "{message}"
        );
        let component = job.component();
        assert!(!component.join(MODEL_FILE).exists() && !component.join(STATE_FILE).exists());
    }
}

/// The `.cu` kernels take the steps that the native ones take. Both round to f32, in other orders; what a step makes of
/// that is small against the loss.
#[cfg(feature = "emu")]
#[test]
fn steps_on_the_emulator_are_those_of_the_processor() {
    let prior = prior();
    for model in [autoencoder(), Model::Denoiser, cse(prior.path())] {
        let records = [Device::cpu(), Device::emu()].map(|device| {
            let folder = fresh(&model, prior.path());
            let mut job = job(folder.path(), model.clone(), 2);
            (job.settings.batch, job.settings.micro) = (2, 1);
            run_on(&device, &job).unwrap()
        });
        let [want, got] = records.map(|all| -> Vec<f64> {
            all.iter()
                .flat_map(|record| [record.loss, record.norm])
                .collect()
        });
        oracle::assert_close(&format!("{model:?}"), &got[..2], &want[..2], 1e-5, 0.0);
        oracle::assert_close(&format!("{model:?}"), &got[2..], &want[2..], 1e-4, 0.0);
    }
}
