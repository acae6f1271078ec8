//! [`Gradients`]: what a training run keeps for its weight gradients, and the gradients themselves.
//!
//! The `vjp` of a layer whose weight is trained takes the layer's input from here, and leaves the gradient of
//! its weight and bias. Layers of frozen weights keep nothing and cost nothing.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// What tells a parameter from every other: [`Tensor::id`].
type Id = (usize, usize);

/// The trained parameters of a run.
#[derive(Debug, Default)]
pub struct Gradients(BTreeMap<Id, Slot>);

/// One parameter.
#[derive(Debug, Default)]
struct Slot {
    /// The inputs its layer has met and whose gradients are still to come, last one last.
    inputs: Vec<Tensor>,
    /// The sum of its gradients so far.
    sum: Option<Tensor>,
}

impl Gradients {
    /// Nothing collected yet for these parameters, as their layers hold them.
    pub(super) fn of<'t>(parameters: impl IntoIterator<Item = &'t Tensor>) -> Self {
        let slots = parameters.into_iter().map(|w| (w.id(), Slot::default()));
        Gradients(slots.collect())
    }

    /// Forgets what was collected.
    pub fn clear(&mut self) {
        self.0.values_mut().for_each(|slot| *slot = Slot::default());
    }

    pub(super) fn has(&self, w: &Tensor) -> bool {
        self.0.contains_key(&w.id())
    }

    pub(super) fn push(&mut self, w: &Tensor, x: &Tensor) {
        if let Some(slot) = self.0.get_mut(&w.id()) {
            slot.inputs.push(x.clone());
        }
    }

    pub(super) fn pop(&mut self, w: &Tensor) -> Result<Tensor> {
        let input = self.0.get_mut(&w.id()).and_then(|slot| slot.inputs.pop());
        input.ok_or_else(|| {
            let why = "a weight gradient was asked for without a forward pass before it";
            Error::argument("vjp", why)
        })
    }

    /// Takes the gradient of a parameter, summed over the backward passes since it was last taken; `None` when
    /// there was none.
    pub fn take(&mut self, w: &Tensor) -> Option<Tensor> {
        self.0.get_mut(&w.id())?.sum.take()
    }

    /// Sets the gradient of a trained parameter.
    pub fn set(&mut self, w: &Tensor, gradient: Tensor) {
        if let Some(slot) = self.0.get_mut(&w.id()) {
            slot.sum = Some(gradient);
        }
    }
}
