//! How much restorations of one measurement differ: the paper's Table 3 and Figure 3.

use crate::error::{Error, Result};
use crate::io::image::Image;

/// The standard deviation of restorations of one measurement.
#[derive(Clone, Debug)]
pub struct Diversity {
    /// Its mean over pixels and channels, for values from -1 to 1.
    pub mean: f64,
    /// Its mean over channels at each pixel, row by row.
    pub map: Vec<f64>,
}

impl Diversity {
    /// Of at least two images of one size; unbiased, so over one less than their number.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is one, [`Error::Shape`] when they differ in size.
    pub fn of(images: &[Image]) -> Result<Self> {
        let [first, _, ..] = images else {
            let why = format!("wanted at least 2, got {}", images.len());
            return Err(Error::argument("samples", why));
        };
        let size = |image: &Image| [image.height, image.width];
        if let Some(other) = images.iter().find(|image| size(image) != size(first)) {
            let [want, got] = [first, other].map(|image| format!("{:?}", size(image)));
            return Err(Error::shape("samples", want, got));
        }
        let n = images.len() as f64;
        let deviation = |i: usize| {
            let values = || images.iter().map(|image| f64::from(image.pixels[i]));
            let mean = values().sum::<f64>() / n;
            let squares = values().map(|v| (v - mean) * (v - mean)).sum::<f64>();
            (squares / (n - 1.0)).sqrt()
        };
        let all: Vec<f64> = (0..first.pixels.len()).map(deviation).collect();
        let map = all
            .chunks_exact(3)
            .map(|pixel| pixel.iter().sum::<f64>() / 3.0)
            .collect();
        Ok(Diversity {
            mean: all.iter().sum::<f64>() / all.len() as f64,
            map,
        })
    }

    /// The map as a grey picture, white where the deviation is `white` or more.
    ///
    /// # Errors
    /// [`Error::Shape`] when the map is not of this size.
    pub fn picture(&self, [h, w]: [usize; 2], white: f64) -> Result<Image> {
        let grey = |v: &f64| [(2.0 * (v / white).min(1.0) - 1.0) as f32; 3];
        Image::new(w, h, self.map.iter().flat_map(grey).collect())
    }
}
