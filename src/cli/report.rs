//! `--report`: what a command found, as one HTML page beside its files.

use std::path::Path;

use posteriori::Result;
use posteriori::report::{Cell, Page};

/// The flag.
#[derive(Debug, clap::Args)]
pub(super) struct Reporting {
    /// Also write OUT/report.html: settings, numbers, plots and pictures in one page that needs no other file
    #[arg(long)]
    report: bool,
}

/// Pictures of a report have sides of at most so many pixels.
pub(super) const MOST: usize = 256;

impl Reporting {
    /// Writes the page that `fill` fills, if one is wanted.
    pub(super) fn write(
        &self,
        output: &Path,
        title: &str,
        fill: impl FnOnce(&mut Page) -> Result<()>,
    ) -> Result<()> {
        if !self.report {
            return Ok(());
        }
        let mut page = Page::new(title);
        fill(&mut page)?;
        page.write(output.join("report.html"))
    }
}

/// A row of a CSV file as one of a page: so many words, then numbers.
pub(super) fn cells(row: &[String], words: usize) -> Vec<Cell> {
    let cell = |(i, text): (usize, &String)| match i < words {
        true => Cell::Text(text.clone()),
        false => Cell::Number(text.clone()),
    };
    row.iter().enumerate().map(cell).collect()
}
