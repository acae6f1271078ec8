//! The native runtime: host memory, and kernels that are Rust functions over slices.
//!
//! `unsafe` here turns buffers into slices. What it relies on: a buffer's bytes never move while a
//! handle lives, and who looks at them has borrowed them (`Borrows`): many to read, or one to write.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::arena::{ALIGN, Arena};
use super::mapped::Mapped;
use super::operand::Operand;
use super::{Arg, Memory};
use crate::dtype::{DType, Element, Real};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// This machine's processors and memory.
#[derive(Debug, Default)]
pub struct Native {
    state: Mutex<State>,
    products: Products,
    /// Where large weights lie in files; else they lie in memory, or where the checkpoint is mapped.
    offload: Option<PathBuf>,
}

/// Weights of fewer bytes stay in memory.
const WORTH_A_FILE: usize = 64 << 10;

/// What products of convolutions, linear maps and, by matrix units, attention keep of their f32 operands; sums are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// Everything.
    #[default]
    F32,
    /// What rounding to bf16 leaves.
    Bf16,
}

#[derive(Debug, Default)]
struct State {
    slab: Option<(Arc<Heap>, Arena)>,
    last_peak: usize,
    /// Bytes of weights and tables, on the heap and in mapped files.
    permanent: usize,
}

/// Where a native buffer's bytes are.
#[derive(Debug)]
pub struct HostMemory {
    start: NonNull<u8>,
    len: usize,
    owner: Owner,
    borrows: Borrows,
}

/// Who looks at a buffer: so many launches and copies that read it, or -1, one that writes it.
#[derive(Debug, Default)]
struct Borrows(AtomicIsize);

/// A buffer that is borrowed, until this is dropped.
struct Borrow<'a> {
    borrows: &'a Borrows,
    writes: bool,
}

impl Borrows {
    /// # Errors
    /// [`Error::Plan`] when another thread, or another argument, has borrowed it and one of both writes.
    fn borrow(&self, writes: bool) -> Result<Borrow<'_>> {
        let next = |now: isize| match writes {
            true => (now == 0).then_some(-1),
            false => (now >= 0).then_some(now + 1),
        };
        let taken = self
            .0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, next);
        let borrow = |_| Borrow {
            borrows: self,
            writes,
        };
        taken.map(borrow).map_err(|_| Error::Plan {
            why: "a tensor is read and written at once; let one launch or copy end before the other begins".into(),
        })
    }
}

impl Drop for Borrow<'_> {
    fn drop(&mut self) {
        let left = if self.writes { 1 } else { -1 };
        self.borrows.0.fetch_add(left, Ordering::Release);
    }
}

#[derive(Debug)]
enum Owner {
    Permanent(#[allow(dead_code)] Arc<Heap>),
    Transient(#[allow(dead_code)] Arc<Heap>),
    Slab { heap: Arc<Heap>, offset: usize },
    File(Arc<Mapped>),
}

// SAFETY: the pointer is into memory that `owner` keeps alive; who makes a slice of it has borrowed it.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

/// An aligned heap allocation.
#[derive(Debug)]
struct Heap {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory, freed once; see `HostMemory` for how it is accessed.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

impl Heap {
    /// # Errors
    /// [`Error::Plan`] when the memory is not to be had.
    fn new(bytes: usize) -> Result<Arc<Self>> {
        let heap = || {
            let layout = Layout::from_size_align(bytes.max(1), ALIGN).ok()?;
            // SAFETY: the layout's size is not zero.
            let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
            Some(Arc::new(Heap { start, layout }))
        };
        heap().ok_or_else(|| Error::Plan {
            why: format!(
                "{bytes} bytes of host memory are not to be had; use a smaller batch or image"
            ),
        })
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, freed only here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl HostMemory {
    fn new(start: NonNull<u8>, len: usize, owner: Owner) -> Self {
        HostMemory {
            start,
            len,
            owner,
            borrows: Borrows::default(),
        }
    }

    fn mapped(file: Arc<Mapped>, range: Range<usize>, align: usize) -> Option<Self> {
        let bytes = file.bytes().get(range)?;
        let start = NonNull::from(bytes).cast::<u8>();
        let len = bytes.len();
        let aligned = start.as_ptr().addr().is_multiple_of(align);
        aligned.then(|| HostMemory::new(start, len, Owner::File(file)))
    }

    pub(super) fn is_mapped(&self) -> bool {
        matches!(self.owner, Owner::File(_))
    }

    /// The file that the bytes lie in, and where.
    fn file(&self) -> Option<(&Mapped, Range<usize>)> {
        let Owner::File(file) = &self.owner else {
            return None;
        };
        let start = self.start.addr().get() - file.bytes().as_ptr().addr();
        Some((file, start..start + self.len))
    }
}

/// Copies bytes of a buffer, from byte `offset` on.
///
/// # Errors
/// [`Error::Plan`] when it is being written.
pub(super) fn read(memory: &HostMemory, offset: usize, to: &mut [u8]) -> Result<()> {
    let _borrow = memory.borrows.borrow(false)?;
    to.copy_from_slice(&bytes(memory)[offset..][..to.len()]);
    Ok(())
}

/// The bytes of a buffer, to read while they are borrowed.
fn bytes(memory: &HostMemory) -> &[u8] {
    // SAFETY: `owner` keeps `start..start+len` alive and initialised (zeroed at allocation), and nobody writes what is
    // borrowed to read.
    unsafe { std::slice::from_raw_parts(memory.start.as_ptr(), memory.len) }
}

/// Overwrites a buffer that the caller has checked to be unique.
///
/// # Errors
/// [`Error::Plan`] when a launch is at work on it.
pub(super) fn write(memory: &HostMemory, from: &[u8]) -> Result<()> {
    assert!(from.len() <= memory.len && !memory.is_mapped());
    let _borrow = memory.borrows.borrow(true)?;
    // SAFETY: in bounds (asserted), not a read-only mapping, and nobody else looks at it.
    unsafe {
        memory
            .start
            .as_ptr()
            .copy_from_nonoverlapping(from.as_ptr(), from.len())
    }
    Ok(())
}

impl Native {
    pub(super) fn new(products: Products, offload: Option<PathBuf>) -> Self {
        Native {
            state: Mutex::default(),
            products,
            offload,
        }
    }

    /// The folder that weights are offloaded to.
    pub(super) fn offload(&self) -> Option<&Path> {
        self.offload.as_deref()
    }

    pub(super) fn products(&self) -> Products {
        self.products
    }

    pub(super) fn alloc(&self, bytes: usize) -> Result<HostMemory> {
        let mut state = self.lock();
        let Some((heap, arena)) = &mut state.slab else {
            let heap = Heap::new(bytes)?;
            return Ok(HostMemory::new(heap.start, bytes, Owner::Transient(heap)));
        };
        let offset = arena.take(bytes).ok_or_else(|| arena.exhausted(bytes))?;
        // SAFETY: `take` returned a range inside the slab.
        let start = unsafe { heap.start.add(offset) };
        let heap = Arc::clone(heap);
        Ok(HostMemory::new(start, bytes, Owner::Slab { heap, offset }))
    }

    pub(super) fn alloc_permanent(&self, bytes: usize) -> Result<HostMemory> {
        let heap = Heap::new(bytes)?;
        self.lock().permanent += bytes;
        Ok(HostMemory::new(heap.start, bytes, Owner::Permanent(heap)))
    }

    /// Bytes that are never written again.
    pub(super) fn keep(&self, bytes: &[u8]) -> Result<HostMemory> {
        if let Some(folder) = &self.offload
            && bytes.len() >= WORTH_A_FILE
        {
            let file = Mapped::nameless(folder, bytes)?;
            let memory = self.adopt(file, 0..bytes.len(), 1);
            return Ok(memory.expect("the file is as long, and begins with a page"));
        }
        let memory = self.alloc_permanent(bytes.len())?;
        write(&memory, bytes)?;
        Ok(memory)
    }

    pub(super) fn adopt(
        &self,
        file: Arc<Mapped>,
        range: Range<usize>,
        align: usize,
    ) -> Option<HostMemory> {
        let memory = HostMemory::mapped(file, range, align)?;
        self.lock().permanent += memory.len;
        Some(memory)
    }

    pub(super) fn permanent(&self) -> u64 {
        self.lock().permanent as u64
    }

    pub(super) fn release(&self, memory: &HostMemory) {
        let mut state = self.lock();
        match &memory.owner {
            Owner::Transient(_) => {}
            Owner::Slab { heap, offset } => {
                if let Some((now, arena)) = &mut state.slab
                    && Arc::ptr_eq(now, heap)
                {
                    arena.free(*offset, memory.len);
                }
            }
            Owner::Permanent(_) | Owner::File(_) => state.permanent -= memory.len,
        }
    }

    pub(super) fn reserve(&self, bytes: usize) -> Result<()> {
        let mut state = self.lock();
        if state.slab.is_some() {
            return Err(Error::Plan {
                why: "a run is at work on this device; let it end, or open a device for each run"
                    .into(),
            });
        }
        state.slab = Some((Heap::new(bytes)?, Arena::new(bytes)));
        Ok(())
    }

    pub(super) fn unreserve(&self) {
        let mut state = self.lock();
        if let Some((_, arena)) = state.slab.take() {
            state.last_peak = arena.peak();
        }
    }

    pub(super) fn peak(&self) -> usize {
        let state = self.lock();
        state
            .slab
            .as_ref()
            .map_or(state.last_peak, |(_, arena)| arena.peak())
    }

    pub(super) fn launch(
        &self,
        op: &'static str,
        args: &[Arg<'_>],
        kernel: impl FnOnce(&mut NativeArgs<'_>),
    ) -> Result<()> {
        let borrows = args.iter().filter_map(borrow).collect::<Result<Vec<_>>>()?;
        if self.offload.is_some() {
            files(args).for_each(|(file, range)| file.fetch(range));
        }
        let slots = args.iter().map(Slot::of).collect();
        let products = self.products;
        kernel(&mut NativeArgs {
            op,
            slots,
            products,
        });
        drop(borrows);
        if self.offload.is_some() {
            files(args).for_each(|(file, range)| file.forget(range));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no allocator update panics")
    }
}

/// The arguments of a native kernel, in the order of the launch.
pub struct NativeArgs<'a> {
    op: &'static str,
    slots: Vec<Slot<'a>>,
    products: Products,
}

enum Slot<'a> {
    In(&'a [u8], DType),
    Out(&'a mut [u8]),
    Absent,
}

/// The memory of an argument, and whether a launch writes it.
fn memory<'a>(arg: &Arg<'a>) -> Option<(&'a Tensor, &'a HostMemory, bool)> {
    let (t, writes) = match *arg {
        Arg::In(t) => (t, false),
        Arg::Out(t) | Arg::Update(t) => (t, true),
        Arg::Absent => return None,
    };
    let Memory::Host(memory) = &t.buffer().0.memory else {
        unreachable!("Op::launch refuses tensors of another runtime");
    };
    Some((t, memory, writes))
}

/// What a launch reads from files.
fn files<'a>(args: &'a [Arg<'a>]) -> impl Iterator<Item = (&'a Mapped, Range<usize>)> {
    args.iter().filter_map(|arg| memory(arg)?.1.file())
}

fn borrow<'a>(arg: &Arg<'a>) -> Option<Result<Borrow<'a>>> {
    let (_, memory, writes) = memory(arg)?;
    Some(memory.borrows.borrow(writes))
}

impl<'a> Slot<'a> {
    /// Of an argument that is borrowed for as long as the slot is used.
    fn of(arg: &Arg<'a>) -> Self {
        let Some((t, memory, writes)) = memory(arg) else {
            return Slot::Absent;
        };
        let range = t.byte_range();
        if writes {
            assert!(range.end <= memory.len && !memory.is_mapped());
            // SAFETY: in bounds (asserted); borrowed to write, so that no other slice of these bytes exists meanwhile.
            let slice = unsafe {
                std::slice::from_raw_parts_mut(memory.start.add(range.start).as_ptr(), range.len())
            };
            Slot::Out(slice)
        } else {
            Slot::In(&bytes(memory)[range], t.dtype())
        }
    }
}

impl<'a> NativeArgs<'a> {
    /// What products keep of their operands.
    pub fn products(&self) -> Products {
        self.products
    }

    /// Input `i` as a slice.
    pub fn input<T: Element>(&self, i: usize) -> &'a [T] {
        self.optional(i)
            .unwrap_or_else(|| panic!("{}: argument {i} is not an input", self.op))
    }

    /// Input `i`, or `None` when it was [`Arg::Absent`].
    pub fn optional<T: Element>(&self, i: usize) -> Option<&'a [T]> {
        match self.slots[i] {
            Slot::In(bytes, _) => Some(bytemuck::cast_slice(bytes)),
            _ => None,
        }
    }

    /// Input `i`, weights that may be stored in 16 bits.
    pub fn operand<T: Real>(&self, i: usize) -> Operand<'a, T> {
        match self.slots[i] {
            Slot::In(bytes, dtype) => Operand::of(bytes, dtype),
            _ => panic!("{}: argument {i} is not an input", self.op),
        }
    }

    /// The arguments of a kernel that writes `output`, and reads the inputs of this one from argument `first` on.
    pub fn inputs_of<'b, T: Element>(
        &'b self,
        output: &'b mut [T],
        first: usize,
    ) -> NativeArgs<'b> {
        let input = |slot: &Slot<'a>| match slot {
            Slot::In(bytes, dtype) => Slot::In(bytes, *dtype),
            _ => Slot::Absent,
        };
        let output = Slot::Out(bytemuck::cast_slice_mut(output));
        let inputs = self.slots[first..].iter().map(input);
        NativeArgs {
            products: self.products,
            op: self.op,
            slots: std::iter::once(output).chain(inputs).collect(),
        }
    }

    /// Output `i`, or an argument that is updated, as a slice. Each can be had once.
    pub fn output<T: Element>(&mut self, i: usize) -> &'a mut [T] {
        self.optional_output(i).unwrap_or_else(|| {
            panic!(
                "{}: argument {i} is not an output, or was taken before",
                self.op
            )
        })
    }

    /// Output `i`, or `None` when it was [`Arg::Absent`].
    pub fn optional_output<T: Element>(&mut self, i: usize) -> Option<&'a mut [T]> {
        match std::mem::replace(&mut self.slots[i], Slot::Absent) {
            Slot::Out(bytes) => Some(bytemuck::cast_slice_mut(bytes)),
            _ => None,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::runtime::{Cost, Runtime};

    /// KiB of the mapping at an address that are in this process's memory.
    fn resident(address: usize) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let start = format!("{address:x}-");
        let mut lines = maps.lines().skip_while(|line| !line.starts_with(&start));
        let kib = lines.find_map(|line| line.strip_prefix("Rss:")?.strip_suffix("kB"));
        kib.unwrap().trim().parse().unwrap()
    }

    #[test]
    fn offloaded_weights_are_in_memory_while_a_launch_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let rt = Runtime::native_with(Products::F32, Some(folder.path().into()));
        let values: Vec<f32> = (0..1 << 18).map(|i| i as f32).collect();
        let buffer = rt.keep(bytemuck::cast_slice(&values)).unwrap();
        let weights = Tensor::over(buffer, [1 << 18], DType::F32).unwrap();
        for _ in 0..2 {
            let mut address = 0;
            rt.launch("test", Cost::default(), &[Arg::In(&weights)], |args| {
                let x = args.input::<f32>(0);
                assert!(x == values);
                address = x.as_ptr().addr();
                assert_eq!(resident(address), 1024);
            })
            .unwrap();
            assert_eq!(resident(address), 0);
        }
    }
}
