//! [`Claims`]: processes that come and go share a folder, each taking what nobody else has.
//!
//! A claim is a file that only one process can create; its owner touches it until the work is done. One that nobody has touched
//! for as long as a lease is given up, and who creates the next generation of it has it. No file is ever renamed or
//! rewritten, so that a slow network file system cannot give one claim to two. An owner that was only asleep finishes all the
//! same: it writes the same bytes to the same place.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result};

/// The claims of this process in a folder.
#[derive(Debug)]
pub struct Claims {
    folder: PathBuf,
    lease: Duration,
    shared: Arc<Shared>,
    heart: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    held: Mutex<Held>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    files: BTreeMap<String, (PathBuf, File)>,
    over: bool,
}

impl Claims {
    /// Takes part in the claims of this folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be made or written to.
    pub fn join(folder: &Path, lease: Duration) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| {
            Error::file(folder, format!("the folder of claims cannot be made: {e}"))
        })?;
        let shared = Arc::new(Shared::default());
        let heart = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.beat(lease / 4))
        };
        Ok(Claims {
            folder: folder.to_owned(),
            lease,
            shared,
            heart: Some(heart),
        })
    }

    /// Claims the work of this name, which must suit a file's; `false` when another process has it.
    ///
    /// # Errors
    /// [`Error::File`] when the folder cannot be read or written.
    pub fn take(&self, name: &str) -> Result<bool> {
        let mut generation = 0;
        loop {
            let path = self.folder.join(format!("{name}.{generation}"));
            let failed = |e: std::io::Error| Error::file(&path, format!("cannot be claimed: {e}"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(mut file) => {
                    // Only people read this.
                    writeln!(file, "{}", std::process::id()).map_err(failed)?;
                    let mut held = lock(&self.shared);
                    held.files.insert(name.to_owned(), (path, file));
                    return Ok(true);
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(e)),
            }
            let next = self.folder.join(format!("{name}.{}", generation + 1));
            if !next.exists() && !self.given_up(&path)? {
                return Ok(false);
            }
            generation += 1;
        }
    }

    /// Gives the claim back: the work is done, or somebody else may do it.
    pub fn release(&self, name: &str) {
        let held = lock(&self.shared).files.remove(name);
        if let Some((path, file)) = held {
            drop(file);
            // Who claims one of these files before the last is gone has the work, rightly: it is free.
            let mut generation = 0;
            loop {
                let earlier = self.folder.join(format!("{name}.{generation}"));
                drop(std::fs::remove_file(&earlier));
                if earlier == path {
                    break;
                }
                generation += 1;
            }
        }
    }

    /// Whether a claim's owner has not touched it for a lease. Both times are of the file system's clock.
    fn given_up(&self, path: &Path) -> Result<bool> {
        let failed = |e: std::io::Error| Error::file(path, format!("cannot be looked at: {e}"));
        let touched = match std::fs::metadata(path).and_then(|meta| meta.modified()) {
            Ok(touched) => touched,
            // Released just now: let the next pass see.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(failed(e)),
        };
        let clock = self.folder.join(format!(".clock-{}", std::process::id()));
        let now = File::create(&clock)
            .and_then(|mut file| {
                file.write_all(b".")?;
                file.sync_all()?;
                file.metadata()?.modified()
            })
            .map_err(failed)?;
        drop(std::fs::remove_file(&clock));
        Ok(now
            .duration_since(touched)
            .is_ok_and(|age| age > self.lease))
    }
}

impl Shared {
    /// Touches what is held, until it is over.
    fn beat(&self, every: Duration) {
        let mut held = lock(self);
        while !held.over {
            for (_, file) in held.files.values() {
                // A byte more, so that the time is of the file system's clock. Should this fail, the claim is given up after a
                // lease, and the work is done twice to the same bytes.
                let mut file: &File = file;
                drop(file.write_all(b".").and_then(|()| file.sync_all()));
            }
            held = self
                .left
                .wait_timeout(held, every)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        lock(&self.shared).over = true;
        self.shared.left.notify_all();
        if let Some(heart) = self.heart.take() {
            drop(heart.join());
        }
        let names: Vec<String> = lock(&self.shared).files.keys().cloned().collect();
        for name in names {
            self.release(&name);
        }
    }
}

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Held> {
    shared.held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::time::SystemTime;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn age(path: &Path, by: Duration) {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        let then = SystemTime::now() - by;
        file.set_times(FileTimes::new().set_modified(then)).unwrap();
    }

    #[test]
    fn one_of_many_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<Claims> = (0..8)
            .map(|_| Claims::join(dir.path(), HOUR).unwrap())
            .collect();
        let won: usize = std::thread::scope(|scope| {
            let take = |claims| {
                scope.spawn(move || {
                    let names = (0..50).map(|i| format!("{i}-0"));
                    names
                        .filter(|name| Claims::take(claims, name).unwrap())
                        .count()
                })
            };
            let all: Vec<_> = all.iter().map(take).collect();
            all.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(won, 50);
        drop(all);
        // Every claim and every clock is gone.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_given_up_can_be_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let claims = [0, 1].map(|_| Claims::join(dir.path(), HOUR).unwrap());
        // The claim of a process that died: young, then old.
        let file = dir.path().join("a-0.0");
        std::fs::write(&file, "1").unwrap();
        assert!(!claims[0].take("a-0").unwrap());
        age(&file, 2 * HOUR);
        assert!(claims[1].take("a-0").unwrap());
        assert!(!claims[0].take("a-0").unwrap());
        // That of its heir, old as well.
        age(&dir.path().join("a-0.1"), 2 * HOUR);
        assert!(claims[0].take("a-0").unwrap());
        claims[0].release("a-0");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(claims[1].take("a-0").unwrap());
    }

    #[test]
    fn a_living_owner_keeps_its_claim() {
        let dir = tempfile::tempdir().unwrap();
        let lease = Duration::from_millis(400);
        let claims = Claims::join(dir.path(), lease).unwrap();
        assert!(claims.take("a-0").unwrap());
        let file = dir.path().join("a-0.0");
        age(&file, HOUR);
        // Touched again by the next beat.
        let touched = || std::fs::metadata(&file).unwrap().modified().unwrap();
        let started = SystemTime::now();
        while started
            .duration_since(touched())
            .is_ok_and(|age| age > lease)
        {
            let waited = SystemTime::now().duration_since(started).unwrap();
            assert!(waited < Duration::from_secs(60), "no beat");
            std::thread::sleep(Duration::from_millis(20));
        }
        claims.release("a-0");
        assert!(!file.exists());
    }
}
