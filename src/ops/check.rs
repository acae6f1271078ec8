//! Is every variant right? Each against the textbook loops in f64, at a tolerance nobody chose.
//!
//! The rule: max|got - oracle| <= 2 max|plain - oracle| + 2 ulp(max|oracle|), and the same for the root of
//! the mean square. `plain` is the textbook variant in f32 with its results rounded to the variant's element
//! type, the oracle is the textbook variant in f64, both on inputs that were rounded to that type.
//! On the emulator each case runs under several schedules, which must give the same bits; in f16, whose kernels have the
//! source of those in bf16, under one. A sanitizer sees under one schedule what there is to see, and in bf16 what there is in
//! f16, and what races there are in f32.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::case::{AnyCase, AnyOp};
use crate::ops::variant::{Access, Fill, Spec};
use crate::rng::Stream;
#[cfg(feature = "emu")]
use crate::runtime::emu::{Sanitizer, Schedule};
use crate::runtime::kernel::Target;
use crate::runtime::{Arg, Runtime};
use crate::tensor::Tensor;

/// One variant on one case.
#[derive(Clone, Debug)]
pub struct Row {
    /// The op and direction.
    pub op: &'static str,
    /// The variant.
    pub variant: &'static str,
    /// The element type of the activations.
    pub dtype: DType,
    /// The case, printed.
    pub case: String,
    /// max|got - oracle| over all outputs, relative to the bound; passes up to 1.
    pub used: f64,
    /// The largest max|got - oracle| / max|oracle| of an output.
    pub error: f64,
    /// Where the worst element is: output, index, got, oracle; or why there is none.
    pub worst: String,
}

impl Row {
    /// Whether the variant is within the bound.
    pub fn passed(&self) -> bool {
        self.used <= 1.0
    }
}

/// What of an op is checked; all of it by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope<'a> {
    /// Variants whose name contains this.
    pub variant: &'a str,
    /// But for those whose name contains this.
    pub except: Option<&'a str>,
    /// Up to the first row that fails.
    pub fail_fast: bool,
}

impl Scope<'_> {
    fn has(&self, variant: &str) -> bool {
        let left_out = self.except.is_some_and(|text| variant.contains(text));
        variant.contains(self.variant) && !left_out
    }
}

impl dyn AnyOp {
    /// The variants that `check` runs on a runtime in the default scope, fastest first.
    pub fn checked(&'static self, rt: &Runtime) -> Vec<&'static str> {
        let mut taken = HashSet::new();
        for case in self.cases() {
            for dtype in dtypes(rt) {
                taken.extend(case.with_dtype(dtype).variants(rt.target()));
            }
        }
        let mut checked = self.variants();
        checked.retain(|name| taken.remove(name));
        checked
    }

    /// Every variant of this runtime on every case it takes, in every element type of the runtime.
    ///
    /// A launch that fails is a row that failed, and what comes after it is checked nevertheless.
    ///
    /// # Errors
    /// [`Error::Device`] when a launch fails and the device takes no work any more: a kernel that leaves its memory takes
    /// the whole context of a GPU with it.
    pub fn check(&'static self, rt: &Runtime, scope: Scope<'_>) -> Result<Vec<Row>> {
        let jobs: Vec<_> = (0..self.cases().len())
            .flat_map(|number| dtypes(rt).into_iter().map(move |dtype| (number, dtype)))
            .collect();
        let (next, ends) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let mut done = Vec::new();
            while !ends.load(Relaxed) {
                let job = next.fetch_add(1, Relaxed);
                let Some(&(number, dtype)) = jobs.get(job) else {
                    break;
                };
                let rows = self.check_case(rt, scope, number, dtype);
                let failed = |rows: &Vec<Row>| rows.iter().any(|row| !row.passed());
                if rows.as_ref().map_or(true, |r| scope.fail_fast && failed(r)) {
                    ends.store(true, Relaxed);
                }
                done.push((job, rows));
            }
            done
        };
        let mut done = std::thread::scope(|threads| {
            let others: Vec<_> = (1..at_once(rt)).map(|_| threads.spawn(work)).collect();
            let mut done = work();
            for other in others {
                done.extend(other.join().expect("no check panics"));
            }
            done
        });
        // Jobs begin in this order, so those before one that failed are all there.
        done.sort_by_key(|(job, _)| *job);
        let mut all = Vec::new();
        for (_, rows) in done {
            for row in rows? {
                let ends = scope.fail_fast && !row.passed();
                all.push(row);
                if ends {
                    return Ok(all);
                }
            }
        }
        Ok(all)
    }

    /// A case, by its number, in one element type.
    fn check_case(
        &'static self,
        rt: &Runtime,
        scope: Scope<'_>,
        number: usize,
        dtype: DType,
    ) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let case = self.cases().swap_remove(number).with_dtype(dtype);
        let mut variants = case.variants(rt.target());
        variants.retain(|name| scope.has(name));
        if dtype == DType::F32 && is_watched_for_races(rt) {
            let bf16 = case.with_dtype(DType::Bf16).variants(rt.target());
            variants.retain(|name| !bf16.contains(name));
        }
        if variants.is_empty() {
            return Ok(rows);
        }
        let inputs = Inputs::draw(&*case, number as u64);
        let textbook = self.variants().pop().unwrap_or_default();
        let truth = Truth::by(&*case, &inputs, textbook)?;
        for variant in variants {
            let judged = run(&*case, rt, variant, &inputs).and_then(|got| {
                let mut row = truth.judge(&*case, variant, &got);
                for other in other_schedules(rt, dtype) {
                    let again = run(&*case, &other, variant, &inputs)?;
                    row.expect_same_bits(&got, &again, &other);
                }
                Ok(row)
            });
            let row = match judged {
                Ok(row) => row,
                Err(why) => {
                    let row = Row::failed(&*case, variant, &why);
                    expect_usable(rt, &row)?;
                    row
                }
            };
            let ends = scope.fail_fast && !row.passed();
            rows.push(row);
            if ends {
                break;
            }
        }
        Ok(rows)
    }
}

/// Cases that are checked at once: the emulator runs the blocks of one launch on many threads, but most cases have few. Under a
/// sanitizer it costs more than it saves.
fn at_once(rt: &Runtime) -> usize {
    match rt {
        #[cfg(feature = "emu")]
        Runtime::Emu(emu) if emu.sanitizer().is_none() => {
            std::thread::available_parallelism().map_or(1, |n| n.get())
        }
        _ => 1,
    }
}

#[cfg_attr(not(feature = "emu"), allow(unused_variables))]
fn is_watched_for_races(rt: &Runtime) -> bool {
    match rt {
        #[cfg(feature = "emu")]
        Runtime::Emu(emu) => emu.sanitizer() == Some(Sanitizer::Thread),
        _ => false,
    }
}

fn run(case: &dyn AnyCase, rt: &Runtime, variant: &str, inputs: &Inputs) -> Result<Vec<Output>> {
    let cx = Cx::new(rt.clone(), case.dtype())?.forcing(case.op().name(), variant);
    let loaded = inputs.load(rt, case.dtype())?;
    case.launch(&cx, &loaded.args())?;
    loaded.outputs()
}

/// The element types that are checked on a runtime.
pub fn dtypes(rt: &Runtime) -> Vec<DType> {
    match (rt, rt.target()) {
        (_, Target::Native) => vec![DType::F32],
        // f16 has the source of bf16: where it races or leaves its memory, both do.
        #[cfg(feature = "emu")]
        (Runtime::Emu(emu), _) if emu.sanitizer().is_some() => vec![DType::F32, DType::Bf16],
        (_, Target::Kernels(_)) => vec![DType::F32, DType::Bf16, DType::F16],
    }
}

/// The same runtime under every other schedule of threads and copies that a type is checked under.
#[cfg_attr(not(feature = "emu"), allow(unused_variables))]
fn other_schedules(rt: &Runtime, dtype: DType) -> Vec<Runtime> {
    match rt {
        #[cfg(feature = "emu")]
        Runtime::Emu(emu) if emu.sanitizer().is_none() && dtype != DType::F16 => {
            let random = (1..=4).map(Schedule::Random);
            std::iter::once(Schedule::Reverse)
                .chain(random)
                .map(Runtime::emu)
                .collect()
        }
        _ => Vec::new(),
    }
}

/// One output of a launch, and the type it was stored in.
pub(super) struct Output {
    name: &'static str,
    dtype: DType,
    values: Vec<f64>,
}

/// # Errors
/// [`Error::Device`] when not even a copy works after a launch that failed.
fn expect_usable(rt: &Runtime, after: &Row) -> Result<()> {
    let copied = Tensor::from_slice(rt, &[0.0f32], [1]).and_then(|t| t.to_f64());
    let Row {
        op, variant, worst, ..
    } = after;
    copied.map(drop).map_err(|_| Error::Device {
        device: rt.name().into(),
        why: format!(
            "{op}, {variant}, {}, {}: {worst}; it takes no more work in this process, so what comes after this is \
             not checked; leave this out by --except",
            after.dtype, after.case
        ),
    })
}

impl Row {
    fn failed(case: &dyn AnyCase, variant: &'static str, why: &Error) -> Self {
        Row {
            op: case.op().name(),
            variant,
            dtype: case.dtype(),
            case: case.key(),
            used: f64::INFINITY,
            error: f64::INFINITY,
            worst: why.to_string(),
        }
    }

    fn expect_same_bits(&mut self, got: &[Output], again: &[Output], rt: &Runtime) {
        for (got, again) in got.iter().zip(again) {
            let mut pairs = got.values.iter().zip(&again.values).enumerate();
            if let Some((i, (a, b))) = pairs.find(|(_, (a, b))| a.to_bits() != b.to_bits()) {
                self.used = f64::INFINITY;
                self.worst = format!("{}[{i}]: {a:e} in order, {b:e} under {rt:?}", got.name);
            }
        }
    }
}

/// Random values for the inputs of one case, the same for all variants; rounded to the case's type.
pub(super) struct Inputs {
    dtype: DType,
    args: Vec<(Spec, Vec<f64>)>,
}

/// The arguments of a launch, on a runtime.
pub(super) struct Loaded {
    /// The type that the case stores.
    dtype: DType,
    args: Vec<(Spec, Option<Tensor>)>,
}

/// Values that one task draws.
const CHUNK: usize = 1 << 16;

impl Inputs {
    pub(super) fn draw(case: &dyn AnyCase, seed: u64) -> Self {
        let (dtype, stream) = (case.dtype(), Stream::new(seed, 0, 0));
        let draw = |(arg, spec): (u32, Spec)| {
            let len = match spec.access {
                Access::Write => 0,
                Access::Read | Access::Update => spec.len,
            };
            let mut values = vec![0.0; len];
            let chunks = values.par_chunks_mut(CHUNK).enumerate();
            chunks.for_each(|(i, chunk)| {
                let first = (i * CHUNK) as u64;
                match spec.fill {
                    Fill::Normal(_) => stream.normals_from(0, arg, first, chunk),
                    _ => stream.uniforms_from(0, arg, first, chunk),
                }
                let to = spec.dtype(dtype);
                for (i, v) in (first..).zip(chunk) {
                    *v = to.nearest(f64::from(spec.fill.shape(i, *v) as f32));
                }
            });
            if let (Fill::Starts(elements), [first, .., last]) = (spec.fill, &mut values[..]) {
                (*first, *last) = (0.0, elements as f64);
                values.sort_by(f64::total_cmp);
            }
            (spec, values)
        };
        let args = (0..).zip(case.args()).map(draw).collect();
        Inputs { dtype, args }
    }

    /// Uploads them for a launch in `dtype`.
    pub(super) fn load(&self, rt: &Runtime, dtype: DType) -> Result<Loaded> {
        let tensor = |(spec, values): &(Spec, Vec<f64>)| {
            let to = spec.dtype(dtype);
            let tensor = match spec {
                _ if spec.fill == Fill::Absent => None,
                _ if spec.access == Access::Write => Some(unwritten(rt, spec.len, to)?),
                _ => {
                    let values = values.iter().copied();
                    Some(Tensor::rounded(rt, values, [spec.len], to)?)
                }
            };
            Ok((*spec, tensor))
        };
        let args = self.args.iter().map(tensor).collect::<Result<_>>()?;
        Ok(Loaded {
            dtype: self.dtype,
            args,
        })
    }
}

impl Fill {
    /// Element `i` of this distribution, from a unit normal or a number in (0, 1).
    fn shape(self, i: u64, drawn: f64) -> f64 {
        match self {
            Fill::Normal(std) => std * drawn,
            Fill::Positive => 0.5 + drawn,
            Fill::Counts => i as f64,
            Fill::Ids(below) => (drawn * below as f64).floor(),
            Fill::Starts(elements) => (drawn * (elements + 1) as f64).floor(),
            Fill::Absent => 0.0,
        }
    }
}

/// An output that holds NaN, so that an element nobody writes is found.
fn unwritten(rt: &Runtime, len: usize, dtype: DType) -> Result<Tensor> {
    Tensor::rounded(rt, std::iter::repeat_n(f64::NAN, len), [len], dtype)
}

impl Loaded {
    /// The same inputs again, with outputs that nobody has written.
    pub(super) fn again(&self, rt: &Runtime) -> Result<Self> {
        let tensor = |(spec, t): &(Spec, Option<Tensor>)| {
            let tensor = match t {
                Some(t) if spec.access == Access::Write => {
                    Some(unwritten(rt, spec.len, t.dtype())?)
                }
                Some(t) if spec.access == Access::Update => {
                    let values = t.to_f64()?.into_iter();
                    Some(Tensor::rounded(rt, values, [spec.len], t.dtype())?)
                }
                t => t.clone(),
            };
            Ok((*spec, tensor))
        };
        let args = self.args.iter().map(tensor).collect::<Result<_>>()?;
        Ok(Loaded { args, ..*self })
    }

    pub(super) fn args(&self) -> Vec<Arg<'_>> {
        let args = self.args.iter();
        args.map(|(spec, t)| match t {
            None => Arg::Absent,
            Some(t) => match spec.access {
                Access::Read => Arg::In(t),
                Access::Write => Arg::Out(t),
                Access::Update => Arg::Update(t),
            },
        })
        .collect()
    }

    pub(super) fn outputs(&self) -> Result<Vec<Output>> {
        let outputs = self
            .args
            .iter()
            .filter(|(spec, _)| spec.access != Access::Read);
        let output = |(spec, t): &(Spec, Option<Tensor>)| {
            let values = t.as_ref()?.to_f64();
            Some(values.map(|values| Output {
                name: spec.name,
                dtype: spec.dtype(self.dtype),
                values,
            }))
        };
        outputs.filter_map(output).collect()
    }
}

/// What a case comes to in f64, and what the same loops make of it in f32.
pub(super) struct Truth {
    oracle: Vec<Output>,
    plain: Vec<Output>,
}

impl Truth {
    /// By the native variant of this name.
    pub(super) fn by(case: &dyn AnyCase, inputs: &Inputs, variant: &str) -> Result<Self> {
        let rt = Runtime::native();
        let oracle = run(&*case.with_dtype(DType::F64), &rt, variant, inputs)?;
        let mut plain = run(&*case.with_dtype(DType::F32), &rt, variant, inputs)?;
        for Output { dtype, values, .. } in &mut plain {
            values.iter_mut().for_each(|v| *v = dtype.nearest(*v));
        }
        Ok(Truth { oracle, plain })
    }

    /// Compares what a variant made of the same inputs.
    pub(super) fn judge(&self, case: &dyn AnyCase, variant: &'static str, got: &[Output]) -> Row {
        let mut row = Row {
            op: case.op().name(),
            variant,
            dtype: case.dtype(),
            case: case.key(),
            used: 0.0,
            error: 0.0,
            worst: String::new(),
        };
        for ((got, plain), oracle) in got.iter().zip(&self.plain).zip(&self.oracle) {
            row.compare(got, plain, oracle);
        }
        row
    }
}

impl Row {
    fn compare(&mut self, got: &Output, plain: &Output, oracle: &Output) {
        let (bound, mean_bound) = bounds(got.dtype, &plain.values, &oracle.values);
        let (mut most, mut largest) = (0.0f64, f64::from(f32::MIN_POSITIVE));
        let pairs = || got.values.iter().zip(&oracle.values);
        for (i, (&g, &o)) in pairs().enumerate() {
            let error = match g.is_finite() {
                true => (g - o).abs(),
                false => f64::INFINITY,
            };
            (most, largest) = (most.max(error), largest.max(o.abs()));
            let used = error / bound;
            if used > self.used || self.worst.is_empty() {
                self.used = used;
                self.worst = format!("{}[{i}]: got {g:e}, want {o:e}", got.name);
            }
        }
        self.error = self.error.max(most / largest);
        let used = root_mean_square(pairs().map(|(g, o)| g - o)) / mean_bound;
        if used > self.used {
            self.used = used;
            self.worst = format!("{}: root mean square of the error", got.name);
        }
    }
}

/// The bounds of the rule above for one output stored in `dtype`: of the largest error, and of the root of
/// the mean square.
pub fn bounds(dtype: DType, plain: &[f64], oracle: &[f64]) -> (f64, f64) {
    let ulp = match dtype {
        DType::F16 => f64::from(half::f16::EPSILON),
        DType::Bf16 => f64::from(half::bf16::EPSILON),
        _ => f64::from(f32::EPSILON),
    };
    let errors = || plain.iter().zip(oracle).map(|(p, o)| p - o);
    let largest =
        |values: &mut dyn Iterator<Item = f64>| values.fold(0.0f64, |m, v| m.max(v.abs()));
    let floor = f64::from(f32::MIN_POSITIVE);
    let most = largest(&mut oracle.iter().copied()).max(floor);
    let mean = root_mean_square(oracle.iter().copied()).max(floor);
    (
        2.0 * largest(&mut errors()) + 2.0 * ulp * most,
        2.0 * root_mean_square(errors()) + 2.0 * ulp * mean,
    )
}

fn root_mean_square(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, n), v| (sum + v * v, n + 1));
    (sum / count.max(1) as f64).sqrt()
}
