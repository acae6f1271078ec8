//! The GPU: driver, memory, and where its kernels come from.

use posteriori::io::cache;
use posteriori::ops::ALL;
use posteriori::ops::check::Scope;
use posteriori::runtime::Runtime;
use posteriori::runtime::cuda::modules::{Module, Origin};
use posteriori::runtime::cuda::nvrtc::Nvrtc;
use posteriori::runtime::cuda::probe::{Gpu, loaded_from};
use posteriori::{Error, Result};

use super::Chart;

/// The op that is computed and compared, and the file of its kernel.
const OP: (&str, &str) = ("add.forward", "add/fwd_1_plain");

/// Looks at GPU number `ordinal`; that there is none is wrong only when it was asked for.
pub(super) fn look(ordinal: usize, asked: bool, chart: &mut Chart<'_>) {
    let rt = match Runtime::cuda(ordinal) {
        Ok(rt) => rt,
        Err(Error::Device { device, why }) if !asked => {
            return chart.fine("gpu", &format!("none is used; {device}: {why}"));
        }
        Err(e) => return chart.failed("gpu", &e),
    };
    let Runtime::Cuda(cuda) = &rt else {
        unreachable!("just made");
    };
    driver(cuda.gpu(), chart);
    let gpu = cuda.gpu();
    let gb = |bytes: usize| bytes as f64 / 1e9;
    match cuda.free_memory() {
        Ok(free) => chart.fine(
            "gpu",
            &format!(
                "cuda:{ordinal}: {}, {}, {} multiprocessors, {:.1} GB, {:.1} GB free",
                gpu.name,
                gpu.arch,
                gpu.processors,
                gb(gpu.memory),
                gb(free)
            ),
        ),
        Err(e) => chart.failed("gpu", &e),
    }
    kernels(gpu, chart);
    match compute(&rt).and_then(|text| Ok((text, cuda.load(OP.1)?))) {
        Ok((text, origin)) => {
            let origin = match origin {
                Origin::Embedded => "code of this build".into(),
                Origin::Cached => "code from the cache".into(),
                Origin::Compiled => "code compiled now".into(),
                Origin::NotKept(why) => {
                    format!("code compiled now, as in every run, for it cannot be kept: {why}")
                }
            };
            chart.fine("gpu test", &format!("{text}; {origin}"));
        }
        Err(e) => chart.failed("gpu test", &e),
    }
}

fn driver(gpu: &Gpu, chart: &Chart<'_>) {
    let [major, minor] = gpu.driver;
    let path = loaded_from("libcuda.so").or_else(|| loaded_from("nvcuda"));
    let path = path.map_or(String::new(), |path| format!(", {}", path.display()));
    chart.fine("driver", &format!("CUDA {major}.{minor}{path}"));
}

/// Where this GPU's kernels will come from.
fn kernels(gpu: &Gpu, chart: &mut Chart<'_>) {
    let fits = |module: &&Module| module.runs_on(gpu.arch);
    let all = Module::all().iter().filter(fits).count();
    let embedded = Module::all()
        .iter()
        .filter(fits)
        .filter(|m| m.is_embedded())
        .count();
    let text = format!(
        "{all} files for {}, {embedded} of them compiled in this build",
        gpu.arch
    );
    chart.fine("kernels", &text);
    match Nvrtc::find() {
        Ok(nvrtc) => {
            let ([major, minor], rule) = (nvrtc.version, &nvrtc.rule);
            let path = nvrtc.path.as_ref();
            let path = path.map_or(String::new(), |path| format!(": {}", path.display()));
            chart.fine("nvrtc", &format!("NVRTC {major}.{minor}, found by {rule}{path}"));
        }
        Err(why) if embedded == all => {
            chart.fine("nvrtc", &format!("{why}; not needed, this build has every kernel"));
        }
        Err(why) => chart.wrong(
            "nvrtc",
            &format!("{why}; {} kernels are to be compiled by it", all - embedded),
            "`pip install nvidia-cuda-nvrtc` and set POSTERIORI_NVRTC to the folder of libnvrtc, or build with nvcc",
        ),
    }
    match cache::folder() {
        Ok(folder) => chart.fine("kernel cache", &folder.display().to_string()),
        Err(why) => chart.fine("kernel cache", &format!("none: {why}")),
    }
}

/// One op, computed and compared.
fn compute(rt: &Runtime) -> Result<String> {
    let op = ALL.iter().find(|op| op.name() == OP.0);
    let rows = op.map_or(Ok(Vec::new()), |op| op.check(rt, Scope::default()))?;
    match rows.iter().find(|row| !row.passed()) {
        None => Ok(format!(
            "{}: {} cases within their bounds",
            OP.0,
            rows.len()
        )),
        Some(row) => Err(Error::Device {
            device: rt.name().into(),
            why: format!("{} is wrong: {}", OP.0, row.worst),
        }),
    }
}
