//! `repro`: pictures made again from their records, and compared pixel by pixel. Nothing is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use posteriori::io::image::{self, Difference, Image, Levels};
use posteriori::operators::Task;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::prior::{fingerprint, model_fingerprint};
use posteriori::pipeline::{Item, Pipeline, Progress, Restored};
use posteriori::rng::{Stream, image_key};
use posteriori::{Error, Result as Made};

use super::record::{self, Measured, Record, Source};
use super::run::{Forced, Run};
use super::settings::{GENERATE, RESTORE, Settings};
use super::ui::{Tally, Ui};
use super::{exit, generate};

/// Make pictures again from their records, and compare them pixel by pixel
///
/// Works for PNG files that restore or generate wrote, each of which carries what it depends on. What is not what it was, the
/// model, the measurement, is named before anything is computed. Nothing is written. The exit code is 0 when all are
/// identical, 3 when one differs or cannot be made again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pictures
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The model's folder, when it is not where the record says
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
    /// The folder of the conditional score estimator, when it is not where the record says
    #[arg(long, value_name = "DIR")]
    cse: Option<String>,
    /// The measurement, or the folder that holds it by its name, when it is not where the record says
    #[arg(long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Where to compute: auto, cpu or cuda:N; by default what the record says
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    if let Some(device) = &args.device {
        Device::parse(device)?;
    }
    let mut tally = Tally::default();
    let mut differ = 0;
    let mut again = Again {
        args: &args,
        ui,
        open: None,
        fingerprints: BTreeMap::new(),
    };
    for file in &args.files {
        let name = file.display().to_string();
        match again.make(file, &name) {
            Ok(found) => {
                tally.done += 1;
                differ += usize::from(!found.is_identical());
                found.tell(&name, ui);
            }
            Err(e) => tally.fail(ui, &name, &e),
        }
        ui.end_bar();
    }
    let counts = json!({ "identical": tally.done - differ, "differ": differ });
    match (tally.finish_with(ui, counts), differ) {
        (code, 0) => Ok(code),
        _ => Ok(exit::ITEMS),
    }
}

/// What it takes to make pictures again, kept from one to the next.
struct Again<'a> {
    args: &'a Args,
    ui: &'a Ui,
    open: Option<(Opened, Pipeline)>,
    /// Of folders that were read.
    fingerprints: BTreeMap<PathBuf, String>,
}

/// What a pipeline was opened with.
#[derive(PartialEq)]
struct Opened {
    model: PathBuf,
    cse: Option<PathBuf>,
    device: String,
    precision: String,
    variants: Vec<Forced>,
}

/// What a record asks for.
enum Work<'r> {
    Draw([usize; 2]),
    Restore { task: &'r Task, y: Image, key: u64 },
}

/// What came of one picture.
struct Found {
    difference: Difference,
    pixels: usize,
    bits: u8,
    /// The file itself is the same to the byte.
    same_file: bool,
    warnings: Vec<String>,
    seconds: f64,
}

impl Again<'_> {
    /// Makes the picture of a file again and compares the two.
    fn make(&mut self, file: &Path, name: &str) -> Made<Found> {
        let start = Instant::now();
        let fields = record::of_file(file)?;
        let record = Record::read(file, &fields)?;
        let there = Levels::read(file)?;
        let device = match &self.args.device {
            Some(device) => device.clone(),
            None => device_of(file, &record)?,
        };
        let work = match &record.source {
            Source::Measured(measured) => self.restoration(file, measured)?,
            Source::Drawn(size) => Work::Draw(*size),
        };
        let run = self.settings(file, &record, &device)?;
        self.expect_models(file, &record, &run)?;
        let warnings = self.warn(name, &record, &run.device()?);
        let ui = self.ui;
        let pipeline = self.pipeline(&run, device, &record)?;
        ui.start_bar(run.steps() as u64);
        let progress = |Progress { index, of, loss }: Progress| {
            ui.advance(index as u64, name);
            let fields = json!({ "items": [name], "step": index, "of": of, "loss": loss });
            ui.record("progress", fields);
        };
        let restored = compute(pipeline, &run, &record, &work, progress)?;
        let made = Levels::of(&restored.image, there.format())?;
        Ok(Found {
            difference: there.compare(&made)?,
            pixels: there.width * there.height,
            bits: there.bits,
            same_file: same_file(file, &fields, &record, &restored, there.format())?,
            warnings,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// The restoration of the measurement that the record tells of.
    fn restoration<'r>(&self, file: &Path, measured: &'r Measured) -> Made<Work<'r>> {
        let path = match &self.args.input {
            Some(folder) if folder.is_dir() => folder.join(&measured.image),
            Some(input) => input.clone(),
            None => measured.input.clone(),
        };
        let refuse = |why: String| {
            let why = format!(
                "the measurement that it was made of {why}; --input names the file, or the folder that holds {}",
                measured.image
            );
            Error::file(file, why)
        };
        if !path.exists() {
            // A record has the path as it was typed, wherever that was.
            let from = match std::env::current_dir() {
                Ok(here) if path.is_relative() => format!(" (looked for in {})", here.display()),
                _ => String::new(),
            };
            let path = path.display();
            return Err(refuse(format!("is gone: there is no {path}{from}")));
        }
        let y = image::read_values(&path)?;
        let (want, got) = (&measured.measurement, record::of_pixels(&y));
        if *want != got {
            let path = path.display();
            return Err(refuse(format!(
                "has the hash {want}, and {path} has {got}: it is another, or was changed"
            )));
        }
        let key = u64::from_str_radix(&measured.key, 16).map_err(|e| {
            let why = format!("its record's key is no hexadecimal number of 64 bits: {e}");
            Error::file(file, why)
        })?;
        let task = &measured.operator;
        task.check()?;
        Ok(Work::Restore { task, y, key })
    }

    /// The settings of the record, with the folders and the device that the user names.
    fn settings(&self, file: &Path, record: &Record, device: &str) -> Made<Run> {
        let mut given = record.settings();
        given.insert("device".into(), device.into());
        given.insert("precision".into(), record.run.precision.clone());
        for (key, folder) in [("model", &self.args.model), ("cse", &self.args.cse)] {
            if let Some(folder) = folder {
                given.insert(key.into(), folder.clone());
            }
        }
        let path = &file.display().to_string();
        let settings = match record.source {
            Source::Measured(_) => Settings::of_file::<RESTORE>(path, &given),
            Source::Drawn(_) => Settings::of_file::<GENERATE>(path, &given),
        };
        Run::read(&mut settings?)
    }

    /// Refuses models other than the record's.
    fn expect_models(&mut self, file: &Path, record: &Record, run: &Run) -> Made<()> {
        let of = &record.run;
        let model = self.fingerprint(&run.model, model_fingerprint)?;
        let cse = match &run.cse {
            Some(cse) => Some(self.fingerprint(cse, fingerprint)?),
            None => None,
        };
        let model = (run.model.as_path(), model.as_str());
        let cse = run.cse.as_deref().zip(cse.as_deref());
        let of_cse = of.cse_hash.as_deref();
        expect_hash(file, "--model", Some(&of.model_hash), Some(model))?;
        expect_hash(file, "--cse", of_cse, cse)
    }

    fn fingerprint(&mut self, folder: &Path, of: fn(&Path) -> Made<u64>) -> Made<String> {
        if let Some(known) = self.fingerprints.get(folder) {
            return Ok(known.clone());
        }
        let hash = record::hex(of(folder)?);
        self.fingerprints.insert(folder.to_owned(), hash.clone());
        Ok(hash)
    }

    /// Says what may make the bits differ although nothing is wrong.
    fn warn(&self, name: &str, record: &Record, device: &Device) -> Vec<String> {
        let mut warnings = Vec::new();
        let (engine, runtime) = (&record.run.engine, device.rt().name());
        if *engine != record::ENGINE {
            let ours = record::ENGINE;
            warnings.push(format!(
                "was made by {engine}, this is {ours}: the bits may differ"
            ));
        }
        if record.run.runtime != runtime {
            let theirs = &record.run.runtime;
            warnings.push(format!(
                "was made by the runtime {theirs}, this is {runtime}: the bits may differ"
            ));
        }
        for warning in &warnings {
            self.ui.note(format!("warning: {name}: {warning}"));
        }
        warnings
    }

    /// The models, opened unless they are open.
    fn pipeline(&mut self, run: &Run, device: String, record: &Record) -> Made<&Pipeline> {
        let wanted = Opened {
            model: run.model.clone(),
            cse: run.cse.clone(),
            device,
            precision: record.run.precision.clone(),
            variants: run.variants.clone(),
        };
        // Others go first, to make room.
        let kept = self.open.take().filter(|(open, _)| *open == wanted);
        let open = match kept {
            Some(open) => open,
            None => (wanted, run.open_on(run.device()?)?),
        };
        Ok(&self.open.insert(open).1)
    }
}

/// Refuses a folder with another hash than the record's.
fn expect_hash(
    file: &Path,
    flag: &str,
    want: Option<&str>,
    got: Option<(&Path, &str)>,
) -> Made<()> {
    if want == got.map(|(_, hash)| hash) {
        return Ok(());
    }
    let want = want.map_or("none".into(), |hash| format!("the folder of hash {hash}"));
    let got = got.map_or("none".into(), |(folder, hash)| {
        format!("{} of hash {hash}", folder.display())
    });
    let why = format!("{flag}: wanted {want}, which it was made with, got {got}");
    Err(Error::file(file, why))
}

/// Does the work of a record.
fn compute(
    pipeline: &Pipeline,
    run: &Run,
    record: &Record,
    work: &Work<'_>,
    progress: impl Fn(Progress),
) -> Made<Restored> {
    let (seed, sample) = (record.run.seed, record.run.sample);
    let mut all = match work {
        Work::Restore { task, y, key } => {
            let job = run.job(task, seed)?;
            let key = *key;
            pipeline.restore_batch(&job, &[Item { y, key, sample }], progress)?
        }
        Work::Draw(size) => {
            let job = run.job(&Task::super_resolution(1), seed)?;
            let stream = Stream::new(seed, image_key(generate::KEY), sample);
            pipeline.generate(&job, *size, &[stream], progress)?
        }
    };
    let none = || Err(Error::argument("images", "wanted one, got none"));
    all.pop().unwrap_or_else(none)
}

/// The device of the record's runtime.
fn device_of(file: &Path, record: &Record) -> Made<String> {
    match record.run.runtime.as_str() {
        "native" => Ok("cpu".into()),
        runtime @ ("cuda" | "emu") => Ok(runtime.into()),
        other => {
            let why = format!(
                "was made by the runtime {other}, which this program does not have; --device names another"
            );
            Err(Error::file(file, why))
        }
    }
}

/// Whether the file would be written again to the byte: with what came now in its record.
fn same_file(
    file: &Path,
    fields: &Value,
    record: &Record,
    restored: &Restored,
    format: image::Format,
) -> Made<bool> {
    let now = match record.source {
        Source::Measured(_) => json!({ "engine": record::ENGINE, "residual": restored.residual }),
        Source::Drawn(_) => json!({ "engine": record::ENGINE }),
    };
    let text = record::with(fields, now);
    let made = image::encode(&restored.image, format, &text)?;
    let there =
        std::fs::read(file).map_err(|e| Error::file(file, format!("cannot be read: {e}")))?;
    Ok(made == there)
}

impl Found {
    fn is_identical(&self) -> bool {
        self.difference.pixels == 0
    }

    fn tell(&self, name: &str, ui: &Ui) {
        let Difference { pixels, largest } = self.difference;
        let (all, bits) = (self.pixels, self.bits);
        let text = match (self.is_identical(), self.same_file) {
            (true, true) => "identical, the file to the byte".into(),
            (true, false) => "identical pixels, in another file".into(),
            (false, _) => format!(
                "differs: {pixels} of {all} pixels, by at most {largest} of {} levels",
                (1_u32 << bits) - 1
            ),
        };
        ui.line(format!("{name}  {text}"));
        let verdict = match self.is_identical() {
            true => "identical",
            false => "differs",
        };
        ui.record(
            "repro",
            json!({
                "item": name, "verdict": verdict, "same_file": self.same_file, "pixels": all, "differing": pixels,
                "largest": largest, "bits": bits, "warnings": self.warnings, "seconds": self.seconds,
            }),
        );
    }
}
