//! What multiplies bf16 numbers on a processor, and f32 numbers as sums of them.
//!
//! An f32 number is the sum of three bf16 pieces, each what rounding left of the ones before: 3 x 8 bits are all of its
//! 24. Of the nine products of two numbers' pieces, the six that are not below 2^-24 of the largest are summed, in f32:
//! the result is as exact as that of f32 operations (like cuBLAS's BF16x9 emulation). An operand beyond 2^128 (1 - 2^-9),
//! or one that is not finite, gives NaN. An f16 number is the sum of two pieces, a bf16 number is one: where `b` is stored so,
//! the products of pieces that are zero, which change no sum, are left out. With one piece, operands are rounded to bf16.
//!
//! A row of `a` is cut into steps of 32 numbers; of each step, first all first pieces lie in memory, then all second
//! ones. A panel of `b` has 32 columns; of each step, by piece, two tiles of 16 columns, in which the pairs of
//! numbers that are neighbours in depth are neighbours in memory.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::marker::PhantomData;
#[cfg(target_arch = "x86_64")]
use std::sync::LazyLock;

use crate::dtype::DType;
use crate::runtime::native::Products;
use crate::runtime::operand::Operand;

/// Numbers of a row that are multiplied in one step.
pub(crate) const STEP: usize = 32;
/// Rows of a tile.
pub(crate) const TILE: usize = 16;
/// Columns of a panel; rows and columns of what [`Ready::multiply`] computes.
pub(crate) const PANEL: usize = 32;

/// Pieces between rows: a line of memory, else rows would compete for the same places in a cache.
pub(crate) const GAP: usize = 32;

/// The instructions that multiply.
#[derive(Debug)]
pub(crate) struct Unit {
    /// Pieces of a number of `a`.
    pub(crate) pieces: usize,
    /// Pieces of a number of `b`.
    pieces_of_b: usize,
    /// The type that `b` is stored in.
    b: DType,
    /// Splits `[rows, len]` numbers, whose rows are `stride` apart, into rows of `pitch` pieces.
    split: unsafe fn(from: *const f32, stride: usize, size: [usize; 2], to: *mut u16, pitch: usize),
    /// Packs `[depth, columns]` numbers as panels, zeros beyond; rows are `stride` apart.
    pack: unsafe fn(from: *const u8, stride: usize, size: [usize; 2], to: *mut u16),
    /// The same for `[columns, depth]`.
    pack_transposed: unsafe fn(from: *const u8, stride: usize, size: [usize; 2], to: *mut u16),
    multiply: unsafe fn(&Block),
    begin: unsafe fn(),
    end: unsafe fn(),
}

/// Two tiles of rows times a panel: `c` (+)= `a` `b`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// The first row of each tile.
    pub(crate) a: [*const u16; 2],
    /// Bytes from row to row of each tile.
    pub(crate) pitch: [usize; 2],
    /// The panel.
    pub(crate) b: *const u16,
    /// 32 rows of 32 sums.
    pub(crate) c: *mut f32,
    /// Steps of the depth.
    pub(crate) steps: usize,
    /// Whether `c` has sums already.
    pub(crate) add: bool,
}

/// Whether this processor has the matrix units that [`Product::by_tiles`](super::product::Product::by_tiles) needs.
pub fn has_amx() -> bool {
    by_amx(Products::F32, DType::F32).is_some()
}

/// Whether this processor multiplies bf16 numbers.
pub fn has_bf16() -> bool {
    by_amx(Products::Bf16, DType::F32).is_some() || by_dots(DType::F32).is_some()
}

/// Matrix units, where `b` is stored in this type.
#[cfg(target_arch = "x86_64")]
pub(crate) fn by_amx(products: Products, b: DType) -> Option<&'static Unit> {
    static HAS: LazyLock<bool> = LazyLock::new(|| x86::has_vectors() && x86::may_use_amx());
    let units = match products {
        Products::F32 => &x86::AMX_OF_3,
        Products::Bf16 => &x86::AMX_OF_1,
    };
    units.iter().find(|unit| *HAS && unit.b == b)
}

/// Vector units that sum products of pairs of bf16 numbers.
#[cfg(target_arch = "x86_64")]
pub(crate) fn by_dots(b: DType) -> Option<&'static Unit> {
    let has = x86::has_vectors();
    x86::DOTS.iter().find(|unit| has && unit.b == b)
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn by_amx(_: Products, _: DType) -> Option<&'static Unit> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn by_dots(_: DType) -> Option<&'static Unit> {
    None
}

impl Unit {
    /// Steps that hold a depth.
    pub(crate) fn steps(depth: usize) -> usize {
        depth.div_ceil(STEP)
    }

    /// Pieces of a row of `a` of so many numbers.
    pub(crate) fn row(&self, depth: usize) -> usize {
        Self::steps(depth) * self.pieces * STEP
    }

    /// Pieces of a panel of so many rows.
    pub(crate) fn panel(&self, depth: usize) -> usize {
        Self::steps(depth) * self.pieces_of_b * STEP * PANEL
    }

    /// Splits `rows` rows of `len` numbers, `stride` apart in `from`, into rows `pitch` apart.
    pub(crate) fn split(
        &self,
        from: &[f32],
        stride: usize,
        [rows, len]: [usize; 2],
        to: &mut [u16],
        pitch: usize,
    ) {
        assert!(rows > 0 && (rows - 1) * stride + len <= from.len());
        assert!((rows - 1) * pitch + self.row(len) <= to.len());
        // SAFETY: both lie in their slices (asserted), and the unit is this processor's.
        unsafe { (self.split)(from.as_ptr(), stride, [rows, len], to.as_mut_ptr(), pitch) }
    }

    /// Packs `columns` columns of `b`, `[depth, ..]`, or `[.., depth]` when `transposed`, rows `stride` apart, as panels.
    pub(crate) fn pack(
        &self,
        b: Operand<'_>,
        stride: usize,
        [depth, columns]: [usize; 2],
        transposed: bool,
        to: &mut [u16],
    ) {
        let [rows, len] = if transposed {
            [columns, depth]
        } else {
            [depth, columns]
        };
        assert!(columns > 0 && depth > 0 && (rows - 1) * stride + len <= b.count());
        assert!(b.dtype() == self.b);
        assert!(to.len() >= columns.div_ceil(PANEL) * self.panel(depth));
        let pack = if transposed {
            self.pack_transposed
        } else {
            self.pack
        };
        // SAFETY: both lie in their slices and `b` is of the unit's type (asserted), and the unit is this processor's.
        unsafe { pack(b.start(), stride, [depth, columns], to.as_mut_ptr()) }
    }

    /// Prepares this thread to multiply.
    pub(crate) fn ready(&self) -> Ready<'_> {
        // SAFETY: the unit is this processor's.
        unsafe { (self.begin)() };
        Ready {
            unit: self,
            of_thread: PhantomData,
        }
    }
}

/// A unit on the one thread that was prepared for it; in the end the thread is left as it was.
#[derive(Debug)]
pub(crate) struct Ready<'a> {
    unit: &'a Unit,
    of_thread: PhantomData<*const ()>,
}

impl Ready<'_> {
    /// `c` (+)= `a` `b`: `rows` rows of `a`, `pitch` apart, times panels `b` of `steps` steps. `c` holds panel by panel, in each
    /// row by row, as many rows as whole blocks of 32 have, and so must `a`.
    pub(crate) fn multiply_rows(
        &self,
        (a, pitch): (&[u16], usize),
        rows: usize,
        (b, steps): (&[u16], usize),
        c: &mut [f32],
        add: bool,
    ) {
        let (rows, depth) = (rows.next_multiple_of(PANEL), steps * STEP);
        let (row, panel) = (self.unit.row(depth), self.unit.panel(depth));
        assert!(rows > 0 && steps > 0 && pitch >= row && a.len() >= rows * pitch);
        assert!(c.len() >= b.len() / panel * rows * PANEL);
        for (b, c) in b.chunks_exact(panel).zip(c.chunks_exact_mut(rows * PANEL)) {
            let a = a.chunks_exact(PANEL * pitch);
            for (a, c) in a.zip(c.chunks_exact_mut(PANEL * PANEL)) {
                let block = Block {
                    a: [a.as_ptr(), a[TILE * pitch..].as_ptr()],
                    pitch: [2 * pitch; 2],
                    b: b.as_ptr(),
                    c: c.as_mut_ptr(),
                    steps,
                    add,
                };
                // SAFETY: 32 rows of `steps` steps, such a panel, and 32 x 32 sums of our own.
                unsafe { self.multiply(&block) };
            }
        }
    }

    /// Computes a block.
    ///
    /// # Safety
    /// The tiles have 16 rows of `steps` steps, the panel `steps` steps, `c` 32 x 32 numbers that nobody else has.
    #[inline(always)]
    pub(crate) unsafe fn multiply(&self, block: &Block) {
        // SAFETY: the caller's promise; the unit is this processor's, and the thread is prepared.
        unsafe { (self.unit.multiply)(block) }
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        // SAFETY: the unit is this processor's.
        unsafe { (self.unit.end)() }
    }
}
