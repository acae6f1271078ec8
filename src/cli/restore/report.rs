//! `restore --report`: the run as one HTML page. What is told of an image is kept in a file as it comes, so that memory stays
//! flat.

use std::path::{Path, PathBuf};

use serde_json::Value;

use posteriori::Result;
use posteriori::batch::NOTES;
use posteriori::batch::journal::Done;
use posteriori::io::image::Image;
use posteriori::operators::{Measurement, Task};
use posteriori::report::{Cell, Page, Picture, Rows};

use crate::cli::files;
use crate::cli::ui::Tally;

/// So many images are shown; what is told of later ones has no pictures.
pub(super) const SHOWN: usize = 1000;

/// Pictures have sides of at most so many pixels.
const SIDE: usize = 128;

/// A measurement and what was made of it, as the page shows them.
pub(super) type Pair = [Picture; 2];

/// The page in the making.
pub(super) struct Report {
    path: PathBuf,
    done: Rows,
    failed: Rows,
    shown: usize,
    far: usize,
    /// Of those that an earlier run made, how many there are, and how many are far.
    earlier: [usize; 2],
    /// What the records of the run's pictures begin with.
    record: Value,
}

/// What is known when a run ends.
pub(super) struct End {
    pub(super) tally: Tally,
    /// In the hands of other processes.
    pub(super) elsewhere: usize,
    /// How it ended.
    pub(super) how: String,
    /// Seconds.
    pub(super) wall: f64,
    /// The share of the time in which the devices computed, 0 to 1.
    pub(super) busy: f64,
    pub(super) per_hour: f64,
}

impl Report {
    /// The page of the process that writes this journal, in the folder of its outputs.
    pub(super) fn new(output: &Path, journal: &str) -> Self {
        let name = journal.replacen("journal", "report", 1);
        let name = name.trim_end_matches(".jsonl");
        let notes = output.join(NOTES);
        // Named so that the next run sweeps away what a killed one left.
        let rows = |what: &str, head: &[&str]| {
            Rows::new(notes.join(format!(".posteriori-{name}-{what}.tmp")), head)
        };
        let head = [
            "y", "x", "image", "sample", "task", "residual", "verdict", "seconds",
        ];
        Report {
            path: output.join(format!("{name}.html")),
            done: rows("done", &head),
            failed: rows("failed", &["image", "why"]),
            shown: 0,
            far: 0,
            earlier: [0; 2],
            record: Value::Null,
        }
    }

    /// What the run's results depend on is known.
    pub(super) fn begins(&mut self, record: &Value) {
        self.record = record.clone();
    }

    /// An image is done.
    pub(super) fn done(&mut self, done: &Done, pair: Option<Pair>) -> Result<()> {
        self.far += usize::from(done.verdict == "far");
        self.add(done, pair)
    }

    /// An image was there already, and this is what was noted of it.
    pub(super) fn earlier(&mut self, done: &Done, pair: Option<Pair>) -> Result<()> {
        let [all, far] = &mut self.earlier;
        *all += 1;
        *far += usize::from(done.verdict == "far");
        self.add(done, pair)
    }

    fn add(&mut self, done: &Done, pair: Option<Pair>) -> Result<()> {
        self.shown += usize::from(pair.is_some());
        let mut row = match pair {
            Some(pair) => Vec::from(pair.map(Cell::Picture)),
            None => vec!["".into(), "".into()],
        };
        row.extend([
            done.item.as_str().into(),
            Cell::number(done.sample),
            done.task.as_str().into(),
            Cell::number(format!("{:.4}", done.residual)),
            done.verdict.as_str().into(),
            Cell::number(format!("{:.2}", done.seconds)),
        ]);
        self.done.add(&row)
    }

    /// An image failed.
    pub(super) fn failed(&mut self, name: &str, why: &str) -> Result<()> {
        self.failed.add(&[name.into(), why.into()])
    }

    /// Writes the page.
    pub(super) fn write(self, end: &End) -> Result<()> {
        let mut page = Page::new("Restoration");
        page.facts(self.counts(end));
        page.heading("Images");
        let done = self.done.len();
        if done == 0 {
            page.text("None was restored.");
        } else if self.shown < done {
            page.text(&format!(
                "The first {} of {done} are shown, and what is told of the others stands below them without pictures.",
                self.shown
            ));
        }
        page.rows(self.done)?;
        if !self.failed.is_empty() {
            page.heading("Failed");
            page.rows(self.failed)?;
        }
        page.heading("How they were made");
        page.facts(of_run(&self.record));
        page.heading("Settings");
        page.facts(settings(&self.record));
        files::make_room(&self.path)?;
        page.write(&self.path)
    }

    fn counts(&self, end: &End) -> Vec<(&'static str, String)> {
        let Tally {
            done,
            skipped,
            failed,
        } = end.tally;
        let known = match self.earlier {
            [0, _] => String::new(),
            [all, far] => format!("; {all} of earlier runs stand below, {far} of them far"),
        };
        let mut counts = vec![
            ("restored", format!("{done}, of which {} far", self.far)),
            (
                "skipped",
                format!("{skipped}, which were there already{known}"),
            ),
            ("failed", failed.to_string()),
        ];
        if end.elsewhere > 0 {
            counts.push(("elsewhere", end.elsewhere.to_string()));
        }
        counts.extend([
            ("ended", end.how.clone()),
            ("seconds", format!("{:.1}", end.wall)),
            ("images an hour", format!("{:.0}", end.per_hour)),
            (
                "computing",
                format!("{:.1} % of the time", 100.0 * end.busy),
            ),
        ]);
        counts
    }
}

/// What the records of a run's pictures begin with, but the settings.
fn of_run(record: &Value) -> Vec<(String, String)> {
    let fields = record.as_object().into_iter().flatten();
    fields
        .filter(|(_, value)| !value.is_object())
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

fn settings(record: &Value) -> Vec<(String, String)> {
    let fields = record["settings"].as_object().into_iter().flatten();
    fields
        .map(|(name, of)| {
            let value = format!("{} ({})", text(&of["value"]), text(&of["from"]));
            (name.clone(), value)
        })
        .collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A measurement and what was made of it, small. A measurement that is no picture is shown as [`Measurement::shown`] does.
pub(super) fn pair(task: &Task, y: &Image, x: &Image) -> Result<Pair> {
    let y = match task.measures_pictures() {
        true => Picture::of(y, SIDE)?,
        false => {
            let measurement = Measurement::new(task.clone(), 0.0, 0, [x.height, x.width])?;
            Picture::of(&measurement.shown(y)?, SIDE)?
        }
    };
    Ok([y, Picture::of(x, SIDE)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_is_told_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(NOTES)).unwrap();
        let mut report = Report::new(dir.path(), "journal-0-of-3.jsonl");
        report.begins(&serde_json::json!({ "model": "m", "settings": {} }));
        let grey = Image::new(300, 2, vec![0.0; 1800]).unwrap();
        let task = Task::parse("denoise").unwrap();
        let noted = |item: &str, verdict: &str| Done {
            item: item.into(),
            sample: 0,
            output: String::new(),
            task: "denoise".into(),
            residual: 0.0,
            verdict: verdict.into(),
            seconds: 1.0,
        };
        let shown = || Some(pair(&task, &grey, &grey).unwrap());
        report.done(&noted("0.png", "far"), shown()).unwrap();
        report.earlier(&noted("2.png", "ok"), shown()).unwrap();
        report.done(&noted("1.png", "far"), None).unwrap();
        report.earlier(&noted("3.png", "far"), None).unwrap();
        let end = End {
            tally: Tally {
                done: 2,
                skipped: 5,
                failed: 0,
            },
            elsewhere: 0,
            how: "done".into(),
            wall: 2.0,
            busy: 0.5,
            per_hour: 3600.0,
        };
        report.write(&end).unwrap();
        let html = std::fs::read_to_string(dir.path().join("report-0-of-3.html")).unwrap();
        for said in [
            "The first 2 of 4 are shown",
            "1.png",
            "3.png",
            "2, of which 2 far",
            "5, which were there already; 2 of earlier runs stand below, 1 of them far",
            "50.0 % of",
        ] {
            assert!(html.contains(said), "{said}: {html}");
        }
        assert_eq!(
            html.matches("<img class=\"crisp\" width=\"128\"").count(),
            4
        );
        // The rows' file is gone.
        assert_eq!(
            std::fs::read_dir(dir.path().join(NOTES)).unwrap().count(),
            0
        );
    }
}
