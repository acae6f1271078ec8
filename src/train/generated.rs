//! Images that a prior draws to teach a conditional score estimator (Xu et al. 2025, 4.2: self-generated data).

use std::path::Path;

use crate::error::{Error, Result};
use crate::io::image::{Format, save};
use crate::operators::Task;
use crate::pipeline::Pipeline;
use crate::pipeline::job::{Method, Restore};
use crate::rng::{Stream, image_key};

/// Steps of a sample: the authors' (`tongdaxu/ControlNet-Low-Level:data_gen.py`).
const STEPS: usize = 50;
/// Images at once.
const BATCH: usize = 4;

/// Fills `folder` with `count` samples of size `[h, w]`, named by their numbers; those that are there already are left.
/// `tell` sees how many there are, each time there are more. One that diverges is an error: a prior that does that
/// teaches nothing.
///
/// # Errors
/// What sampling and writing return.
pub fn fill(
    pipeline: &Pipeline,
    folder: &Path,
    count: usize,
    size: [usize; 2],
    seed: u64,
    tell: &mut dyn FnMut(usize),
) -> Result<()> {
    std::fs::create_dir_all(folder)
        .map_err(|e| Error::file(folder, format!("cannot be created: {e}")))?;
    let file = |i: usize| folder.join(format!("{i:06}.png"));
    let missing: Vec<usize> = (0..count).filter(|i| !file(*i).exists()).collect();
    let mut there = count - missing.len();
    let method = Method::ancestral().steps(STEPS);
    let job = Restore::new(Task::super_resolution(1), method).seed(seed);
    for batch in missing.chunks(BATCH) {
        let stream = |i: &usize| Stream::new(seed, image_key("self-generated"), *i as u32);
        let streams: Vec<Stream> = batch.iter().map(stream).collect();
        let images = pipeline.generate(&job, size, &streams, |_| ())?;
        for (i, image) in batch.iter().zip(images) {
            save(file(*i), &image?.image, Format::Png, &[])?;
        }
        there += batch.len();
        tell(there);
    }
    Ok(())
}
