//! `restore`: measurements in, restored images out. Images of one size and task are sampled together; a
//! bad one is reported and the others go on.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use serde_json::{Value, json};

use posteriori::io::image::{self, Image};
use posteriori::operators::{Measurement, Task};
use posteriori::pipeline::plan::{Batch, Plan};
use posteriori::pipeline::{Item, Pipeline, Restored};
use posteriori::{Error, rng};

use super::exit::DONE;
use super::files::{self, Entry};
use super::methods::tasks_and_methods_help;
use super::run::{MOST, Run, Writing, whole};
use super::settings::{Flags, RESTORE, Settings};
use super::ui::{Tally, Ui};
use super::{plan, record};

/// Restore images
///
/// A measurement file beside an image, as `degrade` writes it, says how it was measured; other images
/// need --task.
#[derive(Debug, clap::Args)]
#[command(after_help = tasks_and_methods_help())]
pub(super) struct Args {
    /// An image or a folder of images
    #[arg(short, long, value_name = "PATH")]
    input: PathBuf,
    /// Where the results go: a folder, or a file for a single image
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    #[command(flatten)]
    settings: Flags<RESTORE>,
    /// Print what would be done, and its plan, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let mut settings = Settings::gather(&args.settings, None)?;
    let run = Run::read(&mut settings)?;
    let writing = Writing::read(&settings, None)?;
    let samples = settings.need("samples", |t| whole(t, 1..=MOST))? as u32;
    if args.settings.print {
        super::print_settings(&settings, ui);
        return Ok(DONE);
    }
    let Writing {
        recursive, format, ..
    } = writing;
    let entries = files::entries(&args.input, &args.output, recursive, format)?;
    let pipeline = match args.dry_run {
        true => None,
        false => Some(run.open(&mut settings, ui)?),
    };
    if let (Some(first), false) = (entries.first(), args.dry_run) {
        files::prepare(&args.input, &args.output, first)?;
    }
    let job = run.job(&Task::super_resolution(1), writing.seed)?;
    ui.start_bar((entries.len() * samples as usize * job.method.steps) as u64);
    let mut work = Work {
        record: record::of_run(&run, settings.to_json(), writing.seed),
        run: &run,
        writing: &writing,
        ui,
        pipeline: pipeline.as_ref(),
        steps: job.method.steps,
        groups: Vec::new(),
        planned: Vec::new(),
        tally: Tally::default(),
    };
    for entry in &entries {
        if work.stopped() {
            break;
        }
        work.take(entry, samples)?;
    }
    while !work.stopped() && !work.groups.is_empty() {
        let group = work.groups.remove(0);
        work.flush(group)?;
    }
    Ok(work.tally.finish(ui))
}

/// One restoration that is to be done.
struct Pending {
    name: String,
    output: PathBuf,
    format: image::Format,
    y: Rc<Image>,
    sample: u32,
}

/// Restorations that can be sampled together: one task, one size.
struct Group {
    task: Task,
    size: [usize; 2],
    items: Vec<Pending>,
}

struct Work<'a> {
    run: &'a Run,
    writing: &'a Writing,
    ui: &'a Ui,
    /// None in a dry run.
    pipeline: Option<&'a Pipeline>,
    record: Value,
    steps: usize,
    groups: Vec<Group>,
    /// Tasks, sizes and batches whose plan has been told.
    planned: Vec<(Task, [usize; 2], usize)>,
    tally: Tally,
}

impl Work<'_> {
    fn stopped(&self) -> bool {
        self.writing.stop && self.tally.failed > 0
    }

    /// Reads one image and puts its samples into their group; a full group is sampled.
    fn take(&mut self, entry: &Entry, samples: u32) -> Result<()> {
        let mut wanted = Vec::new();
        for sample in 0..samples {
            let output = files::of_sample(&entry.output, sample, samples);
            match self.writing.exists.admits(&output) {
                Ok(true) => wanted.push((sample, output)),
                Ok(false) => self
                    .tally
                    .skip(self.ui, &entry.name, &output.display().to_string()),
                Err(e) => self.tally.fail(self.ui, &entry.name, &e),
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let (task, y) = match read(entry, self.run.task.as_ref()) {
            Ok((task, y)) => (task, Rc::new(y)),
            Err(e) => {
                self.tally.fail(self.ui, &entry.name, &e);
                return Ok(());
            }
        };
        let size = [y.height, y.width];
        for (sample, output) in wanted {
            let pending = Pending {
                name: entry.name.clone(),
                output,
                format: entry.format,
                y: Rc::clone(&y),
                sample,
            };
            self.add(&task, size, pending)?;
        }
        Ok(())
    }

    fn add(&mut self, task: &Task, size: [usize; 2], pending: Pending) -> Result<()> {
        let same = |g: &Group| g.task == *task && g.size == size;
        let at = match self.groups.iter().position(same) {
            Some(at) => at,
            None => {
                self.groups.push(Group {
                    task: task.clone(),
                    size,
                    items: Vec::new(),
                });
                self.groups.len() - 1
            }
        };
        self.groups[at].items.push(pending);
        if self.groups[at].items.len() == self.run.batch {
            let group = self.groups.remove(at);
            self.flush(group)?;
        }
        Ok(())
    }

    /// Samples a group. An error that is about its images fails them; any other ends the program.
    fn flush(&mut self, group: Group) -> Result<()> {
        match self.sample(&group) {
            Ok(()) => Ok(()),
            Err(e) if e.is_of_the_images() => {
                for item in &group.items {
                    self.tally.fail(self.ui, &item.name, &e);
                }
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn sample(&mut self, group: &Group) -> posteriori::Result<()> {
        let job = self.run.job(&group.task, self.writing.seed)?;
        let size = job.task.image_size(group.size);
        job.task.check_size(size)?;
        let (model, cse) = (&self.run.model, self.run.cse.as_deref());
        let told = (job.task.clone(), size, group.items.len());
        if !self.planned.contains(&told) {
            let work = Batch {
                measured: true,
                size,
                batch: group.items.len(),
            };
            let engine = match self.pipeline {
                Some(pipeline) => pipeline.engine(),
                None => self.run.engine()?,
            };
            let plan = Plan::of(model, cse, &job, work, &engine)?;
            self.tell_plan(&plan, &job.task);
            self.planned.push(told);
        }
        let Some(pipeline) = self.pipeline else {
            for item in &group.items {
                self.would(item, &job.task);
            }
            return Ok(());
        };
        let items: Vec<Item<'_>> = group
            .items
            .iter()
            .map(|p| Item {
                y: &p.y,
                key: rng::image_key(&p.name),
                sample: p.sample,
            })
            .collect();
        let before = (self.tally.done + self.tally.skipped + self.tally.failed) * self.steps;
        let results = pipeline.restore_batch(&job, &items, |p| {
            let loss = p
                .loss
                .map_or(String::new(), |loss| format!("loss {loss:.3}"));
            let at = before + p.index * items.len();
            self.ui.advance(at as u64, loss);
            let names: Vec<&str> = group.items.iter().map(|p| p.name.as_str()).collect();
            let fields = json!({ "items": names, "step": p.index, "of": p.of, "loss": p.loss });
            self.ui.record("progress", fields);
        })?;
        for (item, result) in group.items.iter().zip(results) {
            let finished = result.and_then(|restored| self.finish(item, &job.task, &restored));
            if let Err(e) = finished {
                self.tally.fail(self.ui, &item.name, &e);
            }
        }
        Ok(())
    }

    fn tell_plan(&self, plan: &Plan, task: &Task) {
        self.ui.record("plan", plan::fields(plan, task, self.run));
        let [h, w] = plan.size;
        let gb = |bytes: f64| bytes / 1e9;
        let text = format!(
            "plan: {task}, {h} x {w}, batch {}: weights {:.3} GB, slab {:.3} GB, {:.1} TFLOP",
            plan.batch,
            gb(plan.weights as f64),
            gb(plan.slab as f64),
            plan.step.flops as f64 / 1e12 * plan.steps as f64
        );
        if self.pipeline.is_some() {
            self.ui.detail(text);
        } else {
            self.ui.line(text);
        }
    }

    fn would(&mut self, item: &Pending, task: &Task) {
        self.tally.done += 1;
        let output = item.output.display().to_string();
        self.ui.line(format!("{} -> {output}  {task}", item.name));
        self.ui.record(
            "item",
            json!({
                "item": item.name, "sample": item.sample, "output": output,
                "task": task.to_string(), "verdict": "planned",
            }),
        );
    }

    /// Judges and writes one result.
    fn finish(
        &mut self,
        item: &Pending,
        task: &Task,
        restored: &Restored,
    ) -> posteriori::Result<()> {
        let verdict = judge(&item.y, restored)?;
        let Restored { image, residual } = restored;
        let fields = json!({
            "task": task.to_string(),
            "operator": record::of_task(task),
            "image": item.name,
            "key": format!("{:016x}", rng::image_key(&item.name)),
            "sample": item.sample,
            "residual": residual,
            "verdict": verdict,
        });
        files::make_room(&item.output)?;
        image::save(
            &item.output,
            image,
            item.format,
            &record::with(&self.record, fields),
        )?;
        self.tally.done += 1;
        let output = item.output.display().to_string();
        self.ui.line(format!(
            "{} -> {output}  residual {residual:.4}  {verdict}",
            item.name
        ));
        self.ui.record(
            "item",
            json!({
                "item": item.name, "sample": item.sample, "output": output,
                "task": task.to_string(), "residual": residual, "verdict": verdict,
            }),
        );
        Ok(())
    }
}

/// The task and pixels of one input. Its measurement file decides; `--task` must not contradict it.
fn read(entry: &Entry, task: Option<&Task>) -> posteriori::Result<(Task, Image)> {
    let path = Measurement::path_for(&entry.input);
    let measurement = match path.exists() {
        true => Some(read_measurement(&path)?),
        false => None,
    };
    let y = image::read(&entry.input)?;
    let Some(measurement) = measurement else {
        let missing = || {
            let why = format!("wanted one, for there is no {}", path.display());
            Error::argument("--task", why)
        };
        return Ok((task.cloned().ok_or_else(missing)?, y));
    };
    let Measurement {
        task: measured,
        sigma,
        seed,
        image_size,
        ..
    } = &measurement;
    if let Some(task) = task {
        let as_measured = Measurement::new(task.clone(), *sigma, *seed, *image_size)?;
        if as_measured.task != *measured {
            let path = path.display();
            let why = format!("{task} contradicts {path}, which says {measured}; leave --task out");
            return Err(Error::argument("--task", why));
        }
    }
    let size = [y.height, y.width];
    if measured.image_size(size) != *image_size {
        let why = format!(
            "it describes the measurement of an image of {image_size:?} by {measured}, and this one is {size:?}"
        );
        return Err(Error::config(path.display().to_string(), why));
    }
    Ok((measured.clone(), y))
}

/// Reads a measurement file.
pub(super) fn read_measurement(path: &Path) -> posteriori::Result<Measurement> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::file(path, format!("cannot be read as a measurement file: {e}")))?;
    Measurement::from_json(&path.display().to_string(), &text)
}

/// `ok`, or `far`: one flat colour would explain the measurement better. A picture of one flat colour
/// is a failure, unless the measurement is flat too.
fn judge(y: &Image, restored: &Restored) -> posteriori::Result<&'static str> {
    let flat = |image: &Image| {
        let [mut low, mut high] = [f32::INFINITY, f32::NEG_INFINITY];
        for v in image.pixels.iter().map(|v| v.clamp(-1.0, 1.0)) {
            (low, high) = (low.min(v), high.max(v));
        }
        // One level of an 8-bit picture.
        high - low < 2.0 / 255.0
    };
    if flat(&restored.image) && !flat(y) {
        let why = "came out as one flat colour; lower zeta or take more steps";
        return Err(Error::argument("result", why));
    }
    let mean = y.pixels.iter().map(|v| f64::from(*v)).sum::<f64>() / y.pixels.len() as f64;
    let spread: f64 = y
        .pixels
        .iter()
        .map(|v| (f64::from(*v) - mean).powi(2))
        .sum();
    Ok(match restored.residual <= spread.sqrt().max(1e-3) {
        true => "ok",
        false => "far",
    })
}
