//! From a kernel's name to its code.
//!
//! `build.rs` puts every source into the library and, where it found nvcc, compiled code beside it. A file of
//! kernels is loaded at the first launch of one of them: that code if the driver takes it, else what an
//! earlier run has compiled, else what NVRTC makes of the source now.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use cudarc::driver::{DriverError, result, sys};

use super::cache::Cache;
use super::context::Context;
use super::nvrtc::Nvrtc;
use super::probe::say;
use crate::error::Result;
use crate::runtime::kernel::{Arch, Entry};

/// A file of kernels.
#[derive(Debug)]
pub struct Module {
    /// Its path under `kernels/`, without endings.
    pub name: &'static str,
    /// Whether only Hopper takes it.
    pub hopper: bool,
    /// Its text.
    pub source: &'static str,
    fatbin: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/modules.rs"));

/// Where a file's code came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is in the library: nvcc made it when that was built.
    Embedded,
    /// An earlier run had it compiled.
    Cached,
    /// NVRTC has just compiled it.
    Compiled,
    /// The same, and it could not be kept for the next run: why.
    NotKept(String),
}

impl Module {
    /// Every file of kernels, by name.
    pub fn all() -> &'static [Module] {
        MODULES
    }

    /// The headers that they include, by name.
    pub fn headers() -> &'static [(&'static str, &'static str)] {
        HEADERS
    }

    /// Whether a GPU takes it.
    pub fn runs_on(&self, arch: Arch) -> bool {
        !self.hopper || arch.is_hopper()
    }

    /// Whether the library has compiled code of it.
    pub fn is_embedded(&self) -> bool {
        self.fatbin.is_some()
    }
}

/// A kernel that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function(sys::CUfunction);

// SAFETY: a handle of the driver, which may be used from any thread that has bound the context.
unsafe impl Send for Function {}

impl Function {
    pub(super) fn handle(self) -> sys::CUfunction {
        self.0
    }
}

/// The kernels that were loaded so far.
#[derive(Debug)]
pub(super) struct Loaded {
    context: Arc<Context>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    modules: HashMap<&'static str, (Handle, Origin)>,
    functions: HashMap<Entry, Known>,
}

#[derive(Debug)]
struct Known {
    function: Function,
    arg_sizes: Arc<[usize]>,
    /// Bytes of dynamic shared memory that it was allowed to be launched with; what the driver allows by itself is less
    /// where a kernel has static memory, too.
    shared: u32,
}

/// A module of the driver. It is never unloaded: contexts end with the process, or with what is in them.
#[derive(Clone, Copy, Debug)]
struct Handle(sys::CUmodule);

// SAFETY: as for `Function`.
unsafe impl Send for Handle {}

impl Loaded {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        Loaded {
            context: Arc::clone(context),
            state: Mutex::default(),
        }
    }

    /// Loads a file of kernels, unless it is there already.
    pub(super) fn load(&self, module: &str) -> Result<Origin> {
        let mut state = self.state.lock().expect("loading does not panic");
        self.module(&mut state, module).map(|(_, origin)| origin)
    }

    /// A kernel that can be launched with this much shared memory, and the sizes of its arguments.
    pub(super) fn function(&self, entry: Entry, shared: u32) -> Result<(Function, Arc<[usize]>)> {
        let mut state = self.state.lock().expect("loading does not panic");
        if !state.functions.contains_key(&entry) {
            let (handle, _) = self.module(&mut state, entry.module)?;
            let known = self.find(handle, entry)?;
            state.functions.insert(entry, known);
        }
        let known = state.functions.get_mut(&entry).expect("just inserted");
        if shared > known.shared {
            self.allow(known.function, entry, shared)?;
            known.shared = shared;
        }
        Ok((known.function, Arc::clone(&known.arg_sizes)))
    }

    fn module(&self, state: &mut State, name: &str) -> Result<(Handle, Origin)> {
        if let Some(loaded) = state.modules.get(name) {
            return Ok(loaded.clone());
        }
        let arch = self.context.gpu.arch;
        let mut all = MODULES.iter();
        let module = all.find(|m| m.name == name && m.runs_on(arch));
        let none = || format!("there is no kernels/{name}.cu for {arch} in this build");
        let module = module.ok_or_else(|| self.context.error(none()))?;
        let loaded = self.obtain(module)?;
        state.modules.insert(module.name, loaded.clone());
        Ok(loaded)
    }

    fn obtain(&self, module: &Module) -> Result<(Handle, Origin)> {
        let error = |why: String| {
            self.context
                .error(format!("kernels/{}.cu: {why}", module.name))
        };
        let embedded = match module.fatbin {
            Some(_) if only_nvrtc() => "the code in this build is not wanted".to_owned(),
            Some(fatbin) => match self.image(fatbin)? {
                Ok(handle) => return Ok((handle, Origin::Embedded)),
                Err(e) => format!("the driver refuses the code in this build ({})", say(e)),
            },
            None => "this build has no code for GPUs".to_owned(),
        };
        let nvrtc = Nvrtc::find().map_err(|why| {
            error(format!(
                "{embedded}, and NVRTC, which would make it, cannot be used: {why}. Build with nvcc on the PATH, or \
                 `pip install nvidia-cuda-nvrtc` and set POSTERIORI_NVRTC to the folder of libnvrtc"
            ))
        })?;
        let arch = nvrtc.arch_for(self.context.gpu.arch).map_err(&error)?;
        let cache = Cache::for_code(module, &arch, nvrtc.version);
        if let Some(cubin) = cache.read()
            && let Ok(handle) = self.image(&cubin)?
        {
            return Ok((handle, Origin::Cached));
        }
        let cubin = nvrtc.compile(module, &arch).map_err(&error)?;
        let origin = match cache.write(&cubin) {
            Ok(()) => Origin::Compiled,
            Err(why) => Origin::NotKept(why),
        };
        let refused = |e| {
            let [major, minor] = nvrtc.version;
            error(format!(
                "{embedded}, and what NVRTC {major}.{minor} made ({}); it wants a driver of CUDA {major} or newer: update \
                 the driver, or set POSTERIORI_NVRTC to an older NVRTC",
                say(e)
            ))
        };
        let handle = self.image(&cubin)?.map_err(refused)?;
        Ok((handle, origin))
    }

    /// Loads code, unless the driver refuses it; any other error, of work before it too, is one of the device.
    fn image(&self, bytes: &[u8]) -> Result<Result<Handle, DriverError>> {
        // The driver reads words.
        let mut words = vec![0u64; bytes.len().div_ceil(8) + 1];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        self.context.stream()?;
        // SAFETY: a copy of code, aligned, followed by zeros; the driver copies what it needs.
        let module = unsafe { result::module::load_data(words.as_ptr().cast::<c_void>()) };
        match module {
            Err(e) if !is_refusal(e) => Err(self.context.failed("loading kernels", e)),
            taken => Ok(taken.map(Handle)),
        }
    }

    fn find(&self, Handle(module): Handle, entry: Entry) -> Result<Known> {
        let name = CString::new(entry.to_string()).expect("names of kernels hold no NUL");
        let doing = format!("finding kernel `{entry}` in kernels/{}.cu", entry.module);
        self.context.stream()?;
        // SAFETY: a module that is never unloaded.
        let function = unsafe { result::module::get_function(module, name) };
        let function = self.context.done(&doing, function)?;
        // Now, not at its first launch: that may be inside a capture.
        // SAFETY: a function of that module.
        let loaded = unsafe { sys::cuFuncLoad(function).result() };
        self.context.done(&doing, loaded)?;
        let size = |index| {
            let (mut offset, mut size) = (0, 0);
            // SAFETY: writes two numbers; an index that is too large is an error.
            let found = unsafe { sys::cuFuncGetParamInfo(function, index, &mut offset, &mut size) };
            found.result().ok().map(|()| size)
        };
        Ok(Known {
            function: Function(function),
            arg_sizes: (0..).map_while(size).collect(),
            shared: 0,
        })
    }

    /// Lets a kernel be launched with that much dynamic shared memory.
    fn allow(&self, Function(function): Function, entry: Entry, bytes: u32) -> Result<()> {
        let most = self.context.gpu.shared;
        if bytes as usize > most {
            let why = format!(
                "kernel `{entry}` takes {bytes} bytes of shared memory, this GPU has {most}"
            );
            return Err(self.context.error(why));
        }
        self.context.stream()?;
        let attribute = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: a function of a module that is never unloaded.
        let set =
            unsafe { result::function::set_function_attribute(function, attribute, bytes as i32) };
        let doing = format!("asking for {bytes} bytes of shared memory for kernel `{entry}`");
        self.context.done(&doing, set)
    }
}

/// Whether an error is of the code that is loaded.
fn is_refusal(DriverError(code): DriverError) -> bool {
    use sys::CUresult::*;
    matches!(
        code,
        CUDA_ERROR_INVALID_IMAGE
            | CUDA_ERROR_INVALID_PTX
            | CUDA_ERROR_INVALID_SOURCE
            | CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | CUDA_ERROR_JIT_COMPILER_NOT_FOUND
    )
}

/// Whether POSTERIORI_KERNELS asks for kernels to be compiled now, as it does for builds.
fn only_nvrtc() -> bool {
    std::env::var_os("POSTERIORI_KERNELS").is_some_and(|value| value == "nvrtc")
}
