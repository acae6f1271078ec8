//! [`Optimiser`]: AdamW (Loshchilov & Hutter 2019, as torch.optim.AdamW) over the parameters of one model, in
//! place, with a moving average of them on request. All of its state is f32.

use std::borrow::Cow;
use std::cell::RefCell;
use std::path::Path;

use crate::cx::{Cx, Gradients};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::weights::{Checkpoint, Head, Kind, write_one_by_one};
use crate::nn::param::Parameter;
use crate::ops::{adamw, ema, sum};
use crate::tensor::Tensor;
use crate::train::Settings;

/// The parameters of a model, and what AdamW knows of each.
#[derive(Debug)]
pub(crate) struct Optimiser {
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    parameter: Parameter,
    /// The moving averages of the gradient and of its square.
    m: Tensor,
    v: Tensor,
    /// The moving average of the parameter.
    average: Option<Tensor>,
}

/// The names that a slot's tensors have in a checkpoint. The parameter keeps its own, so that a checkpoint of
/// training is one of the model too.
const M: &str = "adamw.m.";
const V: &str = "adamw.v.";
const AVERAGE: &str = "ema.";

impl Optimiser {
    /// Nothing known yet of these parameters, or what `state` says; `ema`: whether they are averaged.
    ///
    /// # Errors
    /// [`Error::Weight`] when `state` lacks a tensor or holds one of another shape, [`Error::Plan`] when there is
    /// no room.
    pub(crate) fn new(
        cx: &Cx,
        parameters: Vec<Parameter>,
        ema: bool,
        state: Option<&Checkpoint>,
    ) -> Result<Self> {
        let slot = |parameter: Parameter| {
            let load = |kind: &str| load(cx, &parameter, state, kind);
            Ok(Slot {
                m: load(M)?,
                v: load(V)?,
                average: ema.then(|| load(AVERAGE)).transpose()?,
                parameter,
            })
        };
        let slots = parameters.into_iter().map(slot).collect::<Result<_>>()?;
        Ok(Optimiser { slots })
    }

    /// The parameters.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.slots.iter().map(|slot| &slot.parameter)
    }

    /// One step along the gradients of `scale` times what the backward passes left. Their norm over all parameters,
    /// before clipping, is returned; when it is not finite nothing has changed.
    ///
    /// `step` counts from 0.
    ///
    /// # Errors
    /// What a launch returns.
    pub(crate) fn step(
        &mut self,
        cx: &Cx,
        gradients: &RefCell<Gradients>,
        scale: f64,
        settings: &Settings,
        step: usize,
    ) -> Result<f64> {
        let cx = &cx.state();
        let take = |slot: &Slot| gradients.borrow_mut().take(slot.parameter.held());
        let gradients: Vec<Option<Tensor>> = self.slots.iter().map(take).collect();
        let mut squares = None;
        for g in gradients.iter().flatten() {
            squares = Some(sum::squares(cx, g, squares.as_ref())?);
        }
        let squares = squares.map_or(Ok(0.0), |s| Ok(s.to_f64()?[0]))?;
        let norm = scale * squares.sqrt();
        if !norm.is_finite() {
            return Ok(norm);
        }
        let clip = settings
            .clip
            .map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0));
        let constants = adamw::Settings {
            beta1: settings.beta1,
            beta2: settings.beta2,
            eps: settings.eps,
        };
        let (t, decay) = (step as u32 + 1, settings.weight_decay);
        let coefficients = constants.coefficients(t, settings.lr_at(step), decay, scale * clip);
        let coefficients = &cx.upload_wide(&coefficients, [4])?;
        let share = &cx.upload_wide(&[1.0 - settings.ema_at(step)], [1])?;
        for (slot, g) in self.slots.iter().zip(gradients) {
            let Slot {
                parameter,
                m,
                v,
                average,
            } = slot;
            // A parameter that the loss does not depend on has no gradient: it only decays.
            let g = match g {
                Some(g) => g,
                None => cx.upload_wide(&vec![0.0; m.shape().elements()], m.shape())?,
            };
            let state = adamw::State {
                w: &parameter.value,
                m,
                v,
                copy: parameter.copy.as_ref(),
            };
            adamw::step(cx, constants, state, &g, coefficients)?;
            if let Some(average) = average {
                ema::update(cx, average, &parameter.value, share)?;
            }
        }
        Ok(norm)
    }

    /// The first parameter that is not finite, with such a value of it. Moving averages are finite where gradients and
    /// parameters are.
    ///
    /// # Errors
    /// What a launch returns.
    pub(crate) fn not_finite(&self, cx: &Cx) -> Result<Option<(&str, f64)>> {
        let cx = &cx.state();
        let mut squares = None;
        for parameter in self.parameters() {
            squares = Some(sum::squares(cx, &parameter.value, squares.as_ref())?);
        }
        let squares = squares.map_or(Ok(0.0), |s| Ok(s.to_f64()?[0]))?;
        if squares.is_finite() {
            return Ok(None);
        }
        // The squares of large numbers are too many as well.
        for parameter in self.parameters() {
            let values = parameter.value.to_f64()?;
            if let Some(value) = values.into_iter().find(|v| !v.is_finite()) {
                return Ok(Some((&parameter.name, value)));
            }
        }
        Ok(None)
    }

    /// Writes parameters and state, atomically, with `about` beside them.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be written; what was there before is then still there.
    pub(crate) fn save(&self, path: &Path, about: &[(String, String)]) -> Result<()> {
        let mut tensors = Vec::new();
        for slot in &self.slots {
            let p = &slot.parameter;
            tensors.extend([("", p, &p.value), (M, p, &slot.m), (V, p, &slot.v)]);
            tensors.extend(slot.average.as_ref().map(|average| (AVERAGE, p, average)));
        }
        write(path, &tensors, None, about)
    }

    /// Writes the model after `step` steps: the averages where there are any, else the parameters; in `kind`, or as they are.
    ///
    /// # Errors
    /// As [`Optimiser::save`]; [`Error::Training`] naming a parameter that is not finite in `kind`.
    pub(crate) fn export(
        &self,
        path: &Path,
        kind: Option<Kind>,
        step: usize,
        about: &[(String, String)],
    ) -> Result<()> {
        let mut tensors = Vec::new();
        for slot in &self.slots {
            let p = &slot.parameter;
            let tensor = slot.average.as_ref().unwrap_or(&p.value);
            expect_finite(p, tensor, kind, step)?;
            tensors.push(("", p, tensor));
        }
        write(path, &tensors, kind, about)
    }
}

/// Refuses values that the type of a file cannot hold: 16 bits end where 32 do not.
fn expect_finite(p: &Parameter, tensor: &Tensor, kind: Option<Kind>, step: usize) -> Result<()> {
    let Some(dtype) = kind.and_then(Kind::dtype) else {
        return Ok(());
    };
    let values = tensor.to_f64()?;
    let stored = dtype.decode(&dtype.encode(values.iter().copied()));
    let Some(at) = stored.iter().position(|v| !v.is_finite()) else {
        return Ok(());
    };
    let why = format!(
        "{} of the parameter `{}` is not finite as {dtype}",
        values[at], p.name
    );
    Err(Error::Training { step, why })
}

/// Writes tensors that belong to parameters, each under its prefix, in the order of the checkpoint.
fn write(
    path: &Path,
    tensors: &[(&str, &Parameter, &Tensor)],
    kind: Option<Kind>,
    about: &[(String, String)],
) -> Result<()> {
    let kind_of = |tensor: &Tensor| {
        kind.unwrap_or(match tensor.dtype() {
            DType::F64 => Kind::F64,
            _ => Kind::F32,
        })
    };
    let head = |(prefix, p, tensor): &(&str, &Parameter, &Tensor)| Head {
        name: format!("{prefix}{}", p.name),
        kind: kind_of(tensor),
        shape: p.shape(),
    };
    let heads: Vec<Head> = tensors.iter().map(head).collect();
    write_one_by_one(path, &heads, about, |i| {
        let (_, p, tensor) = tensors[i];
        let kind = kind_of(tensor);
        let why = || Error::weight(&p.name, format!("cannot be written as {kind}"));
        let dtype = kind.dtype().ok_or_else(why)?;
        let values = p.outward(tensor.to_f64()?);
        Ok(Cow::Owned(dtype.encode(values.into_iter())))
    })
}

/// The tensor of this kind that belongs to a parameter, from `state`; without one, how it begins.
fn load(cx: &Cx, p: &Parameter, state: Option<&Checkpoint>, kind: &str) -> Result<Tensor> {
    let (shape, dtype) = (p.value.shape(), p.value.dtype());
    let values = match state {
        Some(state) => {
            let name = format!("{kind}{}", p.name);
            let view = state.need(&name)?;
            if view.shape != p.shape() {
                let why = format!("wanted shape {:?}, got {:?}", p.shape(), view.shape);
                return Err(Error::weight(name, why));
            }
            p.inward(view.to_f64()?)
        }
        None if kind == AVERAGE => p.value.to_f64()?,
        None => vec![0.0; shape.elements()],
    };
    Tensor::rounded_permanent(cx.rt(), values.into_iter(), shape, dtype)
}
