//! The folder for what can be made again: compiled kernels, the embedded prior.

use std::env;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// `POSTERIORI_CACHE`, or the user's folder for such things.
///
/// # Errors
/// [`Error::Argument`] when the environment names no such folder.
pub fn folder() -> Result<PathBuf> {
    let folder = |variable: &str| {
        let set = env::var_os(variable).filter(|v| !v.is_empty());
        set.map(PathBuf::from)
    };
    let users = || {
        let home = || folder("HOME").map(|home| home.join(".cache"));
        let caches = folder("XDG_CACHE_HOME").or_else(|| folder("LOCALAPPDATA"));
        caches.or_else(home).map(|caches| caches.join("posteriori"))
    };
    folder("POSTERIORI_CACHE").or_else(users).ok_or_else(|| {
        let why = "wanted a folder for files that can be made again, none is known; set it";
        Error::argument("POSTERIORI_CACHE", why)
    })
}
