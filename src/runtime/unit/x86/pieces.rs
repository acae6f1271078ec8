//! Numbers as they are stored, split into pieces and packed.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::super::{PANEL, STEP, TILE};
use crate::dtype::Element;

/// Rows ahead that are fetched.
const AHEAD: usize = 12;

fn bits(x: __m512bh) -> __m512i {
    // SAFETY: both are 64 bytes of any content.
    unsafe { std::mem::transmute(x) }
}

/// Numbers in memory, as they are stored.
pub(super) trait Stored: Element {
    /// Thirty-two numbers from `from` on, those that are left, in f32; zeros elsewhere.
    ///
    /// # Safety
    /// They are there, and the processor has AVX-512 with BW.
    unsafe fn some_two(from: *const Self, left: usize) -> [__m512; 2];
}

impl Stored for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn some_two(from: *const Self, left: usize) -> [__m512; 2] {
        // SAFETY: the caller's promise.
        unsafe { some_two(from, left) }
    }
}

impl Stored for f16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn some_two(from: *const Self, left: usize) -> [__m512; 2] {
        // SAFETY: the caller's promise.
        let x = unsafe { some_bits(from.cast(), left) };
        let high = _mm512_extracti64x4_epi64::<1>(x);
        [
            _mm512_cvtph_ps(_mm512_castsi512_si256(x)),
            _mm512_cvtph_ps(high),
        ]
    }
}

impl Stored for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn some_two(from: *const Self, left: usize) -> [__m512; 2] {
        // SAFETY: the caller's promise.
        widened(unsafe { some_bits(from.cast(), left) })
    }
}

/// Thirty-two words of 16 bits from `from` on, those that are left; zeros elsewhere.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn some_bits(from: *const i16, left: usize) -> __m512i {
    let mask = if left >= STEP {
        u32::MAX
    } else {
        (1 << left) - 1
    };
    // SAFETY: `left` words are the caller's promise; no others are touched.
    unsafe { _mm512_maskz_loadu_epi16(mask, from) }
}

/// Sixteen numbers from `from` on, those of `mask`; zeros elsewhere.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn some(from: *const f32, left: usize) -> __m512 {
    let mask = if left >= 16 {
        u16::MAX
    } else {
        (1 << left) - 1
    };
    // SAFETY: `left` numbers are the caller's promise; no others are touched.
    unsafe { _mm512_maskz_loadu_ps(mask, from) }
}

/// As [`some`], of 32.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn some_two(from: *const f32, left: usize) -> [__m512; 2] {
    // SAFETY: as there.
    unsafe {
        if left >= STEP {
            return [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16))];
        }
        [
            some(from, left),
            some(from.wrapping_add(16), left.saturating_sub(16)),
        ]
    }
}

/// Fetches the 32 numbers from `from` on, which may be anywhere: the hardware does not follow strides of pages.
#[inline]
fn fetch<S>(from: *const S) {
    // SAFETY: fetching ahead may go anywhere.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(from.cast());
        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(16).cast());
    }
}

/// Two vectors rounded to bf16, the numbers of the first below those of the second.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(x: [__m512; 2]) -> __m512i {
    bits(_mm512_cvtne2ps_pbh(x[1], x[0]))
}

/// Thirty-two bf16 numbers in f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn widened(x: __m512i) -> [__m512; 2] {
    let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(x));
    let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(x));
    [low, high].map(|half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(half)))
}

/// What rounding left of two vectors.
#[inline]
#[target_feature(enable = "avx512f")]
fn left(x: [__m512; 2], rounded: __m512i) -> [__m512; 2] {
    let [low, high] = widened(rounded);
    [_mm512_sub_ps(x[0], low), _mm512_sub_ps(x[1], high)]
}

/// The first `P` pieces of two vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn pieces<const P: usize>(x: [__m512; 2]) -> [__m512i; P] {
    let (mut pieces, mut x) = ([rounded(x); P], x);
    for p in 1..P {
        x = left(x, pieces[p - 1]);
        pieces[p] = rounded(x);
    }
    pieces
}

/// # Safety
/// As `split` of [`Unit`](super::Unit).
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn split<const P: usize>(
    from: *const f32,
    stride: usize,
    [rows, len]: [usize; 2],
    to: *mut u16,
    pitch: usize,
) {
    for row in 0..rows {
        for step in 0..len.div_ceil(STEP) {
            let (at, left) = (step * STEP, len - step * STEP);
            // SAFETY: the caller's promise.
            unsafe {
                let from = from.add(row * stride + at);
                fetch(from.wrapping_add(4 * stride));
                let to = to.add(row * pitch + at * P);
                for (p, piece) in pieces::<P>(some_two(from, left)).into_iter().enumerate() {
                    _mm512_storeu_si512(to.add(p * STEP).cast(), piece);
                }
            }
        }
    }
}

/// # Safety
/// As `pack` of [`Unit`](super::Unit).
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack<S: Stored, const P: usize>(
    from: *const u8,
    stride: usize,
    [depth, columns]: [usize; 2],
    to: *mut u16,
) {
    let from = from.cast::<S>();
    // The numbers of two rows, one row's above the other's, to pairs.
    let mut order = [0u16; 32];
    for (i, order) in order.iter_mut().enumerate() {
        *order = (i / 2 + i % 2 * 16) as u16;
    }
    // SAFETY: `order` has 64 bytes.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    let steps = depth.div_ceil(STEP);
    // Row by row, so that each page is met once.
    for pair in 0..steps * STEP / 2 {
        let (step, line) = (pair / 16, pair % 16);
        for panel in 0..columns.div_ceil(PANEL) {
            let left = columns - panel * PANEL;
            let row = |row: usize| {
                let from = from.wrapping_add(row * stride + panel * PANEL);
                fetch(from.wrapping_add(AHEAD * stride));
                // SAFETY: the caller's promise; a row beyond the last has no numbers.
                unsafe { S::some_two(from, if row < depth { left } else { 0 }) }
            };
            let ([a, b], [below_a, below_b]) = (row(2 * pair), row(2 * pair + 1));
            for (half, x) in [[a, below_a], [b, below_b]].into_iter().enumerate() {
                for (p, piece) in pieces::<P>(x).into_iter().enumerate() {
                    let pairs = _mm512_permutexvar_epi16(order, piece);
                    let tile = ((panel * steps + step) * P + p) * 2 + half;
                    // SAFETY: inside the panel.
                    unsafe {
                        _mm512_storeu_si512(to.add((tile * TILE + line) * STEP).cast(), pairs)
                    };
                }
            }
        }
    }
}

/// # Safety
/// As `pack` of [`Unit`](super::Unit), of `[columns, depth]`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack_transposed<S: Stored, const P: usize>(
    from: *const u8,
    stride: usize,
    [depth, columns]: [usize; 2],
    to: *mut u16,
) {
    let (from, steps) = (from.cast::<S>(), depth.div_ceil(STEP));
    for half in 0..2 * columns.div_ceil(PANEL) {
        for step in 0..steps {
            let (at, deep) = (step * STEP, depth - step * STEP);
            let mut tiles = [[_mm512_setzero_si512(); TILE]; P];
            for column in 0..columns.saturating_sub(half * TILE).min(TILE) {
                // SAFETY: the caller's promise.
                let x = unsafe {
                    let from = from.add((half * TILE + column) * stride + at);
                    fetch(from.wrapping_add(TILE * stride));
                    S::some_two(from, deep)
                };
                for (tile, piece) in tiles.iter_mut().zip(pieces::<P>(x)) {
                    tile[column] = piece;
                }
            }
            for (p, tile) in tiles.into_iter().enumerate() {
                let at = ((half / 2 * steps + step) * P + p) * 2 + half % 2;
                for (line, pairs) in transposed(tile).into_iter().enumerate() {
                    // SAFETY: inside the panel.
                    unsafe { _mm512_storeu_si512(to.add((at * TILE + line) * STEP).cast(), pairs) };
                }
            }
        }
    }
}

/// The transpose of 16 x 16 words of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(x: [__m512i; 16]) -> [__m512i; 16] {
    let mut y = x;
    // 2 x 2 words, then 2 x 2 pairs of words, within each quarter.
    for i in (0..16).step_by(2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    let mut z = y;
    for i in (0..16).step_by(4) {
        z[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        z[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        z[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        z[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
    // Then the quarters: z[4 r + l] has in quarter q the words of rows 4 r..4 r + 4 of line 4 q + l.
    for l in 0..4 {
        let [a, b, c, d] = [z[l], z[4 + l], z[8 + l], z[12 + l]];
        let (ab, cd) = (
            _mm512_shuffle_i32x4::<0x88>(a, b),
            _mm512_shuffle_i32x4::<0x88>(c, d),
        );
        y[l] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        y[8 + l] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
        let (ab, cd) = (
            _mm512_shuffle_i32x4::<0xdd>(a, b),
            _mm512_shuffle_i32x4::<0xdd>(c, d),
        );
        y[4 + l] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        y[12 + l] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
    }
    y
}
