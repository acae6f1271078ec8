//! Attention by matrix units: as in `flash`, blocks of queries against blocks of keys. Scores lie in panels of 32
//! keys, as the units leave them; a panel's row is just a step of the next product's depth.

use std::ops::Range;

use rayon::prelude::*;

use super::Key;
use crate::dtype::{DType, Real};
use crate::runtime::native::NativeArgs;
use crate::runtime::operand::Operand;
use crate::runtime::product::has_amx;
use crate::runtime::scratch::Scratch;
use crate::runtime::simd::{largest, sum, sum_pairs, wide};
use crate::runtime::unit::{GAP, PANEL, STEP, Unit, by_amx};

/// Queries of a block, at most.
const QUERIES: usize = 128;
/// Keys of a block: with a block of queries their scores stay in the second-level cache.
const KEYS: usize = 256;
/// Numbers of `dq` that wait for their sum, about.
const HELD: usize = 1 << 23;

pub(super) fn fits(key: &Key) -> bool {
    let least = key.d.min(key.tq).min(key.tk);
    key.dtype == DType::F32 && !key.causal && least >= 16 && has_amx()
}

/// The sums of a block of keys stay in the cache for common head dims only.
pub(super) fn fits_vjp_kv(key: &Key) -> bool {
    fits(key) && key.d <= 160
}

/// How a head's rows are made into operands.
struct Rows<'a> {
    unit: &'a Unit,
    d: usize,
    /// From row to row in memory.
    width: usize,
}

impl Rows<'_> {
    /// Splits `rows` rows of `x` into whole blocks of rows, and says how far they are apart.
    fn split(&self, x: &[f32], rows: usize) -> (Scratch<u16>, usize) {
        let pitch = self.unit.row(self.d) + GAP;
        let mut to = Scratch::new(rows.next_multiple_of(PANEL) * pitch);
        self.unit
            .split(x, self.width, [rows, self.d], &mut to, pitch);
        (to, pitch)
    }

    /// Packs `rows` rows of `x` as rows.
    fn pack(&self, x: &[f32], rows: usize) -> Scratch<u16> {
        let mut to = Scratch::new(self.d.div_ceil(PANEL) * self.unit.panel(rows));
        self.unit
            .pack(Operand::Wide(x), self.width, [rows, self.d], false, &mut to);
        to
    }

    /// Packs `rows` rows of `x` as columns.
    fn pack_transposed(&self, x: &[f32], rows: usize) -> Scratch<u16> {
        let mut to = Scratch::new(rows.div_ceil(PANEL) * self.unit.panel(self.d));
        self.unit
            .pack(Operand::Wide(x), self.width, [self.d, rows], true, &mut to);
        to
    }
}

/// Sums or scores that a unit left: panels of 32 columns, in each `rows` rows.
#[derive(Clone, Copy)]
struct Panels {
    /// A multiple of 32.
    rows: usize,
    columns: usize,
}

impl Panels {
    fn new(rows: usize, columns: usize) -> Self {
        Panels {
            rows: rows.next_multiple_of(PANEL),
            columns,
        }
    }

    fn len(self) -> usize {
        self.rows * self.columns.next_multiple_of(PANEL)
    }

    /// Where row `i` is in each panel.
    fn row(self, i: usize) -> impl Iterator<Item = Range<usize>> {
        (0..self.columns).step_by(PANEL).map(move |column| {
            let start = column * self.rows + i * PANEL;
            start..start + PANEL.min(self.columns - column)
        })
    }

    /// The rows, panel by panel.
    #[inline(always)]
    fn rows_mut(self, x: &mut [f32]) -> &mut [[f32; PANEL]] {
        bytemuck::cast_slice_mut(&mut x[..self.len()])
    }

    /// Copies row `i`.
    fn copy(self, x: &[f32], i: usize, to: &mut [f32]) {
        for (to, row) in to.chunks_mut(PANEL).zip(self.row(i)) {
            to.copy_from_slice(&x[row]);
        }
    }

    /// Memory for all rows, split along their columns.
    fn operand(self, unit: &Unit) -> Scratch<u16> {
        Scratch::new(self.rows * self.pitch(unit))
    }

    /// Pieces from row to row of such an operand.
    fn pitch(self, unit: &Unit) -> usize {
        unit.row(self.columns) + GAP
    }

    /// Splits the first `rows` rows along their columns.
    fn split(self, unit: &Unit, x: &[f32], rows: usize, to: &mut [u16]) {
        for (panel, first) in self.row(0).enumerate() {
            let to = &mut to[panel * STEP * unit.pieces..];
            let size = [rows, first.len()];
            unit.split(&x[first.start..], PANEL, size, to, self.pitch(unit));
        }
    }

    /// Packs the first `rows` rows as the depth of a product.
    fn pack(self, unit: &Unit, x: &[f32], rows: usize) -> Scratch<u16> {
        let len = unit.panel(rows);
        let mut to = Scratch::new(self.columns.div_ceil(PANEL) * len);
        for (first, to) in self.row(0).zip(to.chunks_exact_mut(len)) {
            unit.pack(
                Operand::Wide(&x[first.start..]),
                PANEL,
                [rows, first.len()],
                false,
                to,
            );
        }
        to
    }
}

/// The keys, as columns, and the values of one head, block by block.
struct Packed(Vec<[Scratch<u16>; 2]>);

impl Packed {
    fn new(rows: &Rows<'_>, tk: usize, k: &[f32], v: &[f32]) -> Self {
        let block = |start: usize| {
            let (from, keys) = (start * rows.width, KEYS.min(tk - start));
            let k = rows.pack_transposed(&k[from..], keys);
            [k, rows.pack(&v[from..], keys)]
        };
        Packed((0..tk).step_by(KEYS).map(block).collect())
    }
}

pub(super) fn forward(key: &Key, args: &mut NativeArgs<'_>) {
    let (o, lse) = (args.output::<f32>(0), args.output::<f32>(1));
    let [q, k, v] = [2, 3, 4].map(|i| args.input::<f32>(i));
    let unit = by_amx(args.products(), DType::F32).expect("`fits` has asked");
    let (width, d, tq, heads) = (key.width(), key.d, key.tq, key.heads);
    let rows = &Rows { unit, d, width };
    let sources = if key.shared { 1 } else { key.samples };
    let pack = |i: usize| {
        let at = key.keys_at(i / heads) + i % heads * d;
        Packed::new(rows, key.tk, &k[at..], &v[at..])
    };
    let packed: Vec<Packed> = (0..sources * heads).into_par_iter().map(pack).collect();
    // Head by head; then each goes to its place between the others.
    let mut parts = Scratch::<f32>::new(o.len());
    let all = parts.par_chunks_mut(tq * d).zip(lse.par_chunks_mut(tq));
    all.enumerate().for_each(|(i, (o, lse))| {
        let (n, h) = (i / heads, i % heads);
        let packed = &packed[if key.shared { h } else { i }];
        let blocks = o
            .par_chunks_mut(QUERIES * d)
            .zip(lse.par_chunks_mut(QUERIES));
        blocks.enumerate().for_each(|(block, (o, lse))| {
            let q = &q[(n * tq + block * QUERIES) * width + h * d..];
            forward_block(key, rows, packed, q, o, lse);
        });
    });
    o.par_chunks_mut(width).enumerate().for_each(|(row, o)| {
        let (n, i) = (row / tq, row % tq);
        for (h, o) in o.chunks_exact_mut(d).enumerate() {
            o.copy_from_slice(&parts[((n * heads + h) * tq + i) * d..][..d]);
        }
    });
}

/// One head of a block of queries: the keys pass by in blocks, with the softmax's maximum and denominator kept so far.
fn forward_block(
    key: &Key,
    rows: &Rows<'_>,
    packed: &Packed,
    q: &[f32],
    o: &mut [f32],
    lse: &mut [f32],
) {
    let Rows { unit, d, .. } = *rows;
    let (q, pitch) = rows.split(q, lse.len());
    // Few queries at a time: their scores stay in the first-level cache.
    let result = Panels::new(PANEL, d);
    let mut sums = Scratch::<f32>::new(lse.len().div_ceil(PANEL) * result.len());
    let whole = Panels::new(PANEL, KEYS.min(key.tk));
    let mut scores = Scratch::<f32>::new(whole.len());
    let mut p = whole.operand(unit);
    let mut total = [0.0; QUERIES];
    lse.fill(f32::NEG_INFINITY);
    let ready = unit.ready();
    for (b, [k, v]) in packed.0.iter().enumerate() {
        let keys = KEYS.min(key.tk - b * KEYS);
        let panels = Panels::new(PANEL, keys);
        let queries = lse.chunks_mut(PANEL).zip(total.chunks_mut(PANEL));
        let queries = queries.zip(q.chunks_exact(PANEL * pitch));
        for (((most, total), q), sums) in queries.zip(sums.chunks_exact_mut(result.len())) {
            ready.multiply_rows((q, pitch), PANEL, (k, Unit::steps(d)), &mut scores, false);
            wide(
                #[inline(always)]
                || {
                    let scores = panels.rows_mut(&mut scores);
                    soften(
                        scores,
                        keys,
                        key.scale(),
                        most,
                        total,
                        result.rows_mut(sums),
                    );
                },
            );
            panels.split(unit, &scores, most.len(), &mut p);
            let p = (&p[..], panels.pitch(unit));
            ready.multiply_rows(p, PANEL, (v, Unit::steps(keys)), sums, b > 0);
        }
    }
    drop(ready);
    let queries = o.chunks_exact_mut(d).zip(lse).zip(total);
    for (i, ((o, most), total)) in queries.enumerate() {
        result.copy(&sums[i / PANEL * result.len()..], i % PANEL, o);
        let share = 1.0 / total;
        o.iter_mut().for_each(|o| *o *= share);
        *most += f64::from(total).ln() as f32;
    }
}

/// Turns scores of 32 queries into `exp(scale s - most)`, where `most` is the largest so far, and rescales what was summed
/// with another.
#[inline(always)]
fn soften(
    scores: &mut [[f32; PANEL]],
    keys: usize,
    scale: f32,
    most: &mut [f32],
    total: &mut [f32],
    sums: &mut [[f32; PANEL]],
) {
    for (i, (most, total)) in most.iter_mut().zip(total).enumerate() {
        if !keys.is_multiple_of(PANEL) {
            let last = &mut scores[keys / PANEL * PANEL + i];
            last[keys % PANEL..].fill(f32::NEG_INFINITY);
        }
        let mut lanes = [f32::NEG_INFINITY; PANEL];
        for row in scores.iter().skip(i).step_by(PANEL) {
            for (lane, &s) in lanes.iter_mut().zip(row) {
                *lane = if s > *lane { s } else { *lane };
            }
        }
        let before = *most;
        let now = before.max(scale * largest(&lanes, f32::NEG_INFINITY));
        let mut lanes = [0.0; PANEL];
        for row in scores.iter_mut().skip(i).step_by(PANEL) {
            for (lane, s) in lanes.iter_mut().zip(row) {
                *s = Real::exp(scale * *s - now);
                *lane += *s;
            }
        }
        let shrink = Real::exp(before - now);
        if now > before {
            for row in sums.iter_mut().skip(i).step_by(PANEL) {
                row.iter_mut().for_each(|o| *o *= shrink);
            }
        }
        (*most, *total) = (now, *total * shrink + sum(&lanes));
    }
}

/// One head's inputs of the backward pass, each from its first element on.
struct Head<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    dy: &'a [f32],
    lse: &'a [f32],
    /// The sum over d of dy o, one for each query.
    delta: Vec<f32>,
    /// `q` and `dy` transposed and split, block of queries by block.
    transposed: Vec<[Scratch<u16>; 2]>,
}

/// What a block of keys gives: `dk` and `dv`, transposed, in panels, and its share of `dq`.
struct Share {
    dk: Scratch<f32>,
    dv: Scratch<f32>,
    dq: Scratch<f32>,
}

/// A task is a block of keys of one head: its `dk` and `dv` are summed over the queries; its share of `dq` is added to
/// those of the other blocks afterwards, in their order.
pub(super) fn vjp_kv(key: &Key, args: &mut NativeArgs<'_>) {
    let [dq, dk, dv] = [0, 1, 2].map(|i| args.output::<f32>(i));
    let [dy, q, k, v, o, lse] = [3, 4, 5, 6, 7, 8].map(|i| args.input::<f32>(i));
    let unit = by_amx(args.products(), DType::F32).expect("`fits` has asked");
    let (width, d, tq, tk) = (key.width(), key.d, key.tq, key.tk);
    let rows = &Rows { unit, d, width };
    let blocks = tk.div_ceil(KEYS);
    let group = (HELD / (blocks * tq * d)).clamp(1, key.heads);
    for n in 0..key.samples {
        let (queries, sources) = (n * tq * width, n * tk * width);
        let head = |h: usize| {
            let [q, dy, o] = [q, dy, o].map(|x| &x[queries + h * d..]);
            let [k, v] = [k, v].map(|x| &x[sources + h * d..]);
            Head::new(
                rows,
                [q, dy, o],
                [k, v],
                &lse[(n * key.heads + h) * tq..][..tq],
            )
        };
        let all: Vec<Head<'_>> = (0..key.heads).into_par_iter().map(head).collect();
        for (g, heads) in all.chunks(group).enumerate() {
            let first = g * group;
            let share = |i: usize| heads[i / blocks].share(key, rows, i % blocks * KEYS);
            let tasks = (0..heads.len() * blocks).into_par_iter();
            let shares: Vec<Share> = tasks.map(share).collect();
            let dq = dq[queries..][..tq * width].par_chunks_mut(width);
            dq.enumerate().for_each(|(i, dq)| {
                for (dq, shares) in dq[first * d..]
                    .chunks_exact_mut(d)
                    .zip(shares.chunks(blocks))
                {
                    dq.copy_from_slice(&shares[0].dq[i * d..][..d]);
                    for share in &shares[1..] {
                        let share = &share.dq[i * d..][..d];
                        dq.iter_mut().zip(share).for_each(|(dq, s)| *dq += s);
                    }
                }
            });
            let dk = dk[sources..][..tk * width].par_chunks_mut(width);
            let dv = dv[sources..][..tk * width].par_chunks_mut(width);
            dk.zip(dv).enumerate().for_each(|(j, (dk, dv))| {
                let (block, j) = (j / KEYS, j % KEYS);
                let at = j / PANEL * Panels::new(d, PANEL).len() + j % PANEL;
                let to = dk[first * d..]
                    .chunks_exact_mut(d)
                    .zip(dv[first * d..].chunks_exact_mut(d));
                for ((dk, dv), shares) in to.zip(shares.chunks(blocks)) {
                    let share = &shares[block];
                    for (x, sums) in [(dk, &share.dk), (dv, &share.dv)] {
                        let sums = sums[at..].iter().step_by(PANEL);
                        x.iter_mut().zip(sums).for_each(|(x, s)| *x = *s);
                    }
                }
            });
        }
    }
}

impl<'a> Head<'a> {
    fn new(
        rows: &Rows<'_>,
        [q, dy, o]: [&'a [f32]; 3],
        [k, v]: [&'a [f32]; 2],
        lse: &'a [f32],
    ) -> Self {
        let Rows { unit, d, width } = *rows;
        let delta = |i: usize| {
            let (dy, o) = (&dy[i * width..][..d], &o[i * width..][..d]);
            wide(
                #[inline(always)]
                || sum_pairs(dy, o, |a, b| a * b),
            )
        };
        let mut columns = Scratch::<f32>::new(d * QUERIES);
        let transposed = (0..lse.len()).step_by(QUERIES).map(|start| {
            let rows = QUERIES.min(lse.len() - start);
            [q, dy].map(|x| {
                for i in 0..rows {
                    let x = &x[(start + i) * width..][..d];
                    let column = columns[i..].iter_mut().step_by(QUERIES);
                    column.zip(x).for_each(|(to, x)| *to = *x);
                }
                let pitch = unit.row(rows) + GAP;
                let mut to = Scratch::new(d.next_multiple_of(PANEL) * pitch);
                unit.split(&columns, QUERIES, [d, rows], &mut to, pitch);
                to
            })
        });
        Head {
            transposed: transposed.collect(),
            delta: (0..lse.len()).map(delta).collect(),
            q,
            k,
            v,
            dy,
            lse,
        }
    }

    /// The share of the keys from `start` on.
    fn share(&self, key: &Key, rows: &Rows<'_>, start: usize) -> Share {
        let Rows { unit, d, width } = *rows;
        let keys = KEYS.min(key.tk - start);
        let [k, v] = [self.k, self.v].map(|x| &x[start * width..]);
        let [kt, vt] = [k, v].map(|x| rows.pack_transposed(x, keys));
        let k = rows.pack(k, keys);
        let mut share = Share {
            dk: Scratch::new(Panels::new(d, keys).len()),
            dv: Scratch::new(Panels::new(d, keys).len()),
            dq: Scratch::new(key.tq * d),
        };
        let most = Panels::new(QUERIES.min(key.tq), keys);
        let [mut p, mut ds] = [(); 2].map(|()| Scratch::<f32>::new(most.len()));
        let mut operand = most.operand(unit);
        let mut dq = Scratch::<f32>::new(Panels::new(most.rows, d).len());
        let (scale, deep) = (key.scale::<f32>(), Unit::steps(d));
        let ready = unit.ready();
        for (i, [qt, dyt]) in self.transposed.iter().enumerate() {
            let first = i * QUERIES;
            let queries = QUERIES.min(key.tq - first);
            let panels = Panels::new(queries, keys);
            for (x, y, sums) in [(self.q, &kt, &mut p), (self.dy, &vt, &mut ds)] {
                let (x, pitch) = rows.split(&x[first * width..], queries);
                ready.multiply_rows((&x, pitch), queries, (y, deep), sums, false);
            }
            wide(
                #[inline(always)]
                || {
                    let (p, ds) = (panels.rows_mut(&mut p), panels.rows_mut(&mut ds));
                    for (row, (p, ds)) in p.iter_mut().zip(ds).enumerate() {
                        let i = row % panels.rows;
                        if i < queries {
                            let (lse, delta) = (self.lse[first + i], self.delta[first + i]);
                            for (p, ds) in p.iter_mut().zip(ds) {
                                *p = Real::exp(scale * *p - lse);
                                *ds = scale * *p * (*ds - delta);
                            }
                        }
                    }
                },
            );
            let (pitch, along) = (unit.row(queries) + GAP, Unit::steps(queries));
            for (x, y, sums) in [(dyt, &p, &mut share.dv), (qt, &ds, &mut share.dk)] {
                let y = panels.pack(unit, y, queries);
                ready.multiply_rows((x, pitch), d, (&y, along), sums, i > 0);
            }
            panels.split(unit, &ds, queries, &mut operand);
            let ds = (&operand[..], panels.pitch(unit));
            ready.multiply_rows(ds, queries, (&k, Unit::steps(keys)), &mut dq, false);
            let to = share.dq[first * d..][..queries * d].chunks_exact_mut(d);
            to.enumerate()
                .for_each(|(i, to)| Panels::new(queries, d).copy(&dq, i, to));
        }
        share
    }
}
