//! The record that a picture carries: what it takes to make it again.

use std::path::Path;

use serde_json::{Value, json};

use posteriori::batch::journal::Head;
use posteriori::io::image::{Image, read_text};
use posteriori::operators::Task;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::prior::{fingerprint, model_fingerprint};
use posteriori::rng::digest;
use posteriori::{Error, Result};

use super::run::Run;
use super::settings::Settings;

/// The keyword of the text that holds the record.
const KEYWORD: &str = "posteriori";

/// Settings that no result depends on: a picture has the same bytes whatever they are.
const NO_MATTER: [&str; 5] = ["device", "batch", "recursive", "exists", "on-error"];

/// Settings that a head has in another form.
const ELSEWHERE: [&str; 3] = ["model", "cse", "precision"];

/// What the results of a run depend on. Reads all weights.
pub(crate) fn head(run: &Run, settings: &Settings, device: &Device) -> Result<Head> {
    let hex = |hash: u64| format!("{hash:016x}");
    let matter = settings
        .texts()
        .filter(|(key, _)| !NO_MATTER.contains(key) && !ELSEWHERE.contains(key))
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    Ok(Head {
        engine: concat!("posteriori ", env!("CARGO_PKG_VERSION")).into(),
        model: hex(model_fingerprint(&run.model)?),
        cse: run.cse.as_deref().map(fingerprint).transpose()?.map(hex),
        runtime: device.rt().name().into(),
        precision: device.dtype().to_string(),
        settings: matter.collect(),
    })
}

/// What every record of a run begins with.
pub(crate) fn of_run(run: &Run, head: &Head, settings: &Settings, seed: u64) -> Value {
    let mut settings = settings.to_json();
    if let Value::Object(settings) = &mut settings {
        settings.retain(|key, _| !NO_MATTER.contains(&key.as_str()));
    }
    json!({
        "engine": head.engine,
        "model": run.model_name(),
        "model_hash": head.model,
        "cse_hash": head.cse,
        "runtime": head.runtime,
        "precision": head.precision,
        "method": run.preset,
        "seed": seed,
        "settings": settings,
    })
}

/// The same for one image.
pub(crate) fn with(record: &Value, fields: Value) -> Vec<(String, String)> {
    let mut record = record.clone();
    if let (Value::Object(record), Value::Object(fields)) = (&mut record, fields) {
        record.extend(fields);
    }
    vec![
        (
            "Software".into(),
            record["engine"].as_str().unwrap_or("posteriori").into(),
        ),
        (KEYWORD.into(), record.to_string()),
    ]
}

/// The record of a picture.
///
/// # Errors
/// [`Error::File`] when it is no PNG, or carries none.
pub(crate) fn of_file(path: &Path) -> Result<Value> {
    let texts = read_text(path)?;
    let Some((_, text)) = texts.into_iter().find(|(keyword, _)| keyword == KEYWORD) else {
        let why = "carries no record of posteriori; only PNG files written by it do";
        return Err(Error::file(path, why));
    };
    serde_json::from_str(&text)
        .map_err(|e| Error::file(path, format!("its record cannot be read: {e}")))
}

/// A task with its parameters; a kernel that its seed draws is left out, for it is long.
pub(crate) fn of_task(task: &Task) -> Value {
    let mut task = task.clone();
    if let Task::MotionBlur(p) = &mut task
        && let Some(kernel) = p.kernel.take()
        && p.weights().map_or(true, |drawn| *drawn != kernel[..])
    {
        p.kernel = Some(kernel);
    }
    // A task holds numbers and texts only, which JSON has.
    serde_json::to_value(&task).unwrap_or_default()
}

/// A picture by its size and values.
pub(crate) fn of_pixels(image: &Image) -> String {
    let size = [image.height as u64, image.width as u64];
    let bytes = |word: u64| word.to_le_bytes();
    let size = digest(0, size.map(bytes).as_flattened());
    let hash = image
        .pixels
        .iter()
        .fold(size, |hash, v| digest(hash, &v.to_le_bytes()));
    format!("{hash:016x}")
}
