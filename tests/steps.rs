//! The fused launches of a sampler's step against the lines they stand for, in f64.

use std::cell::RefCell;

use posteriori::diffusion::prior::{Denoiser, Pixels, Pullback};
use posteriori::diffusion::schedule::{Coordinates, Schedule, Solver, Spacing, Step};
use posteriori::operators::Task;
use posteriori::ops::{combine, noise, sphere};
use posteriori::rng::Stream;
use posteriori::runtime::Runtime;
use posteriori::samplers::ancestral::Ancestral;
use posteriori::samplers::dmap::{Dmap, Project};
use posteriori::samplers::dps::Dps;
use posteriori::samplers::{self, At, Draw, Follow, Following, Measurement, Problem, Sampler};
use posteriori::{Cx, DType, Result, Tensor};

use crate::oracle;

const SHAPE: [usize; 4] = [3, 6, 5, 3];

fn cx() -> Cx {
    Cx::new(Runtime::native(), DType::F64).unwrap()
}

fn streams() -> [Stream; 3] {
    [0, 1, 2].map(|sample| Stream::new(3, 4, sample))
}

fn field(cx: &Cx, draw: u32) -> Tensor {
    noise::normals(cx, SHAPE, &streams(), 7, draw).unwrap()
}

/// Equal to rounding: a few roundings of sums whose terms are of order one.
fn assert_same(what: &str, got: &Tensor, want: &Tensor) {
    let (got, want) = (got.to_f64().unwrap(), want.to_f64().unwrap());
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(&want) {
        let error = (got - want).abs();
        assert!(error <= 1e-13 * (1.0 + want.abs()), "{what}: {got} {want}");
    }
}

#[test]
fn noise_drawn_in_a_combination_is_the_field_at_its_address() {
    let cx = &cx();
    let xs = [0, 1, 2].map(|draw| field(cx, draw));
    let terms = [(0.7, &xs[0]), (-1.3, &xs[1]), (0.2, &xs[2])];
    let (n, addresses) = (
        field(cx, 9),
        noise::addresses(cx, &streams(), 7, 9).unwrap(),
    );
    for count in 1..=3 {
        let want = combine::forward(cx, &[&terms[..count], &[(0.4, &n)]].concat()).unwrap();
        let got = combine::with_noise(cx, &terms[..count], 0.4, &addresses).unwrap();
        assert_same("with noise", &got, &want);
    }
    let two = noise::addresses(cx, &streams()[..2], 7, 9).unwrap();
    assert!(combine::with_noise(cx, &terms, 0.4, &two).is_err());
    assert!(combine::with_noise(cx, &terms, 0.4, &n).is_err());
    assert!(combine::with_noise(cx, &[], 0.4, &addresses).is_err());
}

#[test]
fn coefficients_are_of_each_sample() {
    let cx = &cx();
    let x = field(cx, 0);
    let addresses = noise::addresses(cx, &streams(), 7, 1).unwrap();
    let a = [[0.5, 1.0], [-2.0, 0.0], [1.5, 0.3]];
    let rows = cx.upload(a.as_flattened(), [3, 2]).unwrap();
    let got = combine::per_sample(cx, &rows, &[&x], Some(&addresses)).unwrap();
    for (i, [a, scale]) in a.into_iter().enumerate() {
        let want = combine::with_noise(cx, &[(a, &x)], scale, &addresses).unwrap();
        let of = |t: &Tensor| t.samples(i..i + 1).unwrap();
        assert_same("one sample", &of(&got), &of(&want));
    }
}

#[test]
fn a_step_and_its_projection_are_one_op() {
    let cx = &cx();
    let [w, m, g] = [0, 1, 2].map(|draw| field(cx, draw));
    let stepped = combine::forward(cx, &[(1.0, &w), (-0.6, &g)]).unwrap();
    let want = sphere::forward(cx, &stepped, None, &m, 2.5).unwrap();
    let got = sphere::forward(cx, &w, Some((-0.6, &g)), &m, 2.5).unwrap();
    assert_same("projected", &got, &want);
    let zero = combine::forward(cx, &[(0.0, &g)]).unwrap();
    let centre = sphere::forward(cx, &m, Some((1.0, &zero)), &m, 2.5).unwrap();
    assert_same("at the centre", &centre, &m);
}

/// Predicts `0.3 x`.
pub(crate) struct Linear;

impl Denoiser for Linear {
    fn predict(&self, cx: &Cx, x: &Tensor, _: &Tensor) -> Result<Tensor> {
        combine::forward(cx, &[(0.3, x)])
    }

    fn predict_vjp<'a>(
        &'a self,
        cx: &'a Cx,
        x: &Tensor,
        t: &Tensor,
    ) -> Result<(Tensor, Pullback<'a>)> {
        let pull = move |dy: &Tensor| combine::forward(cx, &[(0.3, dy)]);
        Ok((self.predict(cx, x, t)?, Box::new(pull)))
    }
}

/// The algorithms line by line, each line a launch of its own, the noise a tensor.
struct Lines<'a> {
    cx: &'a Cx,
    problem: &'a Problem<'a>,
    step: &'a Step,
    noise: &'a Tensor,
}

impl Lines<'_> {
    fn sum(&self, terms: &[(f64, &Tensor)]) -> Tensor {
        combine::forward(self.cx, terms).unwrap()
    }

    fn mean(&self, x: &Tensor) -> Tensor {
        let x0 = samplers::tweedie(self.cx, self.problem.denoiser, self.step, x).unwrap();
        self.sum(&[(self.step.mean.0, x), (self.step.mean.1, &x0)])
    }

    fn drawn(&self, mean: &Tensor) -> Tensor {
        self.sum(&[(1.0, mean), (self.step.sigma, self.noise)])
    }

    fn descend(&self, w: &Tensor, zeta: f64, step: &Step, at: &Tensor) -> Tensor {
        let g = samplers::guidance(self.cx, self.problem, step, at).unwrap();
        self.sum(&[(1.0, w), (-zeta, &g.grad)])
    }

    fn dps(&self, x: &Tensor, zeta: f64) -> Tensor {
        let drawn = self.drawn(&self.mean(x));
        self.descend(&drawn, zeta, self.step, x)
    }

    fn dmap(&self, x: &Tensor, next: Option<&Step>, dmap: &Dmap) -> Tensor {
        let mean = self.mean(x);
        let Some(next) = next else {
            return mean;
        };
        let radius = (mean.shape().per_sample() as f64).sqrt() * self.step.sigma;
        let mut w = self.drawn(&mean);
        for k in 1..=dmap.ascents {
            w = self.descend(&w, dmap.zeta, next, &w);
            if dmap.project == Project::Each || k == dmap.ascents {
                w = sphere::forward(self.cx, &w, None, &mean, radius).unwrap();
            }
        }
        w
    }
}

#[test]
fn a_fused_step_is_its_algorithm_line_by_line() {
    let cx = &cx();
    let task = Task::parse("random:0.5:3").unwrap();
    let operator = task.build(cx, [SHAPE[1], SHAPE[2]]).unwrap();
    let y = operator.measure(cx, &field(cx, 5)).unwrap();
    let problem = Problem {
        denoiser: &Linear,
        guide: &Linear,
        codec: &Pixels,
        measurement: Some(Measurement {
            operator: &*operator,
            y: &y,
        }),
        follow: Follow::Plain,
    };
    let config = oracle::data("sd2-base").join("scheduler/scheduler_config.json");
    let schedule = Schedule::open(config).unwrap();
    let (x, n) = (field(cx, 0), field(cx, 9));
    let zeta = 0.4;
    let dmap = [Project::Each, Project::Last].map(|project| Dmap {
        zeta,
        ascents: 2,
        project,
    });
    for coordinates in [Coordinates::Ve, Coordinates::Vp] {
        let steps = schedule
            .steps(4, Spacing::Leading, coordinates, Solver::default())
            .unwrap();
        for (i, step) in steps.iter().enumerate() {
            let next = steps.get(i + 1);
            let lines = Lines {
                cx,
                problem: &problem,
                step,
                noise: &n,
            };
            let cases: [(&dyn Sampler, Tensor); 4] = [
                (&Ancestral, lines.drawn(&lines.mean(&x))),
                (&Dps { zeta }, lines.dps(&x, zeta)),
                (&dmap[0], lines.dmap(&x, next, &dmap[0])),
                (&dmap[1], lines.dmap(&x, next, &dmap[1])),
            ];
            for (sampler, want) in cases {
                let draws = RefCell::new(Vec::new());
                let drawn = |draw| {
                    draws.borrow_mut().push(draw);
                    Draw::of(cx, &streams(), 7, 9)
                };
                let following = Following::new(cx, Follow::Plain, &x).unwrap();
                let at = At {
                    step,
                    next,
                    noise: &drawn,
                    watch: &|_, _| (),
                    following: &following,
                };
                let got = sampler.step(cx, &problem, &at, x.clone()).unwrap();
                assert_same(&format!("step {i} in {coordinates:?}"), &got, &want);
                let once: &[u32] = if step.sigma == 0.0 { &[] } else { &[0] };
                assert_eq!(*draws.borrow(), once);
                let given = |_| Ok(Draw::Given(n.clone()));
                let at = At {
                    noise: &given,
                    ..at
                };
                let got = sampler.step(cx, &problem, &at, x.clone()).unwrap();
                assert_same(&format!("step {i} with noise given"), &got, &want);
            }
        }
    }
}
