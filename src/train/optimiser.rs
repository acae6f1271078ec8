//! [`Optimiser`]: AdamW (Loshchilov & Hutter 2019, as torch.optim.AdamW) over the parameters of one model, in
//! place, with a moving average of them on request. All of its state is f32.

use std::cell::RefCell;

use crate::cx::{Cx, Gradients};
use crate::error::{Error, Result};
use crate::io::weights::{Checkpoint, Kind, Stored, write_safetensors};
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
        let share = &cx.upload_wide(&[1.0 - settings.ema.unwrap_or(0.0)], [1])?;
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

    /// Writes parameters and state, atomically, with `about` beside them.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be written; what was there before is then still there.
    pub(crate) fn save(&self, path: &std::path::Path, about: &[(String, String)]) -> Result<()> {
        let mut tensors = Vec::new();
        for slot in &self.slots {
            let name = &slot.parameter.name;
            let named = [("", Some(&slot.parameter.value)), (M, Some(&slot.m))];
            let more = [(V, Some(&slot.v)), (AVERAGE, slot.average.as_ref())];
            for (kind, tensor) in named.into_iter().chain(more) {
                if let Some(tensor) = tensor {
                    let stored = Outward::of(&slot.parameter, tensor, None)?;
                    tensors.push((format!("{kind}{name}"), stored));
                }
            }
        }
        write(path, &tensors, about)
    }

    /// Writes the model: the averages where there are any, else the parameters; in `kind`, or as they are.
    ///
    /// # Errors
    /// As [`Optimiser::save`].
    pub(crate) fn export(
        &self,
        path: &std::path::Path,
        kind: Option<Kind>,
        about: &[(String, String)],
    ) -> Result<()> {
        let mut tensors = Vec::new();
        for slot in &self.slots {
            let value = slot.average.as_ref().unwrap_or(&slot.parameter.value);
            let stored = Outward::of(&slot.parameter, value, kind)?;
            tensors.push((slot.parameter.name.clone(), stored));
        }
        write(path, &tensors, about)
    }
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

/// A tensor as a checkpoint stores it.
struct Outward {
    kind: Kind,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Outward {
    fn of(p: &Parameter, tensor: &Tensor, kind: Option<Kind>) -> Result<Self> {
        let own = match tensor.dtype() {
            crate::DType::F64 => Kind::F64,
            _ => Kind::F32,
        };
        let kind = kind.unwrap_or(own);
        let dtype = kind
            .dtype()
            .ok_or_else(|| Error::weight(&p.name, format!("cannot be {kind}")))?;
        let values = p.outward(tensor.to_f64()?);
        Ok(Outward {
            kind,
            shape: p.shape(),
            bytes: dtype.encode(values.into_iter()),
        })
    }
}

fn write(
    path: &std::path::Path,
    tensors: &[(String, Outward)],
    about: &[(String, String)],
) -> Result<()> {
    let stored: Vec<Stored<'_>> = tensors
        .iter()
        .map(|(name, t)| Stored {
            name,
            kind: t.kind,
            shape: &t.shape,
            bytes: &t.bytes,
        })
        .collect();
    write_safetensors(path, &stored, about)
}
