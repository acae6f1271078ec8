//! Prepares `kernels/`: with the feature `cuda` as a table of sources and, where nvcc is found, fatbins; with
//! the feature `emu` compiled for this machine's processors.

#[cfg(feature = "emu")]
#[path = "build/emu.rs"]
mod emu;
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
#[path = "build/kernels.rs"]
mod kernels;
#[cfg(feature = "cuda")]
#[path = "build/nvcc.rs"]
mod nvcc;

fn main() {
    for path in ["build.rs", "build", "kernels"] {
        println!("cargo:rerun-if-changed={path}");
    }
    let _kernels = kernels::all();
    #[cfg(feature = "cuda")]
    {
        let out = std::env::var_os("OUT_DIR").expect("cargo sets it");
        let out = std::path::Path::new(&out);
        kernels::write_table(&_kernels, &nvcc::fatbins(&_kernels, out), out);
    }
    #[cfg(feature = "emu")]
    emu::build(&_kernels);
}
