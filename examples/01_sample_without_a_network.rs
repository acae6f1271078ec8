//! DPS without a network: a Gaussian prior in closed form, half of the pixels measured.
//!
//! Shows what an embedder brings: a `Denoiser` of one's own. Run with
//! `cargo run --example 01_sample_without_a_network`.

use posteriori::diffusion::prior::{Denoiser, Pixels, Pullback};
use posteriori::diffusion::schedule::{Coordinates, Schedule, Solver, Spacing};
use posteriori::operators::Task;
use posteriori::ops::{combine, noise};
use posteriori::rng::{INITIAL, Stream};
use posteriori::samplers::dps::Dps;
use posteriori::samplers::{self, Draw, Follow, Measurement, Problem, Watch};
use posteriori::{Cx, Result, Tensor};

/// Pixels that are independent and normal with variance `v`: E[eps | x] = x sqrt(1 - a) / (a v + 1 - a).
struct GaussianPrior {
    v: f64,
    alpha_bar: Vec<f64>,
}

impl GaussianPrior {
    fn slope(&self, t: &Tensor) -> Result<f64> {
        let a = self.alpha_bar[t.to_f64()?[0].round() as usize];
        Ok((1.0 - a).sqrt() / (a * self.v + 1.0 - a))
    }
}

impl Denoiser for GaussianPrior {
    fn predict(&self, cx: &Cx, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        combine::forward(cx, &[(self.slope(t)?, x)])
    }

    fn predict_vjp<'a>(
        &'a self,
        cx: &'a Cx,
        x: &Tensor,
        t: &Tensor,
    ) -> Result<(Tensor, Pullback<'a>)> {
        let slope = self.slope(t)?;
        Ok((
            self.predict(cx, x, t)?,
            Box::new(move |dy| combine::forward(cx, &[(slope, dy)])),
        ))
    }
}

fn main() -> Result<()> {
    let cx = Cx::native();
    let schedule = Schedule::from_json(
        "schedule",
        r#"{"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "num_train_timesteps": 1000}"#,
    )?;
    let prior = GaussianPrior {
        v: 0.25,
        alpha_bar: schedule.alphas_cumprod().to_vec(),
    };
    let streams = [Stream::new(1, 2, 0)];

    let shape = [1, 16, 16, 3];
    let truth = noise::normals(&cx, shape, &[Stream::new(7, 7, 0)], INITIAL, 0)?;
    let truth = combine::forward(&cx, &[(prior.v.sqrt(), &truth)])?;
    let operator = Task::parse("random:0.5")?.build(&cx, [16, 16])?;
    let y = operator.measure(&cx, &truth)?;

    let steps = schedule.steps(200, Spacing::Leading, Coordinates::Vp, Solver::default())?;
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
    let x = noise::normals(&cx, shape, &streams, INITIAL, 0)?;
    let draw = |step: usize, draw: u32| Draw::of(&cx, &streams, step as u32, draw);
    let watch = Watch {
        names: &["loss"],
        each: &|seen| {
            if seen.name == "loss" && seen.step.is_multiple_of(40) {
                println!(
                    "step {:>3}: ||f(x0) - y|| = {:.3}",
                    seen.step, seen.values[0]
                );
            }
            Ok(())
        },
    };
    let x = samplers::run(&cx, &Dps { zeta: 1.0 }, &problem, &steps, x, &draw, watch)?.x;

    let error = combine::forward(&cx, &[(1.0, &operator.measure(&cx, &x)?), (-1.0, &y)])?;
    let norm =
        |t: &Tensor| -> Result<f64> { Ok(t.to_f64()?.iter().map(|v| v * v).sum::<f64>().sqrt()) };
    println!(
        "final residual {:.3}, of a measurement of norm {:.3}",
        norm(&error)?,
        norm(&y)?
    );
    Ok(())
}
