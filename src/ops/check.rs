//! Is every variant right? Each against the textbook loops in f64, at a tolerance nobody chose.
//!
//! The rule: max|got - oracle| <= 2 max|plain - oracle| + 2 ulp(max|oracle|), and the same for the root of
//! the mean square. `plain` is the textbook variant in f32 with its results rounded to the variant's element
//! type, the oracle is the textbook variant in f64, both on inputs that were rounded to that type.
//! On the emulator each case runs under several schedules, which must give the same bits.

use crate::cx::Cx;
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::variant::{Fill, Key, Op, Spec, Variant};
use crate::rng::Philox;
#[cfg(feature = "emu")]
use crate::runtime::emu::Schedule;
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
    /// Where the worst element is: output, index, got, oracle.
    pub worst: String,
}

impl Row {
    /// Whether the variant is within the bound.
    pub fn passed(&self) -> bool {
        self.used <= 1.0
    }
}

/// An op of any key type, for walking.
pub trait AnyOp: Sync {
    /// `room.direction`.
    fn name(&self) -> &'static str;
    /// The names of the variants, fastest first.
    fn variants(&self) -> Vec<&'static str>;
    /// Every variant of this runtime on every case it takes, in every element type of the runtime.
    ///
    /// # Errors
    /// What a launch returns.
    fn check(&self, rt: &Runtime) -> Result<Vec<Row>>;
}

impl<K: Key> AnyOp for Op<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn variants(&self) -> Vec<&'static str> {
        self.variants.iter().map(|v| v.name).collect()
    }

    fn check(&self, rt: &Runtime) -> Result<Vec<Row>> {
        let native = Runtime::native();
        let mut rows = Vec::new();
        let oracle_name = self.variants.last().map_or("", |v| v.name);
        for (i, case) in (self.cases)().iter().enumerate() {
            for dtype in dtypes(rt) {
                let case = case.with_dtype(dtype);
                let takes = |v: &&Variant<K>| v.takes(rt.target(), &case);
                if !self.variants.iter().any(|v| takes(&v)) {
                    continue;
                }
                let inputs = Inputs::draw(&case, i as u64);
                let oracle =
                    inputs.run(self, &native, &case.with_dtype(DType::F64), oracle_name)?;
                let mut plain =
                    inputs.run(self, &native, &case.with_dtype(DType::F32), oracle_name)?;
                plain.iter_mut().for_each(Output::round);
                for v in self.variants.iter().filter(takes) {
                    let got = inputs.run(self, rt, &case, v.name)?;
                    let mut row = compare(self.name, v.name, &case, &got, &plain, &oracle);
                    for other in other_schedules(rt) {
                        let again = inputs.run(self, &other, &case, v.name)?;
                        row.expect_same_bits(&got, &again, &other);
                    }
                    rows.push(row);
                }
            }
        }
        Ok(rows)
    }
}

/// The element types that are checked on a runtime.
fn dtypes(rt: &Runtime) -> Vec<DType> {
    match rt.target() {
        Target::Native => vec![DType::F32],
        Target::Kernels(_) => vec![DType::F32, DType::Bf16, DType::F16],
    }
}

/// The same runtime under every other schedule of threads and copies that it has.
fn other_schedules(rt: &Runtime) -> Vec<Runtime> {
    match rt {
        #[cfg(feature = "emu")]
        Runtime::Emu(_) => {
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
struct Output {
    name: &'static str,
    dtype: DType,
    values: Vec<f64>,
}

impl Output {
    fn round(&mut self) {
        let round: fn(f64) -> f64 = match self.dtype {
            DType::F16 => |v| half::f16::from_f64(v).to_f64(),
            DType::Bf16 => |v| half::bf16::from_f64(v).to_f64(),
            _ => return,
        };
        self.values.iter_mut().for_each(|v| *v = round(*v));
    }
}

impl Row {
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
struct Inputs {
    dtype: DType,
    args: Vec<(Spec, Vec<f64>)>,
}

impl Inputs {
    fn draw<K: Key>(case: &K, seed: u64) -> Self {
        let mut random = Philox::new(seed);
        let draw = |spec: Spec| {
            let values = (0..spec.len).map(|i| match spec.fill {
                Fill::Normal(std) => std * random.normal(),
                Fill::Positive => 0.5 + random.uniform(),
                Fill::Counts => i as f64,
                Fill::Ids(below) => f64::from(random.below(below as u32)),
                Fill::Starts(elements) => f64::from(random.below(elements as u32 + 1)),
                Fill::Absent => 0.0,
            });
            let mut input = Output {
                name: spec.name,
                dtype: spec.dtype(case.dtype()),
                values: values.map(|v| f64::from(v as f32)).collect(),
            };
            input.round();
            let mut values = input.values;
            if let (Fill::Starts(elements), [first, .., last]) = (spec.fill, &mut values[..]) {
                (*first, *last) = (0.0, elements as f64);
                values.sort_by(f64::total_cmp);
            }
            (spec, values)
        };
        Inputs {
            dtype: case.dtype(),
            args: case.args().into_iter().map(draw).collect(),
        }
    }

    fn run<K: Key>(&self, op: &Op<K>, rt: &Runtime, key: &K, variant: &str) -> Result<Vec<Output>> {
        let cx = Cx::new(rt.clone(), key.dtype())?.forcing(op.name, variant);
        let tensor = |(spec, values): &(Spec, Vec<f64>)| {
            if spec.fill == Fill::Absent {
                return Ok(None);
            }
            let nan = if spec.out { f64::NAN } else { 0.0 };
            let values = values.iter().map(|v| v + nan);
            Tensor::rounded(rt, values, [spec.len], spec.dtype(key.dtype())).map(Some)
        };
        let tensors = self.args.iter().map(tensor).collect::<Result<Vec<_>>>()?;
        let args: Vec<Arg<'_>> = self
            .args
            .iter()
            .zip(&tensors)
            .map(|((spec, _), t)| match t {
                Some(t) if spec.out => Arg::Out(t),
                Some(t) => Arg::In(t),
                None => Arg::Absent,
            })
            .collect();
        op.launch(&cx, key, &args)?;
        let outputs = self
            .args
            .iter()
            .zip(&tensors)
            .filter(|((spec, _), _)| spec.out);
        outputs
            .filter_map(|((spec, _), t)| {
                let values = t.as_ref()?.to_f64();
                Some(values.map(|values| Output {
                    name: spec.name,
                    dtype: spec.dtype(self.dtype),
                    values,
                }))
            })
            .collect()
    }
}

fn compare<K: Key>(
    op: &'static str,
    variant: &'static str,
    case: &K,
    got: &[Output],
    plain: &[Output],
    oracle: &[Output],
) -> Row {
    let mut row = Row {
        op,
        variant,
        dtype: case.dtype(),
        case: format!("{case:?}"),
        used: 0.0,
        worst: String::new(),
    };
    for ((got, plain), oracle) in got.iter().zip(plain).zip(oracle) {
        let (bound, mean_bound) = bounds(got.dtype, &plain.values, &oracle.values);
        let pairs = || got.values.iter().zip(&oracle.values);
        for (i, (&g, &o)) in pairs().enumerate() {
            let used = if g.is_finite() {
                (g - o).abs() / bound
            } else {
                f64::INFINITY
            };
            if used > row.used || row.worst.is_empty() {
                row.used = used;
                row.worst = format!("{}[{i}]: got {g:e}, want {o:e}", got.name);
            }
        }
        let used = root_mean_square(pairs().map(|(g, o)| g - o)) / mean_bound;
        if used > row.used {
            row.used = used;
            row.worst = format!("{}: root mean square of the error", got.name);
        }
    }
    row
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
