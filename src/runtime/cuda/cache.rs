//! Compiled kernels that are kept from one run to the next.
//!
//! A file's name holds a hash of everything its code depends on, so that a file is never out of date; its
//! content begins with a hash of the code, so that a damaged one is noticed, and made anew.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

use super::modules::Module;
use super::nvrtc::FLAGS;
use crate::io::cache;

/// Where the code of one file for one GPU is kept.
#[derive(Debug)]
pub(super) struct Cache {
    path: Result<PathBuf, String>,
}

impl Cache {
    /// The code that this NVRTC makes of a file for `arch`.
    pub(super) fn for_code(module: &Module, arch: &str, nvrtc: [i32; 2]) -> Self {
        let key = hash((module.source, Module::headers(), arch, nvrtc, FLAGS));
        let name = format!("{}-{arch}-{key:016x}.cubin", module.name.replace('/', "-"));
        Cache {
            path: cache::folder()
                .map(|folder| folder.join(name))
                .map_err(|e| e.to_string()),
        }
    }

    /// The code, if it is there and whole.
    pub(super) fn read(&self) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.path.as_ref().ok()?).ok()?;
        let sum = u64::from_le_bytes(*bytes.first_chunk()?);
        let code = bytes.split_off(size_of::<u64>());
        (hash(&code) == sum).then_some(code)
    }

    /// Keeps code.
    ///
    /// # Errors
    /// A sentence, when the folder cannot be written.
    pub(super) fn write(&self, code: &[u8]) -> Result<(), String> {
        let path = self.path.clone()?;
        let failed = |e: std::io::Error| format!("{}: {e}; set POSTERIORI_CACHE", path.display());
        let folder = path.parent().expect("a file in a folder");
        fs::create_dir_all(folder).map_err(failed)?;
        // Under another name first: another process never sees half of it.
        let unfinished = path.with_extension(std::process::id().to_string());
        fs::write(&unfinished, [&hash(code).to_le_bytes(), code].concat()).map_err(failed)?;
        fs::rename(&unfinished, &path).map_err(failed)
    }
}

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
