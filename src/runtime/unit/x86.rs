//! The instructions of x86: AVX-512 with BF16, and AMX.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Block, PANEL, STEP, TILE, Unit};

pub(super) static AMX_OF_3: Unit = amx(3, split::<3>, pack::<3>, pack_transposed::<3>, multiply_3);
pub(super) static AMX_OF_1: Unit = amx(1, split::<1>, pack::<1>, pack_transposed::<1>, multiply_1);
pub(super) static DOTS: Unit = Unit {
    multiply: multiply_dots,
    begin: nothing,
    end: nothing,
    ..amx(1, split::<1>, pack::<1>, pack_transposed::<1>, multiply_1)
};

/// Rows ahead that are fetched.
const AHEAD: usize = 12;

type Split = unsafe fn(*const f32, usize, [usize; 2], *mut u16, usize);
type Pack = unsafe fn(*const f32, usize, [usize; 2], *mut u16);

const fn amx(
    pieces: usize,
    split: Split,
    pack: Pack,
    pack_transposed: Pack,
    multiply: unsafe fn(&Block),
) -> Unit {
    Unit {
        pieces,
        split,
        pack,
        pack_transposed,
        multiply,
        begin: configure,
        end: release,
    }
}

/// Whether bf16 numbers can be made, moved and summed by vectors.
pub(super) fn has_vectors() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
}

/// Whether the processor has matrix units for bf16, and this process is given them: Linux gives their state, which
/// is large, to who asks.
pub(super) fn may_use_amx() -> bool {
    const OF_LEAF_7: u32 = 1 << 22 | 1 << 24; // amx-bf16, amx-tile
    if __cpuid(0).eax < 7 || __cpuid_count(7, 0).edx & OF_LEAF_7 != OF_LEAF_7 {
        return false;
    }
    #[cfg(target_os = "linux")]
    {
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
        const XFEATURE_XTILEDATA: i64 = 18;
        let answer: i64;
        // SAFETY: a system call that changes nothing but this permission; it overwrites rcx and r11.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => answer,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                out("rcx") _, out("r11") _,
                options(nostack),
            );
        }
        answer == 0
    }
    #[cfg(not(target_os = "linux"))]
    false
}

unsafe fn nothing() {}

/// Eight tiles of 16 rows of 64 bytes.
unsafe fn configure() {
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }
    let mut tiles = Configuration {
        palette: 1,
        start: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    tiles.row_bytes[..8].fill(64);
    tiles.rows[..8].fill(TILE as u8);
    // SAFETY: `by_amx` has asked for the units; the configuration is one that they have.
    unsafe { asm!("ldtilecfg [{0}]", in(reg) &tiles, options(nostack, readonly)) }
}

unsafe fn release() {
    // SAFETY: `by_amx` has asked for the units.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// Sums of a block, or of what is added to it.
#[repr(align(64))]
struct Sums {
    _all: [f32; PANEL * PANEL],
}

/// Computes a block by `products`, which writes new sums. Those of one call are added to the others as a whole: so
/// the length of a chain of additions is that of a call's depth.
///
/// # Safety
/// As [`Ready::multiply`].
#[target_feature(enable = "avx512f")]
unsafe fn add(block: &Block, products: unsafe fn(&Block, *mut f32)) {
    // SAFETY: `c` is the caller's promise, `sums` as large.
    unsafe {
        if !block.add {
            return products(block, block.c);
        }
        let mut sums = std::mem::MaybeUninit::<Sums>::uninit();
        let from = sums.as_mut_ptr().cast::<f32>();
        products(block, from);
        for i in (0..PANEL * PANEL).step_by(16) {
            let c = block.c.add(i);
            _mm512_storeu_ps(
                c,
                _mm512_add_ps(_mm512_loadu_ps(c), _mm512_load_ps(from.add(i))),
            );
        }
    }
}

/// # Safety
/// As [`Ready::multiply`]; the tiles are configured.
unsafe fn multiply_1(block: &Block) {
    // SAFETY: the caller's promise.
    unsafe { add(block, products_of_1) }
}

/// # Safety
/// As [`Ready::multiply`]; the tiles are configured.
unsafe fn multiply_3(block: &Block) {
    // SAFETY: the caller's promise.
    unsafe { add(block, products_of_3) }
}

// Tiles 0 to 3 are the sums, 2 x 2; 4 and 5 of `a`, 6 and 7 of `b`. The numbers are bytes from where a step starts.
macro_rules! load_a {
    ($at:literal) => {
        concat!(
            "tileloadd tmm4, [{a0}+{p0}*1+",
            $at,
            "]\n tileloadd tmm5, [{a1}+{p1}*1+",
            $at,
            "]"
        )
    };
}
macro_rules! load_b {
    ($left:literal, $right:literal) => {
        concat!(
            "tileloadd tmm6, [{b}+{line}*1+",
            $left,
            "]\n tileloadd tmm7, [{b}+{line}*1+",
            $right,
            "]"
        )
    };
}
macro_rules! products {
    () => {
        "tdpbf16ps tmm0, tmm4, tmm6\n tdpbf16ps tmm1, tmm4, tmm7\n tdpbf16ps tmm2, tmm5, tmm6\n tdpbf16ps tmm3, tmm5, tmm7"
    };
}
/// Instructions between clearing the sums of a block and storing them to `$c`, with counters of its steps.
macro_rules! sums {
    ($block:ident, $c:ident, [$($counter:ident),+], $($line:expr),+ $(,)?) => {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            $($line,)+
            "tilestored [{c}+{line}*2], tmm0", "tilestored [{c}+{line}*2+64], tmm1",
            "tilestored [{c}+{line}*2+2048], tmm2", "tilestored [{c}+{line}*2+2112], tmm3",
            a0 = inout(reg) $block.a[0] => _,
            a1 = inout(reg) $block.a[1] => _,
            p0 = in(reg) $block.pitch[0],
            p1 = in(reg) $block.pitch[1],
            b = inout(reg) $block.b => _,
            c = in(reg) $c,
            $($counter = inout(reg) $block.steps => _,)+
            line = in(reg) 64usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// # Safety
/// As [`Ready::multiply`]; the tiles are configured.
unsafe fn products_of_1(block: &Block, c: *mut f32) {
    // SAFETY: what is read and written is what the caller promised.
    unsafe {
        sums!(
            block,
            c,
            [steps],
            "2:",
            load_b!(0, 1024),
            load_a!(0),
            products!(),
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
        );
    }
}

/// Up the depth all products but those of first pieces, while the sums are small and so is what rounding them
/// loses; then these, down again.
///
/// # Safety
/// As [`Ready::multiply`]; the tiles are configured.
unsafe fn products_of_3(block: &Block, c: *mut f32) {
    // SAFETY: what is read and written is what the caller promised.
    unsafe {
        sums!(
            block,
            c,
            [up, down],
            "2:",
            // From one pair to the next one operand changes.
            load_b!(0, 1024),
            load_a!(128),
            products!(),
            load_a!(64),
            products!(),
            load_b!(2048, 3072),
            products!(),
            load_a!(0),
            products!(),
            load_b!(4096, 5120),
            products!(),
            "add {a0}, 192",
            "add {a1}, 192",
            "add {b}, 6144",
            "dec {up}",
            "jnz 2b",
            "3:",
            "sub {a0}, 192",
            "sub {a1}, 192",
            "sub {b}, 6144",
            load_b!(0, 1024),
            load_a!(0),
            products!(),
            "dec {down}",
            "jnz 3b",
        );
    }
}

/// # Safety
/// As [`Ready::multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn multiply_dots(block: &Block) {
    const ROWS: usize = 8; // at once: 16 sums in registers
    for first in (0..2 * TILE).step_by(ROWS) {
        let (tile, row) = (first / TILE, first % TILE);
        // SAFETY: what is read and written is what the caller promised.
        unsafe {
            let c = block.c.add(first * PANEL);
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            if block.add {
                for (r, sums) in sums.iter_mut().enumerate() {
                    sums[0] = _mm512_loadu_ps(c.add(r * PANEL));
                    sums[1] = _mm512_loadu_ps(c.add(r * PANEL + 16));
                }
            }
            let a = block.a[tile]
                .byte_add(row * block.pitch[tile])
                .cast::<i32>();
            for step in 0..block.steps {
                let b = block.b.add(step * STEP * PANEL);
                for pair in 0..STEP / 2 {
                    let b = b.add(pair * 2 * TILE).cast::<__m512i>();
                    let (left, right) =
                        (_mm512_loadu_si512(b), _mm512_loadu_si512(b.byte_add(1024)));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = *a
                            .byte_add(r * block.pitch[tile])
                            .add(step * STEP / 2 + pair);
                        let x = as_bf16(_mm512_set1_epi32(x));
                        sums[0] = _mm512_dpbf16_ps(sums[0], x, as_bf16(left));
                        sums[1] = _mm512_dpbf16_ps(sums[1], x, as_bf16(right));
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                _mm512_storeu_ps(c.add(r * PANEL), sums[0]);
                _mm512_storeu_ps(c.add(r * PANEL + 16), sums[1]);
            }
        }
    }
}

fn as_bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of any content.
    unsafe { std::mem::transmute(bits) }
}

fn bits(x: __m512bh) -> __m512i {
    // SAFETY: both are 64 bytes of any content.
    unsafe { std::mem::transmute(x) }
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
fn fetch(from: *const f32) {
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

/// What rounding left of two vectors.
#[inline]
#[target_feature(enable = "avx512f")]
fn left(x: [__m512; 2], rounded: __m512i) -> [__m512; 2] {
    let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(rounded));
    let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(rounded));
    let wide = |half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(half));
    [
        _mm512_sub_ps(x[0], wide(low)),
        _mm512_sub_ps(x[1], wide(high)),
    ]
}

/// The pieces of two vectors, the first `P` of three.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn pieces<const P: usize>(x: [__m512; 2]) -> [__m512i; P] {
    let mut pieces = [rounded(x); P];
    if P > 1 {
        let x = left(x, pieces[0]);
        pieces[1] = rounded(x);
        pieces[2] = rounded(left(x, pieces[1]));
    }
    pieces
}

/// # Safety
/// As `split` of [`Unit`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn split<const P: usize>(
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
/// As `pack` of [`Unit`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack<const P: usize>(
    from: *const f32,
    stride: usize,
    [depth, columns]: [usize; 2],
    to: *mut u16,
) {
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
                unsafe { some_two(from, if row < depth { left } else { 0 }) }
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
/// As `pack` of [`Unit`], of `[columns, depth]`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_transposed<const P: usize>(
    from: *const f32,
    stride: usize,
    [depth, columns]: [usize; 2],
    to: *mut u16,
) {
    let steps = depth.div_ceil(STEP);
    for half in 0..2 * columns.div_ceil(PANEL) {
        for step in 0..steps {
            let (at, deep) = (step * STEP, depth - step * STEP);
            let mut tiles = [[_mm512_setzero_si512(); TILE]; P];
            for column in 0..columns.saturating_sub(half * TILE).min(TILE) {
                // SAFETY: the caller's promise.
                let x = unsafe {
                    let from = from.add((half * TILE + column) * stride + at);
                    fetch(from.wrapping_add(TILE * stride));
                    some_two(from, deep)
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
