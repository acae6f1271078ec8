//! The prior that ships with the crate: a small latent diffusion model of [`crate::scenes`] at 64 x 64, and a conditional
//! score estimator for x4 super-resolution, both trained by this crate (`docs/experiments.md` has the commands).

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::io::atomic::{failed, write_atomic};
use crate::io::cache;

/// Height and width of the images that it knows.
pub const SIZE: [usize; 2] = [64, 64];
/// The task of the conditional score estimator, as [`crate::Task::parse`] takes it.
pub const CSE_TASK: &str = "sr4";
/// The seed of the scenes that it was trained on; scenes of any other seed are new to it.
pub const TRAINED_ON: u64 = 1;

macro_rules! file {
    ($path:literal) => {
        ($path, include_bytes!(concat!("../../prior/", $path)))
    };
}

/// Paths below the model folder, and what is there.
static FILES: &[(&str, &[u8])] = &[
    file!("model_index.json"),
    file!("scheduler/scheduler_config.json"),
    file!("unet/config.json"),
    file!("unet/diffusion_pytorch_model.safetensors"),
    file!("vae/config.json"),
    file!("vae/diffusion_pytorch_model.safetensors"),
    file!("cse-sr4/config.json"),
    file!("cse-sr4/diffusion_pytorch_model.safetensors"),
];

/// The model folder, in the user's cache: written there at first use, and again where a file is not what it should be.
///
/// # Errors
/// [`Error::Argument`] when no such folder is known, [`Error::File`] when it cannot be written.
pub fn folder() -> Result<PathBuf> {
    let root = cache::folder()?.join(concat!("prior-", env!("CARGO_PKG_VERSION")));
    for (name, bytes) in FILES {
        let path = root.join(name);
        if std::fs::read(&path).is_ok_and(|there| there == *bytes) {
            continue;
        }
        let folder = path.parent().unwrap_or(&root);
        std::fs::create_dir_all(folder).map_err(|e| {
            Error::file(
                folder,
                format!("cannot be created: {e}; set POSTERIORI_CACHE"),
            )
        })?;
        write_atomic(&path, |w| w.write_all(bytes).map_err(failed(&path)))?;
    }
    Ok(root)
}

/// The folder of the conditional score estimator.
///
/// # Errors
/// As [`folder`].
pub fn cse() -> Result<PathBuf> {
    Ok(folder()?.join("cse-sr4"))
}
