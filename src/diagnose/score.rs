//! What guidance makes of the score, against a reference: the paper's Figure 1 and Table 2.
//!
//! Proposition 1 reads a DPS step as a step along the score `-eps / sqrt(1 - abar) - sqrt(alpha) / (1 - alpha) zeta g`, so as the noise
//! estimate `eps + zeta g / c` with `c = beta / (sqrt(alpha) sqrt(1 - abar))`, alpha of the step. All of this in VP coordinates,
//! as the paper's authors computed both, with the zeta that their samplers take in VE.

use crate::cx::Cx;
use crate::diffusion::prior::{Codec, Denoiser};
use crate::diffusion::schedule::{Coordinates, Solver, Spacing, Step};
use crate::error::{Error, Result};
use crate::io::image::Image;
use crate::models::controlnet::ControlNet;
use crate::operators::{Operator, Task};
use crate::ops::{combine, noise};
use crate::pipeline::device::Device;
use crate::pipeline::prior::{Conditional, Prior, Unguided, hint, open_controlnet};
use crate::rng::{INITIAL, Stream};
use crate::samplers::{self, Follow, Measurement, Problem};
use crate::tensor::Tensor;

/// A model and a measurement, of so many equal samples.
pub struct Subject {
    cx: Cx,
    prior: Prior,
    context: Option<Tensor>,
    operator: Box<dyn Operator>,
    y: Tensor,
    state: [usize; 4],
}

/// An estimate of the noise in a state.
pub enum Estimate<'a> {
    /// The prior's own.
    Unconditional,
    /// That of a conditional score estimator.
    Conditional(&'a Estimator),
    /// The prior's with the gradient of DPS of this zeta.
    Dps(f64),
}

/// A conditional score estimator that has seen the measurement.
pub struct Estimator {
    controlnet: ControlNet,
    hint: Tensor,
}

impl Subject {
    /// The model of a folder, and the measurement `y` by `task` of an image, `samples` times.
    ///
    /// # Errors
    /// What opening the model returns; [`Error::Shape`] when `y` is not what the task makes of an image that the model takes.
    pub fn open(
        device: &Device,
        model: &std::path::Path,
        task: &Task,
        y: &Image,
        samples: usize,
    ) -> Result<Self> {
        let net = Cx::new(device.rt().clone(), device.dtype())?;
        let prior = Prior::open(&net, model)?;
        let context = prior.context(&net, "")?;
        let cx = net.state();
        let [h, w] = task.image_size([y.height, y.width]);
        let operator = task.build(&cx, [h, w])?;
        let [yh, yw, c] = operator.measurement_shape();
        if [yh, yw, c] != [y.height, y.width, 3] {
            let got = format!("[{}, {}, 3]", y.height, y.width);
            return Err(Error::shape(
                "measurement",
                format!("[{yh}, {yw}, {c}]"),
                got,
            ));
        }
        let y = cx.upload(&y.pixels.repeat(samples), [samples, yh, yw, c])?;
        let state = prior.codec().state_shape([samples, h, w, 3])?;
        Ok(Subject {
            cx,
            prior,
            context,
            operator,
            y,
            state,
        })
    }

    /// The conditional score estimator of a ControlNet folder.
    ///
    /// # Errors
    /// What opening it returns.
    pub fn estimator(&self, folder: &std::path::Path) -> Result<Estimator> {
        let net = self.cx.network();
        let controlnet = open_controlnet(&net, folder, &self.prior.unet, &mut Vec::new())?;
        let image = self.operator.condition(&self.cx, &self.y)?;
        let hint = hint(&self.cx, &controlnet, &image)?;
        Ok(Estimator { controlnet, hint })
    }

    /// The steps of a run of so many, in VP coordinates, at whole times.
    ///
    /// # Errors
    /// [`Error::Argument`] when the schedule has no such steps.
    pub fn steps(&self, count: usize) -> Result<Vec<Step>> {
        let schedule = &self.prior.schedule;
        schedule.steps(count, Spacing::Leading, Coordinates::Vp, Solver::default())
    }

    /// The context of states.
    pub fn cx(&self) -> &Cx {
        &self.cx
    }

    fn plain(&self) -> Unguided<'_> {
        Unguided {
            unet: &self.prior.unet,
            context: self.context.as_ref(),
        }
    }

    /// The noise that an estimate sees in `x` at the time of `step`, of `x`'s shape.
    ///
    /// # Errors
    /// What the model returns.
    pub fn noise(&self, of: &Estimate<'_>, step: &Step, x: &Tensor) -> Result<Tensor> {
        let plain = self.plain();
        let of_prediction = |net: &dyn Denoiser| {
            let n = x.shape().samples();
            let prediction = net.predict(&self.cx, x, &self.cx.upload(&vec![step.t; n], [n])?)?;
            let (a, b) = step.eps_from;
            combine::forward(&self.cx, &[(a, x), (b, &prediction)])
        };
        match of {
            Estimate::Unconditional => of_prediction(&plain),
            Estimate::Conditional(Estimator { controlnet, hint }) => of_prediction(&Conditional {
                unet: plain.unet,
                context: plain.context,
                controlnet,
                hint,
                scale: 1.0,
            }),
            Estimate::Dps(zeta) => {
                let codec = self.prior.codec();
                let g = samplers::guidance(&self.cx, &self.problem(&plain, &*codec), step, x)?;
                let signal = step.alpha_bar.sqrt();
                let spread = (1.0 - step.alpha_bar).sqrt();
                // eps = (x - sqrt(abar) x0) / sqrt(1 - abar)
                let terms = [
                    (1.0 / spread, x),
                    (-signal / spread, &g.x0),
                    (zeta / weight(step), &g.grad),
                ];
                combine::forward(&self.cx, &terms)
            }
        }
    }

    fn problem<'a>(&'a self, net: &'a dyn Denoiser, codec: &'a dyn Codec) -> Problem<'a> {
        Problem {
            denoiser: net,
            guide: net,
            codec,
            measurement: Some(Measurement {
                operator: &*self.operator,
                y: &self.y,
            }),
            follow: Follow::Plain,
        }
    }

    fn draw(&self, streams: &[Stream], step: u32) -> Result<Tensor> {
        noise::normals(&self.cx, self.state, streams, step, 0)
    }
}

/// Proposition 1's c.
fn weight(step: &Step) -> f64 {
    let alpha = step.alpha_bar / step.alpha_bar_next;
    (1.0 - alpha) / (alpha.sqrt() * (1.0 - step.alpha_bar).sqrt())
}

/// How far an estimate is from the reference at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// The time.
    pub t: f64,
    /// `(1 - abar) mean((eps - eps_ref)^2)`: what the paper's Figure 1 shows.
    pub paper: f64,
    /// `mean((eps - eps_ref)^2) / (1 - abar)`: of the scores.
    pub score: f64,
}

/// Figure 1: along a run of `reference` from `seed`, the distance of every estimate at every step, the noisiest first.
///
/// # Errors
/// What the model returns.
pub fn distances(
    subject: &Subject,
    steps: &[Step],
    reference: &Estimator,
    estimates: &[Estimate<'_>],
    seed: u64,
    watch: &dyn Fn(usize),
) -> Result<Vec<Vec<Distance>>> {
    let streams: Vec<Stream> = (0..subject.state[0])
        .map(|sample| Stream::new(seed, 0, sample as u32))
        .collect();
    let reference = Estimate::Conditional(reference);
    let mut x = subject.draw(&streams, INITIAL)?;
    let mut all = vec![Vec::new(); estimates.len()];
    for step in steps {
        let eps = subject.noise(&reference, step, &x)?;
        let truth = eps.to_f64()?;
        for (estimate, all) in estimates.iter().zip(&mut all) {
            let got = subject.noise(estimate, step, &x)?.to_f64()?;
            let squares = got.iter().zip(&truth).map(|(a, b)| (a - b) * (a - b));
            let mean = squares.sum::<f64>() / truth.len() as f64;
            let spread = 1.0 - step.alpha_bar;
            all.push(Distance {
                t: step.t,
                paper: spread * mean,
                score: mean / spread,
            });
        }
        let (signal, spread) = (step.alpha_bar.sqrt(), (1.0 - step.alpha_bar).sqrt());
        let x0 = combine::forward(&subject.cx, &[(1.0 / signal, &x), (-spread / signal, &eps)])?;
        let n = subject.draw(&streams, step.index as u32)?;
        let (a, b) = step.mean;
        x = combine::forward(&subject.cx, &[(a, &x), (b, &x0), (step.sigma, &n)])?;
        watch(step.index + 1);
    }
    Ok(all)
}

/// Whether an estimate of the score has mean zero at the first step, as a score has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// Table 2's number: of one draw, the mean over pixels of `|mean over channels|` of `eps sqrt(1 - abar)`. White noise
    /// in four channels has 0.399.
    pub paper: f64,
    /// The same quantity averaged over all draws first, then the mean of its absolute values: of n draws about
    /// `0.8 / sqrt(n)` for an estimate without bias.
    pub average: f64,
}

/// Table 2: of `draws` independent states at the first of `steps`, as many at once as the subject has samples.
///
/// # Errors
/// What the model returns.
pub fn mean(
    subject: &Subject,
    step: &Step,
    estimate: &Estimate<'_>,
    draws: usize,
    seed: u64,
    watch: &dyn Fn(usize),
) -> Result<Mean> {
    let [batch, h, w, c] = subject.state;
    let spread = (1.0 - step.alpha_bar).sqrt();
    let mut sum = vec![0.0; h * w * c];
    let (mut paper, mut done) = (0.0, 0);
    while done < draws {
        let streams: Vec<Stream> = (done..done + batch)
            .map(|draw| Stream::new(seed, 1, draw as u32))
            .collect();
        let x = subject.draw(&streams, INITIAL)?;
        let eps = subject.noise(estimate, step, &x)?.to_f64()?;
        for one in eps.chunks_exact(sum.len()).take(draws - done) {
            if done == 0 {
                let pixels = one
                    .chunks_exact(c)
                    .map(|pixel| pixel.iter().sum::<f64>() / c as f64);
                paper = spread * pixels.map(f64::abs).sum::<f64>() / (h * w) as f64;
            }
            sum.iter_mut().zip(one).for_each(|(sum, eps)| *sum += eps);
            done += 1;
        }
        watch(done);
    }
    let average = sum
        .iter()
        .map(|sum| (spread * sum / draws as f64).abs())
        .sum::<f64>();
    Ok(Mean {
        paper,
        average: average / sum.len() as f64,
    })
}
