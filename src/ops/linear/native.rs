//! Linear maps on processors: the parts one after the other.

use rayon::prelude::*;

use super::Key;
use crate::dtype::{DType, Real};
use crate::runtime::gemm::{Mat, gemm};
use crate::runtime::native::NativeArgs;
use crate::runtime::product::{self, Product};
use crate::runtime::scratch::Scratch;

pub(super) fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (x, residual) = (
        args.input::<T>(key.parts),
        args.optional::<T>(key.residual_at()),
    );
    for part in 0..key.parts {
        let w = args.operand::<T>(key.weights_at() + part).widened();
        let bias = args.optional::<T>(key.bias_at() + part);
        for (i, y) in args.output::<T>(part).iter_mut().enumerate() {
            let (row, j) = (i / key.m, i % key.m);
            let mut sum = T::ZERO;
            for l in 0..key.k {
                sum += x[row * key.k + l] * w[j * key.k + l];
            }
            *y = sum + bias.map_or(T::ZERO, |b| b[j]) + residual.map_or(T::ZERO, |r| r[i]);
        }
    }
}

pub(super) fn vjp_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let part = |part| {
        let w = args.operand::<T>(key.weights_at() + part).widened();
        (args.input::<T>(1 + part), w)
    };
    let parts: Vec<_> = (0..key.parts).map(part).collect();
    for (i, dx) in args.output::<T>(0).iter_mut().enumerate() {
        let (row, l) = (i / key.k, i % key.k);
        let mut sum = T::ZERO;
        for (dy, w) in &parts {
            for j in 0..key.m {
                sum += dy[row * key.m + j] * w[j * key.k + l];
            }
        }
        *dx = sum;
    }
}

/// Rows for which a product in tiles is worth it.
const FEW: usize = 16;

/// A tile for a few rows would wait for the weights to be packed.
pub(super) fn fits_tiled(key: &Key) -> bool {
    key.dtype == DType::F32 && key.rows >= FEW && product::has_lanes()
}

/// Matrix units sum steps of 32 inputs in tiles of 16 x 16.
pub(super) fn fits_amx(key: &Key) -> bool {
    key.dtype == DType::F32 && key.rows.min(key.k).min(key.m) >= 16 && product::has_amx()
}

pub(super) fn forward_tiled(key: &Key, args: &mut NativeArgs<'_>) {
    let keeps = args.products();
    forward_products(key, args, |product, y| {
        product.by_lanes(y, keeps, |row, _| Some(row));
    });
}

pub(super) fn forward_amx(key: &Key, args: &mut NativeArgs<'_>) {
    let keeps = args.products();
    forward_products(key, args, |product, y| {
        product.by_tiles(y, keeps, |row, _| Some(row));
    });
}

pub(super) fn vjp_tiled(key: &Key, args: &mut NativeArgs<'_>) {
    let keeps = args.products();
    vjp_products(key, args, |product, dx| {
        product.by_lanes(dx, keeps, |row, _| Some(row));
    });
}

pub(super) fn vjp_amx(key: &Key, args: &mut NativeArgs<'_>) {
    let keeps = args.products();
    vjp_products(key, args, |product, dx| {
        product.by_tiles(dx, keeps, |row, _| Some(row));
    });
}

fn forward_products(
    key: &Key,
    args: &mut NativeArgs<'_>,
    compute: impl Fn(&Product<'_>, &mut [f32]),
) {
    for part in 0..key.parts {
        let product = Product {
            a: args.input::<f32>(key.parts),
            b: args.operand(key.weights_at() + part),
            taps: &[0],
            rows: None,
            depth: key.k,
            width: key.m,
            transposed: true,
            add: args.optional::<f32>(key.bias_at() + part),
            residual: args.optional::<f32>(key.residual_at()),
        };
        compute(&product, args.output::<f32>(part));
    }
}

/// Every product is added to those before it, which lie in `dx` and in memory beside it by turns.
fn vjp_products(key: &Key, args: &mut NativeArgs<'_>, compute: impl Fn(&Product<'_>, &mut [f32])) {
    let dx = args.output::<f32>(0);
    let mut aside = Scratch::new(if key.parts > 1 { dx.len() } else { 0 });
    let (mut to, mut sums) = (dx, &mut aside[..]);
    for part in 0..key.parts {
        let product = Product {
            a: args.input::<f32>(1 + part),
            b: args.operand(key.weights_at() + part),
            taps: &[0],
            rows: None,
            depth: key.m,
            width: key.k,
            transposed: false,
            add: None,
            residual: (part > 0).then_some(&*sums),
        };
        compute(&product, to);
        std::mem::swap(&mut to, &mut sums);
    }
}

/// Rows of one block: enough to amortise packing `w`, few enough to give every core some.
pub(super) fn block_rows(key: &Key) -> usize {
    key.rows.div_ceil(4).clamp(32, 256).min(key.rows)
}

pub(super) fn forward_gemm<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    if key.rows < FEW {
        return forward_few::<T>(key, args);
    }
    let (x, residual) = (
        args.input::<T>(key.parts),
        args.optional::<T>(key.residual_at()),
    );
    let block = block_rows(key);
    for part in 0..key.parts {
        let w = args.operand::<T>(key.weights_at() + part).widened();
        let w = Mat::rows(&w, key.m, key.k, key.k).t();
        let bias = args.optional::<T>(key.bias_at() + part);
        let y = args.output::<T>(part);
        let blocks = per_sample_blocks(y, key.rows * key.m, block * key.m);
        blocks.for_each(|(start, y)| {
            let rows = y.len() / key.m;
            match residual {
                Some(r) => y.copy_from_slice(&r[start..start + y.len()]),
                None => y.fill(T::ZERO),
            }
            if let Some(bias) = bias {
                y.chunks_exact_mut(key.m)
                    .for_each(|y| y.iter_mut().zip(bias).for_each(|(y, &b)| *y += b));
            }
            let x = &x[start / key.m * key.k..][..rows * key.k];
            let x = Mat::rows(x, rows, key.k, key.k);
            gemm(y, key.m, bias.is_some() || residual.is_some(), x, w);
        });
    }
}

/// Columns of one block of few rows: their weights stay in the second-level cache once they are widened.
const COLUMNS: usize = 32;

/// Few rows by blocks of columns: what takes time is reading the weights, in the type that they are stored in.
fn forward_few<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (x, residual) = (
        args.input::<T>(key.parts),
        args.optional::<T>(key.residual_at()),
    );
    for part in 0..key.parts {
        let w = args.operand::<T>(key.weights_at() + part);
        let bias = args.optional::<T>(key.bias_at() + part);
        let block = |number: usize| {
            let start = number * COLUMNS;
            let columns = COLUMNS.min(key.m - start);
            let w = w.part(start * key.k..(start + columns) * key.k).widened();
            let w = Mat::rows(&w, columns, key.k, key.k).t();
            let mut y = vec![T::ZERO; key.samples * key.rows * columns];
            for (row, y) in y.chunks_exact_mut(columns).enumerate() {
                if let Some(residual) = residual {
                    y.copy_from_slice(&residual[row * key.m + start..][..columns]);
                }
                if let Some(bias) = bias {
                    y.iter_mut().zip(&bias[start..]).for_each(|(y, &b)| *y += b);
                }
            }
            let samples = y.chunks_exact_mut(key.rows * columns);
            for (y, x) in samples.zip(x.chunks_exact(key.rows * key.k)) {
                let x = Mat::rows(x, key.rows, key.k, key.k);
                gemm(y, columns, bias.is_some() || residual.is_some(), x, w);
            }
            y
        };
        let blocks = (0..key.m.div_ceil(COLUMNS)).into_par_iter().map(block);
        let blocks: Vec<Vec<T>> = blocks.collect();
        for (row, y) in args.output::<T>(part).chunks_exact_mut(key.m).enumerate() {
            for (y, block) in y.chunks_mut(COLUMNS).zip(&blocks) {
                y.copy_from_slice(&block[row * y.len()..][..y.len()]);
            }
        }
    }
}

pub(super) fn vjp_gemm<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let part = |part| {
        let w = args.operand::<T>(key.weights_at() + part).widened();
        (args.input::<T>(1 + part), w)
    };
    let parts: Vec<_> = (0..key.parts).map(part).collect();
    let dx = args.output::<T>(0);
    let block = block_rows(key);
    let blocks = per_sample_blocks(dx, key.rows * key.k, block * key.k);
    blocks.for_each(|(start, dx)| {
        let rows = dx.len() / key.k;
        for (i, (dy, w)) in parts.iter().enumerate() {
            let dy = &dy[start / key.k * key.m..][..rows * key.m];
            let dy = Mat::rows(dy, rows, key.m, key.m);
            let w = Mat::rows(w, key.m, key.k, key.k);
            gemm(dx, key.k, i > 0, dy, w);
        }
    });
}

/// Splits every sample of `y` into blocks of at most `block` elements, so that no block holds parts of
/// two samples; yields each block with its start.
pub(super) fn per_sample_blocks<T: Real>(
    y: &mut [T],
    sample: usize,
    block: usize,
) -> impl ParallelIterator<Item = (usize, &mut [T])> {
    y.par_chunks_mut(sample)
        .enumerate()
        .flat_map(move |(n, y)| {
            y.par_chunks_mut(block)
                .enumerate()
                .map(move |(b, y)| (n * sample + b * block, y))
        })
}
