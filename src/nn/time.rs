//! The time embedding: sinusoids of t, then linear, SiLU, linear. It has no path to the image, so no `vjp`.

use crate::cx::Cx;
use crate::error::Result;
use crate::nn::linear::Linear;
use crate::nn::param::Weights;
use crate::ops::activation::{self, Activation};
use crate::ops::embed::{self, Wave};
use crate::ops::lookup;
use crate::tensor::Tensor;

/// `time_proj` and `time_embedding` of a UNet or ControlNet.
#[derive(Debug)]
pub struct TimeEmbedding {
    name: String,
    wave: Wave,
    dim: usize,
    linear_1: Linear,
    linear_2: Linear,
}

impl TimeEmbedding {
    /// Sinusoids of `dim` channels, embedded in `4 dim`.
    ///
    /// # Errors
    /// [`crate::Error::Weight`].
    pub fn new(w: &Weights<'_>, dim: usize, wave: Wave) -> Result<Self> {
        let linear_1 = Linear::new(&w.at("linear_1"), dim, 4 * dim, true)?;
        let linear_2 = Linear::new(&w.at("linear_2"), 4 * dim, 4 * dim, true)?;
        Ok(TimeEmbedding {
            name: w.name().into(),
            wave,
            dim,
            linear_1,
            linear_2,
        })
    }

    /// The sinusoids `[n, dim]` of `t: [n]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn sinusoids(&self, cx: &Cx, t: &Tensor) -> Result<Tensor> {
        embed::timestep(cx, t, self.dim, self.wave)
    }

    /// The embedding `[n, 4 dim]` of `t: [n]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn forward(&self, cx: &Cx, t: &Tensor) -> Result<Tensor> {
        let mut h = self.sinusoids(cx, t)?;
        h = self.linear_1.forward(cx, &h, None)?;
        h = activation::forward(cx, &h, Activation::Silu)?;
        let y = self.linear_2.forward(cx, &h, None)?;
        cx.tap(&self.name, &y);
        Ok(y)
    }

    /// SiLU of the embedding: what every residual block projects. In a sampling run, of all its noise levels
    /// at once.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn activated(&self, cx: &Cx, t: &Tensor) -> Result<Temb> {
        let silu =
            |cx: &Cx, t: &Tensor| activation::forward(cx, &self.forward(cx, t)?, Activation::Silu);
        let Some(times) = cx.times() else {
            return silu(cx, t).map(Temb::of);
        };
        let rows = cx.once([self.linear_1.weight(), times], |cx| silu(cx, times))?;
        Ok(Temb {
            rows,
            at: Some(t.clone()),
        })
    }
}

/// The time embedding after its SiLU, as residual blocks take it.
#[derive(Clone, Debug)]
pub struct Temb {
    /// `[n, c]`; with `at`, one row for each noise level of the run.
    rows: Tensor,
    /// `[n]`: which of the run's noise levels.
    at: Option<Tensor>,
}

impl Temb {
    /// The embedding `[n, c]` of each sample.
    pub fn of(rows: Tensor) -> Self {
        Temb { rows, at: None }
    }

    /// Its projection for each sample, `[n, outputs]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn project(&self, cx: &Cx, proj: &Linear) -> Result<Tensor> {
        match (&self.at, cx.times()) {
            (Some(t), Some(times)) => {
                lookup::forward(cx, t, times, &proj.forward_once(cx, &self.rows)?)
            }
            _ => proj.forward(cx, &self.rows, None),
        }
    }
}
