//! Upsample: nearest neighbour, twice as high and wide: `y[i, j] = x[i / 2, j / 2]`.
//!
//! `x: [n, h, w, c]`, `y: [n, 2h, 2w, c]`. Backward: each pixel gets the sum of its four copies.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::wide;
use crate::tensor::Tensor;

/// One launch: `rows` image rows (of all samples) of `w` pixels of `c` channels, in the small image.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    rows: usize,
    w: usize,
    c: usize,
    backward: bool,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let small = self.rows * self.w * self.c;
        if self.backward {
            return vec![Spec::out("dx", small), Spec::input("dy", 4 * small)];
        }
        vec![Spec::out("y", 4 * small), Spec::input("x", small)]
    }

    fn flops(&self) -> u64 {
        let per_element = if self.backward { 3 } else { 0 };
        per_element * (self.rows * self.w * self.c) as u64
    }
}

/// `y` from `x`.
pub static FORWARD: Op<Key> = Op {
    name: "upsample.forward",
    variants: &[
        Variant::kernels("vector", |key| vector("upsample/fwd_2_vector", key)).when(packed),
        Variant::kernels("plain", |key| {
            Launch::each(
                "upsample/fwd_1_plain",
                key.dtype,
                4 * key.rows * key.w * key.c,
            )
            .ints([key.rows, key.w, key.c])
            .into()
        }),
        Variant::native("rows", forward_rows::<f32>, forward_rows::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || cases(false),
};

/// `dx` from `dy`.
pub static VJP: Op<Key> = Op {
    name: "upsample.vjp",
    variants: &[
        Variant::kernels("vector", |key| vector("upsample/vjp_2_vector", key)).when(packed),
        Variant::kernels("plain", |key| {
            Launch::each("upsample/vjp_1_plain", key.dtype, key.rows * key.w * key.c)
                .ints([key.rows, key.w, key.c])
                .into()
        }),
        Variant::native("rows", vjp_rows::<f32>, vjp_rows::<f64>),
        Variant::native("plain", vjp_plain::<f32>, vjp_plain::<f64>),
    ],
    cases: || cases(true),
};

/// A thread for every 16 bytes of `x`.
fn vector(module: &'static str, key: &Key) -> Plan {
    let c = key.c / key.dtype.pack();
    let packs = key.rows * key.w * c;
    let launch = Launch::each(module, key.dtype, packs);
    launch.ints([packs, key.w, c]).into()
}

/// Whether pixels are whole 16 bytes, so that each is aligned.
fn packed(key: &Key) -> bool {
    key.c.is_multiple_of(key.dtype.pack())
}

fn cases(backward: bool) -> Vec<Key> {
    let key = |(rows, w, c)| Key {
        dtype: DType::F32,
        rows,
        w,
        c,
        backward,
    };
    [(1, 1, 1), (7, 5, 31), (31, 33, 3), (2, 77, 33), (6, 5, 40)]
        .map(key)
        .to_vec()
}

/// `y: [n, 2h, 2w, c]` from `x: [n, h, w, c]`.
///
/// # Errors
/// [`Error::Shape`] when `x` is not an image.
pub fn forward(cx: &Cx, x: &Tensor) -> Result<Tensor> {
    let [n, h, w, c] = x.nhwc("upsample")?;
    let key = Key {
        dtype: x.dtype(),
        rows: n * h,
        w,
        c,
        backward: false,
    };
    let y = cx.empty([n, 2 * h, 2 * w, c])?;
    FORWARD.launch(cx, &key, &[Arg::Out(&y), Arg::In(x)])?;
    Ok(y)
}

/// `dx: [n, h, w, c]` from `dy: [n, 2h, 2w, c]`.
///
/// # Errors
/// [`Error::Shape`] when `dy` is not an image of even height and width.
pub fn vjp(cx: &Cx, dy: &Tensor) -> Result<Tensor> {
    let [n, h, w, c] = dy.nhwc("upsample.vjp")?;
    if !h.is_multiple_of(2) || !w.is_multiple_of(2) {
        return Err(Error::shape("upsample.vjp", "[n, 2h, 2w, c]", dy.shape()));
    }
    let key = Key {
        dtype: dy.dtype(),
        rows: n * (h / 2),
        w: w / 2,
        c,
        backward: true,
    };
    let dx = cx.empty([n, h / 2, w / 2, c])?;
    VJP.launch(cx, &key, &[Arg::Out(&dx), Arg::In(dy)])?;
    Ok(dx)
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    let (w, c) = (key.w, key.c);
    for (i, y) in y.iter_mut().enumerate() {
        let (row, col) = (i / c / (2 * w), i / c % (2 * w));
        *y = x[(row / 2 * w + col / 2) * c + i % c];
    }
}

fn vjp_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy) = (args.output::<T>(0), args.input::<T>(1));
    let (w, c) = (key.w, key.c);
    for (i, dx) in dx.iter_mut().enumerate() {
        let (row, col) = (i / c / w, i / c % w);
        let at = |r: usize, q: usize| dy[((2 * row + r) * 2 * w + 2 * col + q) * c + i % c];
        *dx = at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1);
    }
}

fn forward_rows<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    let (w, c) = (key.w, key.c);
    y.par_chunks_mut(4 * w * c)
        .zip(x.par_chunks(w * c))
        .for_each(|(y, x)| {
            let (above, below) = y.split_at_mut(2 * w * c);
            for (y, x) in above.chunks_exact_mut(2 * c).zip(x.chunks_exact(c)) {
                y[..c].copy_from_slice(x);
                y[c..].copy_from_slice(x);
            }
            below.copy_from_slice(above);
        });
}

fn vjp_rows<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy) = (args.output::<T>(0), args.input::<T>(1));
    let (w, c) = (key.w, key.c);
    dx.par_chunks_mut(w * c)
        .zip(dy.par_chunks(4 * w * c))
        .for_each(|(dx, dy)| {
            let (above, below) = dy.split_at(2 * w * c);
            let pairs = above.chunks_exact(2 * c).zip(below.chunks_exact(2 * c));
            wide(
                #[inline(always)]
                || {
                    for (dx, (above, below)) in dx.chunks_exact_mut(c).zip(pairs) {
                        let ((a, b), (p, q)) = (above.split_at(c), below.split_at(c));
                        for i in 0..c {
                            dx[i] = a[i] + b[i] + p[i] + q[i];
                        }
                    }
                },
            );
        });
}
