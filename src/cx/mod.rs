//! [`Cx`]: everything a forward or backward pass needs besides its tensors.

mod gradients;

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Arc;

use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::shape::Shape;
use crate::tensor::Tensor;
pub use gradients::Gradients;

/// The context of a run: the runtime, the activations' element type, and what to remember.
#[derive(Clone, Debug)]
pub struct Cx {
    rt: Runtime,
    dtype: DType,
    network: DType,
    keep: bool,
    permanent: bool,
    forced: BTreeMap<String, String>,
    taps: Option<Rc<RefCell<Taps>>>,
    launches: Option<Rc<RefCell<Launches>>>,
    run: Option<Run>,
    gradients: Option<Rc<RefCell<Gradients>>>,
}

/// The distinct launches of a run, by op and printed key.
pub type Launches = BTreeMap<(&'static str, String), Launched>;

/// A launch, and how often it was asked for.
#[derive(Clone, Debug)]
pub struct Launched {
    /// The key, of its op's type.
    pub key: Arc<dyn Any + Send + Sync>,
    /// How often.
    pub count: u64,
}

/// What a whole run has in common.
#[derive(Clone, Debug)]
struct Run {
    times: Tensor,
    memo: Rc<RefCell<Memo>>,
}

/// Results by what they were computed from, which is held on to so that no other tensor takes its place.
type Memo = BTreeMap<[(usize, usize); 2], ([Tensor; 2], Tensor)>;

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
                "the forward pass kept nothing; run it with a `Cx` that is not `Cx::forward_only`",
            )
        })
    }
}

impl Cx {
    /// A context that keeps what a backward pass needs. `dtype` is the element type of the networks'
    /// activations, and what this context starts with.
    ///
    /// # Errors
    /// [`Error::Device`] when the runtime has no arithmetic in `dtype`.
    pub fn new(rt: Runtime, dtype: DType) -> Result<Self> {
        let (computes, instead) = match rt {
            Runtime::Dry(_) => (true, ""),
            Runtime::Native(_) => (
                matches!(dtype, DType::F32 | DType::F64),
                "f32 (f64 for checks), not in",
            ),
            #[cfg(any(feature = "cuda", feature = "emu"))]
            _ => (
                matches!(dtype, DType::F32 | DType::F16 | DType::Bf16),
                "f32, f16 and bf16, not in",
            ),
        };
        if !computes {
            let why = format!("computes in {instead} {dtype}; use --precision f32");
            return Err(Error::Device {
                device: rt.name().into(),
                why,
            });
        }
        Ok(Cx::unchecked(rt, dtype))
    }

    /// The native runtime in f32.
    pub fn native() -> Self {
        Cx::unchecked(Runtime::native(), DType::F32)
    }

    /// A context of a runtime that computes in `dtype`.
    fn unchecked(rt: Runtime, dtype: DType) -> Self {
        Cx {
            rt,
            dtype,
            network: dtype,
            keep: true,
            permanent: false,
            forced: BTreeMap::new(),
            taps: None,
            launches: None,
            run: None,
            gradients: None,
        }
    }

    /// The same run without keeping anything for a backward pass.
    pub fn forward_only(&self) -> Self {
        Cx {
            keep: false,
            ..self.clone()
        }
    }

    /// The same run as samplers and operators see it: in f32 (f64 in a run of f64) whatever the networks store.
    pub fn state(&self) -> Self {
        Cx {
            dtype: self.network.wide(),
            ..self.clone()
        }
    }

    /// The same run as the networks see it.
    pub fn network(&self) -> Self {
        Cx {
            dtype: self.network,
            ..self.clone()
        }
    }

    /// A sampling run at these noise levels: what does not change from step to step is computed once
    /// ([`Cx::once`]), and time embeddings are looked up ([`Cx::times`]).
    ///
    /// # Errors
    /// [`Error::Plan`] when there is no room.
    pub fn for_run(&self, times: &[f64]) -> Result<Self> {
        let wide = self.network.wide();
        let values = times.iter().copied();
        let times = Tensor::rounded_permanent(&self.rt, values, [times.len()], wide)?;
        let memo = Rc::default();
        Ok(Cx {
            run: Some(Run { times, memo }),
            ..self.clone()
        })
    }

    /// The noise levels of a run, `[steps]`. `None` outside of one, and while module outputs are recorded.
    pub fn times(&self) -> Option<&Tensor> {
        let run = self.run.as_ref().filter(|_| !self.taps());
        run.map(|run| &run.times)
    }

    /// The same run, with every tensor in memory that outlives every step.
    pub fn permanently(&self) -> Self {
        Cx {
            permanent: true,
            ..self.clone()
        }
    }

    /// What `compute` makes of these two tensors and nothing else: computed at its first use in a run, into
    /// memory that outlives every step. Outside of a run, computed each time.
    ///
    /// # Errors
    /// What `compute` returns.
    pub fn once(
        &self,
        from: [&Tensor; 2],
        compute: impl FnOnce(&Cx) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let Some(run) = self.run.as_ref().filter(|_| !self.taps()) else {
            return compute(self);
        };
        let key = from.map(Tensor::id);
        if let Some((_, known)) = run.memo.borrow().get(&key) {
            return Ok(known.clone());
        }
        let made = compute(&self.permanently())?;
        run.memo
            .borrow_mut()
            .insert(key, (from.map(Tensor::clone), made.clone()));
        Ok(made)
    }

    /// A training run of these parameters, as their layers hold them: backward passes leave their gradients in the
    /// [`Gradients`].
    pub fn training<'t>(
        &self,
        parameters: impl IntoIterator<Item = &'t Tensor>,
    ) -> (Self, Rc<RefCell<Gradients>>) {
        let gradients = Rc::new(RefCell::new(Gradients::of(parameters)));
        let cx = Cx {
            gradients: Some(Rc::clone(&gradients)),
            ..self.clone()
        };
        (cx, gradients)
    }

    /// The gradients of a training run in which parameter `w` is trained.
    pub fn trains(&self, w: &Tensor) -> Option<&RefCell<Gradients>> {
        self.gradients.as_deref().filter(|g| g.borrow().has(w))
    }

    /// Holds on to the input of the layer of weight `w`, if that is trained and a backward pass will follow.
    pub fn keep_input(&self, w: &Tensor, x: &Tensor) {
        if let Some(gradients) = self.trains(w).filter(|_| self.keep) {
            gradients.borrow_mut().push(w, x);
        }
    }

    /// Gives back what [`Cx::keep_input`] held last, if `w` is trained.
    ///
    /// # Errors
    /// [`Error::Argument`] when the forward pass did not keep it.
    pub fn kept_input(&self, w: &Tensor) -> Result<Option<Tensor>> {
        let gradients = self.trains(w);
        gradients.map(|g| g.borrow_mut().pop(w)).transpose()
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

    /// The same run, counting every distinct launch.
    pub fn counted(&self) -> (Self, Rc<RefCell<Launches>>) {
        let launches = Rc::new(RefCell::new(Launches::new()));
        let cx = Cx {
            launches: Some(Rc::clone(&launches)),
            ..self.clone()
        };
        (cx, launches)
    }

    /// Counts a launch of `op`.
    pub fn count<K: Clone + Debug + Send + Sync + 'static>(&self, op: &'static str, key: &K) {
        if let Some(launches) = &self.launches {
            let mut launches = launches.borrow_mut();
            let new = || Launched {
                key: Arc::new(key.clone()),
                count: 0,
            };
            let launched = launches.entry((op, format!("{key:?}")));
            launched.or_insert_with(new).count += 1;
        }
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
        self.empty_in(self.dtype, shape)
    }

    /// Statistics beside activations: in f32 whatever those are stored in (f64 in a run of f64).
    ///
    /// # Errors
    /// [`Error::Plan`] when the runtime has no room.
    pub fn empty_wide(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        self.empty_in(self.dtype.wide(), shape)
    }

    /// A tensor of this type and unspecified content; one that outlives every step where a result is
    /// computed once.
    ///
    /// # Errors
    /// [`Error::Plan`] when the runtime has no room.
    pub fn empty_in(&self, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if !self.permanent {
            return Tensor::empty(&self.rt, shape, dtype);
        }
        let buffer = self.rt.alloc_permanent(shape.bytes(dtype))?;
        Tensor::over(buffer, shape, dtype)
    }

    /// An activation with these values, rounded to the activations' type.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of values is not the shape's, [`Error::Plan`] when there is no room.
    pub fn upload<T: Real>(&self, values: &[T], shape: impl Into<Shape>) -> Result<Tensor> {
        if self.dtype == T::DTYPE {
            return Tensor::from_slice(&self.rt, values, shape);
        }
        Tensor::rounded(&self.rt, values.iter().map(|v| v.f64()), shape, self.dtype)
    }

    /// Coefficients beside activations, in the type of [`Cx::empty_wide`].
    ///
    /// # Errors
    /// As [`Cx::upload`].
    pub fn upload_wide(&self, values: &[f64], shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::rounded(&self.rt, values.iter().copied(), shape, self.dtype.wide())
    }

    /// A tensor with these values, rounded to the activations' type, that outlives every step: a table.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of values is not the shape's.
    pub fn constant(&self, values: &[f64], shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::rounded_permanent(&self.rt, values.iter().copied(), shape, self.dtype)
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
