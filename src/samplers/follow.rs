//! How a guidance step follows its gradient g: by `zeta g`, or by zeta times one of the forms that the paper's C.1 speaks
//! of. If guidance estimated a conditional score, these would spoil it; as maximisation they are ordinary ascent.

use std::cell::Cell;

use crate::cx::Cx;
use crate::error::Result;
use crate::ops::adamw::{self, State};
use crate::ops::{combine, residual};
use crate::tensor::Tensor;

/// What is followed in place of the gradient g. What is remembered goes from step to step of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Follow {
    /// g.
    #[default]
    Plain,
    /// `g / ||g||`: every step is of length zeta.
    Norm,
    /// `m = beta m + g`.
    Momentum {
        /// How much of m stays.
        beta: f64,
    },
    /// Adam's `m / (sqrt(v) + 1e-8)`, both free of the bias of their start.
    Adam {
        /// How much of the mean of the gradients stays.
        beta1: f64,
        /// How much of the mean of their squares stays.
        beta2: f64,
    },
}

/// A rule and what it remembers.
#[derive(Debug)]
pub struct Following {
    rule: Follow,
    memory: Vec<Tensor>,
    met: Cell<u32>,
}

impl Following {
    /// For states like `x`, with nothing met yet.
    ///
    /// # Errors
    /// [`Error::Plan`](crate::Error::Plan) when there is no room for what it remembers.
    pub fn new(cx: &Cx, rule: Follow, x: &Tensor) -> Result<Self> {
        let count = match rule {
            Follow::Plain | Follow::Norm => 0,
            Follow::Momentum { .. } => 1,
            Follow::Adam { .. } => 2,
        };
        let zeros = |_| cx.upload(&vec![0.0f32; x.shape().elements()], x.shape());
        Ok(Following {
            rule,
            memory: (0..count).map(zeros).collect::<Result<_>>()?,
            met: Cell::new(0),
        })
    }

    /// What is followed, of the gradient's shape.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the gradient is not like the states.
    pub fn of(&self, cx: &Cx, g: Tensor) -> Result<Tensor> {
        let zero = || combine::forward(cx, &[(0.0, &g)]);
        match (self.rule, &self.memory[..]) {
            (Follow::Norm, _) => Ok(residual::forward(cx, &g, &zero()?)?.1),
            (Follow::Momentum { beta }, [m]) => {
                combine::assign(cx, m, &combine::forward(cx, &[(beta, m), (1.0, &g)])?)?;
                Ok(m.clone())
            }
            (Follow::Adam { beta1, beta2 }, [m, v]) => {
                self.met.set(self.met.get() + 1);
                let settings = adamw::Settings {
                    beta1,
                    beta2,
                    eps: 1e-8,
                };
                // A step of size 1 from 0 leads to what is followed, backwards.
                let w = &zero()?;
                let now = settings.coefficients(self.met.get(), 1.0, 0.0, 1.0);
                let state = State {
                    w,
                    m,
                    v,
                    copy: None,
                };
                adamw::step(cx, settings, state, &g, &cx.upload_wide(&now, [now.len()])?)?;
                combine::forward(cx, &[(-1.0, w)])
            }
            _ => Ok(g),
        }
    }
}
