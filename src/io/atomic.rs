//! Writing a file whole or not at all: a hidden file in the same folder, flushed to disk, then renamed.
//! A reader sees the old file or the new one, never half of one, also when the power goes.
//! Whatever fails on the way, the hidden file is removed.

use std::fs::{DirEntry, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};

/// Writes `path` through `fill`, replacing what is there only once everything is on disk.
///
/// `fill` maps its own write errors, see [`failed`].
pub fn write_atomic(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    if path.file_name().is_none() || path.is_dir() {
        return Err(Error::file(
            path,
            "cannot be written: wanted a file name, this is a folder",
        ));
    }
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // Declared before the writer, so it is dropped after it: the file is closed when it is removed.
    let mut temporary = Temporary(None);
    let (file, hidden) = create(folder)?;
    temporary.0 = Some(hidden.clone());
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    fill(&mut writer)?;
    let file = writer
        .into_inner()
        .map_err(|e| failed(path)(e.into_error()))?;
    file.sync_all().map_err(failed(path))?;
    drop(file);
    std::fs::rename(&hidden, path).map_err(failed(path))?;
    temporary.0 = None;
    // The rename itself reaches the disk with the folder. Some file systems refuse to sync a folder;
    // the file is complete either way, so that is no failure.
    #[cfg(unix)]
    drop(File::open(folder).and_then(|f| f.sync_all()));
    Ok(())
}

/// Adds bytes to the end of a file, on disk when this returns; where that fails, on a full disk say, none of them.
pub(crate) fn append(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    let before = file.metadata()?.len();
    let written = file.write_all(bytes).and_then(|()| file.sync_data());
    if written.is_err() {
        // Should this fail too, the line is one that was left half written.
        drop(file.set_len(before));
    }
    written
}

/// A hidden file this old is nobody's, whatever process has its number.
const GIVEN_UP: Duration = Duration::from_secs(86_400);

/// Removes the hidden files that killed programs left in a folder: unfinished ones, and those that tried whether it can be
/// written to. Files of processes that live stay, and so do those of today where it cannot be told.
pub fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let unfinished = [".tmp", ".probe"].iter().any(|end| name.ends_with(end));
        let Some(rest) = name.strip_prefix(".posteriori-").filter(|_| unfinished) else {
            continue;
        };
        let process = rest.split(['-', '.']).next().unwrap_or_default();
        if is_gone(process) || is_old(&entry) {
            // It does no harm to be there.
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

/// Whether there is no process of this number; `false` where the system does not tell.
fn is_gone(process: &str) -> bool {
    let processes = Path::new("/proc");
    processes.join("self").exists()
        && process.parse::<u32>().is_ok()
        && !processes.join(process).exists()
}

fn is_old(entry: &DirEntry) -> bool {
    let changed = entry.metadata().and_then(|meta| meta.modified());
    let age = changed.ok().and_then(|at| at.elapsed().ok());
    age.is_some_and(|age| age > GIVEN_UP)
}

/// Turns a failed write into an error that names the file: `w.write_all(..).map_err(failed(path))`.
pub fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |e| Error::written(path, "cannot be written", &e)
}

/// The hidden file, removed when dropped unless it was renamed.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // Nothing can be done about a failure here, and the first error is the one to report.
            drop(std::fs::remove_file(path));
        }
    }
}

/// A new file in `folder` under a name nobody else has. `create_new` settles it between processes on
/// different machines that share the folder and, by chance, the process id.
fn create(folder: &Path) -> Result<(File, PathBuf)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let hidden = folder.join(format!(".posteriori-{}-{count}.tmp", std::process::id()));
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&hidden)
        {
            Ok(file) => return Ok((file, hidden)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(Error::file(
                    folder,
                    "there is no such folder to write into; create it first",
                ));
            }
            Err(e) => {
                let what = "no file can be created in this folder";
                return Err(Error::written(folder, what, &e));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic(&path, |w| w.write_all(b"one").map_err(failed(&path))).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        let error = write_atomic(&path, |w| {
            w.write_all(&[7; 3 << 20]).map_err(failed(&path))?;
            assert_eq!(names(dir.path()).len(), 2);
            assert!(names(dir.path())[0].starts_with('.'));
            Err(Error::argument("fill", "stopped"))
        });
        assert!(error.unwrap_err().to_string().contains("stopped"));
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(names(dir.path()), ["a"]);
        write_atomic(&path, |w| w.write_all(b"two!").map_err(failed(&path))).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two!");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn what_a_killed_program_left_is_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let living = [
            format!(".posteriori-{own}-0.tmp"),
            format!(".posteriori-{own}.probe"),
        ];
        // No process has a number this large.
        let gone = [
            ".posteriori-4294967295-0.tmp",
            ".posteriori-4294967295.probe",
        ];
        let old = [
            format!(".posteriori-{own}-1.tmp"),
            ".posteriori-x.tmp".into(),
        ];
        let others = [".other.tmp", ".posteriori-y.tmp", "a.png"].map(String::from);
        let write = |name: &str| std::fs::write(dir.path().join(name), b"x").unwrap();
        gone.iter().for_each(|name| write(name));
        for name in living.iter().chain(&old).chain(&others) {
            write(name);
        }
        for name in &old {
            let then = std::time::SystemTime::now() - GIVEN_UP - Duration::from_secs(60);
            let times = std::fs::FileTimes::new().set_modified(then);
            let file = OpenOptions::new().write(true).open(dir.path().join(name));
            file.unwrap().set_times(times).unwrap();
        }
        sweep(dir.path());
        sweep(&dir.path().join("missing"));
        let mut stay = Vec::from_iter(living.into_iter().chain(others));
        if !Path::new("/proc/self").exists() {
            stay.extend(gone.map(String::from));
        }
        stay.sort();
        assert_eq!(names(dir.path()), stay);
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let of = |kind: ErrorKind| failed(Path::new("a"))(kind.into());
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let error = of(kind);
            let named = error.to_string().starts_with("a: cannot be written: ");
            assert!(matches!(error, Error::Full { .. }) && named, "{error}");
        }
        for kind in [ErrorKind::FileTooLarge, ErrorKind::PermissionDenied] {
            assert!(matches!(of(kind), Error::File { .. }), "{kind}");
        }
    }

    #[test]
    fn a_panic_in_fill_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let caught = std::panic::catch_unwind(|| write_atomic(&path, |_| panic!("on purpose")));
        assert!(caught.is_err());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn names_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let text = |p: PathBuf| write_atomic(p, |_| Ok(())).unwrap_err().to_string();
        let missing = text(dir.path().join("no/x.png"));
        assert!(missing.contains("no: there is no such folder"), "{missing}");
        assert!(text(dir.path().to_owned()).contains("this is a folder"));
        assert!(text(PathBuf::from("/")).contains("this is a folder"));
        std::fs::write(dir.path().join("file"), b"x").unwrap();
        let inside = text(dir.path().join("file/x.png"));
        assert!(inside.contains("file: no file can be created"), "{inside}");
    }

    #[test]
    fn a_stale_hidden_file_of_the_same_name_is_stepped_over() {
        let dir = tempfile::tempdir().unwrap();
        for count in 0..200 {
            let stale = format!(".posteriori-{}-{count}.tmp", std::process::id());
            std::fs::write(dir.path().join(stale), b"stale").unwrap();
        }
        let path = dir.path().join("a");
        write_atomic(&path, |w| w.write_all(b"x").map_err(failed(&path))).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
        assert_eq!(names(dir.path()).len(), 201);
    }
}
