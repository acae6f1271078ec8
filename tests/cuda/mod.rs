//! The CUDA runtime over a fake driver: `tests/fake_driver`, which runs the kernels on the emulator. That is
//! no GPU. What is tested is this project's side of the driver's interface, and what it says when something
//! is wrong with a machine.
//!
//! A process reads its library path when it starts, so everything here happens in processes of its own: the
//! program, or (`inside`) this test program once more.

mod code;
mod inside;
mod machines;
mod work;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What a process left.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

/// A machine to run something on.
struct Machine {
    libraries: PathBuf,
    home: tempfile::TempDir,
    faults: &'static str,
    variables: Vec<(&'static str, String)>,
}

/// A machine with the fake driver and the fake NVRTC.
fn machine() -> Machine {
    Machine::with(&libraries().join("whole"))
}

impl Machine {
    fn with(libraries: &Path) -> Self {
        Machine {
            libraries: libraries.to_owned(),
            home: tempfile::tempdir().unwrap(),
            faults: "",
            variables: Vec::new(),
        }
    }

    /// With words that make the fake libraries misbehave.
    fn fault(self, faults: &'static str) -> Self {
        Machine { faults, ..self }
    }

    fn set(mut self, variable: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((variable, value.into()));
        self
    }

    /// Without the code that a build with nvcc has in it.
    fn compiling(self) -> Self {
        self.set("POSTERIORI_KERNELS", "nvrtc")
    }

    /// Runs the program; `line` is split at spaces.
    fn run(&self, line: &str) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_posteriori"));
        command.args(line.split_whitespace());
        self.start(command)
    }

    /// Runs a test of `inside`.
    #[track_caller]
    fn inside(&self, test: &str) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "--nocapture"]);
        command.arg(format!("cuda::inside::{test}"));
        let Ran {
            code,
            stdout,
            stderr,
        } = self.start(command);
        assert_eq!(code, 0, "{stdout}\n{stderr}");
        assert!(stdout.contains("1 passed"), "{stdout}");
    }

    fn start(&self, mut command: Command) -> Ran {
        for toolkit in ["CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "POSTERIORI_NVRTC"] {
            command.env_remove(toolkit);
        }
        let output = command
            .current_dir(&self.home)
            .env("LD_LIBRARY_PATH", &self.libraries)
            .env("FAKE_CUDA", self.faults)
            .env("FAKE_CUDA_LOG", self.path("log"))
            .env("POSTERIORI_CACHE", self.path("cache"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran {
            code: output.status.code().expect("it ends by itself"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// What the fake libraries were asked for since the last look.
    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        fs::remove_file(self.path("log")).ok();
        text.lines().map(String::from).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

impl Ran {
    /// Fails unless the code is this and stdout (for what fails, stderr too) names all of these.
    #[track_caller]
    fn expect(self, code: i32, named: &[&str]) -> Self {
        let Ran { stdout, stderr, .. } = &self;
        assert_eq!(self.code, code, "stdout:\n{stdout}\nstderr:\n{stderr}");
        let text = match code {
            0 => stdout,
            _ => &format!("{stdout}{stderr}"),
        };
        for name in named {
            assert!(text.contains(name), "wanted `{name}` in:\n{text}");
        }
        assert!(!stderr.contains("panicked"), "{stderr}");
        self
    }
}

/// Lines that begin with a word.
fn count(log: &[String], word: &str) -> usize {
    log.iter()
        .filter(|line| line.split(' ').next() == Some(word))
        .count()
}

/// Folders of fake libraries: `whole`; `driver`, without NVRTC; `old`, whose driver lacks a symbol; `none`.
fn libraries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake_driver");
        fs::remove_dir_all(&root).ok();
        let folder = |name: &str| {
            let folder = root.join(name);
            fs::create_dir_all(&folder).unwrap();
            folder
        };
        let (whole, driver, old) = (folder("whole"), folder("driver"), folder("old"));
        folder("none");
        compile("libcuda", &whole.join("libcuda.so"), &[]);
        compile("libcuda", &old.join("libcuda.so"), &["-DFAKE_OLD_SYMBOLS"]);
        compile("libnvrtc", &whole.join("libnvrtc.so"), &[]);
        fs::copy(whole.join("libcuda.so"), driver.join("libcuda.so")).unwrap();
        root
    })
}

/// Compiles `tests/fake_driver/<name>.cpp`; the driver with the emulator and the kernels that this build has.
fn compile(name: &str, library: &Path, flags: &[&str]) {
    let built = Path::new(env!("POSTERIORI_EMU"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_driver");
    let mut command = Command::new(std::env::var_os("CXX").unwrap_or("c++".into()));
    command.args([
        "-std=c++17",
        "-O1",
        "-shared",
        "-fPIC",
        "-pthread",
        "-Wl,-Bsymbolic",
    ]);
    command.args(flags).arg("-o").arg(library);
    command.arg(source.join(name).with_extension("cpp"));
    if name == "libcuda" {
        command
            .arg("-Wl,--whole-archive")
            .arg(built.join("libposteriori_kernels.a"));
        command
            .arg("-Wl,--no-whole-archive")
            .arg(built.join("libposteriori_emu.a"));
    }
    let output = command
        .output()
        .expect("a C++ compiler, as the feature `emu` needs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
