//! [`Plan`]: what a job will take, learnt by running it on the dry runtime.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::cancel::Cancel;
use super::job::Restore;
use super::prior::{Prior, open_controlnet};
use super::run::Run;
use super::{Item, Own, Pipeline, Progress};
use crate::cx::{Cx, Launches};
use crate::diffusion::schedule::Step;
use crate::dtype::DType;
use crate::error::Result;
use crate::io::image::Image;
use crate::rng::Stream;
use crate::runtime::dry::{Dry, OpTotal};
use crate::runtime::kernel::Target;
use crate::runtime::native::Products;
use crate::runtime::{Cost, Runtime};
use crate::samplers::Sampler;

/// Exact bytes, launches and FLOPs of a job.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Image height and width.
    pub size: [usize; 2],
    /// The side of the tiles that it is sampled in, an approximation; `None` when it is sampled whole.
    pub tile: Option<usize>,
    /// Images sampled together.
    pub batch: usize,
    /// The element type of activations, and of weights but on processors.
    pub dtype: &'static str,
    /// Bytes of weights.
    pub weights: u64,
    /// Bytes of what is computed once a run: keys and values of the prompt, time embeddings.
    pub tables: u64,
    /// Bytes of the slab that every other tensor lives in.
    pub slab: usize,
    /// The most bytes of it alive at once: what a perfect packing would need.
    pub live: usize,
    /// Bytes alive between the forward and the backward pass of a guidance step: the saved activations
    /// and the state. 0 without guidance.
    pub saved: usize,
    /// Sampling steps.
    pub steps: usize,
    /// One sampling step, by op.
    pub step: Totals,
    /// Every distinct launch of that step.
    #[serde(skip)]
    pub launches: Launches,
}

/// Sums over launches.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// Kernel launches.
    pub launches: u64,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written at least.
    pub bytes: u64,
    /// The same for each op.
    pub ops: BTreeMap<&'static str, OpTotals>,
}

/// Sums over the launches of one op.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct OpTotals {
    /// Kernel launches.
    pub launches: u64,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written at least.
    pub bytes: u64,
}

/// What is planned for.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// A restoration; else a sample of the prior.
    pub measured: bool,
    /// Height and width of the image.
    pub size: [usize; 2],
    /// Images at once.
    pub batch: usize,
}

/// What it will run on.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Whose kernels.
    pub target: Target,
    /// The element type of the networks' activations, and of weights but on processors.
    pub dtype: DType,
    /// What products keep of f32 operands.
    pub products: Products,
    /// Ops, and the variants that they take wherever those fit.
    pub forced: Vec<(String, String)>,
}

impl Engine {
    /// What runs on `rt`.
    pub fn of(rt: &Runtime, dtype: DType, forced: Vec<(String, String)>) -> Self {
        Engine {
            target: rt.target(),
            dtype,
            products: rt.products(),
            forced,
        }
    }

    /// The context of a run on `rt`.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when that has no arithmetic in this type.
    pub fn cx(&self, rt: Runtime) -> Result<Cx> {
        let cx = Cx::new(rt, self.dtype)?;
        let force = |cx: Cx, (op, variant): &(String, String)| cx.forcing(op, variant);
        Ok(self.forced.iter().fold(cx, force))
    }
}

impl Plan {
    /// Plans `job` for a checkpoint folder, of which only the configurations are read, and how weights are stored where
    /// there are any.
    ///
    /// # Errors
    /// What the job itself would return.
    pub fn of(
        folder: &Path,
        controlnet: Option<&Path>,
        job: &Restore,
        work: Batch,
        engine: &Engine,
    ) -> Result<Self> {
        let Batch {
            measured,
            size,
            batch,
        } = work;
        let dry = Arc::new(Dry::planning_for(engine.target, engine.products));
        let (cx, counted) = engine.cx(Runtime::Dry(Arc::clone(&dry)))?.counted();
        let pipeline = dry_pipeline(&cx, folder, controlnet)?;
        let weights = dry.totals().permanent;
        let context = pipeline.prior.context(&cx, "")?;
        // Launches of the second step; of the first, and what comes before it, when there is only one.
        let step = RefCell::new((BTreeMap::new(), Launches::new()));
        let count = |p: Progress| {
            if p.index <= 2.min(p.of - 1).max(1) {
                *step.borrow_mut() = (dry.totals().ops, counted.take());
            }
            dry.reset_launches();
            counted.take();
        };
        let run = Run {
            pipeline: &pipeline,
            cx: &cx.state(),
            job,
            own: Own::default(),
            context: context.as_ref(),
            progress: &count,
            tile: job.tiles.side(),
        };
        if !measured {
            run.generate(size, &vec![Stream::new(job.seed, 0, 0); batch])?;
        } else {
            let [h, w, c] = job.task.build(&cx.state(), size)?.measurement_shape();
            let y = Image::new(w, h, vec![0.0; h * w * c])?;
            run.restore(&vec![
                Item {
                    y: &y,
                    key: 0,
                    sample: 0
                };
                batch
            ])?;
        }
        let tile = run.tile_of(size)?;
        let (totals, (ops, launches)) = (dry.totals(), step.into_inner());
        Ok(Plan {
            size,
            tile,
            batch,
            dtype: engine.dtype.name(),
            weights,
            tables: totals.permanent - weights,
            slab: totals.slab,
            live: totals.peak_live,
            saved: ops.get("residual.forward").map_or(0, |op| op.live),
            steps: job.method.steps,
            step: Totals::of(&ops),
            launches,
        })
    }
}

fn dry_pipeline(cx: &Cx, folder: &Path, controlnet: Option<&Path>) -> Result<Pipeline> {
    let prior = Prior::open(cx, folder)?;
    let mut unread = Vec::new();
    let controlnet = match controlnet {
        Some(folder) => Some((
            folder.to_owned(),
            open_controlnet(cx, folder, &prior.unet, &mut unread)?,
        )),
        None => None,
    };
    Ok(Pipeline {
        rt: cx.rt().clone(),
        dtype: cx.dtype(),
        prior,
        controlnet,
        unread,
        forced: Vec::new(),
        cancel: Cancel::new(),
        context: Default::default(),
    })
}

/// Leaves the first two steps, the last, and the first of every kind that these are not: the others take the same
/// memory as one of them.
pub(super) fn thin(steps: &mut Vec<Step>, sampler: &dyn Sampler) {
    let first: Vec<usize> = steps
        .iter()
        .take(2)
        .map(|step| sampler.kind(step))
        .collect();
    let mut met = BTreeSet::from_iter(first);
    steps.retain(|step| step.index < 2 || step.is_last() || met.insert(sampler.kind(step)));
}

impl Totals {
    fn of(ops: &BTreeMap<&'static str, OpTotal>) -> Self {
        let mut sum = Totals::default();
        for (name, op) in ops {
            let OpTotal {
                launches,
                cost: Cost { flops, bytes },
                ..
            } = *op;
            sum.launches += launches;
            sum.flops += flops;
            sum.bytes += bytes;
            sum.ops.insert(
                name,
                OpTotals {
                    launches,
                    flops,
                    bytes,
                },
            );
        }
        sum
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [h, w] = self.size;
        let gb = |bytes: f64| format!("{:.3} GB", bytes / 1e9);
        writeln!(
            f,
            "image       {h} x {w}, batch {}, {}",
            self.batch, self.dtype
        )?;
        if let Some(tile) = self.tile {
            writeln!(f, "tiles       {tile} x {tile}, an approximation")?;
        }
        let (weights, tables) = (gb(self.weights as f64), gb(self.tables as f64));
        writeln!(f, "weights     {weights}, and {tables} computed once a run")?;
        writeln!(
            f,
            "slab        {}  ({} alive at most)",
            gb(self.slab as f64),
            gb(self.live as f64)
        )?;
        let each = gb(self.saved as f64 / self.batch as f64);
        writeln!(
            f,
            "saved       {}  for the backward pass, {each} an image",
            gb(self.saved as f64)
        )?;
        let (launches, tflop) = (self.step.launches, self.step.flops as f64 / 1e12);
        writeln!(
            f,
            "step        {launches} launches, {tflop:.3} TFLOP, {}",
            gb(self.step.bytes as f64)
        )?;
        writeln!(
            f,
            "job         {} steps, {:.1} TFLOP",
            self.steps,
            self.steps as f64 * tflop
        )?;
        writeln!(
            f,
            "\n{:<22}{:>9}{:>12}{:>12}",
            "op, one step", "launches", "GFLOP", "GB"
        )?;
        for (name, op) in &self.step.ops {
            let (gflop, gb) = (op.flops as f64 / 1e9, op.bytes as f64 / 1e9);
            writeln!(f, "{name:<22}{:>9}{gflop:>12.3}{gb:>12.3}", op.launches)?;
        }
        Ok(())
    }
}
