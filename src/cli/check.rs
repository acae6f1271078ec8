//! `check`: every variant of every op against the textbook loops.

use anyhow::Result;
use serde_json::json;

use posteriori::Error;
use posteriori::ops::ALL;

use super::exit::{DONE, FAILED};
use super::ui::Ui;

/// Compare every kernel variant with the textbook loops in f64
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only ops whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    op: String,
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let chosen: Vec<_> = ALL
        .iter()
        .filter(|op| op.name().contains(&args.op))
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = ALL.iter().map(|op| op.name()).collect();
        let why = format!(
            "no op contains `{}`; there are {}",
            args.op,
            names.join(", ")
        );
        return Err(Error::argument("--op", why).into());
    }
    ui.line(format!(
        "{:<20} {:<16} {:>6}  {:<6} case",
        "op", "variant", "bound", "verdict"
    ));
    let (mut passed, mut failed) = (0, 0);
    for op in chosen {
        for row in op.check()? {
            let verdict = if row.passed() { "ok" } else { "FAILED" };
            *(if row.passed() {
                &mut passed
            } else {
                &mut failed
            }) += 1;
            let (op, variant, case, used) = (row.op, row.variant, &row.case, row.used);
            let share = 100.0 * used;
            ui.line(format!(
                "{op:<20} {variant:<16} {share:>5.0}%  {verdict:<6} {case}"
            ));
            if !row.passed() {
                ui.line(format!("    {}", row.worst));
            }
            ui.record(
                "item",
                json!({
                    "op": op, "variant": variant, "case": case, "used": used,
                    "worst": row.worst, "verdict": verdict.to_lowercase(),
                }),
            );
        }
    }
    ui.line(format!(
        "{passed} passed, {failed} failed; runtimes exercised: native"
    ));
    ui.record(
        "summary",
        json!({ "passed": passed, "failed": failed, "runtimes": ["native"] }),
    );
    Ok(if failed == 0 { DONE } else { FAILED })
}
