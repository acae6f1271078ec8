//! `restore --dry-run`: what would be done and skipped, whether it fits, and how long it would take. What the run would refuse
//! is refused.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use posteriori::Error;
use posteriori::batch::journal::Journal;
use posteriori::io::image::Image;
use posteriori::operators::Task;
use posteriori::pipeline::cancel::Cancel;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::plan::{Batch, Engine, Plan};
use posteriori::pipeline::queue::{Finished, Request, Watch};
use posteriori::pipeline::{Pipeline, Progress};

use super::Flow;
use super::input::read;
use crate::cli::files::{self, Entry, Exists};
use crate::cli::run::{Run, Writing};
use crate::cli::settings::{Origin, Settings};
use crate::cli::ui::{Tally, Ui};
use crate::cli::{plan, record};

/// Images that would be sampled together.
struct Group<'a> {
    task: Task,
    /// Height and width of their measurements, and how many values one has.
    size: [usize; 2],
    values: usize,
    /// The first, which is read again when it is its turn.
    first: &'a Entry,
    images: usize,
}

/// A run that is not made.
pub(super) struct Dry<'a> {
    pub(super) run: &'a Run,
    pub(super) writing: &'a Writing,
    pub(super) samples: u32,
    /// Whether it would claim what it does.
    pub(super) claimed: bool,
    pub(super) ui: &'a Ui,
}

impl Dry<'_> {
    /// Tells of these entries what would be done, and the plan and time of each group of them.
    pub(super) fn run(
        self,
        settings: Settings,
        entries: &[Entry],
        journal: Option<PathBuf>,
    ) -> Result<u8> {
        let Dry {
            run, writing, ui, ..
        } = self;
        // A machine without the device can still be told what a run would take there.
        let devices = run.devices().unwrap_or_default();
        if let (Some(device), Some(journal)) = (devices.first(), &journal)
            && journal.is_file()
            && writing.exists != Exists::Overwrite
        {
            expect_the_same(run, settings, device, journal)?;
        }
        let mut tally = Tally::default();
        let mut groups: Vec<Group<'_>> = Vec::new();
        for entry in entries {
            let wanted = wanted(entry, self.samples, writing, &mut tally, ui);
            if !wanted.is_empty() {
                match read(entry, run.task.as_ref()) {
                    Ok((task, y)) => {
                        tell_items(entry, &wanted, &task, &mut tally, ui);
                        join(&mut groups, entry, task, &y, wanted.len());
                    }
                    Err(e) => tally.fail(ui, &entry.name, &e),
                }
            }
            if writing.stop && tally.failed > 0 {
                break;
            }
        }
        let mut targets = Vec::from_iter(devices.iter().map(|device| device.rt().target()));
        let device = devices.into_iter().next();
        let mut pipeline = device.map(|device| run.open_on(device)).transpose()?;
        let engine = match &pipeline {
            Some(pipeline) => pipeline.engine(),
            None => run.engine()?,
        };
        if targets.is_empty() {
            targets.push(engine.target);
        }
        let flow = Flow::of(run.batch, &targets, self.claimed);
        for group in &groups {
            let cancel = Cancel::new();
            pipeline = pipeline.map(|p| p.stopped_by(cancel.clone()));
            let measured = pipeline.as_ref().map(|p| measure(run, group, p, &cancel));
            tell(run, group, flow, &engine, measured.transpose()?, ui)?;
        }
        Ok(tally.finish(ui))
    }
}

/// Refuses what a run would refuse whose folder has results of other settings.
fn expect_the_same(
    run: &Run,
    mut settings: Settings,
    device: &Device,
    journal: &Path,
) -> posteriori::Result<()> {
    settings.fill("precision", device.precision().to_string(), Origin::Default);
    Journal::expect(journal, &record::head(run, &settings, device)?)
}

/// The samples of an image that would be made, each with its output; tells of the others.
fn wanted(
    entry: &Entry,
    samples: u32,
    writing: &Writing,
    tally: &mut Tally,
    ui: &Ui,
) -> Vec<(u32, String)> {
    if let Err(e) = entry.expect_name() {
        tally.fail(ui, &entry.name, &e);
        return Vec::new();
    }
    let mut wanted = Vec::new();
    for sample in 0..samples {
        let output = files::of_sample(&entry.output, sample, samples);
        let name = output.display().to_string();
        match writing.exists.admits(&output) {
            Ok(true) => wanted.push((sample, name)),
            Ok(false) => tally.skip(ui, &entry.name, &name),
            Err(e) => tally.fail(ui, &entry.name, &e),
        }
    }
    wanted
}

fn tell_items(entry: &Entry, wanted: &[(u32, String)], task: &Task, tally: &mut Tally, ui: &Ui) {
    for (sample, output) in wanted {
        tally.done += 1;
        ui.line(format!("{} -> {output}  {task}", entry.name));
        ui.record(
            "item",
            json!({
                "item": entry.name, "sample": sample, "output": output,
                "task": task.to_string(), "verdict": "planned",
            }),
        );
    }
}

/// Puts the images of an entry where others of their task and size are.
fn join<'a>(groups: &mut Vec<Group<'a>>, entry: &'a Entry, task: Task, y: &Image, images: usize) {
    let size = [y.height, y.width];
    match groups.iter_mut().find(|g| g.task == task && g.size == size) {
        Some(group) => group.images += images,
        None => groups.push(Group {
            task,
            size,
            values: y.pixels.len(),
            first: entry,
            images,
        }),
    }
}

/// The plan of a group, and its time by the batch and the seconds of a measured step.
fn tell(
    run: &Run,
    group: &Group<'_>,
    flow: Flow,
    engine: &Engine,
    measured: Option<(usize, f64)>,
    ui: &Ui,
) -> posteriori::Result<()> {
    let job = run.job(&group.task, 0)?;
    let size = group.task.image_size(group.size);
    group.task.check_size(size)?;
    let (batch, seconds) = match measured {
        Some((batch, seconds)) => (batch, Some(seconds)),
        None => (run.batch_or_one().min(group.images), None),
    };
    let work = Batch {
        measured: true,
        size,
        batch,
    };
    let plan = Plan::of(&run.model, run.cse.as_deref(), &job, work, engine)?;
    let host = images_on_their_way(group, flow, batch, size);
    let total = seconds.map(|step| step * (plan.steps * group.images.div_ceil(batch)) as f64);
    let mut fields = plan::fields(&plan, &group.task, run);
    fields["images"] = json!(group.images);
    fields["host"] = json!(host);
    fields["seconds"] = json!(total);
    ui.record("plan", fields);
    let time = match (seconds, total) {
        (Some(step), Some(total)) => format!("{step:.3} s a step, {} in all", duration(total)),
        _ => "time not measured: the device is not at hand".into(),
    };
    let (images, line) = (group.images, plan::line(&plan, &group.task));
    let gb = host as f64 / 1e9;
    ui.line(format!(
        "{line}; images on their way {gb:.3} GB; {images} images; {time}"
    ));
    Ok(())
}

/// The most bytes on the host that images of a group take between the disk and the device and back: the measurements that wait and one
/// that is read; and measurement and result of those that are computed, those that wait behind them, and one that is written.
fn images_on_their_way(group: &Group<'_>, flow: Flow, batch: usize, [h, w]: [usize; 2]) -> usize {
    let after = (flow.workers * batch + flow.after + 1).min(group.images);
    let before = (flow.before + 1).min(group.images - after);
    let (y, x) = (group.values, h * w * 3);
    (before * y + after * (y + x)) * size_of::<f32>()
}

/// The size of the first batch, and what its second step takes, by running it so far. Fails where the run itself would for
/// want of memory.
fn measure(
    run: &Run,
    group: &Group<'_>,
    pipeline: &Pipeline,
    cancel: &Cancel,
) -> Result<(usize, f64)> {
    let job = run.job(&group.task, 0)?;
    let y = Arc::new(read(group.first, run.task.as_ref())?.1);
    let request = |sample| Request {
        tag: (),
        job: job.clone(),
        y: Arc::clone(&y),
        key: 0,
        sample,
    };
    let clock = Clock {
        cancel,
        batch: Cell::new(1),
        last: Cell::new(Instant::now()),
        seconds: Cell::new(0.0),
    };
    let requests = (0..group.images as u32).map(request);
    match pipeline.restore_all(requests, run.batch, &clock).next() {
        Some(Finished {
            restored: Err(e), ..
        }) if !matches!(*e, Error::Cancelled) => Err(e.into()),
        _ => Ok((clock.batch.get(), clock.seconds.get())),
    }
}

/// The size of a batch and the time of its last step; ends the run after the second.
struct Clock<'a> {
    cancel: &'a Cancel,
    batch: Cell<usize>,
    last: Cell<Instant>,
    seconds: Cell<f64>,
}

impl Watch<()> for &Clock<'_> {
    fn begins(&self, requests: &[Request<()>], _: Option<&Plan>) {
        self.batch.set(requests.len());
        self.last.set(Instant::now());
    }

    fn stepped(&self, _: &[Request<()>], progress: Progress) {
        let before = self.last.replace(Instant::now());
        self.seconds.set(before.elapsed().as_secs_f64());
        if progress.index == 2 {
            self.cancel.cancel();
        }
    }
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use posteriori::pipeline::queue::BatchSize;
    use posteriori::runtime::kernel::{Arch, Target};

    use super::*;

    #[test]
    fn images_on_their_way_are_those_of_a_batch() {
        let entry = Entry {
            name: "y.png".into(),
            input: "y.png".into(),
            output: "x.png".into(),
            format: posteriori::io::image::Format::Png,
            lossy: false,
            unread: None,
        };
        let bytes = |images, flow, batch| {
            let group = Group {
                task: Task::super_resolution(4),
                size: [2, 2],
                values: 12,
                first: &entry,
                images,
            };
            images_on_their_way(&group, flow, batch, [8, 8])
        };
        let (cpu, gpu) = (Target::Native, Target::Kernels(Arch(90)));
        let auto = |targets: &[Target], claimed| Flow::of(BatchSize::Auto, targets, claimed);
        let (y, x) = (4 * 12, 4 * 12 * 16);
        // Of few images each has its measurement and its result.
        assert_eq!(bytes(1, auto(&[cpu], false), 1), y + x);
        assert_eq!(bytes(4, auto(&[gpu], true), 4), 4 * (y + x));
        // One computed, two behind it and one written; two before it, if they are not claimed, and one read.
        assert_eq!(bytes(100, auto(&[cpu], false), 1), 3 * y + 4 * (y + x));
        assert_eq!(bytes(100, auto(&[cpu], true), 1), y + 4 * (y + x));
        assert_eq!(
            bytes(200, auto(&[gpu, gpu], false), 16),
            33 * y + 65 * (y + x)
        );
        let five = Flow::of(BatchSize::Of(5), &[cpu, gpu], true);
        assert_eq!(bytes(100, five, 5), 5 * y + 21 * (y + x));
    }
}
