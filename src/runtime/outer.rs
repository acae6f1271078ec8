//! Sums of outer products of pixels: the weight gradients of convolutions and linears.
//!
//! `c[tap, i, j] = sum over samples and pixels p of a[source(p, tap), i] b[p, j]`
//!
//! The pixels of `b` pass in strips of image rows. A strip of `b` is packed into panels, those pixels of `a` that it
//! meets are transposed, so that the sum over pixels runs along memory. Both have rows of one pitch, with zeros between
//! them: then each tap meets the same transposed pixels, at a distance of its own. The channels of both sides are cut into
//! blocks and the strips into chunks; a task sums one chunk of a block, and the chunks are added in their order. All of
//! this depends on the sizes only, so the threads do not change the bits.

use rayon::prelude::*;

use super::simd::wide;
use super::tile::{Isa, Line, TILE, isa, room};

/// Whether this processor has a tile, and `columns` fill it; without one, [`Outer::run`] panics.
pub fn is_worth(columns: usize) -> bool {
    isa().is_some() && columns >= 24
}

/// The operands of the formula above, save `c`.
#[derive(Clone, Copy)]
pub struct Outer<'a> {
    /// `[samples, height, width, channels]`.
    pub a: &'a [f32],
    /// Likewise.
    pub b: &'a [f32],
    /// Images in each.
    pub samples: usize,
    /// Height and width of `a`.
    pub a_size: [usize; 2],
    /// Height and width of `b`.
    pub b_size: [usize; 2],
    /// Channels of `a`.
    pub rows: usize,
    /// Channels of `b`.
    pub columns: usize,
    /// Taps on each axis: pixel `p` of `b` meets `p * stride + tap - before` of `a`, zeros outside.
    pub k: usize,
    /// See `k`.
    pub stride: usize,
    /// See `k`.
    pub before: usize,
}

/// Channels of a block, of `a` and of `b`: in each it is summed `taps` times as often as it is packed.
const BLOCK: [usize; 2] = [64, 64];
/// The same where there is but one tap.
const POINTWISE: [usize; 2] = [192, 128];
/// Tasks that are enough for a few threads: smaller blocks where large ones give less.
const FEW: usize = 16;
/// Positions of a strip, about: its panel fits the first-level cache.
const STRIP: usize = 192;
/// Tasks that are enough for any number of threads.
const TASKS: usize = 64;
/// Strips of a chunk, at least: adding a chunk costs less than summing it.
const CHUNK: usize = 2;

/// How the pixels of a strip lie in memory.
struct Grid {
    /// Positions from row to row.
    pitch: usize,
    /// Rows of `b` in a strip.
    rows: usize,
    /// Strips in a sample.
    strips: usize,
    /// Rows, and columns, of `a` that a strip meets beyond its own.
    halo: usize,
    /// Every `stride`-th pixel on an axis makes an image of its own; there are so many that a tap meets.
    phases: usize,
    /// Positions of each image that are kept.
    len: usize,
}

/// Some rows of a sample of `b`.
struct Strip {
    sample: usize,
    first: usize,
    rows: usize,
}

/// The part of `c` and of the sum that a task computes.
struct Task {
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    strips: std::ops::Range<usize>,
}

/// What a thread keeps between its tasks.
#[derive(Default)]
struct Scratch {
    /// `[rows, phases, phases, len]`.
    a: Vec<Line>,
    /// Panels, `[positions, width]` each.
    b: Vec<Line>,
    /// Where each row and tap starts in `a`.
    starts: Vec<*const f32>,
}

impl Outer<'_> {
    /// Computes `c`.
    ///
    /// # Panics
    /// When an operand is too short: a broken invariant of the caller.
    pub fn run(&self, c: &mut [f32]) {
        let isa = isa().expect("the caller has asked `is_worth`");
        let taps = self.k * self.k;
        let pixels = |[height, width]: [usize; 2]| self.samples * height * width;
        assert!(self.a.len() == pixels(self.a_size) * self.rows);
        assert!(self.b.len() == pixels(self.b_size) * self.columns);
        assert!(c.len() == taps * self.rows * self.columns);
        let flat = [pixels(self.a_size), 1];
        let this = match self.is_pointwise() {
            true => Outer {
                samples: 1,
                a_size: flat,
                b_size: flat,
                ..*self
            },
            false => *self,
        };
        let grid = this.grid();
        let strips = this.samples * grid.strips;
        let most = strips.div_ceil(CHUNK).max(1);
        let block = match self.blocks(POINTWISE).iter().product::<usize>() * most {
            FEW.. if taps == 1 => POINTWISE,
            _ => BLOCK,
        };
        let [down, across] = self.blocks(block);
        let chunks = TASKS.div_ceil(down * across).min(most);
        let of_chunk = strips.div_ceil(chunks).max(1);
        let chunks = strips.div_ceil(of_chunk);
        let part =
            |index: usize, block: usize, len: usize| index * block..((index + 1) * block).min(len);
        let tasks = (0..chunks * down * across).into_par_iter();
        let sums: Vec<Vec<f32>> = tasks
            .map_init(Scratch::default, |scratch, index| {
                let (chunk, at) = (index / (down * across), index % (down * across));
                let task = Task {
                    rows: part(at / across, block[0], self.rows),
                    columns: part(at % across, block[1], self.columns),
                    strips: chunk * of_chunk..((chunk + 1) * of_chunk).min(strips),
                };
                wide(
                    #[inline(always)]
                    || this.task(isa, &grid, &task, scratch),
                )
            })
            .collect();
        let rows = c.par_chunks_mut(self.columns).enumerate();
        rows.with_min_len(16).for_each(|(row, c)| {
            let (tap, i) = (row / self.rows, row % self.rows);
            for (right, c) in c.chunks_mut(block[1]).enumerate() {
                let pitch = c.len().next_multiple_of(isa.width);
                let from = (i % block[0] * taps + tap) * pitch;
                let at = i / block[0] * across + right;
                c.fill(0.0);
                for chunk in 0..chunks {
                    let sums = &sums[chunk * down * across + at][from..][..c.len()];
                    c.iter_mut().zip(sums).for_each(|(c, sum)| *c += sum);
                }
            }
        });
    }

    /// How many blocks of this size there are, down and across.
    fn blocks(&self, block: [usize; 2]) -> [usize; 2] {
        [
            self.rows.div_ceil(block[0]),
            self.columns.div_ceil(block[1]),
        ]
    }

    /// Whether pixel `p` of `b` meets pixel `p` of `a` and no other: then the images do not matter.
    fn is_pointwise(&self) -> bool {
        (self.k, self.stride, self.before) == (1, 1, 0) && self.a_size == self.b_size
    }

    fn grid(&self) -> Grid {
        let halo = (self.k - 1) / self.stride;
        let phases = self.k.min(self.stride);
        // What a row meets of the zeros behind it may be those before the next row.
        let pitch = (0..phases).map(|phase| {
            let inside = self.inside(1, phase);
            inside.end.max(self.b_size[1] + halo - inside.start)
        });
        let pitch = pitch.fold(self.b_size[1], usize::max);
        let most = (STRIP / pitch).clamp(1, self.b_size[0]);
        let strips = self.b_size[0].div_ceil(most);
        let rows = self.b_size[0].div_ceil(strips);
        Grid {
            pitch,
            rows,
            strips: self.b_size[0].div_ceil(rows),
            halo,
            phases,
            len: (rows + halo) * pitch + halo,
        }
    }

    /// Which pixels of a phase are inside the image on an axis, counted from the first that `b` meets.
    fn inside(&self, axis: usize, phase: usize) -> std::ops::Range<usize> {
        let met = self.b_size[axis] + (self.k - 1) / self.stride;
        let start = self.before.saturating_sub(phase).div_ceil(self.stride);
        let end = (self.a_size[axis] + self.before)
            .saturating_sub(phase)
            .div_ceil(self.stride);
        start.min(met)..end.clamp(start.min(met), met)
    }

    /// The sums of a task: `[rows, taps, columns]`, columns up to whole panels.
    #[inline(always)]
    fn task(&self, isa: &Isa, grid: &Grid, task: &Task, scratch: &mut Scratch) -> Vec<f32> {
        let (rows, taps) = (task.rows.len(), self.k * self.k);
        let (images, most) = (grid.phases * grid.phases, grid.rows * grid.pitch);
        let pitch = task.columns.len().next_multiple_of(isa.width);
        let a = room(&mut scratch.a, rows * images * grid.len);
        let b = room(&mut scratch.b, most * pitch);
        // Strips overwrite pixels, and leave the zeros between rows alone.
        a.fill(0.0);
        b.fill(0.0);
        let mut sums = vec![0.0; rows * taps * pitch];
        let height = (rows * taps).div_ceil((rows * taps).div_ceil(isa.rows));
        for index in task.strips.clone() {
            let first = index % grid.strips * grid.rows;
            let strip = Strip {
                sample: index / grid.strips,
                first,
                rows: grid.rows.min(self.b_size[0] - first),
            };
            self.transpose(isa, grid, task, &strip, a);
            self.pack(isa, grid, task, &strip, b);
            scratch.starts.clear();
            for a in a.chunks_exact(images * grid.len) {
                let starts = (0..taps).map(|tap| {
                    let at = [tap / self.k, tap % self.k];
                    let phase = at.map(|at| at % self.stride);
                    let [down, right] = at.map(|at| at / self.stride);
                    let image = phase[0] * grid.phases + phase[1];
                    a[image * grid.len + down * grid.pitch + right..].as_ptr()
                });
                scratch.starts.extend(starts);
            }
            let depth = strip.rows * grid.pitch;
            let mut tile = [0.0; TILE];
            for (p, panel) in b.chunks_exact(most * isa.width).enumerate() {
                for (t, starts) in scratch.starts.chunks(height).enumerate() {
                    // SAFETY: a start is followed by `len - halo * pitch - halo >= depth` positions of its image.
                    unsafe { isa.multiply(starts, 0, depth, panel, &mut tile) };
                    let products = tile.chunks_exact(isa.width).take(starts.len());
                    for (r, products) in products.enumerate() {
                        let at = (t * height + r) * pitch + p * isa.width;
                        let sums = &mut sums[at..][..isa.width];
                        sums.iter_mut().zip(products).for_each(|(s, p)| *s += p);
                    }
                }
            }
        }
        sums
    }

    /// Transposes the pixels of `a` that a strip meets.
    #[inline(always)]
    fn transpose(&self, isa: &Isa, grid: &Grid, task: &Task, strip: &Strip, to: &mut [f32]) {
        let [height, width] = self.a_size;
        let images = grid.phases * grid.phases;
        let (channels, gap) = (task.rows.len(), images * grid.len);
        for image in 0..images {
            let (down, right) = (image / grid.phases, image % grid.phases);
            let inside = self.inside(1, right);
            let (lines, run) = match self.is_pointwise() {
                true => (1, strip.rows),
                false => (strip.rows + grid.halo, inside.len()),
            };
            for line in 0..lines {
                let at = image * grid.len + line * grid.pitch + inside.start;
                let row = ((strip.first + line) * self.stride + down).checked_sub(self.before);
                let Some(row) = row.filter(|&row| row < height && run > 0) else {
                    to.chunks_exact_mut(gap)
                        .for_each(|to| to[at..][..run].fill(0.0));
                    continue;
                };
                let col = inside.start * self.stride + right - self.before;
                let pixel = (strip.sample * height + row) * width + col;
                let from = &self.a[pixel * self.rows + task.rows.start..];
                let size = [run, channels];
                isa.transpose(from, self.stride * self.rows, size, &mut to[at..], gap);
            }
        }
    }

    /// Packs a strip of `b`.
    #[inline(always)]
    fn pack(&self, isa: &Isa, grid: &Grid, task: &Task, strip: &Strip, to: &mut [f32]) {
        let [height, width] = self.b_size;
        let (lines, run) = match self.is_pointwise() {
            true => (1, strip.rows),
            false => (strip.rows, width),
        };
        let panel = grid.rows * grid.pitch * isa.width;
        for (p, to) in to.chunks_exact_mut(panel).enumerate() {
            let start = task.columns.start + p * isa.width;
            let columns = isa.width.min(task.columns.end - start);
            for line in 0..lines {
                let pixel = (strip.sample * height + strip.first + line) * width;
                let from = &self.b[pixel * self.columns + start..];
                let to = &mut to[line * grid.pitch * isa.width..][..run * isa.width];
                isa.pack(from, self.columns, columns, to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole numbers, so that every order of summation gives the same: `a = u[pixel] s[i]`, `b = v[pixel] t[j]`.
    #[test]
    fn large_blocks_and_many_chunks_sum_every_pixel_once() {
        let (pixels, rows, columns) = (6203, 203, 141);
        if !is_worth(columns) {
            eprintln!("this processor has no tile for that: not tested");
            return;
        }
        let fill = |channels: usize, every: [usize; 2]| -> Vec<f32> {
            let value = |at: usize| (at / channels % every[0] * (at % channels % every[1])) as f32;
            (0..pixels * channels).map(value).collect()
        };
        let (a, b) = (fill(rows, [3, 5]), fill(columns, [2, 7]));
        let mut c = vec![f32::NAN; rows * columns];
        let outer = Outer {
            a: &a,
            b: &b,
            samples: 1,
            a_size: [pixels, 1],
            b_size: [pixels, 1],
            rows,
            columns,
            k: 1,
            stride: 1,
            before: 0,
        };
        outer.run(&mut c);
        let common: usize = (0..pixels).map(|p| p % 3 * (p % 2)).sum();
        for (at, &c) in c.iter().enumerate() {
            assert_eq!(c, (common * (at / columns % 5) * (at % columns % 7)) as f32);
        }
    }
}
