//! The CUDA runtime: one GPU, one stream, the engine's own kernels.
//!
//! - [`probe`]: is there a GPU that can be used, and if not, why not;
//! - [`modules`], [`nvrtc`], `cache`: from a kernel's name to its code;
//! - `context`, `memory`, `graph`: the driver as it is used here.
//!
//! It has been run on GPUs' driver interface as `tests/fake_driver` mimics it on the emulator. That tests this
//! code; it says nothing of speed, nor of a GPU's own behaviour.

mod cache;
mod context;
mod graph;
mod memory;
pub mod modules;
pub mod nvrtc;
pub mod probe;
pub mod report;
mod tensor_map;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cudarc::driver::{result, sys};

use super::kernel::Plan;
use super::record::{Call, Device, Recorder, Recording, refuse_read};
use super::{Arg, Buffer};
use crate::error::Result;
use crate::tensor::Tensor;
use context::{Context, Event, Pinned};
use graph::Graphs;
pub use memory::DeviceMemory;
use memory::Slab;
use modules::{Function, Loaded, Origin};
use probe::Gpu;

/// A GPU.
#[derive(Debug)]
pub struct Cuda {
    recorder: Recorder<Function, DeviceMemory>,
    graphs: Mutex<Graphs>,
    slab: Slab,
    eviction: Mutex<Option<DeviceMemory>>,
    /// What copies to the host have gone through, for the next.
    spare: Mutex<Vec<Pinned>>,
    loaded: Loaded,
    context: Arc<Context>,
}

/// Bytes on their way to the host.
#[derive(Debug)]
pub(crate) struct Copied {
    to: Pinned,
    len: usize,
    /// Behind the copies.
    done: Event,
    cuda: Arc<Cuda>,
}

impl Copied {
    fn begin(&self, at: usize, from: u64, len: usize) -> Result<()> {
        let (to, context) = (self.to.at(at).cast_mut(), &self.cuda.context);
        // SAFETY: `len` bytes at both ends, of pinned memory that is held until `done`, and of a tensor that nothing
        // overwrites before this in the stream.
        let begun = unsafe { sys::cuMemcpyDtoHAsync_v2(to, from, len, context.stream()?).result() };
        context.done("copying from it", begun)
    }

    /// Waits for them.
    pub(crate) fn wait(self) -> Result<Vec<u8>> {
        self.done.wait()?;
        let bytes = self.to.read(self.len);
        let spare = &self.cuda.spare;
        spare
            .lock()
            .expect("nothing panics under this lock")
            .push(self.to);
        Ok(bytes)
    }
}

impl Cuda {
    /// GPU number `ordinal`.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when it cannot be used, with what to do.
    pub fn open(ordinal: usize) -> Result<Self> {
        let context = Context::open(Gpu::find(ordinal)?)?;
        Ok(Cuda {
            recorder: Recorder::default(),
            graphs: Mutex::default(),
            slab: Slab::default(),
            eviction: Mutex::default(),
            spare: Mutex::default(),
            loaded: Loaded::new(&context),
            context,
        })
    }

    /// What it is.
    pub fn gpu(&self) -> &Gpu {
        &self.context.gpu
    }

    /// Loads a file of kernels, as the first launch of one of them does, and tells where its code came from.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when there is no code for this GPU and none can be made.
    pub fn load(&self, module: &str) -> Result<Origin> {
        self.loaded.load(module)
    }

    /// Bytes of memory that can be had now.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when the driver does not say.
    pub fn free_memory(&self) -> Result<usize> {
        self.context.free_memory()
    }

    pub(super) fn alloc(&self, bytes: usize) -> Result<DeviceMemory> {
        self.slab.alloc(&self.context, bytes)
    }

    pub(super) fn alloc_permanent(&self, bytes: usize) -> Result<DeviceMemory> {
        DeviceMemory::own(&self.context, bytes)
    }

    pub(super) fn release(&self, memory: DeviceMemory) {
        // What is not the slab's is freed, but not while a recorded launch is still to work on it.
        let own = self.slab.release(memory);
        drop(own.and_then(|own| self.recorder.keep(own)));
    }

    pub(super) fn reserve(&self, bytes: usize) -> Result<()> {
        self.slab.reserve(&self.context, bytes)
    }

    pub(super) fn unreserve(&self) {
        self.slab.unreserve();
    }

    pub(super) fn peak(&self) -> usize {
        self.slab.peak()
    }

    pub(super) fn copy_in(&self, to: &DeviceMemory, from: &[u8]) -> Result<()> {
        assert!(from.len() <= to.len());
        if self.recorder.upload(to.address(), from)? {
            return Ok(());
        }
        graph::upload(&self.context, to.address(), from.as_ptr(), from.len())?;
        // Memory that is not pinned may be read later than the call returns.
        self.context.synchronize()
    }

    pub(super) fn copy_out(&self, from: &DeviceMemory, offset: usize, to: &mut [u8]) -> Result<()> {
        assert!(offset + to.len() <= from.len());
        if self.recorder.is_recording() {
            return Err(refuse_read());
        }
        let (address, stream) = (from.address() + offset as u64, self.context.stream()?);
        // SAFETY: in bounds at both ends (asserted); `to` is borrowed until the copy is done.
        let copied = unsafe { result::memcpy_dtoh_async(to, address, stream) };
        self.context.done("copying from it", copied)?;
        self.context.synchronize()
    }

    /// Enqueues copies of tensors' bytes, one after the other.
    pub(crate) fn begin_copy_out(self: &Arc<Self>, tensors: &[&Tensor]) -> Result<Copied> {
        if self.recorder.is_recording() {
            return Err(refuse_read());
        }
        let len = tensors.iter().map(|t| t.byte_range().len()).sum();
        let copied = Copied {
            to: self.pinned(len)?,
            len,
            done: Event::new(&self.context, false)?,
            cuda: Arc::clone(self),
        };
        let mut at = 0;
        for t in tensors {
            let from = t.buffer().address() + t.byte_range().start as u64;
            let len = t.byte_range().len();
            copied.begin(at, from, len)?;
            at += len;
        }
        copied.done.record()?;
        Ok(copied)
    }

    /// Pinned memory that a copy before has left, if it is enough.
    fn pinned(&self, len: usize) -> Result<Pinned> {
        let mut spare = self.spare.lock().expect("nothing panics under this lock");
        match spare.iter().position(|pinned| pinned.len() >= len) {
            Some(i) => Ok(spare.swap_remove(i)),
            None => Pinned::new(&self.context, len),
        }
    }

    pub(super) fn launch(
        &self,
        args: &[Arg<'_>],
        plan: &Plan,
        scratch: Option<&Buffer>,
    ) -> Result<()> {
        let device = Device {
            multiprocessors: self.gpu().processors.max(1) as u32,
            encode: &|map, address| tensor_map::encode(&self.context, map, address),
        };
        for launch in &plan.launches {
            let (function, arg_sizes) = self.loaded.function(launch.entry, launch.shared)?;
            let call = Call::new(function, launch, args, scratch, &device)?;
            call.expect_sizes(&arg_sizes, "cuda")?;
            if let Some(mut call) = self.recorder.launch(call)? {
                graph::issue(&self.context, &mut call)?;
                if !wants_graphs() {
                    let kernel = format!("kernel `{}`", launch.entry);
                    self.context.wait_for(&kernel)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn record<R>(&self, body: impl FnOnce() -> Result<R>) -> Result<R> {
        if !wants_graphs() {
            return body();
        }
        let run = |recording: &mut Recording<Function, DeviceMemory>| {
            let Recording {
                commands, bytes, ..
            } = recording;
            self.graphs.lock().expect("no run of a graph panics").run(
                &self.context,
                commands,
                bytes,
            )
        };
        self.recorder.around(body, run)
    }

    pub(super) fn time(&self, body: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let (start, end) = (
            Event::new(&self.context, true)?,
            Event::new(&self.context, true)?,
        );
        start.record()?;
        body()?;
        end.record()?;
        end.wait()?;
        let seconds = end.milliseconds_since(&start)? / 1e3;
        Ok(Duration::from_secs_f32(seconds.max(0.0)))
    }

    pub(super) fn flush_cache(&self) -> Result<()> {
        let bytes = 2 * self.gpu().cache;
        let mut eviction = self
            .eviction
            .lock()
            .expect("nothing panics under this lock");
        let memory = match eviction.take() {
            Some(memory) => memory,
            None => self.alloc_permanent(bytes)?,
        };
        let address = eviction.insert(memory).address();
        // SAFETY: as many bytes as were allocated.
        let set = unsafe { result::memset_d8_async(address, 0, bytes, self.context.stream()?) };
        self.context.done("flushing its cache", set)
    }
}

/// Whether POSTERIORI_GRAPHS leaves steps to be graphs; with `off` each launch is waited for, to find which one fails.
fn wants_graphs() -> bool {
    std::env::var_os("POSTERIORI_GRAPHS").is_none_or(|value| value != "off")
}
