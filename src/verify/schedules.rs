//! `sched/*`: tables, timesteps and the coefficients of eight steps.

use super::{Models, Sink};
use crate::diffusion::schedule::{Coordinates, Solver, Spacing, Step, Variance};
use crate::error::Result;

pub(super) fn compute(models: &Models<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let schedule = &models.prior.schedule;
    sink.put("sched/betas", schedule.betas().to_vec())?;
    sink.put("sched/alphas_cumprod", schedule.alphas_cumprod().to_vec())?;
    for (word, spacing) in [
        ("leading", Spacing::Leading),
        ("trailing", Spacing::Trailing),
        ("linspace", Spacing::Linspace),
    ] {
        for count in sink.goldens.names().filter_map(|n| {
            let rest = n.strip_prefix("sched/timesteps/")?.strip_prefix(word)?;
            rest.strip_prefix('_')?.parse::<usize>().ok()
        }) {
            sink.put(
                &format!("sched/timesteps/{word}_{count}"),
                schedule.timesteps(count, spacing)?,
            )?;
        }
    }
    let goldens = sink.goldens;
    for word in goldens
        .words("sched/leading_")
        .into_iter()
        .map(String::from)
    {
        let Ok(count) = word.parse() else { continue };
        let small = schedule.steps(count, Spacing::Leading, Coordinates::Vp, Solver::default())?;
        let large = Solver::Ancestral {
            variance: Variance::Large,
        };
        let large = schedule.steps(count, Spacing::Leading, Coordinates::Vp, large)?;
        let alpha = |s: &Step| s.alpha_bar / s.alpha_bar_next;
        let ve = |alpha_bar: f64| ((1.0 - alpha_bar) / alpha_bar).sqrt();
        let tables: [(&str, Vec<f64>); 10] = [
            ("t", small.iter().map(|s| s.t).collect()),
            (
                "t_prev",
                small.iter().map(|s| s.t_next.unwrap_or(-1.0)).collect(),
            ),
            ("ab", small.iter().map(|s| s.alpha_bar).collect()),
            ("ab_prev", small.iter().map(|s| s.alpha_bar_next).collect()),
            ("alpha", small.iter().map(alpha).collect()),
            ("beta", small.iter().map(|s| 1.0 - alpha(s)).collect()),
            ("sigma_small", small.iter().map(|s| s.sigma).collect()),
            ("sigma_large", large.iter().map(|s| s.sigma).collect()),
            ("ve", small.iter().map(|s| s.noise_level).collect()),
            (
                "ve_prev",
                small.iter().map(|s| ve(s.alpha_bar_next)).collect(),
            ),
        ];
        for (table, values) in tables {
            sink.put(&format!("sched/leading_{word}/{table}"), values)?;
        }
    }
    Ok(())
}
