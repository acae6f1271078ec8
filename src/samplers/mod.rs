//! Samplers: one file per algorithm box, lines in the order of the box; and the one loop that runs them.
//!
//! The loop is the same in both coordinates: a [`Step`] carries the coefficients of variance-exploding or
//! variance-preserving states, and zeta is meant in the coordinates of the steps.
//!
//! To add one: one file here, and its row in `pipeline::job`.

pub mod ancestral;
pub mod dmap;
pub mod dps;
pub mod dsg;
mod follow;
pub mod freedom;
mod guidance;
pub mod psld;
pub mod resample;

pub use follow::{Follow, Following};
pub use guidance::{Guidance, guidance, misfit};

use std::cell::RefCell;

use crate::cx::Cx;
use crate::diffusion::prior::{Codec, Denoiser};
use crate::diffusion::schedule::Step;
use crate::error::Result;
use crate::operators::Operator;
use crate::ops::{combine, noise};
use crate::reading::Reading;
use crate::rng::Stream;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// What is being solved: find x with `operator(decode(x)) = y` that the prior finds likely.
#[derive(Clone, Copy)]
pub struct Problem<'a> {
    /// The denoiser of the transition `p(x_{t-1} | x_t)`.
    pub denoiser: &'a dyn Denoiser,
    /// The denoiser that guidance is differentiated through; usually the same.
    pub guide: &'a dyn Denoiser,
    /// From states to images.
    pub codec: &'a dyn Codec,
    /// From images to measurements; `None` to sample the prior.
    pub measurement: Option<Measurement<'a>>,
    /// How guidance follows its gradient.
    pub follow: Follow,
}

/// The measurement and how it came about.
#[derive(Clone, Copy)]
pub struct Measurement<'a> {
    /// f.
    pub operator: &'a dyn Operator,
    /// y, `[n, ..]`.
    pub y: &'a Tensor,
}

/// One step of the loop, as a sampler sees it.
pub struct At<'a> {
    /// This step's coefficients.
    pub step: &'a Step,
    /// The next step's; `None` at the last.
    pub next: Option<&'a Step>,
    /// The noise of this step, by draw.
    pub noise: &'a dyn Fn(u32) -> Result<Draw>,
    /// Given every quantity of the step by the algorithm's name for it: `z0`, `loss`, `grad`, `glue`.
    pub watch: &'a dyn Fn(&'static str, &Tensor),
    /// How guidance follows its gradient, and what that remembers.
    pub following: &'a Following,
}

impl At<'_> {
    /// A draw of the next state from the normal of this mean and the step's variance, by the step's draw 0.
    ///
    /// # Errors
    /// As [`combine::forward`].
    pub fn draw(&self, cx: &Cx, mean: &[(f64, &Tensor)]) -> Result<Tensor> {
        self.noisy(cx, mean, self.step.sigma, 0)
    }

    /// The sum of the terms and `sigma n`, where `n` is this draw of the step.
    fn noisy(&self, cx: &Cx, terms: &[(f64, &Tensor)], sigma: f64, draw: u32) -> Result<Tensor> {
        if sigma == 0.0 {
            return combine::forward(cx, terms);
        }
        match (self.noise)(draw)? {
            Draw::Given(n) => combine::forward(cx, &[terms, &[(sigma, &n)]].concat()),
            Draw::At(addresses) => combine::with_noise(cx, terms, sigma, &addresses),
        }
    }

    /// Tells the watcher of a gradient.
    fn tell(&self, g: &Guidance) {
        (self.watch)("z0", &g.x0);
        (self.watch)("loss", &g.loss);
        (self.watch)("grad", &g.grad);
    }
}

/// One draw of unit normals of the state's shape.
#[derive(Clone, Debug)]
pub enum Draw {
    /// These values.
    Given(Tensor),
    /// The field at each sample's address, `[n, 5]`: drawn where it is added, never stored.
    At(Tensor),
}

impl Draw {
    /// The field of each stream at this step and draw.
    ///
    /// # Errors
    /// [`Error::Plan`](crate::Error::Plan) when there is no room for the addresses.
    pub fn of(cx: &Cx, streams: &[Stream], step: u32, draw: u32) -> Result<Self> {
        noise::addresses(cx, streams, step, draw).map(Draw::At)
    }
}

/// One algorithm. It owns its hyper-parameters and nothing else; a step is pure given its noise.
pub trait Sampler {
    /// The state after this step, from the state `x: [n, ..]` before it.
    ///
    /// # Errors
    /// Whatever the model or operator returns.
    fn step(&self, cx: &Cx, problem: &Problem<'_>, at: &At<'_>, x: Tensor) -> Result<Tensor>;

    /// What a step does besides what every step does; steps of one kind take the same memory. A plan looks at one of
    /// each.
    fn kind(&self, _step: &Step) -> usize {
        0
    }

    /// Calls of the network for one image at this step (NFE); one that guidance differentiates counts once.
    fn network_calls(&self, _step: &Step) -> usize {
        1
    }
}

/// Noise for the loop, by step and draw.
pub type Noise<'a> = dyn Fn(usize, u32) -> Result<Draw> + 'a;

/// Who sees the values of a run, each after the step that computed them; on a GPU while the next step is at work.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// The quantities it wants beside the state, by their names in [`At::watch`].
    pub names: &'a [&'static str],
    /// Sees these and, at the end of each step, the state `x`; can end the run with an error.
    pub each: &'a See<'a>,
}

/// Given what there is to see.
pub type See<'a> = dyn Fn(Seen<'_>) -> Result<()> + 'a;

/// A quantity of a step.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The step, from 0 on.
    pub step: usize,
    /// The quantity's name.
    pub name: &'static str,
    /// The tensor's shape.
    pub shape: Shape,
    /// Its values.
    pub values: &'a [f64],
}

impl Watch<'static> {
    /// Nobody.
    pub const NONE: Self = Watch {
        names: &[],
        each: &|_| Ok(()),
    };
}

/// What a run of the loop leaves.
#[derive(Debug)]
pub struct Outcome {
    /// The clean state.
    pub x: Tensor,
    /// For each sample, the step at which it first held a NaN or infinity.
    pub diverged: Vec<Option<usize>>,
}

/// Runs every step from the noisy state `x` to a clean one, on a GPU as one graph a step. It is given a step while it is at work
/// on the one before, whose values are seen then. A sample that diverges does not touch the others; the run ends early when none
/// is left.
///
/// # Errors
/// Whatever a step or `watch` returns.
pub fn run(
    cx: &Cx,
    sampler: &dyn Sampler,
    problem: &Problem<'_>,
    steps: &[Step],
    x: Tensor,
    noise: &Noise<'_>,
    watch: Watch<'_>,
) -> Result<Outcome> {
    let mut diverged = vec![None; x.shape().samples()];
    let mut at_work: Option<Taken> = None;
    // The state stays at one place, so that every step meets the same memory: on a GPU, the same graph.
    let state = combine::forward(cx, &[(1.0, &x)])?;
    drop(x);
    let following = &Following::new(cx, problem.follow, &state)?;
    for (i, step) in steps.iter().enumerate() {
        // A recorded step has no values before its end.
        let seen = RefCell::new(Vec::new());
        let at = At {
            step,
            next: steps.get(i + 1),
            noise: &|draw| noise(i, draw),
            watch: &|name, value| {
                if watch.names.contains(&name) {
                    seen.borrow_mut().push((name, value.clone()));
                }
            },
            following,
        };
        cx.rt().record(|| {
            let next = sampler.step(cx, problem, &at, state.clone())?;
            combine::assign(cx, &state, &next)
        })?;
        let mut seen = seen.into_inner();
        seen.push(("x", state.clone()));
        let tensors: Vec<&Tensor> = seen.iter().map(|(_, value)| value).collect();
        let mut taken = Taken {
            step: i,
            values: Reading::begin(cx.rt(), &tensors)?,
            names: seen.iter().map(|(name, t)| (*name, t.shape())).collect(),
        };
        if !taken.values.is_here() {
            let Some(before) = at_work.replace(taken) else {
                continue;
            };
            taken = before;
        }
        taken.show(watch, &mut diverged)?;
        if diverged.iter().all(Option::is_some) {
            break;
        }
    }
    if let Some(last) = at_work {
        last.show(watch, &mut diverged)?;
    }
    Ok(Outcome { x: state, diverged })
}

/// A step that was taken, and what is to be seen of it: the state is last.
struct Taken {
    step: usize,
    names: Vec<(&'static str, Shape)>,
    values: Reading,
}

impl Taken {
    fn show(self, watch: Watch<'_>, diverged: &mut [Option<usize>]) -> Result<()> {
        let values = self.values.values()?;
        for (&(name, shape), values) in self.names.iter().zip(&values) {
            (watch.each)(Seen {
                step: self.step,
                name,
                shape,
                values,
            })?;
        }
        let state = values.last().map_or(&[][..], Vec::as_slice);
        let samples = state.chunks((state.len() / diverged.len().max(1)).max(1));
        for (values, diverged) in samples.zip(diverged) {
            if diverged.is_none() && values.iter().any(|v| !v.is_finite()) {
                *diverged = Some(self.step);
            }
        }
        Ok(())
    }
}

/// The network's prediction of a state, without a backward pass, and `E[x0 | x]` (Tweedie).
///
/// # Errors
/// Whatever the model returns.
pub fn tweedie(cx: &Cx, denoiser: &dyn Denoiser, step: &Step, x: &Tensor) -> Result<Tensor> {
    let cx = &cx.forward_only();
    let input = network_input(cx, step, x)?;
    let prediction = denoiser.predict(cx, &input, &times(cx, step, x)?)?;
    combine::forward(cx, &[(step.x0_from.0, x), (step.x0_from.1, &prediction)])
}

/// The state as the network takes it; in VP itself.
fn network_input(cx: &Cx, step: &Step, x: &Tensor) -> Result<Tensor> {
    if step.input == 1.0 {
        return Ok(x.clone());
    }
    combine::forward(cx, &[(step.input, x)])
}

/// The step's time, for every sample of `x`.
fn times(cx: &Cx, step: &Step, x: &Tensor) -> Result<Tensor> {
    let n = x.shape().samples();
    cx.upload(&vec![step.t; n], [n])
}
