//! `doctor`: what this machine and a model folder can do, and for each thing that is wrong, one fix.

#[cfg(feature = "cuda")]
mod gpu;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use posteriori::Error;
use posteriori::models::config::Config;
use posteriori::models::tokenizer::Tokenizer;
use posteriori::ops::ALL;
use posteriori::ops::check::Scope;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::{Pipeline, embedded};
use posteriori::runtime::memory::SystemMemory;

use super::exit::{self, DEVICE, DONE, FAILED};
use super::run::folder;
use super::ui::Ui;

/// Look at this machine and, if given, a model
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A checkpoint folder to look at, or `embedded`
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
    /// The device that must be usable: cpu, cuda, cuda:N; by default a GPU is looked at but not asked for
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
}

/// The rows printed so far.
struct Chart<'a> {
    ui: &'a Ui,
    failed: usize,
    /// That of the first thing that is wrong.
    code: u8,
}

impl Chart<'_> {
    fn fine(&self, what: &str, text: &str) {
        self.ui.line(format!("✓ {what:<14} {text}"));
        self.ui.record(
            "item",
            json!({ "what": what, "found": text, "verdict": "ok" }),
        );
    }

    /// Something that is wrong with the machine.
    fn wrong(&mut self, what: &str, text: &str, fix: &str) {
        self.wrong_by(DEVICE, what, text, fix);
    }

    /// Something that is wrong, and the exit code that says so.
    fn wrong_by(&mut self, code: u8, what: &str, text: &str, fix: &str) {
        if self.failed == 0 {
            self.code = code;
        }
        self.failed += 1;
        self.ui
            .line(format!("✗ {what:<14} {text}\n  {:<14} fix: {fix}", ""));
        self.ui.record(
            "item",
            json!({ "what": what, "found": text, "fix": fix, "verdict": "failed" }),
        );
    }

    /// What was loaded, or a row that says why it could not be.
    fn loaded<T>(&mut self, what: &str, result: posteriori::Result<T>) -> Option<T> {
        result.map_err(|e| self.unloaded(what, &e)).ok()
    }

    fn unloaded(&mut self, what: &str, error: &Error) {
        let fix = "correct what the line above names, or download the model again";
        self.wrong_by(exit::of(error), what, &error.to_string(), fix);
    }

    /// What an error says; the library's errors end in what to do.
    #[cfg(feature = "cuda")]
    fn failed(&mut self, what: &str, error: &Error) {
        let text = error.to_string();
        let (text, fix) = text.rsplit_once("; ").unwrap_or((&text, "see above"));
        self.wrong(what, text, fix);
    }
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let mut chart = Chart {
        ui,
        failed: 0,
        code: DONE,
    };
    chart.fine("version", env!("CARGO_PKG_VERSION"));
    chart.fine("processor", &processor());
    chart.fine("instructions", &instructions().join(" "));
    chart.fine("threads", &rayon::current_num_threads().to_string());
    match SystemMemory::now() {
        Some(memory) => chart.fine("memory", &described(&memory)),
        None => chart.fine("memory", "this system does not say"),
    }
    self_test(&mut chart);
    match args.device.as_str() {
        "auto" => gpu(0, false, &mut chart),
        "cpu" => {}
        device => gpu(ordinal(device)?, true, &mut chart),
    }
    if let Some(model) = &args.model {
        look_at(&folder(model, embedded::folder)?, &mut chart);
    }
    ui.record("summary", json!({ "failed": chart.failed }));
    Ok(chart.code)
}

/// All memory, what is free of it, and whose limit that is if not the machine's.
fn described(memory: &SystemMemory) -> String {
    let gb = |bytes: usize| bytes as f64 / 1e9;
    let text = format!("{:.1} GB, {:.1} GB free", gb(memory.total), gb(memory.free));
    match &memory.limit {
        Some(limit) => format!("{text}, limited by {}", limit.display()),
        None => text,
    }
}

/// The number of a GPU that is asked for.
fn ordinal(device: &str) -> posteriori::Result<usize> {
    let number = match device.strip_prefix("cuda") {
        Some("") => Some(0),
        Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse().ok()),
        None => None,
    };
    let why = || format!("wanted auto, cpu, cuda or cuda:N, got `{device}`");
    number.ok_or_else(|| Error::argument("--device", why()))
}

#[cfg(feature = "cuda")]
use gpu::look as gpu;

#[cfg(not(feature = "cuda"))]
fn gpu(_: usize, asked: bool, chart: &mut Chart<'_>) {
    let text = "this build has no CUDA runtime";
    match asked {
        true => chart.wrong("gpu", text, "build with --features cuda"),
        false => chart.fine("gpu", text),
    }
}

/// What the system calls the processor.
pub(super) fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    named.unwrap_or_else(|| std::env::consts::ARCH.into())
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
fn instructions() -> Vec<&'static str> {
    use std::is_x86_feature_detected as has;
    let all = [
        ("sse4.2", has!("sse4.2")),
        ("avx", has!("avx")),
        ("fma", has!("fma")),
        ("avx2", has!("avx2")),
        ("f16c", has!("f16c")),
        ("avx512f", has!("avx512f")),
        ("avx512bf16", has!("avx512bf16")),
        ("amx-bf16", posteriori::runtime::product::has_amx()),
    ];
    all.into_iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| name)
        .collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
fn instructions() -> Vec<&'static str> {
    vec![std::env::consts::ARCH]
}

/// One op, computed and compared.
fn self_test(chart: &mut Chart<'_>) {
    const OP: &str = "linear.forward";
    const FIX: &str = "run `posteriori check` and report its failures with this output";
    let op = ALL.iter().find(|op| op.name() == OP);
    match op.map(|op| op.check(&posteriori::runtime::Runtime::native(), Scope::default())) {
        Some(Ok(rows)) if rows.iter().all(|row| row.passed()) => {
            let text = format!("{OP} on native: {} cases within their bounds", rows.len());
            chart.fine("self test", &text);
        }
        Some(Ok(rows)) => {
            let bad = rows.iter().find(|row| !row.passed());
            let text = bad.map_or(String::new(), |row| format!("{OP}: {}", row.worst));
            chart.wrong("self test", &text, FIX);
        }
        Some(Err(e)) => chart.wrong("self test", &e.to_string(), FIX),
        None => chart.wrong("self test", &format!("{OP} is not an op"), FIX),
    }
}

/// The files of a model folder, and whether all that a restoration loads of it can be loaded.
fn look_at(model: &Path, chart: &mut Chart<'_>) {
    let mut files = Vec::new();
    let whole = "give the folder that holds unet/ and scheduler/";
    if let Err(e) = walk(model, Path::new(""), &mut files) {
        let text = format!("{}: {e}", model.display());
        return chart.wrong_by(FAILED, "model", &text, whole);
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, bytes) in files {
        match bytes {
            Ok(bytes) => chart.fine("file", &format!("{bytes:>14} bytes  {name}")),
            Err(e) => chart.wrong_by(
                FAILED,
                "file",
                &format!("{}: {e}", model.join(name).display()),
                "download it again, or remove the link that leads to nothing",
            ),
        }
    }
    let pipeline = Pipeline::open(model, Device::cpu());
    let Some(mut pipeline) = chart.loaded("model", pipeline) else {
        return;
    };
    let tokenizer = model.join("tokenizer");
    if tokenizer.is_dir() {
        chart.loaded("tokenizer", Tokenizer::open(&tokenizer));
    }
    chart.loaded("prompts", pipeline.context(""));
    for estimator in estimators(model) {
        let name = super::files::slashed(&estimator);
        let estimator = model.join(estimator);
        match pipeline.with_controlnet(&estimator) {
            Ok(with) => pipeline = with,
            Err(e) => return chart.unloaded("controlnet", &e),
        }
        chart.fine("controlnet", &format!("{name} loads"));
    }
    let unread = pipeline.unread().len();
    chart.fine("model", &format!("loads; {unread} tensors are not used"));
}

/// The folders inside a model folder that hold a ControlNet.
fn estimators(model: &Path) -> Vec<PathBuf> {
    let inside = std::fs::read_dir(model).into_iter().flatten().flatten();
    let is_one = |name: &PathBuf| {
        let config = Config::open(&model.join(name));
        config.is_ok_and(|config| config.class().is_ok_and(|class| class == "ControlNetModel"))
    };
    let mut all: Vec<PathBuf> = inside.map(|entry| entry.file_name().into()).collect();
    all.retain(is_one);
    all.sort();
    all
}

/// A file's path below the folder, and its bytes.
type Found = (String, std::io::Result<u64>);

fn walk(root: &Path, inner: &Path, files: &mut Vec<Found>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root.join(inner))? {
        let entry = entry?;
        let path = inner.join(entry.file_name());
        // Of what a link points to: model caches are made of links to files.
        match std::fs::metadata(entry.path()) {
            Ok(meta) if meta.is_file() => {
                files.push((super::files::slashed(&path), Ok(meta.len())))
            }
            Ok(_) if entry.file_type()?.is_dir() => walk(root, &path, files)?,
            Ok(_) => {}
            Err(e) => files.push((super::files::slashed(&path), Err(e))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_memory_is_named() {
        let mut memory = SystemMemory {
            total: 16_000_000_000,
            free: 2_500_000_000,
            limit: None,
        };
        assert_eq!(described(&memory), "16.0 GB, 2.5 GB free");
        memory.limit = Some("/sys/fs/cgroup/job/memory.max".into());
        let limited = "16.0 GB, 2.5 GB free, limited by /sys/fs/cgroup/job/memory.max";
        assert_eq!(described(&memory), limited);
    }
}
