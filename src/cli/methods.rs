//! The words of the command line for a method's settings, both ways.

use posteriori::diffusion::schedule::{Coordinates, Solver, Spacing};
use posteriori::operators::TASKS;
use posteriori::pipeline::job::{Algorithm, Method, PRESETS};
use posteriori::samplers::dmap::Project;
use posteriori::{Error, Result};

static SPACINGS: &[(&str, Spacing)] = &[
    ("fractional", Spacing::Fractional),
    ("linspace", Spacing::Linspace),
    ("leading", Spacing::Leading),
    ("trailing", Spacing::Trailing),
];
static SPACES: &[(&str, Coordinates)] = &[("ve", Coordinates::Ve), ("vp", Coordinates::Vp)];
static PROJECTIONS: &[(&str, Project)] = &[("each", Project::Each), ("last", Project::Last)];

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

pub(crate) fn coordinates(text: &str) -> Result<Coordinates> {
    choice(SPACES, text)
}

pub(crate) fn projection(text: &str) -> Result<Project> {
    choice(PROJECTIONS, text)
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
    }
    if let Algorithm::Dmap { ascents, project } = method.algorithm {
        all.push(("ascents", ascents.to_string()));
        all.push(("project", word(PROJECTIONS, project)));
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
