//! Sums of matrix products whose left rows are picked from an image: convolutions without im2col, and
//! linears.
//!
//! `c[i, j] = sum over taps t and l < depth of a[from(i, t), l] b_t[l, j] + add[j] + residual[i, j]`
//!
//! for all rows `i` of `c`, or for those that are asked for. Two ways to compute it: [`Product::by_lanes`] with the
//! vector units' multiply-add, [`Product::by_tiles`] with matrix units for bf16. In both every element is summed in
//! an order that depends on the sizes only, so neither the cut into tasks nor the threads change its bits.

mod lanes;
mod tiles;

pub use super::unit::{has_amx, has_bf16};
pub use lanes::has_lanes;

use std::ops::Range;

use crate::runtime::operand::Operand;

/// The operands of the formula above, save `c` and `from`.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// Rows of `depth` elements.
    pub a: &'a [f32],
    /// Matrices `[depth, width]`, or `[width, depth]` when `transposed`.
    pub b: Operand<'a>,
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

/// The start of `c`; every task writes elements of its own.
#[derive(Clone, Copy)]
struct Target(*mut f32);
// SAFETY: tasks write disjoint elements, and `c` is borrowed exclusively until all of them have ended.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// The part of `c` that a task computes: `rows` of those that are computed, from number `first` on.
struct Task {
    first: usize,
    rows: usize,
    columns: Range<usize>,
}

/// How `c` is cut into tasks.
struct Cut {
    rows: usize,
    width: usize,
    strip: usize,
    block: usize,
}

impl Cut {
    /// Strips of about `strip` rows, a multiple of `unit`; blocks of at most `most` columns, a multiple of `grain`, and
    /// fewer, down to `least`, where threads would have less than four tasks each, or all of them less than 16: each
    /// task prepares its rows of `a`.
    fn new(
        [rows, width]: [usize; 2],
        [strip, unit]: [usize; 2],
        [most, least, grain]: [usize; 3],
    ) -> Self {
        let strip = rows
            .div_ceil(rows.div_ceil(strip).max(1))
            .next_multiple_of(unit);
        let enough = (4 * rayon::current_num_threads()).min(16);
        let mut across = width.div_ceil(most);
        loop {
            let cut = Cut {
                rows,
                width,
                strip,
                block: width.div_ceil(across).next_multiple_of(grain),
            };
            if cut.block <= least || cut.tasks() >= enough {
                return cut;
            }
            across *= 2;
        }
    }

    fn strips(&self) -> usize {
        self.rows.div_ceil(self.strip.max(1))
    }

    fn tasks(&self) -> usize {
        self.strips() * self.width.div_ceil(self.block)
    }

    fn task(&self, index: usize) -> Task {
        let (first, start) = (
            index % self.strips() * self.strip,
            index / self.strips() * self.block,
        );
        Task {
            first,
            rows: self.strip.min(self.rows - first),
            columns: start..(start + self.block).min(self.width),
        }
    }
}

impl Product<'_> {
    /// The number of rows that are computed.
    ///
    /// # Panics
    /// When an operand does not fit `c`.
    fn checked_rows(&self, c: &[f32]) -> usize {
        let all = c.len() / self.width;
        assert!(c.len() == all * self.width && !self.taps.is_empty());
        let matrices = self.b.count() / (self.depth * self.width);
        assert!(self.taps.iter().all(|&tap| tap < matrices));
        assert!(self.rows.is_none_or(|rows| {
            rows.is_sorted_by(|a, b| a < b) && rows.last().is_none_or(|&last| last < all)
        }));
        assert!(self.add.is_none_or(|add| add.len() == self.width));
        assert!(self.residual.is_none_or(|r| r.len() == c.len()));
        self.rows.map_or(all, <[usize]>::len)
    }

    /// The row of `c` that is computed as number `i`.
    #[inline(always)]
    fn row(&self, i: usize) -> usize {
        self.rows.map_or(i, |rows| rows[i])
    }

    /// The matrix of `b` for a tap.
    #[inline(always)]
    fn matrix(&self, tap: usize) -> Operand<'_> {
        let len = self.depth * self.width;
        self.b.part(tap * len..(tap + 1) * len)
    }

    /// What is added to finished sums: those of `c`, whose first element is number `at`.
    #[inline(always)]
    fn finish(&self, at: usize, c: &mut [f32]) {
        if let Some(add) = self.add {
            let add = &add[at % self.width..][..c.len()];
            c.iter_mut().zip(add).for_each(|(c, add)| *c += add);
        }
        if let Some(residual) = self.residual {
            let residual = &residual[at..][..c.len()];
            c.iter_mut().zip(residual).for_each(|(c, r)| *c += r);
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::dtype::DType;
    use crate::rng::Philox;
    use crate::runtime::native::Products;
    use crate::runtime::unit::{Unit, by_amx, by_dots};

    /// `len` numbers of very different sizes.
    fn numbers(random: &mut Philox, len: usize) -> Vec<f32> {
        let number = |_| (random.normal() * (6.0 * random.normal()).exp2()) as f32;
        (0..len).map(number).collect()
    }

    /// The largest error of one multiplication of `[rows, depth]` and `[depth, width]`, relative to the sum of the
    /// products' sizes; `read` is what is to be left of an operand.
    fn error(unit: &Unit, [rows, depth, width]: [usize; 3], read: fn(f32) -> f64) -> f64 {
        let mut random = Philox::new(7);
        let (a, b) = (
            numbers(&mut random, rows * depth),
            numbers(&mut random, depth * width),
        );
        let product = Product {
            a: &a,
            b: Operand::Wide(&b),
            taps: &[0],
            rows: None,
            depth,
            width,
            transposed: false,
            add: None,
            residual: None,
        };
        let mut c = vec![0.0; rows * width];
        product.by_unit(unit, &mut c, &|row, _| Some(row));
        let mut worst = 0.0f64;
        for (i, &got) in c.iter().enumerate() {
            let (mut sum, mut size) = (0.0, 0.0);
            for l in 0..depth {
                let term = read(a[i / width * depth + l]) * read(b[l * width + i % width]);
                (sum, size) = (sum + term, size + term.abs());
            }
            worst = worst.max((f64::from(got) - sum).abs() / size);
        }
        worst
    }

    /// One product alone, and sums: the pieces lose no more than f32 arithmetic does.
    #[test]
    fn three_pieces_are_all_of_a_number() {
        let Some(unit) = by_amx(Products::F32, DType::F32) else {
            eprintln!("this processor has no AMX: not tested");
            return;
        };
        let epsilon = f64::from(f32::EPSILON) / 2.0;
        assert!(error(unit, [50, 1, 70], f64::from) <= 2.0 * epsilon);
        assert!(error(unit, [600, 100, 40], f64::from) <= 100.0 * epsilon);
        // Columns that are cut, and are no whole panels.
        assert!(error(unit, [1000, 40, 136], f64::from) <= 40.0 * epsilon);
        assert!(error(unit, [70, 40, 330], f64::from) <= 40.0 * epsilon);
    }

    #[test]
    fn one_piece_is_rounded_to_bf16() {
        let rounded = |x| bf16::from_f32(x).to_f64();
        let epsilon = f64::from(f32::EPSILON) / 2.0;
        let units = [by_amx(Products::Bf16, DType::F32), by_dots(DType::F32)];
        if units.iter().all(Option::is_none) {
            eprintln!("this processor multiplies no bf16 numbers: not tested");
        }
        for unit in units.into_iter().flatten() {
            assert!(error(unit, [50, 1, 70], rounded) <= epsilon);
            assert!(error(unit, [600, 100, 40], rounded) <= 100.0 * epsilon);
            assert!(error(unit, [50, 100, 70], f64::from) > 100.0 * epsilon);
        }
    }

    /// Weights in 16 bits, and the same numbers in f32: blocks and panels that are whole and that are not, one strip of
    /// rows and several, shallow and deep.
    #[test]
    fn widening_changes_no_bit() {
        let sizes = [
            [1, 1, 1],
            [17, 33, 31],
            [50, 300, 200],
            [600, 100, 40],
            [700, 70, 330],
        ];
        let mut random = Philox::new(7);
        for [rows, depth, width] in sizes {
            let a = numbers(&mut random, rows * depth);
            let b = numbers(&mut random, 2 * depth * width);
            let f16 = b.iter().map(|&x| f16::from_f32(x.clamp(-6e4, 6e4)));
            let f16: Vec<_> = f16.collect();
            let bf16: Vec<_> = b.iter().map(|&x| bf16::from_f32(x)).collect();
            for (b, transposed) in [Operand::F16(&f16), Operand::Bf16(&bf16)]
                .into_iter()
                .flat_map(|b| [(b, false), (b, true)])
            {
                let widened = b.widened();
                let product = |b| Product {
                    a: &a,
                    b,
                    taps: &[0, 1],
                    rows: None,
                    depth,
                    width,
                    transposed,
                    add: None,
                    residual: None,
                };
                let from = |row: usize, tap: usize| row.checked_sub(tap);
                let same = |run: &dyn Fn(&Product<'_>, &mut [f32])| {
                    let [narrow, wide] = [b, Operand::Wide(&widened)].map(|b| {
                        let mut c = vec![0.0; rows * width];
                        run(&product(b), &mut c);
                        c
                    });
                    assert!(narrow == wide, "{rows} {depth} {width} {:?}", b.dtype());
                };
                for products in [Products::F32, Products::Bf16] {
                    if has_lanes() {
                        same(&|product, c| product.by_lanes(c, products, from));
                    }
                    if has_amx() {
                        same(&|product, c| product.by_tiles(c, products, from));
                    }
                }
            }
        }
    }

    /// The cut into tasks looks at the threads, the order of sums does not.
    #[test]
    fn threads_change_no_bit() {
        const ROWS: usize = 50;
        const DEPTH: usize = 300;
        const WIDTH: usize = 2000;
        let mut random = Philox::new(7);
        let (a, b) = (
            numbers(&mut random, ROWS * DEPTH),
            numbers(&mut random, 2 * DEPTH * WIDTH),
        );
        let product = Product {
            a: &a,
            b: Operand::Wide(&b),
            taps: &[0, 1],
            rows: None,
            depth: DEPTH,
            width: WIDTH,
            transposed: true,
            add: None,
            residual: None,
        };
        let from = |row: usize, tap: usize| row.checked_sub(tap);
        let on = |threads: usize, run: &(dyn Fn(&mut [f32]) + Sync)| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let mut c = vec![0.0; ROWS * WIDTH];
            pool.build().unwrap().install(|| run(&mut c));
            c
        };
        let same = |run: &(dyn Fn(&mut [f32]) + Sync)| {
            let alone = on(1, run);
            assert!(alone == on(2, run) && alone == on(9, run));
        };
        if has_lanes() {
            same(&|c| product.by_lanes(c, Products::F32, from));
        }
        let amx = |products| by_amx(products, DType::F32);
        let units = [amx(Products::F32), amx(Products::Bf16), by_dots(DType::F32)];
        for unit in units.into_iter().flatten() {
            same(&|c| product.by_unit(unit, c, &from));
        }
    }
}
