//! The settings of a run, read and checked against each other.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use posteriori::io::image::Format;
use posteriori::models::tokenizer::{CONTEXT, Tokenizer};
use posteriori::operators::Task;
use posteriori::ops::expect_variant;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::job::{Algorithm, Method, Restore, Tiles};
use posteriori::pipeline::plan::Engine;
use posteriori::pipeline::queue::BatchSize;
use posteriori::pipeline::{Pipeline, embedded};
use posteriori::runtime::kernel::{Arch, Target};
use posteriori::runtime::native::Products;
use posteriori::{DType, Error, Result};

use super::files::Exists;
use super::methods;
use super::settings::{Origin, Settings};
use super::ui::Ui;

/// The most of anything that is counted by hand: images in a batch, samples, ascents.
pub(crate) const MOST: u64 = 1 << 16;

/// What a model is run with.
pub(crate) struct Run {
    pub(crate) model: PathBuf,
    pub(crate) cse: Option<PathBuf>,
    pub(crate) task: Option<Task>,
    /// The name of the preset.
    pub(crate) preset: String,
    method: Method,
    prompt: String,
    cse_scale: f64,
    tiles: Tiles,
    pub(crate) batch: BatchSize,
    device: Option<String>,
    offload: Option<PathBuf>,
    precision: Option<String>,
    pub(crate) variants: Vec<Forced>,
}

/// An op and the variant that it is to take.
pub(crate) type Forced = (String, String);

/// What is written, and when.
pub(crate) struct Writing {
    /// `None`: the input's.
    pub(crate) format: Option<Format>,
    pub(crate) exists: Exists,
    pub(crate) stop: bool,
    pub(crate) recursive: bool,
    pub(crate) seed: u64,
}

impl Run {
    /// Reads the settings; fills in zeta once the task is known.
    pub(crate) fn read(settings: &mut Settings) -> Result<Self> {
        let task = settings.read("task", Task::parse)?;
        let preset = settings.text("method").unwrap_or("ancestral").to_owned();
        let method = method(settings, &preset)?;
        if let Some(task) = &task
            && method.algorithm != Algorithm::Ancestral
        {
            let zeta = Method::preset(&preset)?.zeta_for(task);
            settings.fill("zeta", zeta.to_string(), Origin::Preset(preset.clone()));
        }
        Ok(Run {
            model: settings.need("model", |t| folder(t, embedded::folder))?,
            cse: settings.read("cse", |t| folder(t, embedded::cse))?,
            task,
            preset,
            method,
            prompt: settings.text("prompt").unwrap_or_default().into(),
            cse_scale: settings.read("cse-scale", number)?.unwrap_or(1.0),
            tiles: settings.need("tile", tiles)?,
            batch: settings.need("batch", batch_size)?,
            device: settings.text("device").map(String::from),
            offload: settings.text("offload").map(PathBuf::from),
            precision: settings.text("precision").map(String::from),
            variants: settings.read("variant", forced)?.unwrap_or_default(),
        })
    }

    /// The job for a task.
    pub(crate) fn job(&self, task: &Task, seed: u64) -> Result<Restore> {
        let preset = Method::preset(&self.preset)?;
        let zeta = self.method.zeta.unwrap_or_else(|| preset.zeta_for(task));
        let mut job = Restore::new(task.clone(), self.method.zeta(zeta))
            .seed(seed)
            .tiles(self.tiles)
            .prompt(&self.prompt);
        job.conditioning_scale = self.cse_scale;
        Ok(job)
    }

    /// Sampling steps.
    pub(crate) fn steps(&self) -> usize {
        self.method.steps
    }

    /// What a plan is for. On a machine without a GPU too, 16 bits mean one.
    pub(crate) fn engine(&self) -> Result<Engine> {
        let device = self.device.as_deref().unwrap_or("auto");
        let dtype = self.precision.as_deref().map(precision).transpose()?;
        let gpu = device.starts_with("cuda");
        let forced = self.variants.clone();
        if gpu || (device == "auto" && dtype.is_some_and(DType::is_half)) {
            return Ok(Engine {
                target: Target::Kernels(Arch(90)),
                dtype: dtype.unwrap_or(DType::Bf16),
                products: Products::F32,
                forced,
            });
        }
        let device = self::device(device, self.precision.as_deref(), None)?;
        Ok(Engine::of(device.rt(), device.dtype(), forced))
    }

    /// The device, in the precision asked for.
    pub(crate) fn device(&self) -> Result<Device> {
        let mut all = self.devices()?;
        match (all.pop(), all.len()) {
            (Some(device), 0) => Ok(device),
            (_, others) => {
                let why = format!(
                    "wanted one device, got {}; only restore takes more",
                    others + 1
                );
                Err(Error::argument("--device", why))
            }
        }
    }

    /// The devices, in the precision asked for, weights where they are to lie: `cuda:0,1` are two.
    pub(crate) fn devices(&self) -> Result<Vec<Device>> {
        let text = self.device.as_deref().unwrap_or("auto");
        let one = |word: &str| {
            let word = match word.parse::<usize>() {
                Ok(number) if text.starts_with("cuda:") => format!("cuda:{number}"),
                _ => word.to_owned(),
            };
            device(&word, self.precision.as_deref(), self.offload.as_deref())
        };
        text.split(',').map(|word| one(word.trim())).collect()
    }

    /// Images sampled together, for what has no use for more than one unless it is told.
    pub(crate) fn batch_or_one(&self) -> usize {
        or_one(self.batch)
    }

    /// The models, on the device. Settles the precision.
    pub(crate) fn open(&self, settings: &mut Settings, ui: &Ui) -> Result<Pipeline> {
        self.open_with(&self.device()?, settings, ui)
    }

    /// The same on a device that is known already.
    pub(crate) fn open_with(
        &self,
        device: &Device,
        settings: &mut Settings,
        ui: &Ui,
    ) -> Result<Pipeline> {
        settings.fill("precision", device.precision().to_string(), Origin::Default);
        self.warn(ui);
        let pipeline = self.open_on(device.clone())?;
        for name in pipeline.unread() {
            ui.detail(format!("not used: {name}"));
        }
        Ok(pipeline)
    }

    /// The models, on this device.
    pub(crate) fn open_on(&self, device: Device) -> Result<Pipeline> {
        let mut pipeline = Pipeline::open(&self.model, device)?;
        if let Some(cse) = &self.cse {
            pipeline = pipeline.with_controlnet(cse)?;
        }
        for (op, variant) in &self.variants {
            pipeline = pipeline.forcing(op, variant)?;
        }
        // Steps that the model's schedule does not have, a prompt and tiles that it cannot take: told before an image is read.
        let job = self.job(&Task::super_resolution(1), 0)?;
        job.steps(&pipeline.prior().schedule)?;
        if let Tiles::Of(side) = self.tiles {
            pipeline.prior().check_tile(side)?;
        }
        pipeline.context(&job.prompt)?;
        Ok(pipeline)
    }

    /// Says that a prompt is longer than the model takes.
    pub(crate) fn warn(&self, ui: &Ui) {
        let folder = self.model.join("tokenizer");
        if self.prompt.is_empty() || !folder.is_dir() {
            return;
        }
        // One that cannot be read fails where the model is opened.
        let cut = Tokenizer::open(folder).map_or(0, |tokenizer| tokenizer.cut(&self.prompt));
        if cut > 0 {
            let most = CONTEXT - 2;
            ui.note(format!(
                "warning: --prompt: {} tokens, of which the last {cut} are cut off: a model takes {most}",
                most + cut
            ));
        }
    }

    /// The model folder's name, for records.
    pub(crate) fn model_name(&self) -> String {
        let path = self.model.canonicalize();
        let path = path.as_ref().unwrap_or(&self.model);
        let name = path.file_name().unwrap_or(path.as_os_str());
        name.to_string_lossy().into_owned()
    }
}

fn tiles(text: &str) -> Result<Tiles> {
    match text {
        "auto" => Ok(Tiles::Auto),
        "never" => Ok(Tiles::Never),
        _ => match whole(text, 1..=MOST) {
            Ok(side) => Ok(Tiles::Of(side as usize)),
            Err(_) => {
                let why = format!("wanted auto, never or a number of pixels, got `{text}`");
                Err(Error::argument("--tile", why))
            }
        },
    }
}

/// A folder by its path, or the one that ships with the program.
pub(crate) fn folder(text: &str, embedded: fn() -> Result<PathBuf>) -> Result<PathBuf> {
    match text {
        "embedded" => embedded(),
        "" => Err(Error::argument(
            "--model",
            "wanted a folder or `embedded`, got an empty text",
        )),
        path => Ok(PathBuf::from(path)),
    }
}

/// The device of this name, in the precision that is asked for, if any is, with weights in the folder `offload`, if there is one.
pub(crate) fn device(
    name: &str,
    precision: Option<&str>,
    offload: Option<&Path>,
) -> Result<Device> {
    let mut device = Device::parse(name)?;
    if let Some(precision) = precision {
        device = device.with_precision(precision)?;
    }
    match offload {
        Some(folder) => device.offloading(folder),
        None => Ok(device),
    }
}

/// The element type that a text names.
pub(crate) fn precision(text: &str) -> Result<DType> {
    let all = [DType::Bf16, DType::F16, DType::F32, DType::F64];
    let found = all.into_iter().find(|dtype| dtype.name() == text);
    let why = || format!("wanted bf16, f16, f32 or f64, got `{text}`");
    found.ok_or_else(|| Error::argument("--precision", why()))
}

fn method(settings: &Settings, preset: &str) -> Result<Method> {
    let mut method = settings.need("steps", |t| {
        Ok(Method::preset(preset)?.steps(whole(t, 1..=u64::MAX)? as usize))
    })?;
    method.spacing = settings.need("spacing", methods::spacing)?;
    method.solver = settings.need("solver", methods::solver)?;
    methods::own(settings, &mut method)?;
    let own: Vec<&str> = methods::describe(&method)
        .iter()
        .map(|(key, _)| *key)
        .collect();
    let zeta = method.algorithm != Algorithm::Ancestral;
    for key in methods::OF_METHODS {
        let used = own.contains(key) || (*key == "zeta" && zeta);
        if !used && settings.text(key).is_some() {
            return Err(settings.refuse(key, format!("the method {preset} has no use for it")));
        }
    }
    Ok(method)
}

impl Writing {
    /// Reads the settings; `format` is the one when none is given, `None` the input's.
    pub(crate) fn read(settings: &Settings, format: Option<Format>) -> Result<Self> {
        let given = settings.read("format", |text| match text {
            "keep" => Ok(None),
            text => Format::parse(text).map(Some),
        })?;
        Ok(Writing {
            format: given.unwrap_or(format),
            exists: settings.need("exists", Exists::parse)?,
            stop: settings.read("on-error", on_error)?.unwrap_or(false),
            recursive: settings.read("recursive", truth)?.unwrap_or(false),
            seed: settings.need("seed", |t| whole(t, 0..=u64::MAX))?,
        })
    }
}

/// `auto` or a number.
pub(crate) fn batch_size(text: &str) -> Result<BatchSize> {
    match text {
        "auto" => Ok(BatchSize::Auto),
        text => Ok(BatchSize::Of(whole(text, 1..=MOST)? as usize)),
    }
}

/// The size of a batch, for what has no use for more than one unless it is told.
pub(crate) fn or_one(size: BatchSize) -> usize {
    match size {
        BatchSize::Auto => 1,
        BatchSize::Of(n) => n,
    }
}

/// `OP=VARIANT`, or several with commas between them.
pub(crate) fn forced(text: &str) -> Result<Vec<Forced>> {
    let pair = |pair: &str| {
        let why = || format!("wanted OP=VARIANT, got `{pair}`");
        let words = pair.split_once('=');
        let (op, variant) = words.ok_or_else(|| Error::argument("--variant", why()))?;
        expect_variant(op.trim(), variant.trim())?;
        Ok((op.trim().into(), variant.trim().into()))
    };
    text.split(',').map(pair).collect()
}

fn on_error(text: &str) -> Result<bool> {
    match text {
        "continue" => Ok(false),
        "stop" => Ok(true),
        _ => {
            let why = format!("wanted continue or stop, got `{text}`");
            Err(Error::argument("--on-error", why))
        }
    }
}

fn truth(text: &str) -> Result<bool> {
    let why = || format!("wanted true or false, got `{text}`");
    text.parse().map_err(|_| Error::argument("setting", why()))
}

/// What was read for a flag; an error says which.
pub(crate) fn named<T>(flag: &str, read: Result<T>) -> Result<T> {
    read.map_err(|error| match error {
        Error::Argument { why, .. } => Error::argument(flag, why),
        other => other,
    })
}

/// The batches that a flag lists, with commas between them.
pub(crate) fn batches(flag: &str, text: &str) -> Result<Vec<usize>> {
    let one = |word: &str| whole(word.trim(), 1..=MOST).map(|n| n as usize);
    named(flag, text.split(',').map(one).collect())
}

/// A whole number in a range.
pub(crate) fn whole(text: &str, range: RangeInclusive<u64>) -> Result<u64> {
    let why = || {
        let most = match *range.end() {
            u64::MAX => String::new(),
            most => format!(" and at most {most}"),
        };
        let least = range.start();
        format!("wanted a whole number of at least {least}{most}, got `{text}`")
    };
    let number = text.parse().ok().filter(|n| range.contains(n));
    number.ok_or_else(|| Error::argument("setting", why()))
}

/// Fails for a count below `least` or above [`MOST`]; `name` is the option's.
pub(crate) fn expect_count(name: &str, got: usize, least: usize) -> Result<()> {
    if (least as u64..=MOST).contains(&(got as u64)) {
        return Ok(());
    }
    let why = format!("wanted at least {least} and at most {MOST}, got {got}");
    Err(Error::argument(name, why))
}

/// A finite number, not negative.
pub(crate) fn number(text: &str) -> Result<f64> {
    let why = || format!("wanted a number of at least 0, got `{text}`");
    let number = text
        .parse()
        .ok()
        .filter(|x: &f64| x.is_finite() && *x >= 0.0);
    number.ok_or_else(|| Error::argument("setting", why()))
}

/// `HxW`.
pub(crate) fn size(text: &str) -> Result<[usize; 2]> {
    let sides = text.split_once('x').and_then(|(h, w)| {
        let side = |t: &str| t.parse::<usize>().ok().filter(|n| *n > 0);
        Some([side(h)?, side(w)?])
    });
    let why = || format!("wanted HEIGHTxWIDTH such as 512x512, got `{text}`");
    sides.ok_or_else(|| Error::argument("--size", why()))
}
