//! Products by units that multiply bf16 numbers.
//!
//! The depth passes in chunks. Of a chunk, a task splits the rows of `a` that its strip meets, once, and adds up the
//! taps' products in the second-level cache; a panel of `b` stays in the first. Tiles whose rows lie at one distance
//! are read where they are, the others, at the edges of an image, are copied together. Where there is more than one
//! strip, `b` is packed once for all of them.

use std::ops::Range;

use rayon::prelude::*;

use super::{Cut, Product, Target, Task};
use crate::runtime::native::Products;
use crate::runtime::scratch::Scratch;
use crate::runtime::simd::wide;
use crate::runtime::unit::{Block, GAP, PANEL, STEP, TILE, Unit, by_amx};

/// Sums of a task, about.
const SUMS: usize = 1 << 17;
/// Columns of a task, at most; twice as many where a number of `a` has but one tap to be of use for.
const BLOCK: usize = 320;
/// Columns of `b` that are packed at once.
const GROUP: usize = 128;
/// Pieces of a row that are held at once.
const CHUNK: usize = 192;
/// Rows that leave room for twice as many pieces, and are not cut into strips.
const FEW: usize = 256;

impl Product<'_> {
    /// As [`Product::by_lanes`], by matrix units.
    ///
    /// # Panics
    /// When an operand is too short, or without [`has_amx`](super::has_amx): a broken invariant of the caller.
    pub fn by_tiles(
        &self,
        c: &mut [f32],
        products: Products,
        from: impl Fn(usize, usize) -> Option<usize> + Sync,
    ) {
        let unit = by_amx(products, self.b.dtype()).expect("the caller has asked `has_amx`");
        self.by_unit(unit, c, &from);
    }

    pub(super) fn by_unit(
        &self,
        unit: &Unit,
        c: &mut [f32],
        from: &(impl Fn(usize, usize) -> Option<usize> + Sync),
    ) {
        let rows = self.checked_rows(c);
        let most = BLOCK * if self.taps.len() == 1 { 2 } else { 1 };
        let across = self.width.div_ceil(most);
        let block = self.width.div_ceil(across).next_multiple_of(PANEL);
        let strip = (SUMS / block).max(FEW);
        let size = [rows, self.width];
        let cut = Cut::new(size, [strip, 2 * TILE], [block, 2 * PANEL, PANEL]);
        let chunk = self.chunk(unit, rows);
        let packed = (cut.strips() > 1).then(|| self.packed(unit, chunk));
        let target = Target(c.as_mut_ptr());
        (0..cut.tasks()).into_par_iter().for_each(|index| {
            let task = cut.task(index);
            let strip = Strip::of(self, &task, from);
            let sums = self.sum(unit, chunk, packed.as_deref(), &strip, &task);
            wide(
                #[inline(always)]
                || self.put(&task, &sums, target),
            );
        });
    }

    /// The depth of a chunk: a multiple of [`STEP`]. Twice as much where its rows of `a` are few.
    fn chunk(&self, unit: &Unit, rows: usize) -> usize {
        let few = self.taps.len() == 1 || rows <= FEW;
        let most = CHUNK / unit.pieces * if few { 2 } else { 1 };
        let even = self.depth.div_ceil(self.depth.div_ceil(most));
        even.next_multiple_of(STEP)
    }

    fn chunks(&self, chunk: usize) -> impl Iterator<Item = Range<usize>> {
        let range = move |from: usize| from..(from + chunk).min(self.depth);
        (0..self.depth).step_by(chunk).map(range)
    }

    /// All of `b`: chunk by chunk, tap by tap, panel by panel.
    fn packed(&self, unit: &Unit, chunk: usize) -> Scratch<u16> {
        let panels = self.width.div_ceil(PANEL);
        let mut packed = Scratch::new(self.taps.len() * panels * unit.panel(self.depth));
        let (mut rest, mut parts) = (&mut packed[..], Vec::new());
        for depth in self.chunks(chunk) {
            for &tap in self.taps {
                for start in (0..self.width).step_by(GROUP) {
                    let columns = start..(start + GROUP).min(self.width);
                    let len = columns.len().div_ceil(PANEL) * unit.panel(depth.len());
                    let (to, later) = rest.split_at_mut(len);
                    parts.push((tap, depth.clone(), columns, to));
                    rest = later;
                }
            }
        }
        let pack = |(tap, depth, columns, to)| self.pack_panels(unit, tap, &depth, columns, to);
        parts.into_par_iter().for_each(pack);
        packed
    }

    /// Packs the panels of some columns, the first of a panel.
    fn pack_panels(
        &self,
        unit: &Unit,
        tap: usize,
        depth: &Range<usize>,
        columns: Range<usize>,
        to: &mut [u16],
    ) {
        let (stride, start) = match self.transposed {
            true => (self.depth, columns.start * self.depth + depth.start),
            false => (self.width, depth.start * self.width + columns.start),
        };
        let size = [depth.len(), columns.len()];
        unit.pack(
            self.matrix(tap).skip(start),
            stride,
            size,
            self.transposed,
            to,
        );
    }

    /// The sums of a task, panel by panel, in whole blocks of rows.
    fn sum(
        &self,
        unit: &Unit,
        chunk: usize,
        packed: Option<&[u16]>,
        strip: &Strip,
        task: &Task,
    ) -> Scratch<f32> {
        let (all, first) = (self.width.div_ceil(PANEL), task.columns.start / PANEL);
        let panels = task.columns.len().div_ceil(PANEL);
        let rows = task.rows.next_multiple_of(2 * TILE);
        let mut sums = Scratch::new(panels * rows * PANEL);
        // Memory for the deepest chunk. Tiles may reach beyond the last row.
        let pitch = unit.row(chunk) + GAP;
        let mut split = Scratch::new((strip.rows.len() + TILE) * pitch);
        let mut copies = Scratch::new(rows * pitch);
        let own = if packed.is_none() { panels } else { 0 };
        let mut own = Scratch::new(own * unit.panel(chunk));
        let ready = unit.ready();
        for depth in self.chunks(chunk) {
            let (len, steps) = (unit.panel(depth.len()), Unit::steps(depth.len()));
            let from = &self.a[strip.rows.start * self.depth + depth.start..];
            let size = [strip.rows.len(), depth.len()];
            unit.split(from, self.depth, size, &mut split, pitch);
            for (t, tap) in self.taps.iter().enumerate() {
                let tiles = strip.tiles(t, &split, pitch, &mut copies);
                let b = match packed {
                    Some(packed) => {
                        let before = self.taps.len() * all * unit.panel(depth.start);
                        &packed[before + (t * all + first) * len..][..panels * len]
                    }
                    None => {
                        self.pack_panels(unit, *tap, &depth, task.columns.clone(), &mut own);
                        &own[..panels * len]
                    }
                };
                for (b, c) in b.chunks_exact(len).zip(sums.chunks_exact_mut(rows * PANEL)) {
                    for (tiles, c) in tiles.chunks(2).zip(c.chunks_exact_mut(PANEL * PANEL)) {
                        // A block's second tile may have no rows that are asked for.
                        let two = [tiles[0], *tiles.last().unwrap_or(&tiles[0])];
                        let block = Block {
                            a: two.map(|tile| tile.0),
                            pitch: two.map(|tile| 2 * tile.1),
                            b: b.as_ptr(),
                            c: c.as_mut_ptr(),
                            steps,
                            add: depth.start > 0 || t > 0,
                        };
                        // SAFETY: a tile has 16 rows of the chunk's pieces, in `split`, which has 16 more than are
                        // met, or in `copies`; the panel and the sums are as long as slices say.
                        unsafe { ready.multiply(&block) };
                    }
                }
            }
        }
        sums
    }

    /// Puts a task's sums where they belong.
    #[inline(always)]
    fn put(&self, task: &Task, sums: &[f32], target: Target) {
        let rows = task.rows.next_multiple_of(2 * TILE);
        for i in 0..task.rows {
            let at = self.row(task.first + i) * self.width + task.columns.start;
            // SAFETY: within `c`, since the task's rows and columns are; no other task has them, as rows ascend.
            let c = unsafe { std::slice::from_raw_parts_mut(target.0.add(at), task.columns.len()) };
            for (panel, c) in c.chunks_mut(PANEL).enumerate() {
                c.copy_from_slice(&sums[(panel * rows + i) * PANEL..][..c.len()]);
            }
            self.finish(at, c);
        }
    }
}

/// A tile's first row, and pieces from row to row.
type Tile = (*const u16, usize);

/// The rows of `a` that the rows of a task meet.
struct Strip {
    /// From the first that is met to the last.
    rows: Range<usize>,
    /// By tap, then by row of the task.
    met: Vec<Option<usize>>,
    /// Rows of the task.
    count: usize,
}

impl Strip {
    fn of(
        product: &Product<'_>,
        task: &Task,
        from: &impl Fn(usize, usize) -> Option<usize>,
    ) -> Self {
        let mut met = Vec::with_capacity(product.taps.len() * task.rows);
        for &tap in product.taps {
            let rows = task.first..task.first + task.rows;
            met.extend(rows.map(|i| from(product.row(i), tap)));
        }
        let first = met.iter().flatten().min().copied().unwrap_or(0);
        let last = met.iter().flatten().max().copied().unwrap_or(0);
        Strip {
            rows: first..last + 1,
            met,
            count: task.rows,
        }
    }

    /// The tiles of a tap in `split`, which has all rows from the first that is met on; those whose rows do not lie at
    /// one distance are copied.
    fn tiles(&self, t: usize, split: &[u16], pitch: usize, copies: &mut [u16]) -> Vec<Tile> {
        let row = |row: usize| &split[(row - self.rows.start) * pitch..];
        let tile = |(tile, to): (&[Option<usize>], &mut [u16])| match self.apart(tile) {
            Some((first, distance)) => (row(first).as_ptr(), distance * pitch),
            None => {
                for (i, to) in to.chunks_exact_mut(pitch).enumerate() {
                    match tile.get(i).copied().flatten() {
                        Some(met) => to.copy_from_slice(&row(met)[..pitch]),
                        None => to.fill(0),
                    }
                }
                (to.as_ptr(), pitch)
            }
        };
        let met = self.met[t * self.count..][..self.count].chunks(TILE);
        met.zip(copies.chunks_exact_mut(TILE * pitch))
            .map(tile)
            .collect()
    }

    /// The first row of a tile and the distance of the others, if it is one. Fewer than 16 are read as if they were.
    fn apart(&self, tile: &[Option<usize>]) -> Option<(usize, usize)> {
        let first = tile[0]?;
        let next = tile.get(1).copied().unwrap_or(Some(first + 1));
        let distance = next?.checked_sub(first)?;
        let mut rows = tile.iter().enumerate();
        let even = rows.all(|(i, row)| *row == Some(first + i * distance));
        let inside = first + (TILE - 1) * distance < self.rows.end + TILE;
        (even && inside).then_some((first, distance))
    }
}
