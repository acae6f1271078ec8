//! `study`: a config file in, tables of methods by tasks out.

mod config;
mod report;

use std::cell::Cell as Counter;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};
use toml::Table;

use posteriori::io::atomic::{failed, write_atomic};
use posteriori::metrics::bootstrap::{Interval, RESAMPLES};
use posteriori::study::table::{self, tables};
use posteriori::study::{Cell, Event, Record, Study, quantities};
use posteriori::{Error, Result as Fallible};

use super::config as file;
use super::methods::tasks_and_methods_help;
use super::report::Reporting;
use super::run::Run;
use super::settings::{SETTINGS, STUDY, Setting};
use super::ui::{Tally, Ui};
use config::{Config, SHARED};

/// Compare methods on tasks over a set of images, in tables with 95 % intervals
///
/// Every row restores the same measurements with the same noise. A study that was stopped goes on where it was, and tries again
/// what failed; of another model or other images it does not.
/// OUT gets config.toml, a copy; results.csv, a line for each image in each row on each task, as soon as it is known;
/// tables.md; for each task a contact sheet of the first images: truth, measurement, each row.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub(super) struct Args {
    /// What to compare: a TOML file, see below
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// The folder of the results
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    report: Reporting,
}

/// What may change between two runs of a study: it never changes a result, or results are known by what it names.
const FREE: [&str; 8] = [
    "batch",
    "sheet",
    "device",
    "offload",
    "model",
    "cse",
    "precision",
    "input",
];

fn help() -> String {
    let keys = [
        (
            "input = \"DIR\"",
            "the true images: a folder and those inside it",
        ),
        (
            "scenes = { seed = 0, count = N, size = \"HxW\" }",
            "or so many scenes that the program draws itself",
        ),
        ("subset = N", "this many of the images, chosen by the seed"),
        (
            "tasks = [\"TASK\", ..]",
            "what is done to the images: see below",
        ),
        (
            "noise = X",
            "standard deviation of the measurements' noise, 0 by default",
        ),
        (
            "sheet = N",
            "the first images, so many, are shown on contact sheets; 4 by default",
        ),
        ("[[row]]", "a row of every table, with these keys:"),
        ("  name = \"TEXT\"", "what the tables call it"),
        ("  tasks = [\"TASK\", ..]", "only on these of the tasks"),
    ];
    let line = |key: &str, doc: &str| format!("  {key:<24} {doc}\n");
    let mut text = String::from("Keys of CONFIG:\n");
    keys.iter().for_each(|(key, doc)| text += &line(key, doc));
    text += "\nSettings at the top of CONFIG, for all rows:\n";
    let of_study = || SETTINGS.iter().filter(|s| s.on & STUDY != 0);
    let (shared, own): (Vec<_>, Vec<_>) = of_study().partition(|s| SHARED.contains(&s.key));
    let lines = |settings: Vec<_>| -> String {
        let one = |s: &Setting| line(&format!("{} = {}", s.key, s.value), s.doc);
        settings.into_iter().map(one).collect()
    };
    text += &lines(shared);
    text += "\nSettings of a row, or at the top for all rows. In a row, a list [a, b] makes a row of each, and a table\n\
             { TASK = a, .. } says it for each task:\n";
    text += &lines(own);
    format!("{text}\n{}", tasks_and_methods_help())
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let path = args.config.display().to_string();
    let text = file::text_of_file(&path)?;
    let config = Config::parse(&path, &text)?;
    let (study, run) = config.study()?;
    let device = run.device()?;
    study.check(&device)?;
    agree(&args.output, &path, &text)?;
    let begun = study.begin(&device, &args.output)?;
    write(&args.output.join(COPY), &text)?;

    let total: usize = study.cells.iter().map(steps).sum();
    ui.start_bar((total * study.images.count()) as u64);
    let (before, told) = (Counter::new(0), Counter::new([0; 3]));
    let count = |cell: &Cell, i: usize| {
        before.set(before.get() + steps(cell));
        let mut counts = told.get();
        counts[i] += 1;
        told.set(counts);
    };
    let watch = |event: Event<'_>| match event {
        Event::Found(cell, _) => count(cell, 1),
        Event::Step(cell, images, p) => {
            let name = format!("{} on {}", cell.row, cell.job.task);
            ui.advance((before.get() + p.index * images) as u64, &name);
            let fields = json!({
                "task": cell.job.task.to_string(), "row": cell.row, "images": images,
                "step": p.index, "of": p.of, "loss": p.loss,
            });
            ui.record("progress", fields);
        }
        Event::Done(cell, record) => {
            count(cell, if record.outcome.is_ok() { 0 } else { 2 });
            tell(ui, record);
        }
    };
    let records = begun.run(&watch)?;

    let tables = tables(&records);
    let lead = lead(&config, &study, &run);
    let mut markdown = format!("# Study\n\n{lead}\n");
    tables
        .iter()
        .for_each(|table| markdown += &format!("\n{table}"));
    write(&args.output.join("tables.md"), &markdown)?;
    ui.line(markdown.trim_end());
    let parts = report::Parts {
        lead: &lead,
        study: &study,
        tables: &tables,
        records: &records,
        config: &text,
        folder: &args.output,
    };
    args.report
        .write(&args.output, "Study", |page| parts.fill(page))?;
    for table in &tables {
        for row in &table.rows {
            ui.record("row", fields(&table.task, row));
        }
    }
    let [done, skipped, failed] = told.get();
    Ok(Tally {
        done,
        skipped,
        failed,
    }
    .finish(ui))
}

fn steps(cell: &Cell) -> usize {
    cell.job.method.steps
}

/// The copy of the config file.
const COPY: &str = "config.toml";

/// Refuses results of another config file.
fn agree(output: &Path, path: &str, text: &str) -> Fallible<()> {
    let results = std::fs::metadata(output.join("results.csv"));
    if !results.is_ok_and(|results| results.len() > 0) {
        return Ok(());
    }
    let place = output.join(COPY).display().to_string();
    let before = file::parse(&place, &file::text_of_file(&place)?)?;
    let differences = differences(&before, &file::parse(path, text)?);
    if differences.is_empty() {
        return Ok(());
    }
    let why = format!(
        "the results beside it are of another study: {}; choose another folder",
        differences.join("; ")
    );
    Err(Error::config(place, why))
}

/// Where two configs differ in what a result depends on.
fn differences(before: &Table, now: &Table) -> Vec<String> {
    fn flatten(place: &str, value: &toml::Value, all: &mut BTreeMap<String, String>) {
        let below = |key: &str| match place {
            "" => key.to_owned(),
            place => format!("{place}.{key}"),
        };
        match value {
            toml::Value::Table(table) => table
                .iter()
                .for_each(|(key, value)| flatten(&below(key), value, all)),
            toml::Value::Array(rows) if rows.iter().any(toml::Value::is_table) => rows
                .iter()
                .enumerate()
                .for_each(|(i, row)| flatten(&below(&(i + 1).to_string()), row, all)),
            value => {
                all.insert(place.into(), value.to_string());
            }
        }
    }
    let [before, now] = [before, now].map(|table| {
        let mut all = BTreeMap::new();
        flatten("", &toml::Value::Table(table.clone()), &mut all);
        all.retain(|key, _| !is_free(key));
        all
    });
    let text =
        |all: &BTreeMap<String, String>, key| all.get(key).map_or("nothing", |v| v).to_owned();
    let mut keys: Vec<&String> = before.keys().chain(now.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .map(|key| (key, text(&before, key), text(&now, key)))
        .filter(|(_, before, now)| before != now)
        .map(|(key, before, now)| format!("{key} was {before} and is {now}"))
        .collect()
}

/// Whether what stands at a place, as `cse`, `row.2.cse` or `row.2.cse.sr4`, may change.
fn is_free(place: &str) -> bool {
    let mut parts = place.split('.');
    let key = match parts.next() {
        Some("row") => parts.nth(1),
        first => first,
    };
    key.is_some_and(|key| FREE.contains(&key))
}

fn write(path: &Path, text: &str) -> Fallible<()> {
    write_atomic(path, |w| w.write_all(text.as_bytes()).map_err(failed(path)))
}

fn tell(ui: &Ui, record: &Record) {
    let Record {
        task,
        row,
        image,
        outcome,
        calls,
        seconds,
    } = record;
    let mut fields = json!({
        "item": image, "task": task, "row": row, "nfe": calls, "seconds": seconds,
        "verdict": if outcome.is_ok() { "ok" } else { "failed" },
    });
    match outcome {
        // JSON has no infinity; the PSNR of equal images is null.
        Ok(values) => quantities()
            .zip(values)
            .for_each(|(name, value)| fields[name] = json!(value)),
        Err(why) => {
            fields["error"] = json!(why);
            ui.complain(format!("failed: {image}, {row} on {task}: {why}"));
        }
    }
    ui.record("item", fields);
}

/// A row of a table as JSON.
fn fields(task: &str, row: &table::Row) -> Value {
    let interval = |i: &Option<Interval>| i.map(|i| json!([i.mean, i.low, i.high]));
    let named = |all: &[Option<Interval>]| -> Value {
        let pairs = quantities().zip(all);
        pairs
            .map(|(name, i)| (name.to_owned(), json!(interval(i))))
            .collect()
    };
    json!({
        "task": task, "row": row.name, "means": named(&row.means), "differences": named(&row.differences),
        "images": row.images, "failed": row.failed.len(), "nfe": row.calls, "seconds": row.seconds,
    })
}

/// What stands over the tables.
fn lead(config: &Config, study: &Study, run: &Run) -> String {
    let Config { images, noise, .. } = config;
    let (model, count) = (run.model_name(), study.images.count());
    let seed = study.cells.first().map_or(0, |cell| cell.job.seed);
    format!(
        "Model {model}; {count} images: {images}; noise {noise}; seed {seed}. Means over images with 95 % \
         intervals (percentile bootstrap over images, {RESAMPLES} resamples). psnr in dB; residual is \
         the norm of f(x) - y; NFE are calls of the network for an image; s/image is the median."
    )
}
