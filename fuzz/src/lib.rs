//! What the targets share: inputs cut into files, and a folder for those that the library reads by path.

use std::fs;
use std::path::{Path, PathBuf};

/// What stands between two files of one input.
pub const CUT: &[u8] = b"\0---\0";

/// An input as so many files; those that are missing are empty, the last takes the rest.
pub fn files<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut rest = Some(input);
    std::array::from_fn(|i| {
        let all = rest.take().unwrap_or_default();
        let cut = all.windows(CUT.len()).position(|w| w == CUT);
        match cut.filter(|_| i + 1 < N) {
            Some(at) => {
                rest = Some(&all[at + CUT.len()..]);
                &all[..at]
            }
            None => all,
        }
    })
}

/// A folder of this process, where TMPDIR says: best in memory.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Folder {
    /// The folder, made.
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("posteriori-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the folder can be made");
        Folder(folder)
    }

    /// Writes a file and returns its path.
    pub fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        if fs::write(&path, bytes).is_err() {
            let parent = path.parent().unwrap_or(&self.0);
            fs::create_dir_all(parent).expect("the folder can be made");
            fs::write(&path, bytes).expect("the file can be written");
        }
        path
    }

    /// The same; of no bytes no file at all, and no folder if it was the only one.
    pub fn put_some(&self, name: &str, bytes: &[u8]) {
        let path = self.0.join(name);
        if !bytes.is_empty() {
            self.put(name, bytes);
        } else if fs::remove_file(&path).is_ok() {
            path.parent().and_then(|parent| fs::remove_dir(parent).ok());
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// What an error says is a sentence of at least some words, whatever was fed.
pub fn told<T>(result: posteriori::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(error.to_string().len() > 10, "{error:?}");
            None
        }
    }
}
