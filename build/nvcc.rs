//! Fatbins: every kernel compiled for the GPUs that people have, where there is an nvcc.
//!
//! They are kept by content in a folder of the target directory that all builds share. No nvcc is no error:
//! the library then compiles the same sources at run time. An error of nvcc is one.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::kernels::{Kernel, headers};

/// The GPUs that get code of their own, if the environment does not choose among them; others of their generation run it too, newer
/// ones compile the PTX.
const ARCHS: [&str; 5] = ["80", "89", "90a", "100", "120"];

/// The oldest nvcc that knows all of these.
const OLDEST: [u32; 2] = [12, 8];

const FLAGS: [&str; 7] = [
    "--compress-mode=size",
    "-fatbin",
    "-O3",
    "-std=c++17",
    "-lineinfo",
    "-m64",
    "-Ikernels/common",
];

/// The fatbin of each kernel; `None` for all of them without nvcc.
pub(crate) fn fatbins(kernels: &[Kernel], out: &Path) -> Vec<Option<PathBuf>> {
    let Some(nvcc) = find() else {
        return vec![None; kernels.len()];
    };
    let nvcc = &nvcc;
    // OUT_DIR is target/<profile>/build/<package>/out; features change <package>.
    let target = out.ancestors().nth(4).unwrap_or(out);
    let folder = &target.join("posteriori-kernels");
    fs::create_dir_all(folder).expect("the target directory can be written");
    let made: Vec<OnceLock<PathBuf>> = kernels.iter().map(|_| OnceLock::new()).collect();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((kernel, made)) = {
            let i = next.fetch_add(1, Ordering::Relaxed);
            kernels.get(i).zip(made.get(i))
        } {
            match nvcc.fatbin(kernel, folder) {
                Ok(path) => made.set(path).expect("each index is taken once"),
                Err(why) => failures.lock().expect("no push panics").push(why),
            }
        }
    };
    let jobs = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok());
    std::thread::scope(|scope| {
        for _ in 0..jobs.unwrap_or(1) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().expect("no push panics");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    made.into_iter().map(OnceLock::into_inner).collect()
}

struct Nvcc {
    path: PathBuf,
    version: String,
    archs: Vec<&'static str>,
    /// More flags, from the environment.
    flags: Vec<String>,
}

/// The first nvcc of the usual places, unless the environment wants none.
fn find() -> Option<Nvcc> {
    let variable = |name: &str| {
        println!("cargo:rerun-if-env-changed={name}");
        env::var_os(name).filter(|value| !value.is_empty())
    };
    let unwanted = variable("POSTERIORI_KERNELS").is_some_and(|value| value == "nvrtc");
    let flags = variable("POSTERIORI_NVCC_FLAGS").unwrap_or_default();
    let archs = variable("POSTERIORI_NVCC_ARCHS");
    let named = ["POSTERIORI_NVCC", "NVCC", "CUDACXX"].map(variable);
    let path = variable("PATH").unwrap_or_default();
    let roots = ["CUDA_HOME", "CUDA_PATH"].map(variable);
    if unwanted || variable("DOCS_RS").is_some() {
        return None;
    }
    let name = format!("nvcc{}", env::consts::EXE_SUFFIX);
    let roots = roots.into_iter().flatten().map(PathBuf::from);
    let in_roots = roots
        .chain([PathBuf::from("/usr/local/cuda")])
        .map(|root| root.join("bin").join(&name));
    let path = named
        .into_iter()
        .flatten()
        .map(PathBuf::from)
        .chain(env::split_paths(&path).map(|folder| folder.join(&name)))
        .chain(in_roots)
        .find(|path| path.is_file())?;
    let output = Command::new(&path).arg("--version").output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    if release(&version)? < OLDEST {
        println!(
            "cargo:warning={} is older than {}.{}: kernels will be compiled at run time",
            path.display(),
            OLDEST[0],
            OLDEST[1]
        );
        return None;
    }
    let flags = flags.to_string_lossy();
    Some(Nvcc {
        path,
        version,
        archs: archs.map_or(ARCHS.to_vec(), |names| chosen(&names.to_string_lossy())),
        flags: flags.split_whitespace().map(String::from).collect(),
    })
}

/// Those of [`ARCHS`] that a list names, in the order of these.
fn chosen(names: &str) -> Vec<&'static str> {
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    if let Some(other) = names.iter().find(|name| !ARCHS.contains(name)) {
        let all = ARCHS.join(",");
        panic!("POSTERIORI_NVCC_ARCHS: wanted some of {all}, got `{other}`");
    }
    ARCHS
        .into_iter()
        .filter(|arch| names.contains(arch))
        .collect()
}

/// `[13, 0]` of "…, release 13.0, V13.0.88".
fn release(version: &str) -> Option<[u32; 2]> {
    let (_, rest) = version.split_once("release ")?;
    let (number, _) = rest.split_once(',')?;
    let (major, minor) = number.split_once('.')?;
    Some([major.parse().ok()?, minor.parse().ok()?])
}

impl Nvcc {
    fn args(&self, kernel: &Kernel) -> Vec<String> {
        let mut args: Vec<String> = FLAGS.map(String::from).to_vec();
        if kernel.hopper {
            args.push(code("90a", "sm"));
            return args;
        }
        args.extend(self.archs.iter().map(|arch| code(arch, "sm")));
        args.extend(self.archs.first().map(|oldest| code(oldest, "compute")));
        args
    }

    /// Compiles a kernel, unless that was done before.
    fn fatbin(&self, kernel: &Kernel, folder: &Path) -> Result<PathBuf, String> {
        let args = [self.args(kernel), self.flags.clone()].concat();
        let mut key = DefaultHasher::new();
        (&args, &self.version).hash(&mut key);
        for path in headers().iter().chain([&kernel.path]) {
            fs::read(path)
                .expect("a file that was just listed")
                .hash(&mut key);
        }
        let name = format!("{}-{:016x}", kernel.name.replace('/', "-"), key.finish());
        let fatbin = folder.join(format!("{name}.fatbin"));
        if fatbin.is_file() {
            return Ok(fatbin);
        }
        let unfinished = folder.join(format!("{name}.{}", std::process::id()));
        let output = Command::new(&self.path)
            .args(&args)
            .arg("-o")
            .arg(&unfinished)
            .arg(&kernel.path)
            .output();
        let (file, nvcc) = (kernel.path.display(), self.path.display());
        let output = output.map_err(|e| format!("{nvcc} on {file}: {e}"))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        if !output.status.success() {
            return Err(format!("{nvcc} failed on {file}:\n{said}"));
        }
        // ptxas only mentions that it has put wgmma one after another, or does not move registers between warps.
        if said.contains("(C75") {
            let strict = self.flags.iter().any(|flag| flag.contains("-Werror"));
            match strict {
                true => return Err(format!("{nvcc} makes slow code of {file}:\n{said}")),
                false => println!(
                    "cargo:warning={nvcc} makes slow code of {file}: {}",
                    said.trim()
                ),
            }
        }
        fs::rename(&unfinished, &fatbin).map_err(|e| format!("{}: {e}", fatbin.display()))?;
        Ok(fatbin)
    }
}

/// Code for an architecture, as machine code (`sm`) or PTX (`compute`).
fn code(arch: &str, kind: &str) -> String {
    format!("-gencode=arch=compute_{arch},code={kind}_{arch}")
}
