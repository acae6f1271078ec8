//! Sums over the rows of matrices: what bias and norm gradients have in common, native and in the kernels around
//! `kernels/common/columns.cuh`.
//!
//! Rows are cut into blocks by their number and length only; a few rows of a block are added up one by one, the sums of
//! those in f64 and in their order. So the result is the same on any number of threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::dtype::{DType, Real};
use crate::runtime::kernel::{Launch, Plan, Ptr};
use crate::runtime::simd::wide;

/// Elements of one block: large against the cost of handing it to a thread.
const BLOCK: usize = 1 << 13;
/// Rows that are added up in `T`.
const ROWS: usize = 64;

/// The sums over all rows of `[samples, rows, c]`: `add(sample, rows of it, sums)` adds those of a few rows to
/// `sums`, which has `len` elements. Inlined at the widest vector unit: write `#[inline(always)]` before `add`.
pub(super) fn sums<T: Real>(
    [samples, rows, c]: [usize; 3],
    len: usize,
    add: impl Fn(usize, Range<usize>, &mut [T]) + Sync,
) -> Vec<f64> {
    let block = (BLOCK / c).max(1).next_multiple_of(ROWS);
    let blocks = rows.div_ceil(block);
    let part = |i: usize| {
        let (sample, first) = (i / blocks, i % blocks * block);
        let end = rows.min(first + block);
        let (mut part, mut few) = (vec![0.0; len], vec![T::ZERO; len]);
        wide(
            #[inline(always)]
            || {
                for first in (first..end).step_by(ROWS) {
                    few.fill(T::ZERO);
                    add(sample, first..end.min(first + ROWS), &mut few);
                    accumulate(&mut part, &few);
                }
            },
        );
        part
    };
    let parts: Vec<Vec<f64>> = (0..samples * blocks).into_par_iter().map(part).collect();
    let mut all = vec![0.0; len];
    for part in &parts {
        accumulate(&mut all, part);
    }
    all
}

#[inline(always)]
fn accumulate<T: Real>(all: &mut [f64], part: &[T]) {
    for (all, part) in all.iter_mut().zip(part) {
        *all += part.f64();
    }
}

/// How rows are cut into chunks, which are added up by one block each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Rows of a chunk.
    pub(super) chunk: usize,
    /// Chunks.
    pub(super) chunks: usize,
}

impl Cut {
    /// Four rows for every thread, or as many fours as keep them within 256 chunks over all `samples`.
    pub(super) fn of(samples: usize, rows: usize) -> Self {
        const STEP: usize = 4 * 32;
        let most = (256 / samples).max(1);
        let chunk = STEP * rows.div_ceil(most * STEP);
        Cut {
            chunk,
            chunks: rows.div_ceil(chunk),
        }
    }
}

/// Blocks side by side: of eight packs of `width` columns each.
pub(super) fn tiles(c: usize, width: usize) -> usize {
    c.div_ceil(8 * width)
}

/// `sums`, which leaves two rows of `c` for each of `rows` chunks, f32 `[2, rows, c]`, at the start of scratch memory;
/// then `fold` of the same module, which adds each up for the first two arguments.
pub(super) fn fold_two(module: &'static str, rows: usize, c: usize, sums: Launch) -> Plan {
    let fold = Launch::new(module, DType::F32, [1, tiles(c, 1), 2], 256)
        .part("fold")
        .pointers([Ptr::Arg(0), Ptr::Arg(1), Ptr::Scratch(0)])
        .ints([rows, c]);
    Plan {
        launches: vec![sums, fold],
        scratch: 2 * rows * c * size_of::<f32>(),
    }
}
