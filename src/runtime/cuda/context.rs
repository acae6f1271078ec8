//! The driver, as this engine uses it: one context, one stream, and what lives in them.
//!
//! Everything is enqueued on the one stream, in order; nothing else of the process knows it. So memory can be
//! given out again while a kernel that read it is still to run: what writes it comes later in the stream.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::result::stream::StreamKind;
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{DriverError, result, sys};

use super::probe::{Gpu, say};
use crate::error::{Error, Result};

/// A GPU's primary context and a stream in it.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) gpu: Gpu,
    context: sys::CUcontext,
    stream: sys::CUstream,
}

// SAFETY: handles of the driver, which may be used from any thread that has bound the context.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub(super) fn open(gpu: Gpu) -> Result<Arc<Self>> {
        // SAFETY: a device that the driver has given.
        let context = unsafe { result::primary_ctx::retain(gpu.handle) };
        let mut opened = Context {
            context: std::ptr::null_mut(),
            stream: std::ptr::null_mut(),
            gpu,
        };
        opened.context = opened.done("opening it", context)?;
        opened.bind()?;
        let stream = result::stream::create(StreamKind::NonBlocking);
        opened.stream = opened.done("making a stream", stream)?;
        Ok(Arc::new(opened))
    }

    /// The stream, with the context bound to this thread.
    pub(super) fn stream(&self) -> Result<sys::CUstream> {
        self.bind()?;
        Ok(self.stream)
    }

    /// Waits for everything that was enqueued.
    pub(super) fn synchronize(&self) -> Result<()> {
        self.wait_for("its work")
    }

    /// The same; an error says that this has failed.
    pub(super) fn wait_for(&self, doing: &str) -> Result<()> {
        // SAFETY: the stream lives as long as `self`.
        let waited = unsafe { result::stream::synchronize(self.stream()?) };
        self.done(doing, waited)
    }

    /// Bytes of memory that can be had.
    pub(super) fn free_memory(&self) -> Result<usize> {
        self.bind()?;
        let (free, _) = self.done("asking for its free memory", result::mem_get_info())?;
        Ok(free)
    }

    /// What a call has returned, or an error of this device that says what was being done.
    pub(super) fn done<T>(&self, doing: &str, result: Result<T, DriverError>) -> Result<T> {
        result.map_err(|e| self.failed(doing, e))
    }

    pub(super) fn failed(&self, doing: &str, e: DriverError) -> Error {
        self.error(format!("{doing} failed: {}", say(e)))
    }

    pub(super) fn error(&self, why: String) -> Error {
        Error::Device {
            device: format!("cuda:{}", self.gpu.ordinal),
            why,
        }
    }

    fn bind(&self) -> Result<()> {
        // SAFETY: retained in `open`, released only in `drop`.
        let bound = unsafe { result::ctx::set_current(self.context) };
        self.done("binding its context", bound)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.context.is_null() || self.bind().is_err() {
            return;
        }
        // SAFETY: made in `open`; whatever lives in them holds this context, so nothing does any more.
        // An error here has nobody to go to.
        unsafe {
            if !self.stream.is_null() {
                let _ = result::stream::destroy(self.stream);
            }
            let _ = result::primary_ctx::release(self.gpu.handle);
        }
    }
}

/// Memory of the GPU.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) context: Arc<Context>,
    pub(super) address: u64,
}

impl Allocation {
    /// # Errors
    /// [`Error::Plan`] when the GPU has not that much.
    pub(super) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self> {
        context.bind()?;
        // SAFETY: the content is unspecified for everybody.
        let address = unsafe { result::malloc_sync(bytes.max(1)) };
        match address {
            Ok(address) => Ok(Allocation {
                context: Arc::clone(context),
                address,
            }),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let free = context.free_memory()?;
                Err(Error::Plan {
                    why: format!(
                        "cuda:{} has no {bytes} bytes of memory left ({free} are free); use a smaller batch or image",
                        context.gpu.ordinal
                    ),
                })
            }
            Err(e) => Err(context.failed("taking memory", e)),
        }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // A kernel may still work on it.
        if self.context.synchronize().is_ok() {
            // SAFETY: allocated in `new`, freed only here, and no work is left. Nobody is there for an error.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// Host memory that the GPU copies from and to by itself, so that the copy can happen any time later.
#[derive(Debug)]
pub(super) struct Pinned {
    start: NonNull<u8>,
    len: usize,
    context: Arc<Context>,
}

// SAFETY: plain memory, freed once.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(super) fn new(context: &Arc<Context>, len: usize) -> Result<Self> {
        context.bind()?;
        // SAFETY: any length but 0. The flags ask for ordinary memory, not write-combined.
        let start = unsafe { result::malloc_host(len.max(1), 0) };
        let start = context.done("taking pinned memory", start)?;
        let start = NonNull::new(start.cast())
            .ok_or_else(|| context.error("gave no pinned memory; close other programs".into()))?;
        Ok(Pinned {
            start,
            len,
            context: Arc::clone(context),
        })
    }

    /// Overwrites it. The caller knows that no copy from it is under way.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len);
        // SAFETY: in bounds (asserted), and not read meanwhile.
        unsafe {
            self.start
                .as_ptr()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Its first bytes. The caller knows that no copy to it is under way.
    pub(super) fn read(&self, len: usize) -> Vec<u8> {
        assert!(len <= self.len);
        // SAFETY: in bounds (asserted), written by a copy or `zeroed`, and not written meanwhile.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), len) }.to_vec()
    }

    /// Where byte `offset` is.
    pub(super) fn at(&self, offset: usize) -> *const c_void {
        assert!(offset <= self.len);
        // SAFETY: in bounds (asserted).
        unsafe { self.start.as_ptr().add(offset).cast_const().cast() }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // A copy from it may still be under way.
        if self.context.synchronize().is_ok() {
            // SAFETY: allocated in `new`, freed only here, and no work is left. Nobody is there for an error.
            let _ = unsafe { result::free_host(self.start.as_ptr().cast()) };
        }
    }
}

/// A point in the stream.
#[derive(Debug)]
pub(super) struct Event {
    handle: sys::CUevent,
    context: Arc<Context>,
}

// SAFETY: a handle of the driver; see `Context`.
unsafe impl Send for Event {}

impl Event {
    /// An event that is nowhere yet. Those that are not `timed` cost less.
    pub(super) fn new(context: &Arc<Context>, timed: bool) -> Result<Self> {
        context.bind()?;
        let flags = match timed {
            true => CUevent_flags::CU_EVENT_DEFAULT,
            false => CUevent_flags::CU_EVENT_DISABLE_TIMING,
        };
        let handle = context.done("making an event", result::event::create(flags))?;
        Ok(Event {
            handle,
            context: Arc::clone(context),
        })
    }

    /// Puts it behind everything that was enqueued.
    pub(super) fn record(&self) -> Result<()> {
        // SAFETY: both live.
        let recorded = unsafe { result::event::record(self.handle, self.context.stream()?) };
        self.context.done("recording an event", recorded)
    }

    /// Waits for what came before it.
    pub(super) fn wait(&self) -> Result<()> {
        self.context.bind()?;
        // SAFETY: it lives.
        let waited = unsafe { result::event::synchronize(self.handle) };
        self.context.done("its work", waited)
    }

    /// Milliseconds from `start` to here, both passed.
    pub(super) fn milliseconds_since(&self, start: &Event) -> Result<f32> {
        self.context.bind()?;
        // SAFETY: both live and are on the same stream.
        let elapsed = unsafe { result::event::elapsed(start.handle, self.handle) };
        self.context.done("timing", elapsed)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: made in `new`, destroyed only here. Nobody is there for an error.
            let _ = unsafe { result::event::destroy(self.handle) };
        }
    }
}
