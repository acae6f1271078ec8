//! Many restorations, in batches: those of one job and one size are sampled together.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::job::Restore;
use super::plan::Plan;
use super::{Item, Pipeline, Progress, Restored};
use crate::error::{Error, Result};
use crate::io::image::Image;
use crate::runtime::kernel::Target;

/// One restoration that is asked for.
#[derive(Clone, Debug)]
pub struct Request<T> {
    /// What the caller knows it by.
    pub tag: T,
    /// What to do.
    pub job: Restore,
    /// The measurement.
    pub y: Arc<Image>,
    /// Its key: [`Item::key`].
    pub key: u64,
    /// Which of several restorations of the same image.
    pub sample: u32,
}

/// One that is done.
#[derive(Debug)]
pub struct Finished<T> {
    /// What was asked.
    pub request: Request<T>,
    /// What came. An error that is not about images ([`Error::is_of_the_images`]) will meet the next batch as well.
    pub restored: Result<Restored, Arc<Error>>,
    /// Its share of the time that its batch took.
    pub seconds: f64,
}

/// How many restorations are sampled together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// As many as fit into free memory, at most [`BatchSize::MOST`] on a GPU; one on a processor, where more are no faster.
    Auto,
    /// So many.
    Of(usize),
}

impl BatchSize {
    /// The most that [`BatchSize::Auto`] takes: beyond it a step's time an image no longer falls.
    pub const MOST: usize = 16;

    /// The most restorations that are sampled together on a device of this kind.
    pub fn most_on(self, target: Target) -> usize {
        match (self, target) {
            (BatchSize::Of(n), _) => n.max(1),
            (BatchSize::Auto, Target::Native) => 1,
            (BatchSize::Auto, Target::Kernels(_)) => Self::MOST,
        }
    }
}

/// Told while a batch is sampled.
pub trait Watch<T> {
    /// A batch of `requests` begins; `first` is the plan, if it is the first of its job, size and number.
    fn begins(&self, _requests: &[Request<T>], _first: Option<&Plan>) {}

    /// It has taken a step.
    fn stepped(&self, _requests: &[Request<T>], _progress: Progress) {}
}

/// Watches nothing.
impl<T> Watch<T> for () {}

/// The results of requests, in the order in which they are done: see [`Pipeline::restore_all`].
#[derive(Debug)]
pub struct Results<'p, T, I, W> {
    pipeline: &'p Pipeline,
    requests: I,
    size: BatchSize,
    watch: W,
    groups: Vec<Group<T>>,
    plans: Vec<(Shape, Plan)>,
    done: VecDeque<Finished<T>>,
}

/// What a plan is of.
#[derive(Clone, Debug, PartialEq)]
struct Shape {
    job: Restore,
    image: [usize; 2],
    batch: usize,
}

/// Requests that wait for each other.
#[derive(Debug)]
struct Group<T> {
    requests: Vec<Request<T>>,
    /// How many are sampled together.
    full: usize,
}

impl Pipeline {
    /// Restores whatever `requests` yields, in batches of `size`, as the caller asks for results. A request waits until its batch
    /// is full, there are no more, or so many unlike ones wait that they would fill two batches; batches never change a result.
    pub fn restore_all<T, I, W>(
        &self,
        requests: I,
        size: BatchSize,
        watch: W,
    ) -> Results<'_, T, I::IntoIter, W>
    where
        I: IntoIterator<Item = Request<T>>,
        W: Watch<T>,
    {
        Results {
            pipeline: self,
            requests: requests.into_iter(),
            size,
            watch,
            groups: Vec::new(),
            plans: Vec::new(),
            done: VecDeque::new(),
        }
    }
}

impl<T, I, W> Iterator for Results<'_, T, I, W>
where
    I: Iterator<Item = Request<T>>,
    W: Watch<T>,
{
    type Item = Finished<T>;

    fn next(&mut self) -> Option<Finished<T>> {
        loop {
            if let Some(done) = self.done.pop_front() {
                return Some(done);
            }
            let group = match self.requests.next() {
                Some(request) => self.join(request),
                None if self.groups.is_empty() => return None,
                None => Some(self.groups.remove(0)),
            };
            if let Some(group) = group {
                self.sample(group.requests);
            }
        }
    }
}

impl<T, I, W: Watch<T>> Results<'_, T, I, W> {
    /// Puts a request to its like; the group that is sampled next, if it is time: the one that is full now, or where too many
    /// wait the largest, the oldest of several.
    fn join(&mut self, request: Request<T>) -> Option<Group<T>> {
        let alike = |a: &Request<T>| {
            a.job == request.job && [a.y.height, a.y.width] == [request.y.height, request.y.width]
        };
        let found = self.groups.iter().position(|g| alike(&g.requests[0]));
        let at = found.unwrap_or_else(|| {
            let full = self.most(&request);
            let requests = Vec::new();
            self.groups.push(Group { requests, full });
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        group.requests.push(request);
        if group.requests.len() >= group.full {
            return Some(self.groups.remove(at));
        }
        let waiting: usize = self.groups.iter().map(|g| g.requests.len()).sum();
        let full = self.groups.iter().map(|g| g.full).max()?;
        let largest = |at: &usize| Reverse(self.groups[*at].requests.len());
        let largest = (0..self.groups.len()).min_by_key(largest)?;
        (waiting >= 2 * full).then(|| self.groups.remove(largest))
    }

    /// How many of such requests are sampled together. One that cannot be planned meets its error when it is sampled.
    fn most(&mut self, request: &Request<T>) -> usize {
        let most = self.size.most_on(self.pipeline.rt.target());
        if matches!(self.size, BatchSize::Of(_)) || most == 1 {
            return most;
        }
        let image = image_size(request);
        let fits = |batch: &usize| {
            let plan = self.pipeline.plan(&request.job, image, *batch);
            let free = self.pipeline.rt.free_memory();
            match (plan, free) {
                (Ok(plan), Ok(Some(free))) => plan.slab <= free,
                (plan, _) => plan.is_ok(),
            }
        };
        [most, 8, 4, 2].into_iter().find(fits).unwrap_or(1)
    }

    fn sample(&mut self, requests: Vec<Request<T>>) {
        let start = Instant::now();
        let mut results = match self.restore(&requests) {
            Ok(all) => Vec::from_iter(all.into_iter().map(|one| one.map_err(Arc::new))),
            Err(e) => {
                let e = Arc::new(e);
                requests.iter().map(|_| Err(Arc::clone(&e))).collect()
            }
        }
        .into_iter();
        let seconds = start.elapsed().as_secs_f64() / requests.len() as f64;
        self.done.extend(requests.into_iter().map_while(|request| {
            Some(Finished {
                request,
                restored: results.next()?,
                seconds,
            })
        }));
    }

    fn restore(&mut self, requests: &[Request<T>]) -> Result<Vec<Result<Restored>>> {
        let [first, ..] = requests else {
            return Ok(Vec::new());
        };
        let job = &first.job;
        let image = image_size(first);
        job.task.check_size(image)?;
        let shape = Shape {
            job: job.clone(),
            image,
            batch: requests.len(),
        };
        let known = self.plans.iter().position(|(of, _)| *of == shape);
        let at = match known {
            Some(at) => at,
            None => {
                let plan = self
                    .pipeline
                    .plan_that_fits(job, true, image, requests.len())?;
                self.plans.push((shape, plan));
                self.plans.len() - 1
            }
        };
        let plan = &self.plans[at].1;
        self.watch.begins(requests, known.is_none().then_some(plan));
        let items: Vec<Item<'_>> = requests
            .iter()
            .map(|r| Item {
                y: &r.y,
                key: r.key,
                sample: r.sample,
            })
            .collect();
        let stepped = |progress: Progress| self.watch.stepped(requests, progress);
        self.pipeline
            .planned(job, plan, &stepped, |run| run.restore(&items))
    }
}

fn image_size<T>(request: &Request<T>) -> [usize; 2] {
    let Request { job, y, .. } = request;
    job.task.image_size([y.height, y.width])
}
