//! A sampler of one's own: MPGD (He et al., "Manifold Preserving Guided Diffusion", ICLR 2024), which moves x0 and not x, so that
//! no gradient goes through the network.
//!
//! A `Sampler` is one step; the loop, noise, divergence, progress and graphs are the crate's. Run with
//! `cargo run --release --example 05_own_sampler`.

use posteriori::metrics::psnr::psnr;
use posteriori::operators::Measurement;
use posteriori::pipeline::{Item, Own, embedded};
use posteriori::samplers::{self, At, Problem, Sampler};
use posteriori::{Cx, Device, Method, Pipeline, Restore, Result, Task, Tensor, scenes};

/// ```text
/// for t = T..1:
///     x0 = E[x0 | x_t]
///     x0 = x0 - rate grad_{x0} || f(D(x0)) - y ||
///     x_{t-1} ~ p(x_{t-1} | x_t, x0)
/// ```
struct Mpgd {
    rate: f64,
}

impl Sampler for Mpgd {
    fn step(&self, cx: &Cx, problem: &Problem<'_>, at: &At<'_>, x: Tensor) -> Result<Tensor> {
        let x0 = samplers::tweedie(cx, problem.denoiser, at.step, &x)?;
        let measured = problem.measured()?;
        let (loss, grad) = samplers::misfit(cx, problem.codec, measured, &x0)?;
        (at.watch)("loss", &loss);
        let (a, b) = at.step.mean;
        at.draw(cx, &[(a, &x), (b, &x0), (-b * self.rate, &grad)])
    }
}

fn main() -> Result<()> {
    let size = embedded::SIZE;
    let task = Task::parse("random:0.7")?;
    let truth = scenes::render(3, 0, size)?;
    let y = Measurement::new(task.clone(), 0.0, 0, size)?.measure(&truth, 0)?;

    let pipeline = Pipeline::open(embedded::folder()?, Device::auto()?)?;
    // Steps and their times are the method's; what a step does is the sampler's.
    let job = Restore::new(task, Method::dps().steps(25)).seed(7);
    let item = Item {
        y: &y,
        key: 0,
        sample: 0,
    };
    for rate in [0.0, 10.0] {
        let sampler = Mpgd { rate };
        let own = Own {
            sampler: Some(&sampler),
            ..Own::default()
        };
        for restored in pipeline.restore_with(&job, own, &[item], |_| {})? {
            let restored = restored?;
            println!(
                "rate {rate}: residual {:.2}, PSNR {:.2} dB",
                restored.residual,
                psnr(&restored.image, &truth)?
            );
        }
    }
    Ok(())
}
