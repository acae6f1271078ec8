//! `train`: an autoencoder, a noise predictor, a conditional score estimator.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use posteriori::io::weights::Kind;
use posteriori::pipeline::embedded;
use posteriori::rng::image_key;
use posteriori::train::data::{Augment, Batches, Skipped, Source};
use posteriori::train::generated::Samples;
use posteriori::train::job::{Job, Model, Progress};
use posteriori::train::{Decay, Settings};
use posteriori::{Error, Task};

use super::exit::DONE;
use super::run::{device, folder as named, size};
use super::ui::Ui;

/// Train a model on images; a run that was stopped goes on where its last checkpoint is
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A KL autoencoder: `vae/` of the model folder
    Autoencoder {
        /// The model folder that is made
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        /// What the divergence of the latent counts against the mean square error of the image
        #[arg(long, value_name = "X", default_value_t = 1e-4)]
        kl_weight: f64,
        #[command(flatten)]
        common: Common,
    },
    /// A UNet: `unet/` of the model folder, in the latent space of its `vae/` if it has one
    Denoiser {
        /// The model folder that is made
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// A ControlNet as conditional score estimator, over a frozen model
    Cse {
        /// The ControlNet folder that is made
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        /// The frozen model's folder, or `embedded`
        #[arg(long, value_name = "DIR")]
        model: String,
        /// What makes the measurement: sr8, blur, ...
        #[arg(long)]
        task: String,
        /// Instead of a folder: this many samples of the model itself, kept in self-generated/ of the output
        #[arg(long, value_name = "N", conflicts_with_all = ["input", "scenes"])]
        self_generated: Option<usize>,
        /// On processors, keep the frozen model's weights in files of this folder instead of memory
        #[arg(long, value_name = "DIR")]
        offload: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
}

/// Defaults are the paper's (B.2)
#[derive(Debug, clap::Args)]
struct Common {
    /// A folder of images to learn from
    #[arg(short, long, value_name = "DIR")]
    input: Option<PathBuf>,
    /// Instead of a folder: this many scenes that the program draws itself
    #[arg(long, value_name = "N", conflicts_with = "input")]
    scenes: Option<usize>,
    /// The seed of the scenes
    #[arg(long, value_name = "N", default_value_t = 0)]
    scenes_seed: u64,
    /// Learn from this many of the images alone, chosen by the seed
    #[arg(long, value_name = "N")]
    subset: Option<usize>,
    /// How images vary: paper (crops of 0.8 to 2 of the area, flips, colours) or none (the middle)
    #[arg(long, default_value = "paper")]
    augment: String,
    /// Height and width of the images
    #[arg(long, value_name = "HxW", default_value = "512x512")]
    size: String,
    /// Steps of the optimiser
    #[arg(long, value_name = "N", default_value_t = 5000)]
    steps: usize,
    /// Images of a step
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,
    /// Images computed at once; their gradients are summed up to the batch
    #[arg(long, value_name = "N", default_value_t = 4)]
    micro: usize,
    /// Learning rate
    #[arg(long, value_name = "X", default_value_t = 5e-6)]
    lr: f64,
    /// Steps over which the learning rate rises
    #[arg(long, value_name = "N", default_value_t = 0)]
    warmup: usize,
    /// What the learning rate does then: constant or cosine
    #[arg(long, default_value = "constant")]
    decay: String,
    /// AdamW's weight decay
    #[arg(long, value_name = "X", default_value_t = 1e-2)]
    weight_decay: f64,
    /// The largest norm of the gradient; 0 for none
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    clip: f64,
    /// What a moving average of the parameters keeps at a step; 0 for none
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    ema: f64,
    /// Of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Steps between checkpoints
    #[arg(long, value_name = "N", default_value_t = 500)]
    save_every: usize,
    /// The type the model is stored in: f32, f16 or bf16
    #[arg(long, default_value = "f32")]
    store: String,
    /// auto, cpu, cuda, cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// The type of activations: f32, bf16 or f16; by default the device's
    #[arg(long)]
    precision: Option<String>,
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let (mut self_generated, mut offload) = (None, None);
    let (model, objective, folder, common) = match args.what {
        What::Autoencoder {
            output,
            kl_weight,
            common,
        } => {
            let objective = format!("autoencoder, kl weight {kl_weight}");
            (Model::Autoencoder { kl_weight }, objective, output, common)
        }
        What::Denoiser { output, common } => (Model::Denoiser, "denoiser".into(), output, common),
        What::Cse {
            output,
            model,
            task,
            self_generated: count,
            offload: folder,
            common,
        } => {
            offload = folder;
            let task = Task::parse(&task)?;
            let model = named(&model, embedded::folder)?;
            self_generated =
                count.map(|count| (count, model.clone(), output.join("self-generated")));
            let objective = format!("cse, {task}");
            (Model::Cse { task, prior: model }, objective, output, common)
        }
    };
    let device = device(
        &common.device,
        common.precision.as_deref(),
        offload.as_deref(),
    )?;
    let size = size(&common.size)?;
    let settings = settings(&common)?;
    let (augment, kind) = (augment(&common.augment, size)?, kind(&common.store)?);
    let steps = settings.steps;
    let batch = settings.batch;
    let mut job = Job {
        model,
        folder,
        size,
        settings,
        made_of: Vec::new(),
        save_every: common.save_every,
        kind,
    };
    job.check()?;
    let source = match self_generated {
        Some((count, model, folder)) => {
            ui.start_bar(count as u64);
            let samples = Samples {
                size,
                seed: common.seed,
            };
            let source = samples.fill(&model, &device, &folder, count, &mut |there| {
                ui.advance(there as u64, "samples of the model");
            })?;
            ui.end_bar();
            subset(source, &common)?
        }
        None => subset(source(&common)?, &common)?,
    };
    job.made_of = vec![
        ("objective", objective),
        ("images", described(&source)?),
        ("augment", common.augment.clone()),
        ("size", common.size.clone()),
    ];
    let images = Batches::new(source, augment, common.seed)?;
    let mut since = Instant::now();
    job.run(&device, &images, &mut |progress| match progress {
        Progress::Start(step) => {
            since = Instant::now();
            ui.start_bar(steps as u64);
            ui.advance(step as u64, "");
        }
        Progress::Skipped(Skipped { name, why }) => {
            ui.complain(format!("skipped {name}: {why}"));
            ui.record("skipped", json!({ "item": name, "why": why }));
        }
        Progress::Step(record) => {
            let rate = batch as f64 / since.elapsed().as_secs_f64();
            since = Instant::now();
            ui.advance(record.step as u64 + 1, format!("loss {:.4}", record.loss));
            let mut fields = json!({
                "step": record.step, "loss": record.loss, "grad_norm": record.norm, "lr": record.lr, "images_per_s": rate,
            });
            for (name, value) in &record.parts {
                fields[name] = json!(value);
            }
            ui.record("train", fields);
        }
    })?;
    ui.end_bar();
    Ok(DONE)
}

/// Where the images come from.
fn source(common: &Common) -> posteriori::Result<Source> {
    match (&common.input, common.scenes) {
        (Some(folder), _) => Source::folder(folder),
        (None, Some(count)) => Source::scenes(common.scenes_seed, count),
        (None, None) => {
            let why =
                "wanted a folder of images, or --scenes N for scenes that the program draws itself";
            Err(Error::argument("--input", why))
        }
    }
}

fn subset(source: Source, common: &Common) -> posteriori::Result<Source> {
    match common.subset {
        Some(n) => source.subset(n, common.seed),
        None => Ok(source),
    }
}

/// What tells these images from others: of files, a number made of their names.
fn described(source: &Source) -> posteriori::Result<String> {
    if let Source::Scenes { seed, count } = source {
        return Ok(format!("{count} scenes of seed {seed}"));
    }
    let names: Vec<String> = (0..source.count())
        .map(|i| source.name(i))
        .collect::<posteriori::Result<_>>()?;
    let key = image_key(&names.join("\n"));
    Ok(format!("{} of a folder, {key:016x}", names.len()))
}

fn augment(text: &str, size: [usize; 2]) -> posteriori::Result<Augment> {
    match text {
        "paper" => Ok(Augment::paper(size)),
        "none" => Ok(Augment::none(size)),
        _ => {
            let why = format!("wanted paper or none, got `{text}`");
            Err(Error::argument("--augment", why))
        }
    }
}

fn settings(common: &Common) -> posteriori::Result<Settings> {
    let decay = match common.decay.as_str() {
        "constant" => Decay::Constant,
        "cosine" => Decay::Cosine,
        other => {
            let why = format!("wanted constant or cosine, got `{other}`");
            return Err(Error::argument("--decay", why));
        }
    };
    let some = |value: f64| (value != 0.0).then_some(value);
    Ok(Settings {
        steps: common.steps,
        batch: common.batch,
        micro: common.micro.min(common.batch),
        lr: common.lr,
        warmup: common.warmup,
        decay,
        weight_decay: common.weight_decay,
        clip: some(common.clip),
        ema: some(common.ema),
        seed: common.seed,
        ..Settings::default()
    })
}

fn kind(text: &str) -> posteriori::Result<Kind> {
    [Kind::F32, Kind::F16, Kind::BF16]
        .into_iter()
        .find(|kind| kind.name().eq_ignore_ascii_case(text))
        .ok_or_else(|| Error::argument("--store", format!("wanted f32, f16 or bf16, got `{text}`")))
}
