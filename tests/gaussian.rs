//! Samplers against closed forms: a Gaussian prior, whose every conditional is Gaussian too.

use posteriori::diffusion::prior::{Denoiser, Pixels, Pullback};
use posteriori::diffusion::schedule::{Coordinates, Schedule, Solver, Spacing, Step};
use posteriori::operators::Task;
use posteriori::ops::{combine, noise};
use posteriori::rng::{INITIAL, Stream};
use posteriori::runtime::Runtime;
use posteriori::samplers::ancestral::Ancestral;
use posteriori::samplers::dmap::{Dmap, Project};
use posteriori::samplers::{
    self, At, Draw, Follow, Following, Measurement, Problem, Sampler, Watch,
};
use posteriori::{Cx, DType, Result, Tensor};

use crate::oracle;

const SAMPLES: usize = 512;
const SHAPE: [usize; 4] = [SAMPLES, 4, 4, 3];

fn schedule() -> Schedule {
    Schedule::open(oracle::data("sd2-base").join("scheduler/scheduler_config.json")).unwrap()
}

/// Pixels independent and normal with a mean and variance of their own; after a measurement, those of
/// the posterior. E[x0 | x] = m + sqrt(a) v / (a v + 1 - a) (x - sqrt(a) m).
struct Gaussian {
    mean: Vec<f64>,
    variance: Vec<f64>,
    alpha_bar: Vec<f64>,
}

impl Gaussian {
    /// The prediction is `slope x + offset`, pixel by pixel.
    fn affine(&self, t: f64) -> (Vec<f64>, Vec<f64>) {
        let a = self.alpha_bar[t as usize];
        let parts = self.mean.iter().zip(&self.variance).map(|(m, v)| {
            let slope = (1.0 - a).sqrt() / (a * v + 1.0 - a);
            (slope, -slope * a.sqrt() * m)
        });
        parts.unzip()
    }

    fn apply(&self, cx: &Cx, x: &Tensor, t: &Tensor, offset: bool) -> Result<Tensor> {
        let (slope, shift) = self.affine(t.to_f64()?[0]);
        let pixels = slope.len();
        let y: Vec<f64> = x
            .to_f64()?
            .iter()
            .enumerate()
            .map(|(i, x)| slope[i % pixels] * x + if offset { shift[i % pixels] } else { 0.0 })
            .collect();
        cx.upload(&y, x.shape())
    }
}

impl Denoiser for Gaussian {
    fn predict(&self, cx: &Cx, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        self.apply(cx, x, t, true)
    }

    fn predict_vjp<'a>(
        &'a self,
        cx: &'a Cx,
        x: &Tensor,
        t: &Tensor,
    ) -> Result<(Tensor, Pullback<'a>)> {
        let t = t.clone();
        Ok((
            self.predict(cx, x, &t)?,
            Box::new(move |dy| self.apply(cx, dy, &t, false)),
        ))
    }
}

fn run(
    cx: &Cx,
    sampler: &dyn Sampler,
    problem: &Problem<'_>,
    steps: &[Step],
    std: f64,
) -> Vec<f64> {
    let streams: Vec<_> = (0..SAMPLES as u32).map(|s| Stream::new(3, 4, s)).collect();
    let n = noise::normals(cx, SHAPE, &streams, INITIAL, 0).unwrap();
    let x = combine::forward(cx, &[(std, &n)]).unwrap();
    let draw = |step: usize, draw: u32| Draw::of(cx, &streams, step as u32, draw);
    samplers::run(cx, sampler, problem, steps, x, &draw, Watch::NONE)
        .unwrap()
        .x
        .to_f64()
        .unwrap()
}

/// Mean and variance of each pixel over the samples.
fn moments(x: &[f64], pixel: usize, pixels: usize) -> (f64, f64) {
    let values: Vec<f64> = x.iter().skip(pixel).step_by(pixels).copied().collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (
        mean,
        values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64,
    )
}

/// The samples against the exact mean and variance of the chain, within five standard errors of a sample
/// mean and variance; and the chain against the posterior that it discretises.
#[test]
fn the_exact_conditional_score_samples_the_posterior() {
    let cx = &Cx::new(Runtime::native(), DType::F64).unwrap();
    let schedule = schedule();
    let pixels: usize = SHAPE[1..].iter().product();
    let (prior_variance, sigma_y) = (0.25, 0.3);
    // Half of the pixels are measured, y = x + sigma_y n; the others keep the prior.
    let y = |i: usize| 0.8 * (i as f64).sin();
    let measured = |i: usize| i.is_multiple_of(2);
    let share = prior_variance / (prior_variance + sigma_y * sigma_y);
    let posterior = Gaussian {
        mean: (0..pixels)
            .map(|i| if measured(i) { share * y(i) } else { 0.0 })
            .collect(),
        variance: (0..pixels)
            .map(|i| {
                if measured(i) {
                    share * sigma_y * sigma_y
                } else {
                    prior_variance
                }
            })
            .collect(),
        alpha_bar: schedule.alphas_cumprod().to_vec(),
    };
    let problem = Problem {
        denoiser: &posterior,
        guide: &posterior,
        codec: &Pixels,
        measurement: None,
        follow: Follow::Plain,
    };
    for (coordinates, solver) in [
        (Coordinates::Vp, Solver::default()),
        (Coordinates::Ve, Solver::default()),
        (Coordinates::Vp, Solver::Ddim { eta: 0.5 }),
    ] {
        let steps = |count| {
            schedule
                .steps(count, Spacing::Leading, coordinates, solver)
                .unwrap()
        };
        let (few, many) = (steps(250), steps(500));
        let std = few[0].initial_std(Spacing::Leading, coordinates);
        let x = run(cx, &Ancestral, &problem, &few, std);
        for pixel in 0..pixels {
            let (mean, variance) = chain(&posterior, &few, pixel, std);
            let (got_mean, got_variance) = moments(&x, pixel, pixels);
            let n = SAMPLES as f64;
            let (mean_error, variance_error) =
                ((variance / n).sqrt(), variance * (2.0 / (n - 1.0)).sqrt());
            assert!(
                (got_mean - mean).abs() < 5.0 * mean_error,
                "{solver:?} {pixel}: {got_mean} {mean}"
            );
            assert!(
                (got_variance - variance).abs() < 5.0 * variance_error,
                "{pixel}: {got_variance} {variance}"
            );
            // The chain discretises the posterior: its error falls as the steps grow.
            let (finer_mean, finer_variance) = chain(&posterior, &many, pixel, std);
            let error = |m: f64, v: f64| {
                let (want_m, want_v) = (posterior.mean[pixel], posterior.variance[pixel]);
                ((m - want_m).abs() / want_v.sqrt()).max((v / want_v - 1.0).abs())
            };
            let (coarse, fine) = (error(mean, variance), error(finer_mean, finer_variance));
            assert!(
                coarse < 0.2 && fine < 0.7 * coarse.max(0.02),
                "{solver:?}: {coarse} {fine}"
            );
        }
    }
}

/// Mean and variance that the steps give to a pixel: each is `x <- k x + c + sigma n`.
fn chain(prior: &Gaussian, steps: &[Step], pixel: usize, std: f64) -> (f64, f64) {
    steps
        .iter()
        .fold((0.0, std * std), |(mean, variance), step| {
            let (slope, shift) = prior.affine(step.t);
            let k0 = step.x0_from.0 + step.x0_from.1 * slope[pixel] * step.input;
            let c0 = step.x0_from.1 * shift[pixel];
            let (k, c) = (step.mean.0 + step.mean.1 * k0, step.mean.1 * c0);
            (k * mean + c, k * k * variance + step.sigma * step.sigma)
        })
}

/// A DMAP step ends on the sphere of radius sqrt(d) sigma around the mean of the transition, to rounding.
#[test]
fn dmap_ends_on_its_sphere() {
    let cx = &Cx::new(Runtime::native(), DType::F64).unwrap();
    let schedule = schedule();
    let pixels: usize = SHAPE[1..].iter().product();
    let prior = Gaussian {
        mean: vec![0.1; pixels],
        variance: vec![0.25; pixels],
        alpha_bar: schedule.alphas_cumprod().to_vec(),
    };
    let operator = Task::parse("random:0.5:3")
        .unwrap()
        .build(cx, [SHAPE[1], SHAPE[2]])
        .unwrap();
    let y = cx.upload(&vec![0.4; SAMPLES * pixels], SHAPE).unwrap();
    let y = operator.measure(cx, &y).unwrap();
    let measurement = Some(Measurement {
        operator: &*operator,
        y: &y,
    });
    let problem = Problem {
        denoiser: &prior,
        guide: &prior,
        codec: &Pixels,
        measurement,
        follow: Follow::Plain,
    };
    let streams: Vec<_> = (0..SAMPLES as u32).map(|s| Stream::new(3, 4, s)).collect();
    let x = noise::normals(cx, SHAPE, &streams, INITIAL, 0).unwrap();
    for coordinates in [Coordinates::Ve, Coordinates::Vp] {
        let steps = schedule
            .steps(10, Spacing::Leading, coordinates, Solver::default())
            .unwrap();
        for project in [Project::Each, Project::Last] {
            let sampler = Dmap {
                zeta: 0.4,
                ascents: 3,
                project,
            };
            for (step, next) in steps.iter().zip(&steps[1..]) {
                let noise = |draw| Draw::of(cx, &streams, 5, draw);
                let following = Following::new(cx, Follow::Plain, &x).unwrap();
                let at = At {
                    step,
                    next: Some(next),
                    noise: &noise,
                    watch: &|_, _| (),
                    following: &following,
                };
                let w = sampler
                    .step(cx, &problem, &at, x.clone())
                    .unwrap()
                    .to_f64()
                    .unwrap();
                let x0 = samplers::tweedie(cx, &prior, step, &x).unwrap();
                let mean = combine::forward(cx, &[(step.mean.0, &x), (step.mean.1, &x0)]).unwrap();
                let mean = mean.to_f64().unwrap();
                let radius = (pixels as f64).sqrt() * step.sigma;
                for (w, mean) in w.chunks(pixels).zip(mean.chunks(pixels)) {
                    let distance = w
                        .iter()
                        .zip(mean)
                        .map(|(w, m)| (w - m).powi(2))
                        .sum::<f64>()
                        .sqrt();
                    assert!(
                        (distance / radius - 1.0).abs() < 1e-10,
                        "{distance} {radius}"
                    );
                }
            }
        }
    }
}
