//! The page of a study: its tables, the pictures that it keeps, every result, the config.

use std::path::Path;

use posteriori::Result;
use posteriori::io::image::Image;
use posteriori::report::{Cell, Page, Picture};
use posteriori::study::table::{Table, heads, text};
use posteriori::study::{Record, Study, quantities};

use crate::cli::report::{MOST, cells};

/// What a report is made of.
pub(super) struct Parts<'a> {
    /// What stands over all tables.
    pub(super) lead: &'a str,
    pub(super) study: &'a Study,
    pub(super) tables: &'a [Table],
    pub(super) records: &'a [Record],
    /// The text of the config file.
    pub(super) config: &'a str,
    /// The folder of the study.
    pub(super) folder: &'a Path,
}

impl Parts<'_> {
    /// Adds everything to a page.
    pub(super) fn fill(&self, page: &mut Page) -> Result<()> {
        page.text(self.lead);
        for table in self.tables {
            page.heading(&table.task);
            means(page, table);
            differences(page, table);
            failures(page, table);
            self.pictures(page, table)?;
        }
        page.heading("Every result");
        let head = ["task", "row", "image"].into_iter().chain(quantities());
        let head: Vec<&str> = head.chain(["NFE", "seconds", "error"]).collect();
        page.table(&head, self.records.iter().map(line));
        page.heading("The config file");
        page.code(self.config);
        Ok(())
    }

    /// The first images: truth, measurement, what every row made of it.
    fn pictures(&self, page: &mut Page, table: &Table) -> Result<()> {
        let shown = self.study.pictures(self.folder, &table.task)?;
        let names = table.rows.iter().map(|row| row.name.as_str());
        let head = ["image", "truth", "measured"].into_iter().chain(names);
        let cell = |image: &Option<Image>| match image {
            Some(image) => Picture::of(image, MOST).map(Cell::Picture),
            None => Ok("failed".into()),
        };
        let mut rows = Vec::new();
        for one in shown {
            let pictures = [Some(one.truth), Some(one.measured)].into_iter();
            let mut row = vec![Cell::Text(one.name)];
            for image in pictures.chain(one.made) {
                row.push(cell(&image)?);
            }
            rows.push(row);
        }
        if !rows.is_empty() {
            page.table(&head.collect::<Vec<_>>(), rows);
        }
        Ok(())
    }
}

/// Means with their intervals.
fn means(page: &mut Page, table: &Table) {
    let heads = heads();
    let head = ["row"].into_iter().chain(heads.iter().map(String::as_str));
    let head: Vec<&str> = head.chain(["NFE", "s/image", "images", "failed"]).collect();
    let rows = table.rows.iter().map(|row| {
        let means = row.means.iter().map(|mean| Cell::Number(text(mean)));
        let seconds = row.seconds.map_or("-".into(), |s| format!("{s:.3}"));
        let counts = [row.calls.to_string(), seconds];
        let images = [row.images, row.failed.len()].map(|n| n.to_string());
        let own = [Cell::Text(row.name.clone())].into_iter().chain(means);
        own.chain(counts.into_iter().chain(images).map(Cell::Number))
            .collect()
    });
    page.table(&head, rows);
}

/// Every row minus the first.
fn differences(page: &mut Page, table: &Table) {
    let [first, others @ ..] = &table.rows[..] else {
        return;
    };
    if others.is_empty() {
        return;
    }
    page.text(&format!("Minus {}, image by image:", first.name));
    let heads = heads();
    let head = ["row"].into_iter().chain(heads.iter().map(String::as_str));
    let head: Vec<&str> = head.chain(["images"]).collect();
    let rows = others.iter().map(|row| {
        let differences = row.differences.iter().map(|d| Cell::Number(text(d)));
        let own = [Cell::Text(row.name.clone())]
            .into_iter()
            .chain(differences);
        own.chain([Cell::number(row.paired)]).collect()
    });
    page.table(&head, rows);
}

fn failures(page: &mut Page, table: &Table) {
    let of = |row: &str, (image, why): &(String, String)| -> Vec<Cell> {
        [row, image, why].map(Cell::from).to_vec()
    };
    let rows = table.rows.iter();
    let mut rows = rows
        .flat_map(|row| row.failed.iter().map(|failed| of(&row.name, failed)))
        .peekable();
    if rows.peek().is_some() {
        page.text("Failed:");
        page.table(&["row", "image", "why"], rows);
    }
}

/// A line of `results.csv`.
fn line(record: &Record) -> Vec<Cell> {
    let values = match &record.outcome {
        Ok(values) => values.iter().map(f64::to_string).collect(),
        Err(_) => vec![String::new(); quantities().count()],
    };
    let words = [&record.task, &record.row, &record.image].map(String::clone);
    let numbers = [record.calls.to_string(), record.seconds.to_string()];
    let row: Vec<String> = words.into_iter().chain(values).chain(numbers).collect();
    let mut cells = cells(&row, 3);
    cells.push(Cell::Text(
        record.outcome.as_ref().err().cloned().unwrap_or_default(),
    ));
    cells
}
