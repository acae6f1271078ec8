//! What to do: [`Restore`] (a task, a method, a seed) and [`Method`] (an algorithm and its settings).

use crate::diffusion::schedule::{Coordinates, Schedule, Solver, Spacing, Step};
use crate::error::{Error, Result};
use crate::operators::Task;
use crate::samplers::Sampler;
use crate::samplers::ancestral::Ancestral;
use crate::samplers::dmap::{Dmap, Project};
use crate::samplers::dps::Dps;

/// A restoration: undo `task` by `method`.
#[derive(Clone, Debug)]
pub struct Restore {
    /// How the measurement came about.
    pub task: Task,
    /// How to sample.
    pub method: Method,
    /// The seed of all noise.
    pub seed: u64,
    /// The text prompt; the paper's is empty.
    pub prompt: String,
    /// What ControlNet's residuals are multiplied by, when there is one.
    pub conditioning_scale: f64,
}

impl Restore {
    /// This task by this method, seed 0, no prompt.
    pub fn new(task: Task, method: Method) -> Self {
        Restore {
            task,
            method,
            seed: 0,
            prompt: String::new(),
            conditioning_scale: 1.0,
        }
    }

    /// The same with another seed.
    pub fn seed(self, seed: u64) -> Self {
        Restore { seed, ..self }
    }

    /// The same with a prompt.
    pub fn prompt(self, prompt: impl Into<String>) -> Self {
        Restore {
            prompt: prompt.into(),
            ..self
        }
    }

    /// The same without guidance.
    pub fn unguided(mut self) -> Self {
        self.method.algorithm = Algorithm::Ancestral;
        self
    }

    /// The coefficients of every step.
    ///
    /// # Errors
    /// [`Error::Argument`] when the schedule has no such steps.
    pub fn steps(&self, schedule: &Schedule) -> Result<Vec<Step>> {
        let Method {
            steps,
            spacing,
            coordinates,
            solver,
            ..
        } = self.method;
        schedule.steps(steps, spacing, coordinates, solver)
    }

    /// Calls of the network for one image (NFE): one a step, and one for each ascent of a step that draws noise
    /// and is not the last. Those that guidance differentiates count once.
    ///
    /// # Errors
    /// As [`Restore::steps`].
    pub fn network_calls(&self, schedule: &Schedule) -> Result<usize> {
        let steps = self.steps(schedule)?;
        let noisy = |step: &&Step| !step.is_last() && step.sigma > 0.0;
        let ascents = match self.method.algorithm {
            Algorithm::Dmap { ascents, .. } => ascents * steps.iter().filter(noisy).count(),
            Algorithm::Dps | Algorithm::Ancestral => 0,
        };
        Ok(steps.len() + ascents)
    }

    /// The sampler that this job runs.
    pub fn sampler(&self) -> Box<dyn Sampler> {
        self.method.sampler(self.method.zeta_for(&self.task))
    }
}

/// An algorithm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm {
    /// Diffusion posterior sampling.
    Dps,
    /// Maximisation on a sphere.
    Dmap {
        /// Gradient steps at each sampling step (the paper's K).
        ascents: usize,
        /// When to project onto the sphere.
        project: Project,
    },
    /// The prior, or the conditional score, alone.
    Ancestral,
}

/// An algorithm and its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Method {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Sampling steps (the paper's T).
    pub steps: usize,
    /// The step size of guidance; `None` takes the paper's for the task.
    pub zeta: Option<f64>,
    /// The coordinates that zeta is meant in.
    pub coordinates: Coordinates,
    /// Which times the steps are at.
    pub spacing: Spacing,
    /// The transition of each step.
    pub solver: Solver,
}

/// Settings with a name: `--method NAME`.
pub struct Preset {
    /// What `--method` calls it.
    pub name: &'static str,
    /// One line of help.
    pub doc: &'static str,
    /// The settings.
    pub method: fn() -> Method,
}

/// Every preset.
pub static PRESETS: &[Preset] = &[
    Preset {
        name: "dps",
        doc: "DPS, 500 steps",
        method: Method::dps,
    },
    Preset {
        name: "dmap",
        doc: "the same as dmap-same",
        method: Method::dmap,
    },
    Preset {
        name: "dmap-same",
        doc: "DMAP at the cost of DPS: 250 steps, 2 ascents, zeta doubled",
        method: Method::dmap,
    },
    Preset {
        name: "dmap-full",
        doc: "DMAP, 500 steps, 3 ascents",
        method: Method::dmap_full,
    },
    Preset {
        name: "ancestral",
        doc: "no guidance: the prior (or, with --cse, the conditional score) alone",
        method: Method::ancestral,
    },
];

impl Method {
    /// DPS with the paper's settings.
    pub fn dps() -> Self {
        Method {
            algorithm: Algorithm::Dps,
            steps: 500,
            zeta: None,
            coordinates: Coordinates::Ve,
            spacing: Spacing::Fractional,
            solver: Solver::default(),
        }
    }

    /// DMAP at the cost of DPS: the paper's DMAP(same).
    pub fn dmap() -> Self {
        let algorithm = Algorithm::Dmap {
            ascents: 2,
            project: Project::Each,
        };
        Method {
            algorithm,
            steps: 250,
            ..Self::dps()
        }
    }

    /// The paper's DMAP(full).
    pub fn dmap_full() -> Self {
        Method {
            algorithm: Algorithm::Dmap {
                ascents: 3,
                project: Project::Each,
            },
            ..Self::dps()
        }
    }

    /// No guidance.
    pub fn ancestral() -> Self {
        Method {
            algorithm: Algorithm::Ancestral,
            ..Self::dps()
        }
    }

    /// The preset of this name.
    ///
    /// # Errors
    /// [`Error::Argument`] listing the names.
    pub fn preset(name: &str) -> Result<Self> {
        let preset = PRESETS.iter().find(|p| p.name == name).ok_or_else(|| {
            let names: Vec<_> = PRESETS.iter().map(|p| p.name).collect();
            let why = format!("wanted one of {}, got `{name}`", names.join(", "));
            Error::argument("--method", why)
        })?;
        Ok((preset.method)())
    }

    /// The same with this many steps.
    pub fn steps(self, steps: usize) -> Self {
        Method { steps, ..self }
    }

    /// The same with this step size.
    pub fn zeta(self, zeta: f64) -> Self {
        Method {
            zeta: Some(zeta),
            ..self
        }
    }

    /// The same in these coordinates.
    pub fn coordinates(self, coordinates: Coordinates) -> Self {
        Method {
            coordinates,
            ..self
        }
    }

    /// zeta for a task: the one set, else the authors' (4.8; 0.6 for Gaussian blur; METHOD: their public
    /// code), doubled where K is 2 and the steps are halved (DMAP(same)).
    pub fn zeta_for(&self, task: &Task) -> f64 {
        let paper = if matches!(task, Task::GaussianBlur { .. }) {
            0.6
        } else {
            4.8
        };
        let same = matches!(self.algorithm, Algorithm::Dmap { ascents: 2, .. });
        self.zeta.unwrap_or(if same { 2.0 * paper } else { paper })
    }

    fn sampler(&self, zeta: f64) -> Box<dyn Sampler> {
        match self.algorithm {
            Algorithm::Dps => Box::new(Dps { zeta }),
            Algorithm::Dmap { ascents, project } => Box::new(Dmap {
                zeta,
                ascents,
                project,
            }),
            Algorithm::Ancestral => Box::new(Ancestral),
        }
    }
}
