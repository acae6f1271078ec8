//! The innermost loops of [`product`](super::product): one tile of a matrix product in registers, and
//! packing of what it reads.
//!
//! A tile is `R` rows times two vectors of columns. For each step of the depth it loads two vectors of a
//! packed panel and one number of each row: the sums never leave the registers.

use bytemuck::{Pod, Zeroable};

/// A cache line: panels start at one.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([f32; 16]);

/// `len` elements of `lines`, of unspecified content.
pub(super) fn room(lines: &mut Vec<Line>, len: usize) -> &mut [f32] {
    lines.resize(len.div_ceil(16), Line::zeroed());
    &mut bytemuck::cast_slice_mut(&mut lines[..])[..len]
}

/// The tile of one instruction set.
pub(super) struct Isa {
    /// Most rows of a tile.
    pub(super) rows: usize,
    /// Columns of a tile and of a panel.
    pub(super) width: usize,
    /// `kernels[r - 1]` computes a tile of `r` rows.
    kernels: &'static [Kernel],
    /// Packs `[depth, panels]` whole panels.
    #[cfg(target_arch = "x86_64")]
    copy: unsafe fn(from: *const f32, stride: usize, to: *mut f32, size: [usize; 2]),
    /// Transposes 8 x 8 elements; rows of `to` are `width` apart.
    #[cfg(target_arch = "x86_64")]
    flip: unsafe fn(from: *const f32, stride: usize, to: *mut f32, width: usize),
}

/// Most elements of a tile.
pub(super) const TILE: usize = 12 * 32;

/// `out[r, ..] = sum over l < depth of rows[r][l] panel[l, ..]`.
type Kernel =
    unsafe fn(rows: *const *const f32, from: usize, depth: usize, panel: *const f32, out: *mut f32);

/// The best tile of this processor, if it has one.
pub(super) fn isa() -> Option<&'static Isa> {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if avx2 && is_x86_feature_detected!("avx512f") {
            return Some(&x86::AVX512);
        }
        if avx2 {
            return Some(&x86::AVX2);
        }
    }
    None
}

impl Isa {
    /// The tile of `rows` times a packed panel of `depth` rows, from element `from` of the rows on.
    ///
    /// # Safety
    /// Every pointer of `rows` must be readable for `from + depth` elements.
    pub(super) unsafe fn multiply(
        &self,
        rows: &[*const f32],
        from: usize,
        depth: usize,
        panel: &[f32],
        out: &mut [f32; TILE],
    ) {
        assert!(panel.len() >= depth * self.width && rows.len() * self.width <= TILE);
        let kernel = self.kernels[rows.len() - 1];
        // SAFETY: this `Isa` was chosen for this processor; the rows are the caller's promise, panel and
        // tile are long enough (asserted).
        unsafe { kernel(rows.as_ptr(), from, depth, panel.as_ptr(), out.as_mut_ptr()) }
    }

    /// Packs columns of `b`, whose rows are `stride` apart, into panels of `depth` rows:
    /// `to[p, l, j] = b[l * stride + p * width + j]`, zero from column `columns` on. Row by row, so that
    /// each page of `b` is met once.
    #[inline(always)]
    pub(super) fn pack(&self, b: &[f32], stride: usize, columns: usize, to: &mut [f32]) {
        let panels = columns.div_ceil(self.width);
        let (panel, depth) = (to.len() / panels, to.len() / panels / self.width);
        #[cfg(target_arch = "x86_64")]
        if columns == panels * self.width {
            assert!((depth - 1) * stride + columns <= b.len());
            // SAFETY: this `Isa` was chosen for this processor; `b` has all rows (asserted) and `to` is
            // made of whole panels.
            unsafe { (self.copy)(b.as_ptr(), stride, to.as_mut_ptr(), [depth, panels]) };
            return;
        }
        for l in 0..depth {
            let from = &b[l * stride..][..columns];
            for (p, from) in from.chunks(self.width).enumerate() {
                let to = &mut to[p * panel + l * self.width..][..self.width];
                to[..from.len()].copy_from_slice(from);
                to[from.len()..].fill(0.0);
            }
        }
    }

    /// As [`Isa::pack`] for a transposed `b` and one panel: `to[l, j] = b[j * stride + l]`.
    #[inline(always)]
    pub(super) fn pack_transposed(&self, b: &[f32], stride: usize, columns: usize, to: &mut [f32]) {
        let (width, depth) = (self.width, to.len() / self.width);
        // The part that is made of whole 8 x 8 blocks.
        let (whole, deep) = match cfg!(target_arch = "x86_64") {
            true => (columns / 8 * 8, depth / 8 * 8),
            false => (0, 0),
        };
        assert!(whole == 0 || (whole - 1) * stride + deep <= b.len());
        #[cfg(target_arch = "x86_64")]
        for j in (0..whole).step_by(8) {
            for l in (0..deep).step_by(8) {
                // SAFETY: this `Isa` was chosen for this processor; the 8 x 8 block lies inside `b`
                // (asserted) and inside `to` (j + 8 <= columns <= width, l + 8 <= depth).
                unsafe {
                    let from = b.as_ptr().add(j * stride + l);
                    (self.flip)(from, stride, to.as_mut_ptr().add(l * width + j), width);
                }
            }
        }
        for (l, to) in to.chunks_exact_mut(width).enumerate() {
            let done = if l < deep { whole } else { 0 };
            for (j, to) in to.iter_mut().enumerate().skip(done) {
                *to = if j < columns { b[j * stride + l] } else { 0.0 };
            }
        }
    }

    /// Transposes `[rows, columns]`, whose rows are `stride` apart: `to[j * gap + l] = from[l * stride + j]`.
    #[inline(always)]
    pub(super) fn transpose(
        &self,
        from: &[f32],
        stride: usize,
        [rows, columns]: [usize; 2],
        to: &mut [f32],
        gap: usize,
    ) {
        // The part that is made of whole 8 x 8 blocks.
        let (deep, whole) = match cfg!(target_arch = "x86_64") {
            true => (rows / 8 * 8, columns / 8 * 8),
            false => (0, 0),
        };
        if deep > 0 && whole > 0 {
            assert!(
                (deep - 1) * stride + whole <= from.len() && (whole - 1) * gap + deep <= to.len()
            );
        }
        #[cfg(target_arch = "x86_64")]
        for l in (0..deep).step_by(8) {
            for j in (0..whole).step_by(8) {
                // SAFETY: this `Isa` was chosen for this processor; the 8 x 8 block lies inside both (asserted).
                unsafe {
                    let from = from.as_ptr().add(l * stride + j);
                    (self.flip)(from, stride, to.as_mut_ptr().add(j * gap + l), gap);
                }
            }
        }
        for l in 0..rows {
            let done = if l < deep { whole } else { 0 };
            for j in done..columns {
                to[j * gap + l] = from[l * stride + j];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Isa, Kernel};
    use std::arch::x86_64::*;

    pub(super) static AVX2: Isa = Isa {
        rows: 6,
        width: 16,
        kernels: &[
            avx2::<1>, avx2::<2>, avx2::<3>, avx2::<4>, avx2::<5>, avx2::<6>,
        ],
        copy: copy::<2>,
        flip,
    };

    pub(super) static AVX512: Isa = Isa {
        rows: 12,
        width: 32,
        kernels: {
            const KERNELS: [Kernel; 12] = [
                avx512::<1>,
                avx512::<2>,
                avx512::<3>,
                avx512::<4>,
                avx512::<5>,
                avx512::<6>,
                avx512::<7>,
                avx512::<8>,
                avx512::<9>,
                avx512::<10>,
                avx512::<11>,
                avx512::<12>,
            ];
            &KERNELS
        },
        copy: copy::<4>,
        flip,
    };

    macro_rules! kernel {
        ($name:ident, $features:literal, $lanes:literal, $zero:ident, $load:ident, $splat:ident, $fma:ident, $store:ident) => {
            /// # Safety
            /// As [`super::Isa::multiply`]; `out` holds `R` rows of two vectors.
            #[target_feature(enable = $features)]
            unsafe fn $name<const R: usize>(
                rows: *const *const f32,
                from: usize,
                depth: usize,
                panel: *const f32,
                out: *mut f32,
            ) {
                // SAFETY: all reads are within what the caller promised: R rows of from + depth
                // elements, a panel of depth rows of two vectors.
                unsafe {
                    let mut a = [std::ptr::null(); R];
                    for r in 0..R {
                        a[r] = (*rows.add(r)).add(from);
                    }
                    let mut sums = [[$zero(); 2]; R];
                    let mut b = panel;
                    for l in 0..depth {
                        let (left, right) = ($load(b), $load(b.add($lanes)));
                        for r in 0..R {
                            let x = $splat(*a[r].add(l));
                            sums[r][0] = $fma(x, left, sums[r][0]);
                            sums[r][1] = $fma(x, right, sums[r][1]);
                        }
                        b = b.add(2 * $lanes);
                    }
                    for r in 0..R {
                        $store(out.add(r * 2 * $lanes), sums[r][0]);
                        $store(out.add(r * 2 * $lanes + $lanes), sums[r][1]);
                    }
                }
            }
        };
    }
    kernel!(
        avx2,
        "avx2,fma",
        8,
        _mm256_setzero_ps,
        _mm256_loadu_ps,
        _mm256_set1_ps,
        _mm256_fmadd_ps,
        _mm256_storeu_ps
    );
    kernel!(
        avx512,
        "avx512f",
        16,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_set1_ps,
        _mm512_fmadd_ps,
        _mm512_storeu_ps
    );

    /// Rows ahead of the copied one that are fetched: the hardware does not follow strides of pages.
    const AHEAD: usize = 12;

    /// Copies panels of `V` vectors of 8, row by row.
    ///
    /// # Safety
    /// `depth` rows of `panels` times `V` vectors must be in bounds of both, and the processor must have AVX.
    #[target_feature(enable = "avx")]
    unsafe fn copy<const V: usize>(
        from: *const f32,
        stride: usize,
        to: *mut f32,
        [depth, panels]: [usize; 2],
    ) {
        for l in 0..depth {
            for p in 0..panels {
                // SAFETY: the caller's promise; fetching ahead may go anywhere.
                unsafe {
                    let from = from.add(l * stride + p * V * 8);
                    let to = to.add((p * depth + l) * V * 8);
                    for v in 0..V {
                        if v % 2 == 0 {
                            let ahead = from.wrapping_add(AHEAD * stride + v * 8);
                            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                        }
                        _mm256_storeu_ps(to.add(v * 8), _mm256_loadu_ps(from.add(v * 8)));
                    }
                }
            }
        }
    }

    /// Transposes 8 x 8 numbers.
    ///
    /// # Safety
    /// Both blocks must be in bounds, and the processor must have AVX.
    #[target_feature(enable = "avx")]
    unsafe fn flip(from: *const f32, stride: usize, to: *mut f32, width: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut x = [_mm256_setzero_ps(); 8];
            for (i, x) in x.iter_mut().enumerate() {
                *x = _mm256_loadu_ps(from.add(i * stride));
            }
            let mut y = x;
            for i in 0..4 {
                y[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
                y[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
            }
            for i in [0, 4] {
                x[i] = _mm256_shuffle_ps::<0x44>(y[i], y[i + 2]);
                x[i + 1] = _mm256_shuffle_ps::<0xee>(y[i], y[i + 2]);
                x[i + 2] = _mm256_shuffle_ps::<0x44>(y[i + 1], y[i + 3]);
                x[i + 3] = _mm256_shuffle_ps::<0xee>(y[i + 1], y[i + 3]);
            }
            for i in 0..4 {
                let low = _mm256_permute2f128_ps::<0x20>(x[i], x[i + 4]);
                let high = _mm256_permute2f128_ps::<0x31>(x[i], x[i + 4]);
                _mm256_storeu_ps(to.add(i * width), low);
                _mm256_storeu_ps(to.add((i + 4) * width), high);
            }
        }
    }
}
