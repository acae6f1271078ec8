//! What memory the machine has, where the system says so, and whether a plan fits it.

use posteriori::pipeline::plan::Plan;
use posteriori::{Error, Result};

/// Bytes in all, and bytes that can be had without swapping. Linux only.
pub(crate) fn total_and_free() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kilobytes * 1024)
    };
    Some((bytes("MemTotal:")?, bytes("MemAvailable:")?))
}

/// Whether the slab fits. The weights are open by now: their pages come and go with the file.
pub(crate) fn check(plan: &Plan) -> Result<()> {
    let slab = plan.slab as u64;
    match total_and_free() {
        Some((_, free)) if slab > free => {
            let [h, w] = plan.size;
            let why = format!(
                "{} images of {h} x {w} take {:.2} GB, {:.2} GB are free; lower --batch or take smaller images",
                plan.batch,
                slab as f64 / 1e9,
                free as f64 / 1e9
            );
            Err(Error::Plan { why })
        }
        _ => Ok(()),
    }
}
