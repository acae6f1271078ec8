//! NVRTC: NVIDIA's compiler as a library. It makes code of the sources in this library, with no file at all.

use std::env;
use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

use cudarc::nvrtc::sys;
use libloading::Library;

use super::modules::Module;
use super::probe::{all_loaded, loaded_from};
use crate::runtime::kernel::Arch;

/// What kernels are compiled with, besides the architecture.
pub(super) const FLAGS: [&str; 2] = ["--std=c++17", "-lineinfo"];

/// The compiler.
#[derive(Clone, Debug)]
pub struct Nvrtc {
    /// Major and minor.
    pub version: [i32; 2],
    /// The rule that found it: a variable, a folder, or the loader's own search.
    pub rule: String,
    /// The file, where the system says which.
    pub path: Option<PathBuf>,
    archs: Vec<u32>,
}

/// Compiling can fail in the source and around it; either way this is a sentence for an error.
type Result<T> = std::result::Result<T, String>;

impl Nvrtc {
    /// The first NVRTC of the usual places. The search happens once in a process.
    ///
    /// # Errors
    /// A sentence, when there is none.
    pub fn find() -> Result<&'static Nvrtc> {
        static FOUND: OnceLock<Result<Nvrtc>> = OnceLock::new();
        FOUND.get_or_init(look).as_ref().map_err(String::clone)
    }

    /// The architecture to compile for: the GPU's own, or the newest older one of its generation that this
    /// NVRTC knows.
    pub fn arch_for(&self, gpu: Arch) -> Result<String> {
        let fits = |known: &&u32| **known / 10 == gpu.0 / 10 && **known <= gpu.0;
        match self.archs.iter().filter(fits).max() {
            Some(90) => Ok("sm_90a".into()),
            Some(known) => Ok(format!("sm_{known}")),
            None => {
                let [major, minor] = self.version;
                Err(format!(
                    "NVRTC {major}.{minor} does not know {gpu}; `pip install --upgrade nvidia-cuda-nvrtc`"
                ))
            }
        }
    }

    /// Compiles a file for `arch`.
    ///
    /// # Errors
    /// What the compiler said.
    pub fn compile(&self, module: &Module, arch: &str) -> Result<Vec<u8>> {
        self.program(module, arch, &[])?.cubin()
    }

    /// A file compiled for `arch` with more options.
    pub(super) fn program(&self, module: &Module, arch: &str, more: &[&str]) -> Result<Program> {
        let program = Program::new(module)?;
        let arch = format!("--gpu-architecture={arch}");
        let options = FLAGS.iter().chain(more).copied().chain([arch.as_str()]);
        program.compile(&options.map(text).collect::<Vec<_>>())?;
        Ok(program)
    }
}

fn look() -> Result<Nvrtc> {
    let rule = preload()?;
    let (mut major, mut minor, mut count) = (0, 0, 0);
    // SAFETY: the library is loaded; each call writes one or two numbers.
    let asked = unsafe {
        done(sys::nvrtcVersion(&mut major, &mut minor))
            .and_then(|()| done(sys::nvrtcGetNumSupportedArchs(&mut count)))
    };
    asked?;
    let mut archs = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: as many numbers as it has just said.
    done(unsafe { sys::nvrtcGetSupportedArchs(archs.as_mut_ptr()) })?;
    Ok(Nvrtc {
        version: [major, minor],
        rule,
        path: loaded_from("libnvrtc.so"),
        archs: archs
            .into_iter()
            .filter_map(|a| u32::try_from(a).ok())
            .collect(),
    })
}

/// Loads the library so that cudarc finds it loaded, and tells the rule that found it.
fn preload() -> Result<String> {
    // SAFETY: looks for a library by name and loads it.
    let present = || unsafe { sys::is_culib_present() };
    let variable = |name: &str| {
        let value = env::var_os(name).filter(|v| !v.is_empty());
        value.map(PathBuf::from)
    };
    if let Some(named) = variable("POSTERIORI_NVRTC") {
        let folder = match named.is_dir() {
            true => Some(named.as_path()),
            false => named.parent(),
        };
        let named = named.display();
        if !(folder.is_some_and(load_from) && present()) {
            return Err(format!("POSTERIORI_NVRTC: no libnvrtc in {named}"));
        }
        // cudarc has opened a second one where the loader's search path has that.
        return match all_loaded("libnvrtc.so").as_slice() {
            [] | [_] => Ok("POSTERIORI_NVRTC".into()),
            both => Err(format!(
                "POSTERIORI_NVRTC: wanted that of {named} alone, the loader's search path has another ({both:?}); take \
                 it off LD_LIBRARY_PATH"
            )),
        };
    }
    if present() {
        return Ok("the loader's search path".into());
    }
    let roots = ["CUDA_HOME", "CUDA_PATH"].into_iter();
    let roots = roots.filter_map(|name| Some((name, variable(name)?)));
    let toolkits = roots.chain([("/usr/local/cuda", "/usr/local/cuda".into())]);
    let toolkits = toolkits.map(|(rule, root): (_, PathBuf)| (rule, root.join("lib64")));
    let packages = variable("VIRTUAL_ENV")
        .into_iter()
        .flat_map(|venv| site_packages(&venv));
    let packages = packages.map(|folder| ("VIRTUAL_ENV", folder));
    let mut places = toolkits.chain(packages);
    let found = places.find(|(_, folder)| load_from(folder) && present());
    let (rule, _) = found.ok_or("libnvrtc was not found")?;
    Ok(rule.into())
}

/// Where pip puts NVRTC in a virtual environment.
fn site_packages(venv: &Path) -> Vec<PathBuf> {
    let pythons = std::fs::read_dir(venv.join("lib"))
        .into_iter()
        .flatten()
        .flatten();
    let inside = |python: std::fs::DirEntry| {
        let nvidia = python.path().join("site-packages/nvidia");
        ["cu13/lib", "cuda_nvrtc/lib"].map(|below| nvidia.join(below))
    };
    pythons.flat_map(inside).collect()
}

/// Loads libnvrtc of a folder, with what it needs first: it would look for that on the loader's path only.
fn load_from(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    let load = |start: &str| {
        let name = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(start)
        };
        let found = files.iter().find(name)?;
        // SAFETY: NVIDIA's libraries have no initialiser that matters. They stay loaded: this is leaked.
        let library = unsafe { Library::new(found) }.ok()?;
        std::mem::forget(library);
        Some(())
    };
    load("libnvrtc-builtins.so");
    load("libnvrtc.so").is_some()
}

/// A file that is being compiled.
pub(super) struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed only here. Nobody is there for an error.
        unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

impl Program {
    fn new(module: &Module) -> Result<Self> {
        let (source, name) = (
            text(module.source),
            text(&format!("kernels/{}.cu", module.name)),
        );
        let headers: Vec<CString> = Module::headers().iter().map(|(_, h)| text(h)).collect();
        let names: Vec<CString> = Module::headers()
            .iter()
            .map(|(name, _)| text(name))
            .collect();
        let (headers, names) = (pointers(&headers), pointers(&names));
        let mut program = ptr::null_mut();
        // SAFETY: NUL-terminated texts that live through the call, as many of both kinds as said.
        done(unsafe {
            sys::nvrtcCreateProgram(
                &mut program,
                source.as_ptr(),
                name.as_ptr(),
                headers.len() as i32,
                headers.as_ptr(),
                names.as_ptr(),
            )
        })?;
        Ok(Program(program))
    }

    fn compile(&self, options: &[CString]) -> Result<()> {
        let options = pointers(options);
        // SAFETY: as many NUL-terminated texts as said.
        let compiled =
            unsafe { sys::nvrtcCompileProgram(self.0, options.len() as i32, options.as_ptr()) };
        done(compiled).map_err(|why| format!("{why}\n{}", self.log()))
    }

    fn cubin(&self) -> Result<Vec<u8>> {
        self.bytes(sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN)
    }

    /// The PTX on the way to the code.
    pub(super) fn ptx(&self) -> Result<String> {
        let ptx = self.bytes(sys::nvrtcGetPTXSize, sys::nvrtcGetPTX)?;
        Ok(String::from_utf8_lossy(&ptx).into_owned())
    }

    /// What the compiler said.
    pub(super) fn log(&self) -> String {
        let log = self.bytes(sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog);
        let log = log.unwrap_or_default();
        String::from_utf8_lossy(&log).trim_end_matches('\0').into()
    }

    /// What two functions of NVRTC tell of a program: how much there is, and all of it.
    fn bytes(&self, size: Size, get: Get) -> Result<Vec<u8>> {
        let mut len = 0;
        // SAFETY: writes one number.
        done(unsafe { size(self.0, &mut len) })?;
        let mut bytes = vec![0u8; len];
        // SAFETY: as many bytes as it has just said.
        done(unsafe { get(self.0, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

type Size = unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult;
type Get = unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult;

fn text(text: &str) -> CString {
    CString::new(text).expect("sources and options hold no NUL")
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).collect()
}

fn done(result: sys::nvrtcResult) -> Result<()> {
    if result == sys::nvrtcResult::NVRTC_SUCCESS {
        return Ok(());
    }
    // SAFETY: a constant text for every result.
    let said = unsafe { CStr::from_ptr(sys::nvrtcGetErrorString(result)) };
    Err(format!("NVRTC: {}", said.to_string_lossy()))
}
