//! The oracle's tiny checkpoints, rebuilt from their recipes into the diffusers folder layout, and
//! checked against the recipes' hashes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use posteriori::io::weights::{Checkpoint, Stored, write_safetensors};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::recipe;

/// The folder of the tiny checkpoint with this name, rebuilt at first use and kept for later runs.
pub(crate) fn checkpoint(name: &str) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock().unwrap_or_else(|e| e.into_inner());

    let recipe = super::data(&format!("checkpoints/{name}"));
    let mut hash = Sha256::new();
    for file in ["recipe.json", "overrides.safetensors"] {
        hash.update(fs::read(recipe.join(file)).unwrap());
    }
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("checkpoints");
    let folder = parent.join(format!("{name}-{}", &hex(hash)[..16]));
    if !folder.exists() {
        // built beside it and renamed, so that another process never sees half a checkpoint
        let partial = parent.join(format!("{name}-{}.partial", std::process::id()));
        recipe::rebuild(&recipe, &partial);
        check_hashes(&recipe, &partial);
        if let Err(e) = fs::rename(&partial, &folder) {
            assert!(folder.exists(), "{}: {e}", folder.display());
            fs::remove_dir_all(&partial).unwrap();
        }
    }
    folder
}

/// Every component against its hash in the recipe: names and bytes of the tensors, sorted.
fn check_hashes(recipe: &Path, folder: &Path) {
    let text = fs::read_to_string(recipe.join("recipe.json")).unwrap();
    let parsed: Value = serde_json::from_str(&text).unwrap();
    for (component, about) in parsed["components"].as_object().unwrap() {
        let tensors = Checkpoint::open(folder.join(component)).unwrap();
        let ids: Vec<u8> = (0..77i64).flat_map(i64::to_le_bytes).collect();
        let mut all: Vec<(&str, &[u8])> = tensors
            .names()
            .map(|n| (n, tensors.get(n).unwrap().bytes))
            .collect();
        if component == "text_encoder" {
            // Old text encoders store the positions, and the hash counts them.
            all.push(("text_model.embeddings.position_ids", &ids));
            all.sort();
        }
        let mut hash = Sha256::new();
        for (name, bytes) in all {
            hash.update(name);
            hash.update(bytes);
        }
        let want = about["sha256_of_sorted_tensors"].as_str().unwrap();
        assert_eq!(hex(hash), want, "{}: {component}", recipe.display());
    }
}

/// A copy of a checkpoint whose autoencoder has the attention names of 2022.
pub(crate) fn with_legacy_names(folder: &Path, out: &Path) {
    for component in ["unet", "vae", "text_encoder", "scheduler"] {
        fs::create_dir_all(out.join(component)).unwrap();
        for entry in fs::read_dir(folder.join(component)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), out.join(component).join(entry.file_name())).unwrap();
        }
    }
    let renamed = |name: &str| {
        let pairs = [
            ("to_q", "query"),
            ("to_k", "key"),
            ("to_v", "value"),
            ("to_out.0", "proj_attn"),
        ];
        pairs.iter().fold(name.to_owned(), |name, (new, old)| {
            name.replace(
                &format!("attentions.0.{new}."),
                &format!("attentions.0.{old}."),
            )
        })
    };
    let tensors = Checkpoint::open(folder.join("vae")).unwrap();
    let views: Vec<_> = tensors
        .names()
        .map(|n| (renamed(n), tensors.get(n).unwrap()))
        .collect();
    let stored: Vec<_> = views
        .iter()
        .map(|(name, v)| Stored {
            name,
            kind: v.dtype,
            shape: &v.shape,
            bytes: v.bytes,
        })
        .collect();
    write_safetensors(
        out.join("vae/diffusion_pytorch_model.safetensors"),
        &stored,
        &[],
    )
    .unwrap();
}

fn hex(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
