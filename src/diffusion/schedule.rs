//! The noise schedule of a checkpoint and the coefficients of each sampling step, all in f64.
//!
//! A noisy state is `x = scale (x0 + sigma eps)` with `sigma^2 = (1 - alpha_bar) / alpha_bar` and
//! `scale = sqrt(alpha_bar)` (variance preserving) or 1 (variance exploding). Every formula below is
//! written once, in sigma; the coordinates enter through `scale` alone.

use std::f64::consts::FRAC_PI_2;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

/// A schedule has at most this many timesteps; real ones have 1000.
const MOST_TIMESTEPS: usize = 1_000_000;

/// What the network was trained to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise `eps`.
    Epsilon,
    /// The velocity `v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0`.
    V,
}

/// Which timesteps a run of T steps visits, of the n it was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// `i * (n / T) + steps_offset`, integer division: diffusers' DDPM and DDIM default.
    Leading,
    /// `round(n - i n / T) - 1`: always starts at the last timestep.
    Trailing,
    /// T points from n - 1 to 0, rounded to integers, halves to even. One step is t = 0.
    Linspace,
    /// T points from n - 1 to 0, not rounded, sigma linear in t between the integers: diffusers'
    /// Euler-ancestral default, and what the paper's numbers were made with. One step is t = 0.
    Fractional,
}

/// The coordinates of the state, and so of the guidance strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinates {
    /// Variance exploding, `x0 + sigma eps`: Euler-ancestral's, and those of the paper's zeta.
    Ve,
    /// Variance preserving, `sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps`: DDPM's and DDIM's.
    Vp,
}

/// The variance of an ancestral step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variance {
    /// That of the posterior given x0, `beta_t (1 - alpha_bar_next) / (1 - alpha_bar)`.
    #[default]
    Small,
    /// `beta_t`, and 0 at the last step.
    Large,
}

/// The unconditional step that guidance is added to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Solver {
    /// DDPM (Ho et al. 2020, eqs 6-7), which with the small variance is Euler ancestral.
    Ancestral {
        /// The variance of the noise.
        variance: Variance,
    },
    /// DDIM (Song et al. 2021, eqs 12 and 16).
    Ddim {
        /// From 0, deterministic, to 1, the ancestral step.
        eta: f64,
    },
}

impl Default for Solver {
    fn default() -> Self {
        Solver::Ancestral {
            variance: Variance::Small,
        }
    }
}

/// The noise schedule a checkpoint was trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    class_name: String,
    betas: Vec<f64>,
    alphas_cumprod: Vec<f64>,
    /// `(1 - alpha_bar) / alpha_bar`, by a sum of positive terms: near t = 0, `1 - alpha_bar`
    /// itself would lose four of sixteen digits.
    sigma_squares: Vec<f64>,
    prediction: Prediction,
    steps_offset: usize,
}

/// The keys of `scheduler_config.json` that describe the training noise; the rest is ignored.
#[derive(Deserialize)]
struct Config {
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    num_train_timesteps: Option<usize>,
    beta_schedule: Option<String>,
    beta_start: Option<f64>,
    beta_end: Option<f64>,
    trained_betas: Option<Vec<f64>>,
    prediction_type: Option<String>,
    steps_offset: Option<usize>,
    rescale_betas_zero_snr: Option<bool>,
}

impl Config {
    fn betas(&self, what: &str) -> Result<Vec<f64>> {
        let n = self.num_train_timesteps.ok_or_else(|| {
            Error::config(what, "wanted a number `num_train_timesteps`, it is missing")
        })?;
        if !(1..=MOST_TIMESTEPS).contains(&n) {
            return Err(Error::config(
                what,
                format!("wanted `num_train_timesteps` from 1 to {MOST_TIMESTEPS}, got {n}"),
            ));
        }
        if let Some(betas) = &self.trained_betas {
            if betas.len() != n {
                let got = betas.len();
                let why = format!(
                    "wanted {n} `trained_betas`, as many as `num_train_timesteps`, got {got}"
                );
                return Err(Error::config(what, why));
            }
            return Ok(betas.clone());
        }
        let bound = |name: &str, value: Option<f64>| {
            value.ok_or_else(|| {
                Error::config(what, format!("wanted a number `{name}`, it is missing"))
            })
        };
        let ends = || {
            Ok((
                bound("beta_start", self.beta_start)?,
                bound("beta_end", self.beta_end)?,
            ))
        };
        match self.beta_schedule.as_deref() {
            Some("linear") => {
                let (start, end) = ends()?;
                Ok(linspace(start, end, n))
            }
            Some("scaled_linear") => {
                let (start, end): (f64, f64) = ends()?;
                let roots = linspace(start.sqrt(), end.sqrt(), n);
                Ok(roots.into_iter().map(|root| root * root).collect())
            }
            Some("squaredcos_cap_v2") => Ok(cosine_betas(n)),
            other => Err(Error::config(
                what,
                format!(
                    "wanted `beta_schedule` linear, scaled_linear or squaredcos_cap_v2, or `trained_betas`, got {}",
                    other.unwrap_or("neither")
                ),
            )),
        }
    }
}

impl Schedule {
    /// Reads a diffusers `scheduler_config.json`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::file(path, format!("could not read the scheduler config: {e}")))?;
        Self::from_json(&path.display().to_string(), &text)
    }

    /// Takes the text of a diffusers `scheduler_config.json`; `what` names it in errors.
    pub fn from_json(what: &str, text: &str) -> Result<Self> {
        let config: Config = serde_json::from_str(text).map_err(|e| {
            Error::config(
                what,
                format!("wanted a diffusers scheduler config, got {e}"),
            )
        })?;
        let prediction = match config.prediction_type.as_deref() {
            None | Some("epsilon") => Prediction::Epsilon,
            Some("v_prediction") => Prediction::V,
            Some(other) => {
                return Err(Error::config(
                    what,
                    format!(
                        "wanted `prediction_type` epsilon or v_prediction, got {other}: this engine does not run networks that predict it"
                    ),
                ));
            }
        };
        if config.rescale_betas_zero_snr == Some(true) {
            return Err(Error::config(
                what,
                "wanted `rescale_betas_zero_snr` false, got true: the last sigma would be infinite; use a checkpoint trained without it",
            ));
        }
        let mut schedule = Self::from_betas(what, config.betas(what)?, prediction)?;
        schedule.class_name = config.class_name.unwrap_or_default();
        schedule.steps_offset = config.steps_offset.unwrap_or(0);
        Ok(schedule)
    }

    /// The schedule with these variances, offset 0; `what` names them in errors.
    pub fn from_betas(what: &str, betas: Vec<f64>, prediction: Prediction) -> Result<Self> {
        if betas.is_empty() || betas.len() > MOST_TIMESTEPS {
            let got = betas.len();
            return Err(Error::config(
                what,
                format!("wanted 1 to {MOST_TIMESTEPS} betas, got {got}"),
            ));
        }
        let (mut alpha_bar, mut noise) = (1.0, 0.0); // noise = 1 - alpha_bar
        let mut alphas_cumprod = Vec::with_capacity(betas.len());
        let mut sigma_squares = Vec::with_capacity(betas.len());
        for (t, &beta) in betas.iter().enumerate() {
            if !(beta > 0.0 && beta < 1.0) {
                return Err(Error::config(
                    what,
                    format!("wanted every beta between 0 and 1, got {beta} at timestep {t}"),
                ));
            }
            noise += beta * alpha_bar;
            alpha_bar *= 1.0 - beta;
            if alpha_bar < f64::MIN_POSITIVE {
                return Err(Error::config(
                    what,
                    format!(
                        "wanted betas that leave some signal, but alpha_bar is 0 from timestep {t} on; wanted smaller betas"
                    ),
                ));
            }
            alphas_cumprod.push(alpha_bar);
            sigma_squares.push(noise / alpha_bar);
        }
        Ok(Schedule {
            class_name: String::new(),
            betas,
            alphas_cumprod,
            sigma_squares,
            prediction,
            steps_offset: 0,
        })
    }

    /// The scheduler class the file names, or nothing. It is only reported: the solver is the caller's choice.
    pub fn class_name(&self) -> &str {
        &self.class_name
    }

    /// The variance added at each timestep.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// `alpha_bar` at each timestep, the running product of `1 - beta`.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// `sigma = sqrt((1 - alpha_bar) / alpha_bar)` at integer timestep t, if it was trained on.
    pub fn sigma(&self, t: usize) -> Option<f64> {
        self.sigma_squares.get(t).map(|square| square.sqrt())
    }

    /// What the network predicts.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// What leading spacing adds to its timesteps.
    pub fn steps_offset(&self) -> usize {
        self.steps_offset
    }

    /// The timesteps of a run of `count` steps, noisiest first.
    pub fn timesteps(&self, count: usize, spacing: Spacing) -> Result<Vec<f64>> {
        let n = self.betas.len();
        if !(1..=n).contains(&count) {
            return Err(Error::argument(
                "steps",
                format!("wanted 1 to {n}, the timesteps the network was trained on, got {count}"),
            ));
        }
        let last = (n - 1) as f64;
        // the float expressions are numpy's, so that rounding falls the same way
        let mut timesteps: Vec<f64> = match spacing {
            Spacing::Leading => {
                let stride = n / count;
                let highest = ((count - 1) * stride).saturating_add(self.steps_offset);
                if highest >= n {
                    return Err(Error::argument(
                        "steps",
                        format!(
                            "leading spacing with {count} steps and steps_offset {} reaches timestep {highest}, wanted at most {}; take fewer steps or another spacing",
                            self.steps_offset,
                            n - 1
                        ),
                    ));
                }
                (0..count)
                    .map(|i| (i * stride + self.steps_offset) as f64)
                    .collect()
            }
            Spacing::Trailing => {
                let n = n as f64;
                let delta = (n - n / count as f64) - n;
                (0..count)
                    .rev()
                    .map(|i| (n + i as f64 * delta).round_ties_even() - 1.0)
                    .collect()
            }
            Spacing::Linspace => linspace(0.0, last, count)
                .into_iter()
                .map(f64::round_ties_even)
                .collect(),
            Spacing::Fractional => linspace(0.0, last, count),
        };
        timesteps.reverse();
        Ok(timesteps)
    }

    /// The steps of a run, noisiest first.
    pub fn steps(
        &self,
        count: usize,
        spacing: Spacing,
        coordinates: Coordinates,
        solver: Solver,
    ) -> Result<Vec<Step>> {
        if let Solver::Ddim { eta } = solver
            && !(0.0..=1.0).contains(&eta)
        {
            return Err(Error::argument("eta", format!("wanted 0 to 1, got {eta}")));
        }
        let timesteps = self.timesteps(count, spacing)?;
        let levels: Vec<Level> = timesteps.iter().map(|&t| self.level(t)).collect();
        Ok((0..count)
            .map(|index| {
                let next = levels.get(index + 1).copied();
                Step {
                    index,
                    of: count,
                    ..Step::new(levels[index], next, self.prediction, coordinates, solver)
                }
            })
            .collect())
    }

    /// The noise at timestep t from 0 to n - 1, sigma linear between the integers.
    fn level(&self, t: f64) -> Level {
        let whole = t as usize;
        let (sigma_square, alpha_bar) = (self.sigma_squares[whole], self.alphas_cumprod[whole]);
        let fraction = t - whole as f64;
        if fraction == 0.0 {
            return Level {
                t,
                alpha_bar,
                sigma_square,
            };
        }
        let (low, high) = (sigma_square.sqrt(), self.sigma_squares[whole + 1].sqrt());
        let sigma = low + fraction * (high - low);
        Level {
            t,
            alpha_bar: 1.0 / (1.0 + sigma * sigma),
            sigma_square: sigma * sigma,
        }
    }
}

/// The steps between these noise levels, VE sigmas that fall, and from the last one to clean data, without a schedule: each
/// step's t is its level. For denoisers in closed form, which predict `eps`.
///
/// # Errors
/// [`Error::Argument`] when the levels do not fall, or the last is not above 0.
pub fn steps_through(
    levels: &[f64],
    coordinates: Coordinates,
    solver: Solver,
) -> Result<Vec<Step>> {
    let falls = levels.windows(2).all(|pair| pair[0] > pair[1]);
    if !(falls && levels.last().is_some_and(|last| *last > 0.0)) {
        let why = "wanted numbers above 0, each below the one before it";
        return Err(Error::argument("noise levels", why));
    }
    let level = |sigma: &f64| Level {
        t: *sigma,
        alpha_bar: 1.0 / (1.0 + sigma * sigma),
        sigma_square: sigma * sigma,
    };
    let step = |index: usize| Step {
        index,
        of: levels.len(),
        ..Step::new(
            level(&levels[index]),
            levels.get(index + 1).map(level),
            Prediction::Epsilon,
            coordinates,
            solver,
        )
    };
    Ok((0..levels.len()).map(step).collect())
}

/// How noisy the state is.
#[derive(Clone, Copy, Debug)]
struct Level {
    t: f64,
    alpha_bar: f64,
    sigma_square: f64,
}

/// One sampling step: everything a sampler needs to know of the schedule, in the state's
/// coordinates. A pair `(a, b)` stands for `a * first + b * second`.
///
/// ```text
/// output    = network(input * x, t)
/// x0        = x0_from . (x, output)             Tweedie; eps = eps_from . (x, output)
/// x_next    = mean . (x, x0) + sigma * noise
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The number of this step, 0 the noisiest.
    pub index: usize,
    /// How many steps the run has.
    pub of: usize,
    /// The timestep the network is told; not an integer under [`Spacing::Fractional`].
    pub t: f64,
    /// The timestep of the next step; none at the last, which leads to clean data.
    pub t_next: Option<f64>,
    /// `alpha_bar` of the state before this step.
    pub alpha_bar: f64,
    /// `alpha_bar` of the state after this step; 1 at the last (`set_alpha_to_one` of a DDIM
    /// config is not followed).
    pub alpha_bar_next: f64,
    /// The VE noise level s before this step, `sqrt((1 - alpha_bar) / alpha_bar)`.
    pub noise_level: f64,
    /// The state before this step is `scale (x0 + noise_level eps)`: `sqrt(alpha_bar)` in VP, 1 in VE.
    pub scale: f64,
    /// The same for the state after this step.
    pub scale_next: f64,
    /// Factor from the state to the network's input, which is VP: `sqrt(alpha_bar)` in VE, 1 in VP.
    pub input: f64,
    /// Tweedie's estimate `E[x0 | x]` from the state and the network's output (paper eq. 4).
    /// `epsilon`, VP: `(1, -sqrt(1 - alpha_bar)) / sqrt(alpha_bar)`.
    pub x0_from: (f64, f64),
    /// The noise estimate `eps` from the state and the network's output: `(0, 1)` unless the
    /// network predicts v.
    pub eps_from: (f64, f64),
    /// The mean of the next state from the state and x0 (Ho et al. eq. 7, the paper's eq. 2). With
    /// s and u the VE sigmas before and after, ancestral VE: `(u^2 / s^2, 1 - u^2 / s^2)`.
    pub mean: (f64, f64),
    /// The standard deviation of the noise added after the mean, 0 at the last step. Ancestral with
    /// the small variance, VE: `u sqrt(s^2 - u^2) / s`.
    pub sigma: f64,
    /// The way back, `x = back . (x_next, noise)`: the forward process from the next level to this
    /// one (FreeDoM's time travel). VP: `(sqrt(1 - beta_t), sqrt(beta_t))`.
    pub back: (f64, f64),
}

impl Step {
    /// The step from one level to the next, or to clean data.
    fn new(
        level: Level,
        next: Option<Level>,
        prediction: Prediction,
        coordinates: Coordinates,
        solver: Solver,
    ) -> Self {
        let (alpha_bar, s2) = (level.alpha_bar, level.sigma_square);
        let (alpha_bar_next, u2) = next.map_or((1.0, 0.0), |l| (l.alpha_bar, l.sigma_square));
        let scale_of = |alpha_bar: f64| match coordinates {
            Coordinates::Ve => 1.0,
            Coordinates::Vp => alpha_bar.sqrt(),
        };
        let (scale, scale_next) = (scale_of(alpha_bar), scale_of(alpha_bar_next));
        let (ratio, lost) = (u2 / s2, (s2 - u2) / s2); // lost = 1 - ratio, without cancelling

        // DDIM with eta = 1 is the ancestral step; eta enters squared. In VE, the state keeps
        // `kept` = sqrt(u^2 - su^2) / s of its distance from x0 and su is the new noise.
        let eta = match solver {
            Solver::Ancestral { .. } => 1.0,
            Solver::Ddim { eta } => eta,
        };
        let kept = (ratio * (ratio + (1.0 - eta * eta) * lost)).sqrt();
        let gone = lost * (1.0 + ratio * eta * eta) / (1.0 + kept); // = 1 - kept
        let sigma_ve = match solver {
            Solver::Ancestral {
                variance: Variance::Large,
            } if next.is_some() => ((s2 - u2) * alpha_bar / alpha_bar_next).sqrt(),
            _ => eta * (u2 * lost).sqrt(),
        };
        let (x0_from, eps_from) = network_coefficients(alpha_bar, s2, scale, prediction);
        Step {
            index: 0,
            of: 1,
            t: level.t,
            t_next: next.map(|l| l.t),
            alpha_bar,
            alpha_bar_next,
            noise_level: s2.sqrt(),
            scale,
            scale_next,
            input: alpha_bar.sqrt() / scale,
            x0_from,
            eps_from,
            mean: (scale_next / scale * kept, scale_next * gone),
            sigma: scale_next * sigma_ve,
            back: (scale / scale_next, scale * (s2 - u2).sqrt()),
        }
    }

    /// Whether this step leads to clean data.
    pub fn is_last(&self) -> bool {
        self.t_next.is_none()
    }

    /// The standard deviation of the initial state, which is this times standard normal noise, when
    /// this step is the first: 1 in VP. In VE it is sigma under [`Spacing::Fractional`], as in
    /// diffusers' Euler ancestral, and `1 / sqrt(alpha_bar) = sqrt(1 + sigma^2)` otherwise, so that
    /// VE and VP runs are the same run.
    pub fn initial_std(&self, spacing: Spacing, coordinates: Coordinates) -> f64 {
        match (coordinates, spacing) {
            (Coordinates::Vp, _) => 1.0,
            (Coordinates::Ve, Spacing::Fractional) => self.noise_level,
            (Coordinates::Ve, _) => 1.0 / self.alpha_bar.sqrt(),
        }
    }
}

/// `x0_from` and `eps_from` of a [`Step`].
fn network_coefficients(
    alpha_bar: f64,
    sigma_square: f64,
    scale: f64,
    prediction: Prediction,
) -> ((f64, f64), (f64, f64)) {
    let sigma = sigma_square.sqrt();
    match prediction {
        Prediction::Epsilon => ((1.0 / scale, -sigma), (0.0, 1.0)),
        // of the VP state xp = (root / scale) x: x0 = root xp - noise v, eps = noise xp + root v
        Prediction::V => {
            let (root, noise) = (alpha_bar.sqrt(), (alpha_bar * sigma_square).sqrt());
            ((alpha_bar / scale, -noise), (noise * root / scale, root))
        }
    }
}

/// n numbers from start to end, as numpy computes them.
fn linspace(start: f64, end: f64, n: usize) -> Vec<f64> {
    if n < 2 {
        return vec![start; n];
    }
    let step = (end - start) / (n - 1) as f64;
    let mut numbers: Vec<f64> = (0..n).map(|i| i as f64 * step + start).collect();
    numbers[n - 1] = end;
    numbers
}

/// The cosine schedule (Nichol and Dhariwal 2021, eq. 17), betas capped at 0.999:
/// `alpha_bar(s) = cos^2(pi / 2 (s + 0.008) / 1.008)`.
fn cosine_betas(n: usize) -> Vec<f64> {
    let alpha_bar = |i: usize| {
        let s = i as f64 / n as f64;
        ((s + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2)
    };
    (0..n)
        .map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(0.999))
        .collect()
}
