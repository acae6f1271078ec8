//! `degrade`: clean images in, measurements and their measurement files out.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use posteriori::Error;
use posteriori::io::atomic::{failed, write_atomic};
use posteriori::io::image::{self, Format};
use posteriori::operators::{Measurement, Task, poisson};
use posteriori::rng::image_key;

use super::exit::DONE;
use super::files::{self, Entry};
use super::methods::tasks_help;
use super::run::{Writing, number};
use super::settings::{DEGRADE, Flags, Settings};
use super::ui::{Tally, Ui};

/// Measure clean images: apply an operator, add noise
///
/// Beside each measurement lies a file that tells `restore` what was done. A measurement is stored as a
/// picture, 16 bits a channel unless --format says otherwise, so values that noise takes below black or
/// above white are clamped. With --format tiff it is stored as 32-bit floats, exactly as it was measured; a measurement that
/// is no picture, as that of phase, is never stored otherwise.
#[derive(Debug, clap::Args)]
#[command(after_help = tasks_help())]
pub(super) struct Args {
    /// An image or a folder of images
    #[arg(short, long, value_name = "PATH")]
    input: PathBuf,
    /// Where the measurements go: a folder, or a file for a single image
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Standard deviation of the noise, for values from -1 to 1; or poisson:RATE, photons counted, RATE for each of 256
    /// levels
    #[arg(
        long,
        value_name = "NOISE",
        default_value = "0",
        allow_negative_numbers = true
    )]
    noise: String,
    #[command(flatten)]
    settings: Flags<DEGRADE>,
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let settings = Settings::gather(&args.settings, None)?;
    let task = settings.need("task", Task::parse)?;
    let noise = Noise::parse(&args.noise)?;
    let usual = match task.measures_pictures() {
        true => Format::Png16,
        false => Format::Tiff,
    };
    let writing = Writing::read(&settings, Some(usual))?;
    if args.settings.print {
        super::print_settings(&settings, ui);
        return Ok(DONE);
    }
    let Writing {
        recursive, format, ..
    } = writing;
    // A name given with -o decides; the usual format is then meant only where it fits.
    let named = settings.text("format").is_none() && args.input.is_file();
    let fits = |of: Format| of.extension() == usual.extension();
    let named = named && Format::of(&args.output).is_some_and(|of| !fits(of));
    let format = if named { None } else { format };
    let entries = files::entries(&args.input, &args.output, recursive, format)?;
    if !task.measures_pictures() {
        entries
            .iter()
            .try_for_each(|entry| expect_values(&task, entry))?;
    }
    if let Some(first) = entries.first() {
        files::prepare(&args.input, &args.output, first)?;
    }
    let mut tally = Tally::default();
    ui.start_bar(entries.len() as u64);
    for (index, entry) in entries.iter().enumerate() {
        match one(entry, &task, noise, &writing) {
            Ok(Some(size)) => {
                tally.done += 1;
                tell(ui, entry, &task, size);
            }
            Ok(None) => tally.skip(ui, &entry.name, &entry.output.display().to_string()),
            Err(e @ Error::Full { .. }) => return Err(e.into()),
            Err(e) => tally.fail(ui, &entry.name, &e),
        }
        ui.advance(index as u64 + 1, &entry.name);
        if writing.stop && tally.failed > 0 {
            break;
        }
    }
    Ok(tally.finish(ui))
}

/// Fails for a format that would clip what a task measures.
fn expect_values(task: &Task, Entry { output, format, .. }: &Entry) -> posteriori::Result<()> {
    if *format == Format::Tiff {
        return Ok(());
    }
    let why = format!(
        "{}: what {task} measures is no picture, and {format} would clip it; wanted tiff, which is taken when neither \
         --format nor the name says otherwise",
        output.display()
    );
    Err(Error::argument("--format", why))
}

/// The most Gaussian noise: what is drawn is finite in 32 bits.
const MOST_NOISE: f64 = 1e30;

/// The noise of a measurement.
#[derive(Clone, Copy)]
enum Noise {
    Gaussian(f64),
    Poisson(f64),
}

impl Noise {
    fn parse(text: &str) -> posteriori::Result<Self> {
        let read = match text.strip_prefix("poisson:") {
            Some(rate) => {
                number(rate).and_then(|rate| poisson::check(rate).map(|()| Noise::Poisson(rate)))
            }
            None => number(text).and_then(|sigma| match sigma <= MOST_NOISE {
                true => Ok(Noise::Gaussian(sigma)),
                false => {
                    let why = format!("wanted at most {MOST_NOISE:e}, got `{text}`");
                    Err(Error::argument("--noise", why))
                }
            }),
        };
        read.map_err(|e| match e {
            Error::Argument { why, .. } => Error::argument("--noise", why),
            other => other,
        })
    }
}

fn tell(ui: &Ui, entry: &Entry, task: &Task, [h, w]: [usize; 2]) {
    let output = entry.output.display().to_string();
    ui.line(format!("{} -> {output}  {task}, {h} x {w}", entry.name));
    ui.record(
        "item",
        json!({
            "item": entry.name, "output": output, "task": task.to_string(),
            "size": [h, w], "verdict": "ok",
        }),
    );
}

/// Measures one image; the size of the measurement, or `None` when it is there already.
fn one(
    entry: &Entry,
    task: &Task,
    noise: Noise,
    writing: &Writing,
) -> posteriori::Result<Option<[usize; 2]>> {
    entry.expect_readable()?;
    if !writing.exists.admits(&entry.output)? {
        return Ok(None);
    }
    let x = image::read(&entry.input)?;
    let size = [x.height, x.width];
    let new = |sigma| Measurement::new(task.clone(), sigma, writing.seed, size);
    let measurement = match noise {
        Noise::Gaussian(sigma) => new(sigma)?,
        Noise::Poisson(rate) => new(0.0)?.counting(rate)?,
    };
    let y = measurement.measure(&x, image_key(&entry.name))?;

    let picture = image::encode(&y, entry.format, &[])?;
    let text = measurement.to_json()?;

    files::make_room(&entry.output)?;
    write_atomic(&entry.output, |w| {
        let written = w.write_all(&picture).and_then(|()| w.flush());
        written.map_err(failed(&entry.output))?;
        // The old picture away before the file is new: where there is one, its own file is there too.
        remove(&entry.output)?;
        let path = Measurement::path_for(&entry.output);
        write_atomic(&path, |w| {
            w.write_all(text.as_bytes()).map_err(failed(&path))
        })
    })?;
    Ok(Some([y.height, y.width]))
}

/// Removes a picture that is there.
fn remove(picture: &Path) -> posteriori::Result<()> {
    match std::fs::remove_file(picture) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            let why = format!("the old picture cannot be removed: {e}");
            Err(Error::file(picture, why))
        }
        _ => Ok(()),
    }
}
