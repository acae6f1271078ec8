//! The emulator and every kernel, compiled for this machine's processors.

use std::path::Path;

use crate::kernels::{Kernel, files};

/// Makes one library whose kernels register themselves.
pub(crate) fn build(kernels: &[Kernel]) {
    let mut emulator = compiler();
    emulator.files(files(Path::new("kernels/emu"), "cpp"));
    let mut library = compiler();
    library.flag("-x").flag("c++");
    library.files(kernels.iter().map(|kernel| &kernel.path));
    // Nothing names the kernels: without this the linker would drop them.
    library.link_lib_modifier("+whole-archive");
    library.compile("posteriori_kernels");
    emulator.compile("posteriori_emu");
    // For the tests' fake driver, which is linked with both.
    let out = std::env::var("OUT_DIR").expect("cargo sets it");
    println!("cargo:rustc-env=POSTERIORI_EMU={out}");
}

fn compiler() -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .debug(false)
        .include("kernels/common")
        .include("kernels/emu");
    for flag in [
        "-fno-strict-aliasing",
        "-ffp-contract=off",
        "-fno-exceptions",
        "-fstack-clash-protection",
        "-Wno-unknown-pragmas",
        "-Wno-unused-parameter",
        "-Wno-psabi",
    ] {
        build.flag(flag);
    }
    build
}
