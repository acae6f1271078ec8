//! What a GPU would take for a launch, by its counts: a prediction, for where there is no GPU to measure on.
//!
//! A kernel takes the larger of its operations at the rate of its instructions, in waves of one block for each multiprocessor of which
//! the last counts as a whole one, and its bytes at the rate of copying. What its launches leave in memory for one another is written and
//! read once at that rate, on top, as is what a norm reads a second time, and each launch takes a constant. What that leaves out (tiles whose loads are not hidden, clocks under
//! load) makes kernels slower than predicted; only scratch memory and second reads that stay in the cache make them faster.

use super::case::AnyCase;
use crate::cx::Cx;
use crate::dtype::DType;
use crate::error::Result;
use crate::runtime::Cost;
use crate::runtime::kernel::{Launch, Plan};

/// What a prediction knows of a GPU.
#[derive(Clone, Copy, Debug)]
pub struct Gpu {
    /// Its name.
    pub name: &'static str,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Operations a second of the best 16-bit product.
    pub product: f64,
    /// The same by `mma.sync`.
    pub mma: f64,
    /// Operations a second of f32 lanes.
    pub lanes: f64,
    /// Bytes a second of a copy.
    pub bytes: f64,
    /// Seconds of a launch in a graph.
    pub launch: f64,
}

/// One H200. Products and copies as measured on one (8192^3 in bf16; `add` of large tensors); `mma.sync` reaches 63 % of the
/// peak of 989 TFLOP/s on Hopper (Luo et al. 2024, arXiv 2402.13499); lanes by the data sheet.
pub const H200: Gpu = Gpu {
    name: "NVIDIA H200",
    multiprocessors: 132,
    product: 790e12,
    mma: 0.63 * 989e12,
    lanes: 67e12,
    bytes: 4.3e12,
    launch: 1.5e-6,
};

/// A prediction, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prediction {
    /// By the best instructions there are, all multiprocessors busy, nothing for the launch.
    pub floor: f64,
    /// By the instructions and blocks of the variant that a model takes.
    pub predicted: f64,
    /// Launches of kernels.
    pub launches: u64,
}

/// Predicts the variant that a model takes of a case; `cx` is of a runtime that plans for a GPU.
///
/// # Errors
/// [`Error::NoVariant`](crate::Error::NoVariant) when no variant of kernels takes it.
pub fn predict(cx: &Cx, case: &dyn AnyCase, gpu: &Gpu) -> Result<Prediction> {
    let best = match case.dtype() {
        DType::Bf16 | DType::F16 => gpu.product,
        _ => gpu.lanes,
    };
    let plan = case.plan(cx)?;
    Ok(of_plan(plan.as_ref(), case.cost(), best, gpu))
}

/// Predicts launches that do the work of `cost`, on a GPU whose best instructions have the rate `best`.
fn of_plan(plan: Option<&Plan>, cost: Cost, best: f64, gpu: &Gpu) -> Prediction {
    let launches = plan.map_or(&[][..], |plan| &plan.launches);
    let (flops, bytes) = (cost.flops as f64, cost.bytes as f64 / gpu.bytes);
    let again: usize = launches.iter().map(|launch| launch.again).sum();
    let scratch = 2.0 * plan.map_or(0, |plan| plan.scratch) as f64;
    let more = (scratch + again as f64) / gpu.bytes;
    // The work is that of the largest kernel of the fastest instructions; others prepare it or add its parts up.
    let of = |launch: &Launch| flops / rate(launch, gpu) * idle(launch, gpu);
    let fastest = launches
        .iter()
        .map(|launch| rate(launch, gpu))
        .fold(0.0, f64::max);
    let main = launches
        .iter()
        .filter(|launch| rate(launch, gpu) == fastest)
        .max_by_key(|launch| threads(launch));
    let busy = main.map_or(0.0, of).max(bytes);
    Prediction {
        floor: (flops / best).max(bytes),
        predicted: busy + more + gpu.launch * launches.len() as f64,
        launches: launches.len() as u64,
    }
}

/// The rate of a kernel's instructions, which its file is named after.
fn rate(launch: &Launch, gpu: &Gpu) -> f64 {
    let is_one_of = |ends: &[&str]| ends.iter().any(|end| launch.entry.module.ends_with(end));
    if is_one_of(&["_wgmma", "_tma", "_halo"]) {
        gpu.product
    } else if is_one_of(&[
        "_tensor_cores",
        "_phases",
        "_split",
        "_flash",
        "_wide",
        "_three_outputs",
    ]) {
        gpu.mma
    } else {
        gpu.lanes
    }
}

/// How much longer blocks take than they would if they divided evenly among the multiprocessors.
fn idle(launch: &Launch, gpu: &Gpu) -> f64 {
    let blocks = blocks(launch) as f64 / f64::from(gpu.multiprocessors);
    blocks.ceil() / blocks
}

fn blocks(launch: &Launch) -> u64 {
    launch.grid.iter().map(|n| u64::from(*n)).product()
}

fn threads(launch: &Launch) -> u64 {
    blocks(launch) * launch.block.iter().map(|n| u64::from(*n)).product::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_wave_counts_as_a_whole_one() {
        let of = |blocks| {
            idle(
                &Launch::new("add/fwd_1_plain", DType::F32, [blocks, 1, 1], 256),
                &H200,
            )
        };
        assert_eq!([of(132), of(264), of(66), of(33)], [1.0, 1.0, 2.0, 4.0]);
        assert!((of(133) - 264.0 / 133.0).abs() < 1e-12);
    }

    /// A cut busies the GPU; its parts are written and read, and there is a launch more.
    #[test]
    fn a_cut_is_paid_for() {
        let launch = |module, blocks| Launch::new(module, DType::Bf16, [22, 1, blocks], 256);
        let cost = Cost {
            flops: 7_900_000_000,
            bytes: 4_300_000,
        };
        let of = |launches, scratch| {
            let plan = Plan { launches, scratch };
            let told = of_plan(Some(&plan), cost, H200.product, &H200);
            assert_eq!(told.floor, 1e-5);
            assert_eq!(told.launches, plan.launches.len() as u64);
            told.predicted
        };
        let whole = of(vec![launch("linear/fwd_3_wgmma", 1)], 0);
        assert!((whole - (6.0 * 1e-5 + 1.5e-6)).abs() < 1e-15);
        let sum = launch("sum/parts", 100);
        let cut = of(
            vec![launch("linear/fwd_5_split_wgmma", 6), sum],
            6 * 4_300_000,
        );
        assert!((cut - (1e-5 + 2.0 * 6.0 * 1e-6 + 2.0 * 1.5e-6)).abs() < 1e-15);
    }

    #[test]
    fn second_reads_are_paid_for() {
        let cost = Cost {
            flops: 0,
            bytes: 8_600_000,
        };
        let launch = || Launch::new("group_norm/fwd_2_chunks", DType::Bf16, [132, 1, 1], 256);
        let of = |again| {
            let plan = Plan::from(launch().reading_again(again));
            of_plan(Some(&plan), cost, H200.product, &H200).predicted
        };
        assert!((of(4_300_000) - of(0) - 1e-6).abs() < 1e-15);
    }

    #[test]
    fn kernels_on_tensor_cores_are_known_by_their_names() {
        let of = |module| rate(&Launch::each(module, DType::Bf16, 1), &H200);
        for module in [
            "conv2d/fwd_2_tensor_cores",
            "conv2d/vjp_4_phases",
            "conv2d/fwd_6_split",
            "attention/vjp_2_flash",
            "attention/fwd_3_wide",
            "conv2d/fwd_11_three_outputs",
        ] {
            assert_eq!(of(module), H200.mma);
        }
        for module in [
            "linear/fwd_3_wgmma",
            "linear/fwd_5_split_wgmma",
            "conv2d/fwd_8_tma",
            "conv2d/vjp_10_halo",
        ] {
            assert_eq!(of(module), H200.product);
        }
        assert_eq!(of("conv2d/fwd_1_plain"), H200.lanes);
    }
}
