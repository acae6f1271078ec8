//! The paper's toy (A.4, Figure 8): points of a [`Mixture`] of which the first coordinate is measured.
//!
//! What the true posterior is, is known: with the paper's numbers 0.99998 of it lies at the one mode. So the toy tells
//! what each sampler finds of it.

use crate::cx::Cx;
use crate::diffusion::prior::Pixels;
use crate::diffusion::schedule::{Coordinates, Solver, Step, steps_through};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::operators::Operator;
use crate::ops::{combine, mask, noise};
use crate::rng::{INITIAL, Stream, image_key};
use crate::runtime::Runtime;
use crate::samplers::{self, Draw, Follow, Measurement, Noise, Problem, Sampler, Watch};
use crate::tensor::Tensor;

use super::mixture::{Mixture, Point};

/// What is measured of every point.
pub const MEASURED: f64 = 0.5;

/// The noise levels of Karras et al. 2022, equation 5, rho 7: `count` of them from `most` down to `least`.
pub fn karras(count: usize, least: f64, most: f64) -> Vec<f64> {
    const RHO: f64 = 7.0;
    let (low, high) = (least.powf(1.0 / RHO), most.powf(1.0 / RHO));
    let of = (count.max(2) - 1) as f64;
    (0..count)
        .map(|i| (high + i as f64 / of * (low - high)).powf(RHO))
        .collect()
}

/// `f(x) = (x_1, 0)`.
struct First {
    mask: Tensor,
}

impl First {
    fn new(cx: &Cx) -> Result<Self> {
        let mask = cx.constant(&[1.0, 0.0], [1, 2, 1])?;
        Ok(First { mask })
    }
}

impl Operator for First {
    fn measurement_shape(&self) -> [usize; 3] {
        [1, 2, 1]
    }

    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        mask::forward(cx, x, &self.mask)
    }

    fn vjp(&self, cx: &Cx, _: &Tensor, dy: &Tensor) -> Result<Tensor> {
        mask::forward(cx, dy, &self.mask)
    }

    fn pinv(&self, cx: &Cx, y: &Tensor) -> Result<Option<Tensor>> {
        mask::forward(cx, y, &self.mask).map(Some)
    }

    fn condition(&self, _: &Cx, y: &Tensor) -> Result<Tensor> {
        Ok(y.clone())
    }
}

/// A run of the toy, in f64 on the host.
#[derive(Clone, Debug)]
pub struct Toy {
    cx: Cx,
    steps: Vec<Step>,
    samples: usize,
}

impl Toy {
    /// So many samples through these noise levels, in VE coordinates.
    ///
    /// # Errors
    /// [`Error::Argument`] when the levels do not fall, or there are no samples.
    pub fn new(levels: &[f64], samples: usize) -> Result<Self> {
        if samples == 0 {
            return Err(Error::argument("samples", "wanted at least 1, got 0"));
        }
        Ok(Toy {
            cx: Cx::new(Runtime::native(), DType::F64)?,
            steps: steps_through(levels, Coordinates::Ve, Solver::default())?,
            samples,
        })
    }

    /// Where `sampler` takes points of unit noise, measured at [`MEASURED`], with noise from `seed`.
    ///
    /// # Errors
    /// What a step returns.
    pub fn run(&self, sampler: &dyn Sampler, prior: &Mixture, seed: u64) -> Result<Vec<Point>> {
        let key = image_key("toy");
        let streams: Vec<Stream> = (0..self.samples)
            .map(|sample| Stream::new(seed, key, sample as u32))
            .collect();
        let start = noise::normals(&self.cx, self.shape(), &streams, INITIAL, 0)?;
        let draw = |step: usize, draw| Draw::of(&self.cx, &streams, step as u32, draw);
        let last = self.with_noise(sampler, prior, &start, &draw, &mut |_, _| ())?;
        Ok(points(&last.to_f64()?))
    }

    /// The same with given noise: `start` is the first state in units of its noise level. `seen` gets the points after
    /// every step.
    ///
    /// # Errors
    /// What a step returns.
    pub fn with_noise(
        &self,
        sampler: &dyn Sampler,
        prior: &Mixture,
        start: &Tensor,
        noise: &Noise<'_>,
        seen: &mut dyn FnMut(usize, &[Point]),
    ) -> Result<Tensor> {
        let cx = &self.cx;
        let operator = First::new(cx)?;
        let y = cx.upload(&[MEASURED, 0.0].repeat(self.samples), self.shape())?;
        let problem = Problem {
            denoiser: prior,
            guide: prior,
            codec: &Pixels,
            measurement: Some(Measurement {
                operator: &operator,
                y: &y,
            }),
            follow: Follow::Plain,
        };
        let x = combine::forward(cx, &[(self.steps[0].noise_level, start)])?;
        let seen = std::cell::RefCell::new(seen);
        let watch = Watch {
            names: &[],
            each: &|state| {
                (seen.borrow_mut())(state.step, &points(state.values));
                Ok(())
            },
        };
        Ok(samplers::run(cx, sampler, &problem, &self.steps, x, noise, watch)?.x)
    }

    /// How many steps a run has.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// The context in which it runs.
    pub fn cx(&self) -> &Cx {
        &self.cx
    }

    /// The shape of the states.
    pub fn shape(&self) -> [usize; 4] {
        [self.samples, 1, 2, 1]
    }
}

/// The points of a state's values.
fn points(values: &[f64]) -> Vec<Point> {
    values.chunks_exact(2).map(|p| [p[0], p[1]]).collect()
}

/// What is told of a cloud of points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The share with `x_2 > 0`: at the upper mode.
    pub upper: f64,
    /// The mean of `x_2`.
    pub mean: f64,
    /// Its standard deviation.
    pub std: f64,
    /// The median of `|x_1 - y|`.
    pub misfit: f64,
}

impl Summary {
    /// Of at least one point.
    pub fn of(points: &[Point]) -> Self {
        let n = points.len() as f64;
        let mean = points.iter().map(|p| p[1]).sum::<f64>() / n;
        let variance = points.iter().map(|p| (p[1] - mean).powi(2)).sum::<f64>() / n;
        let mut misfits: Vec<f64> = points.iter().map(|p| (p[0] - MEASURED).abs()).collect();
        misfits.sort_by(f64::total_cmp);
        let middle = |i: usize| misfits[i.min(misfits.len() - 1)];
        Summary {
            upper: points.iter().filter(|p| p[1] > 0.0).count() as f64 / n,
            mean,
            std: variance.sqrt(),
            misfit: 0.5 * (middle((misfits.len() - 1) / 2) + middle(misfits.len() / 2)),
        }
    }
}
