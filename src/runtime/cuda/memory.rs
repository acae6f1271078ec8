//! A GPU's memory: one slab for what comes and goes, and allocations of their own for what stays.

use std::sync::{Arc, Mutex, MutexGuard};

use super::context::{Allocation, Context};
use crate::error::{Error, Result};
use crate::runtime::arena::Arena;

/// Bytes of a GPU.
#[derive(Debug)]
pub struct DeviceMemory {
    address: u64,
    len: usize,
    owner: Owner,
}

#[derive(Debug)]
enum Owner {
    Own(#[allow(dead_code)] Allocation),
    Slab {
        slab: Arc<Allocation>,
        offset: usize,
    },
}

impl DeviceMemory {
    pub(in crate::runtime) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Memory outside the slab.
    pub(super) fn own(context: &Arc<Context>, bytes: usize) -> Result<Self> {
        let allocation = Allocation::new(context, bytes)?;
        Ok(DeviceMemory {
            address: allocation.address,
            len: bytes,
            owner: Owner::Own(allocation),
        })
    }
}

/// The slab, while there is one.
#[derive(Debug, Default)]
pub(super) struct Slab(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    reserved: Option<(Arc<Allocation>, Arena)>,
    last_peak: usize,
}

impl Slab {
    /// Memory in the slab; of its own when none is reserved.
    pub(super) fn alloc(&self, context: &Arc<Context>, bytes: usize) -> Result<DeviceMemory> {
        let mut state = self.lock();
        let Some((slab, arena)) = &mut state.reserved else {
            return DeviceMemory::own(context, bytes);
        };
        let offset = arena.take(bytes).ok_or_else(|| arena.exhausted(bytes))?;
        Ok(DeviceMemory {
            address: slab.address + offset as u64,
            len: bytes,
            owner: Owner::Slab {
                slab: Arc::clone(slab),
                offset,
            },
        })
    }

    /// Takes memory back; gives it back when it is not the slab's.
    pub(super) fn release(&self, memory: DeviceMemory) -> Option<DeviceMemory> {
        let Owner::Slab { slab, offset } = &memory.owner else {
            return Some(memory);
        };
        if let Some((now, arena)) = &mut self.lock().reserved
            && Arc::ptr_eq(now, slab)
        {
            arena.free(*offset, memory.len);
        }
        None
    }

    pub(super) fn reserve(&self, context: &Arc<Context>, bytes: usize) -> Result<()> {
        let mut state = self.lock();
        if state.reserved.is_some() {
            return Err(Error::Plan {
                why: "a run is at work on this device; let it end, or open a device for each run"
                    .into(),
            });
        }
        let slab = Arc::new(Allocation::new(context, bytes)?);
        state.reserved = Some((slab, Arena::new(bytes)));
        Ok(())
    }

    pub(super) fn unreserve(&self) {
        let mut state = self.lock();
        if let Some((_, arena)) = state.reserved.take() {
            state.last_peak = arena.peak();
        }
    }

    pub(super) fn peak(&self) -> usize {
        let state = self.lock();
        let reserved = state.reserved.as_ref();
        reserved.map_or(state.last_peak, |(_, arena)| arena.peak())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no change of the slab panics")
    }
}
