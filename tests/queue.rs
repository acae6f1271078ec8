//! `Pipeline::restore_all`: what waits for its like is bounded, and changes no result.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use posteriori::io::image::Image;
use posteriori::operators::Task;
use posteriori::pipeline::Pipeline;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::job::{Method, Restore};
use posteriori::pipeline::plan::Plan;
use posteriori::pipeline::queue::{BatchSize, Request, Watch};

use crate::oracle;

/// What a batch is of: the names of its requests.
#[derive(Default)]
struct Batches(RefCell<Vec<Vec<usize>>>);

impl Watch<usize> for &Batches {
    fn begins(&self, requests: &[Request<usize>], _: Option<&Plan>) {
        let names = requests.iter().map(|r| r.tag).collect();
        self.0.borrow_mut().push(names);
    }
}

/// Requests by their number, of images with these sides.
fn requests(sides: &[usize]) -> impl Iterator<Item = Request<usize>> {
    let job = Restore::new(Task::parse("denoise").unwrap(), Method::dps().steps(1));
    let sides = sides.to_vec();
    sides.into_iter().enumerate().map(move |(tag, side)| {
        let pixel = |i: usize| ((i + tag) as f32 * 0.1).sin();
        let pixels = (0..side * side * 3).map(pixel).collect();
        Request {
            tag,
            job: job.clone(),
            y: Arc::new(Image::new(side, side, pixels).unwrap()),
            key: tag as u64,
            sample: 0,
        }
    })
}

fn pipeline() -> Pipeline {
    Pipeline::open(oracle::checkpoint("tiny-pixel"), Device::cpu()).unwrap()
}

#[test]
fn of_many_sizes_few_wait() {
    let pipeline = pipeline();
    let (asked, done) = (Cell::new(0), Cell::new(0));
    for batch in [1, 3] {
        asked.set(0);
        done.set(0);
        let sides: Vec<usize> = (8..24).collect();
        let all = requests(&sides).inspect(|_| asked.set(asked.get() + 1));
        for finished in pipeline.restore_all(all, BatchSize::Of(batch), ()) {
            finished.restored.unwrap();
            let waited = asked.get() - done.get();
            assert!(waited <= 2 * batch, "{waited} by batches of {batch}");
            done.set(done.get() + 1);
        }
        assert_eq!(done.get(), sides.len());
    }
}

#[test]
fn the_largest_group_does_not_wait_for_the_others() {
    let pipeline = pipeline();
    let watch = Batches::default();
    let sides = [8, 9, 10, 10, 11, 12, 8, 8];
    let all = pipeline.restore_all(requests(&sides), BatchSize::Of(3), &watch);
    let mut batched: Vec<_> = all.map(|f| (f.request.tag, f.restored.unwrap())).collect();
    // The sixth is one too many; of the largest groups the oldest is first; one that is full never waits.
    assert_eq!(
        *watch.0.borrow(),
        [vec![2, 3], vec![0, 6, 7], vec![1], vec![4], vec![5]]
    );
    batched.sort_by_key(|(tag, _)| *tag);
    let alone = pipeline.restore_all(requests(&sides), BatchSize::Of(1), ());
    for ((tag, batched), alone) in batched.into_iter().zip(alone) {
        let alone = alone.restored.unwrap();
        assert_eq!(batched.image, alone.image, "{tag}");
    }
}
