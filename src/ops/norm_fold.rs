//! The launch between the two passes over the cotangent of a group norm, for the ops that make these.

use crate::dtype::DType;
use crate::runtime::kernel::{Launch, Ptr};

/// Threads for so many chunks, eight each: one warp, but for many parts that are given.
pub(super) fn threads(chunks: usize) -> u32 {
    chunks.div_ceil(8).next_multiple_of(32).min(512) as u32
}

/// `scale, shift, slope, offset` of each channel, of which the second pass makes `dx`, from the first one's sums of
/// `chunks`, each of `chunk` pixels, `mean`, `rstd`, `w` and `b`.
pub(super) fn vjp(
    dtype: DType,
    [samples, pixels, c, groups]: [usize; 4],
    [chunk, chunks]: [usize; 2],
    pointers: [Ptr; 9],
) -> Launch {
    let grid = [groups, samples, 1];
    Launch::new("group_norm/vjp_2_chunks", dtype, grid, threads(chunks))
        .part("fold")
        .pointers(pointers)
        .ints([pixels, c, groups, 1])
        .ints([1, chunk, chunks])
}
