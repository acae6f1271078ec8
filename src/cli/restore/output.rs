//! From images to files, on a thread of its own: judged, encoded, put in place, noted.

use std::sync::mpsc::Receiver;

use serde_json::json;

use posteriori::batch::journal::{Done, Line};
use posteriori::io::image::{self, Image};
use posteriori::pipeline::Restored;
use posteriori::pipeline::queue::{Finished, Request};
use posteriori::{Error, Result, rng};

use super::{Event, Shared, Ticket};
use crate::cli::{files, record};

/// Writes what comes until nobody is left who sends.
pub(super) fn write_all(shared: &Shared<'_>, from: &Receiver<Finished<Ticket>>) {
    for finished in from {
        let Finished {
            request,
            restored,
            seconds,
        } = finished;
        let written = match &restored {
            Ok(restored) => write(shared, &request, restored, seconds),
            Err(e) => {
                shared.fail(&request.tag.name, Some(request.sample), e);
                shared.release(&request.tag);
                continue;
            }
        };
        match written {
            Ok(done) => {
                if let Err(e) = shared.note(&Line::Item(done.clone())) {
                    shared.end(e);
                }
                shared.tell(Event::Done(request.tag.clone(), done));
            }
            Err(e) => shared.fail(&request.tag.name, Some(request.sample), &e),
        }
        shared.release(&request.tag);
    }
    shared.tell(Event::Over);
}

/// Judges and writes one result.
fn write(
    shared: &Shared<'_>,
    request: &Request<Ticket>,
    restored: &Restored,
    seconds: f64,
) -> Result<Done> {
    let Request { tag, job, y, .. } = request;
    let verdict = judge(y, restored)?;
    let Restored { image, residual } = restored;
    let fields = json!({
        "task": job.task.to_string(),
        "operator": record::of_task(&job.task),
        "image": tag.name,
        "key": format!("{:016x}", rng::image_key(&tag.name)),
        "sample": tag.sample,
        "input": tag.input.display().to_string(),
        "measurement": record::of_pixels(y),
        "format": tag.format.to_string(),
        "residual": residual,
        "verdict": verdict,
    });
    files::make_room(&tag.output)?;
    let text = record::with(&shared.record, fields);
    image::save(&tag.output, image, tag.format, &text)?;
    Ok(Done {
        item: tag.name.clone(),
        sample: tag.sample,
        output: shared.below_the_output(&tag.output),
        task: job.task.to_string(),
        residual: *residual,
        verdict: verdict.into(),
        seconds,
    })
}

/// `ok`, or `far`: one flat colour would explain the measurement better. A picture of one flat colour
/// is a failure, unless the measurement is flat too.
fn judge(y: &Image, restored: &Restored) -> Result<&'static str> {
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
