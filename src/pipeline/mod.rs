//! What a user calls: [`Pipeline`] opens a checkpoint folder and restores images.

pub mod cancel;
pub mod device;
pub mod embedded;
pub mod job;
pub mod plan;
pub mod prior;
pub mod queue;
mod run;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::cx::Cx;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::image::Image;
use crate::models::controlnet::ControlNet;
use crate::operators::Operator;
use crate::ops::expect_variant;
use crate::rng::Stream;
use crate::runtime::Runtime;
use crate::samplers::Sampler;
use crate::tensor::Tensor;

use cancel::Cancel;
use device::Device;
use job::{Restore, Tiles};
use plan::{Batch, Engine, Plan};
use prior::Prior;
use run::Run;

/// Of an image that is drawn.
const MOST_PIXELS: usize = 1 << 28;

/// A prior on a device, ready to restore.
#[derive(Debug)]
pub struct Pipeline {
    rt: Runtime,
    dtype: DType,
    prior: Prior,
    controlnet: Option<(PathBuf, ControlNet)>,
    unread: Vec<String>,
    /// Ops and the variants they are to take.
    forced: Vec<(String, String)>,
    cancel: Cancel,
    /// The last prompt, and its context.
    context: Mutex<Option<(String, Option<Tensor>)>>,
}

/// One image to restore.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The measurement.
    pub y: &'a Image,
    /// Its key: [`crate::rng::image_key`] of its name. Noise depends on key, sample and seed alone.
    pub key: u64,
    /// Which of several restorations of the same image.
    pub sample: u32,
}

/// What an embedder brings to a restoration in place of the job's own: see [`Pipeline::restore_with`].
#[derive(Clone, Copy, Default)]
pub struct Own<'a> {
    /// In place of the task's operator: one for images of this height and width, whose tensors live in [`Pipeline::cx`].
    pub operator: Option<(&'a dyn Operator, [usize; 2])>,
    /// In place of the method's sampler.
    pub sampler: Option<&'a dyn Sampler>,
}

/// A restored image.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The image.
    pub image: Image,
    /// `||f(image) - y||` of the final image; 0 for an image that was generated, not restored.
    pub residual: f64,
    /// The side of the tiles that it was sampled in; `None` when it was sampled whole.
    pub tile: Option<usize>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Steps done.
    pub index: usize,
    /// Steps in all.
    pub of: usize,
    /// The largest loss over the batch at this step, for methods with guidance.
    pub loss: Option<f64>,
}

impl Pipeline {
    /// Opens a checkpoint folder in diffusers' layout.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Config`], [`Error::Weight`], each naming what is wrong.
    pub fn open(folder: impl AsRef<Path>, device: Device) -> Result<Self> {
        let (rt, dtype) = (device.rt().clone(), device.dtype());
        let prior = Prior::open(&Cx::new(rt.clone(), dtype)?, folder)?;
        let unread = prior.unread.clone();
        Ok(Pipeline {
            rt,
            dtype,
            prior,
            controlnet: None,
            unread,
            forced: Vec::new(),
            context: Mutex::default(),
            cancel: Cancel::new(),
        })
    }

    /// The same with a ControlNet as conditional score estimator.
    ///
    /// # Errors
    /// As [`Pipeline::open`].
    pub fn with_controlnet(mut self, folder: impl AsRef<Path>) -> Result<Self> {
        let cx = self.engine_cx()?;
        let net = prior::open_controlnet(&cx, folder.as_ref(), &self.prior.unet, &mut self.unread)?;
        self.controlnet = Some((folder.as_ref().to_owned(), net));
        Ok(self)
    }

    /// The same with `variant` of `op` wherever it fits.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such op or variant, listing those there are.
    pub fn forcing(mut self, op: &str, variant: &str) -> Result<Self> {
        expect_variant(op, variant)?;
        self.forced.push((op.into(), variant.into()));
        Ok(self)
    }

    /// The same, whose work ends with [`Error::Cancelled`] after the step in which `cancel` is used.
    pub fn stopped_by(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// The models.
    pub fn prior(&self) -> &Prior {
        &self.prior
    }

    /// Tensors in the files that no model asked for.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// Bytes, launches and FLOPs of a job on `batch` images of `size = [h, w]`, without computing anything.
    ///
    /// # Errors
    /// What the job itself would return for that size.
    pub fn plan(&self, job: &Restore, size: [usize; 2], batch: usize) -> Result<Plan> {
        self.plan_for(job, true, size, batch)
    }

    /// Restores one image, telling `progress` after every step. Its noise is that of the job's seed: images that are restored one
    /// by one with one seed share it; [`Pipeline::restore_batch`] takes a key for each.
    ///
    /// # Errors
    /// As [`Pipeline::restore_batch`].
    pub fn restore(
        &self,
        job: &Restore,
        y: &Image,
        progress: impl Fn(Progress),
    ) -> Result<Restored> {
        let mut all = self.restore_batch(
            job,
            &[Item {
                y,
                key: 0,
                sample: 0,
            }],
            progress,
        )?;
        all.pop()
            .unwrap_or_else(|| Err(Error::argument("images", "wanted at least one, got none")))
    }

    /// Restores images of one size together. An image's result does not depend on the others.
    ///
    /// # Errors
    /// When the job cannot run at all. A single image that diverges is an error in its own place.
    pub fn restore_batch(
        &self,
        job: &Restore,
        items: &[Item<'_>],
        progress: impl Fn(Progress),
    ) -> Result<Vec<Result<Restored>>> {
        let Some(first) = items.first() else {
            return Ok(Vec::new());
        };
        let size = job.task.image_size([first.y.height, first.y.width]);
        let plan = self.plan_that_fits(job, true, size, items.len())?;
        self.planned(job, &plan, &progress, |run| run.restore(items))
    }

    /// The same with an operator or a sampler of the caller's own. Of the job the rest counts: steps, times and transition of
    /// its method, seed, prompt; and with an own operator the task only for the usual zeta.
    ///
    /// What these take is not known before, so memory is taken as the run goes, not planned.
    ///
    /// # Errors
    /// As [`Pipeline::restore_batch`]; whatever the caller's own return.
    pub fn restore_with(
        &self,
        job: &Restore,
        own: Own<'_>,
        items: &[Item<'_>],
        progress: impl Fn(Progress),
    ) -> Result<Vec<Result<Restored>>> {
        self.cancel.check()?;
        let context = self.context(&job.prompt)?;
        let run = Run {
            pipeline: self,
            cx: &self.cx()?,
            job,
            own,
            context: context.as_ref(),
            progress: &progress,
            tile: job.tiles.side(),
        };
        run.restore(items)
    }

    /// The context in which operators and samplers see tensors: on the pipeline's device, in f32.
    ///
    /// # Errors
    /// [`Error::Device`] when the device is not to be had.
    pub fn cx(&self) -> Result<Cx> {
        Ok(self.engine_cx()?.state())
    }

    /// Draws images of `size = [h, w]` from the prior, one for each stream.
    ///
    /// # Errors
    /// When the job cannot run at all; an image that diverges is an error in its own place.
    pub fn generate(
        &self,
        job: &Restore,
        size: [usize; 2],
        streams: &[Stream],
        progress: impl Fn(Progress),
    ) -> Result<Vec<Result<Restored>>> {
        let pixels = size
            .iter()
            .try_fold(1_usize, |n, side| n.checked_mul(*side));
        if !pixels.is_some_and(|n| (1..=MOST_PIXELS).contains(&n)) {
            let [h, w] = size;
            let why = format!("wanted 1 to {MOST_PIXELS} pixels, got {h} x {w}");
            return Err(Error::argument("size", why));
        }
        let job = &job.clone().unguided();
        let plan = self.plan_that_fits(job, false, size, streams.len())?;
        self.planned(job, &plan, &progress, |run| run.generate(size, streams))
    }

    /// The text context of a prompt. The text encoder is loaded and run where the prompt is not the last one again.
    ///
    /// # Errors
    /// As [`Prior::context`].
    pub fn context(&self, prompt: &str) -> Result<Option<Tensor>> {
        let mut last = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, context)) = &*last
            && of == prompt
        {
            return Ok(context.clone());
        }
        let context = self.prior.context(&self.engine_cx()?, prompt)?;
        *last = Some((prompt.to_owned(), context.clone()));
        Ok(context)
    }

    /// What plans are for: the kernels that run, and the element type of activations.
    pub fn engine(&self) -> Engine {
        Engine::of(&self.rt, self.dtype, self.forced.clone())
    }

    /// The context of the models.
    fn engine_cx(&self) -> Result<Cx> {
        self.engine().cx(self.rt.clone())
    }

    fn plan_for(
        &self,
        job: &Restore,
        measured: bool,
        size: [usize; 2],
        batch: usize,
    ) -> Result<Plan> {
        let controlnet = self.controlnet.as_ref().map(|(folder, _)| folder.as_path());
        let folder = self.prior.folder();
        let work = Batch {
            measured,
            size,
            batch,
        };
        Plan::of(folder, controlnet, job, work, &self.engine())
    }

    /// The same; in tiles, where the job leaves that open and not even one image fits whole. Else an error that names the batch
    /// that would fit in the memory that is free, or says that none would.
    fn plan_that_fits(
        &self,
        job: &Restore,
        measured: bool,
        size: [usize; 2],
        batch: usize,
    ) -> Result<Plan> {
        let plan = self.plan_for(job, measured, size, batch)?;
        let free = match self.rt.free_memory()? {
            Some(free) if free < plan.slab => free,
            _ => return Ok(plan),
        };
        let (mut fits, mut too_many) = (0, batch);
        while too_many - fits > 1 {
            let middle = (fits + too_many) / 2;
            match self.plan_for(job, measured, size, middle)?.slab <= free {
                true => fits = middle,
                false => too_many = middle,
            }
        }
        if fits == 0 && job.tiles == Tiles::Auto {
            let least = 2 * self.prior.multiple();
            let own = self.prior.own_side().max(least);
            let in_tiles = job.clone().tiles(Tiles::Of(own));
            if size.iter().any(|side| *side > own) {
                return self.plan_that_fits(&in_tiles, measured, size, batch);
            }
        }
        let fix = match (fits, job.tiles) {
            (0, Tiles::Never) => "take smaller images, or tiles".into(),
            (0, Tiles::Of(side)) => format!("take tiles smaller than {side}"),
            (0, Tiles::Auto) => "take smaller images".into(),
            _ => format!("use --batch {fits}"),
        };
        let ([h, w], gb) = (size, |bytes: usize| bytes as f64 / 1e9);
        let why = format!(
            "{batch} images of {h} x {w} take {:.2} GB, {:.2} GB are free; {fix}",
            gb(plan.slab),
            gb(free)
        );
        Err(match fits {
            0 => Error::TooLarge { why },
            _ => Error::Plan { why },
        })
    }

    /// Does `work` with the slab of `plan` reserved.
    fn planned<R>(
        &self,
        job: &Restore,
        plan: &Plan,
        progress: &dyn Fn(Progress),
        work: impl FnOnce(&Run<'_>) -> Result<R>,
    ) -> Result<R> {
        self.cancel.check()?;
        let cx = &self.engine_cx()?;
        // The text encoder runs before the slab is reserved: its plan is not the job's.
        let context = self.context(&job.prompt)?;
        self.rt.with_slab(plan.slab, || {
            work(&Run {
                pipeline: self,
                cx: &cx.state(),
                job,
                own: Own::default(),
                context: context.as_ref(),
                progress,
                tile: plan.tile,
            })
        })
    }
}
