//! The emulated runtime: the engine's own `.cu` kernels, compiled by the host compiler and run by
//! `kernels/emu` as a GPU would run them, with guards around everything.
//!
//! Each tensor is its own allocation between guard pages and starts as NaN. A launch can be scheduled in
//! several ways; a right kernel gives the same bits under all of them.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Mutex;

use library::{Function, RawSchedule};

use super::kernel::{Entry, Plan, TensorMap};
use super::record::{Call, Command, Device, EncodedMap, Recorder, Recording, refuse_read};
use super::{Arg, Buffer};
use crate::error::{Error, Result};

mod library;

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

/// What the kernels and the emulator were built to be watched by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sanitizer {
    /// For accesses outside of memory: one schedule tells as much as many.
    Address,
    /// For races: likewise.
    Thread,
}

/// The emulator.
#[derive(Default)]
pub struct Emu {
    schedule: Schedule,
    functions: Mutex<HashMap<Entry, Function>>,
    recorder: Recorder<Function, EmuMemory>,
}

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
        unsafe { (library::first().free)(self.start.as_ptr().cast(), self.len) }
    }
}

impl EmuMemory {
    pub(super) fn new(bytes: usize) -> Result<Self> {
        // SAFETY: any length is allowed; null is checked.
        let start = NonNull::new(unsafe { (library::first().alloc)(bytes) }.cast());
        let why = || format!("{bytes} bytes of emulated device memory are not to be had");
        let start = start.ok_or_else(|| Error::Plan { why: why() })?;
        Ok(EmuMemory { start, len: bytes })
    }

    pub(super) fn address(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    fn read(&self, offset: usize, to: &mut [u8]) {
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

impl fmt::Debug for Emu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.schedule.fmt(f)
    }
}

impl Emu {
    pub(super) fn new(schedule: Schedule) -> Self {
        Emu {
            schedule,
            ..Emu::default()
        }
    }

    /// The sanitizer that watches.
    pub fn sanitizer(&self) -> Option<Sanitizer> {
        // SAFETY: takes nothing.
        match unsafe { (library::first().sanitized)() } {
            0 => None,
            1 => Some(Sanitizer::Address),
            _ => Some(Sanitizer::Thread),
        }
    }

    /// Copies into memory that nobody else holds, or writes that down.
    pub(super) fn copy_in(&self, to: &EmuMemory, from: &[u8]) -> Result<()> {
        assert!(from.len() <= to.len);
        if !self.recorder.upload(to.address(), from)? {
            write(to.address(), from);
        }
        Ok(())
    }

    pub(super) fn copy_out(&self, from: &EmuMemory, offset: usize, to: &mut [u8]) -> Result<()> {
        if self.recorder.is_recording() {
            return Err(refuse_read());
        }
        from.read(offset, to);
        Ok(())
    }

    /// Frees memory, once nothing that was written down works on it.
    pub(super) fn release(&self, memory: EmuMemory) {
        drop(self.recorder.keep(memory));
    }

    pub(super) fn record<R>(&self, body: impl FnOnce() -> Result<R>) -> Result<R> {
        self.recorder.around(body, |recording| self.play(recording))
    }

    fn play(&self, recording: &mut Recording<Function, EmuMemory>) -> Result<()> {
        for command in &mut recording.commands {
            match command {
                Command::Launch(call) => self.run(call)?,
                Command::Upload { to, from, len } => {
                    write(*to, &recording.bytes[*from..*from + *len])
                }
            }
        }
        Ok(())
    }

    pub(super) fn launch(
        &self,
        args: &[Arg<'_>],
        plan: &Plan,
        scratch: Option<&Buffer>,
    ) -> Result<()> {
        for launch in &plan.launches {
            let function = self.function(launch.entry)?;
            let call = Call::new(function, launch, args, scratch, &DEVICE)?;
            call.expect_sizes(&function.arg_sizes(), "emu")?;
            if let Some(mut call) = self.recorder.launch(call)? {
                self.run(&mut call)?;
            }
        }
        Ok(())
    }

    /// Runs a kernel whose arguments were checked.
    fn run(&self, call: &mut Call<Function>) -> Result<()> {
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
        let mut args = call.args();
        let mut message = vec![0u8; 4096];
        // SAFETY: the arguments agree with the kernel's in number and size (checked before), and point to
        // buffers that live through this call; the message is as long as said.
        let failed = unsafe {
            (call.function.library.launch)(
                call.function.kernel,
                call.grid.as_ptr(),
                call.block.as_ptr(),
                call.shared,
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
        Err(Error::Device {
            device: "emu".into(),
            why: format!("kernel `{}`: {why}", call.entry),
        })
    }

    fn function(&self, entry: Entry) -> Result<Function> {
        let mut functions = self.functions.lock().expect("no lookup panics");
        if let Some(function) = functions.get(&entry) {
            return Ok(*function);
        }
        let name = CString::new(entry.to_string()).expect("names of kernels hold no NUL");
        let function = Function::find(&name).ok_or_else(|| Error::Device {
            device: "emu".into(),
            why: format!(
                "there is no kernel `{entry}`; is `kernels/{}.cu` there, and does it register this entry?",
                entry.module
            ),
        })?;
        functions.insert(entry, function);
        Ok(function)
    }
}

/// Fewer multiprocessors than any GPU has: blocks that stay go from tile to tile in small cases too.
const DEVICE: Device<'static> = Device {
    multiprocessors: 2,
    encode: &encode,
};

fn encode(map: &TensorMap, address: u64) -> Result<EncodedMap> {
    let mut encoded = EncodedMap::default();
    let mut message = vec![0u8; 256];
    // SAFETY: as many sizes as the rank says, one stride less, which the emulator does not read; both other pointers
    // are to as much memory as is said.
    let failed = unsafe {
        (library::first().tensor_map)(
            encoded.0.as_mut_ptr().cast(),
            map.dims.len() as i32,
            TensorMap::ELEMENT as i32,
            std::ptr::with_exposed_provenance_mut(address as usize),
            map.dims.as_ptr(),
            map.strides().as_ptr(),
            map.boxed.as_ptr(),
            TensorMap::SWIZZLE as i32,
            message.as_mut_ptr().cast(),
            message.len(),
        )
    };
    if failed == 0 {
        return Ok(encoded);
    }
    let why = CStr::from_bytes_until_nul(&message)
        .map_or_else(|_| "no tensor map".into(), |c| c.to_string_lossy());
    Err(Error::Device {
        device: "emu".into(),
        why: format!("{why}: {map:?}"),
    })
}

/// Copies to emulated memory that is alive, is that long, and that nobody reads meanwhile.
fn write(to: u64, from: &[u8]) {
    let to = std::ptr::with_exposed_provenance_mut::<u8>(to as usize);
    // SAFETY: as above, which `copy_in` has checked; during a recording such memory is kept.
    unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) }
}
