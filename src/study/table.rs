//! Tables of the results: means over images with 95 % bootstrap intervals, and differences to the first row.
//! A failed image is in no mean; it is counted and named.

use std::fmt;

use super::{Record, quantities};
use crate::metrics::METRICS;
use crate::metrics::bootstrap::{self, Interval};

/// The rows of one task.
#[derive(Clone, Debug)]
pub struct Table {
    /// The task.
    pub task: String,
    /// In the order of the study.
    pub rows: Vec<Row>,
}

/// One row on one task.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The mean of each of [`quantities`] over the images that did not fail; none when all failed.
    pub means: Vec<Option<Interval>>,
    /// The mean of what it is minus what the first row is, over the images that failed in neither; empty for the
    /// first row.
    pub differences: Vec<Option<Interval>>,
    /// Images that did not fail in this row.
    pub images: usize,
    /// Images of `differences`.
    pub paired: usize,
    /// Images that failed, and why.
    pub failed: Vec<(String, String)>,
    /// Calls of the network for one image.
    pub calls: usize,
    /// The median seconds of the images that did not fail.
    pub seconds: Option<f64>,
}

/// The tables of a study's results, which are in the order of tasks, rows and images.
pub fn tables(records: &[Record]) -> Vec<Table> {
    let of_task = records.chunk_by(|a, b| a.task == b.task);
    let table = |of_task: &[Record]| {
        let rows: Vec<&[Record]> = of_task.chunk_by(|a, b| a.row == b.row).collect();
        let row = |(i, own): (usize, &&[Record])| Row::of(own, rows[..i].first().copied());
        Table {
            task: of_task[0].task.clone(),
            rows: rows.iter().enumerate().map(row).collect(),
        }
    };
    of_task.map(table).collect()
}

impl Row {
    /// From the records of one row, not none, and those of the first row if that is another.
    fn of(own: &[Record], first: Option<&[Record]>) -> Self {
        let good: Vec<&Vec<f64>> = own.iter().filter_map(|r| r.outcome.as_ref().ok()).collect();
        let mean = |pairs: &[(f64, f64)]| {
            let values: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
            bootstrap::mean(&values)
        };
        let of = |q: usize| good.iter().map(move |v| (v[q], 0.0));
        let quantities = 0..quantities().count();
        let means = quantities.clone().map(|q| mean(&of(q).collect::<Vec<_>>()));
        let pairs: Vec<(&Vec<f64>, &Vec<f64>)> = own
            .iter()
            .zip(first.unwrap_or_default())
            .filter_map(|(a, b)| Some((a.outcome.as_ref().ok()?, b.outcome.as_ref().ok()?)))
            .collect();
        let between = |q: usize| pairs.iter().map(move |(a, b)| (a[q], b[q]));
        let differences = quantities
            .filter(|_| first.is_some())
            .map(|q| mean(&between(q).collect::<Vec<_>>()));
        let failed = own.iter().filter_map(|r| {
            let why = r.outcome.as_ref().err()?;
            Some((r.image.clone(), why.clone()))
        });
        let timed = own.iter().filter(|r| r.outcome.is_ok());
        Row {
            name: own[0].row.clone(),
            means: means.collect(),
            differences: differences.collect(),
            images: good.len(),
            paired: pairs.len(),
            failed: failed.collect(),
            calls: own[0].calls,
            seconds: median(timed.map(|r| r.seconds).collect()),
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some((values[last / 2] + values[last.div_ceil(2)]) / 2.0)
}

/// The headings of [`quantities`]: names, and which way is better.
pub fn heads() -> Vec<String> {
    let arrow = |q: usize| match METRICS.get(q) {
        Some(metric) if metric.higher_is_better => '↑',
        _ => '↓',
    };
    let head = |(q, name)| format!("{name} {}", arrow(q));
    quantities().enumerate().map(head).collect()
}

/// In Markdown.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {}\n", self.task)?;
        let heads = heads().join(" | ");
        let rule = "---|".repeat(quantities().count());
        writeln!(f, "| row | {heads} | NFE | s/image | images | failed |")?;
        writeln!(f, "|---|{rule}---|---|---|---|")?;
        for row in &self.rows {
            let (name, means) = (escaped(&row.name), joined(&row.means));
            let Row {
                calls,
                seconds,
                images,
                ..
            } = row;
            let seconds = seconds.map_or("-".into(), |s| format!("{s:.3}"));
            let failed = row.failed.len();
            writeln!(
                f,
                "| {name} | {means} | {calls} | {seconds} | {images} | {failed} |"
            )?;
        }
        if let [first, others @ ..] = &self.rows[..]
            && !others.is_empty()
        {
            writeln!(f, "\nMinus {}, image by image:\n", escaped(&first.name))?;
            writeln!(f, "| row | {heads} | images |\n|---|{rule}---|")?;
            for row in others {
                let (name, differences) = (escaped(&row.name), joined(&row.differences));
                writeln!(f, "| {name} | {differences} | {} |", row.paired)?;
            }
        }
        for row in self.rows.iter().filter(|row| !row.failed.is_empty()) {
            writeln!(f, "\nFailed in {}:\n", escaped(&row.name))?;
            for (image, why) in &row.failed {
                writeln!(f, "- {image}: {why}")?;
            }
        }
        Ok(())
    }
}

fn escaped(name: &str) -> String {
    name.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn joined(intervals: &[Option<Interval>]) -> String {
    intervals.iter().map(text).collect::<Vec<_>>().join(" | ")
}

/// `mean [low, high]`, with four digits of the largest; `-` where there is none.
pub fn text(interval: &Option<Interval>) -> String {
    interval.as_ref().map_or("-".into(), cell)
}

fn cell(Interval { mean, low, high }: &Interval) -> String {
    let largest = low.abs().max(high.abs());
    let before = match largest.is_finite() && largest > 0.0 {
        true => largest.log10().floor() as i32 + 1,
        false => 1,
    };
    let decimals = (4 - before).clamp(0, 9) as usize;
    format!("{mean:.decimals$} [{low:.decimals$}, {high:.decimals$}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(task: &str, row: &str, image: &str, psnr: Option<f64>, seconds: f64) -> Record {
        let values = |psnr: f64| quantities().map(move |q| if q == "psnr" { psnr } else { 0.5 });
        Record {
            task: task.into(),
            row: row.into(),
            image: image.into(),
            outcome: psnr
                .map(|psnr| values(psnr).collect())
                .ok_or_else(|| "diverged at step 3".into()),
            calls: 7,
            seconds,
        }
    }

    #[test]
    fn means_differences_and_failures() {
        let records = [
            record("sr4", "A", "x", Some(20.0), 5.0),
            record("sr4", "A", "y", Some(22.0), 1.0),
            record("sr4", "A", "z", Some(60.0), 1.0),
            record("sr4", "B|C", "x", Some(21.0), 1.0),
            record("sr4", "B|C", "y", Some(23.0), 2.0),
            record("sr4", "B|C", "z", None, 0.0),
            record("sr2", "A", "x", Some(30.0), 1.0),
        ];
        let tables = tables(&records);
        assert_eq!(tables.len(), 2);
        let [a, b] = &tables[0].rows[..] else {
            panic!("two rows")
        };
        assert_eq!(a.means[0].unwrap().mean, 34.0);
        assert_eq!(
            (a.images, a.seconds, a.differences.len()),
            (3, Some(1.0), 0)
        );
        assert_eq!(b.means[0].unwrap().mean, 22.0);
        // z is in neither side of the difference
        let one = Interval {
            mean: 1.0,
            low: 1.0,
            high: 1.0,
        };
        assert_eq!((b.differences[0], b.paired), (Some(one), 2));
        assert_eq!(b.failed, [("z".into(), "diverged at step 3".into())]);
        let text = tables[0].to_string();
        for line in [
            "| row | psnr ↑ | ssim ↑ | residual ↓ | NFE | s/image | images | failed |",
            "| B\\|C | 22.00 [21.00, 23.00] | 0.5000 [0.5000, 0.5000] | 0.5000 [0.5000, 0.5000] | 7 | 1.500 | 2 | 1 |",
            "| B\\|C | 1.000 [1.000, 1.000] | 0.000 [0.000, 0.000] | 0.000 [0.000, 0.000] | 2 |",
            "- z: diverged at step 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nin\n{text}");
        }
        assert!(!tables[1].to_string().contains("Minus"));
    }

    #[test]
    fn all_failed() {
        let records = [
            record("sr4", "A", "x", None, 0.0),
            record("sr4", "B", "x", Some(1.0), 0.0),
        ];
        let table = &tables(&records)[0];
        assert_eq!(
            (table.rows[0].means[0], table.rows[1].differences[0]),
            (None, None)
        );
        assert!(
            table
                .to_string()
                .contains("| A | - | - | - | 7 | - | 0 | 1 |")
        );
    }

    #[test]
    fn digits() {
        let text = |mean, low, high| cell(&Interval { mean, low, high });
        assert_eq!(text(23.456, 22.0, 24.0), "23.46 [22.00, 24.00]");
        assert_eq!(text(-0.01, -0.0312, 0.012), "-0.01000 [-0.03120, 0.01200]");
        assert_eq!(text(12345.6, 12000.0, 13000.0), "12346 [12000, 13000]");
        let inf = f64::INFINITY;
        assert_eq!(text(inf, inf, inf), "inf [inf, inf]");
    }
}
