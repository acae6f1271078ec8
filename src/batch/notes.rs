//! What files were made of, in a small file beside them, and who is at work on them: what goes on must agree with the one and
//! hold the other.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::io::atomic::{failed, write_atomic};

/// What something was made of: names and texts.
pub(crate) type Notes = BTreeMap<String, String>;

/// A number as notes have it.
pub(crate) fn hex(number: u64) -> String {
    format!("{number:016x}")
}

/// The notes in a file; none when it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<Notes>> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|e| Error::file(path, format!("cannot be read: {e}")))?,
    };
    let notes = serde_json::from_str(&text);
    notes.map_err(|e| Error::file(path, format!("is damaged: {e}; choose another folder")))
}

/// Writes them, and makes the folder that they go into.
pub(crate) fn write(path: &Path, notes: &Notes) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder)
        .map_err(|e| Error::written(folder, "the folder cannot be made", &e))?;
    let cannot = |e: serde_json::Error| Error::file(path, format!("cannot be written: {e}"));
    let text = serde_json::to_string_pretty(notes).map_err(cannot)? + "\n";
    write_atomic(path, |w| w.write_all(text.as_bytes()).map_err(failed(path)))
}

/// Refuses what would not fit to what is there, by the name of the first difference.
pub(crate) fn agree(path: &Path, there: &Notes, now: &Notes, way: &str) -> Result<()> {
    let absent = || "none".to_owned();
    for name in there.keys().chain(now.keys()) {
        let [had, have] = [there, now].map(|notes| notes.get(name).cloned().unwrap_or_else(absent));
        if had != have {
            let path = path.display();
            let why = format!("wanted {had}, as it was when {path} was written, got {have}; {way}");
            return Err(Error::argument(name, why));
        }
    }
    Ok(())
}

/// A file by which a folder is one process's. It goes with it; one that a killed process left is nobody's.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _held: File,
}

impl Lock {
    /// Holds the file, which is made; its folder is there.
    ///
    /// # Errors
    /// [`Error::File`] with `why` when another process holds it, or when it cannot be made.
    pub(crate) fn take(path: PathBuf, why: &str) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        loop {
            let file = options.open(&path).map_err(failed(&path))?;
            // Some shared file systems have no locks.
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                return Err(Error::file(&path, why));
            }
            // Who had it may have removed it after it was opened here.
            if path.exists() {
                return Ok(Lock { path, _held: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // It does no harm if it stays.
        drop(std::fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inner/notes.json");
        assert_eq!(read(&path).unwrap(), None);
        let notes = |seed: &str| Notes::from([("--seed".to_owned(), seed.to_owned())]);
        write(&path, &notes("1")).unwrap();
        let there = read(&path).unwrap().unwrap();
        agree(&path, &there, &notes("1"), "stop").unwrap();
        for (now, got) in [
            (notes("2"), "got 2; stop"),
            (Notes::new(), "got none; stop"),
        ] {
            let error = agree(&path, &there, &now, "stop").unwrap_err().to_string();
            let named = error.starts_with("--seed: wanted 1") && error.ends_with(got);
            assert!(named, "{error}");
        }
        std::fs::write(&path, "{").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("is damaged"));
    }

    #[test]
    fn a_lock_is_held_once_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        // As a killed process leaves it.
        std::fs::write(&path, "").unwrap();
        let first = Lock::take(path.clone(), "taken").unwrap();
        let second = Lock::take(path.clone(), "taken").unwrap_err();
        assert!(second.to_string().contains(".lock: taken"), "{second}");
        drop(first);
        assert!(!path.exists());
        drop(Lock::take(path, "taken").unwrap());
    }
}
