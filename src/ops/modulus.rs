//! Modulus: `y = |z + o| = sqrt(re^2 + im^2)` of complex numbers, real parts before imaginary ones in each line;
//! backward `dz = dy (z + o) / |z + o|`, 0 where that is 0.
//!
//! `z, dz: [n, lines, 2, inner]`, `y, dy: [n, lines, inner]`; the offset `o: [lines, 2, inner]` is the same for all
//! samples: the transform of what is the same in all images.

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch: `samples` times `lines` times `inner` complex numbers.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    lines: usize,
    inner: usize,
    backward: bool,
}

impl Key {
    /// The complex numbers of one sample.
    fn size(&self) -> usize {
        self.lines * self.inner
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
        let len = self.samples * self.size();
        let z = Spec::input("z", 2 * len);
        let o = Spec::input("o", 2 * self.size());
        match self.backward {
            true => vec![Spec::out("dz", 2 * len), Spec::input("dy", len), z, o],
            false => vec![Spec::out("y", len), z, o],
        }
    }

    fn flops(&self) -> u64 {
        let each = if self.backward { 9 } else { 6 };
        (each * self.samples * self.size()) as u64
    }
}

/// `y` from `z` and `o`.
pub static FORWARD: Op<Key> = Op {
    name: "modulus.forward",
    variants: &[
        Variant::kernels("plain", |key| plan("modulus/fwd_1_plain", key))
            .when(|key| key.dtype == DType::F32),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || cases(false),
};

/// `dz` from `dy`, `z` and `o`.
pub static VJP: Op<Key> = Op {
    name: "modulus.vjp",
    variants: &[
        Variant::kernels("plain", |key| plan("modulus/vjp_1_plain", key))
            .when(|key| key.dtype == DType::F32),
        Variant::native("plain", vjp_plain::<f32>, vjp_plain::<f64>),
    ],
    cases: || cases(true),
};

fn cases(backward: bool) -> Vec<Key> {
    let key = |(samples, lines, inner)| Key {
        dtype: DType::F32,
        samples,
        lines,
        inner,
        backward,
    };
    [(1, 1, 1), (2, 31, 33), (3, 8, 24), (1, 113, 203)]
        .map(key)
        .to_vec()
}

fn plan(module: &'static str, key: &Key) -> Plan {
    let len = key.samples * key.size();
    Launch::each(module, key.dtype, len)
        .ints([len, key.size(), key.inner])
        .into()
}

fn key(cx: &Cx, z: &Tensor, o: &Tensor, backward: bool) -> Result<Key> {
    let &[samples, lines, 2, inner] = z.dims() else {
        return Err(Error::shape("modulus", "[n, lines, 2, inner]", z.shape()));
    };
    o.expect_shape("modulus, o", [lines, 2, inner])?;
    z.expect_dtype("modulus", cx.dtype())?;
    o.expect_dtype("modulus, o", cx.dtype())?;
    Ok(Key {
        dtype: cx.dtype(),
        samples,
        lines,
        inner,
        backward,
    })
}

/// `y: [n, lines, inner]` from `z: [n, lines, 2, inner]` and `o: [lines, 2, inner]`.
///
/// # Errors
/// [`Error::Shape`] when `z` and `o` are not of these shapes, [`Error::DType`] when they are not of the samplers' type.
pub fn forward(cx: &Cx, z: &Tensor, o: &Tensor) -> Result<Tensor> {
    let key = key(cx, z, o, false)?;
    let y = cx.empty([key.samples, key.lines, key.inner])?;
    FORWARD.launch(cx, &key, &[Arg::Out(&y), Arg::In(z), Arg::In(o)])?;
    Ok(y)
}

/// `dz` of `z`'s shape.
///
/// # Errors
/// As [`forward`]; [`Error::Shape`] when `dy` is not of `y`'s shape.
pub fn vjp(cx: &Cx, z: &Tensor, o: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let key = key(cx, z, o, true)?;
    dy.expect_shape("modulus.vjp", [key.samples, key.lines, key.inner])?;
    let dz = cx.empty(z.shape())?;
    let args = [Arg::Out(&dz), Arg::In(dy), Arg::In(z), Arg::In(o)];
    VJP.launch(cx, &key, &args)?;
    Ok(dz)
}

/// Where the parts of complex number i lie: in `z`, and in `o`.
fn parts(key: &Key, i: usize) -> ([usize; 2], [usize; 2]) {
    let place = |i: usize| {
        let re = i / key.inner * 2 * key.inner + i % key.inner;
        [re, re + key.inner]
    };
    (place(i), place(i % key.size()))
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, z, o) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    for (i, y) in y.iter_mut().enumerate() {
        let (at, of) = parts(key, i);
        let [re, im] = [0, 1].map(|part| z[at[part]] + o[of[part]]);
        *y = (re * re + im * im).sqrt();
    }
}

fn vjp_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dz, dy) = (args.output::<T>(0), args.input::<T>(1));
    let (z, o) = (args.input::<T>(2), args.input::<T>(3));
    for (i, &dy) in dy.iter().enumerate() {
        let (at, of) = parts(key, i);
        let [re, im] = [0, 1].map(|part| z[at[part]] + o[of[part]]);
        let y = (re * re + im * im).sqrt();
        // A NaN stays.
        let slope = if y == T::ZERO { T::ZERO } else { dy / y };
        (dz[at[0]], dz[at[1]]) = (slope * re, slope * im);
    }
}
