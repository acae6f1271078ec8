//! Is this engine right for my model? Computes every tensor of a golden file that it knows, and
//! compares.
//!
//! A golden file is `NAME.safetensors` with `NAME.index.json` beside it: tensors computed by PyTorch and
//! diffusers in f64, and for each its role, shape and tolerance. Names say what a tensor is:
//! `unet/t500/eps`, `vae/decode/vjp_z`, `traj/dps_sr8/x`, and so on.
//!
//! To add a kind of tensor: compute it in the file here that its first word names, and `put` it.

mod goldens;
mod networks;
mod operators;
pub mod portable;
mod published;
mod schedules;
mod training;
mod trajectories;

use std::path::Path;

use serde::Serialize;

use crate::cx::Cx;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::models::controlnet::ControlNet;
use crate::pipeline::prior::{Prior, open_controlnet};
use crate::runtime::native::Products;
use goldens::Goldens;

/// One tensor compared.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name in the golden file.
    pub name: String,
    /// ||got - want|| / ||want||.
    pub error: f64,
    /// The most that `error` may be.
    pub tolerance: f64,
}

impl Row {
    /// Whether the error is within the tolerance.
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// What a verification found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Every tensor that was computed.
    pub rows: Vec<Row>,
    /// Tensors of the file that this version does not compute.
    pub unknown: Vec<String>,
}

/// Verifies the model in folder `model`, with the ControlNet in folder `controlnet` (the model's own `controlnet/`
/// when `None`), against `file`, its networks in `net`; `tell` sees each row as it is known. Those of the file's tensors
/// are computed whose names contain one of `only`, or all when there are none.
///
/// # Errors
/// When model or file cannot be read; whatever a computation returns.
pub fn verify(
    model: &Path,
    controlnet: Option<&Path>,
    file: &Path,
    only: &[String],
    net: &Cx,
    tell: &mut dyn FnMut(&Row),
) -> Result<Report> {
    let goldens = Goldens::open(file, only)?;
    let prior = Prior::open(net, model)?;
    let folder = controlnet.map_or_else(|| model.join("controlnet"), Path::to_owned);
    let controlnet = match goldens.any("cn/") || goldens.any("traj/cse_") {
        true if folder.is_dir() => {
            Some(open_controlnet(net, &folder, &prior.unet, &mut Vec::new())?)
        }
        _ => None,
    };
    let models = Models {
        prior: &prior,
        controlnet: controlnet.as_ref(),
    };
    let mut sink = Sink {
        goldens: &goldens,
        precision: precision(net),
        report: Report::default(),
        tell,
    };
    let cx = &net.state();
    schedules::compute(&models, &mut sink)?;
    of("text", networks::text(cx, model, &mut sink))?;
    networks::unet(cx, &models, &mut sink)?;
    networks::controlnet(cx, &models, &mut sink)?;
    of("vae", networks::vae(cx, &models, &mut sink))?;
    of("act", networks::activations(cx, &models, &mut sink))?;
    operators::compute(cx, &models, &mut sink)?;
    trajectories::compute(cx, &models, &mut sink)?;
    let trained = training::compute(cx, &folder, &prior.unet, &mut sink);
    of("train", trained)?;
    let mut report = sink.report;
    let known = |name: &&str| report.rows.iter().any(|row| row.name == **name);
    report.unknown = goldens
        .outputs()
        .filter(|n| !known(n))
        .map(String::from)
        .collect();
    Ok(report)
}

/// `||got - want|| / ||want||`; infinity for a NaN, which must not pass for a small one, and for another length.
fn relative(got: &[f64], want: &[f64]) -> f64 {
    let square = |v: f64| v * v;
    let difference: f64 = got.iter().zip(want).map(|(g, w)| square(g - w)).sum();
    let norm: f64 = want.iter().map(|w| square(*w)).sum();
    let error = (difference / norm.max(f64::MIN_POSITIVE)).sqrt();
    match error.is_nan() || got.len() != want.len() {
        true => f64::INFINITY,
        false => error,
    }
}

/// What was computed for golden tensors whose names begin so: an error says which, for model and file may not belong
/// together.
fn of<T>(name: &str, computed: Result<T>) -> Result<T> {
    computed.map_err(|error| match error {
        Error::Shape { what, want, got } => Error::Shape {
            what: format!("{name}: {what}"),
            want,
            got: format!("{got}; are the goldens of this model?"),
        },
        other => other,
    })
}

/// The models under verification.
struct Models<'a> {
    prior: &'a Prior,
    controlnet: Option<&'a ControlNet>,
}

/// The index's name for the tolerances of a precision. f16 has TF32's mantissa.
fn precision(net: &Cx) -> &'static str {
    match net.dtype() {
        _ if net.rt().products() == Products::Bf16 => "bf16",
        DType::Bf16 => "bf16",
        DType::F16 => "tf32",
        _ => "fp32",
    }
}

/// Where computed tensors go to be compared.
struct Sink<'a> {
    goldens: &'a Goldens,
    precision: &'static str,
    report: Report,
    tell: &'a mut dyn FnMut(&Row),
}

impl Sink<'_> {
    /// Whether the file asks for this tensor.
    fn wants(&self, name: &str) -> bool {
        self.goldens.is_output(name)
    }

    /// Compares values that are in the file's layout, whole or already cropped.
    fn put(&mut self, name: &str, got: Vec<f64>) -> Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        let want = self.goldens.values(name)?;
        let got = self.goldens.crop(name, got)?;
        let tolerance = self.goldens.tolerance(name, self.precision);
        let Some((len, median)) = self.goldens.rows(name, self.precision) else {
            self.judge(name.into(), relative(&got, &want), tolerance);
            return Ok(());
        };
        let rows = got.chunks(len).zip(want.chunks(len));
        let mut errors: Vec<f64> = rows.map(|(got, want)| relative(got, want)).collect();
        errors.sort_by(f64::total_cmp);
        let error = |row: Option<&f64>| match (row, got.len() == want.len()) {
            (Some(&error), true) => error,
            _ => f64::INFINITY,
        };
        self.judge(name.into(), error(errors.last()), tolerance);
        if let Some(tolerance) = median {
            let median = error(errors.get(errors.len() / 2));
            self.judge(format!("{name}, median row"), median, tolerance);
        }
        Ok(())
    }

    fn judge(&mut self, name: String, error: f64, tolerance: f64) {
        let row = Row {
            name,
            error,
            tolerance,
        };
        (self.tell)(&row);
        self.report.rows.push(row);
    }
}
