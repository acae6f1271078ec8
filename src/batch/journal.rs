//! [`Journal`]: what a run over a folder has done, one JSON object a line, on disk before the next begins.
//!
//! The first line says what the results depend on; a run with other settings must not go on in the same folder. A line that a
//! killed run left half written is cut off when the next one opens the file. One run at a time holds a journal; runs that share
//! a folder have journals beside each other, and agree.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
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
    /// that has done nothing. Without, journals beside it must be of runs like `head` too, unless they have done nothing and
    /// are over.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the first setting that differs from a journal's; [`Error::File`] when one cannot be
    /// read or written, is damaged, or another run holds this.
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
        if is_held(&file) {
            let why = "another run writes this journal; wait for it, or share the work with --shard or --claim";
            return Err(Error::file(path, why));
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
        let begun = lines.is_empty();
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
        if !anew {
            // The head is on disk: of two runs that begin at once, one sees the other's.
            let others = beside(path)?;
            let agreed = others.iter().try_for_each(|other| agree(other, head));
            if agreed.is_err() && begun {
                // It does no harm if it stays.
                drop(std::fs::remove_file(path));
            }
            agreed?;
        }
        Ok(journal)
    }

    /// Removes the journals beside this one: all of what they are of is done anew.
    ///
    /// # Errors
    /// [`Error::File`] when a run that is not over holds one, or it cannot be removed.
    pub fn alone(&self) -> Result<()> {
        for other in beside(&self.path)? {
            let failed = |e: std::io::Error| {
                let why = format!("the journal of an earlier run cannot be removed: {e}");
                Error::file(&other, why)
            };
            if is_held(&File::open(&other).map_err(failed)?) {
                let why = "another run writes this journal; wait for it before all is done anew";
                return Err(Error::file(&other, why));
            }
            std::fs::remove_file(&other).map_err(failed)?;
        }
        Ok(())
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
        let failed = |e: std::io::Error| Error::written(&self.path, "cannot be written", &e);
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

/// Whether another process holds an open journal; if not, it is held from now on.
fn is_held(file: &File) -> bool {
    // Some shared file systems have no locks.
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// The other journals of a folder.
fn beside(path: &Path) -> Result<Vec<PathBuf>> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let failed = |e: std::io::Error| Error::file(folder, format!("cannot be looked into: {e}"));
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let text = name.to_string_lossy();
        let other = Some(&*name) != path.file_name();
        if other && text.starts_with("journal") && text.ends_with(".jsonl") {
            all.push(folder.join(&name));
        }
    }
    all.sort();
    Ok(all)
}

/// Refuses a run unlike the one that this journal is of, if that has done something or is not over.
fn agree(path: &Path, head: &Head) -> Result<()> {
    let failed = |e: std::io::Error| Error::file(path, format!("cannot be read: {e}"));
    let file = match File::open(path) {
        // Removed just now, by a run that does all anew.
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        file => file.map_err(failed)?,
    };
    let mut first: Option<Head> = None;
    let mut bytes = Vec::new();
    let mut reader = BufReader::new(&file).take(LONGEST);
    for number in 1.. {
        bytes.clear();
        reader.read_until(b'\n', &mut bytes).map_err(failed)?;
        if bytes.last() != Some(&b'\n') {
            break;
        }
        let line = serde_json::from_slice(&bytes);
        match (
            line.map_err(|e| damaged(path, number, &e.to_string()))?,
            &first,
        ) {
            (Line::Run(there), None) if there == *head => return Ok(()),
            (Line::Run(there), None) => first = Some(there),
            (_, None) => return Err(damaged(path, 1, "wanted the line that begins a run")),
            (Line::Item(_), Some(there)) => return differ(path, there, head),
            _ => {}
        }
    }
    match first {
        Some(there) if is_held(&file) => differ(path, &there, head),
        _ => Ok(()),
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
    fn journals_beside_each_other_agree() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let open = |name: &str, zeta: &str, anew| Journal::open(&at(name), &head(zeta), anew);
        let refused = |name: &str, zeta: &str| {
            let error = open(name, zeta, false).unwrap_err().to_string();
            let named = error.starts_with("--zeta: wanted 1") && error.contains("journal-0-of-2");
            assert!(named, "{error}");
        };
        let mut first = open("journal-0-of-2.jsonl", "1", false).unwrap();
        // It has done nothing, but is not over.
        drop(open("journal-1-of-2.jsonl", "1", false).unwrap());
        refused("journal-1-of-2.jsonl", "2");
        assert!(!at("journal-1-of-2.jsonl").exists());
        drop(first);
        drop(open("journal-1-of-2.jsonl", "2", false).unwrap());
        first = open("journal-0-of-2.jsonl", "1", false).unwrap();
        first.add(&done("a", 0)).unwrap();
        for name in [
            "journal.jsonl",
            "journal-1-of-2.jsonl",
            "journal-0-of-5.jsonl",
        ] {
            refused(name, "2");
            drop(open(name, "1", false).unwrap());
        }
        // All anew, once nobody else is at work.
        let whole = open("journal.jsonl", "2", true).unwrap();
        let error = whole.alone().unwrap_err().to_string();
        assert!(
            error.contains("journal-0-of-2.jsonl: another run"),
            "{error}"
        );
        drop(first);
        whole.alone().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // What is no journal is named.
        std::fs::write(at("journal-x.jsonl"), "{}\n").unwrap();
        let error = open("journal-1-of-2.jsonl", "2", false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("journal-x.jsonl: line 1"), "{error}");
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
