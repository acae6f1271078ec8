//! `ops/*`, `tweedie/*`, `meas/*`, `psld/*`, `eq9/*`: operators, the Tweedie mean, losses and their gradients.

use super::goldens::download;
use super::networks::{Networks, context};
use super::published::Published;
use super::{Models, Sink, of};
use crate::cx::Cx;
use crate::diffusion::prior::Denoiser;
use crate::diffusion::schedule::{Coordinates, Solver, Spacing, Step};
use crate::error::{Error, Result};
use crate::operators::matrix::Banded;
use crate::operators::{Operator, Task};
use crate::ops::combine;
use crate::pipeline::prior::Unguided;
use crate::samplers::psld::Psld;
use crate::samplers::{Follow, Measurement, Problem, guidance};
use crate::tensor::Tensor;

pub(super) fn compute(cx: &Cx, models: &Models<'_>, sink: &mut Sink<'_>) -> Result<()> {
    for op in sink.goldens.words("ops/") {
        of(&format!("ops/{op}"), operator(cx, op, sink))?;
    }
    of("tweedie", tweedie(cx, models, sink))?;
    for op in sink.goldens.words("meas/") {
        of(&format!("meas/{op}"), measured(cx, models, op, sink))?;
    }
    for op in sink.goldens.words("psld/") {
        of(&format!("psld/{op}"), glued(cx, models, op, sink))?;
    }
    of("eq9", score(cx, models, sink))
}

/// The operator that the goldens call `name`, for the images of this file.
pub(super) fn named(cx: &Cx, sink: &Sink<'_>, name: &str) -> Result<Box<dyn Operator>> {
    let [_, _, h, w] = sink.goldens.dims("in/img")?;
    Task::parse(name)?.build(cx, [h, w])
}

fn operator(cx: &Cx, name: &str, sink: &mut Sink<'_>) -> Result<()> {
    if Task::parse(name).is_err() {
        return Ok(());
    }
    let op = named(cx, sink, name)?;
    let image = sink.goldens.tensor(cx, "in/img")?;
    let [_, h, w, _] = image.nhwc("image")?;
    let f = op.measure(cx, &image)?;
    sink.put(&format!("ops/{name}/f_img"), download(&f)?)?;
    let cot = sink.goldens.tensor(cx, &format!("ops/{name}/cot"))?;
    sink.put(
        &format!("ops/{name}/fT_cot"),
        download(&op.vjp(cx, &image, &cot)?)?,
    )?;
    sink.put(
        &format!("ops/{name}/cond_img"),
        download(&op.condition(cx, &f)?)?,
    )?;
    if let Some(factor) = name.strip_prefix("sr").and_then(|f| f.parse().ok()) {
        sink.put(
            &format!("ops/{name}/A_rows"),
            dense(&Banded::bicubic_reduce(h, factor)?),
        )?;
    }
    if sink.wants("ops/blur/k1d") && name == "blur" {
        // A row far from the borders is the kernel itself.
        let wide = Banded::gaussian_blur(121, 61, 3.0)?;
        sink.put("ops/blur/k1d", dense(&wide)[60 * 121 + 30..][..61].to_vec())?;
    }
    if sink.wants("ops/inpaint/mask") && name == "inpaint" {
        let ones = cx.upload(&vec![1.0; h * w * 3], [1, h, w, 3])?;
        let mask = op.measure(cx, &ones)?.to_f64()?;
        sink.put("ops/inpaint/mask", mask.into_iter().step_by(3).collect())?;
    }
    Ok(())
}

fn dense(matrix: &Banded) -> Vec<f64> {
    let mut values = vec![0.0; matrix.rows() * matrix.cols()];
    for i in 0..matrix.rows() {
        for k in matrix.starts()[i]..matrix.starts()[i + 1] {
            values[i * matrix.cols() + matrix.indices()[k] as usize] += matrix.values()[k];
        }
    }
    values
}

/// A step that stands at the integer time `t`, in variance-preserving coordinates.
fn step_at(models: &Models<'_>, t: usize) -> Result<Step> {
    let schedule = &models.prior.schedule;
    let all = schedule.betas().len();
    let steps = schedule.steps(all, Spacing::Linspace, Coordinates::Vp, Solver::default())?;
    let found = steps.into_iter().find(|s| s.t == t as f64);
    found.ok_or_else(|| Error::argument("t", format!("wanted 0 to {}, got {t}", all - 1)))
}

/// The first sample of a stored batch.
fn first(cx: &Cx, sink: &Sink<'_>, name: &str) -> Result<Tensor> {
    sink.goldens.tensor(cx, name)?.samples(0..1)
}

fn times(sink: &Sink<'_>, prefix: &str) -> Vec<usize> {
    let words = sink.goldens.words(prefix);
    words
        .into_iter()
        .filter_map(|w| w.strip_prefix('t')?.parse().ok())
        .collect()
}

fn tweedie(cx: &Cx, models: &Models<'_>, sink: &mut Sink<'_>) -> Result<()> {
    for t in times(sink, "tweedie/") {
        let (z, context) = (first(cx, sink, "in/z")?, context(cx, sink, 1)?);
        let net = Unguided {
            unet: &models.prior.unet,
            context: context.as_ref(),
        };
        let prediction = net.predict(cx, &z, &cx.upload(&[t as f64], [1])?)?;
        let step = step_at(models, t)?;
        let z0 = combine::forward(cx, &[(step.x0_from.0, &z), (step.x0_from.1, &prediction)])?;
        sink.put(&format!("tweedie/t{t}/z0"), download(&z0)?)?;
        let (signal, noise) = (step.alpha_bar.sqrt(), (1.0 - step.alpha_bar).sqrt());
        let from_v = combine::forward(cx, &[(signal, &z), (-noise, &prediction)])?;
        sink.put(&format!("tweedie/t{t}/z0_v"), download(&from_v)?)?;
        if sink.wants(&format!("tweedie/t{t}/img")) {
            let image = models.prior.codec().decode(cx, &z0)?;
            sink.put(&format!("tweedie/t{t}/img"), download(&image)?)?;
        }
    }
    Ok(())
}

fn measured(cx: &Cx, models: &Models<'_>, name: &str, sink: &mut Sink<'_>) -> Result<()> {
    if Task::parse(name).is_err() {
        return Ok(());
    }
    let (operator, codec) = (named(cx, sink, name)?, models.prior.codec());
    let y = sink.goldens.tensor(cx, &format!("meas/{name}/y"))?;
    let z = first(cx, sink, "in/z")?;
    let networks = Networks::new(cx, models, sink, 1, sink.goldens.has("in/cond"))?;
    let (plain, conditional) = (networks.plain(), networks.conditional());
    for t in times(sink, &format!("meas/{name}/")) {
        let nets: [(&str, Option<&dyn Denoiser>); 2] = [
            ("", Some(&plain)),
            ("_cn", conditional.as_ref().map(|c| c as &dyn Denoiser)),
        ];
        for (tag, net) in nets {
            let (Some(denoiser), true) = (net, sink.wants(&format!("meas/{name}/t{t}/loss{tag}")))
            else {
                continue;
            };
            let measurement = Some(Measurement {
                operator: &*operator,
                y: &y,
            });
            let problem = Problem {
                denoiser,
                guide: denoiser,
                codec: &*codec,
                measurement,
                follow: Follow::Plain,
            };
            let g = guidance(cx, &problem, &step_at(models, t)?, &z)?;
            sink.put(&format!("meas/{name}/t{t}/loss{tag}"), download(&g.loss)?)?;
            sink.put(&format!("meas/{name}/t{t}/grad_z{tag}"), download(&g.grad)?)?;
        }
    }
    Ok(())
}

/// `psld/<op>/{exact,code}/*`: the gluing loss alone, by the adjoint and by what published code takes for it.
fn glued(cx: &Cx, models: &Models<'_>, name: &str, sink: &mut Sink<'_>) -> Result<()> {
    if Task::parse(name).is_err() {
        return Ok(());
    }
    let (exact, codec) = (named(cx, sink, name)?, models.prior.codec());
    let y = sink.goldens.tensor(cx, &format!("meas/{name}/y"))?;
    let z0 = sink.goldens.tensor(cx, "in/z0")?;
    let alone = Psld {
        zeta: 0.0,
        gamma: 1.0,
    };
    let published = Published::new(name, &*exact);
    let both: [(&str, &dyn Operator); 2] = [("exact", &*exact), ("code", &published)];
    for (adjoint, operator) in both {
        let losses = alone.losses(cx, &*codec, Measurement { operator, y: &y }, &z0)?;
        let name = |what| format!("psld/{name}/{adjoint}/{what}");
        sink.put(&name("glue"), download(&losses.glue)?)?;
        sink.put(&name("glue_grad_z0"), download(&losses.grad)?)?;
    }
    Ok(())
}

/// `eq9/s_dps`, equation 9: the score that DPS implies,
/// `-eps / sqrt(1 - alpha_bar) - sqrt(alpha) / (1 - alpha) zeta grad`, at step 3 of 8.
fn score(cx: &Cx, models: &Models<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let name = "eq9/s_dps";
    if !sink.wants(name) {
        return Ok(());
    }
    let desc = &sink.goldens.entry(name)?.desc;
    let word = |key: &str| {
        let rest = desc.split_once(key)?.1;
        Some(rest.trim_start().split([',', ' ']).next()?.to_owned())
    };
    let (Some(op), Some(Ok(zeta))) = (word("op "), word("zeta ").map(|z| z.parse::<f64>())) else {
        return Ok(());
    };
    let (operator, codec) = (named(cx, sink, &op)?, models.prior.codec());
    let y = sink.goldens.tensor(cx, &format!("meas/{op}/y"))?;
    let (x, context) = (sink.goldens.tensor(cx, "traj/xT")?, context(cx, sink, 1)?);
    let net = Unguided {
        unet: &models.prior.unet,
        context: context.as_ref(),
    };
    let measurement = Some(Measurement {
        operator: &*operator,
        y: &y,
    });
    let problem = Problem {
        denoiser: &net,
        guide: &net,
        codec: &*codec,
        measurement,
        follow: Follow::Plain,
    };
    let steps =
        models
            .prior
            .schedule
            .steps(8, Spacing::Leading, Coordinates::Vp, Solver::default())?;
    let step = &steps[3];
    let eps = net.predict(cx, &x, &cx.upload(&[step.t], [1])?)?;
    let g = guidance(cx, &problem, step, &x)?;
    let alpha = step.alpha_bar / step.alpha_bar_next;
    let terms = [
        (-1.0 / (1.0 - step.alpha_bar).sqrt(), &eps),
        (-alpha.sqrt() / (1.0 - alpha) * zeta, &g.grad),
    ];
    sink.put(name, download(&combine::forward(cx, &terms)?)?)
}
