//! Images that a prior draws to teach a conditional score estimator (Xu et al. 2025, 4.2: self-generated data).

use std::path::{Path, PathBuf};

use crate::batch::notes::{self, Lock, Notes, hex};
use crate::batch::{ENGINE, NOTES};
use crate::error::{Error, Result};
use crate::io::image::{Format, list, save};
use crate::operators::Task;
use crate::pipeline::Pipeline;
use crate::pipeline::device::Device;
use crate::pipeline::job::{Method, Restore};
use crate::pipeline::prior::model_fingerprint;
use crate::rng::{Stream, image_key};
use crate::train::data::Source;

/// Steps of a sample: the authors' (`tongdaxu/ControlNet-Low-Level:data_gen.py`).
const STEPS: usize = 50;
/// Images at once.
const BATCH: usize = 4;

/// What samples are made of, beside their number.
#[derive(Clone, Copy, Debug)]
pub struct Samples {
    /// `[height, width]`.
    pub size: [usize; 2],
    /// Of their noise.
    pub seed: u64,
}

impl Samples {
    /// Fills `folder` with `count` samples of a model, named by their numbers; those that are there already are left.
    /// `tell` sees how many there are, each time there are more. One that diverges is an error: a prior that does that
    /// teaches nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] naming what differs when those that are there were made of something else; [`Error::Config`] when what
    /// they were made of is not noted; [`Error::File`] when another run fills the folder; what sampling and writing return.
    pub fn fill(
        &self,
        model: &Path,
        device: &Device,
        folder: &Path,
        count: usize,
        tell: &mut dyn FnMut(usize),
    ) -> Result<Source> {
        let file = |i: usize| PathBuf::from(format!("{i:06}.png"));
        let files = Source::files(folder, (0..count).map(file).collect())?;
        std::fs::create_dir_all(folder)
            .map_err(|e| Error::file(folder, format!("cannot be created: {e}")))?;
        let why = "another run draws samples into this folder; wait for it, or choose another output folder";
        let _held = Lock::take(folder.join(".lock"), why)?;
        let is_there = |i: usize| folder.join(file(i)).exists();
        let missing: Vec<usize> = (0..count).filter(|i| !is_there(*i)).collect();
        self.agree(model, device, folder)?;
        let mut there = count - missing.len();
        let method = Method::ancestral().steps(STEPS);
        let job = Restore::new(Task::super_resolution(1), method).seed(self.seed);
        if missing.is_empty() {
            return Ok(files);
        }
        let pipeline = Pipeline::open(model, device.clone())?;
        for batch in missing.chunks(BATCH) {
            let stream = |i: &usize| Stream::new(self.seed, image_key("self-generated"), *i as u32);
            let streams: Vec<Stream> = batch.iter().map(stream).collect();
            let images = pipeline.generate(&job, self.size, &streams, |_| ())?;
            for (i, image) in batch.iter().zip(images) {
                save(folder.join(file(*i)), &image?.image, Format::Png, &[])?;
            }
            there += batch.len();
            tell(there);
        }
        Ok(files)
    }

    /// Notes what samples are made of; where there are some, that has to be what they were made of.
    fn agree(&self, model: &Path, device: &Device, folder: &Path) -> Result<()> {
        let [h, w] = self.size;
        let some = !list(folder, false)?.is_empty();
        let now = [
            ("engine", ENGINE.to_owned()),
            ("--model", hex(model_fingerprint(model)?)),
            ("--device", device.rt().name().to_owned()),
            ("--precision", device.precision().to_string()),
            ("--seed", self.seed.to_string()),
            ("--size", format!("{h}x{w}")),
        ];
        let now: Notes = now.map(|(name, text)| (name.to_owned(), text)).into();
        let path = folder.join(NOTES).join("samples.json");
        let way = format!(
            "choose another output folder, or remove {}",
            folder.display()
        );
        match notes::read(&path)? {
            Some(there) if some => notes::agree(&path, &there, &now, &way),
            None if some => {
                let why = format!(
                    "is missing, so what the samples beside it are of cannot be told; {way}"
                );
                Err(Error::config(path.display().to_string(), why))
            }
            _ => notes::write(&path, &now),
        }
    }
}
