//! The emulator and every kernel, compiled for this machine's processors.
//!
//! Objects are kept by content in a folder that lints and tests share, which run this apart. Cargo lets one build at a
//! time into the folder around it.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kernels::{Kernel, files, headers};

/// Makes one library whose kernels register themselves.
pub(crate) fn build(kernels: &[Kernel]) {
    let out = env::var("OUT_DIR").expect("cargo sets it");
    // OUT_DIR is target/<profile>/build/<package>/out; features and lints change <package>.
    let profile = Path::new(&out).ancestors().nth(3).unwrap_or(out.as_ref());
    let folder = profile.join("posteriori-emu");
    fs::create_dir_all(&folder).expect("the target directory can be written");

    let emulator = objects(compiler(), files(Path::new("kernels/emu"), "cpp"), &folder);
    let mut as_cpp = compiler();
    as_cpp.flag("-x").flag("c++");
    let sources = kernels.iter().map(|kernel| kernel.path.clone()).collect();
    let kernels = objects(as_cpp, sources, &folder);

    // Nothing names the kernels: without this the linker would drop them.
    let mut library = compiler();
    library.link_lib_modifier("+whole-archive");
    library.objects(&kernels).compile("posteriori_kernels");
    compiler().objects(&emulator).compile("posteriori_emu");
    // For the tests' fake driver, which is linked with both.
    println!("cargo:rustc-env=POSTERIORI_EMU={out}");

    let kept = [emulator, kernels].concat();
    for old in files(&folder, "o").iter().filter(|o| !kept.contains(o)) {
        fs::remove_file(old).expect("the target directory can be written");
    }
}

/// The objects of some files, in a folder, where those stay that were there.
fn objects(mut compiler: cc::Build, sources: Vec<PathBuf>, folder: &Path) -> Vec<PathBuf> {
    let tool = compiler.get_compiler();
    let version = Command::new(tool.path()).arg("--version").output();
    let mut key = DefaultHasher::new();
    (tool.path(), tool.args()).hash(&mut key);
    version.map_or(vec![], |said| said.stdout).hash(&mut key);
    for header in [headers(), files(Path::new("kernels/emu"), "h")].concat() {
        (&header, read(&header)).hash(&mut key);
    }
    let object = |source: &PathBuf| {
        let mut key = key.clone();
        (source, read(source)).hash(&mut key);
        let name = source.to_string_lossy().replace(['/', '\\'], "-");
        folder.join(format!("{name}-{:016x}.o", key.finish()))
    };
    let objects: Vec<_> = sources.iter().map(object).collect();
    let all = sources.iter().zip(&objects);
    let missing: Vec<_> = all.filter(|(_, object)| !object.is_file()).collect();
    if !missing.is_empty() {
        compiler.files(missing.iter().map(|(source, _)| source));
        let made = compiler.compile_intermediates();
        for (made, (_, object)) in made.iter().zip(&missing) {
            fs::rename(made, object).expect("both are in the target directory");
        }
    }
    objects
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("a file that was just listed")
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
        "-ftls-model=initial-exec",
        "-Wno-unknown-pragmas",
        "-Wno-unused-parameter",
        "-Wno-psabi",
    ] {
        build.flag(flag);
    }
    build
}
