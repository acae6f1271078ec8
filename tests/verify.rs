//! The tiny checkpoints against PyTorch and diffusers: every tensor of every golden file.

use std::collections::BTreeMap;
use std::path::Path;

use posteriori::Cx;
use posteriori::io::weights::{Kind, Stored, write_safetensors};
use posteriori::pipeline::prior::Prior;
use posteriori::verify::{Report, verify};
#[cfg(feature = "emu")]
use posteriori::{DType, runtime::Runtime};
use serde_json::json;

use crate::oracle;

fn check(name: &str) -> Report {
    check_on(&Cx::native(), name, &[])
}

fn check_on(cx: &Cx, name: &str, only: &[&str]) -> Report {
    let model = oracle::checkpoint(name);
    let goldens = oracle::data(&format!("fixtures/{name}.safetensors"));
    let only: Vec<String> = only.iter().map(|text| (*text).into()).collect();
    let report = verify(&model, None, &goldens, &only, cx, &mut |_| ()).unwrap();
    let failed: Vec<_> = report.rows.iter().filter(|row| !row.passed()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(report.unknown, Vec::<String>::new());
    report
}

#[test]
fn tiny_sd2() {
    assert!(check("tiny-sd2").rows.len() > 300);
}

#[test]
fn tiny_sd1() {
    assert!(check("tiny-sd1").rows.len() > 280);
}

#[test]
fn tiny_pixel() {
    assert!(check("tiny-pixel").rows.len() > 180);
}

/// The `.cu` kernels, on the emulator: networks forward and backward, and trajectories without and with a
/// ControlNet, in every storage type.
#[cfg(feature = "emu")]
mod kernels_on_the_emulator {
    use super::*;

    fn check_some(dtype: DType) {
        let some = [
            "clip/",
            "unet/t500",
            "cn/t500/",
            "vae/",
            "meas/sr8/t500",
            "traj/dps_sr8",
            "traj/cse_dmap2_sr8",
        ];
        let cx = Cx::new(Runtime::emu(Default::default()), dtype).unwrap();
        assert!(check_on(&cx, "tiny-sd1", &some).rows.len() > 30, "{dtype}");
    }

    #[test]
    fn in_f32() {
        check_some(DType::F32);
    }

    #[test]
    fn in_bf16() {
        check_some(DType::Bf16);
    }

    #[test]
    fn in_f16() {
        check_some(DType::F16);
    }

    #[test]
    fn of_pixels() {
        let cx = Cx::new(Runtime::emu(Default::default()), DType::F32).unwrap();
        let rows = check_on(&cx, "tiny-pixel", &["traj/dsg", "traj/freedom"]).rows;
        assert_eq!(rows.len(), 12);
    }
}

/// A ControlNet's weight gradients and three steps of AdamW, by the `.cu` kernels.
#[cfg(feature = "emu")]
#[test]
fn training_on_the_emulator() {
    for dtype in [DType::F32, DType::Bf16] {
        let cx = Cx::new(Runtime::emu(Default::default()), dtype).unwrap();
        let rows = check_on(&cx, "tiny-sd1", &["train/"]).rows;
        assert!(rows.len() > 40, "{dtype}: {}", rows.len());
    }
}

/// Writes a golden file of zeros of these shapes and, without a shape, of what is to be computed of one number.
fn zeros(path: &Path, tensors: &[(&str, &[usize])]) {
    let bytes = |shape: &[usize]| vec![0; 4 * shape.iter().product::<usize>()];
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, shape)| bytes(shape)).collect();
    let stored = tensors.iter().zip(&bytes);
    let stored: Vec<_> = stored
        .map(|((name, shape), bytes)| Stored {
            name,
            kind: Kind::F32,
            shape,
            bytes,
        })
        .collect();
    write_safetensors(path, &stored, &[]).unwrap();
    let entries = tensors.iter().map(|(name, shape)| {
        let role = if shape.is_empty() { "output" } else { "input" };
        (*name, json!({ "role": role, "shape": shape }))
    });
    let entries: BTreeMap<_, _> = entries.collect();
    let index = json!({ "tensors": entries }).to_string();
    std::fs::write(path.with_extension("index.json"), index).unwrap();
}

/// A side in a golden's name is taken for nothing that the tensor does not bear out.
#[test]
fn sides_in_names_are_those_of_the_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.safetensors");
    let (model, cx) = (oracle::checkpoint("tiny-sd1"), Cx::native());
    let said = |tensors: &[(&str, &[usize])]| {
        zeros(&path, tensors);
        let report = verify(&model, None, &path, &[], &cx, &mut |_| ());
        report.unwrap_err().to_string()
    };
    let huge = format!("vae/{}/z", usize::MAX);
    for (name, shape, want) in [
        ("vae/0/z", [1, 4, 1, 1], "[1, 4, 0, 0]"),
        ("vae/8/z", [1, 4, 4, 4], "[1, 4, 8, 8]"),
        ("vae/8/z", [1, 4, 8, 4], "[1, 4, 8, 8]"),
        ("vae/4/z", [2, 4, 4, 4], "[1, 4, 4, 4]"),
        (&huge, [1, 4, 1, 1], "[1, 4, 18446744073709551615, "),
    ] {
        let error = said(&[(name, &shape)]);
        let named = error.contains(&format!("{name}: wanted shape {want}"));
        assert!(
            named && error.contains(&format!("got {shape:?}")),
            "{error}"
        );
    }
    let error = said(&[("vae/16/z", &[1, 4, 16, 16]), ("vae/16/img_crop64", &[])]);
    assert!(error.contains("vae/16/img_crop64: wanted"), "{error}");
    assert!(
        error.contains("160 x 160 or more, got 128 x 128"),
        "{error}"
    );
    let error = said(&[
        ("unet/ctx", &[1, 3, 24]),
        ("unet/8/z", &[1, 4, 4, 4]),
        ("unet/8/cot", &[1, 4, 4, 4]),
        ("cn/8/eps", &[]),
    ]);
    assert!(
        error.contains("unet/8/z: wanted shape [1, 4, 8, 8]"),
        "{error}"
    );
}

/// Files from before diffusers 0.15 call the autoencoder's projections `query, key, value, proj_attn`.
#[test]
fn old_attention_names_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let new = oracle::checkpoint("tiny-sd1");
    oracle::with_legacy_names(&new, folder.path());
    let cx = Cx::native();
    let decode = |folder: &Path| {
        let prior = Prior::open(&cx, folder).unwrap();
        assert_eq!(prior.unread, Vec::<String>::new());
        let z = cx.upload(&[0.5f32; 4 * 4 * 4], [1, 4, 4, 4]).unwrap();
        prior
            .codec()
            .decode(&cx, &z)
            .unwrap()
            .to_vec::<f32>()
            .unwrap()
    };
    assert!(decode(&new) == decode(folder.path()));
}
