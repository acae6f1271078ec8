//! Rebuilds the checkpoint that a golden file was computed with, from its recipe.
//!
//! A recipe folder holds `recipe.json` (configurations, and for each tensor its shape, mean and standard
//! deviation) and maybe `overrides.safetensors` (tensors that are not random). The result is a folder in
//! diffusers' layout, the same bytes everywhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::portable;
use crate::error::{Error, Result};
use crate::io::weights::{Checkpoint, Kind, Stored, write_safetensors};

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
///
/// # Errors
/// [`Error::File`] and [`Error::Config`] when the recipe cannot be read or the folder not written.
pub fn rebuild(recipe: &Path, out: &Path) -> Result<()> {
    let path = recipe.join("recipe.json");
    let text = fs::read_to_string(&path)
        .map_err(|e| Error::file(&path, format!("cannot be read as a recipe: {e}")))?;
    let parsed: Recipe = serde_json::from_str(&text)
        .map_err(|e| Error::config(path.display().to_string(), format!("is no recipe: {e}")))?;
    let overrides = recipe.join("overrides.safetensors");
    let overrides = match overrides.exists() {
        true => Some(Checkpoint::open_file(overrides)?),
        false => None,
    };
    write_json(
        &out.join("scheduler"),
        "scheduler_config.json",
        &parsed.scheduler,
    )?;
    for (component, config) in &parsed.configs {
        let folder = out.join(component);
        write_json(&folder, "config.json", config)?;
        let entries = parsed.tensors.iter().filter(|e| e.component == *component);
        let values = entries
            .map(|entry| Ok((entry, bytes(&parsed, entry, overrides.as_ref())?)))
            .collect::<Result<Vec<_>>>()?;
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
        )?;
    }
    Ok(())
}

fn bytes(recipe: &Recipe, entry: &Entry, overrides: Option<&Checkpoint>) -> Result<Vec<u8>> {
    let full = format!("{}/{}", entry.component, entry.name);
    if let Some(view) = overrides.and_then(|o| o.get(&full)) {
        return Ok(view.bytes.to_vec());
    }
    let count = entry.shape.iter().product();
    let values = portable::normals(recipe.seed, &full, count, entry.mean, entry.std);
    Ok(values
        .into_iter()
        .flat_map(|v| (v as f32).to_le_bytes())
        .collect())
}

fn write_json(folder: &Path, name: &str, value: &Value) -> Result<()> {
    let path = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, format!("{value:#}")))
        .map_err(|e| Error::file(path, format!("cannot be written: {e}")))
}
