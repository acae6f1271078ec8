//! `demo`: the embedded prior restores scenes that it has never seen.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use posteriori::io::image::Image;
use posteriori::metrics::{psnr::psnr, ssim::ssim};
use posteriori::operators::Operator;
use posteriori::pipeline::{Item, Restored, embedded};
use posteriori::rng::image_key;
use posteriori::sheet::{Sheet, difference};
use posteriori::{Cx, Device, Error, Method, Pipeline, Restore, Task, scenes};

use super::exit::{DONE, ITEMS};
use super::files;
use super::run::expect_count;
use super::ui::Ui;

/// Restore scenes with the model that ships with this program: nothing to download
///
/// Draws scenes that the model was not trained on, measures them (x4 super-resolution), restores them by DPS and
/// DMAP, each alone and with the conditional score estimator (CSE), at equal cost; writes a contact sheet with the
/// errors below the pictures, and prints what each method came to.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The contact sheet
    #[arg(short, long, value_name = "FILE", default_value = "demo.png")]
    output: PathBuf,
    /// How many scenes
    #[arg(long, value_name = "N", default_value_t = 4)]
    scenes: usize,
    /// The seed of the scenes and of all noise
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Sampling steps of DPS; DMAP takes half as many, with two gradients each
    #[arg(long, value_name = "N", default_value_t = 100)]
    steps: usize,
    /// auto, cpu, cuda, cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
}

/// zeta of DPS for the embedded prior; DMAP, which takes half the steps, takes twice as much.
const ZETA: f64 = 4.8;
/// Pixels of a picture on the sheet.
const CELL: [usize; 2] = [128, 128];

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    expect_count("--scenes", args.scenes, 1)?;
    expect_count("--steps", args.steps, 2)?;
    if args.seed == embedded::TRAINED_ON {
        let why = format!(
            "wanted new scenes; the model was trained on those of seed {}",
            args.seed
        );
        return Err(Error::argument("--seed", why).into());
    }
    let format = files::named_format(&args.output, None)?;
    files::expect_picture(&args.output, format, false)?;
    files::prepare_file(&args.output)?;
    let device = Device::parse(&args.device)?;
    let task = Task::parse(embedded::CSE_TASK)?;
    let (truth, measured) = scenes_of(&args, &task)?;
    let folder = embedded::folder()?;
    let alone = Pipeline::open(&folder, device.clone())?;
    let guided = Pipeline::open(&folder, device)?.with_controlnet(embedded::cse()?)?;
    let dps = Method::dps().steps(args.steps).zeta(ZETA);
    let dmap = Method::dmap().steps(args.steps / 2).zeta(2.0 * ZETA);
    let methods = [
        ("DPS", &alone, dps),
        ("DMAP", &alone, dmap),
        ("DPS+CSE", &guided, dps),
        ("DMAP+CSE", &guided, dmap),
    ];
    ui.start_bar(
        methods
            .iter()
            .map(|(_, _, method)| method.steps as u64)
            .sum(),
    );
    ui.line(format!(
        "{:<10}{:>8}{:>8}{:>10}{:>12}",
        "method", "PSNR", "SSIM", "residual", "s an image"
    ));
    let mut columns = Vec::new();
    let (mut done, mut failed) = (0, 0);
    for (name, pipeline, method) in methods {
        let job = Restore::new(task.clone(), method).seed(args.seed);
        let start = Instant::now();
        let restored = restore(pipeline, &job, &measured, &mut |step| {
            ui.advance((done + step) as u64, name);
        })?;
        let seconds = start.elapsed().as_secs_f64() / measured.len() as f64;
        done += method.steps;
        failed += tell(ui, name, &restored, &truth, seconds)?;
        columns.push((name, restored));
    }
    ui.end_bar();
    sheet(&truth, &measured, &columns)?.save(&args.output)?;
    ui.line(format!("\n{}", args.output.display()));
    ui.record(
        "summary",
        json!({ "output": args.output, "failed": failed }),
    );
    Ok(if failed == 0 { DONE } else { ITEMS })
}

/// Every measurement restored, together.
fn restore(
    pipeline: &Pipeline,
    job: &Restore,
    measured: &[Image],
    step: &mut dyn FnMut(usize),
) -> posteriori::Result<Vec<posteriori::Result<Restored>>> {
    let item = |(i, y)| Item {
        y,
        key: image_key(&format!("scene {i}")),
        sample: 0,
    };
    let items: Vec<Item<'_>> = measured.iter().enumerate().map(item).collect();
    let step = RefCell::new(step);
    pipeline.restore_batch(job, &items, |p| (step.borrow_mut())(p.index))
}

/// Prints the means over what a method restored; how many it did not.
fn tell(
    ui: &Ui,
    name: &str,
    restored: &[posteriori::Result<Restored>],
    truth: &[Image],
    seconds: f64,
) -> posteriori::Result<usize> {
    let (mut sums, mut count) = ([0.0; 3], 0);
    for (i, (restored, truth)) in restored.iter().zip(truth).enumerate() {
        match restored {
            Ok(Restored {
                image, residual, ..
            }) => {
                let values = [psnr(image, truth)?, ssim(image, truth)?, *residual];
                sums.iter_mut().zip(values).for_each(|(sum, v)| *sum += v);
                count += 1;
            }
            Err(e) => ui.complain(format!("{name}, scene {i}: {e}")),
        }
    }
    let [psnr, ssim, residual] = sums.map(|sum| sum / count as f64);
    ui.line(format!(
        "{name:<10}{psnr:>8.2}{ssim:>8.4}{residual:>10.3}{seconds:>12.2}"
    ));
    ui.record(
        "item",
        json!({
            "item": name, "psnr": psnr, "ssim": ssim, "residual": residual, "seconds": seconds, "images": count,
        }),
    );
    Ok(restored.len() - count)
}

/// A method's name, and what it made of each measurement.
type Column = (&'static str, Vec<posteriori::Result<Restored>>);

/// Two rows for each scene: the pictures, and how far each is from the truth.
fn sheet(truth: &[Image], measured: &[Image], columns: &[Column]) -> posteriori::Result<Image> {
    let names = columns.iter().map(|(name, _)| *name);
    let mut sheet = Sheet::new(CELL, ["TRUTH", "MEASURED"].into_iter().chain(names));
    let blank = Image::new(1, 1, vec![1.0; 3])?;
    for (i, (truth, measured)) in truth.iter().zip(measured).enumerate() {
        let mut pictures = vec![truth.clone(), measured.clone()];
        let mut errors = vec![blank.clone(), blank.clone()];
        for (_, restored) in columns {
            let image = restored[i].as_ref().ok().map(|restored| &restored.image);
            let error = image.map(|image| difference(image, truth)).transpose()?;
            pictures.push(image.unwrap_or(&blank).clone());
            errors.push(error.unwrap_or_else(|| blank.clone()));
        }
        sheet.row(pictures)?;
        sheet.row(errors)?;
    }
    sheet.draw()
}

/// Scenes and their measurements.
fn scenes_of(args: &Args, task: &Task) -> posteriori::Result<(Vec<Image>, Vec<Image>)> {
    let cx = Cx::native();
    let [h, w] = embedded::SIZE;
    let operator: Box<dyn Operator> = task.build(&cx, [h, w])?;
    let [mh, mw, _] = operator.measurement_shape();
    let (mut truth, mut measured) = (Vec::new(), Vec::new());
    for index in 0..args.scenes as u64 {
        let scene = scenes::render(args.seed, index, [h, w])?;
        let x = cx.upload(&scene.pixels, [1, h, w, 3])?;
        let y = operator.measure(&cx, &x)?.to_vec()?;
        measured.push(Image::new(mw, mh, y)?);
        truth.push(scene);
    }
    Ok((truth, measured))
}
