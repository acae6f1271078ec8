//! Attention: `o = softmax(scale q k^T) v` for each head, `scale = 1 / sqrt(d)`.
//!
//! `q, o: [n, tq, heads * d]`, `k, v: [n or 1, tk, heads * d]` (one sample: shared by all),
//! `lse: [n, heads, tq]`, the logarithm of each softmax's denominator. Causal: query i sees keys 0 to i.
//! Backward, with `p = exp(scale q k^T - lse)` computed again, `delta = sum over d of dy o`:
//! `ds = scale p (dy v^T - delta)`, `dq = ds k`, `dk = ds^T q`, `dv = p^T dy`.
//!
//! On a GPU, in 16 bits: `flash` keeps scores in registers, for head dims to 160, `wgmma` too, on Hopper, for
//! head dims to 64; `wide` has them in scratch memory, for the autoencoder's 512.

mod amx;
mod flash;
mod kernels;
mod plain;

use crate::cx::{Cx, Kept};
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::tensor::Tensor;

/// Which way, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Forward,
    /// `dq` only: cross-attention, whose keys come from the prompt.
    Queries,
    /// `dq, dk, dv`.
    All,
}

/// One launch.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    /// `k` and `v` are one sample, seen by all.
    shared: bool,
    heads: usize,
    d: usize,
    tq: usize,
    tk: usize,
    causal: bool,
    pass: Pass,
}

impl Key {
    fn width(&self) -> usize {
        self.heads * self.d
    }

    fn scale<T: Real>(&self) -> T {
        T::of(1.0 / (self.d as f64).sqrt())
    }

    /// How many of the `keys` keys from `start` on query `i` sees.
    #[inline(always)]
    fn seen(&self, i: usize, start: usize, keys: usize) -> usize {
        if self.causal {
            (i + 1).saturating_sub(start).min(keys)
        } else {
            keys
        }
    }

    /// How many keys the queries below `end` see.
    fn last(&self, end: usize) -> usize {
        if self.causal { end } else { self.tk }
    }

    /// Queries of one task: a fixed part of one sample.
    fn rows(&self) -> usize {
        self.tq.div_ceil(4).clamp(32, 128).min(self.tq)
    }

    /// Where the keys and values of sample `n` start.
    fn keys_at(&self, n: usize) -> usize {
        if self.shared {
            0
        } else {
            n * self.tk * self.width()
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
        let q = self.samples * self.tq * self.width();
        let k = if self.shared { 1 } else { self.samples } * self.tk * self.width();
        let lse = self.samples * self.heads * self.tq;
        let inputs = [
            Spec::input("q", q),
            Spec::input("k", k),
            Spec::input("v", k),
        ];
        let mut args = match self.pass {
            Pass::Forward => vec![Spec::out("o", q), Spec::out("lse", lse).wide()],
            Pass::Queries => vec![Spec::out("dq", q), Spec::input("dy", q)],
            Pass::All => vec![
                Spec::out("dq", q),
                Spec::out("dk", k),
                Spec::out("dv", k),
                Spec::input("dy", q),
            ],
        };
        args.extend(inputs);
        if self.pass != Pass::Forward {
            args.extend([Spec::input("o", q), Spec::input("lse", lse).wide()]);
        }
        args
    }

    fn flops(&self) -> u64 {
        let products = match self.pass {
            Pass::Forward => 2,
            Pass::Queries => 3,
            Pass::All => 5,
        };
        let all = 2 * products * (self.samples * self.tq * self.tk * self.width()) as u64;
        if self.causal { all / 2 } else { all }
    }
}

/// `o, lse` from `q, k, v`.
pub static FORWARD: Op<Key> = Op {
    name: "attention.forward",
    variants: &[
        Variant::on_hopper("wgmma", kernels::forward_wgmma)
            .when(kernels::in_wgmma)
            .where_it_pays(kernels::pays_by_wgmma),
        Variant::kernels("flash", kernels::forward_flash).when(kernels::in_flash),
        Variant::kernels("wide", kernels::forward_wide).when(kernels::in_wide),
        Variant::kernels("plain", kernels::forward_plain),
        Variant::native("amx", amx::forward, flash::forward::<f64>).when(amx::fits),
        Variant::native("flash", flash::forward::<f32>, flash::forward::<f64>),
        Variant::native("plain", plain::forward::<f32>, plain::forward::<f64>),
    ],
    cases: || cases(Pass::Forward),
};

/// `dq` from `dy`.
pub static VJP: Op<Key> = Op {
    name: "attention.vjp",
    variants: &[
        Variant::on_hopper("wgmma", kernels::vjp_wgmma)
            .when(kernels::in_wgmma)
            .where_it_pays(kernels::pays_by_wgmma),
        Variant::kernels("flash", kernels::vjp_flash).when(kernels::in_flash),
        Variant::kernels("wide", kernels::vjp_wide).when(kernels::in_wide),
        Variant::kernels("plain", kernels::vjp_plain),
        Variant::native("flash", flash::vjp::<f32>, flash::vjp::<f64>),
        Variant::native("plain", plain::vjp::<f32>, plain::vjp::<f64>),
    ],
    cases: || cases(Pass::Queries),
};

/// `dq, dk, dv` from `dy`.
pub static VJP_KV: Op<Key> = Op {
    name: "attention.vjp_kv",
    variants: &[
        Variant::on_hopper("wgmma", kernels::vjp_kv_wgmma)
            .when(kernels::in_wgmma)
            .where_it_pays(kernels::pays_by_wgmma),
        Variant::kernels("flash", kernels::vjp_kv_flash).when(kernels::in_flash),
        Variant::kernels("wide", kernels::vjp_kv_wide).when(kernels::in_wide),
        Variant::kernels("plain", kernels::vjp_kv_plain),
        Variant::native("amx", amx::vjp_kv, flash::vjp_kv::<f64>).when(amx::fits_vjp_kv),
        Variant::native("flash", flash::vjp_kv::<f32>, flash::vjp_kv::<f64>),
        Variant::native("plain", plain::vjp::<f32>, plain::vjp::<f64>),
    ],
    cases: || cases(Pass::All),
};

fn cases(pass: Pass) -> Vec<Key> {
    let key = |(samples, heads, d, tq, tk)| Key {
        dtype: DType::F32,
        samples,
        shared: false,
        heads,
        d,
        tq,
        tk,
        causal: false,
        pass,
    };
    let mut all = [
        (1, 1, 8, 1, 1),
        (2, 3, 8, 31, 33),
        (2, 2, 40, 131, 300),
        (1, 1, 512, 33, 77),
        (1, 2, 160, 1, 31),
        (2, 3, 31, 113, 203),
        (2, 2, 24, 40, 129),
        (1, 2, 64, 130, 77),
        (2, 1, 80, 70, 140),
        (1, 1, 160, 70, 100),
        // By wgmma: more tiles than stages either way, a block of which one warpgroup has no rows.
        (1, 1, 56, 300, 700),
    ]
    .map(key)
    .to_vec();
    let causal = [
        (2, 3, 64, 77, 77),
        (1, 1, 16, 300, 300),
        (1, 2, 160, 90, 90),
    ]
    .map(key);
    all.extend(causal.map(|key| Key {
        causal: true,
        ..key
    }));
    if pass != Pass::All {
        all.extend([(3, 2, 40, 33, 77)].map(|case| Key {
            shared: true,
            ..key(case)
        }));
    }
    all
}

/// What the backward pass needs.
#[derive(Debug)]
pub struct Saved {
    q: Kept,
    k: Kept,
    v: Kept,
    o: Kept,
    lse: Kept,
    heads: usize,
    causal: bool,
}

/// `o: [n, tq, heads * d]` from `q` of the same shape and `k, v: [n or 1, tk, heads * d]`.
///
/// # Errors
/// [`Error::Shape`] when the widths differ or are no multiple of `heads`, `k` and `v` differ, their
/// samples are neither 1 nor `q`'s, or `causal` meets more or fewer keys than queries.
pub fn forward(
    cx: &Cx,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    causal: bool,
) -> Result<(Tensor, Saved)> {
    let key = key(q, k, v, heads, causal, Pass::Forward)?;
    let o = cx.empty(q.shape())?;
    let lse = cx.empty_wide([key.samples, heads, key.tq])?;
    let args = [
        Arg::Out(&o),
        Arg::Out(&lse),
        Arg::In(q),
        Arg::In(k),
        Arg::In(v),
    ];
    FORWARD.launch(cx, &key, &args)?;
    let saved = Saved {
        q: cx.keep(q),
        k: cx.keep(k),
        v: cx.keep(v),
        o: cx.keep(&o),
        lse: cx.keep(&lse),
        heads,
        causal,
    };
    Ok((o, saved))
}

/// `dq` and, when `kv`, `(dk, dv)` from `dy`. Consumes what was saved.
///
/// # Errors
/// [`Error::Shape`] when `dy` is not of `q`'s shape; [`Error::Argument`] when `kv` and the keys are
/// shared by several samples.
pub fn vjp(
    cx: &Cx,
    saved: Saved,
    dy: &Tensor,
    kv: bool,
) -> Result<(Tensor, Option<(Tensor, Tensor)>)> {
    let (q, k, v) = (saved.q.get()?, saved.k.get()?, saved.v.get()?);
    let rest = [
        Arg::In(dy),
        Arg::In(q),
        Arg::In(k),
        Arg::In(v),
        Arg::In(saved.o.get()?),
        Arg::In(saved.lse.get()?),
    ];
    dy.expect_shape("attention.vjp", q.shape())?;
    let pass = if kv { Pass::All } else { Pass::Queries };
    let key = key(q, k, v, saved.heads, saved.causal, pass)?;
    let dq = cx.empty(q.shape())?;
    if !kv {
        let args: Vec<_> = [Arg::Out(&dq)].into_iter().chain(rest).collect();
        VJP.launch(cx, &key, &args)?;
        return Ok((dq, None));
    }
    if key.shared {
        let why = "keys shared by several samples have no cotangent per sample; pass kv = false";
        return Err(Error::argument("attention.vjp", why));
    }
    let (dk, dv) = (cx.empty(k.shape())?, cx.empty(v.shape())?);
    let outputs = [Arg::Out(&dq), Arg::Out(&dk), Arg::Out(&dv)];
    let args: Vec<_> = outputs.into_iter().chain(rest).collect();
    VJP_KV.launch(cx, &key, &args)?;
    Ok((dq, Some((dk, dv))))
}

fn key(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool, pass: Pass) -> Result<Key> {
    let [samples, tq, width] = q.ntc("attention, q")?;
    let [sources, tk, _] = k.ntc("attention, k")?;
    if width == 0 || heads == 0 || !width.is_multiple_of(heads) {
        let want = format!("[n, t, a multiple of {heads}]");
        return Err(Error::shape("attention, q", want, q.shape()));
    }
    let keys = if sources == 1 { 1 } else { samples };
    if k.dims() != [keys, tk, width] || (causal && tk != tq) {
        let keys = if causal { "as many" } else { "any number" };
        let want = format!("[1 or {samples}, {keys}, {width}]");
        return Err(Error::shape("attention, k", want, k.shape()));
    }
    v.expect_shape("attention, v", k.shape())?;
    Ok(Key {
        dtype: q.dtype(),
        samples,
        shared: sources == 1 && samples != 1,
        heads,
        d: width / heads,
        tq,
        tk,
        causal,
        pass,
    })
}
