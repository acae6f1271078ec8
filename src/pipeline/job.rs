//! What to do: [`Restore`] (a task, a method, a seed) and [`Method`] (an algorithm and its settings).

use crate::diffusion::schedule::{Coordinates, Schedule, Solver, Spacing, Step};
use crate::error::{Error, Result};
use crate::operators::Task;
use crate::samplers::ancestral::Ancestral;
use crate::samplers::dmap::{Dmap, Project};
use crate::samplers::dps::Dps;
use crate::samplers::dsg::Dsg;
use crate::samplers::freedom::Freedom;
use crate::samplers::psld::Psld;
use crate::samplers::resample::{Blend, Descent, Resample, Solve, Stages};
use crate::samplers::{Follow, Sampler};

/// A restoration: undo `task` by `method`.
#[derive(Clone, Debug, PartialEq)]
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
    /// Whether large images are sampled in tiles.
    pub tiles: Tiles,
}

/// Whether the networks see an image whole, which is exact, or in overlapping tiles ([`crate::diffusion::tiled`]), which is
/// an approximation that takes the memory of one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiles {
    /// In tiles of the size that the model was trained at, where even one whole image does not fit into the memory that is free.
    Auto,
    /// Never.
    Never,
    /// Of this side, in pixels of the image: a multiple of [`Prior::multiple`](super::prior::Prior::multiple), at least twice that.
    Of(usize),
}

impl Tiles {
    /// The side of the tiles that are asked for.
    pub fn side(self) -> Option<usize> {
        match self {
            Tiles::Of(side) => Some(side),
            Tiles::Auto | Tiles::Never => None,
        }
    }
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
            tiles: Tiles::Auto,
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

    /// The same with or without tiles.
    pub fn tiles(self, tiles: Tiles) -> Self {
        Restore { tiles, ..self }
    }

    /// The same without guidance.
    pub fn unguided(mut self) -> Self {
        self.method.algorithm = Algorithm::Ancestral;
        self
    }

    /// The coefficients of every step.
    ///
    /// # Errors
    /// [`Error::Argument`] when the schedule has no such steps, or a setting would leave the algorithm nothing to do.
    pub fn steps(&self, schedule: &Schedule) -> Result<Vec<Step>> {
        self.method.check()?;
        let Method {
            steps,
            spacing,
            coordinates,
            solver,
            ..
        } = self.method;
        schedule.steps(steps, spacing, coordinates, solver)
    }

    /// Calls of the network for one image (NFE). Those that guidance differentiates count once.
    ///
    /// # Errors
    /// As [`Restore::steps`].
    pub fn network_calls(&self, schedule: &Schedule) -> Result<usize> {
        let sampler = self.sampler();
        let steps = self.steps(schedule)?;
        Ok(steps.iter().map(|step| sampler.network_calls(step)).sum())
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
    /// The direction on a sphere, between noise and gradient; zeta is the rate.
    Dsg {
        /// Guidance at every so many steps.
        interval: usize,
    },
    /// DPS with a loss that glues image and latent.
    Psld {
        /// What the gluing loss counts against the other (the paper's gamma is this times zeta).
        gamma: f64,
    },
    /// DPS that goes back and forth.
    Freedom {
        /// The paper's K.
        ascents: usize,
        /// The first and the last step that are repeated (c1, c2), from the noisy end; a fifth and a half of the run
        /// when `None`.
        window: Option<[usize; 2]>,
    },
    /// DPS that solves for the measurement now and then.
    Resample {
        /// The paper's N; a tenth of the run when `None`.
        every: Option<usize>,
        /// How it solves.
        solve: Solve,
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
    /// How guidance follows its gradient.
    pub follow: Follow,
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
        name: "dsg",
        doc: "DSG, 500 steps; zeta is its rate, 0 to 1",
        method: Method::dsg,
    },
    Preset {
        name: "psld",
        doc: "PSLD, 500 steps, gluing loss at a tenth; linear tasks, and meant for latent models",
        method: Method::psld,
    },
    Preset {
        name: "freedom",
        doc: "FreeDoM, 500 steps, those from a fifth to a half of the run twice",
        method: Method::freedom,
    },
    Preset {
        name: "resample",
        doc: "ReSample, 500 steps, 200 steps of Adam on the latent ten times in the run",
        method: Method::resample,
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
            follow: Follow::Plain,
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

    fn of(algorithm: Algorithm) -> Self {
        Method {
            algorithm,
            ..Self::dps()
        }
    }

    /// DSG at every step.
    pub fn dsg() -> Self {
        Self::of(Algorithm::Dsg { interval: 1 })
    }

    /// PSLD with the gluing loss at a tenth.
    pub fn psld() -> Self {
        Self::of(Algorithm::Psld { gamma: 0.1 })
    }

    /// FreeDoM with two repeats of the steps from a fifth to a half of the run.
    pub fn freedom() -> Self {
        Self::of(Algorithm::Freedom {
            ascents: 2,
            window: None,
        })
    }

    /// ReSample on latents, with the authors' 200 steps of Adam.
    pub fn resample() -> Self {
        Self::of(Algorithm::Resample {
            every: None,
            solve: Solve {
                stages: Stages::Latent,
                iterations: 200,
                rate: 5e-3,
                descent: Descent::Adam,
                strength: 40.0,
                blend: Blend::Original,
            },
        })
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

    /// The same, following the gradient like this.
    pub fn follow(self, follow: Follow) -> Self {
        Method { follow, ..self }
    }

    /// zeta for a task: the one set, else that of the authors' public code: 0.08 for DSG, whose zeta is a rate; 4.8,
    /// and 0.6 for Gaussian blur; that doubled where K is 2, which goes with half the steps (DMAP(same)).
    pub fn zeta_for(&self, task: &Task) -> f64 {
        let usual = match task {
            Task::GaussianBlur { .. } => 0.6,
            _ => 4.8,
        };
        self.zeta.unwrap_or(match self.algorithm {
            Algorithm::Dsg { .. } => 0.08,
            Algorithm::Dmap { ascents: 2, .. } => 2.0 * usual,
            _ => usual,
        })
    }

    /// Refuses what would do less than its name says.
    fn check(&self) -> Result<()> {
        let refuse = |name: &str, why: String| Err(Error::argument(name, why));
        let steps = self.steps;
        match self.algorithm {
            Algorithm::Dsg { .. } | Algorithm::Dmap { .. }
                if self.solver == (Solver::Ddim { eta: 0.0 }) =>
            {
                let why = "wanted steps that draw noise, whose sphere dmap and dsg move on: ancestral, or ddim:ETA with \
                           ETA above 0";
                refuse("solver", why.into())
            }
            Algorithm::Dsg { .. } if self.zeta.is_some_and(|rate| rate > 1.0) => {
                let rate = self.zeta.unwrap_or_default();
                let why = format!("wanted a rate of 0 to 1 for dsg, got {rate:?}");
                refuse("zeta", why)
            }
            Algorithm::Freedom {
                window: Some([first, last]),
                ..
            } if first > last || last >= steps => {
                let why = format!(
                    "wanted two of the steps 0 to {}, got {first}..{last}",
                    steps.saturating_sub(1)
                );
                refuse("window", why)
            }
            Algorithm::Resample {
                every: Some(every), ..
            } if every == 0 || every >= steps => {
                let why = format!("wanted 1 to {}, got {every}", steps.saturating_sub(1));
                refuse("every", why)
            }
            _ => Ok(()),
        }
    }

    /// Without guidance every algorithm is the prior's reverse process. ReSample is guided by what it solves for too.
    fn sampler(&self, zeta: f64) -> Box<dyn Sampler> {
        let steps = self.steps;
        let solves = match self.algorithm {
            Algorithm::Resample { solve, .. } => solve.iterations > 0,
            _ => false,
        };
        if zeta == 0.0 && !solves {
            return Box::new(Ancestral);
        }
        match self.algorithm {
            Algorithm::Dps => Box::new(Dps { zeta }),
            Algorithm::Dmap { ascents, project } => Box::new(Dmap {
                zeta,
                ascents,
                project,
            }),
            Algorithm::Dsg { interval } => Box::new(Dsg {
                rate: zeta,
                interval,
            }),
            Algorithm::Psld { gamma } => Box::new(Psld {
                zeta,
                gamma: zeta * gamma,
            }),
            Algorithm::Freedom { ascents, window } => Box::new(Freedom {
                zeta,
                repeats: ascents,
                window: window.unwrap_or([steps / 5, steps / 2]),
            }),
            Algorithm::Resample { every, solve } => Box::new(Resample {
                zeta,
                every: every.unwrap_or((steps / 10).max(1)),
                solve,
            }),
            Algorithm::Ancestral => Box::new(Ancestral),
        }
    }
}
