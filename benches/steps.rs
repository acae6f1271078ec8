//! The passes of a sampling step at full size: UNet forward and VJP, VAE decode forward and VJP.
//!
//! `POSTERIORI_BENCH_MODEL=DIR cargo bench --bench steps [-- unet_vjp|vae_vjp]` prints seconds, GFLOP/s
//! (operations counted by the dry runtime), peak resident memory, weights and planned slab. Each pass runs
//! in a process of its own, so that its peak memory is its own. `POSTERIORI_BENCH_SIDE` is the latent's
//! side (64), `POSTERIORI_BENCH_REPS` the repetitions (2), `POSTERIORI_BENCH_PRECISION` f32 or bf16,
//! `POSTERIORI_BENCH_OFFLOAD` a folder for weights, `RAYON_NUM_THREADS` the threads.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use posteriori::models::config::Config;
use posteriori::models::unet::{UNet, UNetConfig};
use posteriori::models::vae::{Vae, VaeConfig};
use posteriori::pipeline::prior::load;
use posteriori::rng::Philox;
use posteriori::runtime::Runtime;
use posteriori::runtime::dry::{Dry, Totals};
use posteriori::runtime::kernel::Target;
use posteriori::runtime::native::Products;
use posteriori::{Cx, DType, Device, Shape, Tensor};

const CASES: [&str; 2] = ["unet_vjp", "vae_vjp"];
const CHILD: &str = "POSTERIORI_BENCH_CASE";

fn main() -> Result<()> {
    let Ok(folder) = std::env::var("POSTERIORI_BENCH_MODEL") else {
        println!("steps: skipped; set POSTERIORI_BENCH_MODEL to a checkpoint folder");
        return Ok(());
    };
    if let Ok(case) = std::env::var(CHILD) {
        return measure(&case, Path::new(&folder));
    }
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    println!(
        "{:<10}{:>9}{:>10}{:>12}{:>12}{:>12}{:>9}",
        "pass", "seconds", "GFLOP/s", "peak GiB", "weights", "slab", "threads"
    );
    for case in CASES {
        if asked.is_empty() || asked.iter().any(|a| a == case) {
            let mut child = Command::new(std::env::current_exe()?);
            if !child.env(CHILD, case).status()?.success() {
                bail!("{case} failed");
            }
        }
    }
    Ok(())
}

/// A number from the environment.
fn setting(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

/// A model, and what is timed of it.
enum Model {
    Unet(Box<UNet>),
    Vae(Box<Vae>),
}

impl Model {
    fn open(cx: &Cx, case: &str, folder: &Path) -> Result<Self> {
        let unread = &mut Vec::new();
        if case == "unet_vjp" {
            let folder = folder.join("unet");
            let config = UNetConfig::read(&Config::open(&folder)?)?;
            let unet = load(cx, &folder, unread, |w| UNet::new(w, config))?;
            return Ok(Model::Unet(unet.into()));
        }
        let folder = folder.join("vae");
        let config = VaeConfig::read(&Config::open(&folder)?)?;
        let vae = load(cx, &folder, unread, |w| Vae::new(w, config))?;
        Ok(Model::Vae(vae.into()))
    }

    /// The pass on a random latent, pulling back a cotangent of ones.
    fn run(&self, cx: &Cx, side: usize) -> Result<Tensor> {
        match self {
            Model::Unet(unet) => {
                let x = normals(cx, [1, side, side, unet.config().in_channels])?;
                let t = cx.upload(&[500.0f32], [1])?;
                let context = match unet.config().context {
                    Some(width) => Some(normals(cx, [1, 77, width])?),
                    None => None,
                };
                let (y, saved) = unet.forward(cx, &x, &t, context.as_ref(), None)?;
                drop(y);
                let dy = ones(cx, [1, side, side, unet.config().out_channels])?;
                Ok(unet.vjp(cx, saved, &dy, false)?.0)
            }
            Model::Vae(vae) => {
                let z = normals(cx, [1, side, side, vae.config().latent_channels])?;
                let (y, saved) = vae.decode(cx, &z)?;
                drop(y);
                let side = side * vae.config().factor();
                let dy = ones(cx, [1, side, side, vae.config().in_channels])?;
                Ok(vae.decode_vjp(cx, saved, &dy)?)
            }
        }
    }
}

fn normals(cx: &Cx, shape: impl Into<Shape>) -> Result<Tensor> {
    let (mut random, shape) = (Philox::new(1), shape.into());
    let values: Vec<f32> = (0..shape.elements())
        .map(|_| random.normal() as f32)
        .collect();
    Ok(cx.upload(&values, shape)?)
}

fn ones(cx: &Cx, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    Ok(cx.upload(&vec![1.0f32; shape.elements()], shape)?)
}

/// What the pass needs, from a run that computes nothing.
fn plan(case: &str, folder: &Path, side: usize, products: Products) -> Result<Totals> {
    let dry = Arc::new(Dry::planning_for(Target::Native, products));
    let cx = Cx::new(Runtime::Dry(Arc::clone(&dry)), DType::F32)?;
    Model::open(&cx, case, folder)?.run(&cx, side)?;
    Ok(dry.totals())
}

/// Times one pass in this process and prints its row.
fn measure(case: &str, folder: &Path) -> Result<()> {
    let (side, reps) = (
        setting("POSTERIORI_BENCH_SIDE", 64)?,
        setting("POSTERIORI_BENCH_REPS", 2)?,
    );
    let precision = std::env::var("POSTERIORI_BENCH_PRECISION");
    let mut device = Device::cpu().with_precision(precision.as_deref().unwrap_or("f32"))?;
    if let Ok(folder) = std::env::var("POSTERIORI_BENCH_OFFLOAD") {
        device = device.offloading(folder)?;
    }
    let totals = plan(case, folder, side, device.rt().products())?;
    let cx = Cx::new(device.rt().clone(), device.dtype())?;
    let model = Model::open(&cx, case, folder)?;
    cx.rt().reserve(totals.slab)?;
    let mut best = f64::INFINITY;
    for _ in 0..reps.max(1) {
        let start = Instant::now();
        let dx = model.run(&cx, side)?.to_f64()?;
        best = best.min(start.elapsed().as_secs_f64());
        if !dx.iter().all(|v| v.is_finite()) {
            bail!("{case}: the gradient is not finite");
        }
    }
    let flops: u64 = totals.ops.values().map(|op| op.cost.flops).sum();
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    println!(
        "{case:<10}{best:>9.2}{:>10.1}{:>12.2}{:>12.2}{:>12.2}{:>9}",
        flops as f64 / best / 1e9,
        gib(peak_resident()?),
        gib(totals.permanent as f64),
        gib(totals.slab as f64),
        rayon::current_num_threads(),
    );
    Ok(())
}

/// The most memory this process has had resident so far, in bytes.
fn peak_resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next());
    Ok(kib
        .context("no VmHWM in /proc/self/status")?
        .parse::<f64>()?
        * 1024.0)
}
