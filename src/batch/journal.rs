//! [`Journal`]: what a run over a folder has done, one JSON object a line, on disk before the next begins.
//!
//! The first line says what the results depend on; a run with other settings must not go on in the same folder. A line that a
//! killed run left half written is cut off when the next one opens the file. One run at a time holds a journal.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::io::atomic;

/// The most bytes of a journal that are read: some millions of lines.
const LONGEST: u64 = 1 << 30;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "schema", rename_all = "lowercase")]
pub enum Line {
    /// The first.
    Run(Head),
    /// A restoration that is done: its output was in its place before this was written.
    Item(Done),
    /// One that failed. It is tried again by a run that goes on.
    Error(Failed),
}

/// What the results of a run depend on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The program and its version.
    pub engine: String,
    /// [`model_fingerprint`](crate::pipeline::prior::model_fingerprint) of the model.
    pub model: String,
    /// [`fingerprint`](crate::pipeline::prior::fingerprint) of the conditional score estimator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cse: Option<String>,
    /// The runtime that computes.
    pub runtime: String,
    /// The element type of the networks.
    pub precision: String,
    /// Every setting by its name.
    pub settings: BTreeMap<String, String>,
}

/// A restoration that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The input's path below the input folder, with `/`.
    pub item: String,
    /// Which of several restorations.
    pub sample: u32,
    /// The output's path below the output folder, with `/`.
    pub output: String,
    /// The task.
    pub task: String,
    /// `||f(x) - y||` of the result.
    pub residual: f64,
    /// `ok` or `far`.
    pub verdict: String,
    /// What it took; 0 when a former run made it.
    pub seconds: f64,
}

/// A restoration that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// As [`Done::item`].
    pub item: String,
    /// As [`Done::sample`]; none when the image itself was of no use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<u32>,
    /// Why.
    pub error: String,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    done: BTreeMap<(String, u32), Done>,
}

impl Journal {
    /// Opens the journal of a run like `head`, or begins it. With `anew`, one that is there is emptied first; so is one of a run
    /// that has done nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the first setting that differs from the journal's; [`Error::File`] when it cannot be
    /// read or written, is damaged, or another run holds it.
    pub fn open(path: &Path, head: &Head, anew: bool) -> Result<Self> {
        let failed =
            |e: std::io::Error| Error::file(path, format!("the journal cannot be opened: {e}"));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let why = "another run writes this journal; wait for it, or share the work with --shard or --claim";
                return Err(Error::file(path, why));
            }
            // Some shared file systems have no locks.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let (mut lines, mut whole) = match anew {
            true => (Vec::new(), 0),
            false => parse(path, &load(path, &mut file)?)?,
        };
        if !lines.iter().any(|line| matches!(line, Line::Item(_)))
            && matches!(lines.first(), Some(Line::Run(there)) if there != head)
        {
            (lines, whole) = (Vec::new(), 0);
        }
        file.set_len(whole).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut journal = Journal {
            path: path.to_owned(),
            file,
            done: BTreeMap::new(),
        };
        match lines.first() {
            None => journal.add(&Line::Run(head.clone()))?,
            Some(Line::Run(there)) => differ(path, there, head)?,
            Some(_) => return Err(damaged(path, 1, "wanted the line that begins a run")),
        }
        for line in lines {
            if let Line::Item(done) = line {
                journal.note(done);
            }
        }
        Ok(journal)
    }

    /// Every line of a journal, but one that was left half written.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read or is damaged.
    pub fn read(path: &Path) -> Result<Vec<Line>> {
        let failed = |e: std::io::Error| Error::file(path, format!("cannot be read: {e}"));
        let mut file = File::open(path).map_err(failed)?;
        Ok(parse(path, &load(path, &mut file)?)?.0)
    }

    /// Whether a run like `head` may go on with a journal, which stays as it is.
    ///
    /// # Errors
    /// Those of [`Journal::open`].
    pub fn expect(path: &Path, head: &Head) -> Result<()> {
        let lines = Self::read(path)?;
        let did_something = lines.iter().any(|line| matches!(line, Line::Item(_)));
        match lines.first() {
            Some(Line::Run(there)) if did_something => differ(path, there, head),
            Some(Line::Run(_)) | None => Ok(()),
            Some(_) => Err(damaged(path, 1, "wanted the line that begins a run")),
        }
    }

    /// What is noted of a restoration that is done.
    pub fn done(&self, item: &str, sample: u32) -> Option<&Done> {
        self.done.get(&(item.to_owned(), sample))
    }

    /// Adds a line; it is on disk when this returns.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be written.
    pub fn add(&mut self, line: &Line) -> Result<()> {
        let failed = |e: std::io::Error| Error::file(&self.path, format!("cannot be written: {e}"));
        let mut text = serde_json::to_string(line)
            .map_err(|e| Error::file(&self.path, format!("cannot be written: {e}")))?;
        text.push('\n');
        atomic::append(&mut self.file, text.as_bytes()).map_err(failed)?;
        if let Line::Item(done) = line {
            self.note(done.clone());
        }
        Ok(())
    }

    fn note(&mut self, done: Done) {
        self.done.insert((done.item.clone(), done.sample), done);
    }
}

fn load(path: &Path, file: &mut File) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::file(path, format!("cannot be read: {e}"));
    let length = file.metadata().map_err(failed)?.len();
    if length > LONGEST {
        let why = format!("is {length} bytes long, the longest journal read has {LONGEST}");
        return Err(Error::file(path, why));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The lines of a journal's bytes, and how many bytes they are: what follows the last end of a line is none.
///
/// # Errors
/// [`Error::File`] naming a line that is not one of a journal.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<(Vec<Line>, u64)> {
    let whole = bytes
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    let mut lines = Vec::new();
    for (i, line) in bytes[..whole].split_inclusive(|b| *b == b'\n').enumerate() {
        let line =
            serde_json::from_slice(line).map_err(|e| damaged(path, i + 1, &e.to_string()))?;
        lines.push(line);
    }
    Ok((lines, whole as u64))
}

fn damaged(path: &Path, line: usize, why: &str) -> Error {
    let why = format!(
        "line {line} is not one of a journal: {why}; move the file away (what is in the output folder is kept), or choose \
         another output folder"
    );
    Error::file(path, why)
}

/// Refuses a run whose results would not fit to those that are there.
fn differ(path: &Path, there: &Head, head: &Head) -> Result<()> {
    let refuse = |name: &str, there: &str, got: &str| {
        let path = path.display();
        let why = format!(
            "wanted {there}, as the run had it that {path} is of, got {got}; choose another output folder, or begin anew \
             with --exists overwrite"
        );
        Err(Error::argument(name, why))
    };
    let absent = || "none".to_owned();
    let [had, have] = [there, head].map(|h| {
        [
            ("engine", h.engine.clone()),
            ("--model", h.model.clone()),
            ("--cse", h.cse.clone().unwrap_or_else(absent)),
            ("--device", h.runtime.clone()),
            ("--precision", h.precision.clone()),
        ]
    });
    for ((name, had), (_, have)) in had.iter().zip(&have) {
        if had != have {
            return refuse(name, had, have);
        }
    }
    let keys = there.settings.keys().chain(head.settings.keys());
    for key in keys {
        let [had, have] =
            [there, head].map(|h| h.settings.get(key).cloned().unwrap_or_else(absent));
        if had != have {
            return refuse(&format!("--{key}"), &had, &have);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(zeta: &str) -> Head {
        Head {
            engine: "posteriori 1".into(),
            settings: BTreeMap::from([("zeta".into(), zeta.into())]),
            ..Head::default()
        }
    }

    fn done(item: &str, sample: u32) -> Line {
        Line::Item(Done {
            item: item.into(),
            sample,
            output: item.into(),
            task: "sr8".into(),
            residual: 0.1 + 0.2,
            verdict: "ok".into(),
            seconds: 1.5,
        })
    }

    #[test]
    fn a_torn_line_is_cut_off_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let failed = Line::Error(Failed {
            item: "c".into(),
            sample: None,
            error: "why \"not\"\n".into(),
        });
        {
            let mut journal = Journal::open(&path, &head("1"), false).unwrap();
            journal.add(&done("a", 0)).unwrap();
            journal.add(&failed).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        let line = serde_json::to_string(&done("b", 1)).unwrap() + "\n";
        for cut in 0..line.len() {
            std::fs::write(&path, [&whole, &line.as_bytes()[..cut]].concat()).unwrap();
            assert_eq!(Journal::read(&path).unwrap().len(), 3);
            let mut journal = Journal::open(&path, &head("1"), false).unwrap();
            assert!(journal.done("a", 0).is_some() && journal.done("b", 1).is_none());
            assert_eq!(std::fs::read(&path).unwrap(), whole);
            journal.add(&done("b", 1)).unwrap();
            drop(journal);
            let all = [
                Line::Run(head("1")),
                done("a", 0),
                failed.clone(),
                done("b", 1),
            ];
            assert_eq!(Journal::read(&path).unwrap(), all);
        }
    }

    #[test]
    fn other_settings_are_refused_by_name_and_a_second_run_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut journal = Journal::open(&path, &head("1"), false).unwrap();
        let second = Journal::open(&path, &head("1"), false).unwrap_err();
        assert!(second.to_string().contains("another run"), "{second}");
        journal.add(&done("a", 0)).unwrap();
        drop(journal);
        let error = Journal::open(&path, &head("2"), false).unwrap_err();
        assert!(error.to_string().starts_with("--zeta: wanted 1"), "{error}");
        let none = Head {
            settings: BTreeMap::new(),
            ..head("1")
        };
        let error = Journal::open(&path, &none, false).unwrap_err();
        assert!(error.to_string().contains("got none"), "{error}");
        let other = Head {
            precision: "bf16".into(),
            ..head("1")
        };
        let error = Journal::open(&path, &other, false).unwrap_err();
        assert!(error.to_string().starts_with("--precision"), "{error}");
        // Anew: the old lines are gone.
        let journal = Journal::open(&path, &head("2"), true).unwrap();
        assert!(journal.done("a", 0).is_none());
        assert_eq!(Journal::read(&path).unwrap(), [Line::Run(head("2"))]);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        for (text, named) in [
            ("{}\n", "line 1"),
            ("{\"schema\":\"item\"}\n", "line 1"),
            (
                &(serde_json::to_string(&done("a", 0)).unwrap() + "\n"),
                "line 1",
            ),
            (
                &(serde_json::to_string(&Line::Run(head("1"))).unwrap() + "\n\u{0}\n"),
                "line 2",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Journal::open(&path, &head("1"), false).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
