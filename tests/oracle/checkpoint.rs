//! The oracle's tiny checkpoints, rebuilt from `recipe.json` and `overrides.safetensors` into the
//! diffusers folder layout, and checked against the recipe's hashes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::random;

/// A tensor as it goes into the file.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

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
        materialize(&recipe, &partial, false);
        if let Err(e) = fs::rename(&partial, &folder) {
            assert!(folder.exists(), "{}: {e}", folder.display());
            fs::remove_dir_all(&partial).unwrap();
        }
    }
    folder
}

/// Rebuilds a recipe's checkpoint in `out`. With `legacy_vae_attn` the VAE's attention has the names
/// that checkpoints of 2022 have, and its hash is not checked.
pub(crate) fn materialize(recipe: &Path, out: &Path, legacy_vae_attn: bool) {
    let text = fs::read_to_string(recipe.join("recipe.json")).unwrap();
    let parsed: Value = serde_json::from_str(&text).unwrap();
    let overrides = fs::read(recipe.join("overrides.safetensors")).unwrap();
    let overrides = SafeTensors::deserialize(&overrides).unwrap();

    write_json(
        &out.join("scheduler/scheduler_config.json"),
        &parsed["scheduler"],
    );
    fs::copy(
        recipe.join("model_index.json"),
        out.join("model_index.json"),
    )
    .unwrap();
    for (component, config) in parsed["configs"].as_object().unwrap() {
        write_json(&out.join(component).join("config.json"), config);
        let mut tensors = component_tensors(&parsed, component, &overrides);
        if legacy_vae_attn && component == "vae" {
            tensors = tensors.into_iter().map(|(k, v)| (legacy(&k), v)).collect();
        } else if let Some(want) =
            parsed["components"][component]["sha256_of_sorted_tensors"].as_str()
        {
            let mut hash = Sha256::new();
            for (name, (_, _, bytes)) in &tensors {
                hash.update(name);
                hash.update(bytes);
            }
            assert_eq!(hex(hash), want, "{}: {component}", recipe.display());
        }
        let file = match component.as_str() {
            "text_encoder" => "model.safetensors",
            _ => "diffusion_pytorch_model.safetensors",
        };
        let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
            (name, view)
        });
        let format = [("format".to_string(), "pt".to_string())].into();
        safetensors::serialize_to_file(views, Some(format), &out.join(component).join(file))
            .unwrap();
    }
}

/// The tensors of one component, sorted by name.
fn component_tensors(
    recipe: &Value,
    component: &str,
    overrides: &SafeTensors<'_>,
) -> BTreeMap<String, Stored> {
    let seed = recipe["seed"].as_u64().unwrap();
    let mut tensors = BTreeMap::new();
    for entry in recipe["tensors"].as_array().unwrap() {
        if entry["component"] != component {
            continue;
        }
        let name = entry["name"].as_str().unwrap();
        let full = format!("{component}/{name}");
        let stored = if let Ok(view) = overrides.tensor(&full) {
            (view.dtype(), view.shape().to_vec(), view.data().to_vec())
        } else {
            let shape: Vec<usize> = serde_json::from_value(entry["shape"].clone()).unwrap();
            let [mean, std] = ["mean", "std"].map(|key| entry[key].as_f64().unwrap());
            let values = random::normals(seed, &full, shape.iter().product(), mean, std);
            let bytes = values.iter().flat_map(|v| (*v as f32).to_le_bytes());
            (Dtype::F32, shape, bytes.collect())
        };
        tensors.insert(name.to_string(), stored);
    }
    if component == "text_encoder" {
        let ids = (0..77i64).flat_map(i64::to_le_bytes).collect();
        let name = "text_model.embeddings.position_ids".to_string();
        tensors.insert(name, (Dtype::I64, vec![1, 77], ids));
    }
    tensors
}

/// A VAE tensor's name before diffusers 0.12.
fn legacy(name: &str) -> String {
    [
        ("to_q", "query"),
        ("to_k", "key"),
        ("to_v", "value"),
        ("to_out.0", "proj_attn"),
    ]
    .iter()
    .fold(name.to_string(), |name, (new, old)| {
        name.replace(
            &format!("attentions.0.{new}."),
            &format!("attentions.0.{old}."),
        )
    })
}

fn write_json(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, serde_json::to_string_pretty(value).unwrap()).unwrap();
}

fn hex(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn checkpoints_have_the_hashes_of_their_recipes() {
    for name in ["tiny-sd2", "tiny-sd1", "tiny-pixel"] {
        let folder = tempfile::tempdir().unwrap();
        materialize(
            &super::data(&format!("checkpoints/{name}")),
            folder.path(),
            false,
        );
        assert!(
            folder
                .path()
                .join("unet/diffusion_pytorch_model.safetensors")
                .exists()
        );
        assert_eq!(checkpoint(name), checkpoint(name));
        assert!(checkpoint(name).join("unet/config.json").exists());
    }
}

#[test]
fn legacy_vae_names() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = super::data("checkpoints/tiny-sd1");
    materialize(&recipe, folder.path(), true);
    let bytes = fs::read(
        folder
            .path()
            .join("vae/diffusion_pytorch_model.safetensors"),
    )
    .unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for part in ["query", "key", "value", "proj_attn"] {
        let name = format!("decoder.mid_block.attentions.0.{part}.weight");
        assert!(tensors.tensor(&name).is_ok(), "{name}");
    }
}
