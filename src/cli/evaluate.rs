//! `evaluate`: how close restored images are to the truth, and to what was measured.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value, json};

use posteriori::io::csv;
use posteriori::io::image::{self, Image};
use posteriori::metrics::METRICS;
use posteriori::operators::Measurement;
use posteriori::ops::residual;
use posteriori::{Cx, Error};

use super::files::{prepare_file, slashed};
use super::restore::read_measurement;
use super::ui::{Tally, Ui, number};

/// Compare restored images with the truth: PSNR, SSIM, and the residual of their measurements
///
/// Partners have the same path in each folder; the extension may differ, and a sample's suffix (x-s0.png)
/// is ignored. An image smaller than SSIM's window has none; a mean is over the images that have a value.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of restored images
    #[arg(long, value_name = "DIR")]
    restored: PathBuf,
    /// The folder of true images
    #[arg(long, value_name = "DIR")]
    truth: PathBuf,
    /// The folder of measurements with their measurement files, for the residual
    #[arg(long, value_name = "DIR")]
    measurements: Option<PathBuf>,
    /// Also write the values of every item here
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let restored = image::list(&args.restored, true)?;
    if restored.is_empty() {
        return Err(Error::file(&args.restored, "holds no images").into());
    }
    let list = |folder: &PathBuf| image::list(folder, true).map(|found| (folder.clone(), found));
    let truth = list(&args.truth)?;
    let measurements = args.measurements.as_ref().map(list).transpose()?;
    if let Some(path) = &args.csv {
        prepare_file(path)?;
    }
    let columns = columns(measurements.is_some());
    let mut rows: Vec<(String, Vec<Option<f64>>)> = Vec::new();
    let mut tally = Tally::default();
    ui.start_bar(restored.len() as u64);
    for (index, path) in restored.iter().enumerate() {
        let name = slashed(path);
        match one(&args.restored, path, &truth, measurements.as_ref()) {
            Ok(values) => {
                tally.done += 1;
                ui.line(format!("{name}  {}", line(&columns, &values)));
                ui.record("item", fields(&name, &columns, &values));
                rows.push((name, values));
            }
            Err(e) => tally.fail(ui, &name, &e),
        }
        ui.advance(index as u64 + 1, "");
    }
    alone(&restored, &truth, ui);
    if !rows.is_empty() {
        let means: Vec<Option<f64>> = (0..columns.len())
            .map(|c| mean(rows.iter().filter_map(|(_, values)| values[c])))
            .collect();
        ui.line(format!(
            "mean of {}  {}",
            rows.len(),
            line(&columns, &means)
        ));
        let mut mean = fields("", &columns, &means);
        mean["item"] = Value::Null;
        mean["mean_of"] = json!(rows.len());
        ui.record("item", mean);
    }
    if let Some(path) = &args.csv {
        write_csv(path, &columns, &rows)?;
    }
    Ok(tally.finish(ui))
}

/// Names true images that nothing was compared with.
fn alone(restored: &[PathBuf], (folder, files): &Folder, ui: &Ui) {
    let bare = |path: &PathBuf| path.with_extension("");
    let mut met: BTreeSet<PathBuf> = restored.iter().map(bare).collect();
    met.extend(restored.iter().map(|path| without_sample(&bare(path))));
    let alone = files.iter().filter(|path| !met.contains(&bare(path)));
    let names: Vec<String> = alone.map(|path| slashed(path)).collect();
    if names.is_empty() {
        return;
    }
    let (count, of) = (names.len(), files.len());
    let shown = names[..count.min(NAMED)].join(", ");
    let more = if count > NAMED { ", .." } else { "" };
    let folder = folder.display();
    ui.note(format!(
        "{count} of the {of} images in {folder} have no restoration: {shown}{more}"
    ));
}

fn columns(residual: bool) -> Vec<&'static str> {
    let names = METRICS.iter().map(|m| m.name);
    names.chain(residual.then_some("residual")).collect()
}

/// Names and values for people.
fn line(columns: &[&str], values: &[Option<f64>]) -> String {
    let cells = columns.iter().zip(values);
    let text = |v: &Option<f64>| v.map_or("-".into(), |v| number(v, 4));
    let cells: Vec<String> = cells.map(|(c, v)| format!("{c} {}", text(v))).collect();
    cells.join("  ")
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}

fn fields(item: &str, columns: &[&str], values: &[Option<f64>]) -> Value {
    let mut fields = Map::new();
    fields.insert("item".into(), json!(item));
    // JSON has no infinity; the PSNR of equal images is null.
    let cells = columns.iter().zip(values);
    fields.extend(cells.map(|(name, value)| ((*name).to_owned(), json!(value))));
    Value::Object(fields)
}

/// True images without a restoration that are named; the others are counted.
const NAMED: usize = 8;

type Folder = (PathBuf, Vec<PathBuf>);

fn one(
    folder: &Path,
    path: &Path,
    truth: &Folder,
    measurements: Option<&Folder>,
) -> posteriori::Result<Vec<Option<f64>>> {
    let x = image::read(folder.join(path))?;
    let clean = image::read(partner(path, truth)?)?;
    let mut values = Vec::new();
    let mut refused = None;
    for metric in METRICS {
        match (metric.compute)(&x, &clean) {
            Ok(value) => values.push(Some(value)),
            Err(e) => {
                values.push(None);
                refused.get_or_insert(e);
            }
        }
    }
    // What no metric takes are no partners.
    if let (Some(e), true) = (refused, values.iter().all(Option::is_none)) {
        return Err(e);
    }
    if let Some(measurements) = measurements {
        values.push(Some(residual_of(&x, &partner(path, measurements)?)?));
    }
    Ok(values)
}

/// The file of the same name in another folder: with the same extension if there is one.
fn partner(path: &Path, (folder, files): &Folder) -> posteriori::Result<PathBuf> {
    let bare = path.with_extension("");
    let wanted = [bare.clone(), without_sample(&bare)];
    for bare in wanted {
        let fits = |p: &&PathBuf| p.with_extension("") == bare;
        let same = files
            .iter()
            .filter(fits)
            .max_by_key(|p| p.extension() == path.extension());
        if let Some(found) = same {
            return Ok(folder.join(found));
        }
    }
    let why = format!("no image in {} has this name", folder.display());
    Err(Error::file(path, why))
}

/// `x` of `x-s12`.
fn without_sample(bare: &Path) -> PathBuf {
    let name = bare
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    match name.rsplit_once("-s") {
        Some((stem, digits))
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            bare.with_file_name(stem)
        }
        _ => bare.to_owned(),
    }
}

/// `||f(x) - y||` for the measurement `y` and the operator that its file describes.
fn residual_of(x: &Image, y: &Path) -> posteriori::Result<f64> {
    let measurement = read_measurement(&Measurement::path_for(y))?;
    let y = image::read_values(y)?;
    if measurement.image_size != [x.height, x.width] {
        let want = format!("{:?}", measurement.image_size);
        return Err(Error::shape(
            "image",
            want,
            format!("[{}, {}]", x.height, x.width),
        ));
    }
    let cx = Cx::native();
    let upload = |i: &Image| cx.upload(&i.pixels, [1, i.height, i.width, 3]);
    let measured = measurement.operator(&cx)?.measure(&cx, &upload(x)?)?;
    let (norms, _) = residual::forward(&cx, &measured, &upload(&y)?)?;
    Ok(norms.to_f64()?[0])
}

fn write_csv(
    path: &Path,
    columns: &[&str],
    rows: &[(String, Vec<Option<f64>>)],
) -> posteriori::Result<()> {
    let columns: Vec<&str> = std::iter::once("item")
        .chain(columns.iter().copied())
        .collect();
    let row = |(name, values): &(String, Vec<Option<f64>>)| {
        let text = |v: &Option<f64>| v.map_or_else(String::new, |v| v.to_string());
        let values = values.iter().map(text);
        std::iter::once(name.clone()).chain(values).collect()
    };
    csv::write(path, &columns, &rows.iter().map(row).collect::<Vec<_>>())
}
