//! A recorded step as a CUDA graph: enqueued by one call, for as long as the steps are the same.
//!
//! A graph's launches and their arguments are frozen. What differs from step to step (times, coefficients,
//! noise) reaches it as uploads: the graph copies them from pinned memory, which is rewritten before each
//! launch. Any step that differs in more than that becomes a graph of its own; the last few are kept.

use std::collections::VecDeque;
use std::sync::Arc;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{result, sys};

use super::context::{Context, Event, Pinned};
use super::modules::Function;
use crate::error::Result;
use crate::runtime::record::{Call, Command};

/// How many graphs are kept: of the first step, of those after it, of the last, and one more.
const KEPT: usize = 4;

/// Graphs of recorded steps, last used first.
#[derive(Debug, Default)]
pub(super) struct Graphs(VecDeque<Graph>);

#[derive(Debug)]
struct Graph {
    commands: Vec<Command<Function>>,
    executable: Executable,
    staging: Pinned,
    /// Behind its last launch: before that, `staging` may still be read.
    done: Event,
}

impl Graphs {
    /// Enqueues `commands`, whose uploads carry `bytes`.
    pub(super) fn run(
        &mut self,
        context: &Arc<Context>,
        commands: &mut Vec<Command<Function>>,
        bytes: &[u8],
    ) -> Result<()> {
        if commands.is_empty() {
            return Ok(());
        }
        let known = self.0.iter().position(|graph| graph.commands == *commands);
        let mut graph = match known.and_then(|i| self.0.remove(i)) {
            Some(graph) => graph,
            None => Graph::capture(context, std::mem::take(commands), bytes.len())?,
        };
        graph.launch(context, bytes)?;
        self.0.push_front(graph);
        self.0.truncate(KEPT);
        Ok(())
    }
}

impl Graph {
    fn capture(
        context: &Arc<Context>,
        mut commands: Vec<Command<Function>>,
        bytes: usize,
    ) -> Result<Self> {
        let staging = Pinned::new(context, bytes)?;
        let done = Event::new(context, false)?;
        let stream = context.stream()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives.
        let begun = unsafe { result::stream::begin_capture(stream, mode) };
        context.done("beginning a capture", begun)?;
        let issued = commands.iter_mut().try_for_each(|command| match command {
            Command::Launch(call) => issue(context, call),
            Command::Upload { to, from, len } => {
                upload(context, *to, staging.at(*from).cast(), *len)
            }
        });
        // The capture is ended even when it has failed: the stream is needed further.
        // SAFETY: the stream lives and is being captured.
        let graph = unsafe { result::stream::end_capture(stream) };
        let graph = context.done("ending a capture", graph);
        // SAFETY: a graph, whole where everything was issued, and destroyed once it is instantiated.
        let instantiated = graph.map(|graph| unsafe {
            let instantiated = result::graph::instantiate(graph, CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            instantiated
        });
        issued?;
        let instantiated = instantiated?;
        Ok(Graph {
            commands,
            executable: Executable {
                handle: context.done("instantiating a graph", instantiated)?,
                context: Arc::clone(context),
            },
            staging,
            done,
        })
    }

    fn launch(&mut self, context: &Context, bytes: &[u8]) -> Result<()> {
        self.done.wait()?;
        self.staging.write(bytes);
        // SAFETY: both live.
        let launched = unsafe { result::graph::launch(self.executable.handle, context.stream()?) };
        context.done("launching a graph", launched)?;
        self.done.record()
    }
}

#[derive(Debug)]
struct Executable {
    handle: sys::CUgraphExec,
    context: Arc<Context>,
}

// SAFETY: a handle of the driver, used by one thread at a time.
unsafe impl Send for Executable {}

impl Drop for Executable {
    fn drop(&mut self) {
        // The last launch may be under way.
        if self.context.synchronize().is_ok() {
            // SAFETY: made in `capture`, destroyed only here, and no work is left. Nobody is there for an error.
            let _ = unsafe { result::graph::exec_destroy(self.handle) };
        }
    }
}

/// Enqueues a launch whose arguments were checked.
pub(super) fn issue(context: &Context, call: &mut Call<Function>) -> Result<()> {
    let stream = context.stream()?;
    let ([gx, gy, gz], [bx, by, bz]) = (call.grid, call.block);
    let mut args = call.args();
    // SAFETY: the arguments agree with the kernel's in number and size; the driver copies them before it
    // returns. The addresses are of memory that stays until later work of this stream.
    let launched = unsafe {
        result::launch_kernel(
            call.function.handle(),
            (gx, gy, gz),
            (bx, by, bz),
            call.shared,
            stream,
            &mut args,
        )
    };
    launched.map_err(|e| context.failed(&format!("launching kernel `{}`", call.entry), e))
}

/// Enqueues a copy from the host, whose memory must stay as it is until the copy is done.
pub(super) fn upload(context: &Context, to: u64, from: *const u8, len: usize) -> Result<()> {
    // SAFETY: `len` bytes at both ends, which the caller holds until the copy is done.
    let copied =
        unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.cast(), len, context.stream()?).result() };
    context.done("copying to it", copied)
}
