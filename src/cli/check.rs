//! `check`: every variant of every op against the textbook loops.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::json;

use posteriori::Error;
use posteriori::ops::ALL;
use posteriori::ops::case::AnyOp;
use posteriori::ops::check::{Row, Scope};
use posteriori::pipeline::device::Device;
use posteriori::runtime::Runtime;

use super::exit::{DONE, FAILED};
use super::ui::Ui;

/// Compare every kernel variant with the textbook loops in f64
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only ops whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    op: String,
    /// Only variants whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    variant: String,
    /// But none whose name contains this
    #[arg(long, value_name = "TEXT")]
    except: Option<String>,
    /// Only on this runtime: native, emu, cuda, cuda:N
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
    /// Stop at the first row that fails
    #[arg(long)]
    fail_fast: bool,
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let chosen = chosen(&args.op)?;
    let runtimes = runtimes(args.runtime.as_deref())?;
    let names: Vec<&str> = runtimes.iter().map(Runtime::name).collect();
    expect_variant("--variant", &args.variant, &chosen, &runtimes)?;
    let scope = Scope {
        variant: &args.variant,
        except: args.except.as_deref(),
        fail_fast: args.fail_fast,
    };
    ui.line(format!(
        "{:<7} {:<20} {:<16} {:<5} {:>6}  {:<7} case",
        "runtime", "op", "variant", "type", "bound", "verdict"
    ));
    let (mut passed, mut failed) = (0, 0);
    'all: for rt in &runtimes {
        for op in &chosen {
            for row in op.check(rt, scope)? {
                *(if row.passed() {
                    &mut passed
                } else {
                    &mut failed
                }) += 1;
                show(&row, rt.name(), ui);
            }
            if args.fail_fast && failed > 0 {
                break 'all;
            }
        }
    }
    if passed + failed == 0 {
        let why = "leaves nothing to check; see the variants of each op with --json";
        return Err(Error::argument("--except", why).into());
    }
    ui.line(format!(
        "{passed} passed, {failed} failed; runtimes exercised: {}",
        names.join(", ")
    ));
    ui.record(
        "summary",
        json!({ "passed": passed, "failed": failed, "runtimes": names }),
    );
    Ok(if failed == 0 { DONE } else { FAILED })
}

/// The ops whose name contains a text.
pub(super) fn chosen(text: &str) -> posteriori::Result<Vec<&'static dyn AnyOp>> {
    let all = ALL.iter().copied();
    let chosen: Vec<_> = all.filter(|op| op.name().contains(text)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = ALL.iter().map(|op| op.name()).collect();
        let why = format!("no op contains `{text}`; there are {}", names.join(", "));
        return Err(Error::argument("--op", why));
    }
    Ok(chosen)
}

/// An error where no variant that would be checked has a name that contains a text.
pub(super) fn expect_variant(
    flag: &str,
    text: &str,
    ops: &[&'static dyn AnyOp],
    runtimes: &[Runtime],
) -> posteriori::Result<()> {
    let of = |op: &&'static dyn AnyOp| runtimes.iter().flat_map(|rt| op.checked(rt));
    let names: BTreeSet<&str> = ops.iter().flat_map(of).collect();
    if names.iter().any(|name| name.contains(text)) {
        return Ok(());
    }
    let names: Vec<&str> = names.into_iter().collect();
    let why = format!(
        "no variant contains `{text}`; there are {}",
        names.join(", ")
    );
    Err(Error::argument(flag, why))
}

fn show(row: &Row, runtime: &str, ui: &Ui) {
    let verdict = if row.passed() { "ok" } else { "FAILED" };
    let (op, variant, dtype) = (row.op, row.variant, row.dtype.name());
    let (case, share) = (&row.case, 100.0 * row.used);
    ui.line(format!(
        "{runtime:<7} {op:<20} {variant:<16} {dtype:<5} {share:>5.0}%  {verdict:<7} {case}"
    ));
    if !row.passed() {
        ui.line(format!("    {}", row.worst));
    }
    ui.record(
        "item",
        json!({
            "runtime": runtime, "op": op, "variant": variant, "dtype": dtype, "case": case,
            "used": row.used, "worst": row.worst, "verdict": verdict.to_lowercase(),
        }),
    );
}

/// The runtime of this name, or every one that this build and this machine have.
fn runtimes(only: Option<&str>) -> posteriori::Result<Vec<Runtime>> {
    let runtime = |name| device(name).map(|device| device.rt().clone());
    match only {
        Some(name) => Ok(vec![runtime(name)?]),
        None => Ok(["native", "emu", "cuda"]
            .into_iter()
            .flat_map(runtime)
            .collect()),
    }
}

/// The device whose runtime has this name.
pub(super) fn device(runtime: &str) -> posteriori::Result<Device> {
    match runtime {
        "native" => Ok(Device::cpu()),
        "emu" => Device::parse("emu"),
        _ if runtime.starts_with("cuda") => Device::parse(runtime),
        _ => {
            let why = format!("wanted native, emu, cuda or cuda:N, got `{runtime}`");
            Err(Error::argument("--runtime", why))
        }
    }
}
