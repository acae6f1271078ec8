//! Model folders that are damaged: named, refused, and nothing written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{folder, run, tree};
use crate::oracle;

const WEIGHTS: &str = "model/unet/diffusion_pytorch_model.safetensors";

/// Restores with a copy of the tiny pixel model that `damage` has been at.
#[track_caller]
fn refused(code: i32, named: &[&str], damage: impl Fn(&Path)) {
    let dir = folder(&["a.png"]);
    let from = oracle::checkpoint("tiny-pixel");
    for name in tree(&from) {
        let to = dir.path().join("model").join(&name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from.join(&name), to).unwrap();
    }
    damage(dir.path());
    let line = "restore -i y -o x --model model --task sr8 --method dps --steps 1";
    run(dir.path(), line).expect(code, named);
    assert!(!dir.path().join("x").exists());
    let ran = run(dir.path(), "doctor --model model").expect(code, &[]);
    assert!(ran.stdout.contains("fix:"), "{}", ran.stdout);
}

type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// Rewrites the weights after `change` has been at them.
fn change_weights(dir: &Path, change: impl Fn(&mut BTreeMap<String, Stored>)) {
    let path: PathBuf = dir.join(WEIGHTS);
    let bytes = fs::read(&path).unwrap();
    let mut all: BTreeMap<String, Stored> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .tensors()
        .into_iter()
        .map(|(name, v)| (name, (v.dtype(), v.shape().to_vec(), v.data().to_vec())))
        .collect();
    change(&mut all);
    let views = all.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &path).unwrap();
}

/// Rewrites the bytes of the weights file after `change` has been at them.
fn change_bytes(dir: &Path, change: impl Fn(&mut Vec<u8>)) {
    let path = dir.join(WEIGHTS);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_tensor_that_is_missing_misshapen_or_nan() {
    refused(1, &["weight `unet/conv_in.weight`", "missing"], |dir| {
        change_weights(dir, |all| drop(all.remove("conv_in.weight")));
    });
    refused(1, &["conv_in.bias", "shape"], |dir| {
        change_weights(dir, |all| {
            let (_, shape, bytes) = all.get_mut("conv_in.bias").unwrap();
            shape[0] -= 1;
            bytes.truncate(4 * shape[0]);
        });
    });
    // By its place in the file, whose order is not that of the layer.
    refused(1, &["unet/conv_in.weight", "element 5 is NaN"], |dir| {
        change_weights(dir, |all| {
            let (_, _, bytes) = all.get_mut("conv_in.weight").unwrap();
            bytes[4 * 5..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
        });
    });
    refused(1, &["conv_out.bias"], |dir| {
        change_weights(dir, |all| {
            let (_, _, bytes) = all.get_mut("conv_out.bias").unwrap();
            bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        });
    });
}

#[test]
fn a_file_that_is_cut_or_flipped() {
    let name = "diffusion_pytorch_model.safetensors";
    refused(1, &[name], |dir| {
        change_bytes(dir, |b| b.truncate(b.len() - 7))
    });
    refused(1, &[name], |dir| change_bytes(dir, |b| b.truncate(5)));
    // a header longer than the file
    refused(1, &[name, "header"], |dir| {
        change_bytes(dir, |b| b[6] ^= 0x10)
    });
    // a bit of the header's JSON
    refused(1, &[name, "header"], |dir| change_bytes(dir, |b| b[8] ^= 1));
    refused(1, &["unet"], |dir| {
        fs::remove_file(dir.join(WEIGHTS)).unwrap()
    });
}

#[test]
fn a_configuration_of_another_kind() {
    let edit = |dir: &Path, file: &str, from: &str, to: &str| {
        let path = dir.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    };
    refused(2, &["config.json", "FluxTransformer"], |dir| {
        edit(
            dir,
            "model/unet/config.json",
            "UNet2DModel",
            "FluxTransformer",
        );
    });
    refused(2, &["config.json", "JSON"], |dir| {
        fs::write(dir.join("model/unet/config.json"), "{").unwrap();
    });
    refused(1, &["scheduler_config.json"], |dir| {
        fs::remove_file(dir.join("model/scheduler/scheduler_config.json")).unwrap();
    });
}
