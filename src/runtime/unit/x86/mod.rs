//! The instructions of x86: AVX-512 with BF16, and AMX.

mod pieces;

use std::arch::asm;
use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Block, PANEL, STEP, TILE, Unit};
use pieces::{Stored, pack, pack_transposed, split};

/// By the type of `b`.
pub(super) static AMX_OF_3: [Unit; 3] = [
    amx::<f32, 3, 3>(multiply_3),
    amx::<f16, 3, 2>(multiply_3_by_2),
    amx::<bf16, 3, 1>(multiply_3_by_1),
];
pub(super) static AMX_OF_1: [Unit; 3] = [
    amx::<f32, 1, 1>(multiply_1),
    amx::<f16, 1, 1>(multiply_1),
    amx::<bf16, 1, 1>(multiply_1),
];
pub(super) static DOTS: [Unit; 3] = [dots::<f32>(), dots::<f16>(), dots::<bf16>()];

/// `A` pieces of a number of `a`, `B` of one of `b`, which is stored as `S`.
const fn amx<S: Stored, const A: usize, const B: usize>(multiply: unsafe fn(&Block)) -> Unit {
    Unit {
        pieces: A,
        pieces_of_b: B,
        b: S::DTYPE,
        split: split::<A>,
        pack: pack::<S, B>,
        pack_transposed: pack_transposed::<S, B>,
        multiply,
        begin: configure,
        end: release,
    }
}

const fn dots<S: Stored>() -> Unit {
    Unit {
        begin: nothing,
        end: nothing,
        ..amx::<S, 1, 1>(multiply_dots)
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

macro_rules! multiply {
    ($name:ident, $products:ident) => {
        /// # Safety
        /// As [`Ready::multiply`]; the tiles are configured.
        unsafe fn $name(block: &Block) {
            // SAFETY: the caller's promise.
            unsafe { add(block, $products) }
        }
    };
}
multiply!(multiply_1, products_of_1);
multiply!(multiply_3, products_of_3);
multiply!(multiply_3_by_2, products_of_3_by_2);
multiply!(multiply_3_by_1, products_of_3_by_1);

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
/// loses; then these, down again. `$more`: those of other pieces of `b` than the first, whose step has `$bytes`.
macro_rules! products_of_3 {
    ($name:ident, $bytes:literal, $($more:expr),*) => {
        /// # Safety
        /// As [`Ready::multiply`]; the tiles are configured.
        unsafe fn $name(block: &Block, c: *mut f32) {
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
                    $($more,)*
                    "add {a0}, 192",
                    "add {a1}, 192",
                    concat!("add {b}, ", $bytes),
                    "dec {up}",
                    "jnz 2b",
                    "3:",
                    "sub {a0}, 192",
                    "sub {a1}, 192",
                    concat!("sub {b}, ", $bytes),
                    load_b!(0, 1024),
                    load_a!(0),
                    products!(),
                    "dec {down}",
                    "jnz 3b",
                );
            }
        }
    };
}
products_of_3!(
    products_of_3,
    6144,
    load_b!(2048, 3072),
    products!(),
    load_a!(0),
    products!(),
    load_b!(4096, 5120),
    products!()
);
products_of_3!(
    products_of_3_by_2,
    4096,
    load_b!(2048, 3072),
    products!(),
    load_a!(0),
    products!()
);
products_of_3!(products_of_3_by_1, 2048,);

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
