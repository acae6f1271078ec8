//! `results.csv`: a line for each image in each cell, in that order, appended as they become known. A line that was cut
//! off is taken away; a line that is not the one expected is another study's. One study at a time holds the file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Record, quantities};
use crate::error::{Error, Result};
use crate::io::atomic::{append, failed};
use crate::io::csv;

/// The file, and what is in it.
pub(super) struct Results {
    path: PathBuf,
    file: File,
    records: Vec<Record>,
}

impl Results {
    /// Opens and holds the file, or makes it; `names` says which task, row and image each line is of.
    pub(super) fn open(
        path: PathBuf,
        names: &dyn Fn(usize) -> Result<Option<[String; 3]>>,
    ) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(failed(&path))?;
        // Some shared file systems have no locks.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let why = "another study writes these results; wait for it, or choose another folder";
            return Err(Error::file(&path, why));
        }
        let text = whole_lines(&path, &mut file)?;
        let (rows, whole) = csv::read(&text);
        let mut rows = rows.into_iter();
        let header: Vec<String> = header();
        let refuse = |line, want: &[String], got: &[String]| {
            let (want, got) = (want.join(","), got.join(","));
            other_study(&path, line, &want, &got)
        };
        let first = rows.next();
        if let Some(got) = first.as_ref().filter(|got| **got != header) {
            return Err(refuse(1, &header, got));
        }
        let mut records = Vec::new();
        for (i, row) in rows.enumerate() {
            let line = i + 2;
            let want = names(i)?.ok_or_else(|| refuse(line, &["no more lines".into()], &row))?;
            if !row.starts_with(&want) {
                return Err(refuse(line, &want, &row));
            }
            let record = parse(&row).ok_or_else(|| refuse(line, &header, &row))?;
            records.push(record);
        }
        file.set_len(whole as u64).map_err(failed(&path))?;
        file.seek(SeekFrom::End(0)).map_err(failed(&path))?;
        let mut results = Results {
            path,
            file,
            records,
        };
        if first.is_none() {
            results.write(&csv::line(&header))?;
        }
        Ok(results)
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(super) fn into_records(self) -> Vec<Record> {
        self.records
    }

    /// Adds lines; they are on disk when this returns.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<()> {
        let text: String = records.iter().map(|r| csv::line(&cells(r))).collect();
        self.write(&text)?;
        self.records.extend_from_slice(records);
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
