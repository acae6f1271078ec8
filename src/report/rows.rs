//! [`Rows`]: a table that grows while a run goes on, kept in a file, so that ten thousand pictures take no memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{Cell, push_foot, push_head, push_row};
use crate::error::{Error, Result};
use crate::io::atomic::failed;

/// A table in the making. Its file is made with the first row, and removed with this.
#[derive(Debug)]
pub struct Rows {
    path: PathBuf,
    head: Vec<String>,
    file: Option<BufWriter<File>>,
    count: usize,
}

impl Rows {
    /// A table under these headings, whose rows are kept in the file `path` until the page is written.
    pub fn new(path: impl Into<PathBuf>, head: &[&str]) -> Self {
        Rows {
            path: path.into(),
            head: head.iter().map(|text| (*text).to_owned()).collect(),
            file: None,
            count: 0,
        }
    }

    /// Adds a row; one that is shorter than the head is filled up.
    ///
    /// # Errors
    /// [`Error::File`] when the file cannot be made or written.
    pub fn add(&mut self, row: &[Cell]) -> Result<()> {
        let mut text = String::new();
        if self.file.is_none() {
            self.file = Some(BufWriter::new(create(&self.path)?));
            push_head(&self.head, row, &mut text);
        }
        push_row(row, self.head.len(), &mut text);
        self.count += 1;
        self.append(&text)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Ends the table.
    pub(super) fn end(&mut self) -> Result<()> {
        let mut text = String::new();
        push_foot(&mut text);
        self.append(&text)?;
        let flushed = self.file.as_mut().map_or(Ok(()), BufWriter::flush);
        flushed.map_err(failed(&self.path))
    }

    /// Copies all of it, once it is ended.
    pub(super) fn copy_to(&self, to: &mut dyn Write) -> Result<()> {
        let failed = |e: std::io::Error| Error::file(&self.path, format!("cannot be copied: {e}"));
        let mut file = File::open(&self.path).map_err(failed)?;
        std::io::copy(&mut file, to).map_err(failed)?;
        Ok(())
    }

    fn append(&mut self, text: &str) -> Result<()> {
        let written = match &mut self.file {
            Some(file) => file.write_all(text.as_bytes()),
            None => Ok(()),
        };
        written.map_err(failed(&self.path))
    }
}

fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(|e| {
        let why = format!("the rows of a report cannot be kept in this file: {e}");
        Error::file(path, why)
    })
}

impl Drop for Rows {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // It is hidden, and swept by the next run.
            drop(std::fs::remove_file(&self.path));
        }
    }
}
