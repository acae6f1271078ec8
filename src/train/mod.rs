//! Training: weight gradients from the same backward passes that restore images, AdamW, and checkpoints that a
//! killed run goes on from, bit for bit.
//!
//! An [`Objective`] turns images into a loss and leaves its gradients; the [`Trainer`] sums them over a batch and
//! takes a step. Everything random is a function of the seed and of a sample's number in the whole run, so a run that
//! goes on from step k needs to know k and nothing else.
//!
//! To add one: one file here with its [`Objective`], and its row in `cli::train`.

pub mod autoencoder;
pub mod cse;
pub mod curve;
pub mod data;
pub mod denoiser;
pub mod generated;
pub mod initial;
pub mod job;
pub(crate) mod noised;
pub(crate) mod optimiser;
mod presets;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cx::{Cx, Gradients};
use crate::error::{Error, Result};
use crate::io::image::Image;
use crate::io::weights::{Checkpoint, Kind};
use crate::nn::param::Parameter;
use crate::rng::{Stream, image_key};
use optimiser::Optimiser;

/// How a model is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Steps of the optimiser.
    pub steps: usize,
    /// Images of a step.
    pub batch: usize,
    /// Images that are computed at once; a step sums the gradients of `batch / micro` of them.
    pub micro: usize,
    /// The learning rate after the warm-up.
    pub lr: f64,
    /// Steps over which the learning rate rises from 0.
    pub warmup: usize,
    /// What the learning rate does after the warm-up.
    pub decay: Decay,
    /// AdamW's average of gradients.
    pub beta1: f64,
    /// AdamW's average of their squares.
    pub beta2: f64,
    /// Added to the root of that average.
    pub eps: f64,
    /// What a parameter loses at a step, over the learning rate.
    pub weight_decay: f64,
    /// The largest norm of the gradient over all parameters.
    pub clip: Option<f64>,
    /// What the moving average of the parameters keeps at a step, once there have been many.
    pub ema: Option<f64>,
    /// The seed of everything random.
    pub seed: u64,
}

/// What the learning rate does after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Stays.
    Constant,
    /// Falls to 0 at the last step along half a cosine.
    Cosine,
}

impl Default for Settings {
    /// The paper's settings for a conditional score estimator (Xu et al. 2025, B.2), with AdamW's as in diffusers'
    /// `train_controlnet.py`.
    fn default() -> Self {
        Settings {
            steps: 5000,
            batch: 64,
            micro: 4,
            lr: 5e-6,
            warmup: 0,
            decay: Decay::Constant,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 1e-2,
            clip: Some(1.0),
            ema: None,
            seed: 0,
        }
    }
}

impl Settings {
    /// # Errors
    /// [`Error::Argument`] naming the setting that is out of its range.
    pub fn check(&self) -> Result<()> {
        let refuse = |name: &str, want: &str, got: String| {
            Err(Error::argument(name, format!("wanted {want}, got {got}")))
        };
        let counts = [
            ("steps", self.steps),
            ("batch", self.batch),
            ("micro", self.micro),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return refuse(name, "at least 1", "0".into());
        }
        let images = counts.into_iter().skip(1);
        if let Some((name, count)) = images.into_iter().find(|(_, count)| *count > MOST_IMAGES) {
            return refuse(name, &format!("at most {MOST_IMAGES}"), count.to_string());
        }
        if !self.batch.is_multiple_of(self.micro) {
            let want = format!("a divisor of the batch, {}", self.batch);
            return refuse("micro", &want, self.micro.to_string());
        }
        let shares = [
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("ema", self.ema.unwrap_or(0.0)),
        ];
        for (name, value) in shares {
            if !(0.0..1.0).contains(&value) {
                return refuse(name, "at least 0 and below 1", value.to_string());
            }
        }
        let positive = [
            ("lr", self.lr),
            ("eps", self.eps),
            ("clip", self.clip.unwrap_or(1.0)),
        ];
        for (name, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return refuse(name, "more than 0", value.to_string());
            }
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return refuse("weight-decay", "0 or more", self.weight_decay.to_string());
        }
        Ok(())
    }

    /// What the moving average keeps at a step, counted from 0: `(1 + step) / (10 + step)` at most, so that it does not
    /// remember for long what training began with (diffusers: training_utils.py, EMAModel).
    pub fn ema_at(&self, step: usize) -> f64 {
        let most = (1 + step) as f64 / (10 + step) as f64;
        self.ema.map_or(0.0, |ema| ema.min(most))
    }

    /// The learning rate of a step, counted from 0.
    pub fn lr_at(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / self.warmup as f64;
        }
        match self.decay {
            Decay::Constant => self.lr,
            Decay::Cosine => {
                let left = self.steps.saturating_sub(self.warmup).max(1);
                let done = (step - self.warmup) as f64 / left as f64;
                self.lr * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
            }
        }
    }
}

/// A loss over images.
pub trait Objective {
    /// Forward and backward over the samples `first ..`, one for each image: leaves the gradients of all trained
    /// parameters in `cx`.
    ///
    /// # Errors
    /// What the model returns.
    fn backward(&self, cx: &Cx, first: u64, images: &[Image]) -> Result<Loss>;
}

/// What an objective came to: the loss and the parts it has, means over the images.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The loss.
    pub value: f64,
    /// Its parts, by name.
    pub parts: Vec<(&'static str, f64)>,
    /// What the gradients that were left have to be multiplied by. (16-bit activations hold cotangents of a
    /// sum of squares well, those of a mean over many elements not.)
    pub scale: f64,
}

/// The stream of everything random about sample number `position` of a run.
pub(crate) fn stream(seed: u64, position: u64) -> Stream {
    Stream::new(seed, image_key(&format!("sample {position}")), 0)
}

/// One step of training.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// The step, counted from 0.
    pub step: usize,
    /// The loss, before the step.
    pub loss: f64,
    /// Its parts.
    pub parts: Vec<(&'static str, f64)>,
    /// The norm of the gradient over all parameters, before clipping.
    pub norm: f64,
    /// The learning rate.
    pub lr: f64,
}

/// A model in training.
#[derive(Debug)]
pub struct Trainer {
    cx: Cx,
    gradients: Rc<RefCell<Gradients>>,
    optimiser: Optimiser,
    settings: Settings,
    recipe: Value,
    losses: Vec<f64>,
}

/// The key under which a checkpoint's metadata holds its [`Settings`] and what else a run is made of.
const SETTINGS: &str = "posteriori.training";
/// The key of the losses so far.
const LOSSES: &str = "posteriori.losses";

/// The most images of a step.
const MOST_IMAGES: usize = 1 << 16;
/// A loss this many times the first ones has diverged.
const DIVERGED: f64 = 10.0;
/// How many losses are averaged for that.
const WINDOW: usize = 20;

impl Trainer {
    /// Trains `parameters`, which a model in `cx` holds; goes on from `state`, if there is one. `made_of` says what
    /// else the run is made of (its objective, its images), by name.
    ///
    /// # Errors
    /// [`Error::Argument`] when a setting is out of its range; [`Error::Config`] naming the settings that differ from
    /// those of `state`; [`Error::Weight`] when it lacks a tensor; [`Error::Plan`] when there is no room.
    pub fn new(
        cx: &Cx,
        parameters: Vec<Parameter>,
        settings: Settings,
        made_of: &[(&str, String)],
        state: Option<&Checkpoint>,
    ) -> Result<Self> {
        settings.check()?;
        let recipe = recipe(&settings, made_of)?;
        let losses = match state {
            Some(state) => resume(state, &settings, &recipe)?,
            None => Vec::new(),
        };
        let optimiser = Optimiser::new(cx, parameters, settings.ema.is_some(), state)?;
        let (cx, gradients) = cx.training(optimiser.parameters().map(Parameter::held));
        Ok(Trainer {
            cx,
            gradients,
            optimiser,
            settings,
            recipe,
            losses,
        })
    }

    /// The next step, counted from 0: how many have been done.
    pub fn next(&self) -> usize {
        self.losses.len()
    }

    /// The loss of every step so far.
    pub fn losses(&self) -> &[f64] {
        &self.losses
    }

    /// How it is trained.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// One step on a batch of images.
    ///
    /// # Errors
    /// [`Error::Shape`] when `images` are not a batch; [`Error::Training`] when loss or gradient are not finite, or
    /// the loss has grown out of all proportion: the parameters are then those before the step; also when the step made a
    /// parameter that is not finite, which is not to be saved; what `objective` returns.
    pub fn step(&mut self, objective: &dyn Objective, images: &[Image]) -> Result<Record> {
        let Settings { batch, micro, .. } = self.settings;
        if images.len() != batch {
            let want = format!("{batch} images");
            return Err(Error::shape("training step", want, images.len()));
        }
        // A step that failed may have left some.
        self.gradients.borrow_mut().clear();
        let step = self.next();
        let share = micro as f64 / batch as f64;
        let (mut loss, mut scale, mut parts) = (0.0, 0.0, Vec::<(&'static str, f64)>::new());
        for (i, images) in images.chunks(micro).enumerate() {
            let first = step as u64 * batch as u64 + (i * micro) as u64;
            let one = objective.backward(&self.cx, first, images)?;
            loss += share * one.value;
            scale = share * one.scale;
            parts.resize(one.parts.len(), ("", 0.0));
            for (sum, (name, value)) in parts.iter_mut().zip(one.parts) {
                *sum = (name, sum.1 + share * value);
            }
        }
        self.expect_sane(step, loss)?;
        let gradients = &self.gradients;
        let norm = self
            .optimiser
            .step(&self.cx, gradients, scale, &self.settings, step)?;
        if !norm.is_finite() {
            return Err(diverged(step, format!("the gradient's norm is {norm}")));
        }
        if let Some((name, value)) = self.optimiser.not_finite(&self.cx)? {
            let why = format!("the parameter `{name}` has an element that became {value}");
            return Err(diverged(step, why));
        }
        self.losses.push(loss);
        Ok(Record {
            step,
            loss,
            parts,
            norm,
            lr: self.settings.lr_at(step),
        })
    }

    fn expect_sane(&self, step: usize, loss: f64) -> Result<()> {
        if !loss.is_finite() {
            return Err(diverged(step, format!("the loss is {loss}")));
        }
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        if self.losses.len() < 2 * WINDOW {
            return Ok(());
        }
        let (first, last) = (
            &self.losses[..WINDOW],
            &self.losses[self.losses.len() - WINDOW..],
        );
        let (first, last) = (mean(first), mean(last));
        if last <= DIVERGED * first {
            return Ok(());
        }
        let why = format!(
            "the mean of the last {WINDOW} losses is {last:.4}, that of the first {first:.4}"
        );
        Err(diverged(step, why))
    }

    /// Writes everything that it takes to go on, atomically.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be written; what was there before is then still there.
    pub fn save(&self, path: &Path) -> Result<()> {
        let losses = serde_json::Value::from(self.losses.as_slice());
        let about = [
            (SETTINGS.into(), self.recipe.to_string()),
            (LOSSES.into(), losses.to_string()),
        ];
        self.optimiser.save(path, &about)
    }

    /// Writes the model as it is now: the moving average of its parameters where there is one.
    ///
    /// # Errors
    /// As [`Trainer::save`]; [`Error::Training`] naming a parameter that is not finite in `kind`.
    pub fn export(&self, path: &Path, kind: Option<Kind>) -> Result<()> {
        let (step, about) = (self.next(), [("format".into(), "pt".into())]);
        self.optimiser.export(path, kind, step, &about)
    }
}

fn diverged(step: usize, why: String) -> Error {
    Error::Training { step, why }
}

/// What a run that goes on must have in common with the one before.
fn recipe(settings: &Settings, made_of: &[(&str, String)]) -> Result<Value> {
    let unfit = |e: serde_json::Error| Error::config("training settings", e.to_string());
    let mut recipe = serde_json::to_value(settings).map_err(unfit)?;
    for (name, value) in made_of {
        recipe[name] = Value::from(value.as_str());
    }
    Ok(recipe)
}

/// The losses of a run that is to go on with the same recipe.
fn resume(state: &Checkpoint, settings: &Settings, recipe: &Value) -> Result<Vec<f64>> {
    let what = state.path().display().to_string();
    let text = |key: &str| {
        let why = || format!("has no `{key}` in its metadata: it is no checkpoint of training");
        let found = state.about().get(key);
        found.ok_or_else(|| Error::config(&what, why()))
    };
    let damaged =
        |e: serde_json::Error| Error::config(&what, format!("its metadata is damaged: {e}"));
    let before = serde_json::from_str(text(SETTINGS)?).map_err(damaged)?;
    let losses: Vec<f64> = serde_json::from_str(text(LOSSES)?).map_err(damaged)?;
    let mut differ = differences(&before, recipe);
    if settings.decay == Decay::Constant && settings.steps >= losses.len() {
        // More steps of the same.
        differ.retain(|difference| !difference.starts_with("steps:"));
    }
    if differ.is_empty() {
        return Ok(losses);
    }
    let differ = differ.join(", ");
    let why =
        format!("was made with other settings ({differ}); use the same, or another output folder");
    Err(Error::config(&what, why))
}

/// What differs between two recipes, printed.
fn differences(before: &Value, now: &Value) -> Vec<String> {
    let none = Map::new();
    let [before, now] = [before, now].map(|recipe| recipe.as_object().unwrap_or(&none));
    let show = |v: Option<&Value>| v.map_or("none".into(), ToString::to_string);
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let differ = keys
        .into_iter()
        .filter(|key| before.get(*key) != now.get(*key));
    let print = |key: &String| {
        let [before, now] = [before, now].map(|recipe| show(recipe.get(key)));
        format!("{key}: {before} then, {now} now")
    };
    differ.map(print).collect()
}
