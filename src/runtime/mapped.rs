//! A file mapped read-only into memory.
//! Weights are read through it, so that a checkpoint larger than memory opens at once and is
//! never copied on the host.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

/// A multiple of every page size in use (4, 16 and 64 KiB).
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
        Self::map(&file, path)
    }

    /// A new file in `folder` with these bytes and no name: it is gone when the mapping is.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be written or mapped, as on a disk that is full.
    pub fn nameless(folder: &Path, bytes: &[u8]) -> Result<Arc<Self>> {
        let written =
            tempfile::tempfile_in(folder).and_then(|mut file| file.write_all(bytes).map(|()| file));
        let file = written.map_err(|e| {
            let why = format!(
                "{} bytes of weights cannot be put there: {e}; wanted a folder on a disk with room",
                bytes.len()
            );
            Error::file(folder, why)
        })?;
        Self::map(&file, folder)
    }

    fn map(file: &File, path: &Path) -> Result<Arc<Self>> {
        // SAFETY: the mapping is read-only and private to this struct. Bytes change under it only if another
        // process writes the file in place, which the struct's contract rules out.
        let map = unsafe { memmap2::Mmap::map(file) }
            .map_err(|e| Error::file(path, format!("cannot be mapped into memory: {e}")))?;
        let path = path.to_owned();
        Ok(Arc::new(Mapped { map, path }))
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The file, as it was named when it was opened; of one without a name, its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Brings the pages of `range` into this process's memory at once, which takes less time than one by one as they are read.
    /// Does nothing off Linux.
    pub fn fetch(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        if let Some((start, len)) = self.pages(&range) {
            let advice = memmap2::Advice::PopulateRead;
            // Advice only: Linux takes it from 5.14 on.
            drop(self.map.advise_range(advice, start, len));
        }
        #[cfg(not(target_os = "linux"))]
        drop(range);
    }

    /// Takes the pages of `range` out of this process's memory. Reading them again is correct: they come from the system's
    /// cache, or from the disk. Does nothing off unix.
    pub fn forget(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some((start, len)) = self.pages(&range) {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the pages lie inside the mapping, which is file-backed and was never written to, so a dropped page
            // comes back from the file with the same bytes.
            let advised = unsafe { self.map.unchecked_advise_range(advice, start, len) };
            // Advice only: the pages stay resident when the system declines it.
            drop(advised);
        }
        #[cfg(not(unix))]
        drop(range);
    }

    /// Where the pages that a range touches begin, and how many bytes of the file they are; `None` of an empty range.
    #[cfg(unix)]
    fn pages(&self, range: &Range<usize>) -> Option<(usize, usize)> {
        let (start, end) = (range.start / PAGE * PAGE, range.end.min(self.map.len()));
        (start < end).then(|| (start, end - start))
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
            mapped.forget(range.clone());
            assert_eq!(mapped.bytes(), bytes);
            mapped.fetch(range);
            assert_eq!(mapped.bytes(), bytes);
        }
        // Replacing the file by rename leaves the mapping as it was.
        std::fs::write(dir.path().join("v"), b"other").unwrap();
        std::fs::rename(dir.path().join("v"), &path).unwrap();
        mapped.forget(0..300_001);
        assert_eq!(mapped.bytes(), bytes);
    }

    #[test]
    fn what_has_no_name_has_its_bytes_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i * 5 % 251) as u8).collect();
        let mapped = Mapped::nameless(dir.path(), &bytes).unwrap();
        mapped.forget(0..bytes.len());
        assert_eq!(mapped.bytes(), bytes);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let none = Mapped::nameless(&dir.path().join("none"), &bytes);
        let why = none.unwrap_err().to_string();
        assert!(
            why.contains("none: 100000 bytes of weights cannot be put there"),
            "{why}"
        );
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
