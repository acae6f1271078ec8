//! Samplers one step at a time, in f64, over a linear network: the same step in both coordinates, closed forms.

use posteriori::diffusion::prior::Pixels;
use posteriori::diffusion::schedule::{Coordinates, Schedule, Solver, Spacing, Step};
use posteriori::operators::{Operator, Task};
use posteriori::ops::{combine, noise};
use posteriori::rng::Stream;
use posteriori::runtime::Runtime;
use posteriori::samplers::dmap::{Dmap, Project};
use posteriori::samplers::dps::Dps;
use posteriori::samplers::dsg::Dsg;
use posteriori::samplers::freedom::Freedom;
use posteriori::samplers::psld::Psld;
use posteriori::samplers::resample::{Blend, Descent, Resample, Solve, Stages};
use posteriori::samplers::{At, Draw, Follow, Following, Measurement, Problem, Sampler};
use posteriori::{Cx, DType, Tensor};

use crate::oracle;
use crate::steps::Linear;

const SHAPE: [usize; 4] = [2, 6, 5, 3];
const STEPS: usize = 6;

fn cx() -> Cx {
    Cx::new(Runtime::native(), DType::F64).unwrap()
}

fn field(cx: &Cx, draw: u32) -> Tensor {
    let streams = [0, 1].map(|sample| Stream::new(3, 4, sample));
    noise::normals(cx, SHAPE, &streams, 7, draw).unwrap()
}

/// Random inpainting of the field of draw 5.
struct Fixture {
    cx: Cx,
    operator: Box<dyn Operator>,
    y: Tensor,
}

impl Fixture {
    fn new() -> Self {
        let cx = cx();
        let task = Task::parse("random:0.5:3").unwrap();
        let operator = task.build(&cx, [SHAPE[1], SHAPE[2]]).unwrap();
        let y = operator.measure(&cx, &field(&cx, 5)).unwrap();
        Fixture { cx, operator, y }
    }

    fn steps(&self, coordinates: Coordinates) -> Vec<Step> {
        let config = oracle::data("sd2-base").join("scheduler/scheduler_config.json");
        let schedule = Schedule::open(config).unwrap();
        schedule
            .steps(STEPS, Spacing::Leading, coordinates, Solver::default())
            .unwrap()
    }

    /// The state after step `i` from `x`, with draws scaled by `noise`.
    fn step(
        &self,
        sampler: &dyn Sampler,
        steps: &[Step],
        i: usize,
        x: &Tensor,
        noise: f64,
    ) -> Tensor {
        let cx = &self.cx;
        let problem = Problem {
            denoiser: &Linear,
            guide: &Linear,
            codec: &Pixels,
            measurement: Some(Measurement {
                operator: &*self.operator,
                y: &self.y,
            }),
            follow: Follow::Plain,
        };
        let draw = |draw| {
            Ok(Draw::Given(combine::forward(
                cx,
                &[(noise, &field(cx, 10 + draw))],
            )?))
        };
        let at = At {
            step: &steps[i],
            next: steps.get(i + 1),
            noise: &draw,
            watch: &|_, _| (),
            following: &Following::new(cx, problem.follow, x).unwrap(),
        };
        sampler.step(cx, &problem, &at, x.clone()).unwrap()
    }
}

/// Equal to rounding, after a handful of f64 operations on numbers of order one.
fn assert_same(what: &str, got: &Tensor, want: &Tensor) {
    let (got, want) = (got.to_f64().unwrap(), want.to_f64().unwrap());
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(&want) {
        let error = (got - want).abs();
        assert!(error <= 1e-11 * (1.0 + want.abs()), "{what}: {got} {want}");
    }
}

/// A VE state is the VP state over sqrt(abar), before and after every step, when zeta is divided by what the gradient is
/// multiplied by: its own state's sqrt(abar) and that of the state it is added to.
#[test]
fn a_step_is_the_same_in_both_coordinates() {
    type New = fn(f64, usize) -> Box<dyn Sampler>;
    fn resample(zeta: f64, stages: Stages, blend: Blend) -> Box<dyn Sampler> {
        Box::new(Resample {
            zeta,
            every: 1,
            solve: Solve {
                stages,
                iterations: 3,
                rate: 0.2,
                descent: Descent::Gradient,
                strength: 40.0,
                blend,
            },
        })
    }
    // Whether the gradient is taken at the state before the step; else at that after it.
    let samplers: [(&str, bool, New); 9] = [
        ("dps", true, |zeta, _| Box::new(Dps { zeta })),
        ("dsg", true, |_, _| {
            Box::new(Dsg {
                rate: 0.3,
                interval: 1,
            })
        }),
        ("psld", true, |zeta, _| {
            Box::new(Psld {
                zeta,
                gamma: 0.5 * zeta,
            })
        }),
        ("freedom", true, |zeta, i| {
            Box::new(Freedom {
                zeta,
                repeats: 3,
                window: [i, i],
            })
        }),
        ("resample", true, |zeta, _| {
            resample(zeta, Stages::Latent, Blend::Original)
        }),
        ("resample", true, |zeta, _| {
            resample(zeta, Stages::Pixel, Blend::Original)
        }),
        ("resample", true, |zeta, _| {
            resample(zeta, Stages::Latent, Blend::Printed)
        }),
        ("dmap", false, |zeta, _| {
            Box::new(Dmap {
                zeta,
                ascents: 2,
                project: Project::Each,
            })
        }),
        ("dmap", false, |zeta, _| {
            Box::new(Dmap {
                zeta,
                ascents: 2,
                project: Project::Last,
            })
        }),
    ];
    let fixture = Fixture::new();
    let [ve, vp] = [Coordinates::Ve, Coordinates::Vp].map(|space| fixture.steps(space));
    let scaled = |x: &Tensor, by: f64| combine::forward(&fixture.cx, &[(by, x)]).unwrap();
    for (name, before, new) in samplers {
        for i in 0..STEPS {
            let (now, then) = (ve[i].alpha_bar, ve[i].alpha_bar_next);
            let x = field(&fixture.cx, 0);
            let zeta = 0.4;
            let taken_at = if before { now } else { then };
            let want = fixture.step(&*new(zeta * (taken_at * then).sqrt(), i), &vp, i, &x, 1.0);
            let got = fixture.step(&*new(zeta, i), &ve, i, &scaled(&x, 1.0 / now.sqrt()), 1.0);
            assert_same(
                &format!("{name}, step {i}"),
                &scaled(&got, then.sqrt()),
                &want,
            );
        }
    }
}

/// On pixels the gluing loss is `||f^T (f x0 - y)||`, of a mask the distance to the measurement.
#[test]
fn psld_of_a_mask_on_pixels_is_dps() {
    let fixture = Fixture::new();
    let steps = fixture.steps(Coordinates::Vp);
    let x = field(&fixture.cx, 0);
    for i in 0..STEPS {
        let psld = Psld {
            zeta: 0.3,
            gamma: 0.2,
        };
        let got = fixture.step(&psld, &steps, i, &x, 1.0);
        let want = fixture.step(&Dps { zeta: 0.5 }, &steps, i, &x, 1.0);
        assert_same(&format!("step {i}"), &got, &want);
    }
}

/// The closed form of a mask: descent of rate 1 puts every measured pixel right at once and leaves the others. Under a
/// large eta the next state is that, at its noise level.
#[test]
fn resample_solves_for_the_measurement() {
    let fixture = Fixture::new();
    let steps = fixture.steps(Coordinates::Ve);
    let x = field(&fixture.cx, 0);
    let measured = fixture
        .operator
        .measure(&fixture.cx, &fixture.cx.upload(&[1.0; 180], SHAPE).unwrap());
    let (measured, y) = (
        measured.unwrap().to_f64().unwrap(),
        fixture.y.to_f64().unwrap(),
    );
    for stages in [Stages::Latent, Stages::Pixel] {
        for (descent, iterations, rate, tolerance) in [
            (Descent::Gradient, 1, 1.0, 1e-9),
            (Descent::Adam, 2000, 0.02, 1e-3),
        ] {
            let resample = Resample {
                zeta: 0.1,
                every: 2,
                solve: Solve {
                    stages,
                    iterations,
                    rate,
                    descent,
                    strength: 1e12,
                    blend: Blend::Original,
                },
            };
            let solved = fixture
                .step(&resample, &steps, 1, &x, 0.0)
                .to_f64()
                .unwrap();
            let x0 = combine::forward(
                &fixture.cx,
                &[(
                    steps[1].x0_from.0 + 0.3 * steps[1].x0_from.1 * steps[1].input,
                    &x,
                )],
            );
            let x0 = x0.unwrap().to_f64().unwrap();
            for (i, solved) in solved.into_iter().enumerate() {
                let want = if measured[i] == 1.0 { y[i] } else { x0[i] };
                assert!(
                    (solved - want).abs() < tolerance * (1.0 + want.abs()),
                    "{descent:?} {i}: {solved} {want}"
                );
            }
            let dps = Dps { zeta: 0.1 };
            let [between, plain] =
                [&resample as &dyn Sampler, &dps].map(|s| fixture.step(s, &steps, 0, &x, 1.0));
            assert_same("between two resamplings", &between, &plain);
        }
    }
}

#[test]
fn what_is_followed_in_place_of_a_gradient() {
    let cx = &cx();
    let [first, second] = [0, 1].map(|draw| field(cx, draw));
    let values = |t: &Tensor| t.to_f64().unwrap();
    let (a, b) = (values(&first), values(&second));
    let follow = |rule| {
        let following = Following::new(cx, rule, &first).unwrap();
        [&first, &second].map(|g| values(&following.of(cx, g.clone()).unwrap()))
    };
    let close = |got: &[f64], want: &dyn Fn(usize) -> f64| {
        for (i, got) in got.iter().enumerate() {
            assert!((got - want(i)).abs() < 1e-12, "{i}: {got} {}", want(i));
        }
    };
    assert_eq!(follow(Follow::Plain), [a.clone(), b.clone()]);
    let one = SHAPE[1..].iter().product();
    let norm = |of: &[f64], i: usize| {
        of.chunks(one)
            .nth(i / one)
            .unwrap()
            .iter()
            .map(|v| v * v)
            .sum::<f64>()
            .sqrt()
    };
    let [_, normed] = follow(Follow::Norm);
    close(&normed, &|i| b[i] / norm(&b, i));
    let [_, gathered] = follow(Follow::Momentum { beta: 0.7 });
    close(&gathered, &|i| 0.7 * a[i] + b[i]);
    // Kingma and Ba, algorithm 1.
    let (beta1, beta2) = (0.8, 0.95);
    let [first, second] = follow(Follow::Adam { beta1, beta2 });
    close(&first, &|i| a[i] / (a[i].abs() + 1e-8));
    close(&second, &|i| {
        let m = (1.0 - beta1) * (beta1 * a[i] + b[i]) / (1.0 - beta1 * beta1);
        let v = (1.0 - beta2) * (beta2 * a[i] * a[i] + b[i] * b[i]) / (1.0 - beta2 * beta2);
        m / (v.sqrt() + 1e-8)
    });
}
