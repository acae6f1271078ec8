//! Rebuilds the checkpoint that a golden file was computed with, from its recipe.
//!
//! A recipe folder holds `recipe.json` (configurations, and for each tensor its shape, mean and standard
//! deviation) and maybe `overrides.safetensors` (tensors that are not random). The result is a folder in
//! diffusers' layout, the same bytes everywhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use posteriori::io::weights::{Checkpoint, Kind, Stored, write_safetensors};
use posteriori::verify::portable;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Recipe {
    seed: u64,
    configs: BTreeMap<String, Value>,
    scheduler: Value,
    tensors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    component: String,
    name: String,
    shape: Vec<usize>,
    mean: f64,
    std: f64,
}

/// Writes the checkpoint of the recipe in folder `recipe` into folder `out`.
pub(crate) fn rebuild(recipe: &Path, out: &Path) {
    let text = fs::read_to_string(recipe.join("recipe.json")).unwrap();
    let parsed: Recipe = serde_json::from_str(&text).unwrap();
    let overrides = recipe.join("overrides.safetensors");
    let overrides = overrides
        .exists()
        .then(|| Checkpoint::open_file(overrides).unwrap());
    write_json(
        &out.join("scheduler"),
        "scheduler_config.json",
        &parsed.scheduler,
    );
    for (component, config) in &parsed.configs {
        let folder = out.join(component);
        write_json(&folder, "config.json", config);
        let entries = parsed.tensors.iter().filter(|e| e.component == *component);
        let values: Vec<_> = entries
            .map(|entry| (entry, bytes(&parsed, entry, overrides.as_ref())))
            .collect();
        let stored: Vec<Stored<'_>> = values
            .iter()
            .map(|(e, bytes)| Stored {
                name: &e.name,
                kind: Kind::F32,
                shape: &e.shape,
                bytes,
            })
            .collect();
        let file = match component.as_str() {
            "text_encoder" => "model.safetensors",
            _ => "diffusion_pytorch_model.safetensors",
        };
        write_safetensors(
            folder.join(file),
            &stored,
            &[("format".into(), "pt".into())],
        )
        .unwrap();
    }
}

fn bytes(recipe: &Recipe, entry: &Entry, overrides: Option<&Checkpoint>) -> Vec<u8> {
    let full = format!("{}/{}", entry.component, entry.name);
    if let Some(view) = overrides.and_then(|o| o.get(&full)) {
        return view.bytes.to_vec();
    }
    let count = entry.shape.iter().product();
    let values = portable::normals(recipe.seed, &full, count, entry.mean, entry.std);
    values
        .into_iter()
        .flat_map(|v| (v as f32).to_le_bytes())
        .collect()
}

fn write_json(folder: &Path, name: &str, value: &Value) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(name), format!("{value:#}")).unwrap();
}
