//! One run of a job: from measurements to images, through the sampler's loop.

use std::cell::Cell;

use super::job::Restore;
use super::prior::{Conditional, Unguided, hint};
use super::{Item, Own, Pipeline, Progress, Restored, plan};
use crate::cx::Cx;
use crate::diffusion::prior::Denoiser;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::image::Image;
use crate::ops::{combine, noise, residual};
use crate::rng::{INITIAL, Stream};
use crate::runtime::Runtime;
use crate::samplers::{self, Draw, Measurement, Outcome, Problem};
use crate::tensor::Tensor;

/// What a run needs besides its images.
pub(super) struct Run<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) cx: &'a Cx,
    pub(super) job: &'a Restore,
    pub(super) own: Own<'a>,
    pub(super) context: Option<&'a Tensor>,
    pub(super) progress: &'a dyn Fn(Progress),
}

impl Run<'_> {
    /// Restores measurements of one size.
    pub(super) fn restore(&self, items: &[Item<'_>]) -> Result<Vec<Result<Restored>>> {
        let Some(first) = items.first() else {
            return Ok(Vec::new());
        };
        let stream = |i: &Item<'_>| Stream::new(self.job.seed, i.key, i.sample);
        let streams: Vec<Stream> = items.iter().map(stream).collect();
        let of_task;
        let (operator, size) = match self.own.operator {
            Some(own) => own,
            None => {
                let task = &self.job.task;
                let size = task.image_size([first.y.height, first.y.width]);
                of_task = task.build(self.cx, size)?;
                (&*of_task, size)
            }
        };
        let y = upload(
            self.cx,
            items.iter().map(|i| i.y),
            operator.measurement_shape(),
        )?;
        self.images(Some(Measurement { operator, y: &y }), size, &streams)
    }

    /// Draws images of `size = [h, w]` without a measurement.
    pub(super) fn generate(
        &self,
        size: [usize; 2],
        streams: &[Stream],
    ) -> Result<Vec<Result<Restored>>> {
        self.images(None, size, streams)
    }

    fn images(
        &self,
        measurement: Option<Measurement<'_>>,
        [h, w]: [usize; 2],
        streams: &[Stream],
    ) -> Result<Vec<Result<Restored>>> {
        let cx = self.cx;
        let codec = self.pipeline.prior.codec();
        let shape = codec.state_shape([streams.len(), h, w, 3])?;
        let outcome = self.with_denoiser(measurement, |denoiser| {
            let problem = Problem {
                denoiser,
                guide: denoiser,
                codec: &*codec,
                measurement,
                follow: self.job.method.follow,
            };
            self.sample(&problem, shape, streams)
        })?;
        let images = codec.decode(cx, &outcome.x)?;
        let residuals = match measurement {
            Some(m) => residual::forward(cx, &m.operator.measure(cx, &images)?, m.y)?
                .0
                .to_f64()?,
            None => vec![0.0; streams.len()],
        };
        let images = download(&images)?
            .into_iter()
            .zip(residuals)
            .zip(outcome.diverged)
            .enumerate();
        let result = |(sample, ((image, residual), diverged))| match diverged {
            Some(step) => Err(Error::Diverged { sample, step }),
            None => Result::map(image, |image| Restored { image, residual }),
        };
        Ok(images.map(result).collect())
    }

    /// Calls `work` with the UNet, with its ControlNet if there is one.
    fn with_denoiser<R>(
        &self,
        measurement: Option<Measurement<'_>>,
        work: impl FnOnce(&dyn Denoiser) -> Result<R>,
    ) -> Result<R> {
        let (unet, context) = (&self.pipeline.prior.unet, self.context);
        let Some((_, controlnet)) = &self.pipeline.controlnet else {
            return work(&Unguided { unet, context });
        };
        let why = "a conditional score estimator needs a measurement";
        let m = measurement.ok_or_else(|| Error::argument("--cse", why))?;
        let image = m.operator.condition(self.cx, m.y)?;
        let hint = &hint(self.cx, controlnet, &image)?;
        let scale = self.job.conditioning_scale;
        work(&Conditional {
            unet,
            context,
            controlnet,
            hint,
            scale,
        })
    }

    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: [usize; 4],
        streams: &[Stream],
    ) -> Result<Outcome> {
        let method = self.job.method;
        let mut steps = self.job.steps(&self.pipeline.prior.schedule)?;
        let times: Vec<f64> = steps.iter().map(|step| step.t).collect();
        let cx = &self.cx.for_run(&times)?;
        let of_method = self.job.sampler();
        let sampler = self.own.sampler.unwrap_or(&*of_method);
        if let Runtime::Dry(_) = cx.rt() {
            plan::thin(&mut steps, sampler);
        }
        let of = steps.len();
        let std = steps[0].initial_std(method.spacing, method.coordinates);
        let x = combine::forward(
            cx,
            &[(std, &noise::normals(cx, shape, streams, INITIAL, 0)?)],
        )?;
        let draw = |step: usize, draw| Draw::of(cx, streams, step as u32, draw);
        let loss = Cell::new(None);
        let watch = |step: usize, name: &'static str, value: &Tensor| {
            match name {
                "loss" => loss.set(value.to_f64()?.into_iter().reduce(f64::max)),
                "x" => (self.progress)(Progress {
                    index: step + 1,
                    of,
                    loss: loss.get(),
                }),
                _ => {}
            }
            self.pipeline.cancel.check()
        };
        samplers::run(cx, sampler, problem, &steps, x, &draw, &watch)
    }
}

/// Images of one shape as `[n, h, w, 3]`.
fn upload<'a>(
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

fn download(images: &Tensor) -> Result<Vec<Result<Image>>> {
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
