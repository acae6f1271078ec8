//! [`Cx`]: everything a forward or backward pass needs besides its tensors.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// The context of a run: the runtime, the activations' element type, and what to remember.
#[derive(Clone, Debug)]
pub struct Cx {
    rt: Runtime,
    dtype: DType,
    keep: bool,
    forced: BTreeMap<String, String>,
    taps: Option<Rc<RefCell<Taps>>>,
}

/// Values observed on the way through a model, by the module's name in the checkpoint.
#[derive(Debug, Default)]
pub struct Taps {
    /// Module outputs.
    pub outputs: BTreeMap<String, Tensor>,
    /// Cotangents of module outputs.
    pub cotangents: BTreeMap<String, Tensor>,
}

/// A tensor that a backward pass will need; empty in a forward-only run.
#[derive(Clone, Debug)]
pub struct Kept(Option<Tensor>);

impl Kept {
    /// The tensor.
    ///
    /// # Errors
    /// [`Error::Argument`] when the forward pass did not keep it.
    pub fn get(&self) -> Result<&Tensor> {
        self.0.as_ref().ok_or_else(|| {
            Error::argument(
                "vjp",
                "the forward pass kept nothing; run it with `Cx::keeping`, not `Cx::forward_only`",
            )
        })
    }
}

impl Cx {
    /// A context that keeps what a backward pass needs. `dtype` is the activations' element type.
    ///
    /// # Errors
    /// [`Error::Device`] when the runtime has no arithmetic in `dtype`.
    pub fn new(rt: Runtime, dtype: DType) -> Result<Self> {
        if matches!(rt, Runtime::Native(_)) && !matches!(dtype, DType::F32 | DType::F64) {
            let why =
                format!("computes in f32 (f64 for checks), not in {dtype}; use --precision f32");
            return Err(Error::Device {
                device: "cpu".into(),
                why,
            });
        }
        Ok(Cx {
            rt,
            dtype,
            keep: true,
            forced: BTreeMap::new(),
            taps: None,
        })
    }

    /// The native runtime in f32.
    pub fn native() -> Self {
        Cx {
            rt: Runtime::native(),
            dtype: DType::F32,
            keep: true,
            forced: BTreeMap::new(),
            taps: None,
        }
    }

    /// The same run without keeping anything for a backward pass.
    pub fn forward_only(&self) -> Self {
        Cx {
            keep: false,
            ..self.clone()
        }
    }

    /// The same run, recording every named module's output and cotangent.
    pub fn tapped(&self) -> (Self, Rc<RefCell<Taps>>) {
        let taps = Rc::new(RefCell::new(Taps::default()));
        (
            Cx {
                taps: Some(Rc::clone(&taps)),
                ..self.clone()
            },
            taps,
        )
    }

    /// The same run with `variant` of `op` wherever it fits.
    pub fn forcing(mut self, op: &str, variant: &str) -> Self {
        self.forced.insert(op.to_owned(), variant.to_owned());
        self
    }

    /// The variant forced for `op`, if any.
    pub fn forced(&self, op: &str) -> Option<&str> {
        self.forced.get(op).map(String::as_str)
    }

    /// The runtime.
    pub fn rt(&self) -> &Runtime {
        &self.rt
    }

    /// The activations' element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Whether a backward pass will follow.
    pub fn keeps(&self) -> bool {
        self.keep
    }

    /// Holds on to `x` for the backward pass, if there will be one.
    pub fn keep(&self, x: &Tensor) -> Kept {
        Kept(self.keep.then(|| x.clone()))
    }

    /// An activation of unspecified content.
    ///
    /// # Errors
    /// [`Error::Plan`] when the runtime has no room.
    pub fn empty(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::empty(&self.rt, shape, self.dtype)
    }

    /// An activation with these values, rounded to the activations' type.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of values is not the shape's, [`Error::Plan`] when there is no room.
    pub fn upload<T: Real>(&self, values: &[T], shape: impl Into<Shape>) -> Result<Tensor> {
        if self.dtype == T::DTYPE {
            return Tensor::from_slice(&self.rt, values, shape);
        }
        let values = values.iter().map(|v| v.f64());
        match self.dtype {
            DType::F64 => Tensor::from_slice(&self.rt, &values.collect::<Vec<_>>(), shape),
            DType::F32 => Tensor::from_slice(
                &self.rt,
                &values.map(|v| v as f32).collect::<Vec<_>>(),
                shape,
            ),
            other if matches!(self.rt, Runtime::Dry(_)) => Tensor::empty(&self.rt, shape, other),
            other => Err(Error::DType {
                what: "upload".into(),
                want: "f32 or f64".into(),
                got: other.to_string(),
            }),
        }
    }

    /// A tensor with these values, rounded to the activations' type, that outlives every step: a table.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of values is not the shape's.
    pub fn constant(&self, values: &[f64], shape: impl Into<Shape>) -> Result<Tensor> {
        match self.dtype {
            DType::F64 => Tensor::permanent(&self.rt, values, shape),
            DType::F32 => {
                let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
                Tensor::permanent(&self.rt, &values, shape)
            }
            // only a runtime without values gets here: `Cx::new` refuses the type on the native one
            other => {
                let shape = shape.into();
                let buffer = self.rt.alloc_permanent(values.len() * other.size());
                Tensor::over(buffer, shape, other)
            }
        }
    }

    /// Whether module outputs are being recorded. Layers then leave fused forms apart, so that every
    /// named output exists.
    pub fn taps(&self) -> bool {
        self.taps.is_some()
    }

    /// Records the output of module `name`.
    pub fn tap(&self, name: &str, y: &Tensor) {
        if let Some(taps) = &self.taps {
            taps.borrow_mut().outputs.insert(name.to_owned(), y.clone());
        }
    }

    /// Records the cotangent that arrived at the output of module `name`.
    pub fn tap_cotangent(&self, name: &str, dy: &Tensor) {
        if let Some(taps) = &self.taps {
            taps.borrow_mut()
                .cotangents
                .insert(name.to_owned(), dy.clone());
        }
    }
}
