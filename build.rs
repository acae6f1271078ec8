//! Compiles `kernels/`: with the feature `emu`, for this machine's processors.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=kernels");
    #[cfg(feature = "emu")]
    emu::build();
}

#[cfg(feature = "emu")]
mod emu {
    use std::fs;
    use std::path::{Path, PathBuf};

    /// The emulator and every kernel, as one library whose kernels register themselves.
    pub(super) fn build() {
        let mut emulator = compiler();
        emulator.files(files("kernels/emu", "cpp"));
        let mut kernels = compiler();
        kernels.flag("-x").flag("c++");
        for room in folders("kernels") {
            if !room.ends_with("common") && !room.ends_with("emu") {
                kernels.files(files(room, "cu"));
            }
        }
        // Nothing names the kernels: without this the linker would drop them.
        kernels.link_lib_modifier("+whole-archive");
        kernels.compile("posteriori_kernels");
        emulator.compile("posteriori_emu");
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
        ] {
            build.flag(flag);
        }
        build
    }

    fn folders(root: impl AsRef<Path>) -> Vec<PathBuf> {
        let entries = fs::read_dir(root).expect("kernels/ is part of the package");
        let mut folders: Vec<_> = entries
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.is_dir())
            .collect();
        folders.sort();
        folders
    }

    fn files(folder: impl AsRef<Path>, ending: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("a folder that was just listed");
        let is_kind = |p: &PathBuf| p.extension().is_some_and(|e| e == ending);
        let mut files: Vec<_> = entries
            .flatten()
            .map(|e| e.path())
            .filter(is_kind)
            .collect();
        files.sort();
        files
    }
}
