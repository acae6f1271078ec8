//! Embeddings: of tokens, `y[n, t] = table[ids[n, t]] + positions[t]`, and of noise levels,
//! `y[n] = [sin(t f), cos(t f)]` with `f_i = 10000^(-i / (half - freq_shift))`, `half = dim / 2`.
//!
//! `ids: i32 [n, t]`, `table: [v, c]`, `positions: [at least t, c]`; `t: [n]`, `y: [n, dim]`, an odd
//! `dim` ending in a zero. Nothing before them is differentiated; the gradients of the two tables are sums of the rows
//! of `dy` that they went to.

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::Launch;
use crate::runtime::native::NativeArgs;
use crate::tensor::Tensor;

/// One launch of the token embedding: `n` times `t` tokens, a table of `v` rows of `c`.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    n: usize,
    t: usize,
    v: usize,
    c: usize,
    positions: usize,
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
        let (tokens, table, positions) =
            (self.n * self.t, self.v * self.c, self.positions * self.c);
        let ids = Spec::input("ids", tokens).fill(Fill::Ids(self.v));
        if self.backward {
            return vec![
                Spec::out("dtable", table).wide(),
                Spec::out("dpositions", positions).wide(),
                Spec::input("dy", tokens * self.c),
                ids,
            ];
        }
        vec![
            Spec::out("y", tokens * self.c),
            ids,
            Spec::input("table", table).wide(),
            Spec::input("positions", positions).wide(),
        ]
    }

    fn flops(&self) -> u64 {
        (self.n * self.t * self.c) as u64
    }
}

/// `y` from `ids`. An id outside the table gives NaN ([`tokens`] does not let one through).
pub static TOKENS: Op<Key> = Op {
    name: "embed.tokens",
    variants: &[
        Variant::kernels("plain", |key| {
            Launch::each("embed/tokens_1_plain", key.dtype, key.n * key.t * key.c)
                .ints([key.n * key.t, key.t, key.v, key.c])
                .into()
        }),
        Variant::native("plain", tokens_plain::<f32>, tokens_plain::<f64>),
    ],
    cases: || cases(false),
};

/// `dtable` and `dpositions` from `dy` and `ids`. A row that no token took gets zeros.
pub static WGRAD: Op<Key> = Op {
    name: "embed.wgrad",
    variants: &[
        Variant::kernels("plain", |key| {
            Launch::new(
                "embed/wgrad_1_plain",
                key.dtype,
                [key.v + key.positions, 1, 1],
                256,
            )
            .ints([key.n * key.t, key.t, key.v, key.c])
            .into()
        }),
        Variant::native("plain", wgrad_plain::<f32>, wgrad_plain::<f64>),
    ],
    cases: || cases(true),
};

fn cases(backward: bool) -> Vec<Key> {
    let key = |(n, t, v, c, positions)| Key {
        dtype: DType::F32,
        n,
        t,
        v,
        c,
        positions,
        backward,
    };
    [(1, 1, 1, 1, 1), (2, 31, 33, 7, 31), (3, 77, 203, 65, 80)]
        .map(key)
        .to_vec()
}

/// `y: [n, t, c]`.
///
/// The ids are read back to the host to be checked: a few kilobytes, once per prompt.
///
/// # Errors
/// [`Error::Argument`] when an id is not a row of the table; [`Error::DType`] when the ids are not i32;
/// [`Error::Shape`] when the table and the positions differ in width, or there are fewer positions than tokens.
pub fn tokens(cx: &Cx, ids: &Tensor, table: &Tensor, positions: &Tensor) -> Result<Tensor> {
    let ([n, t], [v, c]) = (pair(ids, "embed, ids")?, pair(table, "embed, table")?);
    let [rows, width] = pair(positions, "embed, positions")?;
    if width != c || rows < t {
        let want = format!("[at least {t}, {c}]");
        return Err(Error::shape("embed, positions", want, positions.shape()));
    }
    let outside = |&id: &i32| !usize::try_from(id).is_ok_and(|id| id < v);
    if let Some(id) = ids.to_vec::<i32>()?.into_iter().find(outside) {
        let why = format!("id {id} is not in the vocabulary of {v}");
        return Err(Error::argument("embed, ids", why));
    }
    let key = Key {
        dtype: cx.dtype(),
        n,
        t,
        v,
        c,
        positions: rows,
        backward: false,
    };
    let y = cx.empty([n, t, c])?;
    let args = [
        Arg::Out(&y),
        Arg::In(ids),
        Arg::In(table),
        Arg::In(positions),
    ];
    TOKENS.launch(cx, &key, &args)?;
    Ok(y)
}

/// The gradients `(dtable, dpositions)`, each f32 (f64 in a run of f64) and of its table's size `[v, c]` and
/// `[positions, c]`, from `dy: [n, t, c]` and the `ids` that [`tokens`] took.
///
/// # Errors
/// [`Error::Shape`] when `dy` is not one row a token.
pub fn wgrad(
    cx: &Cx,
    ids: &Tensor,
    dy: &Tensor,
    v: usize,
    positions: usize,
) -> Result<(Tensor, Tensor)> {
    let ([n, t], c) = (pair(ids, "embed, ids")?, dy.shape().channels());
    dy.expect_shape("embed.wgrad", [n, t, c])?;
    let key = Key {
        dtype: dy.dtype(),
        n,
        t,
        v,
        c,
        positions,
        backward: true,
    };
    let (dtable, dpositions) = (cx.empty_wide([v, c])?, cx.empty_wide([positions, c])?);
    let args = [
        Arg::Out(&dtable),
        Arg::Out(&dpositions),
        Arg::In(dy),
        Arg::In(ids),
    ];
    WGRAD.launch(cx, &key, &args)?;
    Ok((dtable, dpositions))
}

fn pair(t: &Tensor, what: &str) -> Result<[usize; 2]> {
    t.dims()
        .try_into()
        .map_err(|_| Error::shape(what, "two dimensions", t.shape()))
}

fn tokens_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, ids) = (args.output::<T>(0), args.input::<i32>(1));
    let (table, positions) = (args.input::<T>(2), args.input::<T>(3));
    for (i, y) in y.iter_mut().enumerate() {
        let (token, c) = (i / key.c, i % key.c);
        let id = usize::try_from(ids[token]).ok();
        let row = id.filter(|&id| id < key.v).map(|id| table[id * key.c + c]);
        *y = row.unwrap_or(T::of(f64::NAN)) + positions[token % key.t * key.c + c];
    }
}

fn wgrad_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dtable, dpositions) = (args.output::<T>(0), args.output::<T>(1));
    let (dy, ids) = (args.input::<T>(2), args.input::<i32>(3));
    dtable.fill(T::ZERO);
    dpositions.fill(T::ZERO);
    for (token, (dy, &id)) in dy.chunks_exact(key.c).zip(ids).enumerate() {
        let add = |rows: &mut [T], row: usize| {
            let sums = rows[row * key.c..][..key.c].iter_mut();
            sums.zip(dy).for_each(|(sum, &dy)| *sum += dy);
        };
        add(dpositions, token % key.t);
        if let Some(id) = usize::try_from(id).ok().filter(|&id| id < key.v) {
            add(dtable, id);
        }
    }
}

/// How a noise level becomes waves: settings of the UNet's configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wave {
    /// Cosines first.
    pub flip_sin_to_cos: bool,
    /// Taken from the number of frequencies before it divides the exponent.
    pub freq_shift: f64,
}

/// One launch of the noise level embedding.
#[derive(Clone, Debug)]
pub struct TimestepKey {
    dtype: DType,
    n: usize,
    dim: usize,
    wave: Wave,
}

impl KeyTrait for TimestepKey {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let t = Spec::input("t", self.n).fill(Fill::Normal(500.0)).wide();
        vec![Spec::out("y", self.n * self.dim), t]
    }

    fn flops(&self) -> u64 {
        40 * (self.n * self.dim) as u64
    }
}

/// `y` from `t`.
pub static TIMESTEP: Op<TimestepKey> = Op {
    name: "embed.timestep",
    variants: &[
        Variant::kernels("plain", |key| {
            let wave = key.wave;
            Launch::each("embed/timestep_1_plain", key.dtype, key.n * key.dim)
                .ints([key.n, key.dim, usize::from(wave.flip_sin_to_cos)])
                .floats([wave.freq_shift])
                .into()
        }),
        Variant::native("plain", timestep_plain::<f32>, timestep_plain::<f64>),
    ],
    cases: || {
        let key = |(n, dim, flip_sin_to_cos, freq_shift)| TimestepKey {
            dtype: DType::F32,
            n,
            dim,
            wave: Wave {
                flip_sin_to_cos,
                freq_shift,
            },
        };
        [
            (1, 1, true, 0.0),
            (2, 33, false, 1.0),
            (5, 320, true, 0.0),
            (3, 77, true, 1.0),
        ]
        .map(key)
        .to_vec()
    },
};

/// `y: [n, dim]` from `t: [n]`, as diffusers' `get_timestep_embedding`; computed in f64, rounded once.
///
/// # Errors
/// [`Error::Argument`] when there are no more frequencies than `freq_shift`; [`Error::Shape`] when `t` is
/// not one number per sample or `dim` is 0.
pub fn timestep(cx: &Cx, t: &Tensor, dim: usize, wave: Wave) -> Result<Tensor> {
    let [n] = *t.dims() else {
        return Err(Error::shape("embed.timestep", "[n]", t.shape()));
    };
    // Written so that a NaN is refused too.
    let usable = dim < 2 || (dim / 2) as f64 > wave.freq_shift;
    if !usable {
        let why = format!("{} leaves nothing of {} waves", wave.freq_shift, dim / 2);
        return Err(Error::argument("freq_shift", why));
    }
    let key = TimestepKey {
        dtype: cx.dtype(),
        n,
        dim,
        wave,
    };
    let y = cx.empty([n, dim])?;
    TIMESTEP.launch(cx, &key, &[Arg::Out(&y), Arg::In(t)])?;
    Ok(y)
}

fn timestep_plain<T: Real>(key: &TimestepKey, args: &mut NativeArgs<'_>) {
    let (y, t) = (args.output::<T>(0), args.input::<T>(1));
    let half = key.dim / 2;
    let last = half as f64 - key.wave.freq_shift;
    for (i, y) in y.iter_mut().enumerate() {
        let (n, j) = (i / key.dim, i % key.dim);
        if j >= 2 * half {
            *y = T::ZERO;
            continue;
        }
        let frequency = (-f64::ln(10_000.0) * (j % half) as f64 / last).exp();
        let (sin, cos) = (t[n].f64() * frequency).sin_cos();
        let cosine = (j < half) == key.wave.flip_sin_to_cos;
        *y = T::of(if cosine { cos } else { sin });
    }
}
