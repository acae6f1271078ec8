//! Lookup: `y[n] = table[r]` for the row r where `times[r] = t[n]`, and NaN where there is none.
//!
//! `y: [n, c]`, `t: [n]`, `times: [rows]`, all different, `table: [rows, c]`. What depends on the noise level
//! alone is computed once for all levels of a run; a step then reads its row, by a `t` that lives on the device.

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::Launch;
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    n: usize,
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
        vec![
            Spec::out("y", self.n * self.c),
            Spec::input("t", self.n).wide().fill(Fill::Counts),
            Spec::input("times", self.rows).wide().fill(Fill::Counts),
            Spec::input("table", self.rows * self.c),
        ]
    }

    fn flops(&self) -> u64 {
        0
    }
}

/// `y` from `t`, `times` and the table.
pub static FORWARD: Op<Key> = Op {
    name: "lookup.forward",
    variants: &[
        Variant::kernels("plain", |key| {
            Launch::new("lookup/fwd_1_plain", key.dtype, [key.n, 1, 1], 256)
                .ints([key.rows, key.c])
                .into()
        }),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || {
        let key = |(n, rows, c)| Key {
            dtype: DType::F32,
            n,
            rows,
            c,
        };
        [(1, 1, 1), (3, 5, 31), (2, 500, 320), (7, 7, 8)]
            .map(key)
            .to_vec()
    },
};

/// `y: [n, c]`.
///
/// # Errors
/// [`Error::Shape`] when `t` is not `[n]`, or the table has not one row for each of `times`.
pub fn forward(cx: &Cx, t: &Tensor, times: &Tensor, table: &Tensor) -> Result<Tensor> {
    let (n, rows) = (t.shape().elements(), times.shape().elements());
    let [have, c] = *table.dims() else {
        return Err(Error::shape("lookup, table", "[rows, c]", table.shape()));
    };
    if have != rows {
        return Err(Error::shape(
            "lookup, table",
            [rows, c].map(|d| d.to_string()).join(" x "),
            table.shape(),
        ));
    }
    let key = Key {
        dtype: table.dtype(),
        n,
        rows,
        c,
    };
    let y = cx.empty([n, c])?;
    let args = [Arg::Out(&y), Arg::In(t), Arg::In(times), Arg::In(table)];
    FORWARD.launch(cx, &key, &args)?;
    Ok(y)
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, t) = (args.output::<T>(0), args.input::<T>(1));
    let (times, table) = (args.input::<T>(2), args.input::<T>(3));
    for (y, t) in y.chunks_exact_mut(key.c).zip(t) {
        match times.iter().position(|time| time == t) {
            Some(r) => y.copy_from_slice(&table[r * key.c..][..key.c]),
            None => y.fill(T::of(f64::NAN)),
        }
    }
}
