//! Recording: what a runtime was asked to do, as a list that can be compared with another one and run later.
//!
//! While a [`Recorder`] records, launches and uploads are written down instead of being done. Addresses are
//! final by then: memory comes from the arena as always. What an upload carries is copied; it is no part of
//! the comparison, since a list that is run again may carry something else.

use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard};
use std::thread::ThreadId;

use super::kernel::{Entry, Launch, Ptr, TensorMap};
use super::{Arg, Buffer};
use crate::error::{Error, Result};

/// A [`TensorMap`] as kernels take it: a `CUtensorMap`, or the emulator's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[repr(C, align(128))]
pub struct EncodedMap(pub [u64; 16]);

/// What a runtime knows and a launch does not.
pub(super) struct Device<'a> {
    /// How many blocks run side by side, at one for each multiprocessor.
    pub(super) multiprocessors: u32,
    /// Encodes a map of the tensor at this address, or says what is wrong with it.
    pub(super) encode: &'a dyn Fn(&TensorMap, u64) -> Result<EncodedMap>,
}

/// A launch of a kernel that a runtime knows as an `F`, with the addresses it works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<F> {
    /// The kernel, for messages.
    pub entry: Entry,
    /// The kernel, for the runtime.
    pub function: F,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    pointers: Vec<u64>,
    maps: Vec<EncodedMap>,
    params: Vec<u32>,
}

impl<F> Call<F> {
    /// The launch of an op that was given `args` and this scratch memory.
    ///
    /// # Errors
    /// Of the device, when it takes no map of such a tensor.
    pub(super) fn new(
        function: F,
        launch: &Launch,
        args: &[Arg<'_>],
        scratch: Option<&Buffer>,
        device: &Device<'_>,
    ) -> Result<Self> {
        let address = |arg: &Arg<'_>| match arg {
            Arg::In(t) | Arg::Out(t) | Arg::Update(t) => {
                t.buffer().address() + t.byte_range().start as u64
            }
            Arg::Absent => 0,
        };
        let pointer = |ptr: &Ptr| match *ptr {
            Ptr::Arg(i) => args.get(i).map_or(0, address),
            Ptr::Scratch(offset) => scratch.map_or(0, |s| s.address() + offset as u64),
            Ptr::Null => 0,
        };
        let pointers = match &launch.pointers {
            None => args.iter().map(address).collect(),
            Some(list) => list.iter().map(pointer).collect(),
        };
        let map = |map: &TensorMap| (device.encode)(map, pointer(&map.at));
        let mut grid = launch.grid;
        if launch.stays {
            grid[0] = grid[0].min(device.multiprocessors);
        }
        Ok(Call {
            entry: launch.entry,
            function,
            grid,
            block: launch.block,
            shared: launch.shared,
            pointers,
            maps: launch.maps.iter().map(map).collect::<Result<_>>()?,
            params: launch.params.clone(),
        })
    }

    /// Whether the kernel takes arguments of these sizes.
    ///
    /// # Errors
    /// [`Error::Device`] with both lists when it does not.
    pub fn expect_sizes(&self, want: &[usize], device: &str) -> Result<()> {
        let params = (!self.params.is_empty()).then_some(4 * self.params.len());
        let pointers = self.pointers.iter().map(|_| 8);
        let maps = self.maps.iter().map(size_of_val);
        let got: Vec<usize> = pointers.chain(maps).chain(params).collect();
        if want == got {
            return Ok(());
        }
        Err(Error::Device {
            device: device.into(),
            why: format!(
                "kernel `{}` takes arguments of {want:?} bytes, got {got:?}",
                self.entry
            ),
        })
    }

    /// The arguments as drivers take them: where each one is.
    pub fn args(&mut self) -> Vec<*mut c_void> {
        let pointers = self
            .pointers
            .iter_mut()
            .map(|p| std::ptr::from_mut(p).cast());
        let maps = self.maps.iter_mut().map(|m| std::ptr::from_mut(m).cast());
        let mut args: Vec<*mut c_void> = pointers.chain(maps).collect();
        if !self.params.is_empty() {
            args.push(self.params.as_mut_ptr().cast());
        }
        args
    }
}

/// One thing that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<F> {
    /// A launch.
    Launch(Call<F>),
    /// A copy from the host.
    Upload {
        /// The address it goes to.
        to: u64,
        /// Where in [`Recording::bytes`] it starts.
        from: usize,
        /// How many bytes.
        len: usize,
    },
}

/// What was asked for, in order.
#[derive(Debug)]
pub struct Recording<F, M> {
    /// Launches and uploads.
    pub commands: Vec<Command<F>>,
    /// What the uploads carry.
    pub bytes: Vec<u8>,
    /// Memory that was given back while commands over it were still to be run.
    kept: Vec<M>,
    /// Whose launches and uploads these are.
    thread: ThreadId,
}

impl<F, M> Recording<F, M> {
    fn expect_own(&self) -> Result<()> {
        if self.thread == std::thread::current().id() {
            return Ok(());
        }
        Err(Error::Plan {
            why: "another thread records a step on this device; let its run end, or open a device for each thread".into(),
        })
    }
}

/// Uploads start at multiples of this in [`Recording::bytes`].
const ALIGN: usize = 64;

/// Records for a runtime whose kernels are `F`s and whose memory is held by `M`s.
#[derive(Debug)]
pub struct Recorder<F, M>(Mutex<Option<Recording<F, M>>>);

impl<F, M> Default for Recorder<F, M> {
    fn default() -> Self {
        Recorder(Mutex::new(None))
    }
}

impl<F, M> Recorder<F, M> {
    /// Does `body` with its launches and uploads written down, then lets `run` do them. A recording inside a
    /// recording is part of it. When `body` fails nothing is run.
    ///
    /// # Errors
    /// What `body` and `run` return.
    pub fn around<R>(
        &self,
        body: impl FnOnce() -> Result<R>,
        run: impl FnOnce(&mut Recording<F, M>) -> Result<()>,
    ) -> Result<R> {
        if self.is_recording() {
            return body();
        }
        *self.lock() = Some(Recording {
            commands: Vec::new(),
            bytes: Vec::new(),
            kept: Vec::new(),
            thread: std::thread::current().id(),
        });
        let ended = End(self);
        let result = body()?;
        let recording = self.lock().take();
        drop(ended);
        recording.map_or(Ok(()), |mut recording| run(&mut recording))?;
        Ok(result)
    }

    /// Whether a recording is under way.
    pub fn is_recording(&self) -> bool {
        self.lock().is_some()
    }

    /// Writes a launch down, or gives it back to be done now.
    ///
    /// # Errors
    /// [`Error::Plan`] while another thread records.
    pub fn launch(&self, call: Call<F>) -> Result<Option<Call<F>>> {
        let mut recording = self.lock();
        let Some(recording) = &mut *recording else {
            return Ok(Some(call));
        };
        recording.expect_own()?;
        recording.commands.push(Command::Launch(call));
        Ok(None)
    }

    /// Writes an upload down; `false` when it is to be done now.
    ///
    /// # Errors
    /// [`Error::Plan`] while another thread records.
    pub fn upload(&self, to: u64, bytes: &[u8]) -> Result<bool> {
        let mut recording = self.lock();
        let Some(recording) = &mut *recording else {
            return Ok(false);
        };
        recording.expect_own()?;
        let (all, len) = (&mut recording.bytes, bytes.len());
        let from = all.len().next_multiple_of(ALIGN);
        all.resize(from, 0);
        all.extend_from_slice(bytes);
        recording.commands.push(Command::Upload { to, from, len });
        Ok(true)
    }

    /// Holds on to memory that commands may still work on, or gives it back to be freed now.
    pub fn keep(&self, memory: M) -> Option<M> {
        match &mut *self.lock() {
            None => Some(memory),
            Some(recording) => {
                recording.kept.push(memory);
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Recording<F, M>>> {
        self.0.lock().expect("no change of a recording panics")
    }
}

/// Ends a recording that its body has left in whatever way.
struct End<'a, F, M>(&'a Recorder<F, M>);

impl<F, M> Drop for End<'_, F, M> {
    fn drop(&mut self) {
        let left = self.0.lock().take();
        drop(left);
    }
}

/// Values cannot be read while what computes them is only being written down.
pub(super) fn refuse_read() -> Error {
    Error::Plan {
        why: "values were asked for inside a recorded step; read them after it".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Small = Recorder<u32, &'static str>;

    #[test]
    fn uploads_are_written_down_and_given_to_the_runner() {
        let recorder = Small::default();
        assert!(!recorder.upload(8, &[1]).unwrap());
        let mut seen = Vec::new();
        let answer = recorder.around(
            || {
                assert!(recorder.upload(8, &[1, 2])? && recorder.upload(16, &[3])?);
                assert_eq!(recorder.keep("freed"), None);
                Ok(7)
            },
            |recording| {
                for command in &recording.commands {
                    let Command::Upload { to, from, len } = *command else {
                        unreachable!("nothing was launched")
                    };
                    seen.push((to, recording.bytes[from..from + len].to_vec()));
                }
                Ok(())
            },
        );
        assert_eq!(answer.unwrap(), 7);
        assert_eq!(seen, [(8, vec![1, 2]), (16, vec![3])]);
        assert_eq!(recorder.keep("freed"), Some("freed"));
    }

    #[test]
    fn a_body_that_fails_or_panics_runs_nothing_and_ends_the_recording() {
        let recorder = Small::default();
        let run = |_: &mut Recording<_, _>| panic!("nothing is to be run");
        let failed = recorder.around(|| Err::<(), _>(refuse_read()), run);
        assert!(failed.is_err() && !recorder.is_recording());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            recorder.around(|| -> Result<()> { panic!("in the body") }, run)
        }));
        assert!(panicked.is_err() && !recorder.is_recording());
    }

    #[test]
    fn launches_of_another_thread_do_not_slip_in() {
        let recorder = Small::default();
        let body = || {
            std::thread::scope(|threads| {
                let other = threads.spawn(|| recorder.upload(0, &[1]));
                assert!(matches!(other.join().unwrap(), Err(Error::Plan { .. })));
            });
            Ok(())
        };
        let run = |recording: &mut Recording<_, _>| {
            assert!(recording.commands.is_empty());
            Ok(())
        };
        recorder.around(body, run).unwrap();
    }

    #[test]
    fn a_recording_inside_a_recording_is_part_of_it() {
        let recorder = Small::default();
        let mut commands = 0;
        recorder
            .around(
                || {
                    let inner = || {
                        assert!(recorder.upload(0, &[1])?);
                        Ok(())
                    };
                    recorder.around(inner, |_| panic!("the outer one runs it"))
                },
                |recording| {
                    commands = recording.commands.len();
                    Ok(())
                },
            )
            .unwrap();
        assert_eq!(commands, 1);
    }
}
