//! Variants: the ways an op can be run, in one table, fastest first.
//!
//! To add one: write it (`Run::Native`: a function in the op's room; `Run::Kernels`: a file in
//! `kernels/<op>/`), add its row to the op's table. Dispatch, `posteriori check`, the tests and the benches
//! walk the table.

use std::fmt::Debug;

use crate::cx::Cx;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::runtime::kernel::{Arch, Plan, Target};
use crate::runtime::native::NativeArgs;
use crate::runtime::{Arg, Cost, Runtime};

/// What a launch is keyed on: the sizes of one sample, the number of samples, the element type.
///
/// A variant is chosen from the per-sample part only, so that a sample's bits never depend on the batch.
pub trait Key: Clone + Debug + Send + Sync + 'static {
    /// The element type of the activations.
    fn dtype(&self) -> DType;
    /// Makes it the same case in another element type.
    fn set_dtype(&mut self, dtype: DType);
    /// The same case in another element type.
    fn with_dtype(&self, dtype: DType) -> Self {
        let mut key = self.clone();
        key.set_dtype(dtype);
        key
    }
    /// The arguments of the launch, in order.
    fn args(&self) -> Vec<Spec>;
    /// Floating-point operations of the launch.
    fn flops(&self) -> u64;
    /// Whether 16-bit weights meet wider activations: only native variants widen what they read.
    fn is_mixed(&self) -> bool {
        false
    }
}

/// How weights of type `w` are stored beside activations of type `x`, where that is not in the same type: in 16 bits
/// beside wider activations.
pub fn narrow(x: DType, w: DType) -> Option<DType> {
    (w.is_half() && !x.is_half()).then_some(w)
}

/// One argument of a launch, as the checks and the cost need it.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// What it is called in messages.
    pub name: &'static str,
    /// How many elements.
    pub len: usize,
    /// What a launch does with it.
    pub access: Access,
    /// In f32 beside 16-bit activations: statistics, biases, weights of norms.
    pub wide: bool,
    /// The one type it always has, if there is one.
    pub fixed: Option<DType>,
    /// What a check fills it with.
    pub fill: Fill,
}

/// What a launch does with an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads it.
    Read,
    /// Writes every element.
    Write,
    /// Reads and writes it in place.
    Update,
}

/// What a check fills an input with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// Normal with this standard deviation.
    Normal(f64),
    /// Uniform in (0.5, 1.5): weights of norms, reciprocal deviations.
    Positive,
    /// 0, 1, 2 and so on.
    Counts,
    /// Whole numbers below this (i32).
    Ids(usize),
    /// The row starts of a sparse matrix with this many elements: from 0 up to it, ascending (i32).
    Starts(usize),
    /// The argument is absent in this case.
    Absent,
}

impl Spec {
    /// An output.
    pub const fn out(name: &'static str, len: usize) -> Self {
        Spec {
            name,
            len,
            access: Access::Write,
            wide: false,
            fixed: None,
            fill: Fill::Normal(1.0),
        }
    }

    /// An input filled with unit normals in checks.
    pub const fn input(name: &'static str, len: usize) -> Self {
        Spec {
            access: Access::Read,
            ..Spec::out(name, len)
        }
    }

    /// An argument that is updated in place, filled with unit normals in checks.
    pub const fn update(name: &'static str, len: usize) -> Self {
        Spec {
            access: Access::Update,
            ..Spec::out(name, len)
        }
    }

    /// The same with another fill.
    pub const fn fill(self, fill: Fill) -> Self {
        Spec { fill, ..self }
    }

    /// The same, in f32 beside 16-bit activations.
    pub const fn wide(self) -> Self {
        Spec { wide: true, ..self }
    }

    /// The same, of this type whatever the activations are.
    pub const fn always(self, dtype: DType) -> Self {
        Spec {
            fixed: Some(dtype),
            ..self
        }
    }

    /// Its element type in a launch whose activations are `dtype`.
    pub const fn dtype(&self, dtype: DType) -> DType {
        match (self.fill, self.fixed) {
            (_, Some(fixed)) => fixed,
            (Fill::Ids(_) | Fill::Starts(_), _) => DType::I32,
            _ if self.wide => dtype.wide(),
            _ => dtype,
        }
    }

    /// The same, of this type if there is one.
    pub const fn narrow(self, dtype: Option<DType>) -> Self {
        Spec {
            fixed: dtype,
            ..self
        }
    }

    /// The same, absent unless `present`.
    pub const fn present(self, present: bool) -> Self {
        if present {
            self
        } else {
            Spec {
                fill: Fill::Absent,
                len: 0,
                ..self
            }
        }
    }
}

/// A native kernel: a function over the launch's slices.
pub type NativeKernel<K> = fn(&K, &mut NativeArgs<'_>);

/// How a variant runs.
pub enum Run<K> {
    /// A Rust function, in each of the two native types.
    Native {
        /// In f32.
        f32: NativeKernel<K>,
        /// In f64.
        f64: NativeKernel<K>,
    },
    /// `.cu` kernels, in f32, bf16 and f16.
    Kernels {
        /// Which GPUs take them.
        on: fn(Arch) -> bool,
        /// What is launched.
        plan: fn(&K) -> Plan,
    },
}

/// One way to run an op.
pub struct Variant<K> {
    /// Its name in tables, `bench` and `--variant`.
    pub name: &'static str,
    /// Which cases it takes; looks at per-sample sizes only.
    pub fits: fn(&K) -> bool,
    /// Which of these are worth it, where nobody asks for it by name: those it is thought to be fastest at.
    pub pays: fn(&K) -> bool,
    /// How it runs.
    pub run: Run<K>,
}

impl<K> Variant<K> {
    /// A native variant that takes every case.
    pub const fn native(name: &'static str, f32: NativeKernel<K>, f64: NativeKernel<K>) -> Self {
        Variant {
            name,
            fits: |_| true,
            pays: |_| true,
            run: Run::Native { f32, f64 },
        }
    }

    /// A variant of `.cu` kernels that takes every case, on every GPU from sm_80 on.
    pub const fn kernels(name: &'static str, plan: fn(&K) -> Plan) -> Self {
        Variant {
            name,
            fits: |_| true,
            pays: |_| true,
            run: Run::Kernels { on: |_| true, plan },
        }
    }

    /// The same, on Hopper only: the kernels are in `*.sm90a.cu`.
    pub const fn on_hopper(name: &'static str, plan: fn(&K) -> Plan) -> Self {
        Variant {
            name,
            fits: |_| true,
            pays: |_| true,
            run: Run::Kernels {
                on: Arch::is_hopper,
                plan,
            },
        }
    }

    /// The same for the cases that `fits`.
    pub const fn when(self, fits: fn(&K) -> bool) -> Self {
        Variant { fits, ..self }
    }

    /// The same, taken by itself only where it `pays`.
    pub const fn where_it_pays(self, pays: fn(&K) -> bool) -> Self {
        Variant { pays, ..self }
    }
}

impl<K: Key> Variant<K> {
    /// Whether it runs this case on this target.
    pub fn takes(&self, target: Target, key: &K) -> bool {
        let runs = match (&self.run, target) {
            (Run::Native { .. }, Target::Native) => !key.dtype().is_half(),
            (Run::Kernels { on, .. }, Target::Kernels(arch)) => {
                key.dtype() != DType::F64 && !key.is_mixed() && on(arch)
            }
            _ => false,
        };
        runs && (self.fits)(key)
    }

    /// The kernels it launches; `None` when it is native.
    pub fn plan(&self, key: &K) -> Option<Plan> {
        match self.run {
            Run::Native { .. } => None,
            Run::Kernels { plan, .. } => Some(plan(key)),
        }
    }
}

/// An op in one direction, with its variants: those of `.cu` kernels, then the native ones. The last variant
/// is the textbook one: the oracle.
pub struct Op<K: 'static> {
    /// `room.direction`.
    pub name: &'static str,
    /// Fastest first, for each kind of runtime.
    pub variants: &'static [Variant<K>],
    /// The cases that checks and benches run: odd sizes on purpose.
    pub cases: fn() -> Vec<K>,
}

impl<K: Key> Op<K> {
    /// Runs the first variant that fits and pays, or the one that is forced, where it fits.
    ///
    /// # Errors
    /// [`Error::NoVariant`] when none takes this case; [`Error::Shape`] when an argument's length is wrong.
    pub fn launch(&self, cx: &Cx, key: &K, args: &[Arg<'_>]) -> Result<()> {
        cx.count(self.name, key);
        let specs = key.args();
        check_args(self.name, key.dtype(), &specs, args, cx)?;
        let bytes = args
            .iter()
            .map(|a| match a {
                Arg::In(t) | Arg::Out(t) | Arg::Update(t) => t.byte_range().len() as u64,
                Arg::Absent => 0,
            })
            .sum();
        let cost = Cost {
            flops: key.flops(),
            bytes,
        };
        let rt = cx.rt();
        if matches!(rt, Runtime::Dry(_)) && rt.target() == Target::Native {
            return rt.launch(self.name, cost, args, |_| ());
        }
        match &self.pick(cx, key)?.run {
            Run::Native { f32, f64 } => {
                let kernel = if key.dtype() == DType::F64 { f64 } else { f32 };
                rt.launch(self.name, cost, args, |native| kernel(key, native))
            }
            Run::Kernels { plan, .. } => rt.launch_kernels(self.name, cost, args, &plan(key)),
        }
    }

    /// The variant that [`Op::launch`] would run.
    ///
    /// # Errors
    /// [`Error::NoVariant`] when none takes this case.
    pub fn pick(&self, cx: &Cx, key: &K) -> Result<&Variant<K>> {
        let fits = |v: &&Variant<K>| v.takes(cx.rt().target(), key);
        let forced = cx.forced(self.name);
        forced
            .and_then(|name| self.variants.iter().filter(fits).find(|v| v.name == name))
            .or_else(|| {
                let mut fitting = self.variants.iter().filter(fits);
                fitting.find(|v| (v.pays)(key))
            })
            .ok_or_else(|| Error::NoVariant {
                op: self.name,
                runtime: cx.rt().name(),
                key: format!("{key:?}"),
            })
    }

    /// Whether `other` would run the variant of the same name of this case: what it computes besides costs no other
    /// way of computing the rest.
    pub fn agrees(&self, other: &Op<K>, cx: &Cx, key: &K) -> bool {
        self.agrees_on(key, other, key, cx)
    }

    /// The same where `other` calls the case `of`.
    pub fn agrees_on<L: Key>(&self, key: &K, other: &Op<L>, of: &L, cx: &Cx) -> bool {
        let name = self.pick(cx, key).ok().map(|v| v.name);
        name.is_some() && name == other.pick(cx, of).ok().map(|v| v.name)
    }
}

fn check_args(op: &str, dtype: DType, specs: &[Spec], args: &[Arg<'_>], cx: &Cx) -> Result<()> {
    if specs.len() != args.len() {
        return Err(Error::shape(
            op,
            format!("{} arguments", specs.len()),
            format!("{} arguments", args.len()),
        ));
    }
    for (spec, arg) in specs.iter().zip(args) {
        let is_absent = spec.fill == Fill::Absent;
        let t = match (spec.access, arg) {
            (_, Arg::Absent) if is_absent => continue,
            (Access::Read, Arg::In(t))
            | (Access::Write, Arg::Out(t))
            | (Access::Update, Arg::Update(t))
                if !is_absent =>
            {
                t
            }
            _ => {
                let want = match spec.access {
                    _ if is_absent => "none, in this case",
                    Access::Read => "an input",
                    Access::Write => "an output",
                    Access::Update => "a tensor to update",
                };
                let got = match arg {
                    Arg::Absent => "none",
                    Arg::In(_) => "an input",
                    Arg::Out(_) => "an output",
                    Arg::Update(_) => "a tensor to update",
                };
                let what = format!("{op}, argument `{}`", spec.name);
                return Err(Error::shape(what, want, got));
            }
        };
        if t.shape().elements() != spec.len || spec.len == 0 {
            let want = format!("{} elements", spec.len.max(1));
            return Err(Error::shape(
                format!("{op}, argument `{}`", spec.name),
                want,
                t.shape(),
            ));
        }
        let want = spec.dtype(dtype);
        if t.dtype() != want {
            return Err(Error::DType {
                what: format!("{op}, argument `{}`", spec.name),
                want: want.to_string(),
                got: t.dtype().to_string(),
            });
        }
        if !t.buffer().runtime().shares_memory(cx.rt()) {
            let why = format!(
                "{op}, argument `{}` lives on `{}`",
                spec.name,
                t.buffer().runtime().name()
            );
            return Err(Error::Device {
                device: cx.rt().name().into(),
                why,
            });
        }
    }
    Ok(())
}
