//! `diagnose score-error`, `score-mean`, `diversity`: of a model and one image.

use std::path::PathBuf;

use serde_json::json;

use posteriori::diagnose::diversity;
use posteriori::diagnose::plot;
use posteriori::diagnose::score::{Estimate, Estimator, Subject, distances, mean};
use posteriori::io::csv;
use posteriori::io::image::{self, Format, Image};
use posteriori::operators::Measurement;
use posteriori::pipeline::{Item, embedded};
use posteriori::{Error, Result, Task, scenes};

use crate::cli::run::{Run, folder, size};
use crate::cli::settings::{DIAGNOSE, Flags, Settings};
use crate::cli::ui::Ui;

/// The image that is measured.
#[derive(Debug, clap::Args)]
struct Truth {
    /// The true image, which the program measures itself
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Instead of a file: the scene of this number that the program draws itself, from seed 0
    #[arg(long, value_name = "N", conflicts_with = "input")]
    scene: Option<u64>,
    /// Height and width of the scene
    #[arg(long, value_name = "HxW", default_value = "64x64")]
    size: String,
}

impl Truth {
    /// The image, as files are named: its noise depends on the name.
    fn open(&self) -> Result<Image> {
        match (&self.input, self.scene) {
            (Some(file), _) => image::read(file),
            (None, Some(scene)) => scenes::render(0, scene, size(&self.size)?),
            (None, None) => {
                let why = "wanted an image, or --scene N for one that the program draws itself";
                Err(Error::argument("--input", why))
            }
        }
    }
}

/// What scores are compared of.
#[derive(Debug, clap::Args)]
struct Scores {
    #[command(flatten)]
    truth: Truth,
    /// The folder of the results
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// zetas of DPS
    #[arg(long, value_name = "X,..", value_delimiter = ',', default_values_t = [0.05, 0.3, 1.2, 4.8])]
    zetas: Vec<f64>,
    #[command(flatten)]
    settings: Flags<DIAGNOSE>,
}

impl Scores {
    fn open(&self, samples: Option<usize>) -> Result<(Run, Subject, u64)> {
        let mut settings = Settings::gather(&self.settings, Some("dps"))?;
        let run = Run::read(&mut settings)?;
        let (task, seed) = (task(&run)?, seed(&settings)?);
        let (_, y) = measured(&self.truth, task, seed)?;
        let device = run.device()?;
        let subject = Subject::open(
            &device,
            &run.model,
            task,
            &y,
            samples.unwrap_or(run.batch_or_one()),
        )?;
        Ok((run, subject, seed))
    }

    /// The prior alone, the estimator if there is one, DPS; with their names.
    fn estimates<'a>(&self, cse: Option<&'a Estimator>) -> Vec<(String, Estimate<'a>)> {
        let mut all = vec![("unconditional".to_owned(), Estimate::Unconditional)];
        all.extend(cse.map(|cse| ("CSE".to_owned(), Estimate::Conditional(cse))));
        all.extend(
            self.zetas
                .iter()
                .map(|zeta| (format!("DPS zeta {zeta}"), Estimate::Dps(*zeta))),
        );
        all
    }
}

/// Figure 1: the distance of scores from a reference, along a run of the reference
///
/// The reference is a conditional score estimator that learnt from more images than the one of --cse. OUT gets
/// score-error.csv, with the paper's quantity, (1 - abar) mean((eps - eps_ref)^2), and the score's own, which divides by
/// 1 - abar; score-error.svg shows the paper's.
#[derive(Debug, clap::Args)]
pub(super) struct ScoreError {
    /// The ControlNet folder of the reference
    #[arg(long, value_name = "DIR")]
    reference: String,
    #[command(flatten)]
    scores: Scores,
}

pub(super) fn score_error(args: &ScoreError, ui: &Ui) -> Result<()> {
    let output = &args.scores.output;
    let (run, subject, seed) = args.scores.open(Some(1))?;
    let reference = subject.estimator(&folder(&args.reference, embedded::cse)?)?;
    let cse = run
        .cse
        .as_deref()
        .map(|cse| subject.estimator(cse))
        .transpose()?;
    let (names, estimates): (Vec<_>, Vec<_>) =
        args.scores.estimates(cse.as_ref()).into_iter().unzip();
    let steps = subject.steps(run.steps())?;
    super::make(output)?;
    ui.start_bar(steps.len() as u64);
    let all = distances(&subject, &steps, &reference, &estimates, seed, &|done| {
        ui.advance(done as u64, "")
    })?;
    ui.end_bar();
    let columns = ["step", "t", "estimate", "paper", "score"];
    let mut rows = Vec::new();
    for (name, distances) in names.iter().zip(&all) {
        for (i, d) in distances.iter().enumerate() {
            let number = |v: f64| format!("{v:e}");
            rows.push(vec![
                i.to_string(),
                d.t.to_string(),
                name.clone(),
                number(d.paper),
                number(d.score),
            ]);
        }
        let at = |share: f64| distances[((distances.len() - 1) as f64 * share) as usize].paper;
        let [first, middle, last] = [0.0, 0.5, 0.9].map(at);
        ui.line(format!(
            "{name:<18} at the start {first:.3e}, half way {middle:.3e}, at nine tenths {last:.3e}"
        ));
        ui.record(
            "score-error",
            json!({ "estimate": name, "start": first, "middle": middle, "late": last }),
        );
    }
    csv::write(&output.join("score-error.csv"), &columns, &rows)?;
    let lines: Vec<(String, Vec<f64>)> = names
        .into_iter()
        .zip(&all)
        .map(|(name, distances)| (name, distances.iter().map(|d| d.paper).collect()))
        .collect();
    let svg = plot::lines(
        "(1 - abar) mean((eps - eps_ref)^2), in the order of sampling",
        &lines,
    );
    super::write(&output.join("score-error.svg"), &svg)
}

/// Table 2: whether scores have mean zero at the first step, in the paper's form and in the true one
///
/// The paper's is the mean over pixels of |mean over channels| of one draw, 0.399 for white noise in four channels
/// whatever its mean; the true one averages over all draws first, and is about 0.8 over the root of their number if
/// there is no bias. OUT gets score-mean.csv.
#[derive(Debug, clap::Args)]
pub(super) struct ScoreMean {
    /// Independent states
    #[arg(long, value_name = "N", default_value_t = 1000)]
    draws: usize,
    #[command(flatten)]
    scores: Scores,
}

pub(super) fn score_mean(args: &ScoreMean, ui: &Ui) -> Result<()> {
    let output = &args.scores.output;
    if args.draws == 0 {
        return Err(Error::argument("--draws", "wanted at least 1, got 0"));
    }
    let (run, subject, seed) = args.scores.open(None)?;
    let cse = run
        .cse
        .as_deref()
        .map(|cse| subject.estimator(cse))
        .transpose()?;
    let step = subject.steps(run.steps())?[0];
    super::make(output)?;
    let mut rows = Vec::new();
    for (name, estimate) in args.scores.estimates(cse.as_ref()) {
        ui.start_bar(args.draws as u64);
        let tell = |done: usize| ui.advance(done as u64, &name);
        let mean = mean(&subject, &step, &estimate, args.draws, seed, &tell)?;
        ui.end_bar();
        ui.line(format!(
            "{name:<18} paper's {:.4}, of {} draws {:.4}",
            mean.paper, args.draws, mean.average
        ));
        ui.record(
            "score-mean",
            json!({ "estimate": name, "paper": mean.paper, "average": mean.average }),
        );
        rows.push(vec![name, mean.paper.to_string(), mean.average.to_string()]);
    }
    let columns = ["estimate", "paper", "average"];
    csv::write(&output.join("score-mean.csv"), &columns, &rows)
}

/// Table 3 and Figure 3: how much restorations of one measurement differ
///
/// OUT gets the samples, and diversity.png: at each pixel their standard deviation (k - 1), white for 0.5 and more.
#[derive(Debug, clap::Args)]
pub(super) struct Diversity {
    #[command(flatten)]
    truth: Truth,
    /// The folder of the results
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Restorations
    #[arg(long, value_name = "K", default_value_t = 50)]
    samples: u32,
    #[command(flatten)]
    settings: Flags<DIAGNOSE>,
}

pub(super) fn diversity(args: &Diversity, ui: &Ui) -> Result<()> {
    const WHITE: f64 = 0.5;
    let mut settings = Settings::gather(&args.settings, Some("dps"))?;
    let run = Run::read(&mut settings)?;
    let (task, seed) = (task(&run)?, seed(&settings)?);
    let (truth, y) = measured(&args.truth, task, seed)?;
    let pipeline = run.open(&mut settings, ui)?;
    let job = run.job(task, seed)?;
    super::make(&args.output)?;
    let mut images = Vec::new();
    ui.start_bar(u64::from(args.samples));
    let samples: Vec<u32> = (0..args.samples).collect();
    for batch in samples.chunks(run.batch_or_one()) {
        let item = |&sample: &u32| Item {
            y: &y,
            key: 0,
            sample,
        };
        let items: Vec<Item<'_>> = batch.iter().map(item).collect();
        for (sample, restored) in batch
            .iter()
            .zip(pipeline.restore_batch(&job, &items, |_| ())?)
        {
            let image = restored?.image;
            let file = args.output.join(format!("sample-{sample:03}.png"));
            image::save(&file, &image, Format::Png, &[])?;
            images.push(image);
        }
        ui.advance(images.len() as u64, "");
    }
    ui.end_bar();
    let found = diversity::Diversity::of(&images)?;
    let map = found.picture([truth.height, truth.width], WHITE)?;
    image::save(args.output.join("diversity.png"), &map, Format::Png, &[])?;
    let method = &run.preset;
    ui.line(format!(
        "{method}: standard deviation {:.4} over {} samples",
        found.mean,
        images.len()
    ));
    ui.record(
        "diversity",
        json!({ "method": method, "samples": images.len(), "std": found.mean }),
    );
    Ok(())
}

fn task(run: &Run) -> Result<&Task> {
    let missing = || Error::argument("--task", "wanted one: what is done to the image");
    run.task.as_ref().ok_or_else(missing)
}

fn seed(settings: &Settings) -> Result<u64> {
    let wrong =
        |text: &str| Error::argument("--seed", format!("wanted a whole number, got `{text}`"));
    settings.need("seed", |text| text.parse().map_err(|_| wrong(text)))
}

/// The true image and its measurement, without noise.
fn measured(truth: &Truth, task: &Task, seed: u64) -> Result<(Image, Image)> {
    let x = truth.open()?;
    let y = Measurement::new(task.clone(), 0.0, seed, [x.height, x.width])?.measure(&x, 0)?;
    Ok((x, y))
}
