//! The program as people run it: its exit codes, what it prints where, and what it leaves on disk.

mod bad_models;
mod bad_usage;
mod bench;
mod deploy;
mod diagnose;
mod folders;
mod images;
mod json;
#[cfg(unix)]
mod mishaps;
mod phase;
mod reports;
mod repro;
mod study;
mod training;
mod words;
mod work;

use std::path::Path;
use std::process::Command;

use posteriori::io::image::{Format, Image, save};
use serde_json::Value;

use crate::oracle;

/// What a run of the program left.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs the program in a folder. `line` is split at spaces; PIXEL and SD2 stand for the tiny checkpoints.
fn run(folder: &Path, line: &str) -> Ran {
    finished(command(folder, line))
}

/// The same where no file may get larger than so many KiB, as if the disk were full.
fn run_with_little_room(folder: &Path, kib: u64, line: &str) -> Ran {
    let program = command(folder, line);
    let shell = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    let mut bash = Command::new("bash");
    bash.args(["-c", &shell, env!("CARGO_BIN_EXE_posteriori")])
        .args(program.get_args())
        .current_dir(folder);
    finished(bash)
}

fn command(folder: &Path, line: &str) -> Command {
    let words = line.split_whitespace().map(|word| match word {
        "PIXEL" => oracle::checkpoint("tiny-pixel").into_os_string(),
        "SD2" => oracle::checkpoint("tiny-sd2").into_os_string(),
        word => word.into(),
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_posteriori"));
    command.args(words).current_dir(folder);
    command
}

fn finished(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

impl Ran {
    /// Fails unless the code is this and stderr names all of these.
    #[track_caller]
    fn expect(self, code: i32, named: &[&str]) -> Self {
        let Ran { stdout, stderr, .. } = &self;
        assert_eq!(self.code, code, "stdout:\n{stdout}\nstderr:\n{stderr}");
        for name in named {
            assert!(stderr.contains(name), "wanted `{name}` in:\n{stderr}");
        }
        assert!(!stderr.contains("panicked"), "{stderr}");
        self
    }

    /// The lines of stdout as JSON, of one schema.
    #[track_caller]
    fn records(&self, schema: &str) -> Vec<Value> {
        let all = self.stdout.lines().map(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            assert!(record["schema"].is_string(), "{line}");
            record
        });
        all.filter(|r| r["schema"] == schema).collect()
    }
}

/// Every file in a folder and inside it but the notes of runs, relative and sorted; none when the folder is not there.
fn tree(folder: &Path) -> Vec<String> {
    fn walk(root: &Path, inner: &str, all: &mut Vec<String>) {
        for entry in std::fs::read_dir(root.join(inner)).into_iter().flatten() {
            let entry = entry.unwrap();
            let name = format!("{inner}{}", entry.file_name().to_str().unwrap());
            if name == ".posteriori" {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                walk(root, &format!("{name}/"), all);
            } else {
                all.push(name);
            }
        }
    }
    let mut all = Vec::new();
    walk(folder, "", &mut all);
    all.sort();
    all
}

/// A picture with something in it.
fn picture(height: usize, width: usize, seed: usize) -> Image {
    let value = |i: usize| {
        let (y, x, c) = (i / 3 / width, i / 3 % width, i % 3);
        let wave = ((x * (seed + 1) + y * 2) as f32 / width as f32 + c as f32).sin();
        0.8 * wave
    };
    Image::new(width, height, (0..height * width * 3).map(value).collect()).unwrap()
}

/// A folder with `y`, in it some 4 x 4 pictures: measurements of 32 x 32 ones by sr8.
fn folder(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("y")).unwrap();
    for (seed, name) in names.iter().enumerate() {
        let path = dir.path().join("y").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let format = Format::of(&path).unwrap();
        save(path, &picture(4, 4, seed), format, &[]).unwrap();
    }
    dir
}

/// Copies a folder of folders of files.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}
