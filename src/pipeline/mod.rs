//! What a user calls: [`Pipeline`] opens a checkpoint folder and restores images.

pub mod device;
pub mod job;
pub mod plan;
pub mod prior;

use std::path::{Path, PathBuf};

use crate::cx::Cx;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::image::Image;
use crate::models::controlnet::ControlNet;
use crate::operators::Operator;
use crate::ops::{noise, residual};
use crate::rng::{INITIAL, Stream};
use crate::runtime::Runtime;
use crate::samplers::{self, Measurement, Problem};
use crate::tensor::Tensor;

use device::Device;
use job::Restore;
use plan::Plan;
use prior::{Conditional, Prior, Unguided};

/// A prior on a device, ready to restore.
#[derive(Debug)]
pub struct Pipeline {
    rt: Runtime,
    dtype: DType,
    prior: Prior,
    controlnet: Option<(PathBuf, ControlNet)>,
    unread: Vec<String>,
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

/// A restored image.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The image.
    pub image: Image,
    /// `||f(image) - y||` of the final image; 0 for an image that was generated, not restored.
    pub residual: f64,
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
        })
    }

    /// The same with a ControlNet as conditional score estimator.
    ///
    /// # Errors
    /// As [`Pipeline::open`].
    pub fn with_controlnet(mut self, folder: impl AsRef<Path>) -> Result<Self> {
        let cx = self.cx()?;
        let net = prior::open_controlnet(&cx, folder.as_ref(), &self.prior.unet, &mut self.unread)?;
        self.controlnet = Some((folder.as_ref().to_owned(), net));
        Ok(self)
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
        let controlnet = self.controlnet.as_ref().map(|(folder, _)| folder.as_path());
        Plan::of(
            self.prior.folder(),
            controlnet,
            job,
            size,
            batch,
            self.dtype,
        )
    }

    /// Restores one image, telling `progress` after every step.
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
        self.planned(job, size, items.len(), |cx| {
            self.restore_in(cx, job, items, &progress)
        })
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
        let job = &job.clone().unguided();
        let shape = [streams.len(), size[0], size[1], 3];
        self.planned(job, size, streams.len(), |cx| {
            self.solve(cx, job, None, shape, streams, &progress)
        })
    }

    fn cx(&self) -> Result<Cx> {
        Cx::new(self.rt.clone(), self.dtype)
    }

    /// Runs `work` with its planned slab reserved.
    fn planned<R>(
        &self,
        job: &Restore,
        size: [usize; 2],
        batch: usize,
        work: impl FnOnce(&Cx) -> Result<R>,
    ) -> Result<R> {
        let plan = self.plan(job, size, batch)?;
        self.rt.reserve(plan.slab)?;
        let result = work(&self.cx()?);
        self.rt.unreserve();
        result
    }

    fn restore_in(
        &self,
        cx: &Cx,
        job: &Restore,
        items: &[Item<'_>],
        progress: &dyn Fn(Progress),
    ) -> Result<Vec<Result<Restored>>> {
        let Some(first) = items.first() else {
            return Ok(Vec::new());
        };
        let [h, w] = job.task.image_size([first.y.height, first.y.width]);
        let streams: Vec<_> = items
            .iter()
            .map(|i| Stream::new(job.seed, i.key, i.sample))
            .collect();
        let operator = job.task.build(cx, [h, w])?;
        let y = upload_images(cx, items.iter().map(|i| i.y), operator.measurement_shape())?;
        self.solve(
            cx,
            job,
            Some((&*operator, &y)),
            [items.len(), h, w, 3],
            &streams,
            progress,
        )
    }

    fn solve(
        &self,
        cx: &Cx,
        job: &Restore,
        measured: Option<(&dyn Operator, &Tensor)>,
        image: [usize; 4],
        streams: &[Stream],
        progress: &dyn Fn(Progress),
    ) -> Result<Vec<Result<Restored>>> {
        let mut steps = job.steps(&self.prior.schedule)?;
        let codec = self.prior.codec();
        let shape = codec.state_shape(image)?;
        let context = self.prior.context(cx, &job.prompt)?;
        let hint = self.hint(cx, measured)?;
        let plain = Unguided {
            unet: &self.prior.unet,
            context: context.as_ref(),
        };
        let conditional =
            self.controlnet
                .as_ref()
                .zip(hint.as_ref())
                .map(|((_, controlnet), hint)| Conditional {
                    unet: plain.unet,
                    context: plain.context,
                    controlnet,
                    hint,
                    scale: job.conditioning_scale,
                });
        let denoiser: &dyn crate::diffusion::prior::Denoiser = match &conditional {
            Some(conditional) => conditional,
            None => &plain,
        };
        let measurement = measured.map(|(operator, y)| Measurement { operator, y });
        let problem = Problem {
            denoiser,
            guide: denoiser,
            codec: &*codec,
            measurement,
        };
        if let Runtime::Dry(_) = cx.rt() {
            plan::thin(&mut steps);
        }
        let std = steps[0].initial_std(job.method.spacing, job.method.coordinates);
        let x = noise::normals(cx, shape, streams, INITIAL, 0)?;
        let x = crate::ops::combine::forward(cx, &[(std, &x)])?;
        let draw = |step: usize, draw| noise::normals(cx, shape, streams, step as u32, draw);
        let loss = std::cell::Cell::new(None);
        let of = steps.len();
        let watch = |step: usize, name: &'static str, value: &Tensor| match name {
            "loss" => loss.set(
                value
                    .to_f64()
                    .ok()
                    .and_then(|l| l.into_iter().reduce(f64::max)),
            ),
            "x" => progress(Progress {
                index: step + 1,
                of,
                loss: loss.get(),
            }),
            _ => {}
        };
        let outcome = samplers::run(cx, &*job.sampler(), &problem, &steps, x, &draw, &watch)?;
        let images = codec.decode(cx, &outcome.x)?;
        let residuals = match measured {
            Some((operator, y)) => residual::forward(cx, &operator.measure(cx, &images)?, y)?
                .0
                .to_f64()?,
            None => vec![0.0; image[0]],
        };
        let images = download_images(&images)?;
        let results = images
            .into_iter()
            .zip(residuals)
            .zip(outcome.diverged)
            .enumerate();
        Ok(results
            .map(|(sample, ((image, residual), diverged))| match diverged {
                Some(step) => Err(Error::Diverged { sample, step }),
                None => image.map(|image| Restored { image, residual }),
            })
            .collect())
    }

    fn hint(&self, cx: &Cx, measured: Option<(&dyn Operator, &Tensor)>) -> Result<Option<Tensor>> {
        let Some((_, controlnet)) = &self.controlnet else {
            return Ok(None);
        };
        let (operator, y) = measured.ok_or_else(|| {
            Error::argument("--cse", "a conditional score estimator needs a measurement")
        })?;
        controlnet
            .embed_hint(cx, &operator.condition(cx, y)?)
            .map(Some)
    }
}

/// Images of one shape as `[n, h, w, 3]`.
fn upload_images<'a>(
    cx: &Cx,
    images: impl Iterator<Item = &'a Image>,
    shape: [usize; 3],
) -> Result<Tensor> {
    let mut values: Vec<f32> = Vec::new();
    let mut n = 0;
    for image in images {
        if [image.height, image.width, 3] != shape {
            let got = format!("[{}, {}, 3]", image.height, image.width);
            return Err(Error::shape("measurement", format!("{shape:?}"), got));
        }
        values.extend_from_slice(&image.pixels);
        n += 1;
    }
    cx.upload(&values, [n, shape[0], shape[1], shape[2]])
}

fn download_images(images: &Tensor) -> Result<Vec<Result<Image>>> {
    let [_, h, w, _] = images.nhwc("images")?;
    let pixels: Vec<f32> = match images.dtype() {
        DType::F32 => images.to_vec()?,
        _ => images.to_f64()?.into_iter().map(|v| v as f32).collect(),
    };
    Ok(pixels
        .chunks_exact((h * w * 3).max(1))
        .map(|p| Image::new(w, h, p.to_vec()))
        .collect())
}
