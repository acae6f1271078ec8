//! Sums over the rows of matrices: what bias and norm gradients have in common.
//!
//! Rows are cut into blocks by their number and length only; a block is added up row by row, and the sums of the
//! blocks in their order. So the result is the same on any number of threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::dtype::Real;
use crate::runtime::simd::wide;

/// Elements of one block: large against the cost of handing it to a thread.
const BLOCK: usize = 1 << 13;
/// Rows of one block at least: few blocks to add up.
const ROWS: usize = 64;

/// The sums over all rows of `[samples, rows, c]`: `add(sample, rows of it, sums)` adds those of a block to
/// `sums`, which has `len` elements. Inlined at the widest vector unit: write `#[inline(always)]` before `add`.
pub(super) fn sums<T: Real>(
    [samples, rows, c]: [usize; 3],
    len: usize,
    add: impl Fn(usize, Range<usize>, &mut [T]) + Sync,
) -> Vec<f64> {
    let block = (BLOCK / c).max(ROWS);
    let blocks = rows.div_ceil(block);
    let part = |i: usize| {
        let first = i % blocks * block;
        let mut part = vec![T::ZERO; len];
        wide(
            #[inline(always)]
            || add(i / blocks, first..rows.min(first + block), &mut part),
        );
        part
    };
    let parts: Vec<Vec<T>> = (0..samples * blocks).into_par_iter().map(part).collect();
    let mut all = vec![0.0; len];
    for part in &parts {
        all.iter_mut().zip(part).for_each(|(a, p)| *a += p.f64());
    }
    all
}
