//! From requests to images, a thread for each device.

use std::cell::Cell;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use posteriori::pipeline::plan::Plan;
use posteriori::pipeline::queue::{Finished, Request, Watch};
use posteriori::pipeline::{Pipeline, Progress};

use super::{Event, Shared, Ticket};
use crate::cli::plan;

/// Requests, for whichever worker is free.
pub(super) type Queue = Mutex<Receiver<Request<Ticket>>>;

/// Restores what the queue yields until it ends or an error says that nothing more can be done.
pub(super) fn restore_all(
    shared: &Shared<'_>,
    worker: usize,
    pipeline: &Pipeline,
    queue: &Queue,
    to: &SyncSender<Finished<Ticket>>,
) {
    let waited = Cell::new(Duration::ZERO);
    let start = Instant::now();
    let next = || {
        let from = Instant::now();
        let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let request = queue.recv().ok();
        waited.set(waited.get() + from.elapsed());
        request
    };
    let told = Told { shared, worker };
    for finished in pipeline.restore_all(std::iter::from_fn(next), shared.run.batch, told) {
        match &finished.restored {
            Err(e) if !e.is_of_the_images() => return shared.end(Arc::clone(e)),
            _ => {}
        }
        // The writer takes what there is until the last worker has left.
        if to.send(finished).is_err() {
            break;
        }
    }
    shared.tell(Event::Left {
        busy: start.elapsed().saturating_sub(waited.get()),
    });
}

struct Told<'a> {
    shared: &'a Shared<'a>,
    worker: usize,
}

impl Watch<Ticket> for Told<'_> {
    fn begins(&self, requests: &[Request<Ticket>], first: Option<&Plan>) {
        if let (Some(plan), Some(request)) = (first, requests.first()) {
            let task = &request.job.task;
            self.shared.tell(Event::Plan {
                text: plan::line(plan, task),
                fields: plan::fields(plan, task, self.shared.run),
            });
        }
    }

    fn stepped(&self, requests: &[Request<Ticket>], progress: Progress) {
        let Progress { index, of, loss } = progress;
        let items: Vec<&str> = requests.iter().map(|r| r.tag.name.as_str()).collect();
        self.shared.tell(Event::Step {
            worker: self.worker,
            steps: index * requests.len(),
            loss,
            fields: json!({ "items": items, "step": index, "of": of, "loss": loss }),
        });
    }
}
