//! What is in `kernels/`, and the table of it that the library is built with.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// One `.cu` file.
pub(crate) struct Kernel {
    /// Its path under `kernels/`, without endings: `add/fwd_1_plain`.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Named `*.sm90a.cu`: only Hopper takes it.
    pub(crate) hopper: bool,
}

/// Every `.cu` file, by name.
pub(crate) fn all() -> Vec<Kernel> {
    let entries = fs::read_dir("kernels").expect("kernels/ is part of the package");
    let folders = entries.flatten().map(|entry| entry.path());
    let mut kernels: Vec<Kernel> = folders
        .filter(|folder| folder.is_dir())
        .flat_map(|folder| files(&folder, "cu"))
        .map(Kernel::at)
        .collect();
    kernels.sort_by(|a, b| a.name.cmp(&b.name));
    kernels
}

impl Kernel {
    fn at(path: PathBuf) -> Self {
        let below = path.strip_prefix("kernels").expect("listed from there");
        let slashed = below.to_string_lossy().replace('\\', "/");
        let stem = slashed.trim_end_matches(".cu");
        let generic = stem.trim_end_matches(".sm90a");
        Kernel {
            name: generic.to_owned(),
            hopper: generic != stem,
            path,
        }
    }
}

/// The headers that kernels include.
pub(crate) fn headers() -> Vec<PathBuf> {
    files(Path::new("kernels/common"), "cuh")
}

/// The files of a folder with this ending, by name.
pub(crate) fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of kernels/");
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .collect();
    files.sort();
    files
}

/// Writes `modules.rs`: every source, with its fatbin where there is one, and every header.
pub(crate) fn write_table(kernels: &[Kernel], fatbins: &[Option<PathBuf>], out: &Path) {
    let mut text = String::from("static MODULES: &[Module] = &[\n");
    for (Kernel { name, path, hopper }, fatbin) in kernels.iter().zip(fatbins) {
        let fatbin = match fatbin {
            Some(path) => format!("Some(include_bytes!({path:?}))"),
            None => "None".into(),
        };
        let source = absolute(path);
        writeln!(
            text,
            "Module {{ name: {name:?}, hopper: {hopper}, source: include_str!({source:?}), fatbin: {fatbin} }},"
        )
        .expect("strings take everything");
    }
    text.push_str("];\nstatic HEADERS: &[(&str, &str)] = &[\n");
    for path in headers() {
        let name = path.file_name().expect("a file").to_string_lossy();
        let source = absolute(&path);
        writeln!(text, "({name:?}, include_str!({source:?})),").expect("strings take everything");
    }
    text.push_str("];\n");
    fs::write(out.join("modules.rs"), text).expect("OUT_DIR can be written");
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).expect("the package has a folder")
}
