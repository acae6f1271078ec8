//! The time embedding: sinusoids of t, then linear, SiLU, linear. It has no path to the image: its backward pass is
//! for training alone.

use std::cell::RefCell;
use std::rc::Rc;

use crate::cx::Cx;
use crate::error::Result;
use crate::nn::linear::Linear;
use crate::nn::param::Weights;
use crate::ops::activation::{self, Activation};
use crate::ops::embed::{self, Wave};
use crate::ops::{add, lookup};
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
        Ok(self.embed(cx, t)?.1)
    }

    /// `linear_1`'s output and `linear_2`'s.
    fn embed(&self, cx: &Cx, t: &Tensor) -> Result<(Tensor, Tensor)> {
        let sinusoids = self.sinusoids(cx, t)?;
        let hidden = self.linear_1.forward(cx, &sinusoids, None)?;
        let h = activation::forward(cx, &hidden, Activation::Silu)?;
        let y = self.linear_2.forward(cx, &h, None)?;
        cx.tap(&self.name, &y);
        Ok((hidden, y))
    }

    /// SiLU of the embedding: what every residual block projects. In a sampling run, of all its noise levels
    /// at once.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn activated(&self, cx: &Cx, t: &Tensor) -> Result<Temb> {
        let silu = |cx: &Cx, y: &Tensor| activation::forward(cx, y, Activation::Silu);
        if cx.trains(self.linear_1.weight()).is_some() {
            let (hidden, y) = self.embed(cx, t)?;
            let rows = silu(cx, &y)?;
            let cotangent = RefCell::default();
            let trained = Some(Rc::new(Trained {
                hidden,
                y,
                cotangent,
            }));
            return Ok(Temb {
                rows,
                at: None,
                trained,
            });
        }
        let activated = |cx: &Cx, t: &Tensor| silu(cx, &self.forward(cx, t)?);
        let Some(times) = cx.times() else {
            return activated(cx, t).map(Temb::of);
        };
        let rows = cx.once([self.linear_1.weight(), times], |cx| activated(cx, times))?;
        Ok(Temb {
            rows,
            at: Some(t.clone()),
            trained: None,
        })
    }

    /// Leaves the gradients of both layers, if they are trained, once every projection has left its cotangent.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn vjp(&self, cx: &Cx, temb: Temb) -> Result<()> {
        let Some(Trained {
            hidden,
            y,
            cotangent,
        }) = temb.trained.as_deref()
        else {
            return Ok(());
        };
        let Some(drows) = cotangent.take() else {
            return Ok(());
        };
        let dy = activation::vjp(cx, y, Activation::Silu, &drows)?;
        let dh = self.linear_2.vjp(cx, &dy)?;
        let dhidden = activation::vjp(cx, hidden, Activation::Silu, &dh)?;
        self.linear_1.wgrad(cx, &dhidden)
    }
}

/// The time embedding after its SiLU, as residual blocks take it.
#[derive(Clone, Debug)]
pub struct Temb {
    /// `[n, c]`; with `at`, one row for each noise level of the run.
    rows: Tensor,
    /// `[n]`: which of the run's noise levels.
    at: Option<Tensor>,
    trained: Option<Rc<Trained>>,
}

/// What the backward pass of a trained [`TimeEmbedding`] needs.
#[derive(Debug)]
struct Trained {
    /// `linear_1`'s output.
    hidden: Tensor,
    /// `linear_2`'s output.
    y: Tensor,
    /// The cotangent of the rows, summed over the projections so far.
    cotangent: RefCell<Option<Tensor>>,
}

impl Temb {
    /// The embedding `[n, c]` of each sample.
    pub fn of(rows: Tensor) -> Self {
        Temb {
            rows,
            at: None,
            trained: None,
        }
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

    /// Leaves the gradients of a trained projection, and adds what comes through it to the embedding's cotangent.
    ///
    /// # Errors
    /// [`crate::Error::Shape`].
    pub fn project_vjp(&self, cx: &Cx, proj: &Linear, dy: &Tensor) -> Result<()> {
        let drows = proj.vjp(cx, dy)?;
        let Some(trained) = &self.trained else {
            return Ok(());
        };
        let sum = match trained.cotangent.take() {
            None => drows,
            Some(sum) => add::forward(cx, &sum, &drows)?,
        };
        trained.cotangent.replace(Some(sum));
        Ok(())
    }
}
