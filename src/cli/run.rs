//! The settings of a run, read and checked against each other.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use posteriori::io::image::Format;
use posteriori::operators::Task;
use posteriori::ops::expect_variant;
use posteriori::pipeline::Pipeline;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::job::{Algorithm, Method, Restore};
use posteriori::runtime::Runtime;
use posteriori::{Cx, Error, Result};

use super::files::Exists;
use super::settings::{Origin, Settings};
use super::ui::Ui;
use super::{methods, plan};

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
    pub(crate) batch: usize,
    device: Option<String>,
    pub(crate) precision: String,
    variants: Vec<Forced>,
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
            model: settings.need("model", |t| Ok(PathBuf::from(t)))?,
            cse: settings.read("cse", |t| Ok(PathBuf::from(t)))?,
            task,
            preset,
            method,
            prompt: settings.text("prompt").unwrap_or_default().into(),
            cse_scale: settings.read("cse-scale", number)?.unwrap_or(1.0),
            batch: settings.need("batch", |t| whole(t, 1..=MOST))? as usize,
            device: settings.text("device").map(String::from),
            precision: settings.need("precision", |t| Ok(t.to_owned()))?,
            variants: settings.read("variant", forced)?.unwrap_or_default(),
        })
    }

    /// The job for a task.
    pub(crate) fn job(&self, task: &Task, seed: u64) -> Result<Restore> {
        let preset = Method::preset(&self.preset)?;
        let zeta = self.method.zeta.unwrap_or_else(|| preset.zeta_for(task));
        let mut job = Restore::new(task.clone(), self.method.zeta(zeta))
            .seed(seed)
            .prompt(&self.prompt);
        job.conditioning_scale = self.cse_scale;
        Ok(job)
    }

    /// The models, on the device.
    pub(crate) fn open(&self, ui: &Ui) -> Result<Pipeline> {
        let device = Device::parse(self.device.as_deref().unwrap_or("auto"))?;
        let device = device.with_precision(&self.precision)?;
        let mut pipeline = Pipeline::open(&self.model, device)?;
        if let Some(cse) = &self.cse {
            pipeline = pipeline.with_controlnet(cse)?;
        }
        for (op, variant) in &self.variants {
            pipeline = pipeline.forcing(op, variant)?;
        }
        for name in pipeline.unread() {
            ui.detail(format!("not used: {name}"));
        }
        // Steps that the model's schedule does not have are told before the first image is read.
        let steps = self.job(&Task::super_resolution(1), 0)?;
        steps.steps(&pipeline.prior().schedule)?;
        Ok(pipeline)
    }

    /// The context to plan in.
    pub(crate) fn planned(&self) -> Result<Cx> {
        self.context(Runtime::dry())
    }

    /// The context of a run on `rt`.
    pub(crate) fn context(&self, rt: Runtime) -> Result<Cx> {
        let cx = Cx::new(rt, plan::precision(&self.precision)?)?;
        Ok(forcing(cx, &self.variants))
    }

    /// The model folder's name, for records.
    pub(crate) fn model_name(&self) -> String {
        let path = self.model.canonicalize();
        let path = path.as_ref().unwrap_or(&self.model);
        let name = path.file_name().unwrap_or(path.as_os_str());
        name.to_string_lossy().into_owned()
    }
}

fn method(settings: &Settings, preset: &str) -> Result<Method> {
    let mut method = settings.need("steps", |t| {
        Ok(Method::preset(preset)?.steps(whole(t, 1..=u64::MAX)? as usize))
    })?;
    method.spacing = settings.need("spacing", methods::spacing)?;
    method.solver = settings.need("solver", methods::solver)?;
    let useless = |key| settings.refuse(key, format!("the method {preset} has no use for it"));
    for (key, used) in [
        ("zeta", method.algorithm != Algorithm::Ancestral),
        ("zeta-space", method.algorithm != Algorithm::Ancestral),
        (
            "ascents",
            matches!(method.algorithm, Algorithm::Dmap { .. }),
        ),
        (
            "project",
            matches!(method.algorithm, Algorithm::Dmap { .. }),
        ),
    ] {
        if !used && settings.text(key).is_some() {
            return Err(useless(key));
        }
    }
    if let Some(space) = settings.read("zeta-space", methods::coordinates)? {
        method.coordinates = space;
    }
    method.zeta = settings.read("zeta", number)?;
    if let Algorithm::Dmap { ascents, project } = &mut method.algorithm {
        *ascents = settings.need("ascents", |t| whole(t, 1..=MOST))? as usize;
        *project = settings.need("project", methods::projection)?;
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

/// The same run with these variants.
pub(crate) fn forcing(cx: Cx, variants: &[Forced]) -> Cx {
    let force = |cx: Cx, (op, variant): &Forced| cx.forcing(op, variant);
    variants.iter().fold(cx, force)
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
