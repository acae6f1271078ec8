//! Products by the vector units' multiply-add.
//!
//! `c` is cut into strips of rows and groups of columns; one task computes one strip of some groups. Within a task the
//! depth passes in chunks: the strip's rows of a chunk stay in the second-level cache while the taps go by, a packed
//! panel of `b` in the first.

use std::ops::Range;

use rayon::prelude::*;

use super::{Cut, Product, Target, Task};
use crate::runtime::native::Products;
use crate::runtime::simd::wide;
use crate::runtime::tile::{Isa, Line, TILE, isa, room};
use crate::runtime::unit::by_dots;

/// Whether this processor has a tile; without one, [`Product::by_lanes`] panics.
pub fn has_lanes() -> bool {
    isa().is_some()
}

/// Rows of a strip, about.
const STRIP: usize = 192;
/// Columns that are packed at once; a multiple of every tile's width.
const GROUP: usize = 64;
/// Most elements of a row that are summed in one go.
const CHUNK: usize = 256;

impl Product<'_> {
    /// Computes rows of `c`, of `width` elements, on all threads. `from(i, tap)` is the row of `a` that
    /// row `i` of `c` meets at `tap`; `None` is a row of zeros.
    ///
    /// # Panics
    /// When an operand is too short: a broken invariant of the caller.
    pub fn by_lanes(
        &self,
        c: &mut [f32],
        products: Products,
        from: impl Fn(usize, usize) -> Option<usize> + Sync,
    ) {
        if products == Products::Bf16
            && let Some(unit) = by_dots(self.b.dtype())
        {
            return self.by_unit(unit, c, &from);
        }
        let isa = isa().expect("the caller has asked `has_lanes`");
        let rows = self.checked_rows(c);
        let size = [rows, self.width];
        let cut = Cut::new(size, [STRIP, isa.rows], [4 * GROUP, GROUP, GROUP]);
        let zeros = vec![0.0; self.depth];
        let target = Target(c.as_mut_ptr());
        let tasks = (0..cut.tasks()).into_par_iter();
        tasks.for_each_init(Scratch::default, |scratch, index| {
            let task = cut.task(index);
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
                    let part = [from..from + depth, columns.clone()];
                    self.pack(isa, tap, part, &mut scratch.widened, panels);
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

    /// Packs the panels of some rows and columns of one matrix of `b`.
    #[inline(always)]
    fn pack(
        &self,
        isa: &Isa,
        tap: usize,
        [depth, columns]: [Range<usize>; 2],
        widened: &mut Vec<Line>,
        panels: &mut [f32],
    ) {
        let (stride, start, size) = match self.transposed {
            true => (
                self.depth,
                columns.start * self.depth + depth.start,
                [columns.len(), depth.len()],
            ),
            false => (
                self.width,
                depth.start * self.width + columns.start,
                [depth.len(), columns.len()],
            ),
        };
        let b = self.matrix(tap).skip(start);
        let (b, stride) = b.rows(stride, size, |len| room(widened, len));
        if !self.transposed {
            return isa.pack(b, stride, columns.len(), panels);
        }
        let panel = panels.len() / columns.len().div_ceil(isa.width);
        for (p, panel) in panels.chunks_exact_mut(panel).enumerate() {
            let start = p * isa.width;
            let count = isa.width.min(columns.len() - start);
            isa.pack_transposed(&b[start * stride..], stride, count, panel);
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
            self.finish(at, c);
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
    /// Numbers of `b` that are stored in 16 bits.
    widened: Vec<Line>,
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
