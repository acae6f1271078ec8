//! The tiny checkpoints against PyTorch and diffusers: every tensor of every golden file.

use std::path::Path;

use posteriori::Cx;
use posteriori::pipeline::prior::Prior;
use posteriori::verify::{Report, verify};
#[cfg(feature = "emu")]
use posteriori::{DType, runtime::Runtime};

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
/// ControlNet, in every storage type. `.ci/run` has the whole of a file.
#[cfg(feature = "emu")]
#[test]
fn kernels_on_the_emulator() {
    const SOME: [&str; 7] = [
        "clip/",
        "unet/t500",
        "cn/t500/",
        "vae/",
        "meas/sr8/t500",
        "traj/dps_sr8",
        "traj/cse_dmap2_sr8",
    ];
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        let cx = Cx::new(Runtime::emu(Default::default()), dtype).unwrap();
        assert!(check_on(&cx, "tiny-sd1", &SOME).rows.len() > 30, "{dtype}");
    }
    let cx = Cx::new(Runtime::emu(Default::default()), DType::F32).unwrap();
    let rows = check_on(&cx, "tiny-pixel", &["traj/dsg", "traj/freedom"]).rows;
    assert_eq!(rows.len(), 12);
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
