//! Is every variant right? Each against the textbook loops in f64, at a tolerance nobody chose.
//!
//! The rule: max|got - oracle| <= 2 max|plain - oracle| + 2 ulp(max|oracle|), where `plain` is the
//! textbook variant in the same element type and the oracle is the textbook variant in f64.

use crate::cx::Cx;
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::variant::{Fill, Key, Op, Spec};
use crate::rng::Philox;
use crate::runtime::{Arg, Runtime};
use crate::tensor::Tensor;

/// One variant on one case.
#[derive(Clone, Debug)]
pub struct Row {
    /// The op and direction.
    pub op: &'static str,
    /// The variant.
    pub variant: &'static str,
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
    /// Every variant on every case it takes, in f32, on the native runtime.
    ///
    /// # Errors
    /// What a launch returns.
    fn check(&self) -> Result<Vec<Row>>;
}

impl<K: Key> AnyOp for Op<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn variants(&self) -> Vec<&'static str> {
        self.variants.iter().map(|v| v.name).collect()
    }

    fn check(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let oracle_name = self.variants.last().map_or("", |v| v.name);
        for (i, case) in (self.cases)().iter().enumerate() {
            let inputs = Inputs::draw(case, i as u64);
            let oracle = inputs.run(self, &case.with_dtype(DType::F64), oracle_name)?;
            let plain = inputs.run(self, &case.with_dtype(DType::F32), oracle_name)?;
            for v in self.variants.iter().filter(|v| (v.fits)(case)) {
                let got = inputs.run(self, &case.with_dtype(DType::F32), v.name)?;
                rows.push(compare(
                    self.name,
                    v.name,
                    format!("{case:?}"),
                    &got,
                    &plain,
                    &oracle,
                ));
            }
        }
        Ok(rows)
    }
}

/// Random values for the inputs of one case, the same for all variants; rounded to f32.
struct Inputs(Vec<(Spec, Vec<f32>)>);

impl Inputs {
    fn draw<K: Key>(case: &K, seed: u64) -> Self {
        let mut random = Philox::new(seed);
        let draw = |spec: Spec| {
            let mut values: Vec<f32> = (0..spec.len)
                .map(|_| match spec.fill {
                    Fill::Normal(std) => (std * random.normal()) as f32,
                    Fill::Positive => 0.5 + random.uniform() as f32,
                    Fill::Ids(below) => random.below(below as u32) as f32,
                    Fill::Starts(elements) => random.below(elements as u32 + 1) as f32,
                    Fill::Absent => 0.0,
                })
                .collect();
            if let (Fill::Starts(elements), [first, .., last]) = (spec.fill, &mut values[..]) {
                (*first, *last) = (0.0, elements as f32);
                values.sort_by(f32::total_cmp);
            }
            (spec, values)
        };
        Inputs(case.args().into_iter().map(draw).collect())
    }

    fn run<K: Key>(
        &self,
        op: &Op<K>,
        key: &K,
        variant: &str,
    ) -> Result<Vec<(&'static str, Vec<f64>)>> {
        let cx = Cx::new(Runtime::native(), key.dtype())?.forcing(op.name, variant);
        let tensor = |(spec, values): &(Spec, Vec<f32>)| match spec.fill {
            Fill::Absent => Ok(None),
            Fill::Ids(_) | Fill::Starts(_) => {
                let ids: Vec<i32> = values.iter().map(|&v| v as i32).collect();
                Tensor::from_slice(cx.rt(), &ids, [spec.len]).map(Some)
            }
            _ if spec.out => cx.upload(&vec![f32::NAN; spec.len], [spec.len]).map(Some),
            _ => cx.upload(values, [spec.len]).map(Some),
        };
        let tensors = self.0.iter().map(tensor).collect::<Result<Vec<_>>>()?;
        let args: Vec<Arg<'_>> = self
            .0
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
            .0
            .iter()
            .zip(&tensors)
            .filter(|((spec, _), _)| spec.out);
        outputs
            .filter_map(|((spec, _), t)| t.as_ref().map(|t| Ok((spec.name, t.to_f64()?))))
            .collect()
    }
}

type Outputs = [(&'static str, Vec<f64>)];

fn compare(
    op: &'static str,
    variant: &'static str,
    case: String,
    got: &Outputs,
    plain: &Outputs,
    oracle: &Outputs,
) -> Row {
    let mut row = Row {
        op,
        variant,
        case,
        used: 0.0,
        worst: String::new(),
    };
    for (((name, got), (_, plain)), (_, oracle)) in got.iter().zip(plain).zip(oracle) {
        let bound = bound(plain, oracle);
        for (i, (&g, &o)) in got.iter().zip(oracle).enumerate() {
            let used = if g.is_finite() {
                (g - o).abs() / bound
            } else {
                f64::INFINITY
            };
            if used > row.used || row.worst.is_empty() {
                row.used = used;
                row.worst = format!("{name}[{i}]: got {g:e}, want {o:e}");
            }
        }
    }
    row
}

/// The bound of the rule above for one f32 output.
pub fn bound(plain: &[f64], oracle: &[f64]) -> f64 {
    let largest = oracle.iter().fold(0.0f64, |m, o| m.max(o.abs()));
    let plain_error = plain
        .iter()
        .zip(oracle)
        .fold(0.0f64, |m, (p, o)| m.max((p - o).abs()));
    2.0 * plain_error + 2.0 * f64::from(f32::EPSILON) * largest.max(f64::from(f32::MIN_POSITIVE))
}
