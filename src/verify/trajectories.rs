//! `traj/*`: whole runs of the samplers with given noise, every step compared.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::Value;

use super::goldens::download;
use super::operators::{context, named};
use super::{Models, Sink};
use crate::cx::Cx;
use crate::diffusion::prior::Denoiser;
use crate::diffusion::schedule::{Coordinates, Solver, Spacing, Variance};
use crate::error::{Error, Result};
use crate::ops::combine;
use crate::pipeline::prior::{Conditional, Unguided, hint};
use crate::samplers::ancestral::Ancestral;
use crate::samplers::dmap::{Dmap, Project};
use crate::samplers::dps::Dps;
use crate::samplers::{self, Draw, Measurement, Problem, Sampler};
use crate::tensor::Tensor;

pub(super) fn compute(cx: &Cx, models: &Models<'_>, sink: &mut Sink<'_>) -> Result<()> {
    for name in sink.goldens.words("traj/") {
        let params = &sink.goldens.entry(&format!("traj/{name}/x"))?.params;
        if let Some(run) = Run::read(name, params) {
            run.compute(cx, models, name, sink)?;
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
            conditional,
        })
    }

    fn compute(&self, cx: &Cx, models: &Models<'_>, name: &str, sink: &mut Sink<'_>) -> Result<()> {
        let goldens = sink.goldens;
        let count = goldens.entry(&format!("traj/{name}/x"))?.shape[0] - 1;
        let schedule = &models.prior.schedule;
        let steps = schedule.steps(count, Spacing::Leading, self.coordinates, self.solver)?;
        let x = goldens.tensor(cx, "traj/xT")?;
        let x = combine::forward(cx, &[(steps[0].scale / steps[0].alpha_bar.sqrt(), &x)])?;
        let noise = Noise::open(sink)?;

        let context = context(cx, sink)?;
        let plain = Unguided {
            unet: &models.prior.unet,
            context: context.as_ref(),
        };
        let hint = match models.controlnet {
            Some(net) if self.conditional[0] => Some(hint(
                cx,
                net,
                &goldens.tensor(cx, "in/cond")?.samples(0..1)?,
            )?),
            _ => None,
        };
        let conditional = models
            .controlnet
            .zip(hint.as_ref())
            .map(|(controlnet, hint)| Conditional {
                unet: plain.unet,
                context: plain.context,
                controlnet,
                hint,
                scale: 1.0,
            });
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
        let y = self
            .op
            .map(|op| goldens.tensor(cx, &format!("meas/{op}/y")))
            .transpose()?;
        let measurement = operator
            .as_deref()
            .zip(y.as_ref())
            .map(|(operator, y)| Measurement { operator, y });
        let codec = models.prior.codec();
        let (denoiser, guide) = (net(self.conditional[0])?, net(self.conditional[1])?);
        let problem = Problem {
            denoiser,
            guide,
            codec: &*codec,
            measurement,
        };

        let seen: RefCell<BTreeMap<&str, Vec<f64>>> = RefCell::default();
        let note = |name: &'static str, t: &Tensor| {
            // A value that cannot be read leaves a gap, and the lengths then differ.
            seen.borrow_mut()
                .entry(name)
                .or_default()
                .extend(download(t).unwrap_or_default());
        };
        note("x", &x);
        let draw = |step: usize, draw: u32| noise.draw(cx, step, draw as usize).map(Draw::Given);
        samplers::run(
            cx,
            &*self.sampler,
            &problem,
            &steps,
            x,
            &draw,
            &|_, name, t| note(name, t),
        )?;
        for (quantity, values) in seen.into_inner() {
            sink.put(&format!("traj/{name}/{quantity}"), values)?;
        }
        Ok(())
    }
}

/// `traj/noise`, `[steps, draws, 1, c, h, w]`.
struct Noise {
    values: Vec<f64>,
    shape: Vec<usize>,
}

impl Noise {
    fn open(sink: &Sink<'_>) -> Result<Self> {
        let shape = sink.goldens.entry("traj/noise")?.shape.clone();
        if shape.len() != 6 {
            return Err(Error::shape(
                "traj/noise",
                "[steps, draws, n, c, h, w]",
                format!("{shape:?}"),
            ));
        }
        Ok(Noise {
            values: sink.goldens.values("traj/noise")?,
            shape,
        })
    }

    fn draw(&self, cx: &Cx, step: usize, draw: usize) -> Result<Tensor> {
        let size: usize = self.shape[2..].iter().product();
        let start = (step * self.shape[1] + draw) * size;
        let values = self
            .values
            .get(start..start + size)
            .filter(|_| draw < self.shape[1]);
        let values = values
            .ok_or_else(|| Error::argument("noise", format!("no draw {draw} for step {step}")))?;
        super::goldens::upload(cx, values, &self.shape[2..])
    }
}
