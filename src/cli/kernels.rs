//! `kernels`: what this build has of kernels, and what the compiler makes of them, without a GPU.

use std::collections::BTreeSet;

use anyhow::Result;
use rayon::prelude::*;
use serde_json::json;

use posteriori::Error;
use posteriori::runtime::cuda::modules::Module;
use posteriori::runtime::cuda::nvrtc::Nvrtc;
use posteriori::runtime::cuda::report::{self, Row};
use posteriori::runtime::kernel::Arch;

use super::exit::{DONE, FAILED};
use super::ui::Ui;

/// List the GPU kernels of this build; with --arch, compile them and tell what became of each
///
/// Needs NVRTC for --arch, but no GPU. Exits with 1 if a kernel spills registers.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only files whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Compile for these generations, such as 80,89,90,100,120
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    arch: Vec<u32>,
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let chosen = || {
        let all = Module::all().iter();
        all.filter(|module| module.name.contains(&args.only))
    };
    if chosen().count() == 0 {
        let ops = Module::all()
            .iter()
            .filter_map(|module| module.name.split('/').next());
        let ops: Vec<&str> = BTreeSet::from_iter(ops).into_iter().collect();
        let (only, ops) = (&args.only, ops.join(", "));
        let why = format!("no file's name contains `{only}`; there are those of {ops}");
        return Err(Error::argument("--only", why).into());
    }
    if args.arch.is_empty() {
        chosen().for_each(|module| list(module, ui));
        return Ok(DONE);
    }
    let device = |why| Error::Device {
        device: "nvrtc".into(),
        why,
    };
    let nvrtc = Nvrtc::find().map_err(device)?;
    let ([major, minor], files) = (nvrtc.version, chosen().count());
    ui.line(format!(
        "{files} files compiled by NVRTC {major}.{minor}. Occupancy is what registers and static shared memory allow.\n"
    ));
    ui.line(
        "| kernel | GPU | threads | registers | shared | spilled | occupancy | mma | 16-byte loads |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|",
    );
    let compiled = |&(module, arch): &(&Module, Arch)| {
        let arch = nvrtc.arch_for(arch).map_err(device)?;
        let failed = |why| device(format!("kernels/{}.cu: {why}", module.name));
        report::rows(nvrtc, module, &arch).map_err(failed)
    };
    let archs = || args.arch.iter().map(|&arch| Arch(arch));
    let all: Vec<(&Module, Arch)> = chosen()
        .flat_map(|module| archs().map(move |arch| (module, arch)))
        .filter(|(module, arch)| module.runs_on(*arch))
        .collect();
    let mut spills = 0;
    // Lines come as the work goes on, in an order that is always the same.
    for some in all.chunks(4 * rayon::current_num_threads()) {
        let rows: Vec<_> = some.par_iter().map(compiled).collect();
        for row in rows.into_iter().collect::<Result<Vec<_>, _>>()?.concat() {
            spills += usize::from(row.spilled > 0);
            show(&row, ui);
        }
    }
    ui.record("summary", json!({ "files": files, "spills": spills }));
    Ok(if spills == 0 { DONE } else { FAILED })
}

fn list(module: &Module, ui: &Ui) {
    let embedded = module.is_embedded();
    let text = if embedded { "compiled" } else { "source" };
    ui.line(format!("{text:<9} {}", module.name));
    ui.record("item", json!({ "file": module.name, "compiled": embedded }));
}

fn show(row: &Row, ui: &Ui) {
    let Row {
        entry,
        arch,
        threads,
        registers,
        shared,
        spilled,
        mma,
        wide_loads,
    } = row;
    let occupancy = row.occupancy();
    ui.line(format!(
        "| {entry} | {arch} | {threads} | {registers} | {shared} | {spilled} | {occupancy} % | {mma} | {wide_loads} |"
    ));
    ui.record(
        "item",
        json!({
            "kernel": entry, "arch": arch, "threads": threads, "registers": registers, "shared": shared,
            "spilled": spilled, "occupancy": occupancy, "mma": mma, "wide_loads": wide_loads,
        }),
    );
}
