//! `train/*`: a ControlNet's loss, its gradients, and three steps of AdamW.

use std::path::Path;

use super::{Sink, portable};
use crate::cx::{Cx, Gradients};
use crate::error::{Error, Result};
use crate::io::weights::Checkpoint;
use crate::models::config::Config;
use crate::models::controlnet::{ControlNet, ControlNetConfig};
use crate::models::unet::UNet;
use crate::nn::param::{Parameter, Weights};
use crate::train::noised::Noised;
use crate::train::optimiser::Optimiser;
use crate::train::{Loss, Settings, cse};

/// With the ControlNet in `folder`.
pub(super) fn compute(cx: &Cx, folder: &Path, unet: &UNet, sink: &mut Sink<'_>) -> Result<()> {
    let goldens = sink.goldens;
    if !goldens.outputs().any(|name| name.starts_with("train/")) {
        return Ok(());
    }
    let net = &cx.network();
    let noised = Noised {
        x: goldens.tensor(net, "train/zt")?,
        t: goldens.tensor(cx, "train/t")?,
        target: goldens.tensor(cx, "train/eps")?,
    };
    let context = &goldens.tensor(net, "in/ctx")?;
    let condition = &goldens.tensor(net, "in/cond")?;
    let backward = |training: &Cx, controlnet: &ControlNet| {
        cse::backward(
            training,
            controlnet,
            unet,
            Some(context),
            &noised,
            condition,
        )
    };
    let (controlnet, parameters) = open(net, folder)?;
    let (training, gradients) = net.training(parameters.iter().map(Parameter::held));
    let Loss { value, scale, .. } = backward(&training, &controlnet)?;
    sink.put("train/loss", vec![value])?;
    let taken = take(&parameters, &mut gradients.borrow_mut(), scale)?;
    let squares: f64 = taken.iter().flatten().map(|g| g * g).sum();
    sink.put("train/grad_global_norm", vec![squares.sqrt()])?;
    put(sink, &parameters, &taken, "train/grad_probes", "train/grad")?;

    for (name, weight_decay, clip) in [
        ("adam_lr1e-3", 0.0, None),
        ("adamw_lr1e-3_wd1e-2_clip0.05", 1e-2, Some(0.05)),
    ] {
        let root = format!("train/{name}");
        if !goldens.any(&root) {
            continue;
        }
        let settings = Settings {
            lr: 1e-3,
            weight_decay,
            clip,
            ..Settings::default()
        };
        let (controlnet, parameters) = open(net, folder)?;
        let values = |p: &Parameter| Ok(p.outward(p.value.to_f64()?));
        let before: Vec<Vec<f64>> = parameters.iter().map(values).collect::<Result<_>>()?;
        let mut optimiser = Optimiser::new(net, parameters.clone(), false, None)?;
        let (training, gradients) = net.training(parameters.iter().map(Parameter::held));
        for step in 0..3 {
            let Loss { value, scale, .. } = backward(&training, &controlnet)?;
            sink.put(&format!("{root}/loss{step}"), vec![value])?;
            optimiser.step(net, &gradients, scale, &settings, step)?;
        }
        let after: Vec<Vec<f64>> = parameters.iter().map(values).collect::<Result<_>>()?;
        let change = |(after, before): (&Vec<f64>, &Vec<f64>)| {
            after.iter().zip(before).map(|(a, b)| a - b).collect()
        };
        let changes: Vec<Vec<f64>> = after.iter().zip(&before).map(change).collect();
        let (probes, whole) = (format!("{root}/delta_probes"), format!("{root}/delta"));
        put(sink, &parameters, &changes, &probes, &whole)?;
    }
    Ok(())
}

fn open(net: &Cx, folder: &Path) -> Result<(ControlNet, Vec<Parameter>)> {
    let config = ControlNetConfig::read(&Config::open(folder)?)?;
    let weights = Weights::open(net, Checkpoint::open(folder)?).trained();
    let controlnet = ControlNet::new(&weights, &config)?;
    Ok((controlnet, weights.parameters()))
}

/// The gradients in the order of the checkpoint, times `scale`.
fn take(parameters: &[Parameter], from: &mut Gradients, scale: f64) -> Result<Vec<Vec<f64>>> {
    let one = |p: &Parameter| {
        let missing = || Error::weight(&p.name, "has no gradient");
        let g = from.take(p.held()).ok_or_else(missing)?;
        let values = g.to_f64()?.into_iter().map(|g| g * scale).collect();
        Ok(p.outward(values))
    };
    parameters.iter().map(one).collect()
}

/// Puts whole tensors under `whole`, and a row for each parameter, its norm and two projections, under `probes`.
fn put(
    sink: &mut Sink<'_>,
    parameters: &[Parameter],
    values: &[Vec<f64>],
    probes: &str,
    whole: &str,
) -> Result<()> {
    let seed = sink.goldens.seed();
    let mut rows = Vec::new();
    for name in sink.goldens.parameters() {
        let found = parameters.iter().position(|p| p.name == *name);
        let missing = || Error::weight(name, "is in the golden file's list, and no parameter");
        let values = &values[found.ok_or_else(missing)?];
        let project = |probe: usize| {
            let probe = portable::normals(
                seed,
                &format!("probe{probe}/{name}"),
                values.len(),
                0.0,
                1.0,
            );
            values.iter().zip(probe).map(|(v, p)| v * p).sum::<f64>()
        };
        let norm = values.iter().map(|v| v * v).sum::<f64>().sqrt();
        rows.extend([norm, project(1), project(2)]);
        sink.put(&format!("{whole}/{name}"), values.clone())?;
    }
    sink.put(probes, rows)
}
