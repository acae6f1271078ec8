//! `bench --step`: whole sampling steps, timed as a restoration runs them.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use posteriori::io::image::Image;
use posteriori::pipeline::cancel::Cancel;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::plan::Plan;
use posteriori::pipeline::{Item, Pipeline};
use posteriori::{Cx, Error, Restore};

use super::exit::DONE;
use super::plan::Subject;
use super::run::batches;
use super::ui::Ui;

/// Steps before those that count: they compile kernels and record graphs.
const WARM: usize = 3;
/// Steps of which the median counts.
const TIMED: usize = 7;

pub(super) fn run(
    subject: &Subject,
    batches: &str,
    size: Option<&str>,
    device: Device,
    ui: &Ui,
) -> Result<u8> {
    let batches = self::batches("--step", batches)?;
    let Subject { run, task } = subject;
    let (runtime, precision) = (device.rt().name(), device.precision());
    let mut pipeline = run.open_on(device)?;
    ui.line(format!(
        "{task} by {} on {runtime}, {precision}: the median of {TIMED} steps after {WARM}",
        run.preset
    ));
    ui.line(format!(
        "{:>5}{:>16}{:>12}{:>12}{:>10}{:>10}{:>10}",
        "batch", "ms/image-step", "ms/step", "TFLOP/s", "GB/s", "launches", "slab, GB"
    ));
    for batch in batches {
        let plan = subject.plan_batch(&pipeline.engine(), size, batch)?;
        let cancel = Cancel::new();
        pipeline = pipeline.stopped_by(cancel.clone());
        let step = step(&pipeline, &run.job(task, 0)?, &plan, &cancel)?.as_secs_f64();
        let rate = |work: u64| work as f64 / step;
        let (flops, bytes) = (rate(plan.step.flops), rate(plan.step.bytes));
        let each = 1e3 * step / batch as f64;
        ui.line(format!(
            "{batch:>5}{each:>16.3}{:>12.3}{:>12.4}{:>10.1}{:>10}{:>10.3}",
            1e3 * step,
            flops / 1e12,
            bytes / 1e9,
            plan.step.launches,
            plan.slab as f64 / 1e9
        ));
        ui.record(
            "step",
            json!({
                "runtime": runtime, "dtype": precision.name(), "task": task.to_string(), "method": run.preset,
                "size": plan.size, "batch": batch, "ms": 1e3 * step, "ms_per_image": each,
                "tflops": flops / 1e12, "gbps": bytes / 1e9,
                "launches": plan.step.launches, "slab": plan.slab,
            }),
        );
    }
    Ok(DONE)
}

/// The median time of a step of the job that was planned, on measurements of grey images.
fn step(
    pipeline: &Pipeline,
    job: &Restore,
    plan: &Plan,
    cancel: &Cancel,
) -> posteriori::Result<Duration> {
    let [h, w, c] = job
        .task
        .build(&Cx::native(), plan.size)?
        .measurement_shape();
    let y = Image::new(w, h, vec![0.0; h * w * c])?;
    let items: Vec<Item<'_>> = (0..plan.batch as u32)
        .map(|sample| Item {
            y: &y,
            key: 0,
            sample,
        })
        .collect();
    let ends = RefCell::new(Vec::new());
    let stepped = |_| {
        ends.borrow_mut().push(Instant::now());
        if ends.borrow().len() == 1 + WARM + TIMED {
            cancel.cancel();
        }
    };
    match pipeline.restore_batch(job, &items, stepped) {
        Ok(_) | Err(Error::Cancelled) => {}
        Err(e) => return Err(e),
    }
    let ends = ends.into_inner();
    let mut times: Vec<Duration> = ends.windows(2).map(|pair| pair[1] - pair[0]).collect();
    if times.len() < WARM + TIMED {
        let (want, got) = (1 + WARM + TIMED, ends.len());
        let why = format!("wanted at least {want} to time some of, got {got}");
        return Err(Error::argument("--steps", why));
    }
    let timed = &mut times[WARM..];
    timed.sort();
    Ok(timed[timed.len() / 2])
}
