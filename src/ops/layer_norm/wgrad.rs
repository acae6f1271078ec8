//! The gradients of the affine parameters: `dw = sum of dy xhat`, `db = sum of dy`, over all rows.

use super::Saved;
use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::columns::{self, Cut, tiles};
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan, Ptr};
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch over `rows` rows of `c`, of all samples.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    rows: usize,
    c: usize,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let (x, rows) = (self.rows * self.c, self.rows);
        vec![
            Spec::out("dw", self.c).wide(),
            Spec::out("db", self.c).wide(),
            Spec::input("dy", x),
            Spec::input("x", x),
            Spec::input("mean", rows).fill(Fill::Normal(0.1)).wide(),
            Spec::input("rstd", rows).fill(Fill::Positive).wide(),
        ]
    }

    fn flops(&self) -> u64 {
        5 * (self.rows * self.c) as u64
    }
}

/// `dw, db` from `dy`.
pub static WGRAD: Op<Key> = Op {
    name: "layer_norm.wgrad",
    variants: &[
        Variant::kernels("chunks", chunks).when(|key| key.c.is_multiple_of(key.dtype.pack())),
        Variant::kernels("plain", |key| {
            Launch::new("layer_norm/wgrad_1_plain", key.dtype, [key.c, 1, 1], 256)
                .ints([key.rows, key.c])
                .into()
        }),
        Variant::native("blocks", wgrad_blocks::<f32>, wgrad_blocks::<f64>),
        Variant::native("plain", wgrad_plain::<f32>, wgrad_plain::<f64>),
    ],
    cases: || {
        let key = |(rows, c)| Key {
            dtype: DType::F32,
            rows,
            c,
        };
        let sizes = [
            (1, 2),
            (31, 33),
            (77, 31),
            (600, 40),
            (131, 320),
            (5, 8),
            (3, 1280),
            (2_100, 8),
        ];
        sizes.map(key).to_vec()
    },
};

fn chunks(key: &Key) -> Plan {
    const MODULE: &str = "layer_norm/wgrad_2_chunks";
    let cut = Cut::of(1, key.rows);
    let grid = [cut.chunks, tiles(key.c, key.dtype.pack()), 1];
    let [dy, x, mean, rstd] = [2, 3, 4, 5].map(Ptr::Arg);
    let sums = Launch::new(MODULE, key.dtype, grid, 256)
        .part("part")
        .pointers([Ptr::Scratch(0), dy, x, mean, rstd])
        .ints([key.rows, key.c, cut.chunk]);
    columns::fold_two(MODULE, cut.chunks, key.c, sums)
}

/// The gradients `(dw, db)` of scale and shift, each `[c]` and f32 (f64 in a run of f64).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `dy` is not of `x`'s shape.
pub fn wgrad(cx: &Cx, saved: &Saved, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    let x = saved.input()?;
    dy.expect_shape("layer_norm.wgrad", x.shape())?;
    let c = x.shape().channels();
    let key = Key {
        dtype: x.dtype(),
        rows: x.shape().elements() / c,
        c,
    };
    let (dw, db) = (cx.empty_wide([c])?, cx.empty_wide([c])?);
    let args = [
        Arg::Out(&dw),
        Arg::Out(&db),
        Arg::In(dy),
        Arg::In(x),
        Arg::In(saved.mean.get()?),
        Arg::In(saved.rstd.get()?),
    ];
    WGRAD.launch(cx, &key, &args)?;
    Ok((dw, db))
}

fn wgrad_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dw, db) = (args.output::<T>(0), args.output::<T>(1));
    let (dy, x) = (args.input::<T>(2), args.input::<T>(3));
    let (mean, rstd) = (args.input::<T>(4), args.input::<T>(5));
    for c in 0..key.c {
        let dy = |row: usize| dy[row * key.c + c];
        let xhat = |row: usize| (x[row * key.c + c] - mean[row]) * rstd[row];
        dw[c] = (0..key.rows).map(|row| dy(row) * xhat(row)).sum();
        db[c] = (0..key.rows).map(dy).sum();
    }
}

fn wgrad_blocks<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dw, db) = (args.output::<T>(0), args.output::<T>(1));
    let (dy, x) = (args.input::<T>(2), args.input::<T>(3));
    let (mean, rstd) = (args.input::<T>(4), args.input::<T>(5));
    let c = key.c;
    let sums = columns::sums(
        [1, key.rows, c],
        2 * c,
        #[inline(always)]
        |_, rows, sums: &mut [T]| {
            let (product, sum) = sums.split_at_mut(c);
            let (product, sum) = (&mut product[..c], &mut sum[..c]);
            for row in rows {
                let (x, dy) = (&x[row * c..][..c], &dy[row * c..][..c]);
                let (mu, r) = (mean[row], rstd[row]);
                for i in 0..c {
                    product[i] += dy[i] * ((x[i] - mu) * r);
                    sum[i] += dy[i];
                }
            }
        },
    );
    for (to, sum) in dw.iter_mut().chain(db).zip(sums) {
        *to = T::of(sum);
    }
}
