//! AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", algorithm 2; as `torch.optim.AdamW`): one step
//! of one parameter, in place.
//!
//! With `[scale, decay, step, rsqrt]` the coefficients of this step: `g' = scale g`, `m = b1 m + (1 - b1) g'`,
//! `v = b2 v + (1 - b2) g'^2`, `w = decay w - step m / (sqrt(v) rsqrt + eps)`. They are read from memory, so that a
//! recorded step can be done again with others.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::wide;
use crate::tensor::Tensor;

/// What stays the same from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// How much of the mean of gradients stays.
    pub beta1: f64,
    /// How much of the mean of their squares stays.
    pub beta2: f64,
    /// Added to the root of that mean.
    pub eps: f64,
}

impl Settings {
    /// The coefficients of step `t` = 1, 2 and so on, with gradients scaled by `scale`.
    pub fn coefficients(&self, t: u32, lr: f64, weight_decay: f64, scale: f64) -> [f64; 4] {
        let bias = |beta: f64| 1.0 - beta.powf(f64::from(t));
        let (step, rsqrt) = (lr / bias(self.beta1), 1.0 / bias(self.beta2).sqrt());
        [scale, 1.0 - lr * weight_decay, step, rsqrt]
    }
}

/// A parameter and what is known of its gradients, all updated in place.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// The parameter, f32 (f64 in a run of f64).
    pub w: &'a Tensor,
    /// The mean of its gradients, of `w`'s shape and type.
    pub m: &'a Tensor,
    /// The mean of their squares, of `w`'s shape and type.
    pub v: &'a Tensor,
    /// `w` rounded to the type of the activations, as the model holds it.
    pub copy: Option<&'a Tensor>,
}

/// One launch over `len` elements; `dtype` is the copy's type, where there is a copy.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    len: usize,
    copy: bool,
    settings: Settings,
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
            Spec::update("w", self.len).wide(),
            Spec::update("m", self.len).wide(),
            Spec::update("v", self.len).fill(Fill::Positive).wide(),
            Spec::update("copy", self.len).present(self.copy),
            Spec::input("g", self.len).wide(),
            Spec::input("coefficients", 4).fill(Fill::Positive).wide(),
        ]
    }

    fn flops(&self) -> u64 {
        15 * self.len as u64
    }
}

/// `w, m, v, copy` from themselves and `g`.
pub static STEP: Op<Key> = Op {
    name: "adamw.step",
    variants: &[
        Variant::kernels("vector", |key| {
            launch("adamw/step_2_vector", key, key.len / 4)
        })
        .when(|key| key.len.is_multiple_of(4)),
        Variant::kernels("plain", |key| launch("adamw/step_1_plain", key, key.len)),
        Variant::native("chunks", step_chunks::<f32>, step_chunks::<f64>),
        Variant::native("plain", step_plain::<f32>, step_plain::<f64>),
    ],
    cases: || {
        let key = |(len, copy)| Key {
            dtype: DType::F32,
            len,
            copy,
            settings: Settings {
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
            },
        };
        let sizes = [
            (1, true),
            (33, false),
            (4_096, true),
            (20_001, true),
            (40_008, false),
        ];
        sizes.map(key).to_vec()
    },
};

/// A thread for each of `count` elements or packs of four.
fn launch(module: &'static str, key: &Key, count: usize) -> Plan {
    let Settings { beta1, beta2, eps } = key.settings;
    Launch::each(module, key.dtype, count)
        .ints([count])
        .floats([beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps])
        .into()
}

/// One step down the gradient `g`, of `w`'s shape and type. `coefficients: [4]`, of that type too, are
/// [`Settings::coefficients`]: the scale of the gradient, `1 - lr weight_decay`, `lr / (1 - beta1^t)`,
/// `1 / sqrt(1 - beta2^t)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) when one of them is of another shape
/// or type; [`Error::Plan`](crate::Error::Plan) when two of them share memory.
pub fn step(
    cx: &Cx,
    settings: Settings,
    state: State<'_>,
    g: &Tensor,
    coefficients: &Tensor,
) -> Result<()> {
    let State { w, m, v, copy } = state;
    let like_w = [
        ("m", Some(m)),
        ("v", Some(v)),
        ("copy", copy),
        ("g", Some(g)),
    ];
    for (name, t) in like_w {
        if let Some(t) = t {
            t.expect_shape(&format!("adamw.step, `{name}`"), w.shape())?;
        }
    }
    let key = Key {
        dtype: copy.map_or(w.dtype(), Tensor::dtype),
        len: w.shape().elements(),
        copy: copy.is_some(),
        settings,
    };
    let args = [
        Arg::Update(w),
        Arg::Update(m),
        Arg::Update(v),
        copy.map_or(Arg::Absent, Arg::Update),
        Arg::In(g),
        Arg::In(coefficients),
    ];
    STEP.launch(cx, &key, &args)
}

/// The settings and coefficients of a step in the type that it is computed in. `1 - beta` is taken before rounding:
/// of 1 - 0.999 in f32 four digits are left.
struct Step<T> {
    betas: [T; 2],
    rests: [T; 2],
    eps: T,
    scale: T,
    decay: T,
    step: T,
    rsqrt: T,
}

impl<T: Real> Step<T> {
    fn new(settings: Settings, coefficients: &[T]) -> Self {
        let betas = [settings.beta1, settings.beta2];
        Step {
            betas: betas.map(T::of),
            rests: betas.map(|beta| T::of(1.0 - beta)),
            eps: T::of(settings.eps),
            scale: coefficients[0],
            decay: coefficients[1],
            step: coefficients[2],
            rsqrt: coefficients[3],
        }
    }

    /// One element.
    #[inline(always)]
    fn of(&self, w: &mut T, m: &mut T, v: &mut T, g: T) {
        let g = self.scale * g;
        *m = self.betas[0] * *m + self.rests[0] * g;
        *v = self.betas[1] * *v + self.rests[1] * g * g;
        *w = self.decay * *w - self.step * *m / (v.sqrt() * self.rsqrt + self.eps);
    }
}

fn step_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (w, m, v) = (
        args.output::<T>(0),
        args.output::<T>(1),
        args.output::<T>(2),
    );
    let (copy, g) = (args.optional_output::<T>(3), args.input::<T>(4));
    let step = Step::new(key.settings, args.input::<T>(5));
    for i in 0..key.len {
        step.of(&mut w[i], &mut m[i], &mut v[i], g[i]);
    }
    if let Some(copy) = copy {
        copy.copy_from_slice(w);
    }
}

/// Elements of one task: large against the cost of handing it to a thread.
const CHUNK: usize = 1 << 14;

fn step_chunks<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (w, m, v) = (
        args.output::<T>(0),
        args.output::<T>(1),
        args.output::<T>(2),
    );
    let (copy, g) = (args.optional_output::<T>(3), args.input::<T>(4));
    let step = Step::new(key.settings, args.input::<T>(5));
    w.par_chunks_mut(CHUNK)
        .zip(m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK)))
        .zip(g.par_chunks(CHUNK))
        .for_each(|((w, (m, v)), g)| {
            wide(
                #[inline(always)]
                || {
                    let state = w.iter_mut().zip(m).zip(v);
                    for (((w, m), v), &g) in state.zip(g) {
                        step.of(w, m, v, g);
                    }
                },
            );
        });
    // the native engine has no 16-bit type: a copy in `w`'s
    if let Some(copy) = copy {
        copy.copy_from_slice(w);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::runtime::Runtime;

    const SETTINGS: Settings = Settings {
        beta1: 0.5,
        beta2: 0.75,
        eps: 1e-3,
    };

    /// `w` after a step for each of the gradients, in f64, as seen by a handle from before them.
    fn after(
        settings: Settings,
        w: &[f64],
        gradients: &[&[f64]],
        [lr, weight_decay, scale]: [f64; 3],
    ) -> Result<Vec<f64>> {
        let cx = Cx::new(Runtime::native(), DType::F64)?;
        let len = w.len();
        let zeros = vec![0.0; len];
        let (w, copy) = (cx.upload(w, [len])?, cx.upload(&zeros, [len])?);
        let (m, v) = (cx.upload(&zeros, [len])?, cx.upload(&zeros, [len])?);
        let (held, held_copy) = (w.clone(), copy.clone());
        for (t, g) in (1..).zip(gradients) {
            let state = State {
                w: &w,
                m: &m,
                v: &v,
                copy: Some(&copy),
            };
            let coefficients = settings.coefficients(t, lr, weight_decay, scale);
            let coefficients = cx.upload_wide(&coefficients, [4])?;
            step(&cx, settings, state, &cx.upload(g, [len])?, &coefficients)?;
        }
        let got = held.to_vec::<f64>()?;
        assert_eq!(got, held_copy.to_vec::<f64>()?);
        Ok(got)
    }

    #[track_caller]
    fn assert_close(got: &[f64], want: &[f64]) {
        let close = |(got, want): (&f64, &f64)| (got - want).abs() <= 8.0 * f64::EPSILON;
        assert!(got.iter().zip(want).all(close), "{got:?}, want {want:?}");
    }

    #[test]
    fn the_first_step_has_the_length_of_the_learning_rate() -> Result<()> {
        let (w, g) = ([1.0, -0.5, 0.25, 0.0], [3.0, -0.2, 1e-3, -40.0]);
        let got = after(SETTINGS, &w, &[&g], [0.1, 0.0, 1.0])?;
        let want = w
            .iter()
            .zip(&g)
            .map(|(w, g)| w - 0.1 * g / (g.abs() + 1e-3));
        assert_close(&got, &want.collect::<Vec<_>>());
        Ok(())
    }

    #[test]
    fn without_a_gradient_there_is_decay_alone() -> Result<()> {
        let got = after(
            SETTINGS,
            &[1.0, -0.5],
            &[[0.0, 0.0].as_slice(); 2],
            [0.1, 0.01, 1.0],
        )?;
        assert_close(&got, &[0.999 * 0.999, -0.5 * 0.999 * 0.999]);
        Ok(())
    }

    /// The corrected means of a gradient that stays the same are that gradient and its square, from the first step on.
    #[test]
    fn a_steady_gradient_gives_steady_steps() -> Result<()> {
        let got = after(
            SETTINGS,
            &[0.0, 1.0],
            &[[2.0, -1.0].as_slice(); 3],
            [0.1, 0.0, 1.0],
        )?;
        assert_close(&got, &[-0.3 * 2.0 / 2.001, 1.0 + 0.3 / 1.001]);
        Ok(())
    }

    /// With gradients 1, -2, 3 by hand: the corrected means are 1, -1, 9/7 and 1, 19/7, 201/37.
    #[test]
    fn three_steps_by_hand() -> Result<()> {
        let settings = Settings {
            eps: 0.0,
            ..SETTINGS
        };
        let steps = 1.0 - (7.0f64 / 19.0).sqrt() + 9.0 / 7.0 * (37.0f64 / 201.0).sqrt();
        let got = after(
            settings,
            &[0.5],
            &[&[1.0], &[-2.0], &[3.0]],
            [0.1, 0.0, 1.0],
        )?;
        assert_close(&got, &[0.5 - 0.1 * steps]);
        // twice the gradients at half the scale are the same
        let got = after(
            settings,
            &[0.5],
            &[&[2.0], &[-4.0], &[6.0]],
            [0.1, 0.0, 0.5],
        )?;
        assert_close(&got, &[0.5 - 0.1 * steps]);
        Ok(())
    }

    #[test]
    fn a_gradient_of_another_shape_or_type_is_an_error() -> Result<()> {
        let cx = Cx::native();
        let zeros = || cx.upload(&[0.0f32; 6], [2, 3]);
        let (w, m, v) = (zeros()?, zeros()?, zeros()?);
        let state = State {
            w: &w,
            m: &m,
            v: &v,
            copy: None,
        };
        let coefficients = cx.upload(&[1.0f32; 4], [4])?;
        let turned = cx.upload(&[0.0f32; 6], [3, 2])?;
        let got = step(&cx, SETTINGS, state, &turned, &coefficients);
        assert!(matches!(got, Err(Error::Shape { .. })));
        let double = Tensor::from_slice(cx.rt(), &[0.0f64; 6], [2, 3])?;
        let got = step(&cx, SETTINGS, state, &double, &coefficients);
        assert!(matches!(got, Err(Error::DType { .. })));
        let got = step(&cx, SETTINGS, state, &m, &coefficients);
        assert!(matches!(got, Err(Error::Plan { .. })));
        Ok(())
    }
}
