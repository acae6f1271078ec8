//! Concat: `y = [a, b]` along the last dimension. Backward splits `dy` again.
//!
//! `a: [.., ca]`, `b: [.., cb]`, `y: [.., ca + cb]`.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch over `rows` rows.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    rows: usize,
    ca: usize,
    cb: usize,
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
        let (a, b) = (self.rows * self.ca, self.rows * self.cb);
        if self.backward {
            return vec![
                Spec::out("da", a),
                Spec::out("db", b),
                Spec::input("dy", a + b),
            ];
        }
        vec![
            Spec::out("y", a + b),
            Spec::input("a", a),
            Spec::input("b", b),
        ]
    }

    fn flops(&self) -> u64 {
        0
    }
}

/// `y` from `a, b`.
pub static FORWARD: Op<Key> = Op {
    name: "concat.forward",
    variants: &[
        Variant::kernels("vector", |key| vector("concat/fwd_2_vector", key)).when(packed),
        Variant::kernels("plain", |key| {
            Launch::each(
                "concat/fwd_1_plain",
                key.dtype,
                key.rows * (key.ca + key.cb),
            )
            .ints([key.rows, key.ca, key.cb])
            .into()
        }),
        Variant::native("rows", forward_rows::<f32>, forward_rows::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || cases(false),
};

/// `da, db` from `dy`.
pub static VJP: Op<Key> = Op {
    name: "concat.vjp",
    variants: &[
        Variant::kernels("vector", |key| vector("concat/vjp_2_vector", key)).when(packed),
        Variant::kernels("plain", |key| {
            Launch::each(
                "concat/vjp_1_plain",
                key.dtype,
                key.rows * (key.ca + key.cb),
            )
            .ints([key.rows, key.ca, key.cb])
            .into()
        }),
        Variant::native("rows", vjp_rows::<f32>, vjp_rows::<f64>),
        Variant::native("plain", vjp_plain::<f32>, vjp_plain::<f64>),
    ],
    cases: || cases(true),
};

/// A thread for every 16 bytes of `y`.
fn vector(module: &'static str, key: &Key) -> Plan {
    let (ca, cb) = (key.ca / key.dtype.pack(), key.cb / key.dtype.pack());
    let packs = key.rows * (ca + cb);
    let launch = Launch::each(module, key.dtype, packs);
    launch.ints([packs, ca, cb]).into()
}

/// Whether rows are whole 16 bytes, so that each is aligned.
fn packed(key: &Key) -> bool {
    [key.ca, key.cb].map(|c| c % key.dtype.pack()) == [0, 0]
}

fn cases(backward: bool) -> Vec<Key> {
    let key = |(rows, ca, cb)| Key {
        dtype: DType::F32,
        rows,
        ca,
        cb,
        backward,
    };
    [
        (1, 1, 1),
        (31, 33, 1),
        (77, 31, 64),
        (113 * 3, 203, 77),
        (33, 24, 40),
    ]
    .map(key)
    .to_vec()
}

/// `y: [.., ca + cb]` from `a: [.., ca]` and `b: [.., cb]`.
///
/// # Errors
/// [`Error::Shape`] when the other dimensions differ.
pub fn forward(cx: &Cx, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (ca, cb) = (a.shape().channels(), b.shape().channels());
    b.expect_shape("concat", a.shape().with_channels(cb))?;
    let key = key(a, ca, ca, cb, false)?;
    let y = cx.empty(a.shape().with_channels(ca + cb))?;
    FORWARD.launch(cx, &key, &[Arg::Out(&y), Arg::In(a), Arg::In(b)])?;
    Ok(y)
}

/// `da: [.., ca]` and `db` from `dy: [.., ca + cb]`.
///
/// # Errors
/// [`Error::Shape`] when `dy` has no more than `ca` channels.
pub fn vjp(cx: &Cx, dy: &Tensor, ca: usize) -> Result<(Tensor, Tensor)> {
    let c = dy.shape().channels();
    let Some(cb) = c.checked_sub(ca) else {
        let want = format!("[.., more than {ca}]");
        return Err(Error::shape("concat.vjp", want, dy.shape()));
    };
    let key = key(dy, c, ca, cb, true)?;
    let da = cx.empty(dy.shape().with_channels(ca))?;
    let db = cx.empty(dy.shape().with_channels(cb))?;
    VJP.launch(cx, &key, &[Arg::Out(&da), Arg::Out(&db), Arg::In(dy)])?;
    Ok((da, db))
}

/// The key of a launch with a tensor of `c` channels on one side.
fn key(x: &Tensor, c: usize, ca: usize, cb: usize, backward: bool) -> Result<Key> {
    if ca == 0 || cb == 0 || x.dims().is_empty() {
        let want = "channels on both sides";
        return Err(Error::shape("concat", want, format!("{ca} and {cb}")));
    }
    Ok(Key {
        dtype: x.dtype(),
        rows: x.shape().elements() / c,
        ca,
        cb,
        backward,
    })
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, a, b) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (ca, cb) = (key.ca, key.cb);
    for (i, y) in y.iter_mut().enumerate() {
        let (row, c) = (i / (ca + cb), i % (ca + cb));
        *y = if c < ca {
            a[row * ca + c]
        } else {
            b[row * cb + c - ca]
        };
    }
}

fn vjp_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (da, db, dy) = (args.output::<T>(0), args.output::<T>(1), args.input::<T>(2));
    let (ca, cb) = (key.ca, key.cb);
    for (i, &dy) in dy.iter().enumerate() {
        let (row, c) = (i / (ca + cb), i % (ca + cb));
        if c < ca {
            da[row * ca + c] = dy;
        } else {
            db[row * cb + c - ca] = dy;
        }
    }
}

/// Rows of one task.
fn block(key: &Key) -> usize {
    ((1 << 14) / (key.ca + key.cb)).max(1)
}

fn forward_rows<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, a, b) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (rows, ca, cb) = (block(key), key.ca, key.cb);
    y.par_chunks_mut(rows * (ca + cb))
        .zip(a.par_chunks(rows * ca).zip(b.par_chunks(rows * cb)))
        .for_each(|(y, (a, b))| {
            let parts = a.chunks_exact(ca).zip(b.chunks_exact(cb));
            for (y, (a, b)) in y.chunks_exact_mut(ca + cb).zip(parts) {
                y[..ca].copy_from_slice(a);
                y[ca..].copy_from_slice(b);
            }
        });
}

fn vjp_rows<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (da, db, dy) = (args.output::<T>(0), args.output::<T>(1), args.input::<T>(2));
    let (rows, ca, cb) = (block(key), key.ca, key.cb);
    da.par_chunks_mut(rows * ca)
        .zip(db.par_chunks_mut(rows * cb))
        .zip(dy.par_chunks(rows * (ca + cb)))
        .for_each(|((da, db), dy)| {
            let parts = da.chunks_exact_mut(ca).zip(db.chunks_exact_mut(cb));
            for ((da, db), dy) in parts.zip(dy.chunks_exact(ca + cb)) {
                da.copy_from_slice(&dy[..ca]);
                db.copy_from_slice(&dy[ca..]);
            }
        });
}
