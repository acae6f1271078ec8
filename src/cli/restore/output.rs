//! From images to files, on a thread of its own: judged, encoded, put in place, noted.

use std::sync::mpsc::Receiver;

use serde_json::json;

use posteriori::batch::journal::{Done, Line};
use posteriori::io::image::{self, Image};
use posteriori::pipeline::Restored;
use posteriori::pipeline::queue::{Finished, Request};
use posteriori::{Cx, Error, Result, Task, rng};

use super::report::{self, Pair};
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
            Ok(restored) => write(shared, &request, restored, seconds)
                .map(|done| (done, show(shared, &request, restored))),
            Err(e) => {
                shared.fail(&request.tag.name, Some(request.sample), e);
                shared.release(&request.tag);
                continue;
            }
        };
        match written {
            Ok((done, pair)) => {
                if let Err(e) = shared.note(&Line::Item(done.clone())) {
                    shared.end(e);
                }
                shared.tell(Event::Done(request.tag.clone(), done, pair));
            }
            // The next has no more room.
            Err(e @ Error::Full { .. }) => shared.end(e),
            Err(e) => shared.fail(&request.tag.name, Some(request.sample), &e),
        }
        shared.release(&request.tag);
    }
    shared.tell(Event::Over);
}

/// What the page shows of a result, if it still shows any. A picture that it cannot show is no failure of the image.
fn show(shared: &Shared<'_>, request: &Request<Ticket>, restored: &Restored) -> Option<Pair> {
    let of = || report::pair(&request.job.task, &request.y, &restored.image).ok();
    shared.shows().then(of).flatten()
}

/// Judges and writes one result.
fn write(
    shared: &Shared<'_>,
    request: &Request<Ticket>,
    restored: &Restored,
    seconds: f64,
) -> Result<Done> {
    let Request { tag, job, y, .. } = request;
    let verdict = judge(&job.task, y, restored)?;
    let Restored {
        image,
        residual,
        tile,
    } = restored;
    let fields = json!({
        "task": job.task.to_string(),
        "operator": record::of_task(&job.task),
        "image": tag.name,
        "key": record::hex(rng::image_key(&tag.name)),
        "sample": tag.sample,
        "input": tag.input.display().to_string(),
        "measurement": record::of_pixels(y),
        "format": tag.format.to_string(),
        "tile": tile,
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
/// is a failure, unless that explains the measurement.
fn judge(task: &Task, y: &Image, restored: &Restored) -> Result<&'static str> {
    let Restored {
        image, residual, ..
    } = restored;
    let unexplained = match task.measures_pictures() {
        true => {
            let mean = y.pixels.iter().map(|v| f64::from(*v)).sum::<f64>() / y.pixels.len() as f64;
            y.pixels.iter().map(|v| f64::from(*v) - mean).collect()
        }
        false => beside_grey(task, [image.height, image.width], y)?,
    };
    let flat_y = match task.measures_pictures() {
        true => flat(y.pixels.iter().map(|v| f64::from(v.clamp(-1.0, 1.0)))),
        false => flat(unexplained.iter().copied()),
    };
    if flat(image.pixels.iter().map(|v| f64::from(v.clamp(-1.0, 1.0)))) && !flat_y {
        let why = "came out as one flat colour; lower zeta or take more steps";
        return Err(Error::argument("result", why));
    }
    let spread: f64 = unexplained.iter().map(|v| v * v).sum();
    Ok(match *residual <= spread.sqrt().max(1e-3) {
        true => "ok",
        false => "far",
    })
}

/// Whether all values are the same but for one level of an 8-bit picture.
fn flat(values: impl Iterator<Item = f64>) -> bool {
    let [mut low, mut high] = [f64::INFINITY, f64::NEG_INFINITY];
    for v in values {
        (low, high) = (low.min(v), high.max(v));
    }
    high - low < 2.0 / 255.0
}

/// What is left of a measurement that is no picture without that of the flat grey, black to white, that comes nearest; where
/// brightness only scales the measurement of black to that of white.
fn beside_grey(task: &Task, [h, w]: [usize; 2], y: &Image) -> Result<Vec<f64>> {
    let cx = Cx::native();
    let operator = task.build(&cx, [h, w])?;
    let of = |grey: f32| {
        let x = cx.upload(&vec![grey; h * w * 3], [1, h, w, 3])?;
        operator.measure(&cx, &x)?.to_f64()
    };
    let (black, white) = (of(-1.0)?, of(1.0)?);
    let y: Vec<f64> = y
        .pixels
        .iter()
        .zip(&black)
        .map(|(y, black)| f64::from(*y) - black)
        .collect();
    let way: Vec<f64> = white
        .iter()
        .zip(&black)
        .map(|(white, black)| white - black)
        .collect();
    let dot = |a: &[f64]| a.iter().zip(&way).map(|(a, b)| a * b).sum::<f64>();
    let share = (dot(&y) / dot(&way).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
    Ok(y.iter().zip(&way).map(|(y, way)| y - share * way).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(task: &str, y: &Image, image: &Image, residual: f64) -> Result<&'static str> {
        let restored = Restored {
            image: image.clone(),
            residual,
            tile: None,
        };
        judge(&Task::parse(task).unwrap(), y, &restored)
    }

    #[test]
    fn flat_is_a_failure_where_the_measurement_is_not_explained_by_it() {
        let (h, w) = (8, 12);
        let flat = |v: f32| Image::new(w, h, vec![v; h * w * 3]).unwrap();
        let waves = (0..h * w * 3).map(|i| (i as f32 * 0.3).sin());
        let waves = Image::new(w, h, waves.collect()).unwrap();
        for task in ["denoise", "phase"] {
            let y = |x: &Image| {
                let task = Task::parse(task).unwrap();
                let measurement = posteriori::operators::Measurement::new(task, 0.0, 0, [h, w]);
                measurement.unwrap().measure(x, 0).unwrap()
            };
            for grey in [-1.0, 0.3, 1.0] {
                let verdict = judged(task, &y(&flat(grey)), &flat(grey), 0.0);
                assert_eq!(verdict.unwrap(), "ok", "{task} {grey}");
            }
            let verdict = judged(task, &y(&waves), &flat(0.3), 0.0);
            assert!(verdict.is_err(), "{task}");
            // No further than the nearest flat picture, or further.
            let residual = |grey: f32| {
                let pairs = y(&waves).pixels.into_iter().zip(y(&flat(grey)).pixels);
                let squares = pairs.map(|(a, b)| f64::from(a - b).powi(2));
                squares.sum::<f64>().sqrt()
            };
            let nearest = (-100..=100).map(|g| residual(g as f32 / 100.0));
            let nearest = nearest.fold(f64::INFINITY, f64::min);
            let verdict = |residual| judged(task, &y(&waves), &waves, residual).unwrap();
            assert_eq!(verdict(0.99 * nearest), "ok", "{task}");
            assert_eq!(verdict(1.01 * nearest), "far", "{task}");
        }
    }
}
