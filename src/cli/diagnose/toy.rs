//! `diagnose toy`: every sampler where the true posterior is known.

use std::path::{Path, PathBuf};

use serde_json::json;

use posteriori::diagnose::mixture::{Mixture, Point};
use posteriori::diagnose::plot;
use posteriori::diagnose::toy::{self, MEASURED, Summary, Toy};
use posteriori::io::csv;
use posteriori::samplers::Sampler;
use posteriori::samplers::ancestral::Ancestral;
use posteriori::samplers::dmap::{Dmap, Project};
use posteriori::samplers::dps::Dps;
use posteriori::samplers::dsg::Dsg;
use posteriori::samplers::freedom::Freedom;
use posteriori::samplers::psld::Psld;
use posteriori::samplers::resample::{Blend, Descent, Resample, Solve, Stages};
use posteriori::{Error, Result as Fallible};

use crate::cli::report::{Reporting, cells};
use crate::cli::run::expect_count;
use crate::cli::ui::Ui;

/// The paper's toy (A.4, Figure 8): points of two Gaussians of which the first coordinate is measured
///
/// Every sampler beside the true posterior, and beside a sampler of the exact conditional score as a control. OUT gets
/// toy.csv and toy.svg, the clouds of points.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the results
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Points of each sampler
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    samples: usize,
    /// Noise levels
    #[arg(long, value_name = "N", default_value_t = 100)]
    steps: usize,
    /// The standard deviation of each Gaussian
    #[arg(long, value_name = "X", default_value_t = 0.3)]
    std: f64,
    /// The seed of all noise
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    report: Reporting,
}

pub(super) fn run(args: &Args, ui: &Ui) -> Fallible<()> {
    let &Args {
        std,
        steps,
        samples,
        seed,
        ..
    } = args;
    if !(std > 0.0 && std.is_finite()) {
        let why = format!("wanted a number above 0, got {std}");
        return Err(Error::argument("--std", why));
    }
    expect_count("--steps", steps, 2)?;
    expect_count("--samples", samples, 1)?;
    let toy = Toy::new(&toy::karras(steps, 0.002, 4.0), samples)?;
    let (rows, svg) = compare(&toy, std, seed, &args.output, ui)?;
    args.report.write(&args.output, "The toy", |page| {
        page.text(
            "Points of two Gaussians of which the first coordinate is measured: every sampler beside the true posterior, \
             and beside a sampler of the exact conditional score as a control.",
        );
        page.facts([
            ("measured x1", MEASURED.to_string()),
            ("points of each sampler", samples.to_string()),
            ("noise levels", steps.to_string()),
            ("standard deviation of each Gaussian", std.to_string()),
            ("seed", seed.to_string()),
        ]);
        page.table(&HEAD, rows.iter().map(|row| cells(row, 1)));
        let caption = "Points, and the histogram of x2; the red line is what was measured.";
        page.svg(caption, &svg);
        Ok(())
    })
}

/// The columns of the table.
const HEAD: [&str; 5] = [
    "sampler",
    "share of x2 > 0",
    "mean of x2",
    "std of x2",
    "median |x1 - y|",
];

/// What is known of the true posterior given the measurement with this noise.
fn truth(prior: &Mixture, noise: f64) -> (String, Mixture) {
    let name = match noise {
        0.0 => "true posterior".to_owned(),
        noise => format!("true posterior, noise {noise}"),
    };
    (name, prior.given_first(MEASURED, noise))
}

/// Writes the table and the plot, and returns them.
fn compare(
    toy: &Toy,
    std: f64,
    seed: u64,
    output: &Path,
    ui: &Ui,
) -> Fallible<(Vec<Vec<String>>, String)> {
    super::make(output)?;
    let prior = Mixture::toy(std);
    let mut rows: Vec<Vec<String>> = Vec::new();
    ui.line(format!(
        "{:<34}{:>16}{:>12}{:>12}{:>17}",
        HEAD[0], HEAD[1], HEAD[2], HEAD[3], HEAD[4]
    ));
    let mut tell = |name: &str, values: [Option<f64>; 4]| {
        let text = |v: Option<f64>| v.map_or_else(String::new, |v| format!("{v:.4}"));
        let [a, b, c, d] = values.map(text);
        ui.line(format!("{name:<34}{a:>16}{b:>12}{c:>12}{d:>17}"));
        ui.record(
            "toy",
            json!({ "sampler": name, "upper": values[0], "mean": values[1], "std": values[2], "misfit": values[3] }),
        );
        rows.push(vec![name.to_owned(), a, b, c, d]);
    };
    for noise in [0.0, 0.3, 1.0] {
        let (name, of) = truth(&prior, noise);
        let [lower, upper] = of.weights;
        let mean = lower * of.means[0][1] + upper * of.means[1][1];
        let apart = of.means[1][1] - of.means[0][1];
        let std = (of.variances[1] + lower * upper * apart * apart).sqrt();
        tell(&name, [Some(upper), Some(mean), Some(std), None]);
    }
    let mut panels: Vec<(String, Vec<Point>)> = Vec::new();
    let all = samplers(toy.steps());
    ui.start_bar(all.len() as u64 + 2);
    let exact = [0.3, 1.0].map(|noise| {
        let name = format!("exact conditional score, noise {noise}");
        (
            name,
            Box::new(Ancestral) as Box<dyn Sampler>,
            truth(&prior, noise).1,
        )
    });
    let all = all
        .into_iter()
        .map(|(name, sampler)| (name, sampler, prior));
    for (i, (name, sampler, of)) in all.chain(exact).enumerate() {
        let points = toy.run(&*sampler, &of, seed)?;
        let Summary {
            upper,
            mean,
            std,
            misfit,
        } = Summary::of(&points);
        tell(&name, [upper, mean, std, misfit].map(Some));
        panels.push((name, points));
        ui.advance(i as u64 + 1, "");
    }
    ui.end_bar();
    csv::write(&output.join("toy.csv"), &HEAD, &rows)?;
    let panels: Vec<(String, &[Point])> = panels
        .iter()
        .map(|(name, points)| (name.clone(), &points[..]))
        .collect();
    let svg = plot::clouds(&panels, MEASURED, 2.5);
    super::write(&output.join("toy.svg"), &svg)?;
    Ok((rows, svg))
}

/// Every sampler at some strengths, for a run of so many steps.
fn samplers(steps: usize) -> Vec<(String, Box<dyn Sampler>)> {
    let mut all: Vec<(String, Box<dyn Sampler>)> =
        vec![("unconditional".into(), Box::new(Ancestral))];
    for zeta in [0.05, 0.2, 0.5, 1.0] {
        all.push((format!("DPS, zeta {zeta}"), Box::new(Dps { zeta })));
    }
    for zeta in [0.05, 0.1, 0.5] {
        let dmap = Dmap {
            zeta,
            ascents: 3,
            project: Project::Each,
        };
        all.push((format!("DMAP, K 3, zeta {zeta}"), Box::new(dmap)));
    }
    for rate in [0.05, 0.5, 1.0] {
        all.push((
            format!("DSG, rate {rate}"),
            Box::new(Dsg { rate, interval: 1 }),
        ));
    }
    let psld = Psld {
        zeta: 0.05,
        gamma: 0.005,
    };
    all.push(("PSLD, zeta 0.05, gamma 0.005".into(), Box::new(psld)));
    let freedom = Freedom {
        zeta: 0.05,
        repeats: 2,
        window: [steps / 5, steps / 2],
    };
    all.push(("FreeDoM, K 2, zeta 0.05".into(), Box::new(freedom)));
    let resample = Resample {
        zeta: 0.05,
        every: (steps / 10).max(1),
        solve: Solve {
            stages: Stages::Latent,
            iterations: 10,
            rate: 0.5,
            descent: Descent::Gradient,
            strength: 40.0,
            blend: Blend::Original,
        },
    };
    all.push(("ReSample, zeta 0.05, K 10".into(), Box::new(resample)));
    all
}
