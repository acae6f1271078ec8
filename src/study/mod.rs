//! [`Study`]: tables like the paper's 4, 5, 6 and 9: methods by tasks over a set of images, with intervals.
//!
//! Every cell (a row of the table on a task) restores the same measurements with the same noise, so rows are
//! paired. A line of `results.csv` is written as soon as it is known; a study that was stopped goes on there, and tries again what
//! failed.

mod head;
mod pictures;
mod results;
pub mod table;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::batch::notes::Notes;
use crate::diffusion::schedule::Schedule;
use crate::error::{Error, Result};
use crate::io::image::Image;
use crate::metrics::METRICS;
use crate::operators::Measurement;
use crate::pipeline::device::Device;
use crate::pipeline::job::Restore;
use crate::pipeline::plan::{Batch, Engine, Plan};
use crate::pipeline::{Item, Pipeline, Progress, Restored};
use crate::rng::image_key;
use crate::train::data::Source;

pub use pictures::Shown;
use results::{Names, Results};

/// What is compared on what.
#[derive(Clone, Debug)]
pub struct Study {
    /// The checkpoint folder of the prior.
    pub model: PathBuf,
    /// The true images.
    pub images: Source,
    /// `[height, width]` of scenes; files have their own.
    pub size: [usize; 2],
    /// The standard deviation of the measurements' noise, for values from -1 to 1.
    pub noise: f64,
    /// Images sampled together; never changes a result.
    pub batch: usize,
    /// Ops and the variants that they take wherever those fit.
    pub variants: Vec<(String, String)>,
    /// The first images are shown on contact sheets, so many.
    pub shown: usize,
    /// What is done to every image, in this order: task by task.
    pub cells: Vec<Cell>,
}

/// One row of a table on one task.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The name of the row; a row and a task have one cell.
    pub row: String,
    /// Task, method and seed. The seed is the measurement's too.
    pub job: Restore,
    /// The folder of the conditional score estimator.
    pub cse: Option<PathBuf>,
}

/// What came of one image in one cell: a line of `results.csv`.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The task, as it prints.
    pub task: String,
    /// The row.
    pub row: String,
    /// The name of the image.
    pub image: String,
    /// The values of [`quantities`], or why there are none.
    pub outcome: Result<Vec<f64>, String>,
    /// Calls of the network for this image.
    pub calls: usize,
    /// The seconds that its batch took, divided by the images of the batch.
    pub seconds: f64,
}

/// What is told on the way.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A result that was there already.
    Found(&'a Cell, &'a Record),
    /// A batch of this many images has taken a step.
    Step(&'a Cell, usize, Progress),
    /// A result, which is on disk.
    Done(&'a Cell, &'a Record),
}

/// What is known of a restored image: every metric of the picture that it is saved as, so clamped to [-1, 1], and
/// `residual`, `||f(x) - y||` of the image before that.
pub fn quantities() -> impl Iterator<Item = &'static str> {
    METRICS.iter().map(|m| m.name).chain(["residual"])
}

/// A true image and its measurement.
struct Sample {
    truth: Image,
    y: Image,
}

/// A study that holds its folder, whose results agree with it. Nothing is written yet.
#[derive(Debug)]
pub struct Begun<'s> {
    study: &'s Study,
    device: &'s Device,
    folder: &'s Path,
    head: Notes,
    results: Results,
}

impl Begun<'_> {
    /// Does what is not done yet, or has failed, and returns every result, of former runs too, in the order of cells and images.
    ///
    /// # Errors
    /// What models, settings and files return. An image that cannot be read, measured or restored is a record with its
    /// error instead.
    pub fn run(self, watch: &dyn Fn(Event<'_>)) -> Result<Vec<Record>> {
        let (study, folder, mut results) = (self.study, self.folder, self.results);
        head::write(folder, &self.head)?;
        results.begin()?;
        let images = study.images.count();
        let mut left: Vec<Vec<usize>> = Vec::new();
        for (c, cell) in study.cells.iter().enumerate() {
            let mut of_cell = Vec::new();
            for i in 0..images {
                match results.good(c * images + i) {
                    Some(record) if !study.lacks(folder, c, i) => watch(Event::Found(cell, record)),
                    _ => of_cell.push(i),
                }
            }
            left.push(of_cell);
        }
        let mut opened: Option<(&Option<PathBuf>, Pipeline)> = None;
        for (c, (cell, left)) in study.cells.iter().zip(left).enumerate() {
            let mut left = &left[..];
            while !left.is_empty() {
                let pipeline = match opened.take() {
                    Some((cse, pipeline)) if *cse == cell.cse => pipeline,
                    _ => study.open(self.device, cell)?,
                };
                let records = study.batch(&pipeline, folder, c, left, watch)?;
                opened = Some((&cell.cse, pipeline));
                results.append(&records)?;
                records.iter().for_each(|r| watch(Event::Done(cell, r)));
                left = &left[records.len()..];
            }
            let following = study.cells.get(c + 1);
            if following.is_none_or(|next| next.job.task != cell.job.task) {
                study.draw(folder, &cell.job.task)?;
            }
        }
        Ok(results.into_records())
    }
}

impl Study {
    /// [`Study::begin`], and [`Begun::run`].
    ///
    /// # Errors
    /// Those of both.
    pub fn run(
        &self,
        device: &Device,
        folder: &Path,
        watch: &dyn Fn(Event<'_>),
    ) -> Result<Vec<Record>> {
        self.begin(device, folder)?.run(watch)
    }

    /// Holds the folder, which is made if it is missing, and compares what its results depend on.
    ///
    /// # Errors
    /// [`Error::Config`] when `results.csv` is another study's; [`Error::Argument`] naming what differs when its results are of
    /// another model, of other images, in another precision or by another version; [`Error::File`] when a study that runs
    /// holds it; what models and files return.
    pub fn begin<'s>(&'s self, device: &'s Device, folder: &'s Path) -> Result<Begun<'s>> {
        std::fs::create_dir_all(folder)
            .map_err(|e| Error::file(folder, format!("the output folder cannot be made: {e}")))?;
        let results = Results::open(folder.join("results.csv"), self.names()?)?;
        let head = head::of(self, device)?;
        head::agree(folder, &head, &results.images())?;
        Ok(Begun {
            study: self,
            device,
            folder,
            head,
            results,
        })
    }

    /// Task, row and image of every line.
    fn names(&self) -> Result<Vec<Names>> {
        let images = 0..self.images.count();
        let images: Vec<String> = images.map(|i| self.images.name(i)).collect::<Result<_>>()?;
        let names = |cell: &Cell| {
            let (task, row) = (cell.job.task.to_string(), cell.row.clone());
            let of = move |image: &String| [task.clone(), row.clone(), image.clone()];
            images.iter().map(of).collect::<Vec<_>>()
        };
        Ok(self.cells.iter().flat_map(names).collect())
    }

    fn schedule(&self) -> Result<Schedule> {
        Schedule::open(self.model.join("scheduler/scheduler_config.json"))
    }

    /// Plans every cell for the first image that can be read, computing and writing nothing: what is missing or cannot
    /// be is told at once, not hours later.
    ///
    /// # Errors
    /// [`Error::Config`] naming row and task where a setting cannot be; what models and files return.
    pub fn check(&self, device: &Device) -> Result<()> {
        let schedule = &self.schedule()?;
        let image = |i| self.images.get(i, self.size);
        let count = self.images.count();
        let mut first = image(0);
        for i in 1..count {
            if first.is_ok() {
                break;
            }
            first = image(i);
        }
        let first = first?;
        let size = [first.height, first.width];
        let engine = Engine::of(device.rt(), device.dtype(), self.variants.clone());
        for Cell { row, job, cse } in &self.cells {
            let work = Batch {
                measured: true,
                size,
                batch: self.batch.min(count),
            };
            let planned = Measurement::new(job.task.clone(), self.noise, job.seed, size)
                .and_then(|_| job.steps(schedule))
                .and_then(|_| Plan::of(&self.model, cse.as_deref(), job, work, &engine));
            planned.map_err(|e| match e {
                Error::Argument { name, why } => {
                    Error::config(format!("row `{row}` on {}: {name}", job.task), why)
                }
                other => other,
            })?;
        }
        Ok(())
    }

    fn open(&self, device: &Device, cell: &Cell) -> Result<Pipeline> {
        let mut pipeline = Pipeline::open(&self.model, device.clone())?;
        if let Some(cse) = &cell.cse {
            pipeline = pipeline.with_controlnet(cse)?;
        }
        let force = |p: Pipeline, (op, variant): &(String, String)| p.forcing(op, variant);
        self.variants.iter().try_fold(pipeline, force)
    }

    /// The records of the next batch of cell `c`, of the first of the images `left`.
    fn batch(
        &self,
        pipeline: &Pipeline,
        folder: &Path,
        c: usize,
        left: &[usize],
        watch: &dyn Fn(Event<'_>),
    ) -> Result<Vec<Record>> {
        let cell = &self.cells[c];
        let calls = cell.job.network_calls(&pipeline.prior().schedule)?;
        let gathered = self.gather(cell, left)?;
        let samples = || {
            gathered
                .iter()
                .filter_map(|(_, sample)| sample.as_ref().ok())
        };
        let named = gathered.iter().filter(|(_, sample)| sample.is_ok());
        let items: Vec<Item<'_>> = named
            .zip(samples())
            .map(|((name, _), sample)| Item {
                y: &sample.y,
                key: image_key(name),
                sample: 0,
            })
            .collect();
        let start = Instant::now();
        let tell = |progress| watch(Event::Step(cell, items.len(), progress));
        let mut restored = match pipeline.restore_batch(&cell.job, &items, tell) {
            Ok(all) => all
                .into_iter()
                .map(|one| one.map_err(|e| why(&e)))
                .collect(),
            Err(e) if e.is_of_the_images() => vec![Err(why(&e)); items.len()],
            Err(e) => return Err(e),
        }
        .into_iter();
        let seconds = start.elapsed().as_secs_f64() / items.len().max(1) as f64;
        let mut records = Vec::new();
        for (&i, (image, sample)) in left.iter().zip(gathered) {
            let restored = sample.map_err(|e| why(&e)).and_then(|sample| {
                let restored = restored.next().unwrap_or_else(|| Err("was lost".into()))?;
                score(&sample.truth, restored).map_err(|e| why(&e))
            });
            if let Ok((_, picture)) = &restored {
                self.keep(folder, c, i, picture)?;
            }
            records.push(Record {
                task: cell.job.task.to_string(),
                row: cell.row.clone(),
                image,
                outcome: restored.map(|(values, _)| values),
                calls,
                seconds,
            });
        }
        Ok(records)
    }

    /// The first of the images `left`, as many as can be sampled together: those that can be measured have one size.
    fn gather(&self, cell: &Cell, left: &[usize]) -> Result<Vec<(String, Result<Sample>)>> {
        let mut all = Vec::new();
        let mut size = None;
        for &i in left.iter().take(self.batch.max(1)) {
            let name = self.images.name(i)?;
            let sample = self.sample(cell, i);
            if let Ok(Sample { truth, .. }) = &sample {
                let own = [truth.height, truth.width];
                if *size.get_or_insert(own) != own {
                    break;
                }
            }
            all.push((name, sample));
        }
        Ok(all)
    }

    fn sample(&self, cell: &Cell, i: usize) -> Result<Sample> {
        let Restore { task, seed, .. } = &cell.job;
        let truth = self.images.get(i, self.size)?;
        let size = [truth.height, truth.width];
        let measurement = Measurement::new(task.clone(), self.noise, *seed, size)?;
        let y = measurement.measure(&truth, image_key(&self.images.name(i)?))?;
        Ok(Sample { truth, y })
    }
}

/// The values of [`quantities`], and the picture that they are of.
fn score(truth: &Image, restored: Restored) -> Result<(Vec<f64>, Image)> {
    let Restored {
        mut image,
        residual,
        ..
    } = restored;
    if !image.pixels.iter().all(|v| v.is_finite()) {
        return Err(Error::argument(
            "result",
            "wanted finite pixels, got NaN or infinity",
        ));
    }
    image
        .pixels
        .iter_mut()
        .for_each(|v| *v = v.clamp(-1.0, 1.0));
    let metrics = METRICS.iter().map(|m| (m.compute)(&image, truth));
    let values = metrics.chain([Ok(residual)]).collect::<Result<_>>()?;
    Ok((values, image))
}

/// An error in one line that is the same in any batch.
fn why(error: &Error) -> String {
    match error {
        Error::Diverged { step, .. } => format!("diverged at step {step} (NaN or infinity)"),
        other => other.to_string().replace(['\n', '\r'], " "),
    }
}
