//! Weights in files instead of memory: the same results, and nothing left behind.

use std::fs;

use posteriori::io::image::Image;
use posteriori::operators::Task;
use posteriori::pipeline::Pipeline;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::job::{Method, Restore};
use posteriori::runtime::product::has_bf16;

use crate::oracle;

fn picture(device: Device) -> Vec<f32> {
    let folder = oracle::checkpoint("tiny-sd2");
    let pipeline = Pipeline::open(&folder, device.clone()).unwrap();
    let pipeline = pipeline.with_controlnet(folder.join("controlnet")).unwrap();
    let job = Restore::new(Task::super_resolution(8), Method::dps().steps(2).zeta(0.5));
    let weights = pipeline.plan(&job, [64, 64], 1).unwrap().weights;
    assert_eq!(device.rt().permanent(), Some(weights));
    let pixels = (0..8 * 8 * 3).map(|i| (i as f32 * 0.37).sin());
    let y = Image::new(8, 8, pixels.collect()).unwrap();
    pipeline.restore(&job, &y, |_| ()).unwrap().image.pixels
}

#[test]
fn offloaded_weights_give_the_same_picture_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let precisions = match has_bf16() {
        true => &["f32", "bf16"][..],
        false => &["f32"],
    };
    for precision in precisions {
        let device = Device::cpu().with_precision(precision).unwrap();
        let offloaded = device.clone().offloading(&folder).unwrap();
        assert!(picture(device) == picture(offloaded), "{precision}");
        // The order in which a device is told of both does not matter.
        let other = Device::cpu().offloading(&folder).unwrap();
        let other = other.with_precision(precision).unwrap();
        assert_eq!(other.rt().offload(), Some(folder.path()));
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_folder_that_cannot_hold_weights_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let none = Device::cpu().offloading(folder.path().join("none"));
    let why = none.unwrap_err().to_string();
    assert!(
        why.contains("none") && why.contains("cannot be put there"),
        "{why}"
    );
}

#[cfg(feature = "emu")]
#[test]
fn only_processors_leave_weights_in_files() {
    let refused = Device::emu().offloading(std::env::temp_dir());
    assert!(
        matches!(refused, Err(posteriori::Error::Argument { .. })),
        "{refused:?}"
    );
}
