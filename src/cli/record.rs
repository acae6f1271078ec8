//! The record that a picture carries: what it takes to make it again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) use posteriori::batch::ENGINE;
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

/// The `task` of a picture that was drawn from the prior alone.
pub(crate) const GENERATE: &str = "generate";

/// Settings that no result depends on: a picture has the same bytes whatever they are.
const NO_MATTER: [&str; 6] = [
    "device",
    "offload",
    "batch",
    "recursive",
    "exists",
    "on-error",
];

/// Settings that a head has in another form.
const ELSEWHERE: [&str; 3] = ["model", "cse", "precision"];

/// A fingerprint as records have it.
pub(crate) fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// What the results of a run depend on. Reads all weights.
pub(crate) fn head(run: &Run, settings: &Settings, device: &Device) -> Result<Head> {
    let matter = settings
        .texts()
        .filter(|(key, _)| !NO_MATTER.contains(key) && !ELSEWHERE.contains(key))
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut matter = BTreeMap::from_iter(matter);
    // A file is known by what it says, too.
    if let Some(task @ (Task::KernelFile(_) | Task::MaskFile(_))) = &run.task {
        let said = of_task(&task.clone().written_out()?).to_string();
        matter.insert(
            "task".into(),
            format!("{task}, {}", hex(digest(0, said.as_bytes()))),
        );
    }
    Ok(Head {
        engine: ENGINE.into(),
        model: hex(model_fingerprint(&run.model)?),
        cse: run.cse.as_deref().map(fingerprint).transpose()?.map(hex),
        runtime: device.rt().name().into(),
        precision: device.precision().to_string(),
        settings: matter,
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

/// A record, read: what it takes to make the picture again.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) run: OfRun,
    pub(crate) source: Source,
}

/// What all pictures of a run have in common, and the number of this one's noise.
#[derive(Debug)]
pub(crate) struct OfRun {
    pub(crate) engine: String,
    pub(crate) model_hash: String,
    pub(crate) cse_hash: Option<String>,
    pub(crate) runtime: String,
    pub(crate) precision: String,
    pub(crate) seed: u64,
    pub(crate) sample: u32,
    /// The side of the tiles that it was sampled in.
    tile: Option<usize>,
    settings: BTreeMap<String, Given>,
}

/// A setting; where it came from changes nothing.
#[derive(Debug, Deserialize)]
struct Given {
    value: String,
}

/// What a picture was made of.
#[derive(Debug)]
pub(crate) enum Source {
    /// The prior alone, as an image of this height and width.
    Drawn([usize; 2]),
    /// A measurement.
    Measured(Box<Measured>),
}

/// The measurement that a picture was made of, and how it came about.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) operator: Task,
    /// The input's name below its folder.
    pub(crate) image: String,
    /// What its noise was addressed by, as [`hex`] writes it.
    pub(crate) key: String,
    pub(crate) input: PathBuf,
    /// [`of_pixels`] of the input.
    pub(crate) measurement: String,
}

impl Record {
    /// Reads what [`of_file`] gave.
    ///
    /// # Errors
    /// [`Error::File`] naming the field that is missing or of another kind.
    pub(crate) fn read(path: &Path, record: &Value) -> Result<Self> {
        let from = (path, record);
        let run = OfRun {
            engine: field(from, "engine")?,
            model_hash: field(from, "model_hash")?,
            cse_hash: field(from, "cse_hash")?,
            runtime: field(from, "runtime")?,
            precision: field(from, "precision")?,
            seed: field(from, "seed")?,
            sample: field(from, "sample")?,
            tile: field(from, "tile")?,
            settings: field(from, "settings")?,
        };
        let source = match record["task"].as_str() {
            Some(GENERATE) => Source::Drawn(field(from, "size")?),
            _ => Source::Measured(Box::new(Measured {
                operator: field(from, "operator")?,
                image: field(from, "image")?,
                key: field(from, "key")?,
                input: field(from, "input")?,
                measurement: field(from, "measurement")?,
            })),
        };
        Ok(Record { run, source })
    }

    /// The settings by their names. The task is not one of them: [`Measured::operator`] has all of it. The tiles are those there
    /// were, whatever the memory that is free would suggest now.
    pub(crate) fn settings(&self) -> BTreeMap<String, String> {
        let all = self.run.settings.iter();
        let mut settings: BTreeMap<String, String> = all
            .filter(|(key, _)| *key != "task")
            .map(|(key, given)| (key.clone(), given.value.clone()))
            .collect();
        let tile = self
            .run
            .tile
            .map_or("never".into(), |side| side.to_string());
        settings.insert("tile".into(), tile);
        settings
    }
}

/// A field of the record of a file.
fn field<T: DeserializeOwned>((path, record): (&Path, &Value), name: &str) -> Result<T> {
    T::deserialize(&record[name]).map_err(|e| {
        let why = format!(
            "its record does not say all that it takes to make the picture again: `{name}`: {e}"
        );
        Error::file(path, why)
    })
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
    hex(hash)
}
