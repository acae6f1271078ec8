//! [`Job`]: what is trained, in which folder, and the loop that does it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;

use serde_json::{Value, json};

use crate::batch::notes::Lock;
use crate::cx::Cx;
use crate::diffusion::schedule::Schedule;
use crate::error::{Error, Result};
use crate::io::atomic::{failed, write_atomic};
use crate::io::image::Image;
use crate::io::weights::{Checkpoint, Kind};
use crate::models::config::Config;
use crate::models::controlnet::{ControlNet, ControlNetConfig};
use crate::models::unet::{UNet, UNetConfig};
use crate::models::vae::{Vae, VaeConfig};
use crate::nn::param::{Parameter, Weights};
use crate::operators::Task;
use crate::ops::cast;
use crate::pipeline::device::Device;
use crate::pipeline::prior::{Prior, context, fingerprint, load};
use crate::tensor::Tensor;
use crate::train::autoencoder::Autoencoding;
use crate::train::cse::Conditioning;
use crate::train::data::{Batches, Skipped};
use crate::train::denoiser::Denoising;
use crate::train::noised::upload;
use crate::train::{Objective, Record, Settings, Trainer, curve, initial, presets};

/// What is trained.
#[derive(Clone, Debug)]
pub enum Model {
    /// A KL autoencoder, `vae/` of the model folder.
    Autoencoder {
        /// What the divergence counts: [`Autoencoding::kl_weight`].
        kl_weight: f64,
    },
    /// A UNet, `unet/` of the model folder: in the latent space of its `vae/`, or on pixels if there is none.
    Denoiser,
    /// A ControlNet as conditional score estimator for a task.
    Cse {
        /// What makes the measurement.
        task: Task,
        /// The model folder of the frozen prior.
        prior: PathBuf,
    },
}

/// A training run.
#[derive(Clone, Debug)]
pub struct Job {
    /// What is trained.
    pub model: Model,
    /// The model folder that is made; for a CSE, the ControlNet's own.
    pub folder: PathBuf,
    /// Height and width of the images.
    pub size: [usize; 2],
    /// How.
    pub settings: Settings,
    /// What else the run is made of, by name: a run that goes on must agree with it. The precision and the frozen
    /// weights are seen to.
    pub made_of: Vec<(&'static str, String)>,
    /// Steps between checkpoints.
    pub save_every: usize,
    /// The type the model is stored in.
    pub kind: Kind,
}

/// What the names of all weights in diffusers' layout begin with.
const MODEL_STEM: &str = "diffusion_pytorch_model";
const MODEL_FILE: &str = "diffusion_pytorch_model.safetensors";
const STATE_FILE: &str = "training.safetensors";
/// Drawn values, until the first checkpoint.
const DRAWN_FILE: &str = "drawn.safetensors";
const CURVE_FILE: &str = "loss.svg";
/// It is there while a run is at work.
const LOCK_FILE: &str = ".training.lock";

/// What is told on the way.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// The step that will be the first: not 0 where a run goes on.
    Start(usize),
    /// An image that cannot be learnt from; told once.
    Skipped(&'a Skipped),
    /// A step has been taken.
    Step(&'a Record),
}

impl Job {
    /// The folder of the network that is trained.
    pub fn component(&self) -> PathBuf {
        match &self.model {
            Model::Autoencoder { .. } => self.folder.join("vae"),
            Model::Denoiser => self.folder.join("unet"),
            Model::Cse { .. } => self.folder.clone(),
        }
    }

    /// Refuses settings that are out of their range, and a folder that has a model which no run of this trainer made:
    /// its weights would be written over.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the setting, [`Error::Config`] naming the file.
    pub fn check(&self) -> Result<()> {
        self.settings.check()?;
        if self.save_every == 0 {
            return Err(Error::argument("save-every", "wanted at least 1, got 0"));
        }
        if let Model::Autoencoder { kl_weight } = self.model
            && !(kl_weight >= 0.0 && kl_weight.is_finite())
        {
            let why = format!("wanted 0 or more, got {kl_weight}");
            return Err(Error::argument("kl-weight", why));
        }
        let component = self.component();
        if component.join(STATE_FILE).is_file() {
            return Ok(());
        }
        let Some(weights) = weights_of_others(&component)? else {
            return Ok(());
        };
        let why = format!(
            "is of a model that is there already, without the checkpoint {STATE_FILE} of a run to go on with; what is trained \
             would be written over it: choose another output folder"
        );
        Err(Error::config(weights.display().to_string(), why))
    }

    /// Trains up to the last step, going on from the checkpoint if there is one; `watch` sees the step that comes first,
    /// then every step.
    ///
    /// # Errors
    /// [`Error::Training`] when it diverges: the last checkpoint is from before that; [`Error::Config`] when there is a
    /// checkpoint of another recipe, or a model without one; [`Error::File`] when another run trains in the folder; what
    /// models, images and files return.
    pub fn run(
        &self,
        device: &Device,
        images: &Batches,
        watch: &mut dyn FnMut(Progress<'_>),
    ) -> Result<()> {
        self.check()?;
        let component = self.component();
        create(&component)?;
        let why = "another run trains in this folder; wait for it, or choose another output folder";
        let _held = Lock::take(component.join(LOCK_FILE), why)?;
        let from = self.prepare()?;
        let before = from
            .ends_with(STATE_FILE)
            .then(|| Checkpoint::open_file(&from))
            .transpose()?;

        let rt = device.rt();
        let cx = &Cx::new(rt.clone(), device.dtype())?;
        let (objective, parameters) = self.build(cx, Some(&from))?;
        let (settings, made_of) = (self.settings.clone(), self.made_of(device)?);
        let mut trainer = Trainer::new(cx, parameters, settings, &made_of, before.as_ref())?;
        drop(before);
        watch(Progress::Start(trainer.next()));
        let slab = self.plan(device)?;
        rt.with_slab(slab, || {
            self.steps(&mut trainer, &*objective, images, watch)
        })?;
        trainer.export(&self.component().join(MODEL_FILE), Some(self.kind))?;
        if let Model::Autoencoder { .. } = self.model {
            self.measure_scale(cx, images)?;
        }
        Ok(())
    }

    /// What a run that goes on must agree with.
    fn made_of(&self, device: &Device) -> Result<Vec<(&'static str, String)>> {
        let mut all = self.made_of.clone();
        all.push(("precision", device.precision().to_string()));
        let frozen = match &self.model {
            Model::Autoencoder { .. } => vec![],
            Model::Denoiser => vec![self.folder.join("vae")],
            Model::Cse { prior, .. } => ["unet", "vae"].map(|part| prior.join(part)).to_vec(),
        };
        let print = |folder: &PathBuf| Ok(format!("{:016x}", fingerprint(folder)?));
        let there = frozen.iter().filter(|folder| folder.is_dir());
        let prints: Vec<String> = there.map(print).collect::<Result<_>>()?;
        all.push(("frozen weights", prints.join(" ")));
        Ok(all)
    }

    /// The loop. Images are made ahead of their step by a thread of their own.
    fn steps(
        &self,
        trainer: &mut Trainer,
        objective: &dyn Objective,
        images: &Batches,
        watch: &mut dyn FnMut(Progress<'_>),
    ) -> Result<()> {
        let (batch, steps) = (self.settings.batch, self.settings.steps);
        let todo = trainer.next()..steps;
        let state = self.component().join(STATE_FILE);
        if trainer.next() == 0 {
            trainer.save(&state)?;
            // It may not be there, and does no harm if it stays.
            drop(std::fs::remove_file(state.with_file_name(DRAWN_FILE)));
        }
        thread::scope(|scope| {
            let (send, ready) = sync_channel(2);
            let ahead = todo.clone();
            scope.spawn(move || {
                for step in ahead {
                    let made = images.batch(step as u64 * batch as u64, batch);
                    // Nobody is waiting any more when the loop has failed.
                    if send.send(made).is_err() {
                        break;
                    }
                }
            });
            for step in todo {
                let lost = || Error::argument("training images", "their thread ended early");
                let (made, skipped) = ready.recv().map_err(|_| lost())??;
                skipped
                    .iter()
                    .for_each(|skipped| watch(Progress::Skipped(skipped)));
                let record = trainer.step(objective, &made)?;
                watch(Progress::Step(&record));
                if (step + 1) % self.save_every == 0 || step + 1 == steps {
                    trainer.save(&state)?;
                    curve::write(&state.with_file_name(CURVE_FILE), trainer.losses())?;
                }
            }
            Ok(())
        })
    }

    /// The bytes of the slab that every tensor of a step comes from, learnt on the dry runtime.
    fn plan(&self, device: &Device) -> Result<usize> {
        let dry = device.rt().planned();
        let cx = &Cx::new(dry.clone(), device.dtype())?;
        let (objective, parameters) = self.build(cx, None)?;
        let Settings { batch, micro, .. } = self.settings;
        let settings = Settings {
            batch: batch.min(2 * micro),
            ..self.settings.clone()
        };
        let [h, w] = self.size;
        let images = vec![Image::new(w, h, vec![0.0; h * w * 3])?; settings.batch];
        let mut trainer = Trainer::new(cx, parameters, settings, &[], None)?;
        trainer.step(&*objective, &images)?;
        Ok(dry.peak())
    }

    /// The loss, and the parameters that it trains, with values of this file, or without any on the dry runtime.
    fn build(&self, cx: &Cx, file: Option<&Path>) -> Result<(Box<dyn Objective>, Vec<Parameter>)> {
        let (component, seed) = (self.component(), self.settings.seed);
        let config = &Config::open(&component)?;
        let weights = match file {
            Some(file) => Weights::open(cx, Checkpoint::open_file(file)?),
            None => Weights::planned(cx, None),
        }
        .trained();
        let objective: Box<dyn Objective> = match &self.model {
            Model::Autoencoder { kl_weight } => Box::new(Autoencoding {
                vae: Vae::new(&weights, VaeConfig::read(config)?)?,
                kl_weight: *kl_weight,
                seed,
            }),
            Model::Denoiser => {
                let folder = self.folder.join("vae");
                let vae = || {
                    let config = VaeConfig::read(&Config::open(&folder)?)?;
                    load(cx, &folder, &mut Vec::new(), |w| Vae::new(w, config))
                };
                let config = UNetConfig::read(config)?;
                let given = |width| context(cx, &self.folder, width, "");
                let context = config.context.map(given).transpose()?;
                Box::new(Denoising {
                    context: self.for_each(cx, context)?,
                    unet: UNet::new(&weights, config)?,
                    vae: folder.is_dir().then(vae).transpose()?,
                    schedule: Schedule::open(self.folder.join("scheduler/scheduler_config.json"))?,
                    seed,
                })
            }
            Model::Cse { task, prior } => {
                let prior = Prior::open(cx, prior)?;
                Box::new(Conditioning {
                    controlnet: ControlNet::new(&weights, &ControlNetConfig::read(config)?)?,
                    context: self.for_each(cx, prior.context(cx, "")?)?,
                    operator: task.build(&cx.state(), self.size)?,
                    prior,
                    seed,
                })
            }
        };
        Ok((objective, weights.parameters()))
    }

    /// A context of its own for every sample.
    fn for_each(&self, cx: &Cx, context: Option<Tensor>) -> Result<Option<Tensor>> {
        let repeated = |context: Tensor| {
            let values = context.to_f64()?.repeat(self.settings.micro);
            cx.constant(&values, context.shape().with_samples(self.settings.micro))
        };
        context.map(repeated).transpose()
    }

    /// Writes what the folder lacks: configuration, schedule, first values. Returns the file that the values come from:
    /// the last checkpoint, else drawn values.
    fn prepare(&self) -> Result<PathBuf> {
        let component = &self.component();
        let state = component.join(STATE_FILE);
        if state.is_file() {
            return Ok(state);
        }
        let config = component.join("config.json");
        let (parameters, from, zero): (_, _, fn(&str) -> bool) = match &self.model {
            Model::Autoencoder { .. } => {
                write_new(&config, include_str!("presets/vae.json"))?;
                let config = VaeConfig::read(&Config::open(component)?)?;
                self.check_size(config.factor())?;
                let parameters = initial::parameters(|w| Vae::new(w, config))?;
                (parameters, None, |_| false)
            }
            Model::Denoiser => {
                let latents = presets::latent_channels(&self.folder)?;
                match config.is_file() {
                    true => presets::expect_unet(component, latents)?,
                    false => replace(&config, &presets::unet(latents)?)?,
                }
                let scheduler = self.folder.join("scheduler");
                create(&scheduler)?;
                let schedule = scheduler.join("scheduler_config.json");
                write_new(&schedule, include_str!("presets/scheduler.json"))?;
                let config = UNetConfig::read(&Config::open(component)?)?;
                self.check_size(config.factor() * latent_factor(&self.folder)?)?;
                let index = self.index(&Config::open(component)?)?;
                write_new(&self.folder.join("model_index.json"), &index)?;
                let parameters = initial::parameters(|w| UNet::new(w, config))?;
                // A residual block begins as its shortcut, and the network with a prediction of nothing.
                (parameters, None, |name| {
                    name.contains("conv2.") || name.starts_with("conv_out.")
                })
            }
            Model::Cse { prior, task } => {
                task.check_size(self.size)?;
                let unet = prior.join("unet");
                if !config.is_file() {
                    write_new(&config, &controlnet_config(&unet, prior)?)?;
                }
                let config = ControlNetConfig::read(&Config::open(component)?)?;
                self.check_size(config.unet.factor() * latent_factor(prior)?)?;
                let parameters = initial::parameters(|w| ControlNet::new(w, &config))?;
                (parameters, Some(Checkpoint::open(&unet)?), |name| {
                    let last = "controlnet_cond_embedding.conv_out.";
                    ["controlnet_down_blocks.", "controlnet_mid_block.", last]
                        .iter()
                        .any(|of| name.starts_with(of))
                })
            }
        };
        let drawn = component.join(DRAWN_FILE);
        initial::write(&drawn, &parameters, self.settings.seed, from.as_ref(), zero)?;
        Ok(drawn)
    }

    /// Refuses a size that is halved to no whole number of pixels.
    fn check_size(&self, factor: usize) -> Result<()> {
        let [h, w] = self.size;
        if h > 0 && w > 0 && h.is_multiple_of(factor) && w.is_multiple_of(factor) {
            return Ok(());
        }
        let why =
            format!("wanted sides that are multiples of {factor} for this model, got {h}x{w}");
        Err(Error::argument("--size", why))
    }

    /// `model_index.json` of a prior without prompts.
    fn index(&self, unet: &Config) -> Result<String> {
        let class = unet.class()?;
        let vae = match self.folder.join("vae").is_dir() {
            true => json!(["diffusers", "AutoencoderKL"]),
            false => json!([null, null]),
        };
        let index = json!({
            "_class_name": if class == "UNet2DModel" { "DDPMPipeline" } else { "StableDiffusionPipeline" },
            "scheduler": ["diffusers", "DDPMScheduler"],
            "text_encoder": [null, null],
            "tokenizer": [null, null],
            "unet": ["diffusers", class],
            "vae": vae,
        });
        Ok(pretty(&index))
    }

    /// Sets the scaling factor to one over the standard deviation of the latents of some images.
    fn measure_scale(&self, cx: &Cx, images: &Batches) -> Result<()> {
        const IMAGES: usize = 256;
        let folder = self.component();
        let config = VaeConfig::read(&Config::open(&folder)?)?;
        let vae = load(cx, &folder, &mut Vec::new(), |w| Vae::new(w, config))?;
        let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
        for first in (0..IMAGES).step_by(self.settings.micro) {
            let (images, _) = images.batch(first as u64, self.settings.micro)?;
            let x = upload(&cx.state(), &images)?;
            let x = cast::forward(cx, &x, cx.dtype())?;
            let (mean, logvar, _) = vae.encode(&cx.forward_only(), &x)?;
            for (mean, logvar) in mean.to_f64()?.into_iter().zip(logvar.to_f64()?) {
                sum += mean;
                squares += mean * mean + logvar.clamp(-30.0, 20.0).exp();
                count += 1.0;
            }
        }
        let variance = squares / count - (sum / count) * (sum / count);
        if !(variance > 0.0 && variance.is_finite()) {
            let why = format!("the latents of the images have the variance {variance}");
            return Err(Error::Training {
                step: self.settings.steps,
                why,
            });
        }
        let path = folder.join("config.json");
        let mut json: Value = read_json(&path)?;
        // Five digits: as many as the estimate has, and more.
        json["scaling_factor"] = json!((1e5 / variance.sqrt()).round() / 1e5);
        replace(&path, &pretty(&json))
    }
}

/// A file of weights in a folder that no training run left half made: of any variant, whole or in parts.
fn weights_of_others(component: &Path) -> Result<Option<PathBuf>> {
    let cannot = |e: std::io::Error| Error::file(component, format!("cannot be looked into: {e}"));
    let entries = match std::fs::read_dir(component) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(cannot(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(cannot)?.file_name();
        let text = name.to_string_lossy();
        let weights = text.ends_with(".safetensors") || text.starts_with(MODEL_STEM);
        if weights && text != DRAWN_FILE && !text.starts_with('.') {
            found.push(component.join(&name));
        }
    }
    Ok(found.into_iter().min())
}

fn create(folder: &Path) -> Result<()> {
    let made = std::fs::create_dir_all(folder);
    made.map_err(|e| Error::file(folder, format!("cannot be created: {e}")))
}

/// Image pixels for each pixel of the state of a model folder, along each side.
fn latent_factor(folder: &Path) -> Result<usize> {
    let vae = folder.join("vae");
    match vae.is_dir() {
        true => Ok(VaeConfig::read(&Config::open(&vae)?)?.factor()),
        false => Ok(1),
    }
}

/// The configuration of the ControlNet for a UNet and its autoencoder.
fn controlnet_config(unet: &Path, prior: &Path) -> Result<String> {
    let mut config = read_json(&unet.join("config.json"))?;
    // diffusers' widths for a factor of 8; the hint network halves between each two.
    const WIDTHS: [usize; 5] = [16, 32, 96, 256, 256];
    let halvings = latent_factor(prior)?.ilog2() as usize;
    let first = config["block_out_channels"][0].as_u64().unwrap_or(320) as usize;
    let widths = WIDTHS.iter().map(|&width| width.min(first.max(16)));
    let widths: Vec<usize> = widths.take(halvings + 1).collect();
    let Some(map) = config.as_object_mut() else {
        return Err(Error::file(
            unet.join("config.json"),
            "wanted a JSON object",
        ));
    };
    for key in [
        "out_channels",
        "up_block_types",
        "sample_size",
        "center_input_sample",
    ] {
        map.remove(key);
    }
    map.insert("_class_name".into(), json!("ControlNetModel"));
    map.insert("conditioning_embedding_out_channels".into(), json!(widths));
    map.insert("controlnet_conditioning_channel_order".into(), json!("rgb"));
    Ok(pretty(&config))
}

fn pretty(json: &Value) -> String {
    format!("{json:#}\n")
}

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    serde_json::from_str(&text).map_err(|e| Error::file(path, format!("is no valid JSON: {e}")))
}

/// Writes a file that is not there yet.
fn write_new(path: &Path, text: &str) -> Result<()> {
    if path.exists() {
        Ok(())
    } else {
        replace(path, text)
    }
}

fn replace(path: &Path, text: &str) -> Result<()> {
    write_atomic(path, |w| w.write_all(text.as_bytes()).map_err(failed(path)))
}
