//! `config.json` of every model, and a schedule: what the text says, read as each of them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use posteriori::diffusion::schedule::{Coordinates, Schedule, Solver, Spacing};
use posteriori::models::config::Config;
use posteriori::models::controlnet::ControlNetConfig;
use posteriori::models::text::TextConfig;
use posteriori::models::unet::UNetConfig;
use posteriori::models::vae::VaeConfig;
use posteriori_fuzz::told;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(config) = told(Config::parse("config.json", text)) {
        if let Some(unet) = told(UNetConfig::read(&config)) {
            assert!(unet.factor() > 0);
        }
        if let Some(vae) = told(VaeConfig::read(&config)) {
            assert!(vae.factor() > 0);
        }
        told(ControlNetConfig::read(&config));
        told(TextConfig::read(&config));
    }
    if let Some(schedule) = told(Schedule::from_json("scheduler_config.json", text)) {
        steps(&schedule);
    }
});

/// Every kind of step; what they are made of are numbers.
fn steps(schedule: &Schedule) {
    let trained = schedule.betas().len();
    for count in [1, 2, 5, trained.min(50)] {
        for spacing in [
            Spacing::Leading,
            Spacing::Trailing,
            Spacing::Linspace,
            Spacing::Fractional,
        ] {
            for coordinates in [Coordinates::Ve, Coordinates::Vp] {
                let steps = schedule.steps(count, spacing, coordinates, Solver::default());
                for step in told(steps).into_iter().flatten() {
                    let numbers = [step.t, step.sigma, step.alpha_bar, step.mean.0, step.mean.1];
                    assert!(numbers.iter().all(|v| v.is_finite()), "{step:?}");
                }
            }
        }
    }
}
