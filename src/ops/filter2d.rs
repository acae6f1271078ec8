//! One small filter for every channel: `y[p, q, c] = sum of kernel[u, v] x[R(p + u - r), R(q + v - r), c]`,
//! where R mirrors an index at the borders without repeating the edge (`2 1 | 0 1 .. n-1 | n-2 n-3`).
//!
//! `x, y: [n, h, w, c]`, `kernel: [k, k]` with `k = 2 r + 1`. The cotangent is the exact transpose: what
//! would land outside is folded back in.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::wide;
use crate::tensor::Tensor;

/// One launch.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    h: usize,
    w: usize,
    c: usize,
    k: usize,
    backward: bool,
}

impl Key {
    /// How far the filter reaches.
    fn reach(&self) -> usize {
        self.k / 2
    }

    /// The pixels of a row with its borders.
    fn padded(&self) -> usize {
        self.w + 2 * self.reach()
    }

    /// The row (of `size = h`) or column (of `size = w`) that index `padded` of the padded axis shows.
    #[inline]
    fn source(&self, padded: usize, size: usize) -> usize {
        let inside = padded.abs_diff(self.reach());
        if padded > self.reach() && inside >= size {
            2 * (size - 1) - inside
        } else {
            inside
        }
    }
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let image = self.samples * self.h * self.w * self.c;
        let kernel = Spec::input("kernel", self.k * self.k).fill(Fill::Normal(1.0 / self.k as f64));
        let (to, from) = if self.backward {
            ("dx", "dy")
        } else {
            ("y", "x")
        };
        vec![Spec::out(to, image), Spec::input(from, image), kernel]
    }

    fn flops(&self) -> u64 {
        2 * (self.samples * self.h * self.w * self.c * self.k * self.k) as u64
    }
}

/// `y` from `x`.
pub static FORWARD: Op<Key> = Op {
    name: "filter2d.forward",
    variants: &[
        Variant::kernels("plain", plan).when(|key| key.dtype == DType::F32),
        Variant::native("taps", forward_taps::<f32>, forward_taps::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || cases(false),
};

/// `dx` from `dy`.
pub static VJP: Op<Key> = Op {
    name: "filter2d.vjp",
    variants: &[
        Variant::kernels("plain", plan).when(|key| key.dtype == DType::F32),
        Variant::native("taps", vjp_taps::<f32>, vjp_taps::<f64>),
        Variant::native("plain", vjp_plain::<f32>, vjp_plain::<f64>),
    ],
    cases: || cases(true),
};

fn cases(backward: bool) -> Vec<Key> {
    let sizes = [
        (1, 1, 1, 1, 1),
        (2, 7, 5, 3, 3),
        (3, 2, 31, 3, 3),
        (1, 9, 8, 4, 15),
        (1, 5, 8, 3, 9),
        (2, 33, 20, 3, 9),
    ];
    let key = |(samples, h, w, c, k)| Key {
        dtype: DType::F32,
        samples,
        h,
        w,
        c,
        k,
        backward,
    };
    sizes.into_iter().map(key).collect()
}

fn plan(key: &Key) -> Plan {
    let module = if key.backward {
        "filter2d/vjp_1_plain"
    } else {
        "filter2d/fwd_1_plain"
    };
    let len = key.samples * key.h * key.w * key.c;
    Launch::each(module, key.dtype, len)
        .ints([len, key.h, key.w, key.c, key.k])
        .into()
}

/// `y` from `x: [n, h, w, c]` and `kernel: [k, k]`, the same filter for all channels.
///
/// # Errors
/// [`Error::Shape`] when the kernel is not square and odd, or reaches past a whole image.
pub fn forward(cx: &Cx, x: &Tensor, kernel: &Tensor) -> Result<Tensor> {
    let key = key(cx, x, kernel, false)?;
    let y = cx.empty(x.shape())?;
    FORWARD.launch(cx, &key, &[Arg::Out(&y), Arg::In(x), Arg::In(kernel)])?;
    Ok(y)
}

/// The cotangent of `x`.
///
/// # Errors
/// As [`forward`].
pub fn vjp(cx: &Cx, kernel: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let key = key(cx, dy, kernel, true)?;
    let dx = cx.empty(dy.shape())?;
    VJP.launch(cx, &key, &[Arg::Out(&dx), Arg::In(dy), Arg::In(kernel)])?;
    Ok(dx)
}

fn key(cx: &Cx, x: &Tensor, kernel: &Tensor, backward: bool) -> Result<Key> {
    let k = match *kernel.dims() {
        [k, across] if k == across && k % 2 == 1 => k,
        _ => {
            let want = "[k, k] with k odd";
            return Err(Error::shape("filter2d, kernel", want, kernel.shape()));
        }
    };
    let [samples, h, w, c] = x.nhwc("filter2d")?;
    if h.min(w) <= k / 2 {
        let want = format!(
            "[n, h, w, c] with h and w of at least {} for a kernel of {k} x {k}",
            k / 2 + 1
        );
        return Err(Error::shape("filter2d", want, x.shape()));
    }
    x.expect_dtype("filter2d", cx.dtype())?;
    kernel.expect_dtype("filter2d, kernel", cx.dtype())?;
    Ok(Key {
        dtype: cx.dtype(),
        samples,
        h,
        w,
        c,
        k,
        backward,
    })
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x, kernel) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    for (i, y) in y.iter_mut().enumerate() {
        let (pixel, c) = (i / key.c, i % key.c);
        let (n, p, q) = (
            pixel / (key.h * key.w),
            pixel / key.w % key.h,
            pixel % key.w,
        );
        let mut sum = T::ZERO;
        for u in 0..key.k {
            for v in 0..key.k {
                let (row, col) = (key.source(p + u, key.h), key.source(q + v, key.w));
                sum += kernel[u * key.k + v] * x[((n * key.h + row) * key.w + col) * key.c + c];
            }
        }
        *y = sum;
    }
}

fn vjp_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, kernel) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    dx.fill(T::ZERO);
    for (i, &dy) in dy.iter().enumerate() {
        let (pixel, c) = (i / key.c, i % key.c);
        let (n, p, q) = (
            pixel / (key.h * key.w),
            pixel / key.w % key.h,
            pixel % key.w,
        );
        for u in 0..key.k {
            for v in 0..key.k {
                let (row, col) = (key.source(p + u, key.h), key.source(q + v, key.w));
                dx[((n * key.h + row) * key.w + col) * key.c + c] += kernel[u * key.k + v] * dy;
            }
        }
    }
}

/// `y += a x`.
#[inline(always)]
fn add_scaled<T: Real>(y: &mut [T], a: T, x: &[T]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += a * x);
}

/// One row of the result after another: each tap adds a shifted row of the padded image. Taps of
/// weight zero, most of a motion blur's, are left out.
fn forward_taps<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x, kernel) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (row, padded) = (key.w * key.c, key.padded() * key.c);
    let sample = (key.h * row).max(1);
    for (y, x) in y.chunks_exact_mut(sample).zip(x.chunks_exact(sample)) {
        let mut wider = vec![T::ZERO; key.h * padded];
        let rows = wider.par_chunks_mut(padded).zip(x.par_chunks(row));
        rows.for_each(|(wider, x)| {
            for (q, pixel) in wider.chunks_exact_mut(key.c).enumerate() {
                pixel.copy_from_slice(&x[key.source(q, key.w) * key.c..][..key.c]);
            }
        });
        y.par_chunks_mut(row).enumerate().for_each(|(p, y)| {
            wide(|| {
                y.fill(T::ZERO);
                for (u, taps) in kernel.chunks_exact(key.k).enumerate() {
                    let x = &wider[key.source(p + u, key.h) * padded..][..padded];
                    for (v, &tap) in taps.iter().enumerate().filter(|tap| *tap.1 != T::ZERO) {
                        add_scaled(y, tap, &x[v * key.c..][..row]);
                    }
                }
            });
        });
    }
}

/// One row of the result after another: the rows of the padded cotangent that it was shown as are
/// gathered into one, which is then folded.
fn vjp_taps<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, kernel) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (row, padded) = (key.w * key.c, key.padded() * key.c);
    let sample = (key.h * row).max(1);
    for (dx, dy) in dx.chunks_exact_mut(sample).zip(dy.chunks_exact(sample)) {
        dx.par_chunks_mut(row).enumerate().for_each(|(p, dx)| {
            let mut wider = vec![T::ZERO; padded];
            let shown = 0..key.h + 2 * key.reach();
            for shown in shown.filter(|&shown| key.source(shown, key.h) == p) {
                gather_row(key, &mut wider, dy, kernel, shown);
            }
            dx.fill(T::ZERO);
            for (q, pixel) in wider.chunks_exact(key.c).enumerate() {
                let dx = &mut dx[key.source(q, key.w) * key.c..][..key.c];
                add_scaled(dx, T::ONE, pixel);
            }
        });
    }
}

/// Adds row `shown` of the padded cotangent.
#[inline(always)]
fn gather_row<T: Real>(key: &Key, wider: &mut [T], dy: &[T], kernel: &[T], shown: usize) {
    let row = key.w * key.c;
    wide(|| {
        for (u, taps) in kernel.chunks_exact(key.k).enumerate() {
            let Some(p) = shown.checked_sub(u).filter(|p| *p < key.h) else {
                continue;
            };
            let dy = &dy[p * row..][..row];
            for (v, &tap) in taps.iter().enumerate().filter(|tap| *tap.1 != T::ZERO) {
                add_scaled(&mut wider[v * key.c..][..row], tap, dy);
            }
        }
    });
}
