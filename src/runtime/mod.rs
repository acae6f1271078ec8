//! Runtimes: where tensors live and where kernels run.
//!
//! The whole contract is [`Runtime::alloc`], [`Runtime::copy_in`], [`Runtime::copy_out`] and
//! [`Runtime::launch`]. Nothing above this folder may assume that a tensor's bytes are in host memory.
//!
//! To add one: one file here, and the arms that the compiler then asks for.

pub mod arena;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod dry;
#[cfg(feature = "emu")]
pub mod emu;
pub mod gemm;
pub mod kernel;
pub mod mapped;
pub mod memory;
pub mod native;
pub mod operand;
pub mod outer;
pub mod product;
#[cfg(any(feature = "cuda", feature = "emu"))]
pub mod record;
pub(crate) mod scratch;
pub mod simd;
mod tile;
pub(crate) mod unit;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::tensor::Tensor;
#[cfg(feature = "cuda")]
use cuda::{Cuda, DeviceMemory};
use dry::Dry;
#[cfg(feature = "emu")]
use emu::{Emu, EmuMemory};
use kernel::{Plan, Target};
use mapped::Mapped;
use memory::SystemMemory;
use native::{HostMemory, Native, NativeArgs, Products};

/// A runtime. A closed set, so an enum. Clones share the runtime.
#[derive(Clone, Debug)]
pub enum Runtime {
    /// This machine's processors.
    Native(Arc<Native>),
    /// Computes nothing; counts bytes, launches and FLOPs.
    Dry(Arc<Dry>),
    /// An NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(Arc<Cuda>),
    /// The `.cu` kernels on this machine's processors, in tests.
    #[cfg(feature = "emu")]
    Emu(Arc<Emu>),
}

/// One argument of a launch: outputs first, then inputs, as in the kernel's own parameter list.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    /// Read.
    In(&'a Tensor),
    /// Written, every element of it. Nobody else may hold the tensor.
    Out(&'a Tensor),
    /// Read and written in place. Whoever else holds the tensor sees the new values: parameters, and the
    /// state of an optimiser.
    Update(&'a Tensor),
    /// An optional input (a bias, a residual) that this case does without.
    Absent,
}

impl<'a> From<Option<&'a Tensor>> for Arg<'a> {
    fn from(t: Option<&'a Tensor>) -> Self {
        t.map_or(Arg::Absent, Arg::In)
    }
}

/// What a launch costs, for plans and benches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations; a multiplication and an addition are two.
    pub flops: u64,
    /// Bytes that must be read and written at least once.
    pub bytes: u64,
}

/// Bytes of a runtime. Clones share them; the last one gives them back.
#[derive(Clone, Debug)]
pub struct Buffer(Arc<Block>);

#[derive(Debug)]
struct Block {
    bytes: usize,
    memory: Memory,
    runtime: Runtime,
}

#[derive(Debug)]
enum Memory {
    /// In this process's address space.
    Host(HostMemory),
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Cuda(DeviceMemory),
    /// Between guard pages.
    #[cfg(feature = "emu")]
    Emu(EmuMemory),
    /// A simulated arena block at this offset.
    Simulated(usize),
    /// Simulated, outside the arena (weights).
    Permanent,
}

#[cfg(any(feature = "cuda", feature = "emu"))]
impl Memory {
    /// Where kernels find the first byte; 0 where no kernel does.
    fn address(&self) -> u64 {
        match self {
            Memory::Host(_) | Memory::Simulated(_) | Memory::Permanent => 0,
            #[cfg(feature = "cuda")]
            Memory::Cuda(memory) => memory.address(),
            #[cfg(feature = "emu")]
            Memory::Emu(memory) => memory.address(),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let memory = std::mem::replace(&mut self.memory, Memory::Permanent);
        match (&self.runtime, memory) {
            (Runtime::Native(native), Memory::Host(memory)) => native.release(&memory),
            (Runtime::Dry(dry), Memory::Simulated(offset)) => dry.release(offset, self.bytes),
            #[cfg(feature = "cuda")]
            (Runtime::Cuda(cuda), Memory::Cuda(memory)) => cuda.release(memory),
            #[cfg(feature = "emu")]
            (Runtime::Emu(emu), Memory::Emu(memory)) => emu.release(memory),
            _ => {}
        }
    }
}

impl Buffer {
    /// How many bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Whether this is the only handle, so that writing cannot be seen by anyone else.
    fn is_unique(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Whether the bytes are a file's, which cannot be written.
    fn is_mapped(&self) -> bool {
        matches!(&self.0.memory, Memory::Host(memory) if memory.is_mapped())
    }

    /// What tells it from every other buffer alive.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// The runtime that holds the bytes.
    pub fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    #[cfg(any(feature = "cuda", feature = "emu"))]
    fn address(&self) -> u64 {
        self.0.memory.address()
    }
}

impl Runtime {
    /// The native runtime: this machine's processors, f32 (and f64 for gradient checks).
    pub fn native() -> Self {
        Runtime::Native(Arc::new(Native::default()))
    }

    /// The same with products of this kind (those of bf16 want [`has_bf16`](product::has_bf16)), and with large weights in
    /// files of the folder `offload`, if there is one, instead of memory.
    pub fn native_with(products: Products, offload: Option<PathBuf>) -> Self {
        Runtime::Native(Arc::new(Native::new(products, offload)))
    }

    /// The folder that large weights lie in, if they are not in memory.
    pub fn offload(&self) -> Option<&Path> {
        match self {
            Runtime::Native(native) => native.offload(),
            _ => None,
        }
    }

    /// What products of f32 operands keep of them.
    pub fn products(&self) -> Products {
        match self {
            Runtime::Native(native) => native.products(),
            Runtime::Dry(dry) => dry.products(),
            #[cfg(any(feature = "cuda", feature = "emu"))]
            _ => Products::F32,
        }
    }

    /// A runtime that computes nothing and counts everything.
    pub fn dry() -> Self {
        Runtime::Dry(Arc::new(Dry::default()))
    }

    /// The same for the kernels of `target`, in f32 products.
    pub fn dry_for(target: Target) -> Self {
        Runtime::Dry(Arc::new(Dry::planning_for(target, Products::F32)))
    }

    /// One that computes nothing and counts what this one would take.
    pub fn planned(&self) -> Self {
        Runtime::Dry(Arc::new(Dry::planning_for(self.target(), self.products())))
    }

    /// GPU number `ordinal`.
    ///
    /// # Errors
    /// [`Error::Device`] when it cannot be used, with what to do.
    #[cfg(feature = "cuda")]
    pub fn cuda(ordinal: usize) -> Result<Self> {
        Ok(Runtime::Cuda(Arc::new(Cuda::open(ordinal)?)))
    }

    /// The emulated runtime: the engine's `.cu` kernels under this schedule.
    #[cfg(feature = "emu")]
    pub fn emu(schedule: emu::Schedule) -> Self {
        Runtime::Emu(Arc::new(Emu::new(schedule)))
    }

    /// The name used in messages and reports.
    pub fn name(&self) -> &'static str {
        match self {
            Runtime::Native(_) => "native",
            Runtime::Dry(_) => "dry",
            #[cfg(feature = "cuda")]
            Runtime::Cuda(_) => "cuda",
            #[cfg(feature = "emu")]
            Runtime::Emu(_) => "emu",
        }
    }

    /// Whether a launch of the one may be given tensors of the other.
    pub fn shares_memory(&self, other: &Runtime) -> bool {
        match (self, other) {
            #[cfg(feature = "cuda")]
            (Runtime::Cuda(one), Runtime::Cuda(other)) => Arc::ptr_eq(one, other),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// Whether tensors hold values: those of a dry run do not.
    pub fn computes(&self) -> bool {
        !matches!(self, Runtime::Dry(_))
    }

    /// The kernels it runs, or plans for.
    pub fn target(&self) -> Target {
        match self {
            Runtime::Native(_) => Target::Native,
            Runtime::Dry(dry) => dry.target(),
            #[cfg(feature = "cuda")]
            Runtime::Cuda(cuda) => Target::Kernels(cuda.gpu().arch),
            #[cfg(feature = "emu")]
            Runtime::Emu(_) => Target::Kernels(kernel::Arch(90)),
        }
    }

    /// Transient bytes, from the arena when one was reserved. Their content is unspecified.
    ///
    /// # Errors
    /// [`Error::Plan`] when the reserved slab has no room left.
    pub fn alloc(&self, bytes: usize) -> Result<Buffer> {
        let memory = match self {
            Runtime::Native(native) => Memory::Host(native.alloc(bytes)?),
            Runtime::Dry(dry) => Memory::Simulated(dry.alloc(bytes)?),
            #[cfg(feature = "cuda")]
            Runtime::Cuda(cuda) => Memory::Cuda(cuda.alloc(bytes)?),
            #[cfg(feature = "emu")]
            Runtime::Emu(_) => Memory::Emu(EmuMemory::new(bytes)?),
        };
        Ok(self.buffer(bytes, memory))
    }

    /// Bytes that outlive every step (weights, tables), outside the arena.
    ///
    /// # Errors
    /// [`Error::Plan`] when the memory is not to be had.
    pub fn alloc_permanent(&self, bytes: usize) -> Result<Buffer> {
        let memory = match self {
            Runtime::Native(native) => Memory::Host(native.alloc_permanent(bytes)?),
            #[cfg(feature = "cuda")]
            Runtime::Cuda(cuda) => Memory::Cuda(cuda.alloc_permanent(bytes)?),
            #[cfg(feature = "emu")]
            Runtime::Emu(_) => Memory::Emu(EmuMemory::new(bytes)?),
            Runtime::Dry(dry) => {
                dry.permanent(bytes);
                Memory::Permanent
            }
        };
        Ok(self.buffer(bytes, memory))
    }

    /// Bytes that are never written again and outlive every step: frozen weights.
    ///
    /// # Errors
    /// [`Error::Plan`] when the memory is not to be had, [`Error::File`] when they cannot be offloaded.
    pub fn keep(&self, bytes: &[u8]) -> Result<Buffer> {
        if let Runtime::Native(native) = self {
            let memory = Memory::Host(native.keep(bytes)?);
            return Ok(self.buffer(bytes.len(), memory));
        }
        let buffer = self.alloc_permanent(bytes.len())?;
        self.copy_in(&buffer, bytes)?;
        Ok(buffer)
    }

    /// The bytes `range` of a mapped file as a permanent buffer: without a copy on the native runtime
    /// when their alignment allows it, `None` when a copy is needed.
    pub fn adopt(&self, file: &Arc<Mapped>, range: Range<usize>, align: usize) -> Option<Buffer> {
        match self {
            Runtime::Native(native) => {
                let bytes = range.len();
                let memory = native.adopt(Arc::clone(file), range, align)?;
                Some(self.buffer(bytes, Memory::Host(memory)))
            }
            _ => None,
        }
    }

    /// Copies host bytes into the start of a buffer nobody else holds.
    ///
    /// # Errors
    /// [`Error::Shape`] when the lengths differ, [`Error::Plan`] when a launch is at work on it.
    pub fn copy_in(&self, to: &Buffer, from: &[u8]) -> Result<()> {
        if to.bytes() != from.len() || !to.is_unique() {
            return Err(Error::shape("copy to the device", to.bytes(), from.len()));
        }
        match (self, &to.0.memory) {
            (_, Memory::Host(memory)) => native::write(memory, from)?,
            #[cfg(feature = "cuda")]
            (Runtime::Cuda(cuda), Memory::Cuda(memory)) => cuda.copy_in(memory, from)?,
            #[cfg(feature = "emu")]
            (Runtime::Emu(emu), Memory::Emu(memory)) => emu.copy_in(memory, from)?,
            _ => {}
        }
        Ok(())
    }

    /// Copies `to.len()` bytes, starting at byte `offset` of a buffer, to the host. On the dry runtime,
    /// which has no values, zeros.
    ///
    /// # Errors
    /// [`Error::Plan`] while a step is recorded, or a launch is at work on it; [`Error::Device`] when a launch before it
    /// has failed.
    pub fn copy_out(&self, from: &Buffer, offset: usize, to: &mut [u8]) -> Result<()> {
        match (self, &from.0.memory) {
            (_, Memory::Host(memory)) => native::read(memory, offset, to)?,
            #[cfg(feature = "cuda")]
            (Runtime::Cuda(cuda), Memory::Cuda(memory)) => cuda.copy_out(memory, offset, to)?,
            #[cfg(feature = "emu")]
            (Runtime::Emu(emu), Memory::Emu(memory)) => emu.copy_out(memory, offset, to)?,
            _ => to.fill(0),
        }
        Ok(())
    }

    /// Runs one native kernel; on the dry runtime only the cost is noted.
    ///
    /// # Errors
    /// [`Error::Plan`] when an output is held by somebody else, or another launch is at work on an argument;
    /// [`Error::Device`] on a runtime of `.cu` kernels.
    pub fn launch(
        &self,
        op: &'static str,
        cost: Cost,
        args: &[Arg<'_>],
        kernel: impl FnOnce(&mut NativeArgs<'_>),
    ) -> Result<()> {
        check_writes(op, args)?;
        match self {
            Runtime::Native(native) => native.launch(op, args, kernel)?,
            Runtime::Dry(dry) => dry.launch(op, cost, 1),
            #[cfg(feature = "cuda")]
            Runtime::Cuda(_) => return Err(wrong_kind(self, op)),
            #[cfg(feature = "emu")]
            Runtime::Emu(_) => return Err(wrong_kind(self, op)),
        }
        Ok(())
    }

    /// Runs the `.cu` kernels of one op; on the dry runtime their number and cost are noted.
    ///
    /// # Errors
    /// [`Error::Plan`] when an output is held by somebody else or there is no room for the scratch memory,
    /// [`Error::Shape`] when a size is beyond what kernels count to, [`Error::Device`] when a kernel fails.
    pub fn launch_kernels(
        &self,
        op: &'static str,
        cost: Cost,
        args: &[Arg<'_>],
        plan: &Plan,
    ) -> Result<()> {
        check_writes(op, args)?;
        plan.check(op)?;
        let _scratch = (plan.scratch > 0)
            .then(|| self.alloc(plan.scratch))
            .transpose()?;
        match self {
            Runtime::Native(_) => Err(wrong_kind(self, op)),
            Runtime::Dry(dry) => {
                dry.launch(op, cost, plan.launches.len() as u64);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Runtime::Cuda(cuda) => cuda.launch(args, plan, _scratch.as_ref()),
            #[cfg(feature = "emu")]
            Runtime::Emu(emu) => emu.launch(args, plan, _scratch.as_ref()),
        }
    }

    /// Does `body`, which enqueues one step: on a GPU as one graph, where its launches and uploads are the same
    /// as in a step before, else one by one. Their order and results are those of `body` itself; values can be
    /// read only afterwards. When `body` fails, none of its launches has happened.
    ///
    /// # Errors
    /// What `body` returns; [`Error::Plan`] when it reads values; [`Error::Device`] when a launch fails.
    pub fn record<R>(&self, body: impl FnOnce() -> Result<R>) -> Result<R> {
        match self {
            Runtime::Native(_) | Runtime::Dry(_) => body(),
            #[cfg(feature = "cuda")]
            Runtime::Cuda(cuda) => cuda.record(body),
            #[cfg(feature = "emu")]
            Runtime::Emu(emu) => emu.record(body),
        }
    }

    /// How long `body` takes: on a GPU, the work that it enqueues.
    ///
    /// # Errors
    /// What `body` returns; [`Error::Device`] when its work fails.
    pub fn time(&self, body: impl FnOnce() -> Result<()>) -> Result<Duration> {
        #[cfg(feature = "cuda")]
        if let Runtime::Cuda(cuda) = self {
            return cuda.time(body);
        }
        let start = Instant::now();
        body()?;
        Ok(start.elapsed())
    }

    /// Empties a GPU's cache, so that what is timed next reads from memory. Elsewhere nothing happens.
    ///
    /// # Errors
    /// [`Error::Plan`] when there is no room for a buffer as large as the cache.
    pub fn flush_cache(&self) -> Result<()> {
        match self {
            #[cfg(feature = "cuda")]
            Runtime::Cuda(cuda) => cuda.flush_cache(),
            _ => Ok(()),
        }
    }

    /// Bytes of memory that can be had now, where that is known.
    ///
    /// # Errors
    /// [`Error::Device`] when a driver does not say.
    pub fn free_memory(&self) -> Result<Option<usize>> {
        match self {
            Runtime::Native(_) => Ok(SystemMemory::now().map(|memory| memory.free)),
            #[cfg(feature = "cuda")]
            Runtime::Cuda(cuda) => cuda.free_memory().map(Some),
            _ => Ok(None),
        }
    }

    /// Reserves one slab that all transient tensors come from until [`Runtime::unreserve`].
    ///
    /// # Errors
    /// [`Error::Plan`] when there is a slab already, or the memory is not to be had.
    pub fn reserve(&self, bytes: usize) -> Result<()> {
        match self {
            Runtime::Native(native) => native.reserve(bytes),
            #[cfg(feature = "cuda")]
            Runtime::Cuda(cuda) => cuda.reserve(bytes),
            _ => Ok(()),
        }
    }

    /// Does `body` with a slab reserved.
    ///
    /// # Errors
    /// As [`Runtime::reserve`]; what `body` returns.
    pub fn with_slab<R>(&self, bytes: usize, body: impl FnOnce() -> Result<R>) -> Result<R> {
        struct Reserved<'a>(&'a Runtime);
        impl Drop for Reserved<'_> {
            fn drop(&mut self) {
                self.0.unreserve();
            }
        }
        self.reserve(bytes)?;
        let _reserved = Reserved(self);
        body()
    }

    /// Gives the slab back once the last tensor in it is gone.
    pub fn unreserve(&self) {
        match self {
            Runtime::Native(native) => native.unreserve(),
            #[cfg(feature = "cuda")]
            Runtime::Cuda(cuda) => cuda.unreserve(),
            _ => {}
        }
    }

    /// The arena's high-water mark in bytes: what the slab must hold.
    pub fn peak(&self) -> usize {
        match self {
            Runtime::Native(native) => native.peak(),
            Runtime::Dry(dry) => dry.peak(),
            #[cfg(feature = "cuda")]
            Runtime::Cuda(cuda) => cuda.peak(),
            #[cfg(feature = "emu")]
            Runtime::Emu(_) => 0,
        }
    }

    /// Bytes of weights and tables, on the processors and the dry runtime.
    pub fn permanent(&self) -> Option<u64> {
        match self {
            Runtime::Native(native) => Some(native.permanent()),
            Runtime::Dry(dry) => Some(dry.totals().permanent),
            #[cfg(any(feature = "cuda", feature = "emu"))]
            _ => None,
        }
    }

    fn buffer(&self, bytes: usize, memory: Memory) -> Buffer {
        Buffer(Arc::new(Block {
            bytes,
            memory,
            runtime: self.clone(),
        }))
    }
}

fn check_writes(op: &'static str, args: &[Arg<'_>]) -> Result<()> {
    let buffer = |arg: &Arg<'_>| match arg {
        Arg::In(t) | Arg::Out(t) | Arg::Update(t) => Some(t.buffer().id()),
        Arg::Absent => None,
    };
    for (i, arg) in args.iter().enumerate() {
        let again = || {
            args[..i]
                .iter()
                .chain(&args[i + 1..])
                .any(|a| buffer(a) == buffer(arg))
        };
        let why = match arg {
            Arg::Out(t) if !t.buffer().is_unique() => "an output that another tensor still shares",
            Arg::Out(_) if again() => "the same tensor to write and as another argument",
            Arg::Update(t) if t.buffer().is_mapped() => "a mapped file to update in place",
            Arg::Update(_) if again() => "the same tensor to update and as another argument",
            _ => continue,
        };
        let why = format!("{op} was given {why}");
        return Err(Error::Plan { why });
    }
    Ok(())
}

fn wrong_kind(rt: &Runtime, op: &str) -> Error {
    Error::Device {
        device: rt.name().into(),
        why: format!("{op}: this runtime does not run kernels of that kind"),
    }
}
