//! The measurement file: what `degrade` did to an image, for `restore` to read, so that the operator is
//! never guessed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Operator, Task, add_noise, check_sigma, poisson};
use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::io::image::Image;
use crate::rng::Stream;

/// How one image was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// The operator and all its parameters.
    pub task: Task,
    /// The standard deviation of the noise, for images in [-1, 1].
    pub sigma: f64,
    /// The seed of the noise.
    pub seed: u64,
    /// `[h, w]` of the clean image.
    pub image_size: [usize; 2],
    /// Photons for each of 256 levels, if they are counted: [`poisson`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub photons: Option<f64>,
}

impl Task {
    /// The same with kernels and masks written out: those that a file holds are read, those that a seed draws are drawn.
    ///
    /// # Errors
    /// [`Error::File`] when a file cannot be read, [`Error::Argument`] when it holds none.
    pub fn written_out(self) -> Result<Self> {
        Ok(match self {
            Task::MotionBlur(p) => Task::MotionBlur(p.drawn()?),
            Task::KernelFile(p) => Task::KernelFile(p.read()?),
            Task::MaskFile(p) => Task::MaskFile(p.read()?),
            other => other,
        })
    }
}

impl Measurement {
    /// The record of a measurement. Kernels and masks are written out, so that the file
    /// suffices.
    ///
    /// # Errors
    /// As [`Measurement::check`].
    pub fn new(task: Task, sigma: f64, seed: u64, image_size: [usize; 2]) -> Result<Self> {
        let measurement = Measurement {
            task: task.written_out()?,
            sigma,
            seed,
            image_size,
            photons: None,
        };
        measurement.check()?;
        Ok(measurement)
    }

    /// The same with counted photons, so many for each of 256 levels; noise of `sigma` comes on top.
    ///
    /// # Errors
    /// As [`Measurement::check`].
    pub fn counting(mut self, photons: f64) -> Result<Self> {
        self.photons = Some(photons);
        self.check()?;
        Ok(self)
    }

    /// Whether an operator can be built from this.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the parameter that is out of its range.
    pub fn check(&self) -> Result<()> {
        check_sigma(self.sigma)?;
        self.photons.map_or(Ok(()), poisson::check)?;
        if self.photons.is_some() && !self.task.measures_pictures() {
            let why = format!(
                "wanted Gaussian noise: photons are counted of pictures, and what {} measures is none",
                self.task
            );
            return Err(Error::argument("poisson", why));
        }
        self.task.check()?;
        self.task.check_size(self.image_size)
    }

    /// The operator for images of this measurement's size.
    ///
    /// # Errors
    /// As [`Task::build`].
    pub fn operator(&self, cx: &Cx) -> Result<Box<dyn Operator>> {
        self.task.build(cx, self.image_size)
    }

    /// Measures the image `x` with this [`image_key`](crate::rng::image_key), which the noise depends on.
    ///
    /// # Errors
    /// As [`Task::build`]; [`Error::Shape`] when `x` is not of this measurement's size.
    pub fn measure(&self, x: &Image, key: u64) -> Result<Image> {
        let cx = Cx::native();
        let operator = self.operator(&cx)?;
        let clean = cx.upload(&x.pixels, [1, x.height, x.width, 3])?;
        let stream = Stream::new(self.seed, key, 0);
        let mut y = operator.measure(&cx, &clean)?;
        if let Some(photons) = self.photons {
            y = poisson::count(&cx, &y, photons, stream)?;
        }
        let noisy = add_noise(&cx, &y, self.sigma, &[stream])?;
        let [h, w, _] = operator.measurement_shape();
        Image::new(w, h, noisy.to_vec()?)
    }

    /// A measurement as people look at it: a picture as it is, anything else in the image's size, by its logarithm,
    /// from 0, black, to the largest value, white.
    ///
    /// # Errors
    /// As [`Task::build`]; [`Error::Shape`] when `y` is no measurement like this one.
    pub fn shown(&self, y: &Image) -> Result<Image> {
        if self.task.measures_pictures() {
            return Ok(y.clone());
        }
        let cx = Cx::native();
        let y = cx.upload(&y.pixels, [1, y.height, y.width, 3])?;
        let small = self.operator(&cx)?.condition(&cx, &y)?.to_f64()?;
        let light = |v: &f64| v.max(0.0).ln_1p();
        let most = small.iter().map(light).fold(f64::MIN_POSITIVE, f64::max);
        let pixels = small.iter().map(|v| (2.0 * light(v) / most - 1.0) as f32);
        let [h, w] = self.image_size;
        Image::new(w, h, pixels.collect())
    }

    /// The content of the file.
    ///
    /// # Errors
    /// As [`Measurement::check`]: what [`Measurement::from_json`] would not read is not written.
    pub fn to_json(&self) -> Result<String> {
        self.check()?;
        let text = serde_json::to_string(self)
            .map_err(|e| Error::config("measurement file", e.to_string()))?;
        Ok(text + "\n")
    }

    /// Reads the content of the file `what`.
    ///
    /// # Errors
    /// [`Error::Config`] when it is no measurement, or describes one that cannot be.
    pub fn from_json(what: &str, text: &str) -> Result<Self> {
        let unusable = |why: String| {
            let advice = "correct it, or write it again with `posteriori degrade`";
            Error::config(
                what,
                format!("not a usable measurement file: {why}; {advice}"),
            )
        };
        let measurement: Measurement =
            serde_json::from_str(text).map_err(|e| unusable(e.to_string()))?;
        measurement.check().map_err(|e| unusable(e.to_string()))?;
        Ok(measurement)
    }

    /// Where the file of an image lies: beside it, its whole name followed by `.measurement.json`, so
    /// that `y.png` and `y.jpg` have one each.
    pub fn path_for(image: &Path) -> PathBuf {
        let mut name = image.file_name().unwrap_or_default().to_os_string();
        name.push(".measurement.json");
        image.with_file_name(name)
    }
}
