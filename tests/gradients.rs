//! Every backward pass against central differences in f64, the adjoint identity where the op is linear,
//! and the same bits for a sample whatever the batch and the number of threads.

use posteriori::dtype::Real;
use posteriori::ops::activation::{self, Activation};
use posteriori::ops::conv2d::{self, Epilogue, Geometry};
use posteriori::ops::{
    add, attention, concat, embed, geglu, group_norm, layer_norm, linear, modulus, softmax, sum,
    upsample,
};
use posteriori::rng::Philox;
use posteriori::runtime::Runtime;
use posteriori::{Cx, DType, Result, Tensor};

type Forward = fn(&Cx, &Case, &[Tensor]) -> Result<Vec<Tensor>>;
type Vjp = fn(&Cx, &Case, &[Tensor], &[Tensor]) -> Result<Vec<Tensor>>;

/// A public op with sizes: `inputs` per sample (without the first dimension), then `params`.
struct Case {
    name: String,
    inputs: Vec<Vec<usize>>,
    params: Vec<Vec<usize>>,
    settings: Settings,
    forward: Forward,
    /// From the tensors (inputs, then params) and the outputs' cotangents to the inputs' cotangents.
    vjp: Option<Vjp>,
    linear: bool,
}

#[derive(Clone, Copy)]
struct Settings {
    geometry: Geometry,
    act: Activation,
    heads: usize,
    causal: bool,
    groups: usize,
    silu: bool,
    bias: bool,
}

const SETTINGS: Settings = Settings {
    geometry: Geometry::same(3),
    act: Activation::Silu,
    heads: 1,
    causal: false,
    groups: 1,
    silu: false,
    bias: false,
};

fn case(name: &str, inputs: &[&[usize]], params: &[&[usize]], forward: Forward) -> Case {
    let owned = |dims: &[&[usize]]| dims.iter().map(|d| d.to_vec()).collect();
    Case {
        name: name.into(),
        inputs: owned(inputs),
        params: owned(params),
        settings: SETTINGS,
        forward,
        vjp: None,
        linear: false,
    }
}

impl Case {
    fn vjp(self, vjp: Vjp) -> Self {
        Case {
            vjp: Some(vjp),
            ..self
        }
    }

    fn linear(self) -> Self {
        Case {
            linear: true,
            ..self
        }
    }

    fn with(self, label: &str, change: impl Fn(&mut Settings)) -> Self {
        let mut settings = self.settings;
        change(&mut settings);
        Case {
            name: format!("{} {label}", self.name),
            settings,
            ..self
        }
    }

    /// Random inputs of `n` samples and params, the same for every `n` and type.
    fn draw(&self, cx: &Cx, n: usize) -> Vec<Tensor> {
        let mut random = Philox::new(7);
        let mut all = Vec::new();
        for dims in &self.params {
            all.push(normals(cx, &mut random, dims));
        }
        let mut inputs = Vec::new();
        for dims in &self.inputs {
            let dims: Vec<usize> = [n].into_iter().chain(dims.iter().copied()).collect();
            inputs.push(normals(cx, &mut random, &dims));
        }
        inputs.extend(all);
        inputs
    }
}

pub(crate) fn normals(cx: &Cx, random: &mut Philox, dims: &[usize]) -> Tensor {
    let values: Vec<f64> = (0..dims.iter().product())
        .map(|_| random.normal())
        .collect();
    shaped(cx, &values, dims)
}

pub(crate) fn shaped<T: Real>(cx: &Cx, values: &[T], dims: &[usize]) -> Tensor {
    match *dims {
        [a] => cx.upload(values, [a]),
        [a, b] => cx.upload(values, [a, b]),
        [a, b, c] => cx.upload(values, [a, b, c]),
        [a, b, c, d] => cx.upload(values, [a, b, c, d]),
        _ => panic!("a case of rank {}", dims.len()),
    }
    .unwrap()
}

fn norm_params<'a>(c: &Case, x: &'a [Tensor]) -> group_norm::Params<'a> {
    group_norm::Params {
        w: &x[1],
        b: &x[2],
        groups: c.settings.groups,
        eps: 1e-5,
        silu: c.settings.silu,
    }
}

fn cases() -> Vec<Case> {
    let mut all = elementwise_cases();
    all.extend(norm_cases());
    all.extend(attention_cases());
    all.extend(linear_cases());
    all.extend(conv_cases());
    all
}

fn elementwise_cases() -> Vec<Case> {
    let mut all: Vec<Case> = [Activation::Silu, Activation::Gelu, Activation::QuickGelu]
        .into_iter()
        .map(|act| {
            case("activation", &[&[33, 31]], &[], |cx, c, x| {
                Ok(vec![activation::forward(cx, &x[0], c.settings.act)?])
            })
            .vjp(|cx, c, x, dy| Ok(vec![activation::vjp(cx, &x[0], c.settings.act, &dy[0])?]))
            .with(&format!("{act:?}"), |s| s.act = act)
        })
        .collect();
    all.push(
        case("geglu", &[&[31, 66]], &[], |cx, _, x| {
            Ok(vec![geglu::forward(cx, &x[0])?.0])
        })
        .vjp(|cx, _, x, dy| {
            let saved = geglu::forward(cx, &x[0])?.1;
            Ok(vec![geglu::vjp(cx, saved, &dy[0])?])
        }),
    );
    all.push(
        case("modulus", &[&[7, 2, 11]], &[&[7, 2, 11]], |cx, _, x| {
            Ok(vec![modulus::forward(cx, &x[0], &x[1])?])
        })
        .vjp(|cx, _, x, dy| Ok(vec![modulus::vjp(cx, &x[0], &x[1], &dy[0])?])),
    );
    all.push(
        case("softmax", &[&[31, 77]], &[], |cx, _, x| {
            Ok(vec![softmax::forward(cx, &x[0])?])
        })
        .vjp(|cx, _, x, dy| {
            let y = softmax::forward(cx, &x[0])?;
            Ok(vec![softmax::vjp(cx, &y, &dy[0])?])
        }),
    );
    all.push(
        case("add", &[&[33, 31], &[33, 31]], &[], |cx, _, x| {
            Ok(vec![add::forward(cx, &x[0], &x[1])?])
        })
        .vjp(|_, _, _, dy| Ok(vec![dy[0].clone(), dy[0].clone()]))
        .linear(),
    );
    all.push(case("sum.per_sample", &[&[300, 33]], &[], |cx, _, x| {
        Ok(vec![sum::per_sample(cx, &x[0])?])
    }));
    all.push(case("embed.timestep", &[&[]], &[], |cx, _, x| {
        let wave = embed::Wave {
            flip_sin_to_cos: true,
            freq_shift: 0.0,
        };
        Ok(vec![embed::timestep(cx, &x[0], 33, wave)?])
    }));
    all
}

/// Each beside its input, whose cotangent the backward pass adds: `y = norm(x) + x`.
fn norm_cases() -> Vec<Case> {
    let layer = case("layer_norm", &[&[77, 33]], &[&[33], &[33]], |cx, _, x| {
        let (y, _) = layer_norm::forward(cx, &x[0], &x[1], &x[2], 1e-5)?;
        Ok(vec![add::forward(cx, &y, &x[0])?])
    })
    .vjp(|cx, _, x, dy| {
        let saved = layer_norm::forward(cx, &x[0], &x[1], &x[2], 1e-5)?.1;
        let dx = layer_norm::vjp(cx, saved, &x[1], &dy[0], Some(&dy[0]))?;
        Ok(vec![dx])
    });
    let mut all = vec![layer];
    for (groups, silu) in [(1, false), (6, true), (30, false), (30, true)] {
        let group = case(
            "group_norm",
            &[&[13, 11, 30]],
            &[&[30], &[30]],
            |cx, c, x| {
                let (y, _) = group_norm::forward(cx, &x[0], norm_params(c, x))?;
                Ok(vec![add::forward(cx, &y, &x[0])?])
            },
        )
        .vjp(|cx, c, x, dy| {
            let p = norm_params(c, x);
            let saved = group_norm::forward(cx, &x[0], p)?.1;
            let dx = group_norm::vjp(cx, saved, p, &dy[0], Some(&dy[0]))?;
            Ok(vec![dx])
        });
        all.push(group.with(&format!("groups {groups} silu {silu}"), |s| {
            (s.groups, s.silu) = (groups, silu);
        }));
    }
    all
}

/// Ops whose backward pass gives the gradients of their params too; those are sums over the batch.
fn trained_cases() -> Vec<Case> {
    let layer: Vjp = |cx, _, x, dy| {
        let saved = layer_norm::forward(cx, &x[0], &x[1], &x[2], 1e-5)?.1;
        let (dw, db) = layer_norm::wgrad(cx, &saved, &dy[0])?;
        let dx = layer_norm::vjp(cx, saved, &x[1], &dy[0], Some(&dy[0]))?;
        Ok(vec![dx, dw, db])
    };
    let group: Vjp = |cx, c, x, dy| {
        let p = norm_params(c, x);
        let saved = group_norm::forward(cx, &x[0], p)?.1;
        let (dw, db) = group_norm::wgrad(cx, &saved, p, &dy[0])?;
        let dx = group_norm::vjp(cx, saved, p, &dy[0], Some(&dy[0]))?;
        Ok(vec![dx, dw, db])
    };
    let train = |c: Case| {
        let vjp = if c.name.starts_with("layer") {
            layer
        } else {
            group
        };
        c.vjp(vjp).with("trained", |_| ())
    };
    norm_cases().into_iter().map(train).collect()
}

fn attention_cases() -> Vec<Case> {
    let forward: Forward = |cx, c, x| {
        let (heads, causal) = (c.settings.heads, c.settings.causal);
        let (o, _) = attention::forward(cx, &x[0], &x[1], &x[2], heads, causal)?;
        Ok(vec![o])
    };
    let vjp_all: Vjp = |cx, c, x, dy| {
        let (heads, causal) = (c.settings.heads, c.settings.causal);
        let (_, saved) = attention::forward(cx, &x[0], &x[1], &x[2], heads, causal)?;
        let (dq, rest) = attention::vjp(cx, saved, &dy[0], true)?;
        let (dk, dv) = rest.expect("asked for");
        Ok(vec![dq, dk, dv])
    };
    let vjp_queries: Vjp = |cx, c, x, dy| {
        let (heads, causal) = (c.settings.heads, c.settings.causal);
        let (_, saved) = attention::forward(cx, &x[0], &x[1], &x[2], heads, causal)?;
        let (dq, rest) = attention::vjp(cx, saved, &dy[0], false)?;
        assert!(rest.is_none());
        Ok(vec![dq])
    };
    let mut all = Vec::new();
    for (tq, tk, heads, d, causal) in [
        (1, 1, 2, 8, false),
        (131, 300, 2, 40, false),
        (33, 31, 1, 160, false),
        (77, 77, 3, 31, true),
        (260, 260, 1, 8, true),
    ] {
        let (q, k) = (&[tq, heads * d][..], &[tk, heads * d][..]);
        let label = format!("self {tq} {tk} {heads} {d} {causal}");
        all.push(
            case("attention", &[q, k, k], &[], forward)
                .vjp(vjp_all)
                .with(&label, |s| (s.heads, s.causal) = (heads, causal)),
        );
    }
    let shared = &[1, 77, 80][..];
    all.push(
        case("attention", &[&[65, 80]], &[shared, shared], forward)
            .vjp(vjp_queries)
            .with("shared", |s| s.heads = 2),
    );
    all
}

fn linear_cases() -> Vec<Case> {
    let upsampled = case("upsample", &[&[7, 5, 33]], &[], |cx, _, x| {
        Ok(vec![upsample::forward(cx, &x[0])?])
    })
    .vjp(|cx, _, _, dy| Ok(vec![upsample::vjp(cx, &dy[0])?]));
    let joined = case("concat", &[&[77, 33], &[77, 31]], &[], |cx, _, x| {
        Ok(vec![concat::forward(cx, &x[0], &x[1])?])
    })
    .vjp(|cx, _, _, dy| {
        let (da, db) = concat::vjp(cx, &dy[0], 33)?;
        Ok(vec![da, db])
    });
    let mut all = vec![upsampled.linear(), joined.linear()];
    for (rows, k, m) in [(1, 33, 31), (77, 31, 65), (300, 40, 24)] {
        let plain = case("linear", &[&[rows, k]], &[&[m, k]], |cx, _, x| {
            Ok(vec![linear::forward(cx, &x[0], &x[1], None, None)?])
        })
        .vjp(|cx, _, x, dy| Ok(vec![linear::vjp(cx, &x[1], &dy[0])?]));
        all.push(plain.linear().with(&format!("{rows} {k} {m}"), |_| ()));
        let inputs = [&[rows, k][..], &[rows, m][..]];
        let affine = case("linear", &inputs, &[&[m, k], &[m]], |cx, _, x| {
            let y = linear::forward(cx, &x[0], &x[2], Some(&x[3]), Some(&x[1]))?;
            Ok(vec![y])
        })
        .vjp(|cx, _, x, dy| {
            let dx = linear::vjp(cx, &x[2], &dy[0])?;
            Ok(vec![dx, dy[0].clone()])
        });
        all.push(affine.with(&format!("affine {rows} {k} {m}"), |_| ()));
        let gated = case("linear", &[&[rows, 2 * k]], &[&[m, k]], |cx, _, x| {
            let (h, _) = geglu::forward(cx, &x[0])?;
            Ok(vec![linear::forward(cx, &h, &x[1], None, None)?])
        })
        .vjp(|cx, _, x, dy| Ok(vec![linear::vjp_geglu(cx, &x[1], &x[0], &dy[0])?]));
        all.push(gated.with(&format!("gated {rows} {k} {m}"), |_| ()));
        let weights = [&[m, k][..], &[m, k], &[m, k]];
        let three = case("linear", &[&[rows, k]], &weights, |cx, _, x| {
            let w = [&x[1], &x[2], &x[3]];
            let [q, k, v] = linear::forward_three(cx, &x[0], w, [None; 3])?;
            let qk = concat::forward(cx, &q, &k)?;
            Ok(vec![concat::forward(cx, &qk, &v)?])
        })
        .vjp(|cx, _, x, dy| {
            let m = x[1].dims()[0];
            let (dqk, dv) = concat::vjp(cx, &dy[0], 2 * m)?;
            let (dq, dk) = concat::vjp(cx, &dqk, m)?;
            let w = [&x[1], &x[2], &x[3]];
            Ok(vec![linear::vjp_three(cx, w, [&dq, &dk, &dv])?])
        });
        all.push(
            three
                .linear()
                .with(&format!("three {rows} {k} {m}"), |_| ()),
        );
    }
    all
}

fn conv_cases() -> Vec<Case> {
    let geometry = |stride, before, after| Geometry {
        stride,
        before,
        after,
    };
    let mut all = Vec::new();
    for (k, g, size) in [
        (3, Geometry::same(3), [9, 7]),
        (1, Geometry::same(1), [9, 7]),
        (3, geometry(2, 0, 1), [8, 12]),
        (3, geometry(2, 0, 1), [9, 7]),
        (3, geometry(2, 1, 1), [8, 12]),
        (3, geometry(2, 1, 1), [9, 7]),
        (4, geometry(2, 1, 1), [6, 10]),
    ] {
        let x = [&[size[0], size[1], 5][..]];
        let label = format!("{k} {g:?} {size:?}");
        let plain = case("conv2d", &x, &[&[k, k, 5, 7]], |cx, c, x| {
            let (g, none) = (c.settings.geometry, Epilogue::default());
            Ok(vec![conv2d::forward(cx, &x[0], &x[1], g, none)?])
        })
        .vjp(|cx, c, x, dy| {
            let size = [x[0].dims()[1], x[0].dims()[2]];
            let dx = conv2d::vjp(cx, &x[1], c.settings.geometry, size, &dy[0])?;
            Ok(vec![dx])
        });
        all.push(plain.linear().with(&label, |s| s.geometry = g));
    }
    let params = [&[4, 4, 5, 7][..], &[5][..]];
    for bias in [false, true] {
        let transposed = case("conv2d transposed", &[&[3, 5, 7]], &params, |cx, c, x| {
            let bias = c.settings.bias.then_some(&x[2]);
            let y = conv2d::transposed(cx, &x[1], c.settings.geometry, [6, 10], &x[0], bias)?;
            Ok(vec![y])
        })
        .vjp(|cx, c, x, dy| {
            let (g, none) = (c.settings.geometry, Epilogue::default());
            Ok(vec![conv2d::forward(cx, &dy[0], &x[1], g, none)?])
        })
        .with(&format!("bias {bias}"), |s| {
            (s.geometry, s.bias) = (geometry(2, 1, 1), bias)
        });
        all.push(if bias {
            transposed
        } else {
            transposed.linear()
        });
    }
    let inputs = [&[20, 17, 24][..], &[40][..], &[20, 17, 40][..]];
    let params = [&[3, 3, 24, 40][..], &[40][..]];
    all.push(case("conv2d epilogue", &inputs, &params, |cx, _, x| {
        let add = Epilogue {
            bias: Some(&x[4]),
            shift: Some(&x[1]),
            residual: Some(&x[2]),
            wide: false,
        };
        let y = conv2d::forward(cx, &x[0], &x[3], Geometry::same(3), add)?;
        Ok(vec![y])
    }));
    all
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `<dy, f(x + h v)>` and `sum |dy f|`, with `v` over the differentiated inputs.
fn along(cx: &Cx, c: &Case, x: &[Tensor], v: &[Vec<f64>], h: f64, dy: &[f64]) -> (f64, f64) {
    let moved = x.iter().enumerate().map(|(i, x)| match v.get(i) {
        Some(v) => {
            let values = x.to_f64().unwrap();
            let values: Vec<f64> = values.iter().zip(v).map(|(x, v)| x + h * v).collect();
            shaped(cx, &values, x.dims())
        }
        None => x.clone(),
    });
    let y = (c.forward)(cx, c, &moved.collect::<Vec<_>>()).unwrap();
    let y = y[0].to_f64().unwrap();
    let size = y.iter().zip(dy).map(|(y, dy)| (y * dy).abs()).sum();
    (dot(&y, dy), size)
}

#[test]
fn vjps_agree_with_central_differences() {
    let cx = Cx::new(Runtime::native(), DType::F64).unwrap();
    let mut random = Philox::new(11);
    for c in cases().into_iter().chain(trained_cases()) {
        let Some(vjp) = c.vjp else { continue };
        let x = c.draw(&cx, 2);
        let y = (c.forward)(&cx, &c, &x).unwrap().remove(0);
        let dy = normals(&cx, &mut random, y.dims());
        let dx = vjp(&cx, &c, &x, std::slice::from_ref(&dy)).unwrap();
        let dx: Vec<Vec<f64>> = dx.iter().map(|dx| dx.to_f64().unwrap()).collect();
        let dy = dy.to_f64().unwrap();
        for _ in 0..3 {
            let v: Vec<Vec<f64>> = dx
                .iter()
                .map(|dx| dx.iter().map(|_| random.normal()).collect())
                .collect();
            let slope = |h: f64| {
                let (ahead, size) = along(&cx, &c, &x, &v, h, &dy);
                let (behind, _) = along(&cx, &c, &x, &v, -h, &dy);
                ((ahead - behind) / (2.0 * h), size)
            };
            let h = 1e-5;
            let ((near, size), (far, _)) = (slope(h), slope(2.0 * h));
            let got: f64 = dx.iter().zip(&v).map(|(dx, v)| dot(dx, v)).sum();
            // Each element of y is off by some 16 roundings; the h^2 term is a third of what doubling h
            // changes. The sum of both must itself be small, or the comparison would say nothing.
            let tolerance = 16.0 * f64::EPSILON * size / h + 2.0 * (far - near).abs() / 3.0;
            let scale: f64 = dx
                .iter()
                .zip(&v)
                .map(|(dx, v)| dot(dx, dx).sqrt() * dot(v, v).sqrt())
                .sum();
            assert!(
                tolerance <= 1e-7 * scale,
                "{}: a tolerance of {:e} relative tests nothing",
                c.name,
                tolerance / scale
            );
            assert!(
                (got - near).abs() <= tolerance,
                "{}: vjp {got:e}, differences {near:e}, {:.1} of the tolerance",
                c.name,
                (got - near).abs() / tolerance
            );
        }
    }
}

#[test]
fn vjps_of_linear_ops_are_adjoints() {
    let cx = Cx::new(Runtime::native(), DType::F64).unwrap();
    let mut random = Philox::new(13);
    for c in cases().iter().filter(|c| c.linear) {
        let vjp = c.vjp.expect("a linear op has a vjp here");
        let x = c.draw(&cx, 3);
        let y = (c.forward)(&cx, c, &x).unwrap().remove(0);
        let dy = normals(&cx, &mut random, y.dims());
        let dx = vjp(&cx, c, &x, std::slice::from_ref(&dy)).unwrap();
        let (y, dy) = (y.to_f64().unwrap(), dy.to_f64().unwrap());
        let (mut right, mut scale) = (0.0, dot(&y, &y).sqrt() * dot(&dy, &dy).sqrt());
        for (x, dx) in x.iter().zip(&dx) {
            let (x, dx) = (x.to_f64().unwrap(), dx.to_f64().unwrap());
            right += dot(&x, &dx);
            scale += dot(&x, &x).sqrt() * dot(&dx, &dx).sqrt();
        }
        let error = (dot(&y, &dy) - right).abs() / scale;
        assert!(
            error <= 1e-12,
            "{}: the adjoint is off by {error:e}",
            c.name
        );
    }
}

/// All outputs of the forward and backward pass, as bits.
fn bits(cx: &Cx, c: &Case, x: &[Tensor], dy: Option<&Tensor>) -> Vec<Vec<u32>> {
    let mut all = (c.forward)(cx, c, x).unwrap();
    if let (Some(vjp), Some(dy)) = (c.vjp, dy) {
        all.extend(vjp(cx, c, x, std::slice::from_ref(dy)).unwrap());
    }
    let bits = |t: &Tensor| {
        t.to_vec::<f32>()
            .unwrap()
            .iter()
            .map(|v| v.to_bits())
            .collect()
    };
    all.iter().map(bits).collect()
}

fn cotangent(cx: &Cx, c: &Case, x: &[Tensor]) -> Tensor {
    let y = (c.forward)(cx, c, x).unwrap().remove(0);
    normals(cx, &mut Philox::new(17), y.dims())
}

#[test]
fn a_sample_has_the_same_bits_in_any_batch() {
    const BATCH: usize = 5;
    let cx = Cx::native();
    for c in cases() {
        let x = c.draw(&cx, BATCH);
        let dy = cotangent(&cx, &c, &x);
        let together = bits(&cx, &c, &x, Some(&dy));
        for i in 0..BATCH {
            let one: Vec<Tensor> = x
                .iter()
                .enumerate()
                .map(|(j, x)| {
                    if j < c.inputs.len() {
                        x.samples(i..i + 1).unwrap()
                    } else {
                        x.clone()
                    }
                })
                .collect();
            let alone = bits(&cx, &c, &one, Some(&dy.samples(i..i + 1).unwrap()));
            for (alone, together) in alone.iter().zip(&together) {
                let row = &together[i * alone.len()..][..alone.len()];
                assert!(alone == row, "{}: sample {i} of {BATCH} differs", c.name);
            }
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let cx = Cx::native();
            let one = |c: &Case| {
                let x = c.draw(&cx, 2);
                bits(&cx, c, &x, Some(&cotangent(&cx, c, &x)))
            };
            let all = cases().into_iter().chain(trained_cases());
            all.map(|c| (one(&c), c.name)).collect::<Vec<_>>()
        })
    };
    let (one, two) = (run(1), run(2));
    for ((one, name), (two, _)) in one.iter().zip(&two) {
        assert!(one == two, "{name}: 1 and 2 threads differ");
    }
}
