//! `y[g] = sum over r of x[g, r]`, of rows of `c`: over all rows for the gradient of a bias, over each sample's for
//! that of a shift.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::columns::{self, Cut, tiles};
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan, Ptr};
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch: `x: [groups, rows, c]`, `y: [groups, c]`.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    groups: usize,
    rows: usize,
    c: usize,
    /// Whether `y` is in f32 beside 16-bit activations.
    wide: bool,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let y = Spec::out("y", self.groups * self.c);
        let x = Spec::input("x", self.groups * self.rows * self.c);
        vec![if self.wide { y.wide() } else { y }, x]
    }

    fn flops(&self) -> u64 {
        (self.groups * self.rows * self.c) as u64
    }
}

/// `y` from `x`.
pub static ROWS: Op<Key> = Op {
    name: "sum.rows",
    variants: &[
        Variant::kernels("chunks", chunks),
        Variant::kernels("plain", |key| {
            let part = if key.wide { "wide" } else { "same" };
            Launch::new("sum/rows_1_plain", key.dtype, [key.c, key.groups, 1], 256)
                .part(part)
                .ints([key.rows, key.c])
                .into()
        }),
        Variant::native("blocks", sum_blocks::<f32>, sum_blocks::<f64>),
        Variant::native("plain", sum_plain::<f32>, sum_plain::<f64>),
    ],
    cases,
};

fn cases() -> Vec<Key> {
    let sizes = [
        (1, 1, 1),
        (1, 1_031, 3),
        (3, 77, 33),
        (2, 300, 40),
        (5, 9, 320),
        (1, 2_100, 64),
        (2, 131, 200),
        (1, 40_001, 1),
    ];
    let key = |(i, (groups, rows, c)): (usize, (usize, usize, usize))| Key {
        dtype: DType::F32,
        groups,
        rows,
        c,
        wide: i % 2 == 1,
    };
    sizes.into_iter().enumerate().map(key).collect()
}

/// Chunks of rows, cut by a group's sizes; then the sums of all chunks of a group, which make one chunk.
fn chunks(key: &Key) -> Plan {
    let cut = Cut::of(1, key.rows);
    let sums = Ptr::Scratch(0);
    let launch = |part, dtype, width, rows, cut: Cut, pointers| {
        let grid = [cut.chunks, tiles(key.c, width), key.groups];
        Launch::new("sum/rows_2_chunks", dtype, grid, 256)
            .part(part)
            .pointers(pointers)
            .ints([rows, key.c, cut.chunk])
    };
    let (part, width) = match key.dtype.pack() {
        pack if key.c.is_multiple_of(pack) => ("packs", pack),
        _ => ("ones", 1),
    };
    let (last, dtype) = match key.wide {
        false if key.dtype.is_half() => ("narrow", key.dtype),
        _ => ("ones", DType::F32),
    };
    let one = Cut {
        chunk: cut.chunks,
        chunks: 1,
    };
    Plan {
        launches: vec![
            launch(part, key.dtype, width, key.rows, cut, [sums, Ptr::Arg(1)]),
            launch(last, dtype, 1, cut.chunks, one, [Ptr::Arg(0), sums]),
        ],
        scratch: key.groups * cut.chunks * key.c * size_of::<f32>(),
    }
}

/// The sum of `x: [n, .., c]` over all but the last dimension: `[c]`, in f32 whatever `x` is (f64 when that is).
///
/// # Errors
/// [`Error::Shape`] when `x` is empty, [`Error::Plan`] when there is no room.
pub fn over_rows(cx: &Cx, x: &Tensor) -> Result<Tensor> {
    let key = key(x, 1, true)?;
    let y = cx.empty_in(key.dtype.wide(), [key.c])?;
    ROWS.launch(cx, &key, &[Arg::Out(&y), Arg::In(x)])?;
    Ok(y)
}

/// The sum of each sample of `x: [n, .., c]` over all but the last dimension: `[n, c]`, in `x`'s type.
///
/// # Errors
/// [`Error::Shape`] when `x` is empty, [`Error::Plan`] when there is no room.
pub fn per_sample(cx: &Cx, x: &Tensor) -> Result<Tensor> {
    let key = key(x, x.shape().samples(), false)?;
    let y = cx.empty_in(key.dtype, [key.groups, key.c])?;
    ROWS.launch(cx, &key, &[Arg::Out(&y), Arg::In(x)])?;
    Ok(y)
}

fn key(x: &Tensor, groups: usize, wide: bool) -> Result<Key> {
    let (all, c) = (x.shape().elements(), x.shape().channels());
    if all == 0 || x.dims().len() < 2 {
        let want = "[n, .., c] with elements to add up";
        return Err(Error::shape("sum", want, x.shape()));
    }
    Ok(Key {
        dtype: x.dtype(),
        groups,
        rows: all / (groups * c),
        c,
        wide,
    })
}

fn sum_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    for (i, y) in y.iter_mut().enumerate() {
        let (g, c) = (i / key.c, i % key.c);
        let at = |r: usize| x[(g * key.rows + r) * key.c + c];
        *y = (0..key.rows).map(at).sum();
    }
}

fn sum_blocks<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x) = (args.output::<T>(0), args.input::<T>(1));
    let (rows, c) = (key.rows, key.c);
    y.par_chunks_mut(c)
        .zip(x.par_chunks(rows * c))
        .for_each(|(y, x)| {
            let sums = columns::sums(
                [1, rows, c],
                c,
                #[inline(always)]
                |_, rows, sums: &mut [T]| {
                    for row in x[rows.start * c..rows.end * c].chunks_exact(c) {
                        sums.iter_mut().zip(row).for_each(|(s, &x)| *s += x);
                    }
                },
            );
            y.iter_mut().zip(sums).for_each(|(y, s)| *y = T::of(s));
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of x[i] = i, whose sums are whole numbers below 2^24: exact in f32 too.
    #[test]
    fn of_consecutive_numbers() -> Result<()> {
        let cx = Cx::native();
        let (n, rows, c) = (3, 300, 20);
        let x: Vec<f32> = (0..n * rows * c).map(|i| i as f32).collect();
        let x = cx.upload(&x, [n, 30, 10, c])?;
        let column = |first: usize, rows: usize, j: usize| {
            (rows * (first * c + j) + c * rows * (rows - 1) / 2) as f32
        };
        let all = over_rows(&cx, &x)?.to_vec::<f32>()?;
        let want: Vec<f32> = (0..c).map(|j| column(0, n * rows, j)).collect();
        assert_eq!(all, want);
        let each = per_sample(&cx, &x)?;
        assert_eq!(each.dims(), [n, c]);
        let want = (0..n * c).map(|i| column(i / c * rows, rows, i % c));
        assert_eq!(each.to_vec::<f32>()?, want.collect::<Vec<f32>>());
        Ok(())
    }

    #[test]
    fn a_vector_has_no_rows() -> Result<()> {
        let cx = Cx::native();
        let x = cx.upload(&[1.0f32, 2.0], [2])?;
        assert!(matches!(over_rows(&cx, &x), Err(Error::Shape { .. })));
        Ok(())
    }
}
