//! [`Weights`]: parameters by the names they have in the checkpoint, walked by prefix.
//!
//! Convolution weights are repacked from `[o, i, k, k]` to `[k, k, i, o]`, or folded with the upsampling before them to
//! `[4, 4, o, i]`; matrices and kernels are rounded to the storage type, vectors stay f32. On a GPU that happens there,
//! to the bytes of the mapped file; on the native runtime here, except that an f32 vector or a matrix is used where the
//! file is mapped.
//!
//! The native runtime in f32 keeps frozen matrices and kernels as the file has them where that is in 16 bits, for their
//! products widen what they read ([`Operand`](crate::runtime::operand::Operand)); where products round to bf16 anyway, it
//! keeps all of them in bf16. Folded kernels are sums, which 16 bits do not hold: only the latter applies to them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::io::weights::{Checkpoint, View};
use crate::ops::{add, cast, repack, upsample_conv};
use crate::runtime::kernel::Target;
use crate::runtime::native::Products;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// A place in a checkpoint: the names below `prefix`.
#[derive(Clone)]
pub struct Weights<'a> {
    cx: &'a Cx,
    source: Source,
    prefix: String,
    read: Rc<RefCell<BTreeSet<String>>>,
    /// Where every parameter is noted, if they are to be trained.
    trained: Option<Rc<RefCell<Vec<Parameter>>>>,
}

/// A parameter that is trained.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name in the checkpoint.
    pub name: String,
    order: Order,
    /// In f32 (f64 in a run of f64): what the optimiser updates.
    pub value: Tensor,
    /// The value rounded to a 16-bit type, where the layer computes with that.
    pub copy: Option<Tensor>,
}

/// How a checkpoint stores a parameter.
#[derive(Clone, Debug)]
enum Order {
    /// As the layer holds it, in this shape.
    Stored(Vec<usize>),
    /// A convolution's weight: `[o, i, k, k]` in the file, `[k, k, i, o]` in the layer.
    Kernel { o: usize, i: usize, k: usize },
}

impl Order {
    fn inward<T: Real>(&self, values: Vec<T>) -> Vec<T> {
        match *self {
            Order::Stored(_) => values,
            Order::Kernel { o, i, k } => repack(&values, o, i, k * k),
        }
    }
}

impl Parameter {
    /// What the layer holds.
    pub fn held(&self) -> &Tensor {
        self.copy.as_ref().unwrap_or(&self.value)
    }

    /// Its shape in the checkpoint.
    pub fn shape(&self) -> Vec<usize> {
        match &self.order {
            Order::Stored(shape) => shape.clone(),
            &Order::Kernel { o, i, k } => vec![o, i, k, k],
        }
    }

    /// Values in the order of the layer, in the checkpoint's.
    pub fn outward<T: Real>(&self, values: Vec<T>) -> Vec<T> {
        match self.order {
            Order::Stored(_) => values,
            // The first and the last dimension change places, whichever they are.
            Order::Kernel { o, i, k } => repack(&values, k * k, i, o),
        }
    }

    /// Values in the order of the checkpoint, in the layer's.
    pub fn inward<T: Real>(&self, values: Vec<T>) -> Vec<T> {
        self.order.inward(values)
    }
}

/// How a convolution's weight, `[o, i, taps]` in the file, is made ready.
#[derive(Clone, Copy)]
enum Form {
    /// `[taps, i, o]`.
    Repacked,
    /// `[4, 4, o, i]`, see [`upsample_conv`].
    Folded,
}

impl Form {
    fn on_device(self, cx: &Cx, x: &Tensor, to: DType) -> Result<Tensor> {
        match self {
            Form::Repacked => repack::forward(cx, x, to),
            Form::Folded => upsample_conv::fold(cx, x, to),
        }
    }

    fn on_host<T: Real>(self, x: &[T], [o, i, taps]: [usize; 3]) -> Vec<T> {
        match self {
            Form::Repacked => repack(x, o, i, taps),
            Form::Folded => upsample_conv::folded(x),
        }
    }
}

#[derive(Clone)]
enum Source {
    File(Arc<Checkpoint>),
    /// Any tensor of any shape, without values: for plans. Of those that the file has, if there is one, the types count.
    Planned(Option<Arc<Checkpoint>>),
}

impl Source {
    fn file(&self) -> Option<&Checkpoint> {
        match self {
            Source::File(file) | Source::Planned(Some(file)) => Some(file),
            Source::Planned(None) => None,
        }
    }
}

impl<'a> Weights<'a> {
    /// The parameters of a checkpoint, for a model that runs in `cx`.
    pub fn open(cx: &'a Cx, file: Checkpoint) -> Self {
        Self::new(cx, Source::File(Arc::new(file)))
    }

    /// Parameters without values, for a model that is only planned (the dry runtime): those of this checkpoint, if there is
    /// one, in the types that they would have.
    pub fn planned(cx: &'a Cx, like: Option<Checkpoint>) -> Self {
        Self::new(cx, Source::Planned(like.map(Arc::new)))
    }

    fn new(cx: &'a Cx, source: Source) -> Self {
        Weights {
            cx,
            source,
            prefix: String::new(),
            read: Rc::default(),
            trained: None,
        }
    }

    /// The same, with every parameter noted and kept where it can be updated: see [`Weights::parameters`].
    pub fn trained(self) -> Self {
        Weights {
            trained: Some(Rc::default()),
            ..self
        }
    }

    /// Whether parameters are noted, to be trained.
    pub fn are_trained(&self) -> bool {
        self.trained.is_some()
    }

    /// The parameters that have been asked for since [`Weights::trained`], in that order.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.trained
            .as_ref()
            .map_or_else(Vec::new, |trained| trained.borrow().clone())
    }

    /// The place `name` below this one.
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Weights {
            prefix: self.full(&name.to_string()),
            ..self.clone()
        }
    }

    /// The name of this place in the checkpoint.
    pub fn name(&self) -> &str {
        &self.prefix
    }

    /// Whether the checkpoint has something at or below `name`.
    pub fn has(&self, name: &str) -> bool {
        let full = self.full(name);
        match &self.source {
            Source::Planned(_) => true,
            Source::File(file) => file.names().any(|n| {
                n.strip_prefix(full.as_str())
                    .is_some_and(|r| r.is_empty() || r.starts_with('.'))
            }),
        }
    }

    /// The first of `names` that the checkpoint has, or the first: for layers that were renamed.
    pub fn either<'n>(&self, names: [&'n str; 2]) -> &'n str {
        if !self.has(names[0]) && self.has(names[1]) {
            names[1]
        } else {
            names[0]
        }
    }

    /// The parameter `name` of this shape.
    ///
    /// # Errors
    /// [`Error::Weight`] when it is missing, of another shape or type, or holds a NaN or infinity.
    pub fn get(&self, name: &str, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let dtype = self.cx.dtype().wide();
        self.load(name, shape, [dtype; 2], |have| have == shape.dims())
    }

    /// The weight `[m, k]` of a linear layer; a 1x1 convolution's `[m, k, 1, 1]` is the same thing.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn matrix(&self, name: &str, m: usize, k: usize) -> Result<Tensor> {
        let (shape, dtype) = (Shape::from([m, k]), self.cx.dtype());
        self.load(name, shape, [dtype, self.stored(name)], |have| {
            have == [m, k] || have == [m, k, 1, 1]
        })
    }

    /// The type in which a frozen matrix or kernel is stored.
    fn stored(&self, name: &str) -> DType {
        let file = self.source.file();
        let view = file.and_then(|file| file.get(&self.full(name)));
        let own = view.and_then(|view| view.dtype.dtype());
        match (own, self.stored_sums()) {
            (Some(own), DType::F32) if own.is_half() && self.is_wide() => own,
            (_, stored) => stored,
        }
    }

    /// The type in which a kernel is stored that is computed from the file's.
    fn stored_sums(&self) -> DType {
        match self.cx.rt().products() {
            Products::Bf16 if self.is_wide() => DType::Bf16,
            _ => self.cx.dtype(),
        }
    }

    /// Whether activations are f32 numbers of the native runtime, or are planned to be.
    fn is_wide(&self) -> bool {
        self.cx.dtype() == DType::F32 && self.cx.rt().target() == Target::Native
    }

    /// The weight of a `k` x `k` convolution as `[k, k, i, o]`, stored as `[o, i, k, k]`.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn kernel(&self, name: &str, o: usize, i: usize, k: usize) -> Result<Tensor> {
        let shape = Shape::from([k, k, i, o]);
        let view = self.view(name, &[o, i, k, k], |have| have == [o, i, k, k])?;
        if let Some(trained) = &self.trained {
            let order = Order::Kernel { o, i, k };
            return self.note(trained, name, view, order, shape, self.cx.dtype());
        }
        self.convolution(name, view, [o, i, k * k], shape, Form::Repacked)
    }

    /// The weight of a 3x3 convolution, stored as `[o, i, 3, 3]`, folded with the upsampling before it: `[4, 4, o, i]`,
    /// see [`upsample_conv`]. Only of weights that stay: what is trained would leave it behind.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn upsampling_kernel(&self, name: &str, o: usize, i: usize) -> Result<Tensor> {
        let view = self.view(name, &[o, i, 3, 3], |have| have == [o, i, 3, 3])?;
        let shape = Shape::from([4, 4, o, i]);
        self.convolution(name, view, [o, i, 9], shape, Form::Folded)
    }

    /// A frozen convolution's weight, `sizes = [o, i, taps]`, in the form that is asked for.
    fn convolution(
        &self,
        name: &str,
        view: Option<View<'_>>,
        sizes: [usize; 3],
        shape: Shape,
        form: Form,
    ) -> Result<Tensor> {
        let dtype = match form {
            Form::Repacked => self.stored(name),
            Form::Folded => self.stored_sums(),
        };
        let Some(view) = view else {
            return self.unfilled(shape, dtype);
        };
        let full = self.full(name);
        let t = if self.on_device() {
            expect_fits(&full, &view, dtype)?;
            let x = self.upload(&full, &view, sizes)?;
            form.on_device(&self.cx.permanently(), &x, dtype)?
                .view(shape)
        } else if dtype == DType::F64 {
            let values = form.on_host(&view.to_f64()?, sizes);
            in_the_file(&full, &view, self.fill(&full, &values, shape, dtype))
        } else {
            let values = form.on_host(&view.to_f32()?, sizes);
            in_the_file(&full, &view, self.fill(&full, &values, shape, dtype))
        };
        view.file.forget(view.range.clone());
        t
    }

    /// Names in the checkpoint that nothing has read.
    pub fn unread(&self) -> Vec<String> {
        match &self.source {
            Source::Planned(_) => Vec::new(),
            Source::File(file) => {
                let read = self.read.borrow();
                file.names()
                    .map(String::from)
                    .filter(|n| !read.contains(n))
                    .collect()
            }
        }
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }

    /// A parameter in one type while it is trained, and in another, `frozen`, while it is not.
    fn load(
        &self,
        name: &str,
        shape: Shape,
        [dtype, frozen]: [DType; 2],
        accepts: impl Fn(&[usize]) -> bool,
    ) -> Result<Tensor> {
        let view = self.view(name, shape.dims(), accepts)?;
        if let Some(trained) = &self.trained {
            let stored = view
                .as_ref()
                .map_or(shape.dims(), |view| &view.shape)
                .to_vec();
            return self.note(trained, name, view, Order::Stored(stored), shape, dtype);
        }
        let dtype = frozen;
        let Some(view) = view else {
            return self.unfilled(shape, dtype);
        };
        let full = self.full(name);
        if self.on_device() {
            expect_fits(&full, &view, dtype)?;
            let x = self.upload(&full, &view, [1, shape.elements(), 1])?;
            return repack::forward(&self.cx.permanently(), &x, dtype)?.view(shape);
        }
        if dtype == DType::F64 {
            return self.fill(&full, &view.to_f64()?, shape, dtype);
        }
        let (file, range) = (view.file, view.range.clone());
        if view.dtype.dtype() == Some(dtype)
            && let Some(buffer) = self.cx.rt().adopt(file, range.clone(), dtype.size())
        {
            expect_finite(&full, &view)?;
            file.forget(range);
            return Tensor::over(buffer, shape, dtype);
        }
        let t = self.fill(&full, &view.to_f32()?, shape, dtype);
        file.forget(range);
        t
    }

    fn view(
        &self,
        name: &str,
        want: &[usize],
        accepts: impl Fn(&[usize]) -> bool,
    ) -> Result<Option<View<'_>>> {
        let Source::File(file) = &self.source else {
            return Ok(None);
        };
        let full = self.full(name);
        let view = file.get(&full).ok_or_else(|| {
            let why = format!(
                "missing from the checkpoint; the configuration asks for it with shape {want:?}"
            );
            Error::weight(&full, why)
        })?;
        if !accepts(&view.shape) {
            let why = format!(
                "the configuration asks for shape {want:?}, the checkpoint has {:?}",
                view.shape
            );
            return Err(Error::weight(full, why));
        }
        self.read.borrow_mut().insert(full);
        Ok(Some(view))
    }

    /// Whether weights are converted and repacked where they will live, not on the host.
    fn on_device(&self) -> bool {
        matches!(self.cx.rt().target(), Target::Kernels(_))
    }

    /// The mapped bytes, checked, copied to the device as they are.
    fn upload(&self, name: &str, view: &View<'_>, sizes: [usize; 3]) -> Result<Tensor> {
        match view.dtype.dtype() {
            Some(file @ (DType::F32 | DType::F16 | DType::Bf16)) => {
                expect_finite(name, view)?;
                let buffer = self.cx.rt().alloc(view.bytes.len())?;
                self.cx.rt().copy_in(&buffer, view.bytes)?;
                Tensor::over(buffer, sizes, file)
            }
            _ => {
                let values = view.to_f32()?;
                check_finite(name, &values)?;
                Tensor::from_slice(self.cx.rt(), &values, sizes)
            }
        }
    }

    /// A frozen parameter.
    fn fill<T: Real>(
        &self,
        name: &str,
        values: &[T],
        shape: Shape,
        dtype: DType,
    ) -> Result<Tensor> {
        check_finite(name, values)?;
        let buffer = match T::DTYPE == dtype {
            true => self.cx.rt().keep(bytemuck::cast_slice(values))?,
            false => {
                let rounded = dtype.encode(values.iter().map(|v| v.f64()));
                self.cx.rt().keep(&rounded)?
            }
        };
        Tensor::over(buffer, shape, dtype)
    }

    /// A parameter of which the layer holds a `dtype` version.
    fn note(
        &self,
        trained: &RefCell<Vec<Parameter>>,
        name: &str,
        view: Option<View<'_>>,
        order: Order,
        shape: Shape,
        dtype: DType,
    ) -> Result<Tensor> {
        let (name, wide) = (self.full(name), dtype.wide());
        let value = match view {
            None => self.unfilled(shape, wide)?,
            Some(view) => {
                let values = order.inward(view.to_f64()?);
                check_finite(&name, &values)?;
                Tensor::rounded_permanent(self.cx.rt(), values.into_iter(), shape, wide)?
            }
        };
        let round = || cast::forward(&self.cx.permanently(), &value, dtype);
        let copy = (dtype != wide).then(round).transpose()?;
        let parameter = Parameter {
            name,
            order,
            value,
            copy,
        };
        let held = parameter.held().clone();
        trained.borrow_mut().push(parameter);
        Ok(held)
    }

    /// A weight without values, for the dry runtime.
    fn unfilled(&self, shape: Shape, dtype: DType) -> Result<Tensor> {
        let buffer = self.cx.rt().alloc_permanent(shape.bytes(dtype))?;
        Tensor::over(buffer, shape, dtype)
    }
}

/// Adds `dw` to the gradient of the parameter `w`, if that is trained.
///
/// # Errors
/// [`Error::Shape`] when it is of another shape than the gradients before it.
pub fn accumulate(cx: &Cx, w: &Tensor, dw: Tensor) -> Result<()> {
    let Some(gradients) = cx.trains(w) else {
        return Ok(());
    };
    let before = gradients.borrow_mut().take(w);
    let sum = match before {
        None => dw,
        Some(before) => add::forward(&cx.state(), &before, &dw)?,
    };
    gradients.borrow_mut().set(w, sum);
    Ok(())
}

fn check_finite<T: Real>(name: &str, values: &[T]) -> Result<()> {
    // NaN and infinity, and nothing else, times zero is not zero.
    let bad = |v: &T| (*v * T::ZERO).f64() != 0.0;
    match values.iter().position(bad) {
        None => Ok(()),
        Some(i) => Err(damaged(name, i, values[i])),
    }
}

fn expect_finite(name: &str, view: &View<'_>) -> Result<()> {
    match view.not_finite() {
        Some((i, value)) => Err(damaged(name, i, value)),
        None => Ok(()),
    }
}

/// An error about an element of a weight in the layer's order, as one in the file's.
fn in_the_file(name: &str, view: &View<'_>, filled: Result<Tensor>) -> Result<Tensor> {
    filled.map_err(|error| expect_finite(name, view).err().unwrap_or(error))
}

/// Whether f16, if that is what a weight becomes, holds its values.
fn expect_fits(name: &str, view: &View<'_>, dtype: DType) -> Result<()> {
    if dtype != DType::F16 || view.dtype.dtype() == Some(DType::F16) {
        return Ok(());
    }
    let most = f32::from(half::f16::MAX);
    match view.to_f32()?.iter().position(|x| x.abs() > most) {
        Some(i) => {
            let why =
                format!("element {i} is beyond the {most} that f16 holds; use --precision bf16");
            Err(Error::weight(name, why))
        }
        None => Ok(()),
    }
}

fn damaged(name: &str, i: usize, value: impl std::fmt::Debug) -> Error {
    let why = format!("element {i} is {value:?}; the file is damaged, download it again");
    Error::weight(name, why)
}

/// `[o, i, taps]` to `[taps, i, o]`.
fn repack<T: Real>(w: &[T], o: usize, i: usize, taps: usize) -> Vec<T> {
    let mut out = vec![T::ZERO; w.len()];
    for (o_index, w) in w.chunks_exact(i * taps).enumerate() {
        for (i_index, w) in w.chunks_exact(taps).enumerate() {
            for (tap, &w) in w.iter().enumerate() {
                out[(tap * i + i_index) * o + o_index] = w;
            }
        }
    }
    out
}
