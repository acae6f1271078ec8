//! `verify`: is this engine right for my model? Every tensor of a golden file, computed and compared.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use posteriori::pipeline::device::Device;
use posteriori::pipeline::embedded;
use posteriori::pipeline::plan::Engine;
use posteriori::verify::{self, Row};

use super::exit::{DONE, FAILED, ITEMS};
use super::run::{folder, forced, named};
use super::ui::Ui;

/// Compare this engine's tensors for a model with those of PyTorch
///
/// Exits with 1 if a tensor fails, else with 3 if the file holds tensors that this version does not compute.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The checkpoint folder, in diffusers' layout, or `embedded`
    #[arg(long, value_name = "DIR")]
    model: String,
    /// The golden file; its `.index.json` lies beside it
    #[arg(long, value_name = "FILE")]
    goldens: PathBuf,
    /// Only tensors whose name contains this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// A ControlNet folder; by default the model's own controlnet/
    #[arg(long, value_name = "DIR")]
    cse: Option<String>,
    /// Where to compute: auto, cpu, cuda, cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Element type of the networks: f32, bf16 or f16; on cpu f32, f64, or f32 with products of bf16
    #[arg(long, default_value = "f32")]
    precision: String,
    /// Take this variant of an op wherever it fits; repeatable, or several with commas
    #[arg(long, value_name = "OP=NAME")]
    variant: Vec<String>,
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let device = Device::parse(&args.device)?.with_precision(&args.precision)?;
    let forced = match args.variant[..] {
        [] => Vec::new(),
        _ => forced(&args.variant.join(","))?,
    };
    let engine = Engine::of(device.rt(), device.dtype(), forced);
    let net = engine.cx(device.rt().clone())?;
    ui.line(format!(
        "{:>10} {:>10}  {:<7} tensor",
        "error", "tolerance", "verdict"
    ));
    let mut tell = |row: &Row| {
        let verdict = if row.passed() { "ok" } else { "FAILED" };
        let Row {
            name,
            error,
            tolerance,
        } = row;
        ui.line(format!(
            "{error:>10.2e} {tolerance:>10.2e}  {verdict:<7} {name}"
        ));
        ui.record(
            "item",
            json!({
                "tensor": name, "error": error, "tolerance": tolerance,
                "verdict": verdict.to_lowercase(),
            }),
        );
    };
    let model = folder(&args.model, embedded::folder)?;
    let cse = args
        .cse
        .map(|cse| named("--cse", folder(&cse, embedded::cse)))
        .transpose()?;
    let report = verify::verify(
        &model,
        cse.as_deref(),
        &args.goldens,
        &args.only,
        &net,
        &mut tell,
    )?;
    for name in &report.unknown {
        ui.line(format!("{:>10} {:>10}  {:<7} {name}", "", "", "unknown"));
        ui.record("item", json!({ "tensor": name, "verdict": "unknown" }));
    }
    let passed = report.rows.iter().filter(|row| row.passed()).count();
    let (failed, unknown) = (report.rows.len() - passed, report.unknown.len());
    let (runtime, precision) = (device.rt().name(), device.precision().name());
    ui.line(format!(
        "{passed} passed, {failed} failed, {unknown} unknown; runtime exercised: {runtime}, {precision}"
    ));
    ui.record(
        "summary",
        json!({
            "passed": passed, "failed": failed, "unknown": unknown,
            "runtime": runtime, "precision": precision,
        }),
    );
    Ok(match (failed, unknown) {
        (0, 0) => DONE,
        (0, _) => ITEMS,
        _ => FAILED,
    })
}
