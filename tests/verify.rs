//! The tiny checkpoints against PyTorch and diffusers: every tensor of every golden file.

use posteriori::pipeline::device::Device;
use posteriori::verify::{Report, verify};

use crate::oracle;

/// Tensors that need samplers or weight gradients this version does not have.
const LATER: [&str; 7] = [
    "train/",
    "psld/",
    "traj/dsg",
    "traj/freedom",
    "traj/resample",
    "traj/psld",
    "traj/dsg_b2",
];

fn check(name: &str) -> Report {
    let model = oracle::checkpoint(name);
    let goldens = oracle::data(&format!("fixtures/{name}.safetensors"));
    let report = verify(&model, &goldens, &Device::cpu(), &mut |_| ()).unwrap();
    let failed: Vec<_> = report.rows.iter().filter(|row| !row.passed()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let unknown = report
        .unknown
        .iter()
        .filter(|n| !LATER.iter().any(|later| n.starts_with(later)));
    assert_eq!(unknown.collect::<Vec<_>>(), Vec::<&String>::new());
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
