//! Blocks of queries against blocks of keys, as in FlashAttention: the scores never leave the cache, the
//! backward passes compute them again from `lse`. The products are matrix products straight out of the
//! `[t, heads * d]` layout.

use rayon::prelude::*;

use super::Key;
use crate::dtype::Real;
use crate::runtime::gemm::{Mat, gemm, scaled};
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::{largest, sum, sum_pairs, wide};

/// Keys of one block: with the queries of a task, its scores stay in the second-level cache.
const KEYS: usize = 256;

/// Splits every sample of `y` into row blocks: (sample, first row, rows).
fn query_blocks<'y, T: Real>(
    key: &Key,
    y: &'y mut [T],
) -> impl ParallelIterator<Item = (usize, usize, &'y mut [T])> {
    let (rows, width, tq) = (key.rows(), key.width(), key.tq);
    let samples = y.par_chunks_mut(tq * width).enumerate();
    samples.flat_map(move |(n, y)| {
        let blocks = y.par_chunks_mut(rows * width).enumerate();
        blocks.map(move |(b, y)| (n, b * rows, y))
    })
}

pub(super) fn forward<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (o, lse) = (args.output::<T>(0), args.output::<T>(1));
    let (q, k, v) = (args.input::<T>(2), args.input::<T>(3), args.input::<T>(4));
    let (width, d, tq) = (key.width(), key.d, key.tq);
    let parts: Vec<(usize, Vec<T>)> = query_blocks(key, o)
        .map_init(Vec::new, |scores, (n, first, o)| {
            let rows = o.len() / width;
            let q = &q[(n * tq + first) * width..][..rows * width];
            let (k, v) = (&k[key.keys_at(n)..], &v[key.keys_at(n)..]);
            let mut lse = Vec::with_capacity(key.heads * rows);
            for at in (0..width).step_by(d) {
                let head = (&q[at..], &k[at..], &v[at..]);
                lse.extend(forward_head(key, first, head, &mut o[at..], scores));
            }
            (n * key.heads * tq + first, lse)
        })
        .collect();
    for (start, part) in parts {
        let rows = part.len() / key.heads;
        for (h, part) in part.chunks_exact(rows).enumerate() {
            lse[start + h * tq..][..rows].copy_from_slice(part);
        }
    }
}

/// One head of a block of queries: the keys pass by in blocks, with the softmax's maximum and
/// denominator kept so far. Returns the rows' lse.
fn forward_head<T: Real>(
    key: &Key,
    first: usize,
    (q, k, v): (&[T], &[T], &[T]),
    o: &mut [T],
    scores: &mut Vec<T>,
) -> Vec<T> {
    let (width, d) = (key.width(), key.d);
    let rows = q.len().div_ceil(width);
    let mut most = vec![T::of(f64::NEG_INFINITY); rows];
    let mut total = vec![T::ZERO; rows];
    let q = Mat::rows(q, rows, d, width);
    let last = key.last(first + rows);
    for start in (0..last).step_by(KEYS) {
        let keys = KEYS.min(last - start);
        scores.resize(rows * keys, T::ZERO);
        let k = Mat::rows(&k[start * width..], keys, d, width);
        scaled(scores, keys, false, key.scale(), q, k.t());
        wide(
            #[inline(always)]
            || {
                for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
                    let (row, hidden) = row.split_at_mut(key.seen(first + i, start, keys));
                    hidden.fill(T::ZERO);
                    let before = most[i];
                    // A local, not `most[i]`: the loop over the row could be writing to that.
                    let now = largest(row, before);
                    for s in row.iter_mut() {
                        *s = (*s - now).exp();
                    }
                    let shrink = (before - now).exp();
                    total[i] = total[i] * shrink + sum(row);
                    most[i] = now;
                    if start > 0 && now > before {
                        for o in &mut o[i * width..][..d] {
                            *o *= shrink;
                        }
                    }
                }
            },
        );
        let v = Mat::rows(&v[start * width..], keys, d, width);
        gemm(o, width, start > 0, Mat::rows(scores, rows, keys, keys), v);
    }
    for (i, &total) in total.iter().enumerate() {
        let share = T::ONE / total;
        for o in &mut o[i * width..][..d] {
            *o *= share;
        }
        most[i] += T::of(total.f64().ln());
    }
    most
}

/// A sample's inputs of a backward pass, from the first element of one head on.
#[derive(Clone, Copy)]
struct Head<'a, T> {
    dy: &'a [T],
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    o: &'a [T],
    /// This head's, one for each query.
    lse: &'a [T],
}

/// The backward pass's inputs of all samples, from argument `first` on.
struct Inputs<'a, T>([&'a [T]; 6]);

impl<'a, T: Real> Inputs<'a, T> {
    fn of(args: &NativeArgs<'a>, first: usize) -> Self {
        Inputs(std::array::from_fn(|i| args.input::<T>(first + i)))
    }

    fn head(&self, key: &Key, n: usize, h: usize) -> Head<'a, T> {
        let [dy, q, k, v, o, lse] = self.0;
        let (width, tq) = (key.width(), key.tq);
        let (at, source) = (n * tq * width + h * key.d, key.keys_at(n) + h * key.d);
        // Up to the end of the sample, so that no view can reach the next one.
        let queries = |x: &'a [T]| &x[at..(n + 1) * tq * width];
        Head {
            dy: queries(dy),
            q: queries(q),
            k: &k[source..key.keys_at(n) + key.tk * width],
            v: &v[source..key.keys_at(n) + key.tk * width],
            o: queries(o),
            lse: &lse[(n * key.heads + h) * tq..][..tq],
        }
    }
}

/// A block of queries against a block of keys.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    rows: usize,
    start: usize,
    keys: usize,
    /// Distance of the rows of `p` and `ds`.
    stride: usize,
}

/// `p` and `ds` of one block.
fn cotangents<T: Real>(key: &Key, head: Head<'_, T>, at: Block, p: &mut [T], ds: &mut [T]) {
    let (width, d) = (key.width(), key.d);
    let queries = |x| Mat::rows(x, at.rows, d, width);
    let keys = |x| Mat::rows(x, at.keys, d, width).t();
    let (from, source) = (at.first * width, at.start * width);
    let (q, dy) = (&head.q[from..], &head.dy[from..]);
    let k = keys(&head.k[source..]);
    scaled(p, at.stride, false, key.scale(), queries(q), k);
    gemm(ds, at.stride, false, queries(dy), keys(&head.v[source..]));
    wide(
        #[inline(always)]
        || {
            let blocks = p.chunks_mut(at.stride).zip(ds.chunks_mut(at.stride));
            for (i, (p, ds)) in blocks.take(at.rows).enumerate() {
                let row = at.first + i;
                let (dy, o) = (&head.dy[row * width..][..d], &head.o[row * width..][..d]);
                let (delta, lse) = (sum_pairs(dy, o, |a, b| a * b), head.lse[row]);
                let scale = key.scale::<T>(); // a local: see `forward_head`
                let seen = key.seen(row, at.start, at.keys);
                p[seen..at.keys].fill(T::ZERO);
                ds[seen..at.keys].fill(T::ZERO);
                for (p, ds) in p[..seen].iter_mut().zip(&mut ds[..seen]) {
                    *p = (*p - lse).exp();
                    *ds = scale * *p * (*ds - delta);
                }
            }
        },
    );
}

pub(super) fn vjp<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let dq = args.output::<T>(0);
    let inputs = Inputs::<T>::of(args, 1);
    let (width, d) = (key.width(), key.d);
    query_blocks(key, dq).for_each_init(
        || (Vec::new(), Vec::new()),
        |(p, ds), (n, first, dq)| {
            let rows = dq.len() / width;
            let last = key.last(first + rows);
            for h in 0..key.heads {
                let head = inputs.head(key, n, h);
                for start in (0..last).step_by(KEYS) {
                    let keys = KEYS.min(last - start);
                    p.resize(rows * keys, T::ZERO);
                    ds.resize(rows * keys, T::ZERO);
                    let stride = keys;
                    let at = Block {
                        first,
                        rows,
                        start,
                        keys,
                        stride,
                    };
                    cotangents(key, head, at, p, ds);
                    let k = Mat::rows(&head.k[start * width..], keys, d, width);
                    let ds = Mat::rows(ds, rows, keys, keys);
                    gemm(&mut dq[h * d..], width, start > 0, ds, k);
                }
            }
        },
    );
}

/// Elements of `p` (and of `ds`) that a sample's backward pass holds at once.
const HELD: usize = 1 << 20;

/// Keys of one task in the second half of a step.
const KEY_ROWS: usize = 64;

/// For each block of keys (and as many heads as `HELD` allows): first `p`, `ds` and the share of `dq`,
/// in parallel over queries; then all of the block's `dk` and `dv`, in parallel over keys. Every output
/// has one writer and a fixed order of sums.
pub(super) fn vjp_kv<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dq, dk, dv) = (
        args.output::<T>(0),
        args.output::<T>(1),
        args.output::<T>(2),
    );
    let inputs = Inputs::<T>::of(args, 3);
    let (width, tq) = (key.width(), key.tq);
    let keys = KEYS.min(key.tk);
    let group = (HELD / (tq * keys)).clamp(1, key.heads);
    let sources = key.tk * width;
    dq.par_chunks_mut(tq * width)
        .zip(dk.par_chunks_mut(sources).zip(dv.par_chunks_mut(sources)))
        .enumerate()
        .for_each(|(n, (dq, (dk, dv)))| {
            let mut p = vec![T::ZERO; tq * group * keys];
            let mut ds = vec![T::ZERO; tq * group * keys];
            for first in (0..key.heads).step_by(group) {
                let heads = first..(first + group).min(key.heads);
                let heads: Vec<_> = heads.map(|h| (h * key.d, inputs.head(key, n, h))).collect();
                let blocks = dk
                    .chunks_mut(keys * width)
                    .zip(dv.chunks_mut(keys * width))
                    .enumerate();
                for (b, (dk, dv)) in blocks {
                    let step = Step {
                        key,
                        heads: &heads,
                        start: b * keys,
                        keys,
                        stride: group * keys,
                    };
                    step.queries(dq, &mut p, &mut ds);
                    step.sources(dk, dv, &p, &ds);
                }
            }
        });
}

/// One block of keys of some heads (with where each starts in a row) against all queries.
struct Step<'a, T> {
    key: &'a Key,
    heads: &'a [(usize, Head<'a, T>)],
    start: usize,
    /// Room for so many keys in `p` and `ds` for each head; the last block has fewer.
    keys: usize,
    stride: usize,
}

impl<T: Real> Step<'_, T> {
    fn queries(&self, dq: &mut [T], p: &mut [T], ds: &mut [T]) {
        let (key, width, stride) = (self.key, self.key.width(), self.stride);
        let keys = self.keys.min(key.tk - self.start);
        let rows = key.rows();
        dq.par_chunks_mut(rows * width)
            .zip(p.par_chunks_mut(rows * stride))
            .zip(ds.par_chunks_mut(rows * stride))
            .enumerate()
            .for_each(|(b, ((dq, p), ds))| {
                let at = Block {
                    first: b * rows,
                    rows: dq.len() / width,
                    start: self.start,
                    keys,
                    stride,
                };
                for (g, &(from, head)) in self.heads.iter().enumerate() {
                    let (p, ds) = (&mut p[g * self.keys..], &mut ds[g * self.keys..]);
                    cotangents(key, head, at, p, ds);
                    let k = Mat::rows(&head.k[self.start * width..], keys, key.d, width);
                    let ds = Mat::rows(ds, at.rows, keys, stride);
                    gemm(&mut dq[from..], width, self.start > 0, ds, k);
                }
            });
    }

    fn sources(&self, dk: &mut [T], dv: &mut [T], p: &[T], ds: &[T]) {
        let (width, d, tq) = (self.key.width(), self.key.d, self.key.tq);
        dk.par_chunks_mut(KEY_ROWS * width)
            .zip(dv.par_chunks_mut(KEY_ROWS * width))
            .enumerate()
            .for_each(|(b, (dk, dv))| {
                let keys = dk.len() / width;
                for (g, &(from, head)) in self.heads.iter().enumerate() {
                    let at = g * self.keys + b * KEY_ROWS;
                    let block = |x| Mat::rows(x, tq, keys, self.stride).t();
                    let queries = |x| Mat::rows(x, tq, d, width);
                    let (p, ds) = (block(&p[at..]), block(&ds[at..]));
                    gemm(&mut dv[from..], width, false, p, queries(head.dy));
                    gemm(&mut dk[from..], width, false, ds, queries(head.q));
                }
            });
    }
}
