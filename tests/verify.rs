//! The tiny checkpoints against PyTorch and diffusers: every tensor of every golden file.

use std::path::Path;

use posteriori::Cx;
use posteriori::pipeline::prior::Prior;
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
    let report = verify(&model, &goldens, &Cx::native(), &mut |_| ()).unwrap();
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
