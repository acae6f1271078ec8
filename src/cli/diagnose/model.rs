//! `diagnose score-error`, `score-mean`, `diversity`: of a model and one image.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::json;

use posteriori::diagnose::diversity;
use posteriori::diagnose::plot;
use posteriori::diagnose::score::{Estimate, Estimator, Subject, distances, mean};
use posteriori::io::csv;
use posteriori::io::image::{self, Format, Image};
use posteriori::metrics::METRICS;
use posteriori::operators::Measurement;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::job::Method;
use posteriori::pipeline::{Item, Pipeline, Restored, embedded};
use posteriori::report::{Page, Picture};
use posteriori::study::quantities;
use posteriori::{Error, Restore, Result, Task, scenes};

use crate::cli::print_settings;
use crate::cli::report::{MOST, Reporting, cells};
use crate::cli::run::{
    Run, batch_size, device, expect_count, folder, named, number, or_one, size, whole,
};
use crate::cli::settings::{DIAGNOSE, Flags, Origin, SCORE_ERROR, SCORE_MEAN, Settings};
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

impl fmt::Display for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.input, self.scene) {
            (Some(file), _) => write!(f, "{}", file.display()),
            (None, Some(scene)) => write!(f, "scene {scene} of seed 0, {}", self.size),
            (None, None) => f.write_str("none"),
        }
    }
}

/// What scores are compared of, by the command `ON`.
#[derive(Debug, clap::Args)]
struct Scores<const ON: u8> {
    #[command(flatten)]
    truth: Truth,
    /// The folder of the results
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// zetas of DPS
    #[arg(long, value_name = "X,..", value_delimiter = ',', default_values_t = [0.05, 0.3, 1.2, 4.8])]
    zetas: Vec<f64>,
    #[command(flatten)]
    report: Reporting,
    #[command(flatten)]
    settings: Flags<ON>,
}

/// What is asked, and of which model.
struct Asked {
    settings: Settings,
    model: PathBuf,
    cse: Option<PathBuf>,
    task: Task,
    steps: usize,
    /// States at once.
    batch: usize,
    seed: u64,
}

impl Asked {
    fn read(mut settings: Settings) -> Result<Self> {
        // Scores are of a run as DPS takes it.
        let steps = Method::dps().steps.to_string();
        settings.fill("steps", steps, Origin::Preset("dps".into()));
        let batch = settings.read("batch", batch_size)?;
        Ok(Asked {
            model: settings.need("model", |text| folder(text, embedded::folder))?,
            cse: settings.read("cse", |text| folder(text, embedded::cse))?,
            task: task(settings.read("task", Task::parse)?)?,
            steps: settings.need("steps", |text| Ok(whole(text, 1..=u64::MAX)? as usize))?,
            batch: batch.map_or(1, or_one),
            seed: seed(&settings)?,
            settings,
        })
    }

    fn device(&self) -> Result<Device> {
        let text = |key| self.settings.text(key);
        let name = text("device").unwrap_or("auto");
        device(name, text("precision"), text("offload").map(Path::new))
    }

    /// The estimator of `--cse`.
    fn estimator(&self, subject: &Subject) -> Result<Option<Estimator>> {
        let cse = self.cse.as_deref();
        cse.map(|cse| subject.estimator(cse)).transpose()
    }
}

impl<const ON: u8> Scores<ON> {
    /// What is asked; none where `--print-config` has printed it.
    fn read(&self, ui: &Ui) -> Result<Option<Asked>> {
        for zeta in &self.zetas {
            named("--zetas", number(&zeta.to_string()))?;
        }
        let asked = Asked::read(Settings::gather(&self.settings, None)?)?;
        if self.settings.print {
            print_settings(&asked.settings, ui);
            return Ok(None);
        }
        Ok(Some(asked))
    }

    /// The model and what is measured.
    fn open(&self, asked: &Asked) -> Result<Subject> {
        let Asked {
            model, task, batch, ..
        } = asked;
        let (_, _, y) = measured(&self.truth, task, asked.seed)?;
        Subject::open(&asked.device()?, model, task, &y, *batch)
    }

    /// What a report says of the run.
    fn tell(&self, page: &mut Page, settings: &Settings, more: [(&'static str, String); 1]) {
        let zetas: Vec<String> = self.zetas.iter().map(f64::to_string).collect();
        let own = [
            ("image", self.truth.to_string()),
            ("zetas of DPS", zetas.join(", ")),
        ];
        page.facts(own.into_iter().chain(more).chain(settings.facts()));
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
    scores: Scores<SCORE_ERROR>,
}

pub(super) fn score_error(args: &ScoreError, ui: &Ui) -> Result<()> {
    let output = &args.scores.output;
    let Some(asked) = args.scores.read(ui)? else {
        return Ok(());
    };
    let subject = &args.scores.open(&asked)?;
    let reference = subject.estimator(&folder(&args.reference, embedded::cse)?)?;
    let cse = asked.estimator(subject)?;
    let (names, estimates): (Vec<_>, Vec<_>) =
        args.scores.estimates(cse.as_ref()).into_iter().unzip();
    let steps = subject.steps(asked.steps)?;
    super::make(output)?;
    ui.start_bar(steps.len() as u64);
    let all = distances(
        subject,
        &steps,
        &reference,
        &estimates,
        asked.seed,
        &|done| ui.advance(done as u64, ""),
    )?;
    ui.end_bar();
    let columns = ["step", "t", "estimate", "paper", "score"];
    let (mut rows, mut summary) = (Vec::new(), Vec::new());
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
        let numbers = [first, middle, last].map(|v| format!("{v:.3e}"));
        summary.push([&[name.clone()][..], &numbers].concat());
    }
    csv::write(&output.join("score-error.csv"), &columns, &rows)?;
    let lines: Vec<(String, Vec<f64>)> = names
        .into_iter()
        .zip(&all)
        .map(|(name, distances)| (name, distances.iter().map(|d| d.paper).collect()))
        .collect();
    let title = "(1 - abar) mean((eps - eps_ref)^2), in the order of sampling";
    let svg = plot::lines(title, &lines);
    super::write(&output.join("score-error.svg"), &svg)?;
    let title = "The distance of scores from a reference";
    args.scores.report.write(output, title, |page| {
        page.text(
            "Along a run of the reference, a conditional score estimator: (1 - abar) mean((eps - eps_ref)^2), the paper's \
             quantity.",
        );
        let reference = [("reference", args.reference.clone())];
        args.scores.tell(page, &asked.settings, reference);
        let head = ["estimate", "at the start", "half way", "at nine tenths"];
        page.table(&head, summary.iter().map(|row| cells(row, 1)));
        page.svg("", &svg);
        page.heading("Every step");
        page.text("score divides the mean by 1 - abar: it is the distance of the scores.");
        page.table(&columns, rows.iter().map(|row| cells(row, 3)));
        Ok(())
    })
}

/// Table 2: whether scores have mean zero at the first step, in the paper's form and in the true one
///
/// The paper's is the mean over pixels of |mean over channels| of one draw, 0.399 for white noise in four channels
/// whatever its mean; the true one averages over all draws first, and is about 0.8 over the root of their number if
/// there is no bias. OUT gets score-mean.csv and score-mean.svg.
#[derive(Debug, clap::Args)]
pub(super) struct ScoreMean {
    /// Independent states
    #[arg(long, value_name = "N", default_value_t = 1000)]
    draws: usize,
    #[command(flatten)]
    scores: Scores<SCORE_MEAN>,
}

pub(super) fn score_mean(args: &ScoreMean, ui: &Ui) -> Result<()> {
    let output = &args.scores.output;
    expect_count("--draws", args.draws, 1)?;
    let Some(asked) = args.scores.read(ui)? else {
        return Ok(());
    };
    let subject = &args.scores.open(&asked)?;
    let cse = asked.estimator(subject)?;
    let step = subject.steps(asked.steps)?[0];
    super::make(output)?;
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    for (name, estimate) in args.scores.estimates(cse.as_ref()) {
        ui.start_bar(args.draws as u64);
        let tell = |done: usize| ui.advance(done as u64, &name);
        let mean = mean(subject, &step, &estimate, args.draws, asked.seed, &tell)?;
        ui.end_bar();
        ui.line(format!(
            "{name:<18} paper's {:.4}, of {} draws {:.4}",
            mean.paper, args.draws, mean.average
        ));
        ui.record(
            "score-mean",
            json!({ "estimate": name, "paper": mean.paper, "average": mean.average }),
        );
        let numbers = [mean.paper, mean.average];
        rows.push([&[name.clone()][..], &numbers.map(|v| v.to_string())].concat());
        groups.push((name, numbers.to_vec()));
    }
    let columns = ["estimate", "paper", "average"];
    csv::write(&output.join("score-mean.csv"), &columns, &rows)?;
    let series = ["paper's, of one draw", "average over all draws"];
    let svg = plot::bars("|mean of the score| at the first step", &series, &groups);
    super::write(&output.join("score-mean.svg"), &svg)?;
    let title = "Whether scores have mean zero";
    args.scores.report.write(output, title, |page| {
        let bias = 0.8 / (args.draws as f64).sqrt();
        page.text(&format!(
            "At the first step. paper is the mean over pixels of |mean over channels| of one draw, 0.399 for white noise in four \
             channels whatever its mean; average takes the mean over all draws first, and is about {bias:.4} if there is no bias."
        ));
        let draws = [("draws", args.draws.to_string())];
        args.scores.tell(page, &asked.settings, draws);
        page.table(&columns, rows.iter().map(|row| cells(row, 1)));
        page.svg("", &svg);
        Ok(())
    })
}

/// Table 3 and Figure 3: how much restorations of one measurement differ
///
/// OUT gets the samples; samples.csv, what is known of each; diversity.csv, their standard deviation (k - 1), the mean over
/// pixels; diversity.png, the same at each pixel, white for 0.5 and more.
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
    report: Reporting,
    #[command(flatten)]
    settings: Flags<DIAGNOSE>,
}

pub(super) fn diversity(args: &Diversity, ui: &Ui) -> Result<()> {
    const WHITE: f64 = 0.5;
    let output = &args.output;
    expect_count("--samples", args.samples as usize, 2)?;
    let mut settings = Settings::gather(&args.settings, None)?;
    let run = Run::read(&mut settings)?;
    let (task, seed) = (&task(run.task.clone())?, seed(&settings)?);
    if args.settings.print {
        print_settings(&settings, ui);
        return Ok(());
    }
    let (truth, measurement, y) = measured(&args.truth, task, seed)?;
    let shown = measurement.shown(&y)?;
    let pipeline = run.open(&mut settings, ui)?;
    let job = run.job(task, seed)?;
    super::make(output)?;
    let (images, rows) = args.restore(&pipeline, &job, [&truth, &y], run.batch_or_one(), ui)?;
    let found = diversity::Diversity::of(&images)?;
    let map = found.picture([truth.height, truth.width], WHITE)?;
    image::save(output.join("diversity.png"), &map, Format::Png, &[])?;
    let columns: Vec<&str> = ["sample"].into_iter().chain(quantities()).collect();
    csv::write(&output.join("samples.csv"), &columns, &rows)?;
    let method = &run.preset;
    let whole = [
        method.clone(),
        images.len().to_string(),
        found.mean.to_string(),
    ];
    let head = ["method", "samples", "std"];
    csv::write(&output.join("diversity.csv"), &head, &[whole.to_vec()])?;
    ui.line(format!(
        "{method}: standard deviation {:.4} over {} samples",
        found.mean,
        images.len()
    ));
    ui.record(
        "diversity",
        json!({ "method": method, "samples": images.len(), "std": found.mean }),
    );
    let title = "How much restorations of one measurement differ";
    args.report.write(output, title, |page| {
        page.facts([("image", args.truth.to_string())].into_iter().chain(settings.facts()));
        page.table(&head, [cells(&whole, 1)]);
        page.text("std: the standard deviation (k - 1) of values from -1 to 1, the mean over pixels and channels.");
        let of = |caption: &str, image| Ok((caption.to_owned(), Picture::of(image, MOST)?));
        let legend = format!("standard deviation, white for {WHITE} and more");
        page.figures([of("truth", &truth)?, of("measured", &shown)?, of(&legend, &map)?]);
        page.heading("Samples");
        let named = images.iter().enumerate();
        let samples = named.map(|(i, image)| of(&format!("sample {i}"), image));
        page.figures(samples.collect::<Result<Vec<_>>>()?);
        page.table(&columns, rows.iter().map(|row| cells(row, 1)));
        Ok(())
    })
}

impl Diversity {
    /// The samples, which are saved as they come, and a row of `samples.csv` for each.
    fn restore(
        &self,
        pipeline: &Pipeline,
        job: &Restore,
        [truth, y]: [&Image; 2],
        batch: usize,
        ui: &Ui,
    ) -> Result<(Vec<Image>, Vec<Vec<String>>)> {
        let (mut images, mut rows) = (Vec::new(), Vec::new());
        ui.start_bar(u64::from(self.samples));
        let samples: Vec<u32> = (0..self.samples).collect();
        for batch in samples.chunks(batch) {
            let item = |&sample: &u32| Item { y, key: 0, sample };
            let items: Vec<Item<'_>> = batch.iter().map(item).collect();
            let restored = pipeline.restore_batch(job, &items, |_| ())?;
            for (sample, restored) in batch.iter().zip(restored) {
                let Restored {
                    image, residual, ..
                } = restored?;
                let file = self.output.join(format!("sample-{sample:03}.png"));
                image::save(&file, &image, Format::Png, &[])?;
                let values = scores(&image, truth)
                    .into_iter()
                    .chain([residual.to_string()]);
                rows.push([sample.to_string()].into_iter().chain(values).collect());
                images.push(image);
            }
            ui.advance(images.len() as u64, "");
        }
        ui.end_bar();
        Ok((images, rows))
    }
}

/// Every metric of the picture that an image is saved as, so clamped to [-1, 1]; nothing where it has no value, as SSIM of
/// images smaller than its window.
fn scores(image: &Image, truth: &Image) -> Vec<String> {
    let mut picture = image.clone();
    let pixels = picture.pixels.iter_mut();
    pixels.for_each(|v| *v = v.clamp(-1.0, 1.0));
    let value = |v: f64| v.to_string();
    let metrics = METRICS.iter().map(|m| (m.compute)(&picture, truth));
    metrics
        .map(|v| v.map_or_else(|_| String::new(), value))
        .collect()
}

fn task(given: Option<Task>) -> Result<Task> {
    let missing = || Error::argument("--task", "wanted one: what is done to the image");
    given.ok_or_else(missing)
}

fn seed(settings: &Settings) -> Result<u64> {
    let wrong =
        |text: &str| Error::argument("--seed", format!("wanted a whole number, got `{text}`"));
    settings.need("seed", |text| text.parse().map_err(|_| wrong(text)))
}

/// The true image, how it is measured, and its measurement, without noise.
fn measured(truth: &Truth, task: &Task, seed: u64) -> Result<(Image, Measurement, Image)> {
    let x = truth.open()?;
    let measurement = Measurement::new(task.clone(), 0.0, seed, [x.height, x.width])?;
    let y = measurement.measure(&x, 0)?;
    Ok((x, measurement, y))
}
