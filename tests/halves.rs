//! Weights that stay in 16 bits on processors: the same bits of results as of the same numbers in f32, in half the memory.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use posteriori::io::image::Image;
use posteriori::io::weights::{Checkpoint, Kind, Stored, write_safetensors};
use posteriori::operators::Task;
use posteriori::pipeline::Pipeline;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::job::{Method, Restore};
use posteriori::runtime::product::has_bf16;

use crate::oracle;

/// Copies a model with its weights rounded to `narrow`, stored so or in f32.
fn copy(from: &Path, to: &Path, narrow: Kind, stored: Kind) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to, narrow, stored);
        } else if path.extension().is_some_and(|e| e == "safetensors") {
            round(&path, &to, narrow, stored);
        } else {
            fs::copy(path, to).unwrap();
        }
    }
}

fn round(from: &Path, to: &Path, narrow: Kind, stored: Kind) {
    let file = Checkpoint::open_file(from).unwrap();
    let bytes = |x: f32| match (narrow, stored) {
        (Kind::F16, Kind::F16) => f16::from_f32(x).to_le_bytes().to_vec(),
        (Kind::F16, _) => f16::from_f32(x).to_f32().to_le_bytes().to_vec(),
        (_, Kind::BF16) => bf16::from_f32(x).to_le_bytes().to_vec(),
        _ => bf16::from_f32(x).to_f32().to_le_bytes().to_vec(),
    };
    let tensor = |name| {
        let view = file.get(name).unwrap();
        let values = view.to_f32().unwrap();
        let bytes: Vec<u8> = values.into_iter().flat_map(bytes).collect();
        (name, view.shape, bytes)
    };
    let all: Vec<_> = file.names().map(tensor).collect();
    let all: Vec<_> = all
        .iter()
        .map(|(name, shape, bytes)| Stored {
            name,
            kind: stored,
            shape,
            bytes,
        })
        .collect();
    write_safetensors(to, &all, &[]).unwrap();
}

/// A picture by way of UNet, autoencoder, text encoder and, where there is one, ControlNet, either way; and the bytes of
/// weights that it took, as many as were planned.
fn picture(folder: &Path, precision: &str) -> (Vec<f32>, u64) {
    let device = Device::cpu().with_precision(precision).unwrap();
    let mut pipeline = Pipeline::open(folder, device.clone()).unwrap();
    if folder.join("controlnet").is_dir() {
        pipeline = pipeline.with_controlnet(folder.join("controlnet")).unwrap();
    }
    let weights = device.rt().permanent().unwrap();
    let job = Restore::new(Task::super_resolution(8), Method::dps().steps(2).zeta(0.5));
    let pixels = (0..8 * 8 * 3).map(|i| (i as f32 * 0.37).sin());
    let y = Image::new(8, 8, pixels.collect()).unwrap();
    let plan = pipeline.plan(&job, [64, 64], 1).unwrap();
    assert_eq!(plan.weights, weights, "{}", folder.display());
    let restored = pipeline.restore(&job, &y, |_| ()).unwrap();
    (restored.image.pixels, weights)
}

#[test]
fn the_same_numbers_in_16_bits_give_the_same_picture() {
    let temporary = tempfile::tempdir().unwrap();
    let precisions: &[&str] = if has_bf16() {
        &["f32", "bf16"]
    } else {
        &["f32"]
    };
    for model in ["tiny-sd1", "tiny-sd2"] {
        for narrow in [Kind::F16, Kind::BF16] {
            let folders = [narrow, Kind::F32].map(|stored| {
                let folder = temporary.path().join(format!("{model}-{narrow}-{stored}"));
                copy(&oracle::checkpoint(model), &folder, narrow, stored);
                folder
            });
            for precision in precisions {
                let [narrow, wide] = folders.each_ref().map(|folder| picture(folder, precision));
                assert!(narrow.0 == wide.0, "{model} {precision}");
                match *precision {
                    // All but vectors and folded kernels.
                    "f32" => assert!(narrow.1 * 10 < wide.1 * 7, "{model}"),
                    _ => assert_eq!(narrow.1, wide.1, "{model}"),
                }
            }
        }
    }
}
