//! The runtime that computes nothing: it runs a model to learn its memory, launches and FLOPs.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::Cost;
use super::arena::Arena;
use super::kernel::Target;
use super::native::Products;
use crate::error::{Error, Result};

/// Counters of a run that computes nothing.
#[derive(Debug)]
pub struct Dry {
    target: Target,
    products: Products,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    arena: Arena,
    permanent: u64,
    ops: BTreeMap<&'static str, OpTotal>,
}

/// What one op added up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpTotal {
    /// Kernel launches.
    pub launches: u64,
    /// Their summed cost.
    pub cost: Cost,
    /// The most transient bytes that were alive at one of them.
    pub live: usize,
}

/// A snapshot of the counters.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Slab bytes that the transient tensors need.
    pub slab: usize,
    /// The most transient bytes alive at once.
    pub peak_live: usize,
    /// Bytes of weights and tables.
    pub permanent: u64,
    /// By op name.
    pub ops: BTreeMap<&'static str, OpTotal>,
}

impl Default for Dry {
    fn default() -> Self {
        Dry::planning_for(Target::Native, Products::F32)
    }
}

impl Dry {
    /// Plans for a runtime of this kind, with products of this kind.
    pub fn planning_for(target: Target, products: Products) -> Self {
        let state = State {
            arena: Arena::new(usize::MAX),
            permanent: 0,
            ops: BTreeMap::new(),
        };
        Dry {
            target,
            products,
            state: Mutex::new(state),
        }
    }

    pub(super) fn target(&self) -> Target {
        self.target
    }

    pub(super) fn products(&self) -> Products {
        self.products
    }

    pub(super) fn alloc(&self, bytes: usize) -> Result<usize> {
        let too_many = || Error::Plan {
            why: format!(
                "{bytes} bytes are more than can be counted; use a smaller batch or image"
            ),
        };
        self.lock().arena.take(bytes).ok_or_else(too_many)
    }

    pub(super) fn release(&self, offset: usize, bytes: usize) {
        self.lock().arena.free(offset, bytes);
    }

    pub(super) fn permanent(&self, bytes: usize) {
        self.lock().permanent += bytes as u64;
    }

    pub(super) fn launch(&self, op: &'static str, cost: Cost, launches: u64) {
        let mut state = self.lock();
        let live = state.arena.live();
        let total = state.ops.entry(op).or_default();
        total.live = total.live.max(live);
        total.launches += launches;
        total.cost.flops += cost.flops;
        total.cost.bytes += cost.bytes;
    }

    pub(super) fn peak(&self) -> usize {
        self.lock().arena.peak()
    }

    /// The counters as they stand.
    pub fn totals(&self) -> Totals {
        let state = self.lock();
        Totals {
            slab: state.arena.peak(),
            peak_live: state.arena.peak_live(),
            permanent: state.permanent,
            ops: state.ops.clone(),
        }
    }

    /// Forgets the launches counted so far; memory counters go on.
    pub fn reset_launches(&self) {
        self.lock().ops.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no counter update panics")
    }
}
