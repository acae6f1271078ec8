//! The record that a picture carries: what it takes to make it again.

use serde_json::{Value, json};

use posteriori::operators::Task;

use super::run::Run;

/// The keyword of the text that holds the record.
pub(crate) const KEYWORD: &str = "posteriori";

/// What every record of a run begins with.
pub(crate) fn of_run(run: &Run, settings: Value, seed: u64) -> Value {
    json!({
        "engine": concat!("posteriori ", env!("CARGO_PKG_VERSION")),
        "model": run.model_name(),
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
