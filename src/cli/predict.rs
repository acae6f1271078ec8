//! `bench --predict`: what a sampling step would take on a GPU, by its counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use serde_json::json;

use posteriori::DType;
use posteriori::ops::bench::cases;
use posteriori::ops::predict::{Gpu, H200, Prediction, predict};
use posteriori::pipeline::plan::Engine;
use posteriori::runtime::Runtime;
use posteriori::runtime::dry::Dry;
use posteriori::runtime::kernel::{Arch, Target};
use posteriori::runtime::native::Products;

use super::exit::DONE;
use super::plan::Subject;
use super::run::batches;
use super::ui::Ui;

/// A step of one batch.
#[derive(Default)]
struct Step {
    batch: usize,
    all: Sum,
    ops: BTreeMap<&'static str, Sum>,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    flops: u64,
    bytes: u64,
    time: Prediction,
}

impl Sum {
    fn add(&mut self, more: Sum) {
        self.flops += more.flops;
        self.bytes += more.bytes;
        self.time.floor += more.time.floor;
        self.time.predicted += more.time.predicted;
        self.time.launches += more.time.launches;
    }
}

pub(super) fn run(subject: &Subject, batches: &str, size: Option<&str>, ui: &Ui) -> Result<u8> {
    let gpu = &H200;
    let dtype = match subject.run.engine()?.dtype {
        half if half.is_half() => half,
        _ => DType::Bf16,
    };
    let engine = Engine {
        target: Target::Kernels(Arch(90)),
        dtype,
        products: Products::F32,
        forced: subject.run.variants.clone(),
    };
    let steps = self::batches("--predict", batches)?
        .into_iter()
        .map(|batch| step(subject, &engine, size, batch, gpu))
        .collect::<Result<Vec<_>>>()?;
    tell(&steps, dtype, gpu, ui);
    Ok(DONE)
}

fn step(
    subject: &Subject,
    engine: &Engine,
    size: Option<&str>,
    batch: usize,
    gpu: &Gpu,
) -> Result<Step> {
    let plan = subject.plan_batch(engine, size, batch)?;
    let cx = engine.cx(Runtime::Dry(Arc::new(Dry::planning_for(
        engine.target,
        engine.products,
    ))))?;
    let mut step = Step {
        batch,
        ..Step::default()
    };
    for (case, count) in cases(&plan.launches) {
        let (cost, one) = (case.cost(), predict(&cx, &*case, gpu)?);
        let sum = Sum {
            flops: count * cost.flops,
            bytes: count * cost.bytes,
            time: Prediction {
                floor: count as f64 * one.floor,
                predicted: count as f64 * one.predicted,
                launches: count * one.launches,
            },
        };
        step.ops.entry(case.op().name()).or_default().add(sum);
        step.all.add(sum);
    }
    Ok(step)
}

fn tell(steps: &[Step], dtype: DType, gpu: &Gpu, ui: &Ui) {
    let (name, tera) = (gpu.name, |rate: f64| rate / 1e12);
    ui.line(format!(
        "predicted from counts, not measured: {name}, {dtype}; products {:.0} TFLOP/s (mma.sync {:.0}, f32 lanes {:.0}), \
         copies {:.1} TB/s, {:.1} us a launch",
        tera(gpu.product),
        tera(gpu.mma),
        tera(gpu.lanes),
        tera(gpu.bytes),
        1e6 * gpu.launch
    ));
    for step in steps {
        let line = |name: &str, Sum { flops, bytes, time }: &Sum| {
            let each = |seconds: f64| 1e3 * seconds / step.batch as f64;
            ui.line(format!(
                "{name:<22}{:>9}{:>10.3}{:>10.3}{:>16.3}{:>16.3}",
                time.launches,
                *flops as f64 / 1e12,
                *bytes as f64 / 1e9,
                each(time.floor),
                each(time.predicted)
            ));
        };
        ui.line(format!(
            "\n{:<22}{:>9}{:>10}{:>10}{:>16}{:>16}",
            format!("one step, batch {}", step.batch),
            "launches",
            "TFLOP",
            "GB",
            "floor, ms/image",
            "predicted"
        ));
        for (op, sum) in &step.ops {
            line(op, sum);
        }
        line("in all", &step.all);
        let fields = |Sum { flops, bytes, time }: &Sum| {
            json!({
                "launches": time.launches, "flops": flops, "bytes": bytes,
                "floor_ms": 1e3 * time.floor, "predicted_ms": 1e3 * time.predicted,
            })
        };
        let ops: BTreeMap<_, _> = step
            .ops
            .iter()
            .map(|(op, sum)| (*op, fields(sum)))
            .collect();
        ui.record(
            "prediction",
            json!({
                "gpu": name, "dtype": dtype.name(), "batch": step.batch,
                "step": fields(&step.all), "ops": ops,
            }),
        );
    }
}
