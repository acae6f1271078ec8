//! How fast is every variant? Each is verified first, then timed on the inputs that it was verified on.
//!
//! Verified at the bound of [`check`](super::check), against the textbook loops in f64. Where those would take
//! longer than all else ([`TEXTBOOK_WORK`]), against the plainest of the other native variants in f64, which
//! the checks compare with the textbook on small cases; [`Bench::reference`] says which it was.

use std::time::Duration;

use super::case::AnyCase;
use super::check::{Inputs, Loaded, Row, Truth};
use super::{ALL, add, linear};
use crate::cx::{Cx, Launched, Launches};
use crate::dtype::DType;
use crate::error::Result;
use crate::runtime::kernel::Target;
use crate::runtime::{Cost, Runtime, arena};
use crate::tensor::Tensor;

/// The most operations, or bytes, that the textbook loops are run on: about a second of them.
pub const TEXTBOOK_WORK: u64 = 2_000_000_000;
/// The most operations, or bytes, that are run on the emulator.
pub const EMULATED_WORK: u64 = 1_000_000_000;
/// Repeats of a timing, of which the median counts.
pub const REPEATS: usize = 20;
/// Repeats of a timing whose [`REPEATS`] would take longer than [`PATIENCE`].
pub const FEWEST: usize = 3;
/// How long the repeats of one timing should take at most.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// One case on one runtime: inputs, the same for all variants, and what is to come of them.
pub struct Bench<'a> {
    case: &'a dyn AnyCase,
    cx: &'a Cx,
    loaded: Loaded,
    truth: Truth,
    reference: &'static str,
}

/// A variant of a case, ready to be run.
pub struct Ready<'a> {
    case: &'a dyn AnyCase,
    cx: Cx,
    loaded: Loaded,
}

/// What one variant of a case came to.
#[derive(Clone, Debug)]
pub struct Measured {
    /// How it compares with the reference.
    pub row: Row,
    /// How long it takes.
    pub timing: Timing,
}

/// Wall-clock or event times of one launch.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// In the middle.
    pub median: Duration,
    /// The least.
    pub least: Duration,
    /// How many times there are.
    pub repeats: usize,
}

/// What a runtime reaches, in operations and bytes a second; `None` where it has no variant to show it.
#[derive(Clone, Copy, Debug)]
pub struct Ceiling {
    /// The best rate of the products of large square matrices.
    pub flops: Option<f64>,
    /// The rate at which one large tensor is added to another.
    pub bytes: Option<f64>,
}

/// Every distinct launch of a run, and how often each was asked for.
pub fn cases(launches: &Launches) -> Vec<(Box<dyn AnyCase>, u64)> {
    let case = |((name, _), launched): (&(&'static str, String), &Launched)| {
        let op = ALL.iter().find(|op| op.name() == *name)?;
        Some((op.case(&*launched.key)?, launched.count))
    };
    launches.iter().filter_map(case).collect()
}

/// Whether times on a runtime say nothing of a device's speed.
pub fn is_emulated(rt: &Runtime) -> bool {
    match rt {
        #[cfg(feature = "emu")]
        Runtime::Emu(_) => true,
        _ => false,
    }
}

/// The variants of a case that are worth running on a runtime, fastest first: all of them, as long as the
/// case is small enough for slow ones.
pub fn affordable(case: &dyn AnyCase, rt: &Runtime) -> Vec<&'static str> {
    let mut variants = case.variants(rt.target());
    if is_emulated(rt) && work(case) > EMULATED_WORK {
        variants.clear();
    }
    if rt.target() == Target::Native && work(case) > TEXTBOOK_WORK && variants.len() > 1 {
        variants.pop();
    }
    variants
}

fn work(case: &dyn AnyCase) -> u64 {
    let Cost { flops, bytes } = case.cost();
    flops.max(bytes)
}

impl<'a> Bench<'a> {
    /// Draws the inputs and computes what is to come of them.
    ///
    /// # Errors
    /// What a launch returns.
    pub fn new(case: &'a dyn AnyCase, cx: &'a Cx) -> Result<Self> {
        let inputs = Inputs::draw(case, 0);
        let mut native = case.with_dtype(DType::F64).variants(Target::Native);
        let textbook = native.pop().unwrap_or_default();
        let reference = match native.pop() {
            Some(plainest) if work(case) > TEXTBOOK_WORK => plainest,
            _ => textbook,
        };
        Ok(Bench {
            case,
            cx,
            loaded: inputs.load(cx.rt(), case.dtype())?,
            truth: Truth::by(case, &inputs, reference)?,
            reference,
        })
    }

    /// The native variant whose results in f64 are the reference.
    pub fn reference(&self) -> &'static str {
        self.reference
    }

    /// A variant with its own outputs, which nobody has written.
    ///
    /// # Errors
    /// [`Error::Plan`](crate::Error::Plan) when there is no room for them.
    pub fn ready(&self, variant: &str) -> Result<Ready<'a>> {
        Ok(Ready {
            case: self.case,
            cx: self.cx.clone().forcing(self.case.op().name(), variant),
            loaded: self.loaded.again(self.cx.rt())?,
        })
    }

    /// Verifies a variant and times it.
    ///
    /// # Errors
    /// What a launch returns.
    pub fn measure(&self, variant: &'static str) -> Result<Measured> {
        let ready = self.ready(variant)?;
        // The first run warms up, and its result is the one that is verified.
        ready.launch()?;
        let outputs = ready.loaded.outputs()?;
        Ok(Measured {
            row: self.truth.judge(self.case, variant, &outputs),
            timing: ready.time()?,
        })
    }
}

impl Ready<'_> {
    /// Runs it.
    ///
    /// # Errors
    /// What a launch returns.
    pub fn launch(&self) -> Result<()> {
        self.case.launch(&self.cx, &self.loaded.args())
    }

    /// Times as many runs as there is patience for, after one or more. Scratch memory is there before, as in a step.
    fn time(&self) -> Result<Timing> {
        let rt = self.cx.rt();
        let scratch = self.case.plan(&self.cx)?.map_or(0, |plan| plan.scratch);
        if scratch == 0 {
            return self.repeat();
        }
        rt.with_slab(scratch.next_multiple_of(arena::ALIGN), || self.repeat())
    }

    fn repeat(&self) -> Result<Timing> {
        let rt = self.cx.rt();
        let once = || {
            rt.flush_cache()?;
            rt.time(|| self.launch())
        };
        let fit = PATIENCE.div_duration_f64(once()?) as usize;
        let repeats = fit.clamp(FEWEST, REPEATS);
        let times = std::iter::repeat_with(once).take(repeats);
        let mut times = times.collect::<Result<Vec<_>>>()?;
        times.sort();
        Ok(Timing {
            median: times[repeats / 2],
            least: times[0],
            repeats,
        })
    }
}

/// Measures what a runtime reaches in activations of this type.
///
/// # Errors
/// What a launch returns.
pub fn ceiling(rt: &Runtime, dtype: DType) -> Result<Ceiling> {
    let (len, sides) = match rt.target() {
        Target::Native => (1 << 23, &[1024][..]),
        Target::Kernels(_) => (1 << 26, &[4096, 8192][..]),
    };
    let cx = &Cx::new(rt.clone(), dtype)?;
    let rate = |work: u64, time: Duration| work as f64 / time.as_secs_f64();
    let sum = only_launch(dtype, |cx| {
        add::forward(cx, &cx.empty([1, len])?, &cx.empty([1, len])?)
    })?;
    let bytes = least(&*sum, cx)?.map(|time| rate(sum.cost().bytes, time));
    let mut rates = Vec::new();
    for &side in sides {
        let product = only_launch(dtype, |cx| {
            let (x, w) = (cx.empty([1, side, side])?, cx.empty([side, side])?);
            linear::forward(cx, &x, &w, None, None)
        })?;
        rates.extend(least(&*product, cx)?.map(|time| rate(product.cost().flops, time)));
    }
    let flops = rates.into_iter().reduce(f64::max);
    Ok(Ceiling { flops, bytes })
}

/// The case of the one launch that `build` makes.
fn only_launch(
    dtype: DType,
    build: impl FnOnce(&Cx) -> Result<Tensor>,
) -> Result<Box<dyn AnyCase>> {
    let (cx, launches) = Cx::new(Runtime::dry(), dtype)?.counted();
    build(&cx)?;
    let (case, _) = cases(&launches.borrow()).pop().expect("it launches an op");
    Ok(case)
}

/// The median time of the fastest variant, unverified; `None` when none takes the case.
fn least(case: &dyn AnyCase, cx: &Cx) -> Result<Option<Duration>> {
    let inputs = Inputs::draw(case, 0);
    let mut best: Option<Duration> = None;
    for variant in affordable(case, cx.rt()) {
        let ready = Ready {
            case,
            cx: cx.clone().forcing(case.op().name(), variant),
            loaded: inputs.load(cx.rt(), case.dtype())?,
        };
        ready.launch()?;
        let Timing { median, .. } = ready.time()?;
        best = Some(best.map_or(median, |best| best.min(median)));
    }
    Ok(best)
}
