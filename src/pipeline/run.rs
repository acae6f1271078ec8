//! One run of a job: from measurements to images, through the sampler's loop.

use std::cell::Cell;

use super::job::Restore;
use super::prior::{Conditional, Unguided, hint, stored};
use super::{Item, Own, Pipeline, Progress, Restored, plan};
use crate::cx::Cx;
use crate::diffusion::prior::Denoiser;
use crate::diffusion::tiled::{Tile, TiledCodec, TiledDenoiser, Tiling};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::image::Image;
use crate::operators::cropped::Cropped;
use crate::ops::{cast, combine, noise, residual};
use crate::rng::{INITIAL, Stream};
use crate::samplers::{self, Draw, Measurement, Outcome, Problem, Seen, Watch};
use crate::tensor::Tensor;

/// What a run needs besides its images.
pub(super) struct Run<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) cx: &'a Cx,
    pub(super) job: &'a Restore,
    pub(super) own: Own<'a>,
    pub(super) context: Option<&'a Tensor>,
    pub(super) progress: &'a dyn Fn(Progress),
    /// The side of the tiles that large images are sampled in.
    pub(super) tile: Option<usize>,
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
        let canvas = self.canvas(size);
        let cropped;
        let operator = match canvas == size {
            true => operator,
            false => {
                cropped = Cropped::new(self.cx, operator, size, canvas)?;
                &cropped
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

    /// The smallest size that the prior makes and an image of `size` fits into.
    fn canvas(&self, size: [usize; 2]) -> [usize; 2] {
        size.map(|side| side.next_multiple_of(self.pipeline.prior.multiple()))
    }

    /// The tiles of an image of `size`, if it is not worked on whole.
    fn tiling(&self, size: [usize; 2]) -> Result<Option<Tiling>> {
        let Some(tile) = self.tile else {
            return Ok(None);
        };
        let prior = &self.pipeline.prior;
        prior.check_tile(tile)?;
        let scale = prior.pixels_per_state();
        let states = self.canvas(size).map(|side| side / scale);
        Ok(Tiling::new(states, tile / scale))
    }

    /// The side of the tiles that an image of `size` is worked on in.
    pub(super) fn tile_of(&self, size: [usize; 2]) -> Result<Option<usize>> {
        let tiling = self.tiling(size)?;
        Ok(tiling.and(self.tile))
    }

    fn images(
        &self,
        measurement: Option<Measurement<'_>>,
        size: [usize; 2],
        streams: &[Stream],
    ) -> Result<Vec<Result<Restored>>> {
        let (cx, prior) = (self.cx, &self.pipeline.prior);
        let scale = prior.pixels_per_state();
        let tiling = self.tiling(size)?;
        let tiles_of = |scale: usize| match &tiling {
            Some(tiling) => tiling.tiles(cx, scale),
            None => Ok(Vec::new()),
        };
        let (states, images) = (&tiles_of(1)?[..], &tiles_of(scale)?[..]);
        let codec = match (&prior.vae, states) {
            (None, _) | (_, []) => prior.codec(),
            _ => Box::new(TiledCodec {
                codec: prior.codec(),
                states,
                images,
            }),
        };
        let [h, w] = self.canvas(size);
        let shape = codec.state_shape([streams.len(), h, w, 3])?;
        let outcome = self.with_denoiser(measurement, states, |denoiser| {
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
        if !cx.rt().computes() {
            return Ok(Vec::new());
        }
        let tile = tiling.and(self.tile);
        let images = download(&images, size)?
            .into_iter()
            .zip(residuals)
            .zip(outcome.diverged)
            .enumerate();
        let result = |(sample, ((image, residual), diverged))| match diverged {
            Some(step) => Err(Error::Diverged { sample, step }),
            None => Result::map(image, |image| Restored {
                image,
                residual,
                tile,
            }),
        };
        Ok(images.map(result).collect())
    }

    /// Calls `work` with the UNet, with its ControlNet if there is one, in tiles if there are any.
    fn with_denoiser<R>(
        &self,
        measurement: Option<Measurement<'_>>,
        tiles: &[Tile],
        work: impl FnOnce(&dyn Denoiser) -> Result<R>,
    ) -> Result<R> {
        let (unet, context) = (&self.pipeline.prior.unet, self.context);
        let Some((_, controlnet)) = &self.pipeline.controlnet else {
            return match tiles {
                [] => work(&Unguided { unet, context }),
                _ => work(&TiledDenoiser {
                    tiles,
                    parts: Vec::from_iter(tiles.iter().map(|_| part(Unguided { unet, context }))),
                }),
            };
        };
        let why = "a conditional score estimator needs a measurement";
        let m = measurement.ok_or_else(|| Error::argument("--cse", why))?;
        let image = m.operator.condition(self.cx, m.y)?;
        let hint = hint(self.cx, controlnet, &image)?;
        let scale = self.job.conditioning_scale;
        let conditional = |hint| Conditional {
            unet,
            context,
            controlnet,
            hint,
            scale,
        };
        if tiles.is_empty() {
            return work(&conditional(&hint));
        }
        let hint = cast::forward(self.cx, &hint, self.cx.dtype())?;
        let of_tile = |tile: &Tile| stored(&self.cx.network(), &tile.cut(self.cx, &hint)?);
        let hints: Vec<Tensor> = tiles.iter().map(of_tile).collect::<Result<_>>()?;
        work(&TiledDenoiser {
            tiles,
            parts: hints.iter().map(|hint| part(conditional(hint))).collect(),
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
        if !cx.rt().computes() {
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
        let each = |seen: Seen<'_>| {
            match seen.name {
                "loss" => loss.set(seen.values.iter().copied().reduce(f64::max)),
                "x" => (self.progress)(Progress {
                    index: seen.step + 1,
                    of,
                    loss: loss.get(),
                }),
                _ => {}
            }
            self.pipeline.cancel.check()
        };
        let watch = Watch {
            names: &["loss"],
            each: &each,
        };
        samplers::run(cx, sampler, problem, &steps, x, &draw, watch)
    }
}

fn part<'m>(denoiser: impl Denoiser + 'm) -> Box<dyn Denoiser + 'm> {
    Box::new(denoiser)
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
        if cx.rt().computes() {
            image.check("measurement")?;
            values.extend_from_slice(&image.pixels);
        }
        n += 1;
    }
    if !cx.rt().computes() {
        return cx.empty([n, shape[0], shape[1], shape[2]]);
    }
    cx.upload(&values, [n, shape[0], shape[1], shape[2]])
}

/// The upper left `[h, w]` of each image.
fn download(images: &Tensor, [h, w]: [usize; 2]) -> Result<Vec<Result<Image>>> {
    let [_, canvas_h, canvas_w, _] = images.nhwc("images")?;
    let pixels: Vec<f32> = match images.dtype() {
        DType::F32 => images.to_vec()?,
        _ => images.to_f64()?.into_iter().map(|v| v as f32).collect(),
    };
    let canvases = pixels.chunks_exact((canvas_h * canvas_w * 3).max(1));
    let image = |canvas: &[f32]| {
        let rows = canvas.chunks_exact(canvas_w * 3).take(h);
        Image::new(w, h, rows.flat_map(|row| &row[..w * 3]).copied().collect())
    };
    Ok(canvases.map(image).collect())
}
