//! The schedule against the oracle's tables, METHOD.md's numbers and the published formulas.

use posteriori::diffusion::schedule::{
    Coordinates, Prediction, Schedule, Solver, Spacing, Step, Variance,
};

use crate::oracle::{Fixture, assert_close, checkpoint, data};

const SMALL: Solver = Solver::Ancestral {
    variance: Variance::Small,
};
const LARGE: Solver = Solver::Ancestral {
    variance: Variance::Large,
};
const SPACINGS: [(&str, Spacing); 4] = [
    ("leading", Spacing::Leading),
    ("trailing", Spacing::Trailing),
    ("linspace", Spacing::Linspace),
    ("fractional", Spacing::Fractional),
];

/// The scheduler config inside a tiny checkpoint's recipe, with some keys replaced.
fn config(checkpoint: &str, changes: &[(&str, serde_json::Value)]) -> Result<Schedule, String> {
    let recipe = std::fs::read(data(&format!("checkpoints/{checkpoint}/recipe.json"))).unwrap();
    let recipe: serde_json::Value = serde_json::from_slice(&recipe).unwrap();
    let mut scheduler = recipe["scheduler"].clone();
    for (key, value) in changes {
        scheduler[key] = value.clone();
    }
    Schedule::from_json(checkpoint, &scheduler.to_string()).map_err(|e| e.to_string())
}

fn sd() -> Schedule {
    config("tiny-sd2", &[]).unwrap()
}

fn sd_v() -> Schedule {
    config("tiny-sd2", &[("prediction_type", "v_prediction".into())]).unwrap()
}

/// Every kind of run: the coordinates, the solver and the steps.
fn runs(schedule: &Schedule) -> Vec<(Coordinates, Solver, Vec<Step>)> {
    let mut all = Vec::new();
    for coordinates in [Coordinates::Ve, Coordinates::Vp] {
        let ddim = [0.0, 0.3, 1.0].map(|eta| Solver::Ddim { eta });
        for solver in [SMALL, LARGE].into_iter().chain(ddim) {
            for (_, spacing) in SPACINGS {
                for count in [1, 2, 8, 100, 999] {
                    let steps = schedule.steps(count, spacing, coordinates, solver);
                    all.push((coordinates, solver, steps.unwrap()));
                }
            }
        }
    }
    all
}

#[test]
fn numbers_of_the_method() {
    let file = checkpoint("tiny-sd2").join("scheduler/scheduler_config.json");
    let schedule = Schedule::open(file).unwrap();
    assert_eq!(schedule, sd());
    assert_eq!(schedule.class_name(), "PNDMScheduler");
    assert_eq!(schedule.prediction(), Prediction::Epsilon);
    assert_eq!(schedule.steps_offset(), 1);
    let alpha_bar = schedule.alphas_cumprod();
    assert_close("abar_0", &alpha_bar[..1], &[0.99915], 1e-12, 0.0);
    assert_close("abar_999", &alpha_bar[999..], &[0.0046601], 0.0, 5e-8);
    for (t, want) in [
        (0, 0.0291672),
        (100, 0.3439),
        (200, 0.5717),
        (300, 0.8328),
        (400, 1.1644),
        (500, 1.6183),
        (600, 2.2846),
        (700, 3.3344),
        (800, 5.1110),
        (900, 8.3466),
        (999, 14.614641),
    ] {
        let half = if t % 999 == 0 { 5e-7 } else { 5e-5 };
        assert_close("sigma", &[schedule.sigma(t).unwrap()], &[want], 0.0, half);
    }
    assert_eq!(schedule.sigma(1000), None);
    // near t = 0 nothing cancels: sigma_0^2 = beta_0 / (1 - beta_0)
    let ddpm = config("tiny-pixel", &[]).unwrap();
    let sigma = ddpm.sigma(0).unwrap();
    assert_close("sigma_0^2", &[sigma * sigma], &[1e-4 / 0.9999], 1e-15, 0.0);
    // sphere radii of section 1.3, T = 500 and d = 128^2
    let steps = schedule
        .steps(500, Spacing::Fractional, Coordinates::Ve, SMALL)
        .unwrap();
    assert_close("radius", &[128.0 * steps[0].sigma], &[286.2], 0.0, 0.05);
    assert_close("radius", &[128.0 * steps[498].sigma], &[3.05], 0.0, 0.01);
    let std = steps[0].initial_std(Spacing::Fractional, Coordinates::Ve);
    assert_close("sigma_max", &[std], &[14.614641], 0.0, 5e-7);
    assert_eq!(std, steps[0].noise_level);
}

#[test]
fn agrees_with_every_table_of_the_oracle() {
    let tables = Fixture::open("schedules");
    let mut unseen = tables.names();
    for (tag, checkpoint) in [("sd", "tiny-sd2"), ("ddpm", "tiny-pixel")] {
        let schedule = config(checkpoint, &[]).unwrap();
        let mut check = |name: String, got: &[f64]| {
            let name = format!("{tag}/{name}");
            // `1 - alpha_bar` cancels in the oracle: an ulp of 1 in 1e-4 at worst
            assert_close(&name, got, &tables.values(&name), 4e-12, 0.0);
            unseen.retain(|other| *other != name);
        };
        check("betas".into(), schedule.betas());
        check("alphas_cumprod".into(), schedule.alphas_cumprod());
        for count in [8, 25, 50, 100, 500] {
            for (name, spacing) in &SPACINGS[..3] {
                let timesteps = schedule.timesteps(count, *spacing).unwrap();
                assert!(timesteps.iter().all(|t| t.fract() == 0.0));
                check(format!("timesteps/{name}_{count}"), &timesteps);
            }
            let steps = schedule
                .steps(count, Spacing::Fractional, Coordinates::Ve, SMALL)
                .unwrap();
            let mut sigmas: Vec<f64> = steps.iter().map(|s| s.noise_level).collect();
            sigmas.push(0.0);
            let timesteps: Vec<f64> = steps.iter().map(|s| s.t).collect();
            check(format!("euler_a_linspace_{count}/timesteps"), &timesteps);
            check(format!("euler_a_linspace_{count}/sigmas"), &sigmas);
        }
        for count in [8, 100] {
            let [small, large] = [SMALL, LARGE].map(|solver| {
                schedule
                    .steps(count, Spacing::Leading, Coordinates::Vp, solver)
                    .unwrap()
            });
            let mut table = |name: &str, of: fn(&Step) -> f64, steps: &[Step]| {
                let column: Vec<f64> = steps.iter().map(of).collect();
                check(format!("leading_{count}/{name}"), &column);
            };
            table("t", |s| s.t, &small);
            table("t_prev", |s| s.t_next.unwrap_or(-1.0), &small);
            table("ab", |s| s.alpha_bar, &small);
            table("ab_prev", |s| s.alpha_bar_next, &small);
            table("alpha", |s| s.back.0 * s.back.0, &small);
            table("beta", |s| s.back.1 * s.back.1, &small);
            table("sigma_small", |s| s.sigma, &small);
            table("sigma_large", |s| s.sigma, &large);
            table("ve", |s| s.noise_level, &small);
            let mut next: Vec<f64> = small[1..].iter().map(|s| s.noise_level).collect();
            next.push(0.0);
            check(format!("leading_{count}/ve_prev"), &next);
        }
    }
    assert_eq!(unseen, Vec::<String>::new(), "tables nothing was held to");
}

/// Ho et al. (2020) eq. 7 and Song et al. (2021) eqs 12 and 16, as printed, in alpha_bar.
#[test]
fn steps_are_ddpm_and_ddim() {
    for (coordinates, solver, steps) in runs(&sd()) {
        for step in steps {
            let (ab, abp) = (step.alpha_bar, step.alpha_bar_next);
            let beta = 1.0 - ab / abp;
            let small = ((1.0 - abp) / (1.0 - ab) * beta).sqrt();
            let (mean, sigma) = match solver {
                Solver::Ancestral { variance } => {
                    let mean = (
                        (ab / abp).sqrt() * (1.0 - abp) / (1.0 - ab),
                        abp.sqrt() * beta / (1.0 - ab),
                    );
                    let large = variance == Variance::Large && !step.is_last();
                    (mean, if large { beta.sqrt() } else { small })
                }
                Solver::Ddim { eta } => {
                    let sigma = eta * small;
                    let toward = (1.0 - abp - sigma * sigma).max(0.0).sqrt();
                    let a = toward / (1.0 - ab).sqrt();
                    ((a, abp.sqrt() - a * ab.sqrt()), sigma)
                }
            };
            // VP to VE: each state is divided by its sqrt(alpha_bar)
            let (s, sp) = match coordinates {
                Coordinates::Vp => (1.0, 1.0),
                Coordinates::Ve => (ab.sqrt(), abp.sqrt()),
            };
            let got = [step.mean.0, step.mean.1, step.sigma];
            let want = [mean.0 * s / sp, mean.1 / sp, sigma / sp];
            assert_close("mean and sigma", &got, &want, 1e-9, 1e-12);
        }
    }
}

/// METHOD.md 1.1: z0 = z - s eps, su^2 = u^2 (s^2 - u^2) / s^2, sd = u^2 / s, z_next = z + (sd - s) eps.
#[test]
fn ancestral_is_euler_ancestral() {
    for (_, spacing) in SPACINGS {
        let steps = sd().steps(50, spacing, Coordinates::Ve, SMALL).unwrap();
        for (i, step) in steps.iter().enumerate() {
            let s = step.noise_level;
            let u = steps.get(i + 1).map_or(0.0, |next| next.noise_level);
            let (z, eps) = (0.7, -1.3);
            let z0 = step.x0_from.0 * z + step.x0_from.1 * eps;
            assert_close("z0", &[z0], &[z - s * eps], 1e-14, 0.0);
            let next = step.mean.0 * z + step.mean.1 * z0;
            let want = z + (u * u / s - s) * eps;
            assert_close("z_next", &[next], &[want], 1e-12, 1e-14);
            let su = (u * u * (s * s - u * u) / (s * s)).sqrt();
            assert_close("su", &[step.sigma], &[su], 1e-12, 0.0);
        }
    }
}

#[test]
fn ddim_with_eta_one_is_ancestral() {
    for (_, spacing) in SPACINGS {
        for coordinates in [Coordinates::Ve, Coordinates::Vp] {
            let steps = |solver| sd().steps(20, spacing, coordinates, solver).unwrap();
            assert_eq!(steps(Solver::Ddim { eta: 1.0 }), steps(Solver::default()));
            let quiet = steps(Solver::Ddim { eta: 0.0 });
            assert!(quiet.iter().all(|step| step.sigma == 0.0));
        }
    }
}

/// If the data are one point m, the state at every level is N(scale m, (scale s)^2): the small
/// variance and DDIM keep that, and the way back undoes it.
#[test]
fn steps_keep_the_marginals() {
    for (_, solver, steps) in runs(&sd()) {
        for (i, step) in steps.iter().enumerate() {
            let before = step.scale * step.noise_level;
            let after = match steps.get(i + 1) {
                Some(next) => next.scale * next.noise_level,
                None => 0.0,
            };
            let signal = step.mean.0 * step.scale + step.mean.1;
            assert_close("signal", &[signal], &[step.scale_next], 1e-13, 0.0);
            if solver != LARGE {
                let variance = (step.mean.0 * before).powi(2) + step.sigma.powi(2);
                assert_close("noise", &[variance], &[after * after], 1e-12, 0.0);
            }
            let back = (step.back.0 * after).powi(2) + step.back.1.powi(2);
            assert_close("noise back", &[back], &[before * before], 1e-12, 0.0);
            let signal = step.back.0 * step.scale_next;
            assert_close("signal back", &[signal], &[step.scale], 1e-14, 0.0);
        }
        let last = steps.last().unwrap();
        assert!(last.is_last() && last.sigma == 0.0 && last.mean == (0.0, 1.0));
    }
}

/// If the data are standard normal, x0 = sqrt(abar) x in VP, and the large variance keeps N(0, 1).
#[test]
fn the_large_variance_is_that_of_white_data() {
    let steps = sd().steps(30, Spacing::Trailing, Coordinates::Vp, LARGE);
    for step in steps.unwrap().iter().filter(|step| !step.is_last()) {
        let gain = step.mean.0 + step.mean.1 * step.alpha_bar.sqrt();
        let variance = gain * gain + step.sigma * step.sigma;
        assert_close("variance", &[variance], &[1.0], 1e-12, 0.0);
    }
}

/// A state made from a known x0 and eps gives both back, from eps and from v, in VE and in VP.
#[test]
fn tweedie_gives_back_what_made_the_state() {
    let (x0, eps) = (0.3, -1.7);
    for (schedule, velocity) in [(sd(), false), (sd_v(), true)] {
        for (coordinates, _, steps) in runs(&schedule) {
            for step in steps {
                let (root, noise) = (step.alpha_bar.sqrt(), (1.0 - step.alpha_bar).sqrt());
                let vp = root * x0 + noise * eps;
                let x = match coordinates {
                    Coordinates::Vp => vp,
                    Coordinates::Ve => vp / root,
                };
                let output = if velocity {
                    root * eps - noise * x0
                } else {
                    eps
                };
                let dot = |pair: (f64, f64)| pair.0 * x + pair.1 * output;
                assert_close("input", &[step.input * x], &[vp], 1e-14, 0.0);
                assert_close("x0", &[dot(step.x0_from)], &[x0], 1e-11, 0.0);
                assert_close("eps", &[dot(step.eps_from)], &[eps], 1e-11, 0.0);
            }
        }
    }
}

#[test]
fn ve_and_vp_runs_are_the_same_run() {
    for (_, spacing) in &SPACINGS[..3] {
        let run = |coordinates| {
            let steps = sd().steps(25, *spacing, coordinates, SMALL).unwrap();
            let mut x = 0.8 * steps[0].initial_std(*spacing, coordinates);
            for step in &steps {
                let output = (2.0 * step.input * x).sin(); // any network
                let x0 = step.x0_from.0 * x + step.x0_from.1 * output;
                x = step.mean.0 * x + step.mean.1 * x0 + step.sigma * 0.4;
            }
            x
        };
        let (ve, vp) = (run(Coordinates::Ve), run(Coordinates::Vp));
        assert_close("last state", &[ve], &[vp], 1e-9, 0.0);
    }
}

#[test]
fn runs_count_down() {
    for (_, _, steps) in runs(&sd()) {
        for (i, step) in steps.iter().enumerate() {
            assert_eq!((step.index, step.of), (i, steps.len()));
            let next = steps.get(i + 1);
            assert_eq!(step.t_next, next.map(|next| next.t));
            assert!(next.is_none_or(|next| next.t < step.t && next.noise_level < step.noise_level));
            assert_eq!(step.alpha_bar_next, next.map_or(1.0, |next| next.alpha_bar));
        }
    }
}

/// Nichol and Dhariwal (2021) eq. 17: alpha_bar_t = f(t) / f(0), but for the cap.
#[test]
fn cosine_and_trained_betas() {
    let cosine = config("tiny-sd2", &[("beta_schedule", "squaredcos_cap_v2".into())]).unwrap();
    let f = |t: usize| {
        let angle = (t as f64 / 1000.0 + 0.008) / 1.008 * std::f64::consts::PI;
        (1.0 + angle.cos()) / 2.0
    };
    let want: Vec<f64> = (1..1000).map(|t| f(t) / f(0)).collect();
    assert_close("cosine", &cosine.alphas_cumprod()[..999], &want, 1e-9, 0.0);
    assert_eq!(cosine.betas()[999], 0.999);
    let changes = [
        ("trained_betas", serde_json::json!([0.1, 0.5])),
        ("num_train_timesteps", 2.into()),
    ];
    let trained = config("tiny-sd2", &changes).unwrap();
    assert_close(
        "trained",
        trained.alphas_cumprod(),
        &[0.9, 0.45],
        1e-15,
        0.0,
    );
}

#[test]
fn unusable_configs_are_errors_that_say_why() {
    use serde_json::{Value, json};
    for (key, value, says) in [
        ("prediction_type", json!("sample"), "got sample"),
        ("beta_schedule", json!("sigmoid"), "got sigmoid"),
        ("beta_schedule", Value::Null, "got neither"),
        ("beta_start", Value::Null, "`beta_start`"),
        ("beta_start", json!(0.0), "timestep 0"),
        ("beta_start", json!(-1.0), "timestep 0"),
        ("beta_end", json!(1.5), "between 0 and 1"),
        ("beta_end", json!("x"), "expected f64"),
        ("num_train_timesteps", json!(0), "got 0"),
        ("num_train_timesteps", json!(u64::MAX), "1000000"),
        ("num_train_timesteps", json!(-1), "expected usize"),
        ("num_train_timesteps", json!(1_000_000), "alpha_bar is 0"),
        ("num_train_timesteps", Value::Null, "missing"),
        (
            "rescale_betas_zero_snr",
            json!(true),
            "rescale_betas_zero_snr",
        ),
        ("trained_betas", json!([0.1]), "got 1"),
        ("steps_offset", json!(-1), "expected usize"),
    ] {
        let error = config("tiny-sd2", &[(key, value)]).unwrap_err();
        assert!(error.contains(says), "{error} lacks {says}");
        assert!(error.starts_with("tiny-sd2: "), "{error}");
    }
    assert!(Schedule::from_json("x", "{").is_err());
    assert!(Schedule::open("/nowhere/scheduler_config.json").is_err());
    assert!(Schedule::from_betas("x", vec![], Prediction::V).is_err());
    assert!(Schedule::from_betas("x", vec![f64::NAN], Prediction::V).is_err());
}

#[test]
fn bad_step_counts_are_errors() {
    for count in [0, 1001, usize::MAX] {
        for (_, spacing) in SPACINGS {
            let error = sd().steps(count, spacing, Coordinates::Ve, SMALL);
            assert!(error.unwrap_err().to_string().contains("1 to 1000"));
        }
    }
    let error = sd().timesteps(1000, Spacing::Leading).unwrap_err();
    assert!(error.to_string().contains("timestep 1000"), "{error}");
    for spacing in [Spacing::Trailing, Spacing::Linspace, Spacing::Fractional] {
        let all: Vec<f64> = (0..1000).rev().map(f64::from).collect();
        assert_close(
            "all",
            &sd().timesteps(1000, spacing).unwrap(),
            &all,
            0.0,
            1e-9,
        );
    }
    let huge = config("tiny-sd2", &[("steps_offset", u64::MAX.into())]).unwrap();
    assert!(huge.timesteps(10, Spacing::Leading).is_err());
    for eta in [-0.1, 1.1, f64::NAN] {
        let solver = Solver::Ddim { eta };
        assert!(
            sd().steps(10, Spacing::Leading, Coordinates::Ve, solver)
                .is_err()
        );
    }
}
