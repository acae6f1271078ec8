//! `generate`: images from the prior alone.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use posteriori::Error;
use posteriori::io::image::{self, Format};
use posteriori::operators::Task;
use posteriori::pipeline::Restored;
use posteriori::rng::{Stream, image_key};

use super::exit::DONE;
use super::run::{MOST, Run, Writing, named, size, whole};
use super::settings::{Flags, GENERATE, Settings};
use super::ui::{Tally, Ui};
use super::{files, plan, record};

/// Draw images from the model's prior, unconditionally or with a prompt
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the images go: a folder, or a file for a single one
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// How many images
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        allow_negative_numbers = true
    )]
    count: String,
    /// The size of the images; by default the model's own
    #[arg(long, value_name = "HxW")]
    size: Option<String>,
    #[command(flatten)]
    settings: Flags<GENERATE>,
}

/// The image key of everything generated: the sample's number alone tells images apart.
pub(super) const KEY: &str = "generate";

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let mut settings = Settings::gather(&args.settings, Some("ancestral"))?;
    let run = Run::read(&mut settings)?;
    let writing = Writing::read(&settings, None)?;
    let count = count(&args.count)?;
    if args.settings.print {
        super::print_settings(&settings, ui);
        return Ok(DONE);
    }
    let size = match &args.size {
        Some(text) => size(text)?,
        None => plan::own_size(&run.model)?,
    };
    let (outputs, format) = outputs(&args.output, count, &writing)?;
    files::expect_picture(&args.output, format, writing.format.is_some())?;
    if let [output, ..] = &outputs[..] {
        files::prepare_file(output)?;
    }
    let device = run.device()?;
    let pipeline = run.open_with(&device, &mut settings, ui)?;
    let job = run.job(&Task::super_resolution(1), writing.seed)?;
    let head = record::head(&run, &settings, &device)?;
    let record = record::of_run(&run, &head, &settings, writing.seed);
    let steps = job.method.steps;
    let mut tally = Tally::default();
    ui.start_bar(u64::from(count) * steps as u64);
    let mut wanted = Vec::new();
    for (sample, output) in (0..).zip(&outputs) {
        let name = output.display().to_string();
        match writing.exists.admits(output) {
            Ok(true) => wanted.push((sample, output, name)),
            Ok(false) => tally.skip(ui, &name, &name),
            Err(e) => tally.fail(ui, &name, &e),
        }
    }
    for batch in wanted.chunks(run.batch_or_one()) {
        let stream =
            |&(sample, _, _): &(u32, _, _)| Stream::new(writing.seed, image_key(KEY), sample);
        let streams: Vec<Stream> = batch.iter().map(stream).collect();
        let before = (tally.done + tally.failed + tally.skipped) * steps;
        let results = pipeline.generate(&job, size, &streams, |p| {
            ui.advance((before + p.index * batch.len()) as u64, "");
            let names: Vec<&String> = batch.iter().map(|(_, _, name)| name).collect();
            ui.record(
                "progress",
                json!({ "items": names, "step": p.index, "of": p.of, "loss": p.loss }),
            );
        })?;
        for ((sample, output, name), result) in batch.iter().zip(results) {
            let save = |Restored { image, tile, .. }: Restored| {
                files::make_room(output)?;
                let fields = json!({
                    "task": record::GENERATE, "size": size, "sample": sample, "format": format.to_string(),
                    "tile": tile,
                });
                image::save(output, &image, format, &record::with(&record, fields))
            };
            match result.and_then(save) {
                Ok(()) => {
                    tally.done += 1;
                    ui.line(name);
                    ui.record(
                        "item",
                        json!({ "item": name, "output": name, "verdict": "ok" }),
                    );
                }
                Err(e @ Error::Full { .. }) => return Err(e.into()),
                Err(e) => tally.fail(ui, name, &e),
            }
        }
    }
    Ok(tally.finish(ui))
}

fn count(text: &str) -> posteriori::Result<u32> {
    named("--count", whole(text, 1..=MOST)).map(|count| count as u32)
}

/// The files to write and their format.
fn outputs(
    output: &Path,
    count: u32,
    writing: &Writing,
) -> posteriori::Result<(Vec<PathBuf>, Format)> {
    if count == 1 && !files::is_folder(output) {
        let format = files::named_format(output, writing.format)?;
        return Ok((vec![output.to_owned()], format));
    }
    if output.is_file() || !files::is_folder(output) {
        let why = format!(
            "{} is a file; {count} images need a folder, such as {0}/",
            output.display()
        );
        return Err(Error::argument("--output", why));
    }
    let format = writing.format.unwrap_or(Format::Png);
    let name = |index| output.join(format!("sample-{index:05}.{}", format.extension()));
    Ok(((0..count).map(name).collect(), format))
}
