//! `results.csv`: a line for each image in each cell, appended as they become known; of two lines of one image in one cell the later
//! one holds. A line that was cut off is taken away; a line of what a study has not is another study's. One study at a time
//! holds the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Record, quantities};
use crate::error::{Error, Result};
use crate::io::atomic::{append, failed};
use crate::io::csv;

/// Task, row and image of a line.
pub(super) type Names = [String; 3];

/// The file, and what is in it.
#[derive(Debug)]
pub(super) struct Results {
    path: PathBuf,
    file: File,
    /// The places of lines in the order of the study.
    places: BTreeMap<Names, usize>,
    /// In that order.
    records: Vec<Option<Record>>,
    /// Whether the file has its first line.
    begun: bool,
}

impl Results {
    /// Opens and holds the file, or makes it; `names` are those of all lines, in the order of the study.
    pub(super) fn open(path: PathBuf, names: Vec<Names>) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(failed(&path))?;
        // Some shared file systems have no locks.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let why = "another study writes these results; wait for it, or choose another folder";
            return Err(Error::file(&path, why));
        }
        let mut records = vec![None; names.len()];
        let mut places = BTreeMap::new();
        for (place, names) in names.into_iter().enumerate() {
            if places.contains_key(&names) {
                let why = format!("{} would be there twice; rename one", names.join(","));
                return Err(Error::config(path.display().to_string(), why));
            }
            places.insert(names, place);
        }
        let text = whole_lines(&path, &mut file)?;
        let (rows, whole) = csv::read(&text);
        let mut rows = rows.into_iter();
        let header: Vec<String> = header();
        let refuse = |line, want: &str, got: &[String]| {
            let got = got.join(",");
            other_study(&path, line, want, &got)
        };
        let first = rows.next();
        if let Some(got) = first.as_ref().filter(|got| **got != header) {
            return Err(refuse(1, &header.join(","), got));
        }
        for (i, row) in rows.enumerate() {
            let line = i + 2;
            let place = row
                .first_chunk()
                .and_then(|names: &Names| places.get(names));
            let place =
                *place.ok_or_else(|| refuse(line, "a task, row and image of this one", &row))?;
            let record = parse(&row).ok_or_else(|| refuse(line, &header.join(","), &row))?;
            records[place] = Some(record);
        }
        file.set_len(whole as u64).map_err(failed(&path))?;
        file.seek(SeekFrom::End(0)).map_err(failed(&path))?;
        Ok(Results {
            path,
            file,
            places,
            records,
            begun: first.is_some(),
        })
    }

    /// What line `place` of the study came to, if it did not fail.
    pub(super) fn good(&self, place: usize) -> Option<&Record> {
        let record = self.records.get(place)?.as_ref();
        record.filter(|record| record.outcome.is_ok())
    }

    /// The images that have a result.
    pub(super) fn images(&self) -> BTreeSet<&str> {
        let good = (0..self.records.len()).filter_map(|place| self.good(place));
        good.map(|record| record.image.as_str()).collect()
    }

    /// Every result, in the order of the study.
    pub(super) fn into_records(self) -> Vec<Record> {
        self.records.into_iter().flatten().collect()
    }

    /// Writes the first line, if it is not there.
    pub(super) fn begin(&mut self) -> Result<()> {
        if !self.begun {
            self.write(&csv::line(&header()))?;
            self.begun = true;
        }
        Ok(())
    }

    /// Adds lines, but those that say again what is there; they are on disk when this returns.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<()> {
        let mut new = Vec::new();
        for record in records {
            let names = [&record.task, &record.row, &record.image].map(String::clone);
            let lost = || Error::argument("results", format!("{} is no line", names.join(",")));
            let place = *self.places.get(&names).ok_or_else(lost)?;
            let there = self.records[place].as_ref();
            if there.is_none_or(|there| there.outcome != record.outcome) {
                new.push((place, record));
            }
        }
        let text: String = new.iter().map(|(_, r)| csv::line(&cells(r))).collect();
        self.write(&text)?;
        for (place, record) in new {
            self.records[place] = Some(record.clone());
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<()> {
        append(&mut self.file, text.as_bytes()).map_err(failed(&self.path))
    }
}

/// The text of a file up to its last end of line: what follows was cut off, perhaps within a letter.
fn whole_lines(path: &Path, file: &mut File) -> Result<String> {
    let cannot = |why: String| Error::file(path, format!("cannot be read as results: {why}"));
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(|e| cannot(e.to_string()))?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    bytes.truncate(end.map_or(0, |at| at + 1));
    String::from_utf8(bytes).map_err(|e| cannot(e.to_string()))
}

fn other_study(path: &Path, line: usize, want: &str, got: &str) -> Error {
    let why = format!(
        "line {line}: wanted {want}, got {got}; these are results of another study: choose another folder"
    );
    Error::config(path.display().to_string(), why)
}

fn header() -> Vec<String> {
    let names = ["task", "row", "image"].into_iter().chain(quantities());
    let names = names.chain(["nfe", "seconds", "error"]);
    names.map(String::from).collect()
}

fn cells(record: &Record) -> Vec<String> {
    let mut cells = vec![
        record.task.clone(),
        record.row.clone(),
        record.image.clone(),
    ];
    match &record.outcome {
        Ok(values) => cells.extend(values.iter().map(f64::to_string)),
        Err(_) => cells.extend(quantities().map(|_| String::new())),
    }
    cells.push(record.calls.to_string());
    cells.push(record.seconds.to_string());
    cells.push(record.outcome.as_ref().err().cloned().unwrap_or_default());
    cells
}

fn parse(row: &[String]) -> Option<Record> {
    let (names, rest) = row.split_at_checked(3)?;
    let (values, rest) = rest.split_at_checked(quantities().count())?;
    let [calls, seconds, error] = rest else {
        return None;
    };
    let outcome = match error.is_empty() {
        true => Ok(values
            .iter()
            .map(|v| v.parse().ok())
            .collect::<Option<_>>()?),
        false => Err(error.clone()),
    };
    Some(Record {
        task: names[0].clone(),
        row: names[1].clone(),
        image: names[2].clone(),
        outcome,
        calls: calls.parse().ok()?,
        seconds: seconds.parse().ok()?,
    })
}
