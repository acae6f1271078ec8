//! The words of the command line for a method's settings, both ways.

use posteriori::diffusion::schedule::{Coordinates, Solver, Spacing};
use posteriori::operators::TASKS;
use posteriori::pipeline::job::{Algorithm, Method, PRESETS};
use posteriori::samplers::Follow;
use posteriori::samplers::dmap::Project;
use posteriori::samplers::resample::{Blend, Descent, Stages};
use posteriori::{Error, Result};

use super::run::{MOST, number, whole};
use super::settings::Settings;

static SPACINGS: &[(&str, Spacing)] = &[
    ("fractional", Spacing::Fractional),
    ("linspace", Spacing::Linspace),
    ("leading", Spacing::Leading),
    ("trailing", Spacing::Trailing),
];
static SPACES: &[(&str, Coordinates)] = &[("ve", Coordinates::Ve), ("vp", Coordinates::Vp)];
static PROJECTIONS: &[(&str, Project)] = &[("each", Project::Each), ("last", Project::Last)];
static STAGES: &[(&str, Stages)] = &[
    ("latent", Stages::Latent),
    ("pixel", Stages::Pixel),
    ("both", Stages::Both),
];
static DESCENTS: &[(&str, Descent)] = &[("gradient", Descent::Gradient), ("adam", Descent::Adam)];
static BLENDS: &[(&str, Blend)] = &[("original", Blend::Original), ("printed", Blend::Printed)];

/// The settings that only some methods have a use for.
pub(crate) static OF_METHODS: &[&str] = &[
    "zeta",
    "zeta-space",
    "follow",
    "ascents",
    "project",
    "interval",
    "gamma",
    "window",
    "every",
    "stages",
    "iterations",
    "rate",
    "descent",
    "strength",
    "blend",
];

fn choice<T: Copy>(all: &[(&str, T)], text: &str) -> Result<T> {
    let found = all.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        let why = format!("wanted one of {}, got `{text}`", names.join(", "));
        Error::argument("setting", why)
    })
}

fn word<T: Copy + PartialEq>(all: &[(&'static str, T)], value: T) -> String {
    let found = all.iter().find(|(_, v)| *v == value);
    found.map_or("?", |(name, _)| name).to_owned()
}

pub(crate) fn spacing(text: &str) -> Result<Spacing> {
    choice(SPACINGS, text)
}

fn coordinates(text: &str) -> Result<Coordinates> {
    choice(SPACES, text)
}

/// `plain`, `norm`, `momentum`, `momentum:BETA`, `adam`, `adam:BETA1:BETA2`.
fn follow(text: &str) -> Result<Follow> {
    let mut words = text.split(':');
    let name = words.next();
    let betas: Option<Vec<f64>> = words
        .map(|word| word.parse().ok().filter(|beta| (0.0..1.0).contains(beta)))
        .collect();
    match (name, betas.as_deref()) {
        (Some("plain"), Some([])) => Ok(Follow::Plain),
        (Some("norm"), Some([])) => Ok(Follow::Norm),
        (Some("momentum"), Some([])) => Ok(Follow::Momentum { beta: 0.9 }),
        (Some("momentum"), Some(&[beta])) => Ok(Follow::Momentum { beta }),
        (Some("adam"), Some([])) => Ok(Follow::Adam {
            beta1: 0.9,
            beta2: 0.999,
        }),
        (Some("adam"), Some(&[beta1, beta2])) => Ok(Follow::Adam { beta1, beta2 }),
        _ => {
            let why = "wanted plain, norm, momentum[:BETA] or adam[:BETA1:BETA2] with 0 to below 1";
            Err(Error::argument("setting", format!("{why}, got `{text}`")))
        }
    }
}

/// What the settings make of the method's own ones.
pub(crate) fn own(settings: &Settings, method: &mut Method) -> Result<()> {
    let count = |key, from| {
        settings
            .need(key, |t| whole(t, from..=MOST))
            .map(|n| n as usize)
    };
    let real = |key| settings.need(key, number);
    if let Some(space) = settings.read("zeta-space", coordinates)? {
        method.coordinates = space;
    }
    if let Some(rule) = settings.read("follow", follow)? {
        method.follow = rule;
    }
    method.zeta = settings.read("zeta", number)?;
    match &mut method.algorithm {
        Algorithm::Dps | Algorithm::Ancestral => {}
        Algorithm::Dmap { ascents, project } => {
            *ascents = count("ascents", 1)?;
            *project = settings.need("project", |t| choice(PROJECTIONS, t))?;
        }
        Algorithm::Dsg { interval } => *interval = count("interval", 1)?,
        Algorithm::Psld { gamma } => *gamma = real("gamma")?,
        Algorithm::Freedom { ascents, window } => {
            *ascents = count("ascents", 1)?;
            *window = settings.need("window", |t| auto(t, steps_from_to))?;
        }
        Algorithm::Resample { every, solve } => {
            let at = |t: &str| whole(t, 1..=MOST).map(|n| n as usize);
            *every = settings.need("every", |t| auto(t, at))?;
            solve.stages = settings.need("stages", |t| choice(STAGES, t))?;
            solve.iterations = count("iterations", 0)?;
            solve.rate = real("rate")?;
            solve.descent = settings.need("descent", |t| choice(DESCENTS, t))?;
            solve.strength = real("strength")?;
            solve.blend = settings.need("blend", |t| choice(BLENDS, t))?;
        }
    }
    Ok(())
}

/// `auto` or a value.
fn auto<T>(text: &str, read: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
    match text {
        "auto" => Ok(None),
        _ => read(text).map(Some),
    }
}

/// `C1..C2`
fn steps_from_to(text: &str) -> Result<[usize; 2]> {
    let ends = text.split_once("..");
    let ends = ends.and_then(|(a, b)| Some([a.parse().ok()?, b.parse().ok()?]));
    ends.ok_or_else(|| Error::argument("setting", format!("wanted auto or C1..C2, got `{text}`")))
}

/// `ancestral`, `ddim` (eta 0), `ddim:ETA`.
pub(crate) fn solver(text: &str) -> Result<Solver> {
    let eta = match text {
        "ancestral" => return Ok(Solver::default()),
        "ddim" => Some(0.0),
        _ => text.strip_prefix("ddim:").and_then(|eta| eta.parse().ok()),
    };
    match eta {
        Some(eta) if (0.0..=1.0).contains(&eta) => Ok(Solver::Ddim { eta }),
        _ => {
            let why = format!("wanted ancestral, ddim or ddim:ETA with 0 to 1, got `{text}`");
            Err(Error::argument("solver", why))
        }
    }
}

/// The settings that make up a method, without zeta, which depends on the task.
pub(crate) fn describe(method: &Method) -> Vec<(&'static str, String)> {
    let solver = match method.solver {
        Solver::Ancestral { .. } => "ancestral".to_owned(),
        Solver::Ddim { eta } => format!("ddim:{eta}"),
    };
    let mut all = vec![
        ("steps", method.steps.to_string()),
        ("spacing", word(SPACINGS, method.spacing)),
        ("solver", solver),
    ];
    if method.algorithm != Algorithm::Ancestral {
        all.push(("zeta-space", word(SPACES, method.coordinates)));
        let follow = match method.follow {
            Follow::Plain => "plain".to_owned(),
            Follow::Norm => "norm".to_owned(),
            Follow::Momentum { beta } => format!("momentum:{beta}"),
            Follow::Adam { beta1, beta2 } => format!("adam:{beta1}:{beta2}"),
        };
        all.push(("follow", follow));
    }
    let auto = |text: Option<String>| text.unwrap_or_else(|| "auto".into());
    match method.algorithm {
        Algorithm::Dps | Algorithm::Ancestral => {}
        Algorithm::Dmap { ascents, project } => {
            all.push(("ascents", ascents.to_string()));
            all.push(("project", word(PROJECTIONS, project)));
        }
        Algorithm::Dsg { interval } => all.push(("interval", interval.to_string())),
        Algorithm::Psld { gamma } => all.push(("gamma", gamma.to_string())),
        Algorithm::Freedom { ascents, window } => {
            all.push(("ascents", ascents.to_string()));
            all.push(("window", auto(window.map(|[a, b]| format!("{a}..{b}")))));
        }
        Algorithm::Resample { every, solve } => {
            all.push(("every", auto(every.map(|n| n.to_string()))));
            all.push(("stages", word(STAGES, solve.stages)));
            all.push(("iterations", solve.iterations.to_string()));
            all.push(("rate", solve.rate.to_string()));
            all.push(("descent", word(DESCENTS, solve.descent)));
            all.push(("strength", solve.strength.to_string()));
            all.push(("blend", word(BLENDS, solve.blend)));
        }
    }
    all
}

/// The help's list of tasks.
pub(crate) fn tasks_help() -> String {
    let rows = TASKS.iter().map(|t| (t.syntax, t.doc));
    format!("Tasks:\n{}", table(rows))
}

/// The help's lists of tasks and methods.
pub(crate) fn tasks_and_methods_help() -> String {
    let rows = PRESETS.iter().map(|p| (p.name, p.doc));
    format!("Methods:\n{}\n{}", table(rows), tasks_help())
}

fn table<'a>(rows: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    rows.map(|(name, doc)| format!("  {name:<24} {doc}\n"))
        .collect()
}
