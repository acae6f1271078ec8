//! `traj/*`: whole runs of the samplers with given noise, every step compared.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::Value;

use super::goldens::{channels_first, download};
use super::networks::Networks;
use super::operators::named;
use super::published::Published;
use super::{Models, Sink, of};
use crate::cx::Cx;
use crate::diffusion::prior::Denoiser;
use crate::diffusion::schedule::{Coordinates, Solver, Spacing, Step, Variance};
use crate::error::{Error, Result};
use crate::operators::Operator;
use crate::ops::combine;
use crate::samplers::ancestral::Ancestral;
use crate::samplers::dmap::{Dmap, Project};
use crate::samplers::dps::Dps;
use crate::samplers::dsg::Dsg;
use crate::samplers::freedom::Freedom;
use crate::samplers::psld::Psld;
use crate::samplers::resample::{Blend, Descent, Resample, Solve, Stages};
use crate::samplers::{self, Draw, Follow, Measurement, Problem, Sampler, Watch};
use crate::tensor::Tensor;

pub(super) fn compute(cx: &Cx, models: &Models<'_>, sink: &mut Sink<'_>) -> Result<()> {
    for name in sink.goldens.words("traj/") {
        let params = &sink.goldens.entry(&format!("traj/{name}/x"))?.params;
        if let Some(run) = Run::read(name, params) {
            of(&format!("traj/{name}"), run.compute(cx, models, name, sink))?;
        }
    }
    Ok(())
}

/// A run as its name and parameters describe it.
struct Run<'a> {
    sampler: Box<dyn Sampler>,
    solver: Solver,
    coordinates: Coordinates,
    op: Option<&'a str>,
    /// Operators with what published code takes for their adjoints.
    published: bool,
    /// Two samples, of the measurement of one.
    two: bool,
    /// The ControlNet takes part in the transition, in the guidance.
    conditional: [bool; 2],
}

impl<'a> Run<'a> {
    /// `None` for methods that this version does not have.
    fn read(name: &str, params: &'a BTreeMap<String, Value>) -> Option<Self> {
        let (conditional, method) = match name.strip_prefix("cse_") {
            Some(rest) => ([true, !rest.contains("_prior")], rest),
            None => ([false, false], name),
        };
        let (coordinates, method) = match method.strip_prefix("euler_") {
            Some(rest) => (Coordinates::Ve, rest),
            None => (Coordinates::Vp, method),
        };
        let number = |key: &str| params.get(key).and_then(Value::as_f64);
        let text = |key: &str| params.get(key).and_then(Value::as_str);
        let sampler: Box<dyn Sampler> = if matches!(method, "ddpm" | "ddpm_large" | "ddim") {
            Box::new(Ancestral)
        } else if method.starts_with("dps") {
            Box::new(Dps {
                zeta: number("zeta")?,
            })
        } else if method.starts_with("dmap") {
            let project = if text("project") == Some("last") {
                Project::Last
            } else {
                Project::Each
            };
            Box::new(Dmap {
                zeta: number("zeta")?,
                ascents: number("K")? as usize,
                project,
            })
        } else if method.starts_with("dsg") {
            Box::new(Dsg {
                rate: number("zeta")?,
                interval: 1,
            })
        } else if method.starts_with("freedom") {
            Box::new(Freedom {
                zeta: number("zeta")?,
                repeats: number("K")? as usize,
                window: [number("c1")? as usize, number("c2")? as usize],
            })
        } else if method.starts_with("psld") {
            Box::new(Psld {
                zeta: number("zeta")?,
                gamma: number("gamma")?,
            })
        } else if let Some(which) = method.strip_prefix("resample_") {
            Box::new(Resample {
                zeta: number("zeta")?,
                every: number("N")? as usize,
                solve: Solve {
                    stages: match which.starts_with("pixel") {
                        true => Stages::Pixel,
                        false => Stages::Latent,
                    },
                    iterations: number("K")? as usize,
                    rate: number("lr")?,
                    descent: Descent::Gradient,
                    strength: number("gamma")?,
                    blend: match which.contains("literal") {
                        true => Blend::Printed,
                        false => Blend::Original,
                    },
                },
            })
        } else {
            return None;
        };
        let solver = match (number("eta"), text("sigma")) {
            (Some(eta), _) => Solver::Ddim { eta },
            (None, Some("large")) => Solver::Ancestral {
                variance: Variance::Large,
            },
            _ => Solver::default(),
        };
        Some(Run {
            sampler,
            solver,
            coordinates,
            op: text("op"),
            published: text("adjoint").is_some_and(|adjoint| adjoint != "exact"),
            two: method.contains("_b2"),
            conditional,
        })
    }

    fn compute(&self, cx: &Cx, models: &Models<'_>, name: &str, sink: &mut Sink<'_>) -> Result<()> {
        let goldens = sink.goldens;
        let states = goldens.entry(&format!("traj/{name}/x"))?.shape.first();
        let count = states.map_or(0, |n| n - 1);
        let schedule = &models.prior.schedule;
        let steps = schedule.steps(count, Spacing::Leading, self.coordinates, self.solver)?;
        let x = goldens.tensor(cx, if self.two { "traj/xT_b2" } else { "traj/xT" })?;
        let samples = x.shape().samples();
        let x = combine::forward(cx, &[(steps[0].scale / steps[0].alpha_bar.sqrt(), &x)])?;
        let noise = match self.two {
            true => Noise::open(sink, ["traj/noise_b2"])?,
            false => Noise::open(sink, ["traj/noise", "traj/noise2"])?,
        };

        let networks = Networks::new(cx, models, sink, samples, self.conditional[0])?;
        let (plain, conditional) = (networks.plain(), networks.conditional());
        let net = |conditioned: bool| -> Result<&dyn Denoiser> {
            match (&conditional, conditioned) {
                (Some(net), true) => Ok(net),
                (None, true) => Err(Error::config(
                    "controlnet",
                    format!("traj/{name} needs the model's ControlNet"),
                )),
                (_, false) => Ok(&plain),
            }
        };
        let operator = self.op.map(|op| named(cx, sink, op)).transpose()?;
        let published = self.op.zip(operator.as_deref());
        let published = published
            .filter(|_| self.published)
            .map(|(name, operator)| Published::new(name, operator));
        let y = self.op.map(|op| repeated(cx, sink, op, samples));
        let y = y.transpose()?;
        let operator: Option<&dyn Operator> = match &published {
            Some(published) => Some(published),
            None => operator.as_deref(),
        };
        let measurement = operator
            .zip(y.as_ref())
            .map(|(operator, y)| Measurement { operator, y });
        let codec = models.prior.codec();
        let (denoiser, guide) = (net(self.conditional[0])?, net(self.conditional[1])?);
        let problem = Problem {
            denoiser,
            guide,
            codec: &*codec,
            measurement,
            follow: Follow::Plain,
        };
        for (quantity, values) in self.values(cx, &problem, &steps, x, &noise)? {
            sink.put(&format!("traj/{name}/{quantity}"), values)?;
        }
        Ok(())
    }

    /// What is seen on the way from `x`, by its name: of one step after the other.
    fn values(
        &self,
        cx: &Cx,
        problem: &Problem<'_>,
        steps: &[Step],
        x: Tensor,
        noise: &Noise,
    ) -> Result<BTreeMap<&'static str, Vec<f64>>> {
        let seen: RefCell<BTreeMap<&str, Vec<f64>>> = RefCell::default();
        let note = |name: &'static str, values: Vec<f64>| {
            seen.borrow_mut().entry(name).or_default().extend(values);
        };
        note("x", download(&x)?);
        let draw = |step: usize, draw: u32| noise.draw(cx, step, draw as usize).map(Draw::Given);
        samplers::run(
            cx,
            &*self.sampler,
            problem,
            steps,
            x,
            &draw,
            Watch {
                names: &["z0", "loss", "grad", "glue"],
                each: &|seen| {
                    note(seen.name, channels_first(seen.shape, seen.values.to_vec()));
                    Ok(())
                },
            },
        )?;
        Ok(seen.into_inner())
    }
}

/// The measurement of the goldens' image, so many times.
fn repeated(cx: &Cx, sink: &Sink<'_>, op: &str, samples: usize) -> Result<Tensor> {
    let y = sink.goldens.tensor(cx, &format!("meas/{op}/y"))?;
    let values = y.to_f64()?.repeat(samples / y.shape().samples());
    cx.upload(&values, y.shape().with_samples(samples))
}

/// Noise by step and draw, of each file `[steps, draws, 1, c, h, w]` or, of two samples, `[steps, 2, c, h, w]`. Draw
/// `2 k` is draw k of the first file, `2 k + 1` that of the second: the ways forth and back.
struct Noise(Vec<(Vec<f64>, Vec<usize>)>);

impl Noise {
    fn open<const N: usize>(sink: &Sink<'_>, names: [&str; N]) -> Result<Self> {
        let one = |name: &str| {
            let mut shape = sink.goldens.entry(name)?.shape.clone();
            if shape.len() == 5 {
                shape.insert(1, 1);
            }
            match shape.len() {
                6 => Ok((sink.goldens.values(name)?, shape)),
                _ => Err(Error::shape(
                    name,
                    "[steps, draws, n, c, h, w]",
                    format!("{shape:?}"),
                )),
            }
        };
        Ok(Noise(names.into_iter().map(one).collect::<Result<_>>()?))
    }

    fn draw(&self, cx: &Cx, step: usize, draw: usize) -> Result<Tensor> {
        let missing = || Error::argument("noise", format!("no draw {draw} for step {step}"));
        let (values, shape) = self.0.get(draw % 2).ok_or_else(missing)?;
        let size: usize = shape[2..].iter().product();
        let start = (step * shape[1] + draw / 2) * size;
        let values = values
            .get(start..start + size)
            .filter(|_| draw / 2 < shape[1]);
        super::goldens::upload(cx, values.ok_or_else(missing)?, &shape[2..])
    }
}
