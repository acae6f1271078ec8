//! The emulated runtime: the engine's own `.cu` kernels, compiled by the host compiler and run by
//! `kernels/emu` as a GPU would run them, with guards around everything.
//!
//! Each tensor is its own allocation between guard pages and starts as NaN. A launch can be scheduled in
//! several ways; a right kernel gives the same bits under all of them.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::NonNull;
use std::sync::Mutex;

use super::Arg;
use super::Buffer;
use super::Memory;
use super::kernel::{Entry, Launch, Plan, Ptr};
use crate::error::{Error, Result};

/// In which order threads run, and when asynchronous copies arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Threads in order; copies at once.
    #[default]
    InOrder,
    /// Threads last to first; copies as late as the kernel allows.
    Reverse,
    /// Random priorities and arrivals from this seed.
    Random(u64),
}

#[repr(C)]
struct RawSchedule {
    threads: u32,
    order: u32,
    asynchrony: u32,
    padding: u32,
    seed: u64,
}

unsafe extern "C" {
    fn emu_function(name: *const c_char) -> *const c_void;
    fn emu_arg_count(function: *const c_void) -> u32;
    fn emu_arg_size(function: *const c_void, index: u32) -> u32;
    fn emu_launch(
        function: *const c_void,
        grid: *const u32,
        block: *const u32,
        shared: u32,
        args: *mut *mut c_void,
        schedule: *const RawSchedule,
        error: *mut c_char,
        error_len: usize,
    ) -> i32;
    fn emu_alloc(bytes: usize) -> *mut c_void;
    fn emu_free(start: *mut c_void, bytes: usize);
}

/// The emulator.
#[derive(Debug, Default)]
pub struct Emu {
    schedule: Schedule,
    functions: Mutex<HashMap<Entry, Function>>,
}

/// A registered kernel.
#[derive(Clone, Copy, Debug)]
struct Function(*const c_void);

// SAFETY: points to a constant of the program.
unsafe impl Send for Function {}

/// Bytes between guard pages.
#[derive(Debug)]
pub struct EmuMemory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory, freed once; written only through a buffer's single handle or by a launch that
// has checked its outputs to be unique.
unsafe impl Send for EmuMemory {}
// SAFETY: as above.
unsafe impl Sync for EmuMemory {}

impl Drop for EmuMemory {
    fn drop(&mut self) {
        // SAFETY: allocated by `emu_alloc` with this length, freed only here.
        unsafe { emu_free(self.start.as_ptr().cast(), self.len) }
    }
}

impl EmuMemory {
    pub(super) fn new(bytes: usize) -> Result<Self> {
        // SAFETY: any length is allowed; null is checked.
        let start = NonNull::new(unsafe { emu_alloc(bytes) }.cast());
        let why = || format!("{bytes} bytes of emulated device memory are not to be had");
        let start = start.ok_or_else(|| Error::Plan { why: why() })?;
        Ok(EmuMemory { start, len: bytes })
    }

    pub(super) fn write(&self, from: &[u8]) {
        assert!(from.len() <= self.len);
        // SAFETY: in bounds (asserted); the caller has checked that no other handle exists.
        unsafe {
            self.start
                .as_ptr()
                .copy_from_nonoverlapping(from.as_ptr(), from.len())
        }
    }

    pub(super) fn read(&self, offset: usize, to: &mut [u8]) {
        assert!(offset + to.len() <= self.len);
        // SAFETY: in bounds (asserted); initialised at allocation.
        unsafe {
            self.start
                .as_ptr()
                .add(offset)
                .copy_to_nonoverlapping(to.as_mut_ptr(), to.len())
        }
    }
}

impl Emu {
    pub(super) fn new(schedule: Schedule) -> Self {
        Emu {
            schedule,
            ..Emu::default()
        }
    }

    pub(super) fn launch(
        &self,
        args: &[Arg<'_>],
        plan: &Plan,
        scratch: Option<&Buffer>,
    ) -> Result<()> {
        for launch in &plan.launches {
            let address = |ptr: &Ptr| match *ptr {
                Ptr::Arg(i) => args.get(i).map_or(0, address_of),
                Ptr::Scratch(offset) => scratch.map_or(0, |s| start_of(s) + offset as u64),
            };
            let mut pointers: Vec<u64> = match &launch.pointers {
                None => args.iter().map(address_of).collect(),
                Some(list) => list.iter().map(address).collect(),
            };
            self.run(launch, &mut pointers)?;
        }
        Ok(())
    }

    fn run(&self, launch: &Launch, pointers: &mut [u64]) -> Result<()> {
        let fail = |why: String| Error::Device {
            device: "emu".into(),
            why: format!("kernel `{}`: {why}", launch.entry),
        };
        let Function(function) = self.function(launch.entry)?;
        let mut params = launch.params.clone();
        let mut sizes = vec![8; pointers.len()];
        let mut args: Vec<*mut c_void> = pointers
            .iter_mut()
            .map(|p| std::ptr::from_mut(p).cast())
            .collect();
        if !params.is_empty() {
            args.push(params.as_mut_ptr().cast());
            sizes.push(4 * params.len() as u32);
        }
        // SAFETY: `function` is a registered kernel; the index is below its count.
        let want: Vec<u32> = unsafe {
            (0..emu_arg_count(function))
                .map(|i| emu_arg_size(function, i))
                .collect()
        };
        if want != sizes {
            return Err(fail(format!(
                "takes arguments of {want:?} bytes, got {sizes:?}"
            )));
        }
        let (order, asynchrony, seed) = match self.schedule {
            Schedule::InOrder => (0, 0, 1),
            Schedule::Reverse => (1, 1, 1),
            Schedule::Random(seed) => (2, 2, seed),
        };
        let schedule = RawSchedule {
            threads: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            order,
            asynchrony,
            padding: 0,
            seed,
        };
        let mut message = vec![0u8; 4096];
        // SAFETY: the arguments agree with the kernel's in number and size (checked above), and point to
        // buffers that live through this call; the message is as long as said.
        let failed = unsafe {
            emu_launch(
                function,
                launch.grid.as_ptr(),
                launch.block.as_ptr(),
                launch.shared,
                args.as_mut_ptr(),
                &schedule,
                message.as_mut_ptr().cast(),
                message.len(),
            )
        };
        if failed == 0 {
            return Ok(());
        }
        let why = CStr::from_bytes_until_nul(&message)
            .map_or_else(|_| "failed".into(), |c| c.to_string_lossy());
        Err(fail(why.into_owned()))
    }

    fn function(&self, entry: Entry) -> Result<Function> {
        let mut functions = self.functions.lock().expect("no lookup panics");
        if let Some(function) = functions.get(&entry) {
            return Ok(*function);
        }
        let name = CString::new(entry.to_string()).expect("names of kernels hold no NUL");
        // SAFETY: a NUL-terminated name.
        let function = unsafe { emu_function(name.as_ptr()) };
        if function.is_null() {
            return Err(Error::Device {
                device: "emu".into(),
                why: format!(
                    "there is no kernel `{entry}`; is `kernels/{}.cu` there, and does it register this entry?",
                    entry.module
                ),
            });
        }
        functions.insert(entry, Function(function));
        Ok(Function(function))
    }
}

/// Where a buffer's bytes start.
fn start_of(buffer: &Buffer) -> u64 {
    match &buffer.0.memory {
        Memory::Emu(memory) => memory.start.as_ptr().expose_provenance() as u64,
        _ => 0,
    }
}

/// The address of an argument's first element; null when absent.
fn address_of(arg: &Arg<'_>) -> u64 {
    match arg {
        Arg::In(t) | Arg::Out(t) => start_of(t.buffer()) + t.byte_range().start as u64,
        Arg::Absent => 0,
    }
}
