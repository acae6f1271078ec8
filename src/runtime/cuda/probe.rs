//! Is there a GPU that can be used? Every reason why not is an error that names what to do.
//!
//! cudarc panics when the driver's library or a symbol of it is missing. So nothing else in this crate calls
//! it before [`Gpu::find`] has looked: for the library, its version, then each symbol that is called later.

use std::ffi::c_int;
use std::path::PathBuf;

use cudarc::driver::sys::CUdevice_attribute::{
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
    CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
};
use cudarc::driver::{DriverError, result, sys};

use crate::error::{Error, Result};
use crate::runtime::kernel::Arch;

/// The oldest driver interface this engine is written for.
const OLDEST_DRIVER: [u32; 2] = [12, 8];

/// The oldest GPUs that have what every kernel takes for granted (cp.async, bf16 tensor cores).
const OLDEST_ARCH: Arch = Arch(80);

/// What is called of the driver.
const SYMBOLS: &[&str] = &[
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncGetParamInfo",
    "cuFuncLoad",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
    "cuTensorMapEncodeTiled",
];

/// A GPU that can be used.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// Its number.
    pub ordinal: usize,
    /// What its maker calls it.
    pub name: String,
    /// Its generation.
    pub arch: Arch,
    /// The driver's interface, as major and minor version.
    pub driver: [u32; 2],
    /// Bytes of memory.
    pub memory: usize,
    /// Bytes of its last cache.
    pub cache: usize,
    /// Bytes of shared memory that a block can have.
    pub shared: usize,
    /// Multiprocessors.
    pub processors: usize,
    pub(super) handle: sys::CUdevice,
}

impl Gpu {
    /// GPU number `ordinal`.
    ///
    /// # Errors
    /// [`Error::Device`] when it cannot be used, with what to do.
    pub fn find(ordinal: usize) -> Result<Self> {
        // The checks leave nothing that panics; should cudarc find something else, it is an error too.
        let found = std::panic::catch_unwind(|| look(ordinal));
        let why = found.unwrap_or_else(|_| {
            Err("the CUDA driver could not be called; update it, or use --device cpu".into())
        });
        why.map_err(|why| Error::Device {
            device: format!("cuda:{ordinal}"),
            why,
        })
    }
}

fn look(ordinal: usize) -> Result<Gpu, String> {
    // SAFETY: looks for a library by name and loads it.
    if !unsafe { sys::is_culib_present() } {
        return Err(
            "there is no CUDA driver (libcuda.so.1) on this machine; install NVIDIA's driver, or use --device cpu"
                .into(),
        );
    }
    let driver = driver_version()?;
    result::init().map_err(no_gpu)?;
    let count = result::device::get_count().map_err(no_gpu)?;
    if ordinal >= usize::try_from(count).unwrap_or(0) {
        let last = count - 1;
        return Err(format!(
            "there is no GPU of this number; this machine has cuda:0 to cuda:{last}"
        ));
    }
    let failed = |e: DriverError| format!("does not answer: {}; try again, or restart it", say(e));
    let handle = result::device::get(ordinal as c_int).map_err(failed)?;
    let attribute = |name| {
        // SAFETY: a device that the driver has just given.
        let value = unsafe { result::device::get_attribute(handle, name) };
        Ok::<_, String>(usize::try_from(value.map_err(failed)?).unwrap_or(0))
    };
    let major = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let name = result::device::get_name(handle).map_err(failed)?;
    let arch = Arch((10 * major + minor) as u32);
    if arch < OLDEST_ARCH {
        return Err(format!(
            "{name} is of the generation {arch}; wanted {OLDEST_ARCH} or newer (Ampere, 2020); use --device cpu"
        ));
    }
    // SAFETY: as above.
    let memory = unsafe { result::device::total_mem(handle) }.map_err(failed)?;
    Ok(Gpu {
        ordinal,
        name,
        arch,
        driver,
        memory,
        cache: attribute(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        shared: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        processors: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        handle,
    })
}

/// The driver's version, if it has everything that is called later.
fn driver_version() -> Result<[u32; 2], String> {
    let lacks = |name: &&&'static str| {
        // SAFETY: the library is there; the symbol is only looked up, not called.
        let found = unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) };
        found.is_err()
    };
    let [major, minor] = OLDEST_DRIVER;
    let fix = format!(
        "update NVIDIA's driver to one for CUDA {major}.{minor} or newer, or use --device cpu"
    );
    let mut version = 0;
    if !lacks(&&"cuDriverGetVersion") {
        // SAFETY: writes one number; the symbol is there.
        unsafe { sys::cuDriverGetVersion(&mut version) }
            .result()
            .map_err(|e| format!("the driver does not tell its version ({}); {fix}", say(e)))?;
    }
    let version = [version as u32 / 1000, version as u32 % 1000 / 10];
    if version < OLDEST_DRIVER {
        let [major, minor] = version;
        return Err(format!("the driver is for CUDA {major}.{minor}; {fix}"));
    }
    match SYMBOLS.iter().find(lacks) {
        Some(name) => Err(format!("the driver has no `{name}`; {fix}")),
        None => Ok(version),
    }
}

fn no_gpu(e: DriverError) -> String {
    let fix = match e.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => {
            "see that the GPU is plugged in and CUDA_VISIBLE_DEVICES does not hide it, or use --device cpu"
        }
        sys::CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            "the driver was updated while loaded: restart the machine"
        }
        _ => "see that `nvidia-smi` works, or use --device cpu",
    };
    format!("the driver gives no GPU: {}; {fix}", say(e))
}

/// What the driver says of an error.
pub(super) fn say(e: DriverError) -> String {
    let text = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(
            |_| format!("{:?}", e.0),
            |t| t.to_string_lossy().into_owned(),
        )
    };
    format!("{} ({})", text(e.error_string()), text(e.error_name()))
}

/// The file that a library of this process was loaded from, where the system says so (Linux).
pub fn loaded_from(library: &str) -> Option<PathBuf> {
    all_loaded(library).into_iter().next()
}

/// Every file of that name, of one version or several.
pub(super) fn all_loaded(library: &str) -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let paths = maps
        .lines()
        .filter_map(|line| line.find('/').map(|i| &line[i..]));
    let named = |path: &&str| {
        path.rsplit('/')
            .next()
            .is_some_and(|file| file.starts_with(library))
    };
    let mut paths: Vec<PathBuf> = paths.filter(named).map(PathBuf::from).collect();
    paths.dedup();
    paths
}
