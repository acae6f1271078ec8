//! From files to requests, on a thread of its own: what is to be done is decided before it is computed.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use posteriori::io::image::{self, Image};
use posteriori::operators::{Measurement, Task};
use posteriori::pipeline::job::Restore;
use posteriori::pipeline::queue::Request;
use posteriori::{Error, Result, rng};

use super::report::{self, Pair};
use super::{Event, Shared, Ticket};
use crate::cli::files::{self, Entry};

/// Reads every entry and passes its restorations on, as far as they are wanted and there is somebody to take them.
pub(super) fn read_all(shared: &Shared<'_>, entries: &[Entry], to: &SyncSender<Request<Ticket>>) {
    for entry in entries {
        if shared.is_over() {
            return;
        }
        match read_entry(shared, entry, to) {
            Ok(true) => {}
            Ok(false) => return,
            Err(e) => return shared.end(e),
        }
    }
}

/// The same for one entry, which is read when the first of its restorations is wanted: none is claimed before the one before it has
/// its place. Whether there is still somebody to take them.
fn read_entry(
    shared: &Shared<'_>,
    entry: &Entry,
    to: &SyncSender<Request<Ticket>>,
) -> Result<bool> {
    if let Err(e) = entry.expect_name().and_then(|()| entry.expect_readable()) {
        shared.fail(&entry.name, None, &e);
        return Ok(true);
    }
    let mut known: Option<(Restore, Arc<Image>)> = None;
    for sample in 0..shared.samples {
        let ticket = Ticket {
            name: entry.name.clone(),
            input: entry.input.clone(),
            output: files::of_sample(&entry.output, sample, shared.samples),
            format: entry.format,
            sample,
        };
        if shared.is_over() || !is_wanted(shared, entry, &ticket)? {
            continue;
        }
        let read = || {
            let (task, y) = read(entry, shared.run.task.as_ref())?;
            Ok((shared.run.job(&task, shared.seed)?, Arc::new(y)))
        };
        let (job, y) = match known.map_or_else(read, Ok) {
            Ok(known) => known,
            Err(e) => {
                shared.release(&ticket);
                shared.fail(&entry.name, None, &e);
                return Ok(true);
            }
        };
        known = Some((job.clone(), Arc::clone(&y)));
        let request = Request {
            key: rng::image_key(&ticket.name),
            sample,
            job,
            y,
            tag: ticket,
        };
        if to.send(request).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a restoration is to be done here; it is claimed where claims are made.
fn is_wanted(shared: &Shared<'_>, entry: &Entry, ticket: &Ticket) -> Result<bool> {
    if !admitted(shared, entry, ticket)? {
        return Ok(false);
    }
    let Some(claims) = &shared.claims else {
        return Ok(true);
    };
    if !claims.take(&ticket.claim())? {
        shared.tell(Event::Elsewhere);
        return Ok(false);
    }
    // Asked again once the claim is ours: who had it before may have finished.
    if admitted(shared, entry, ticket)? {
        return Ok(true);
    }
    claims.release(&ticket.claim());
    Ok(false)
}

/// Whether the output is to be written; tells what is skipped.
fn admitted(shared: &Shared<'_>, entry: &Entry, ticket: &Ticket) -> Result<bool> {
    match shared.exists.admits(&ticket.output) {
        Ok(true) => Ok(true),
        Ok(false) => {
            shared.adopt(ticket)?;
            let known = shared.noted(ticket).map(|done| {
                let shown = shared.shows().then(|| show(shared, entry, ticket));
                (done, shown.flatten())
            });
            shared.tell(Event::Skipped(ticket.clone(), known));
            Ok(false)
        }
        Err(e) => {
            shared.fail(&ticket.name, Some(ticket.sample), &e);
            Ok(false)
        }
    }
}

/// What the page shows of an output that is there already, if both files can be read.
fn show(shared: &Shared<'_>, entry: &Entry, ticket: &Ticket) -> Option<Pair> {
    let (task, y) = read(entry, shared.run.task.as_ref()).ok()?;
    let x = image::read(&ticket.output).ok()?;
    report::pair(&task, &y, &x).ok()
}

/// The task and pixels of one input. Its measurement file decides; `--task` must not contradict it.
pub(super) fn read(entry: &Entry, task: Option<&Task>) -> Result<(Task, Image)> {
    entry.expect_readable()?;
    let path = Measurement::path_for(&entry.input);
    let measurement = match path.exists() {
        true => Some(read_measurement(&path)?),
        false => None,
    };
    let y = image::read_values(&entry.input)?;
    let size = [y.height, y.width];
    let Some(measurement) = measurement else {
        let missing = || {
            let why = format!("wanted one, for there is no {}", path.display());
            Error::argument("--task", why)
        };
        let task = task.cloned().ok_or_else(missing)?;
        let size = task.image_size(size);
        // With kernels and masks written out, so that the record of the result suffices.
        return Ok((Measurement::new(task, 0.0, 0, size)?.task, y));
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
    if measured.image_size(size) != *image_size {
        let why = format!(
            "it describes the measurement of an image of {image_size:?} by {measured}, and this one is {size:?}"
        );
        return Err(Error::config(path.display().to_string(), why));
    }
    Ok((measured.clone(), y))
}

/// Reads a measurement file.
pub(in crate::cli) fn read_measurement(path: &Path) -> Result<Measurement> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::file(path, format!("cannot be read as a measurement file: {e}")))?;
    Measurement::from_json(&path.display().to_string(), &text)
}
