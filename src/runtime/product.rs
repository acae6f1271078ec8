//! Sums of matrix products whose left rows are picked from an image: convolutions without im2col, and
//! linears.
//!
//! `c[i, j] = sum over taps t and l < depth of a[from(i, t), l] b_t[l, j] + add[j] + residual[i, j]`
//!
//! for all rows `i` of `c`, or for those that are asked for. They are cut into strips and the columns of `c` into
//! groups; one task computes one strip of some groups. Within a task the depth passes in chunks: the strip's rows of a
//! chunk stay in the second-level cache while the taps go by, a packed panel of `b` in the first. Every element is
//! summed in an order that depends on `taps` and `depth` only, so neither the strips nor the threads change its bits.

use rayon::prelude::*;

use super::simd::wide;
use super::tile::{Isa, Line, TILE, isa, room};

/// Whether this processor has a tile; without one, [`Product::run`] panics.
pub fn available() -> bool {
    isa().is_some()
}

/// The operands of the formula above, save `c` and `from`.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// Rows of `depth` elements.
    pub a: &'a [f32],
    /// Matrices `[depth, width]`, or `[width, depth]` when `transposed`.
    pub b: &'a [f32],
    /// The matrices of `b` that are summed, in this order.
    pub taps: &'a [usize],
    /// The rows of `c` that are computed, ascending; `None`: all of them.
    pub rows: Option<&'a [usize]>,
    /// Elements of a row of `a`.
    pub depth: usize,
    /// Elements of a row of `c`.
    pub width: usize,
    /// How `b` is stored.
    pub transposed: bool,
    /// Added to every row: `[width]`.
    pub add: Option<&'a [f32]>,
    /// Added to every element: like `c`.
    pub residual: Option<&'a [f32]>,
}

/// Rows of a strip, about.
const STRIP: usize = 192;
/// Columns that are packed at once; a multiple of every tile's width.
const GROUP: usize = 64;
/// Most elements of a row that are summed in one go.
const CHUNK: usize = 256;

/// The start of `c`; every task writes elements of its own.
#[derive(Clone, Copy)]
struct Target(*mut f32);
// SAFETY: tasks write disjoint elements, and `run` borrows `c` exclusively until all of them have ended.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// The part of `c` that a task computes: `rows` of those that are computed, from number `first` on.
struct Task {
    first: usize,
    rows: usize,
    columns: std::ops::Range<usize>,
}

impl Product<'_> {
    /// Computes rows of `c`, of `width` elements, on all threads. `from(i, tap)` is the row of `a` that
    /// row `i` of `c` meets at `tap`; `None` is a row of zeros.
    ///
    /// # Panics
    /// When an operand is too short: a broken invariant of the caller.
    pub fn run(&self, c: &mut [f32], from: impl Fn(usize, usize) -> Option<usize> + Sync) {
        let isa = isa().expect("the caller has asked `available`");
        let all = c.len() / self.width;
        let matrices = self.b.len() / (self.depth * self.width);
        assert!(c.len() == all * self.width && !self.taps.is_empty());
        assert!(self.taps.iter().all(|&tap| tap < matrices));
        assert!(self.rows.is_none_or(|rows| {
            rows.is_sorted_by(|a, b| a < b) && rows.last().is_none_or(|&last| last < all)
        }));
        let rows = self.rows.map_or(all, <[usize]>::len);
        assert!(self.add.is_none_or(|add| add.len() == self.width));
        assert!(self.residual.is_none_or(|r| r.len() == c.len()));
        let strip = rows
            .div_ceil(rows.div_ceil(STRIP).max(1))
            .next_multiple_of(isa.rows);
        let strips = rows.div_ceil(strip.max(1));
        let mut block = 4 * GROUP;
        while block > GROUP && strips * self.width.div_ceil(block) < 16 {
            block /= 2;
        }
        let zeros = vec![0.0; self.depth];
        let target = Target(c.as_mut_ptr());
        let tasks = (0..strips * self.width.div_ceil(block)).into_par_iter();
        tasks.for_each_init(Scratch::default, |scratch, index| {
            let (first, start) = (index % strips * strip, index / strips * block);
            let task = Task {
                first,
                rows: strip.min(rows - first),
                columns: start..(start + block).min(self.width),
            };
            scratch.pick(self, &task, &zeros, &from);
            wide(
                #[inline(always)]
                || self.task(isa, &task, scratch, target),
            );
        });
    }

    #[inline(always)]
    fn task(&self, isa: &Isa, task: &Task, scratch: &mut Scratch, target: Target) {
        let chunk = (self.depth.div_ceil(self.depth.div_ceil(CHUNK))).next_multiple_of(8);
        for start in task.columns.clone().step_by(GROUP) {
            let columns = start..(start + GROUP).min(task.columns.end);
            for from in (0..self.depth).step_by(chunk) {
                let depth = chunk.min(self.depth - from);
                for (t, &tap) in self.taps.iter().enumerate() {
                    let len = columns.len().next_multiple_of(isa.width) * depth;
                    let panels = room(&mut scratch.panels, len);
                    self.pack(isa, tap, from, columns.clone(), panels);
                    let stage = Stage {
                        from,
                        depth,
                        first: from == 0 && t == 0,
                        last: from + depth == self.depth && t + 1 == self.taps.len(),
                    };
                    let picked = &scratch.picked[t * task.rows..][..task.rows];
                    for (p, panel) in panels.chunks_exact(depth * isa.width).enumerate() {
                        let at = start + p * isa.width;
                        let area = Area {
                            target,
                            first: task.first,
                            column: at,
                            columns: isa.width.min(columns.end - at),
                        };
                        self.strip(isa, stage, picked, panel, area);
                    }
                }
            }
        }
    }

    /// The row of `c` that is computed as number `i`.
    #[inline(always)]
    fn row(&self, i: usize) -> usize {
        self.rows.map_or(i, |rows| rows[i])
    }

    /// All rows of a strip times one panel.
    #[inline(always)]
    fn strip(&self, isa: &Isa, stage: Stage, picked: &[*const f32], panel: &[f32], area: Area) {
        let mut tile = [0.0; TILE];
        for (i, rows) in picked.chunks(isa.rows).enumerate() {
            // SAFETY: `pick` made every pointer one to a row of `self.depth` elements.
            unsafe { isa.multiply(rows, stage.from, stage.depth, panel, &mut tile) };
            let sums = tile.chunks_exact(isa.width).take(rows.len());
            for (r, sums) in sums.enumerate() {
                let at = self.row(area.first + i * isa.rows + r) * self.width + area.column;
                // SAFETY: within `c`, since the task's rows and columns are; no other task has them, as rows ascend.
                let c =
                    unsafe { std::slice::from_raw_parts_mut(area.target.0.add(at), area.columns) };
                self.store(stage, at, sums, c);
            }
        }
    }

    /// Packs the panels of `columns` of one matrix of `b`, from row `from` on.
    #[inline(always)]
    fn pack(
        &self,
        isa: &Isa,
        tap: usize,
        from: usize,
        columns: std::ops::Range<usize>,
        panels: &mut [f32],
    ) {
        let b = &self.b[tap * self.depth * self.width..][..self.depth * self.width];
        if !self.transposed {
            let b = &b[from * self.width + columns.start..];
            return isa.pack(b, self.width, columns.len(), panels);
        }
        let panel = panels.len() / columns.len().div_ceil(isa.width);
        for (p, panel) in panels.chunks_exact_mut(panel).enumerate() {
            let start = columns.start + p * isa.width;
            let count = isa.width.min(columns.end - start);
            isa.pack_transposed(&b[start * self.depth + from..], self.depth, count, panel);
        }
    }

    /// Adds a row of a tile's sums to `c`, whose first element is number `at`.
    #[inline(always)]
    fn store(&self, stage: Stage, at: usize, sums: &[f32], c: &mut [f32]) {
        let sums = &sums[..c.len()];
        if stage.first {
            c.copy_from_slice(sums);
        } else {
            for (c, sum) in c.iter_mut().zip(sums) {
                *c += sum;
            }
        }
        if stage.last {
            let column = at % self.width;
            if let Some(add) = self.add {
                let add = &add[column..][..c.len()];
                c.iter_mut().zip(add).for_each(|(c, add)| *c += add);
            }
            if let Some(residual) = self.residual {
                let residual = &residual[at..][..c.len()];
                c.iter_mut().zip(residual).for_each(|(c, r)| *c += r);
            }
        }
    }
}

/// Where a panel's products go: `columns` from `column` on of the rows from number `first` on.
#[derive(Clone, Copy)]
struct Area {
    target: Target,
    first: usize,
    column: usize,
    columns: usize,
}

/// A part of the sum over chunks and taps.
#[derive(Clone, Copy)]
struct Stage {
    from: usize,
    depth: usize,
    first: bool,
    last: bool,
}

/// What a thread keeps between its tasks.
#[derive(Default)]
struct Scratch {
    panels: Vec<Line>,
    /// The rows of `a`, by tap, then by row of the strip.
    picked: Vec<*const f32>,
}

impl Scratch {
    fn pick(
        &mut self,
        product: &Product<'_>,
        task: &Task,
        zeros: &[f32],
        from: &impl Fn(usize, usize) -> Option<usize>,
    ) {
        self.picked.clear();
        for &tap in product.taps {
            let row = |i| match from(product.row(task.first + i), tap) {
                Some(row) => product.a[row * product.depth..][..product.depth].as_ptr(),
                None => zeros.as_ptr(),
            };
            self.picked.extend((0..task.rows).map(row));
        }
    }
}
