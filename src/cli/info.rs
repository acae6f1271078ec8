//! `info`: the record that a picture carries, or what a measurement file or a journal says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value, json};

use posteriori::batch::journal::{Journal, Line};
use posteriori::{Error, Result as Read};

use super::record;
use super::restore::read_measurement;
use super::ui::{Tally, Ui};

/// Print the record that a picture carries
///
/// A PNG file by restore or generate says how it was made. A measurement file, as degrade writes it, and the journal of a
/// folder are told as well.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// PNG files, measurement files (.measurement.json) or journals (.jsonl)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Arrays longer than this are counted for people, not printed.
const LONGEST: usize = 8;

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let mut tally = Tally::default();
    for file in &args.files {
        let name = file.display().to_string();
        match read(file) {
            Ok((kind, record)) => {
                tally.done += 1;
                ui.line(format!("{}\n{}", printable(&name), listing(&record, 2)));
                let fields = json!({ "item": name, "kind": kind, "record": record });
                ui.record("info", fields);
            }
            Err(e) if args.files.len() == 1 => return Err(e.into()),
            Err(e) => tally.fail(ui, &name, &e),
        }
    }
    Ok(tally.finish(ui))
}

/// What kind of file it is, and what it says.
fn read(file: &Path) -> Read<(&'static str, Map<String, Value>)> {
    let (kind, record) = match file.extension().and_then(|e| e.to_str()) {
        Some("json") => {
            let measurement = serde_json::to_value(read_measurement(file)?);
            ("measurement", measurement.unwrap_or_default())
        }
        Some("jsonl") => ("journal", journal(file)?),
        _ => ("picture", record::of_file(file)?),
    };
    match record {
        Value::Object(record) => Ok((kind, record)),
        other => {
            let why = format!("its record is damaged: wanted a JSON object, got {other}");
            Err(Error::file(file, why))
        }
    }
}

/// What a journal's run depends on, and counts of its restorations, each as the last line about it has it.
fn journal(file: &Path) -> Read<Value> {
    let mut run = Value::Null;
    // By image and sample, none where the image itself was of no use; the verdict, none where it failed.
    let mut last: BTreeMap<(String, Option<u32>), Option<String>> = BTreeMap::new();
    for line in Journal::read(file)? {
        match line {
            Line::Run(head) => run = serde_json::to_value(head).unwrap_or_default(),
            Line::Item(done) => {
                last.remove(&(done.item.clone(), None));
                last.insert((done.item, Some(done.sample)), Some(done.verdict));
            }
            Line::Error(failed) => {
                last.remove(&(failed.item.clone(), None));
                last.insert((failed.item, failed.sample), None);
            }
        }
    }
    let count = |wanted: fn(&Option<String>) -> bool| last.values().filter(|v| wanted(v)).count();
    let done = count(Option::is_some);
    let far = count(|verdict| verdict.as_deref() == Some("far"));
    let failed = count(Option::is_none);
    Ok(json!({ "run": run, "done": done, "far": far, "failed": failed }))
}

/// One line for each field, the names padded to one width; what is inside a field is indented below it.
fn listing(record: &Map<String, Value>, indent: usize) -> String {
    let width = record.keys().map(|name| name.chars().count()).max();
    let width = width.unwrap_or(0);
    let line = |(name, value): (&String, &Value)| {
        let name = printable(name);
        match value {
            Value::Object(inner) => match (inner.get("value"), inner.get("from")) {
                (Some(value), Some(from)) => {
                    let (value, from) = (text(value), text(from));
                    format!("{:indent$}{name:width$}  {value}  ({from})", "")
                }
                _ => format!("{:indent$}{name}\n{}", "", listing(inner, indent + 2)),
            },
            value => format!("{:indent$}{name:width$}  {}", "", text(value)),
        }
    };
    record.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A value as people read it.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => printable(text),
        Value::Array(all) if all.len() > LONGEST => format!("{} values", all.len()),
        other => printable(&other.to_string()),
    }
}

/// A text without what a terminal would take for a command: a record may be anybody's.
fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control(), "\u{fffd}")
}
