//! The gradients of the affine parameters: `dw = sum of du xhat`, `db = sum of du`, over all samples and pixels, with
//! `du = dy`, or `dy` times the slope of SiLU at `u = xhat w + b`.

use super::{Params, Saved};
use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::columns::{self, Cut, tiles};
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan, Ptr};
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    pixels: usize,
    c: usize,
    groups: usize,
    silu: bool,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let (x, stats) = (
            self.samples * self.pixels * self.c,
            self.samples * self.groups,
        );
        vec![
            Spec::out("dw", self.c).wide(),
            Spec::out("db", self.c).wide(),
            Spec::input("dy", x),
            Spec::input("x", x),
            Spec::input("mean", stats).fill(Fill::Normal(0.1)).wide(),
            Spec::input("rstd", stats).fill(Fill::Positive).wide(),
            Spec::input("w", self.c).fill(Fill::Positive).wide(),
            Spec::input("b", self.c).wide(),
        ]
    }

    fn flops(&self) -> u64 {
        let per_element = if self.silu { 17 } else { 5 };
        per_element * (self.samples * self.pixels * self.c) as u64
    }
}

/// `dw, db` from `dy`.
pub static WGRAD: Op<Key> = Op {
    name: "group_norm.wgrad",
    variants: &[
        Variant::kernels("chunks", chunks).when(|key| key.c.is_multiple_of(key.dtype.pack())),
        Variant::kernels("plain", |key| {
            let sizes = [key.samples, key.pixels, key.c, key.groups];
            Launch::new("group_norm/wgrad_1_plain", key.dtype, [key.c, 1, 1], 256)
                .ints(sizes)
                .ints([usize::from(key.silu)])
                .into()
        }),
        Variant::native("blocks", wgrad_blocks::<f32>, wgrad_blocks::<f64>),
        Variant::native("plain", wgrad_plain::<f32>, wgrad_plain::<f64>),
    ],
    cases,
};

fn cases() -> Vec<Key> {
    let sizes = [
        (1, 1, 2, 1),
        (2, 31, 30, 1),
        (3, 77, 24, 24),
        (2, 300, 40, 8),
        (3, 131, 320, 32),
        (1, 70, 8, 8),
        (1, 2_100, 8, 2),
        (2, 33, 264, 8),
        (300, 3, 16, 2),
    ];
    let key = |(i, (samples, pixels, c, groups)): (usize, (usize, usize, usize, usize))| Key {
        dtype: DType::F32,
        samples,
        pixels,
        c,
        groups,
        silu: i % 2 == 1,
    };
    sizes.into_iter().enumerate().map(key).collect()
}

fn chunks(key: &Key) -> Plan {
    const MODULE: &str = "group_norm/wgrad_2_chunks";
    let cut = Cut::of(key.samples, key.pixels);
    let grid = [cut.chunks, tiles(key.c, key.dtype.pack()), key.samples];
    let [dy, x, mean, rstd, w, b] = [2, 3, 4, 5, 6, 7].map(Ptr::Arg);
    let sums = Launch::new(MODULE, key.dtype, grid, 256)
        .part("part")
        .pointers([Ptr::Scratch(0), dy, x, mean, rstd, w, b])
        .ints([key.pixels, key.c, key.groups, usize::from(key.silu)])
        .ints([cut.chunk]);
    columns::fold_two(MODULE, key.samples * cut.chunks, key.c, sums)
}

/// The gradients `(dw, db)` of scale and shift, each `[c]` and f32 (f64 in a run of f64).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `dy` is not of `x`'s shape.
pub fn wgrad(cx: &Cx, saved: &Saved, p: Params<'_>, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    let x = saved.x.get()?;
    dy.expect_shape("group_norm.wgrad", x.shape())?;
    let super::Key {
        dtype,
        samples,
        pixels,
        c,
        groups,
        silu,
        ..
    } = super::key(x, p)?;
    let key = Key {
        dtype,
        samples,
        pixels,
        c,
        groups,
        silu,
    };
    let (dw, db) = (cx.empty_wide([c])?, cx.empty_wide([c])?);
    let args = [
        Arg::Out(&dw),
        Arg::Out(&db),
        Arg::In(dy),
        Arg::In(x),
        Arg::In(saved.mean.get()?),
        Arg::In(saved.rstd.get()?),
        Arg::In(p.w),
        Arg::In(p.b),
    ];
    WGRAD.launch(cx, &key, &args)?;
    Ok((dw, db))
}

fn wgrad_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dw, db) = (args.output::<T>(0), args.output::<T>(1));
    let (dy, x) = (args.input::<T>(2), args.input::<T>(3));
    let (mean, rstd) = (args.input::<T>(4), args.input::<T>(5));
    let (w, b) = (args.input::<T>(6), args.input::<T>(7));
    for c in 0..key.c {
        let (mut product, mut sum) = (T::ZERO, T::ZERO);
        for row in 0..key.samples * key.pixels {
            let group = row / key.pixels * key.groups + c * key.groups / key.c;
            let at = row * key.c + c;
            let xhat = (x[at] - mean[group]) * rstd[group];
            let du = if key.silu {
                dy[at] * (xhat * w[c] + b[c]).silu_slope()
            } else {
                dy[at]
            };
            product += du * xhat;
            sum += du;
        }
        (dw[c], db[c]) = (product, sum);
    }
}

fn wgrad_blocks<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dw, db) = (args.output::<T>(0), args.output::<T>(1));
    let (dy, x) = (args.input::<T>(2), args.input::<T>(3));
    let (mean, rstd) = (args.input::<T>(4), args.input::<T>(5));
    let (w, b) = (args.input::<T>(6), args.input::<T>(7));
    let (pixels, c, groups) = (key.pixels, key.c, key.groups);
    // Of each sample and channel.
    let spread = |of: &[T]| -> Vec<T> {
        let channels = of.chunks_exact(groups);
        let channels = channels.flat_map(|of| (0..c).map(|i| of[i * groups / c]));
        channels.collect()
    };
    let (mean, rstd) = (spread(mean), spread(rstd));
    let sums = columns::sums(
        [key.samples, pixels, c],
        2 * c,
        #[inline(always)]
        |sample, rows, sums: &mut [T]| {
            let part = (sample * pixels + rows.start) * c..(sample * pixels + rows.end) * c;
            let (x, dy) = (&x[part.clone()], &dy[part]);
            let (mean, rstd) = (&mean[sample * c..][..c], &rstd[sample * c..][..c]);
            let (w, b) = (&w[..c], &b[..c]);
            let (product, sum) = sums.split_at_mut(c);
            // Two loops: a choice in the innermost one keeps it from becoming a vector loop.
            if key.silu {
                add(product, sum, [x, dy], [mean, rstd], |dy, xhat, i| {
                    dy * (xhat * w[i] + b[i]).silu_slope()
                });
            } else {
                add(product, sum, [x, dy], [mean, rstd], |dy, _, _| dy);
            }
        },
    );
    for (to, sum) in dw.iter_mut().chain(db).zip(sums) {
        *to = T::of(sum);
    }
}

/// Adds the sums over pixels of `du xhat` and of `du`, where `du(dy, xhat, channel)`.
#[inline(always)]
fn add<T: Real>(
    product: &mut [T],
    sum: &mut [T],
    [x, dy]: [&[T]; 2],
    [mean, rstd]: [&[T]; 2],
    du: impl Fn(T, T, usize) -> T,
) {
    let c = mean.len();
    let (rstd, product, sum) = (&rstd[..c], &mut product[..c], &mut sum[..c]);
    for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
        for i in 0..c {
            let xhat = (x[i] - mean[i]) * rstd[i];
            let du = du(dy[i], xhat, i);
            product[i] += du * xhat;
            sum[i] += du;
        }
    }
}
