//! The toy against numpy in f64, closed forms, finite differences, and what was measured of its samplers; scores against
//! PyTorch; deviations by hand.

use std::cell::RefCell;

use posteriori::diagnose::diversity::Diversity;
use posteriori::diagnose::mixture::{Mixture, Point};
use posteriori::diagnose::plot;
use posteriori::diagnose::score::{Estimate, Subject, distances, mean};
use posteriori::diagnose::toy::{self, MEASURED, Summary, Toy};
use posteriori::io::image::Image;
use posteriori::io::weights::Checkpoint;
use posteriori::rng::{INITIAL, Stream};
use posteriori::samplers::ancestral::Ancestral;
use posteriori::samplers::dmap::{Dmap, Project};
use posteriori::samplers::dps::Dps;
use posteriori::samplers::dsg::Dsg;
use posteriori::samplers::{Draw, Sampler};
use posteriori::{Device, Task};

use crate::oracle::{self, Fixture, assert_close};

fn goldens() -> Checkpoint {
    Checkpoint::open_file(oracle::data("toy/toy_gmm.safetensors")).unwrap()
}

fn values(file: &Checkpoint, name: &str) -> Vec<f64> {
    file.need(name).unwrap().to_f64().unwrap()
}

fn points(values: &[f64]) -> Vec<Point> {
    values.chunks_exact(2).map(|p| [p[0], p[1]]).collect()
}

/// The variances of the two toys, as the goldens call them.
fn toys() -> [(&'static str, Mixture); 2] {
    [
        ("std0.3", Mixture::toy(0.3)),
        ("var0.3", Mixture::toy(0.3f64.sqrt())),
    ]
}

#[test]
fn the_mean_and_its_jacobian_are_those_of_numpy() {
    let file = goldens();
    let probes = points(&values(&file, "toy/probe_x"));
    let close = |got: f64, want: f64| (got - want).abs() < 1e-12 * (1.0 + want.abs());
    for (tag, mixture) in toys() {
        for sigma in ["0.05", "0.5", "2.0"] {
            let of = |what: &str| values(&file, &format!("toy/{tag}/s{sigma}/{what}"));
            let (denoised, jacobian) = (of("denoised"), of("jacobian"));
            for (i, x) in probes.iter().enumerate() {
                let (mean, slope) = mixture.denoise(*x, sigma.parse().unwrap());
                for a in 0..2 {
                    assert!(close(mean[a], denoised[2 * i + a]), "{tag} {sigma} {i}");
                    for b in 0..2 {
                        assert!(
                            close(slope[a][b], jacobian[4 * i + 2 * a + b]),
                            "{tag} {sigma} {i}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_jacobian_of_a_posterior_is_its_difference() {
    const H: f64 = 1e-5;
    for noise in [0.0, 0.3, 1.0] {
        let mixture = Mixture::toy(0.3).given_first(MEASURED, noise);
        for (x, sigma) in [([0.4, -0.3], 0.5), ([-1.2, 0.9], 1.0), ([0.6, 1.1], 0.1)] {
            let (_, jacobian) = mixture.denoise(x, sigma);
            for j in 0..2 {
                let at = |h: f64| {
                    let mut moved = x;
                    moved[j] += h;
                    mixture.denoise(moved, sigma).0
                };
                let (up, down) = (at(H), at(-H));
                for i in 0..2 {
                    let want = (up[i] - down[i]) / (2.0 * H);
                    let got = jacobian[i][j];
                    assert!(
                        (got - want).abs() < 1e-8 * (1.0 + want.abs()),
                        "{noise} {got} {want}"
                    );
                }
            }
        }
    }
}

/// METHOD's closed forms of the share of the upper mode.
#[test]
fn the_true_posterior_is_at_one_mode() {
    for (noise, want) in [
        (0.0, 0.999985),
        (0.1, 0.99996),
        (0.3, 0.99615),
        (0.5, 0.9498),
        (0.7, 0.8487),
        (1.0, 0.7145),
    ] {
        let [_, upper] = Mixture::toy(0.3).given_first(MEASURED, noise).weights;
        assert!((upper - want).abs() < 6e-5, "{noise}: {upper}");
    }
}

#[test]
fn trajectories_are_those_of_numpy() {
    let file = goldens();
    let sigmas = values(&file, "toy/sigmas");
    let levels = &sigmas[..sigmas.len() - 1];
    for (got, want) in toy::karras(levels.len(), 0.002, 4.0).iter().zip(levels) {
        assert!((got - want).abs() < 1e-12 * want);
    }
    let noise = values(&file, "toy/noise");
    let at = [0, 1, 2, 5, 10, 20, 50, 80, 99, 100];
    let toy = Toy::new(levels, 64).unwrap();
    let field = |i: usize| {
        let size = 64 * 2;
        toy.cx().upload(&noise[i * size..][..size], toy.shape())
    };
    let samplers: [(&str, &dyn Sampler); 4] = [
        ("uncond", &Ancestral),
        ("dps", &Dps { zeta: 0.05 }),
        (
            "dmap2",
            &Dmap {
                zeta: 0.05,
                ascents: 2,
                project: Project::Each,
            },
        ),
        (
            "dsg_z0.2",
            &Dsg {
                rate: 0.2,
                interval: 1,
            },
        ),
    ];
    for (tag, mixture) in toys() {
        for (name, sampler) in samplers {
            let want = values(&file, &format!("toy/{tag}/{name}/x"));
            let seen = RefCell::new(vec![Vec::new(); levels.len() + 1]);
            seen.borrow_mut()[0] = noise[..128].iter().map(|n| levels[0] * n).collect();
            let draw = |step: usize, draw| {
                assert_eq!(draw, 0);
                field(step + 1).map(Draw::Given)
            };
            let mut note = |step: usize, points: &[Point]| {
                seen.borrow_mut()[step + 1] = points.as_flattened().to_vec();
            };
            toy.with_noise(sampler, &mixture, &field(0).unwrap(), &draw, &mut note)
                .unwrap();
            for (row, step) in at.into_iter().enumerate() {
                let got = &seen.borrow()[step];
                for (got, want) in got.iter().zip(&want[row * 128..][..128]) {
                    // The goldens are rounded to f32.
                    assert!(
                        (got - want).abs() < 2e-6 * (1.0 + want.abs()),
                        "{tag} {name} {step}: {got} {want}"
                    );
                }
            }
        }
    }
}

/// What was measured with other noise and other code. 20 000 points know a share to about 0.0035 (of twelve seeds the
/// unconditional share is 0.489 to 0.505). The paper says that DPS with zeta 0.05 finds one mode where the posterior has two; it
/// is the other way round.
#[test]
fn shares_of_the_upper_mode() {
    let toy = Toy::new(&toy::karras(100, 0.002, 4.0), 20_000).unwrap();
    let prior = Mixture::toy(0.3);
    let dmap = |zeta| Dmap {
        zeta,
        ascents: 3,
        project: Project::Each,
    };
    let dsg = |rate| Dsg { rate, interval: 1 };
    let exact = |noise| prior.given_first(MEASURED, noise);
    let cases: [(&dyn Sampler, Mixture, f64, f64); 11] = [
        (&Ancestral, prior, 0.503, 0.982),
        (&Dps { zeta: 0.05 }, prior, 0.629, 0.025),
        (&Dps { zeta: 0.2 }, prior, 0.842, 0.10),
        (&Dps { zeta: 0.5 }, prior, 0.960, 0.25),
        (&dmap(0.05), prior, 0.716, 0.001),
        (&dmap(0.5), prior, 0.988, 0.001),
        (&dsg(0.05), prior, 0.597, 0.64),
        (&dsg(0.5), prior, 0.997, 0.001),
        (&dsg(1.0), prior, 1.0, 0.001),
        // The control: the exact conditional score finds the true posterior, 0.9962 and 0.7145, but for its 100 steps.
        (&Ancestral, exact(0.3), 0.9965, f64::NAN),
        (&Ancestral, exact(1.0), 0.7044, f64::NAN),
    ];
    for (sampler, of, upper, misfit) in cases {
        let got = Summary::of(&toy.run(sampler, &of, 2).unwrap());
        assert!((got.upper - upper).abs() < 0.01, "{got:?}, share {upper}");
        if !misfit.is_nan() {
            assert!(
                (got.misfit - misfit).abs() < 0.02,
                "{got:?}, misfit {misfit}"
            );
        }
    }
}

#[test]
fn a_cloud_is_drawn_where_its_points_are() {
    let cloud = [[0.0, 0.0], [1.0, -1.0], [3.0, 0.0]];
    let svg = plot::clouds(&[("a < b".into(), &cloud)], 0.5, 2.0);
    // The square begins at 16, 38 and has sides of 200; what is outside is not drawn.
    assert!(
        svg.contains("d=\"M116.0 138.0h0M166.0 188.0h0\"") && svg.contains("a &lt; b"),
        "{svg}"
    );
    assert!(svg.contains("d=\"M141.0 38v200\""));
}

#[test]
fn toys_that_cannot_be_are_refused() {
    assert!(Toy::new(&[1.0, 1.0], 3).is_err());
    assert!(Toy::new(&[1.0, 0.0], 3).is_err());
    assert!(Toy::new(&[], 3).is_err());
    assert!(
        Toy::new(&[1.0], 0)
            .unwrap_err()
            .to_string()
            .contains("at least 1")
    );
}

/// A fixture's NCHW tensor of one sample as NHWC values, with its height and width.
fn image(fixture: &Fixture, name: &str) -> ([usize; 2], Vec<f64>) {
    let (shape, values) = fixture.tensor(name);
    let [1, c, h, w] = shape[..] else {
        panic!("{name}: {shape:?}");
    };
    let at = |i: usize| values[i % c * h * w + i / c];
    ([h, w], (0..c * h * w).map(at).collect())
}

fn subject(model: &str, task: &str, y: &Image, samples: usize) -> Subject {
    let device = Device::cpu().with_precision("f64").unwrap();
    let task = Task::parse(task).unwrap();
    Subject::open(&device, &oracle::checkpoint(model), &task, y, samples).unwrap()
}

/// Equation 9 is `-eps / sqrt(1 - abar)` of the estimate. The measurement is read in f32.
#[test]
fn the_estimate_of_dps_is_that_of_pytorch() {
    let fixture = Fixture::open("tiny-pixel");
    let ([h, w], y) = image(&fixture, "meas/sr4/y");
    let y = Image::new(w, h, y.into_iter().map(|v| v as f32).collect()).unwrap();
    let subject = subject("tiny-pixel", "sr4", &y, 1);
    let ([h, w], x) = image(&fixture, "traj/xT");
    let x = subject.cx().upload(&x, [1, h, w, 3]).unwrap();
    let step = subject.steps(8).unwrap()[3];
    let eps = subject
        .noise(&Estimate::Dps(1.5), &step, &x)
        .unwrap()
        .to_f64()
        .unwrap();
    let spread = (1.0 - step.alpha_bar).sqrt();
    let score: Vec<f64> = eps.iter().map(|eps| -eps / spread).collect();
    let (_, want) = image(&fixture, "eq9/s_dps");
    let size = want.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    assert_close("score", &score, &want, 1e-6, 1e-6 * size);
}

fn grey(side: usize) -> Image {
    Image::new(side, side, vec![0.25; side * side * 3]).unwrap()
}

#[test]
fn distances_are_nothing_of_the_reference_and_grow_with_the_square_of_zeta() {
    let subject = subject("tiny-sd1", "sr8", &grey(8), 1);
    let reference = subject
        .estimator(&oracle::checkpoint("tiny-sd1").join("controlnet"))
        .unwrap();
    let steps = subject.steps(3).unwrap();
    let estimates = [
        Estimate::Conditional(&reference),
        Estimate::Unconditional,
        Estimate::Dps(0.0),
        Estimate::Dps(1e4),
        Estimate::Dps(2e4),
    ];
    let found = distances(&subject, &steps, &reference, &estimates, 1, &|_| ()).unwrap();
    for (i, step) in steps.iter().enumerate() {
        let paper = |estimate: usize| found[estimate][i].paper;
        assert_eq!((paper(0), found[0][i].t), (0.0, step.t));
        assert!(paper(1) > 0.0 && (paper(2) / paper(1) - 1.0).abs() < 1e-9);
        // So large a zeta leaves nothing of the rest.
        assert!(
            (paper(4) / paper(3) - 4.0).abs() < 0.05,
            "{} {}",
            paper(4),
            paper(3)
        );
        let spread = 1.0 - step.alpha_bar;
        let score = found[1][i].score;
        assert!((score * spread * spread / paper(1) - 1.0).abs() < 1e-12);
    }
}

#[test]
fn means_are_those_of_the_noise_that_was_seen() {
    let subject = subject("tiny-pixel", "sr4", &grey(8), 2);
    let step = subject.steps(10).unwrap()[0];
    let got = mean(&subject, &step, &Estimate::Unconditional, 3, 5, &|_| ()).unwrap();
    // The same draws by hand, in other batches.
    let mut all = Vec::new();
    for first in [0u32, 2] {
        let streams = [first, first + 1].map(|draw| Stream::new(5, 1, draw));
        let x = posteriori::ops::noise::normals(subject.cx(), [2, 32, 32, 3], &streams, INITIAL, 0)
            .unwrap();
        let eps = subject
            .noise(&Estimate::Unconditional, &step, &x)
            .unwrap()
            .to_f64()
            .unwrap();
        all.extend(eps.chunks(32 * 32 * 3).map(<[f64]>::to_vec));
    }
    let spread = (1.0 - step.alpha_bar).sqrt();
    let channels = |pixel: &[f64]| (spread * pixel.iter().sum::<f64>() / 3.0).abs();
    let paper = all[0].chunks(3).map(channels).sum::<f64>() / (32.0 * 32.0);
    let element = |i: usize| (spread * (all[0][i] + all[1][i] + all[2][i]) / 3.0).abs();
    let average = (0..all[0].len()).map(element).sum::<f64>() / all[0].len() as f64;
    assert_close("paper", &[got.paper], &[paper], 1e-12, 0.0);
    assert_close("average", &[got.average], &[average], 1e-12, 0.0);
}

#[test]
fn deviations_by_hand() {
    let image = |values: [f32; 6]| Image::new(2, 1, values.to_vec()).unwrap();
    let images = [
        image([0.0, 0.0, 0.0, 1.0, 0.5, 0.0]),
        image([0.0, 0.0, 0.5, 0.0, 0.5, 0.0]),
    ];
    let found = Diversity::of(&images).unwrap();
    // Of two values the unbiased deviation is their difference over the root of 2.
    let root = 0.5f64.sqrt();
    assert_close(
        "map",
        &found.map,
        &[0.5 * root / 3.0, root / 3.0],
        1e-12,
        0.0,
    );
    assert_close("mean", &[found.mean], &[1.5 * root / 6.0], 1e-12, 0.0);
    let picture = found.picture([1, 2], root / 3.0).unwrap();
    assert_close(
        "grey",
        &picture
            .pixels
            .iter()
            .map(|v| f64::from(*v))
            .collect::<Vec<_>>(),
        &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0],
        0.0,
        1e-6,
    );
    assert!(
        Diversity::of(&images[..1])
            .unwrap_err()
            .to_string()
            .contains("at least 2")
    );
    let other = Image::new(1, 2, vec![0.0; 6]).unwrap();
    assert!(Diversity::of(&[images[0].clone(), other]).is_err());
}
