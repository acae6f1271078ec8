//! `kernels/group_norm/*_4_cluster.sm90a.cu`: a cluster of blocks keeps a run of groups of a sample in shared memory.

use super::Key;
use crate::runtime::kernel::{Launch, Plan};

/// Threads of a block, at least one for each pack of a pixel.
const THREADS: usize = 256;
/// Groups of a run at most, of each of which a block tells a pair of floats.
const GROUPS: usize = 8;
const TOLD: usize = 8 * GROUPS;
/// Bytes that memory is read by.
const SECTOR: usize = 32;
/// Shared memory for a slice of one tensor: the backward pass keeps two, and a block may have 227 KiB.
const MOST: usize = 96 << 10;
/// The same with two blocks on a multiprocessor.
const ROOM: usize = MOST / 2;
/// Blocks of a sample that are enough: about as many as there are multiprocessors.
const ENOUGH: usize = 128;
/// Pixels of an image for which one block a group is enough.
const FEW: usize = 64;

/// How a sample is cut, by its own sizes, so that the batch does not change a bit.
struct Cut {
    /// Groups of a cluster.
    run: usize,
    /// Blocks of a cluster.
    blocks: usize,
    /// Pixels of a block.
    slice: usize,
    /// Bytes of a slice of one tensor.
    bytes: usize,
}

impl Cut {
    /// `None` where no run is whole packs, or has more of them than a block has threads.
    fn of(key: &Key) -> Option<Self> {
        let (size, pack) = (key.c / key.groups, key.dtype.pack());
        let whole =
            |run: &usize| key.groups.is_multiple_of(*run) && (run * size).is_multiple_of(pack);
        let runs: Vec<usize> = [1, 2, 4, GROUPS].into_iter().filter(whole).collect();
        let bytes_of = |run: usize| run * size * key.dtype.size();
        let whole_sectors = runs.iter().find(|&&run| bytes_of(run) >= SECTOR);
        let run = *whole_sectors.or(runs.last())?;
        if run * size / pack > THREADS {
            return None;
        }
        let cut = |blocks| {
            let slice = key.pixels.div_ceil(blocks);
            Cut {
                run,
                blocks,
                slice,
                bytes: slice * bytes_of(run),
            }
        };
        let is_enough = |cut: &Cut| key.groups / run * cut.blocks >= ENOUGH && cut.bytes <= ROOM;
        let smaller = [2, 4].into_iter().map(cut).find(is_enough);
        Some(smaller.unwrap_or_else(|| cut(8)))
    }
}

/// Whether there are such runs, and eight blocks hold one.
pub(super) fn fits(key: &Key) -> bool {
    Cut::of(key).is_some_and(|cut| cut.bytes <= MOST)
}

/// Where one block a group is too few. Large images are left to `chunks`, whose statistics the launches before and after it
/// make and take.
pub(super) fn pays(key: &Key) -> bool {
    key.pixels > FEW && Cut::of(key).is_some_and(|cut| cut.bytes <= ROOM)
}

/// One launch of `y, mean, rstd, x, w, b`.
pub(super) fn forward(key: &Key) -> Plan {
    launch("group_norm/fwd_4_cluster", key, 1)
        .floats([key.eps])
        .into()
}

/// One launch of `dx, dy, x, mean, rstd, w, b, residual`.
pub(super) fn vjp(key: &Key) -> Plan {
    launch("group_norm/vjp_4_cluster", key, 2).into()
}

/// The launch of blocks that keep a slice of so many tensors.
fn launch(module: &'static str, key: &Key, tensors: usize) -> Launch {
    let cut = Cut::of(key).expect("launched only where it fits");
    let part = match cut.blocks {
        2 => "of2",
        4 => "of4",
        _ => "of8",
    };
    let grid = [key.groups / cut.run * cut.blocks, key.samples, 1];
    let sizes = [key.pixels, key.c, key.groups, usize::from(key.silu)];
    Launch::new(module, key.dtype, grid, THREADS as u32)
        .part(part)
        .shared(TOLD + tensors * cut.bytes)
        .ints(sizes)
        .ints([cut.run, cut.slice])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    fn key(pixels: usize, c: usize) -> Key {
        Key {
            dtype: DType::Bf16,
            pixels,
            c,
            groups: 32,
            ..super::super::cases(false).remove(0)
        }
    }

    #[test]
    fn runs_are_whole_packs_and_their_blocks_fill_a_gpu() {
        let cut = |pixels, c| {
            let cut = Cut::of(&key(pixels, c)).unwrap();
            [cut.run, cut.blocks, cut.slice, cut.bytes]
        };
        assert_eq!(cut(4_096, 320), [4, 8, 512, 40_960]);
        assert_eq!(cut(4_096, 512), [1, 4, 1_024, 32_768]);
        assert_eq!(cut(1_024, 640), [2, 8, 128, 10_240]);
        assert_eq!(cut(1_024, 960), [4, 8, 128, 30_720]);
        assert_eq!(cut(256, 1_280), [1, 4, 64, 5_120]);
        assert_eq!(cut(256, 2_560), [1, 4, 64, 10_240]);
    }

    #[test]
    fn images_that_are_small_or_too_large_are_left_to_others() {
        for (pixels, c) in [(4_096, 320), (1_024, 1_920), (256, 1_280)] {
            assert!(pays(&key(pixels, c)) && fits(&key(pixels, c)));
        }
        for (pixels, c) in [(64, 1_280), (4_096, 960), (16_384, 512), (16_384, 256)] {
            assert!(!pays(&key(pixels, c)));
        }
    }
}
