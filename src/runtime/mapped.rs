//! A file mapped read-only into memory.
//! Weights are read through it, so that a checkpoint larger than memory opens at once and is
//! never copied on the host.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

/// A multiple of every page size in use (4, 16 and 64 KiB): [`Mapped::forget`] works on these.
#[cfg(unix)]
const PAGE: usize = 64 << 10;

/// A read-only mapping of a whole file, shared by everything that reads from it.
///
/// The file must not be shortened or written to in place while it is mapped. This crate never does:
/// it writes by renaming a finished file over the old one, which leaves the mapping intact.
#[derive(Debug)]
pub struct Mapped {
    map: memmap2::Mmap,
    path: PathBuf,
}

impl Mapped {
    /// Maps the file. A missing file, a folder and an empty file are errors.
    pub fn open(path: impl AsRef<Path>) -> Result<Arc<Self>> {
        let path = path.as_ref();
        let failed = |e: std::io::Error| Error::file(path, format!("cannot be opened: {e}"));
        let meta = std::fs::metadata(path).map_err(failed)?;
        if meta.is_dir() {
            return Err(Error::file(path, "wanted a file, this is a folder"));
        }
        if !meta.is_file() {
            return Err(Error::file(path, "wanted a regular file to map"));
        }
        let file = File::open(path).map_err(failed)?;
        if meta.len() == 0 {
            return Err(Error::file(
                path,
                "the file is empty (0 bytes); download or copy it again",
            ));
        }
        // SAFETY: the mapping is read-only and private to this struct. Bytes change under it only if another
        // process writes the file in place, which the struct's contract rules out.
        let map = unsafe { memmap2::Mmap::map(&file) }
            .map_err(|e| Error::file(path, format!("cannot be mapped into memory: {e}")))?;
        Ok(Arc::new(Mapped {
            map,
            path: path.to_owned(),
        }))
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The file, as it was named when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the system that the whole pages inside `range` will not be needed soon. Reading them again is
    /// correct, and reads the disk. Does nothing when no whole page lies inside, or off unix.
    pub fn forget(&self, range: Range<usize>) {
        #[cfg(unix)]
        {
            let end = range.end.min(self.map.len()) / PAGE * PAGE;
            let Some(start) = range.start.checked_next_multiple_of(PAGE) else {
                return;
            };
            if start < end {
                // SAFETY: start..end lies inside the mapping and is made of whole pages. The mapping is file-backed
                // and was never written to, so a dropped page comes back from the file with the same bytes.
                let advised = unsafe {
                    self.map.unchecked_advise_range(
                        memmap2::UncheckedAdvice::DontNeed,
                        start,
                        end - start,
                    )
                };
                // Advice only: the pages stay resident when the system declines it.
                drop(advised);
            }
        }
        #[cfg(not(unix))]
        drop(range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_and_forgets_without_changing_a_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        let bytes: Vec<u8> = (0..300_001u32).map(|i| (i * 7 % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let mapped = Mapped::open(&path).unwrap();
        assert_eq!(mapped.bytes(), bytes);
        for range in [
            0..300_001,
            1..300_000,
            0..10,
            5..5,
            299_999..usize::MAX,
            usize::MAX..usize::MAX,
        ] {
            mapped.forget(range);
            assert_eq!(mapped.bytes(), bytes);
        }
        // Replacing the file by rename leaves the mapping as it was.
        std::fs::write(dir.path().join("v"), b"other").unwrap();
        std::fs::rename(dir.path().join("v"), &path).unwrap();
        mapped.forget(0..300_001);
        assert_eq!(mapped.bytes(), bytes);
    }

    #[test]
    fn refuses_what_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let text = |p: &Path| Mapped::open(p).unwrap_err().to_string();
        assert!(text(&dir.path().join("none")).contains("none: cannot be opened"));
        assert!(text(dir.path()).contains("folder"));
        let empty = dir.path().join("empty");
        std::fs::write(&empty, b"").unwrap();
        assert!(text(&empty).contains("empty"));
    }
}
