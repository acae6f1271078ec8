//! Measurement operators: what turned the clean image into the one that was measured.
//!
//! To add one: its file, with its parameters, its line for the help and its operator; then its lines in
//! [`TASKS`], [`Task`] and `Task::parameters`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::io::image::read;
use crate::ops::noise;
use crate::rng::{self, Stream};
use crate::tensor::Tensor;

pub mod box_inpainting;
pub mod colorization;
pub mod denoising;
pub mod gaussian_blur;
pub mod hdr;
pub mod jpeg;
pub mod kernel_file;
pub mod mask_file;
pub mod matrix;
pub mod measurement;
pub mod motion;
pub mod motion_blur;
pub mod phase_retrieval;
pub mod poisson;
pub mod random_inpainting;
pub mod super_resolution;

pub mod cropped;
mod filtered;
mod masked;
pub(crate) mod separable;

pub use measurement::Measurement;

/// The longest side of an image.
const LONGEST: usize = 1 << 16;
/// The most pixels of an image.
const MOST_PIXELS: usize = 1 << 26;

/// A measurement `y = f(x)` of images `x: [n, h, w, 3]` of one size, in [-1, 1].
pub trait Operator {
    /// `[h, w, c]` of the measurement of an image of the size this operator was built for.
    fn measurement_shape(&self) -> [usize; 3];

    /// `f(x)`, without noise.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x` is not of the size this operator was built for.
    fn measure(&self, cx: &Cx, x: &Tensor) -> Result<Tensor>;

    /// The cotangent of `x` from the cotangent `dy` of the measurement. Linear operators ignore `x`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `dy` is not of the measurement's shape.
    fn vjp(&self, cx: &Cx, x: &Tensor, dy: &Tensor) -> Result<Tensor>;

    /// The adjoint `f^T(y)` of a linear operator.
    ///
    /// # Errors
    /// [`Error::Shape`] when `y` is not of the measurement's shape; [`Error::Argument`] when the operator is not linear.
    fn adjoint(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        self.vjp(cx, y, y)
    }

    /// The cotangent of `y` from that of [`Operator::adjoint`]: for a linear operator `f` itself.
    ///
    /// # Errors
    /// As [`Operator::adjoint`].
    fn adjoint_vjp(&self, cx: &Cx, dx: &Tensor) -> Result<Tensor> {
        self.measure(cx, dx)
    }

    /// The Moore-Penrose inverse applied to `y`, for operators that have a usable one.
    ///
    /// # Errors
    /// [`Error::Shape`] when `y` is not of the measurement's shape.
    fn pinv(&self, cx: &Cx, y: &Tensor) -> Result<Option<Tensor>>;

    /// The image `[n, h, w, 3]` that a ControlNet is conditioned on: `y` itself, enlarged where it is smaller.
    ///
    /// # Errors
    /// [`Error::Shape`] when `y` is not of the measurement's shape.
    fn condition(&self, cx: &Cx, y: &Tensor) -> Result<Tensor>;
}

/// One kind of task, as the command line's help lists it.
#[derive(Debug)]
pub struct TaskKind {
    /// The word it begins with.
    pub name: &'static str,
    /// How it is written.
    pub syntax: &'static str,
    /// What it is, in one line.
    pub doc: &'static str,
    /// From what follows the name; `None` when that does not follow the syntax.
    parse: fn(&str) -> Option<Task>,
}

/// Every kind of task.
pub static TASKS: &[TaskKind] = &[
    super_resolution::KIND,
    gaussian_blur::KIND,
    motion_blur::KIND,
    box_inpainting::KIND,
    random_inpainting::KIND,
    denoising::KIND,
    colorization::KIND,
    hdr::KIND,
    jpeg::KIND,
    phase_retrieval::KIND,
    kernel_file::KIND,
    mask_file::KIND,
];

/// An operator by its parameters, as a measurement file holds it. Prints as [`Task::parse`] reads it,
/// where that has words for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "operator", rename_all = "kebab-case")]
pub enum Task {
    /// Enlarging an image that was reduced by antialiased bicubic interpolation.
    SuperResolution(super_resolution::Parameters),
    /// Undoing a Gaussian blur.
    GaussianBlur(gaussian_blur::Parameters),
    /// Undoing the blur of a shaken camera.
    MotionBlur(motion_blur::Parameters),
    /// Filling a box in the middle.
    BoxInpainting(box_inpainting::Parameters),
    /// Filling pixels that are missing at random.
    RandomInpainting(random_inpainting::Parameters),
    /// Removing noise alone.
    Denoising(denoising::Parameters),
    /// Finding the colours of a grey image.
    Colorization(colorization::Parameters),
    /// Finding the detail that was clipped.
    #[serde(rename = "hdr")]
    HighDynamicRange(hdr::Parameters),
    /// Undoing JPEG compression.
    Jpeg(jpeg::Parameters),
    /// Finding an image by the modulus of its Fourier transform.
    PhaseRetrieval(phase_retrieval::Parameters),
    /// Undoing the blur of a given kernel.
    KernelFile(kernel_file::Parameters),
    /// Filling the holes of a given mask.
    MaskFile(mask_file::Parameters),
}

/// What a task needs to know of its parameters.
trait Parameters: fmt::Display {
    /// Whether they are usable at all.
    fn check(&self) -> Result<()>;

    /// Whether they are usable for images `[h, w]`, which are of a sensible size.
    fn check_size(&self, _size: [usize; 2]) -> Result<()> {
        Ok(())
    }

    /// The operator for images `[h, w]`, both checked.
    fn build(&self, cx: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>>;

    /// The size of the image whose measurement has this size.
    fn image_size(&self, measurement: [usize; 2]) -> [usize; 2] {
        measurement
    }

    /// As [`Task::measures_pictures`].
    fn measures_pictures(&self) -> bool {
        true
    }
}

impl Task {
    /// Enlargement by this factor, 1 to 64.
    pub const fn super_resolution(factor: usize) -> Self {
        Task::SuperResolution(super_resolution::Parameters { factor })
    }

    /// The task that a text like `sr8`, `motion:7` or `random:0.5` names; [`TASKS`] lists them.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such task, or its parameters are out of their ranges.
    pub fn parse(text: &str) -> Result<Self> {
        let end = text.find(|c: char| !c.is_ascii_alphabetic());
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        let task = TASKS
            .iter()
            .find(|kind| kind.name == name)
            .and_then(|kind| (kind.parse)(rest))
            .ok_or_else(|| {
                let all: Vec<&str> = TASKS.iter().map(|kind| kind.syntax).collect();
                let why = format!("wanted one of {}, got `{text}`", all.join(", "));
                Error::argument("task", why)
            })?;
        task.check()?;
        Ok(task)
    }

    /// The operator for images of `size = [h, w]`.
    ///
    /// # Errors
    /// [`Error::Argument`] when a parameter is out of its range or the size does not suit the task.
    pub fn build(&self, cx: &Cx, size: [usize; 2]) -> Result<Box<dyn Operator>> {
        self.check()?;
        self.check_size(size)?;
        self.parameters().build(cx, size)
    }

    /// The size `[h, w]` of the image whose measurement has this size.
    pub fn image_size(&self, measurement: [usize; 2]) -> [usize; 2] {
        self.parameters().image_size(measurement)
    }

    /// Whether a measurement is itself a picture: in [-1, 1] but for noise, and flat where the image is.
    pub fn measures_pictures(&self) -> bool {
        self.parameters().measures_pictures()
    }

    /// Whether the parameters are in their ranges.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the one that is not.
    pub fn check(&self) -> Result<()> {
        self.parameters().check()
    }

    /// Whether the task takes images of `size = [h, w]`.
    ///
    /// # Errors
    /// [`Error::Argument`] saying which sizes it takes.
    pub fn check_size(&self, size: [usize; 2]) -> Result<()> {
        let [h, w] = size;
        if h == 0 || w == 0 || h.max(w) > LONGEST || h * w > MOST_PIXELS {
            let why = format!(
                "wanted sides of 1 to {LONGEST} and at most {MOST_PIXELS} pixels, got {h} x {w}"
            );
            return Err(Error::argument("image size", why));
        }
        self.parameters().check_size(size)
    }

    /// The one place that knows all parameters.
    fn parameters(&self) -> &dyn Parameters {
        match self {
            Task::SuperResolution(p) => p,
            Task::GaussianBlur(p) => p,
            Task::MotionBlur(p) => p,
            Task::BoxInpainting(p) => p,
            Task::RandomInpainting(p) => p,
            Task::Denoising(p) => p,
            Task::Colorization(p) => p,
            Task::HighDynamicRange(p) => p,
            Task::Jpeg(p) => p,
            Task::PhaseRetrieval(p) => p,
            Task::KernelFile(p) => p,
            Task::MaskFile(p) => p,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parameters().fmt(f)
    }
}

/// `y + sigma n`: the noise of a measurement, drawn at step [`rng::MEASUREMENT`], draw 0, of the stream of
/// each sample. No sampling step has that number, so a sampler with the same streams draws other noise.
///
/// # Errors
/// [`Error::Argument`] when `sigma` is negative or not finite, [`Error::Shape`] when there is not one
/// stream a sample.
pub fn add_noise(cx: &Cx, y: &Tensor, sigma: f64, streams: &[Stream]) -> Result<Tensor> {
    check_sigma(sigma)?;
    noise::add(cx, y, sigma, streams, rng::MEASUREMENT, 0)
}

fn check_sigma(sigma: f64) -> Result<()> {
    if sigma >= 0.0 && sigma.is_finite() {
        return Ok(());
    }
    let why = format!("wanted a standard deviation of 0 or more, got {sigma:?}");
    Err(Error::argument("sigma", why))
}

/// Fails unless `x` is `[n, h, w, c]` of the run's element type.
fn expect_image(cx: &Cx, what: &str, x: &Tensor, [h, w, c]: [usize; 3]) -> Result<()> {
    match x.dims() {
        &[_, xh, xw, xc] if [xh, xw, xc] == [h, w, c] => x.expect_dtype(what, cx.dtype()),
        _ => Err(Error::shape(what, format!("[n, {h}, {w}, {c}]"), x.shape())),
    }
}

/// The size of an image file and the mean of each pixel's channels, 0 to 1.
fn brightness(file: &str) -> Result<([usize; 2], Vec<f64>)> {
    let image = read(file)?;
    let grey = |pixel: &[f32]| pixel.iter().map(|v| f64::from(*v) + 1.0).sum::<f64>() / 6.0;
    let values = image.pixels.chunks_exact(3).map(grey).collect();
    Ok(([image.height, image.width], values))
}

/// The refusal of an adjoint.
fn not_linear(what: &str) -> Result<Tensor> {
    let why = format!("wanted a task with a linear operator, {what} has none; psld cannot take it");
    Err(Error::argument("task", why))
}

/// The values that follow a task's name, each after a colon.
fn values(rest: &str) -> Option<Vec<&str>> {
    if rest.is_empty() {
        return Some(Vec::new());
    }
    Some(rest.strip_prefix(':')?.split(':').collect())
}
