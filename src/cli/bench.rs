//! `bench`: every variant of every op, verified, then timed; with a model, every launch of a sampling step.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value, json};

use posteriori::io::csv;
use posteriori::ops::ALL;
use posteriori::ops::bench::{
    Bench, Ceiling, EMULATED_WORK, Measured, TEXTBOOK_WORK, affordable, cases, ceiling, is_emulated,
};
use posteriori::ops::case::AnyCase;
use posteriori::ops::check::dtypes;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::plan::Engine;
use posteriori::runtime::Runtime;
use posteriori::runtime::native::Products;
use posteriori::{Cx, DType, Error};

use super::exit::{DONE, FAILED};
use super::methods::tasks_and_methods_help;
use super::plan::Subject;
use super::run::{forced, precision};
use super::settings::{Flags, PLAN, Settings};
use super::ui::Ui;
use super::{check, doctor, files, predict, step};

/// Verify every kernel variant, then time it
///
/// A row is one variant of one case: its median time, its rates, the larger of their shares of the ceilings measured
/// in the same run, its time over the best variant's, its error and how much of the bound that is; `*` is the
/// variant that a model takes. With --model the cases are the launches of one sampling step of a job, whose
/// settings are those of `plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = tasks_and_methods_help())]
pub(super) struct Args {
    /// Only ops whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    op: String,
    /// Only variants whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// On this runtime: native, emu, cuda, cuda:N; by default the first GPU that can be used, else native
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
    /// Also write every row here
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// The size of the restored image; by default the model's own
    #[arg(long, value_name = "HxW")]
    size: Option<String>,
    /// Measure nothing: with --model, say what a sampling step would take on an H200 by its counts, for these batches
    #[arg(long, value_name = "B,B,..", num_args = 0..=1, require_equals = true, default_missing_value = "1,4,8,16",
          conflicts_with_all = ["op", "only", "csv", "runtime"])]
    predict: Option<String>,
    /// Time whole sampling steps of a model, as a restoration runs them, for these batches
    #[arg(long, value_name = "B,B,..", num_args = 0..=1, require_equals = true, default_missing_value = "1,4,8,16",
          conflicts_with_all = ["predict", "op", "only", "csv"])]
    step: Option<String>,
    #[command(flatten)]
    settings: Flags<PLAN>,
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let mut settings = Settings::gather(&args.settings, None)?;
    let whole = args.predict.is_some() || args.step.is_some();
    let subject = match whole || settings.text("model").is_some() {
        true => Some(Subject::read(&mut settings, ui)?),
        false => {
            expect_model(&settings, args.size.is_some())?;
            None
        }
    };
    let ops = check::chosen(&args.op)?;
    let forced = settings.read("variant", forced)?.unwrap_or_default();
    let given = settings.read("precision", precision)?;
    if args.settings.print {
        super::print_settings(&settings, ui);
        return Ok(DONE);
    }
    if let (Some(batches), Some(subject)) = (&args.predict, &subject) {
        return predict::run(subject, batches, args.size.as_deref(), ui);
    }
    let device = match &args.runtime {
        Some(name) => check::device(name)?,
        None => Device::auto()?,
    };
    // On processors bf16 is what a model's products are of, and no type of the ops' own cases.
    let (device, own) = match (given, &subject) {
        (Some(dtype), Some(_)) => (device.with_precision(dtype.name())?, None),
        (given, _) => (device, given),
    };
    if let (Some(batches), Some(subject)) = (&args.step, &subject) {
        return step::run(subject, batches, args.size.as_deref(), device, ui);
    }
    let rt = device.rt();
    check::expect_variant("--only", &args.only, &ops, std::slice::from_ref(rt))?;
    let engine = Engine::of(rt, own.unwrap_or(device.dtype()), forced);
    if let Some(path) = &args.csv {
        files::prepare_file(path)?;
    }
    let cx = engine.cx(rt.clone())?;
    let mut walk = match &subject {
        Some(subject) => cases(&subject.plan(&engine, args.size.as_deref())?.launches),
        None => of_tables(rt, own.map_or_else(|| dtypes(rt), |dtype| vec![dtype])),
    };
    walk.retain(|(case, _)| ops.iter().any(|op| op.name() == case.op().name()));
    let mut report = Report {
        ui,
        cx,
        device: name(rt),
        ceilings: ceilings(&walk, rt)?,
        rows: Vec::new(),
        sums: BTreeMap::new(),
        passed: 0,
        failed: 0,
    };
    report.start();
    for (case, count) in &walk {
        report.measure(&**case, *count, &args.only)?;
    }
    report.finish(subject.is_some());
    if let Some(path) = &args.csv {
        csv::write(path, COLUMNS, &report.rows)?;
    }
    Ok(if report.failed == 0 { DONE } else { FAILED })
}

/// Refuses what says of a job what only a model's has.
fn expect_model(settings: &Settings, size: bool) -> posteriori::Result<()> {
    let why = "is of a model's job; without --model the cases are the ops' own";
    if size {
        return Err(Error::argument("--size", why));
    }
    let used = ["precision", "variant"];
    let unused = settings.given().find(|key| !used.contains(key));
    unused.map_or(Ok(()), |key| Err(settings.refuse(key, why.into())))
}

/// Cases, and how often each is launched.
type Walk = Vec<(Box<dyn AnyCase>, u64)>;

/// The cases of the ops' own tables that this runtime takes, in these types.
fn of_tables(rt: &Runtime, types: Vec<DType>) -> Walk {
    let cases = ALL.iter().flat_map(|op| op.cases());
    let typed = cases.flat_map(|case| {
        let cases = types.iter().map(|dtype| case.with_dtype(*dtype));
        cases.collect::<Vec<_>>()
    });
    let taken = typed.filter(|case| !case.variants(rt.target()).is_empty());
    taken.map(|case| (case, 1)).collect()
}

/// What a runtime runs on.
fn name(rt: &Runtime) -> String {
    match rt {
        #[cfg(feature = "cuda")]
        Runtime::Cuda(cuda) => cuda.gpu().name.clone(),
        _ if is_emulated(rt) => format!("emulator on {}", doctor::processor()),
        _ => doctor::processor(),
    }
}

/// The ceilings of every type that occurs; none on an emulator.
fn ceilings(walk: &Walk, rt: &Runtime) -> Result<Vec<(DType, Ceiling)>> {
    let mut all: Vec<(DType, Ceiling)> = Vec::new();
    for (case, _) in walk {
        let dtype = case.dtype();
        if !is_emulated(rt) && all.iter().all(|(known, _)| *known != dtype) {
            all.push((dtype, ceiling(rt, dtype)?));
        }
    }
    Ok(all)
}

/// What is told of every row, in this order.
static COLUMNS: &[&str] = &[
    "runtime",
    "device",
    "op",
    "key",
    "dtype",
    "count",
    "variant",
    "us_median",
    "us_min",
    "repeats",
    "tflops",
    "gbps",
    "ceiling_tflops",
    "ceiling_gbps",
    "share",
    "over_best",
    "error",
    "bound",
    "reference",
    "pick",
];

/// What the results of rounded operands may be off, of the largest: the two units that the rule of `check` allows a result in bf16 beside
/// what its rounding takes.
const ROUNDED: f64 = 2.0 / 128.0;

/// The launches of one op in a step, timed.
#[derive(Default)]
struct Sum {
    launches: u64,
    /// Of those, not timed.
    missing: u64,
    /// Seconds, with the fastest variant of each case.
    best: f64,
    /// Seconds, with the variant that a model takes.
    pick: f64,
}

struct Report<'a> {
    ui: &'a Ui,
    cx: Cx,
    device: String,
    ceilings: Vec<(DType, Ceiling)>,
    rows: Vec<Vec<String>>,
    sums: BTreeMap<&'static str, Sum>,
    passed: usize,
    failed: usize,
}

impl Report<'_> {
    fn start(&self) {
        self.ui
            .line(format!("on {}: {}", self.cx.rt().name(), self.device));
        if is_emulated(self.cx.rt()) {
            let most = EMULATED_WORK / 1_000_000_000;
            self.ui.line(format!(
                "emulated: not a GPU time; nothing beyond {most} G operations or bytes is run"
            ));
        }
        let most = TEXTBOOK_WORK / 1_000_000_000;
        self.ui.line(format!(
            "error: against the textbook loops in f64; ~, beyond {most} G operations or bytes: against another \
             native variant in f64"
        ));
        for (dtype, ceiling) in &self.ceilings {
            let (tflops, gbps) = (ceiling.flops.map(tera), ceiling.bytes.map(giga));
            let (dtype, flops, bytes) = (dtype.name(), cell(tflops, 3), cell(gbps, 1));
            self.ui.line(format!(
                "ceiling in {dtype}: {flops} TFLOP/s (linear), {bytes} GB/s (add)"
            ));
        }
        self.ui.line(format!(
            "{:<20} {:<12} {:<5} {:>5} {:>12} {:>3} {:>8} {:>8} {:>6} {:>6} {:>8} {:>6}   case",
            "op",
            "variant",
            "type",
            "count",
            "us",
            "of",
            "TFLOP/s",
            "GB/s",
            "share",
            "/best",
            "error",
            "bound"
        ));
    }

    /// Measures the variants of one case.
    fn measure(&mut self, case: &dyn AnyCase, count: u64, only: &str) -> Result<()> {
        let mut variants = affordable(case, self.cx.rt());
        let rounded = self.is_rounded(case);
        variants.retain(|name| name.contains(only));
        let sum = self.sums.entry(case.op().name()).or_default();
        sum.launches += count;
        sum.missing += count;
        if variants.is_empty() {
            self.skip(case, count);
            return Ok(());
        }
        let bench = Bench::new(case, &self.cx)?;
        let measured = variants.into_iter().map(|v| bench.measure(v));
        let mut measured = measured.collect::<posteriori::Result<Vec<_>>>()?;
        if rounded {
            for Measured { row, .. } in &mut measured {
                row.used = row.error / ROUNDED;
            }
        }
        let pick = case.pick(&self.cx)?;
        let passed = measured.iter().filter(|m| m.row.passed());
        let best = passed.map(|m| m.timing.median).min();
        let picked = measured.iter().find(|m| m.row.variant == pick);
        if let (Some(best), Some(picked)) = (best, picked) {
            let times = count as f64;
            sum.missing -= count;
            sum.best += times * best.as_secs_f64();
            sum.pick += times * picked.timing.median.as_secs_f64();
        }
        let reference = bench.reference();
        for m in &measured {
            let fields = self.fields(case, count, m, best, [reference, pick]);
            self.tell(case, m, &fields);
        }
        Ok(())
    }

    /// Whether a processor rounds the operands of a case to bf16, whose results are f32 all the same.
    fn is_rounded(&self, case: &dyn AnyCase) -> bool {
        let op = case.op().name();
        let multiplies = ["attention.", "conv2d.", "linear."];
        self.cx.rt().products() == Products::Bf16 && multiplies.iter().any(|of| op.starts_with(of))
    }

    /// A case that no variant takes, or that is too large for the emulator.
    fn skip(&self, case: &dyn AnyCase, count: u64) {
        let why = match case.variants(self.cx.rt().target()).is_empty() {
            true => "no variant",
            false => "not run",
        };
        let (op, key, dtype) = (case.op().name(), case.key(), case.dtype().name());
        self.ui.line(format!(
            "{op:<20} {why:<12} {dtype:<5} {count:>5} {:>66}   {key}",
            ""
        ));
        self.ui.record(
            "item",
            json!({ "op": op, "key": key, "dtype": dtype, "count": count, "verdict": why }),
        );
    }

    /// A row's values by [`COLUMNS`].
    fn fields(
        &self,
        case: &dyn AnyCase,
        count: u64,
        Measured { row, timing }: &Measured,
        best: Option<Duration>,
        [reference, pick]: [&str; 2],
    ) -> Map<String, Value> {
        let (median, cost) = (timing.median.as_secs_f64(), case.cost());
        let speed = !is_emulated(self.cx.rt());
        let rate = |work: u64| speed.then(|| work as f64 / median);
        let (flops, bytes) = (rate(cost.flops), rate(cost.bytes));
        let ceiling = self.ceilings.iter().find(|(d, _)| *d == case.dtype());
        let ceiling = |of: fn(&Ceiling) -> Option<f64>| ceiling.and_then(|(_, c)| of(c));
        let (most_flops, most_bytes) = (ceiling(|c| c.flops), ceiling(|c| c.bytes));
        let part = |rate: Option<f64>, most: Option<f64>| Some(rate? / most?);
        let share = part(flops, most_flops)
            .into_iter()
            .chain(part(bytes, most_bytes))
            .reduce(f64::max);
        let values = [
            json!(self.cx.rt().name()),
            json!(self.device),
            json!(row.op),
            json!(row.case),
            json!(row.dtype.name()),
            json!(count),
            json!(row.variant),
            json!(micro(timing.median)),
            json!(micro(timing.least)),
            json!(timing.repeats),
            json!(flops.map(tera)),
            json!(bytes.map(giga)),
            json!(most_flops.map(tera)),
            json!(most_bytes.map(giga)),
            json!(share),
            json!(best.map(|best| timing.median.div_duration_f64(best))),
            json!(row.error),
            json!(row.used),
            json!(reference),
            json!(row.variant == pick),
        ];
        let names = COLUMNS.iter().map(|name| (*name).to_owned());
        names.zip(values).collect()
    }

    fn tell(
        &mut self,
        case: &dyn AnyCase,
        Measured { row, timing }: &Measured,
        fields: &Map<String, Value>,
    ) {
        let number = |key: &str, digits| cell(fields[key].as_f64(), digits);
        let share = fields["share"].as_f64().map(|share| 100.0 * share);
        let mark = |yes: bool, mark| if yes { mark } else { " " };
        let textbook = case.op().variants().pop().unwrap_or_default();
        let other = mark(fields["reference"] != textbook, "~");
        let pick = mark(fields["pick"] == true, "*");
        self.ui.line(format!(
            "{:<20} {:<12} {:<5} {:>5} {:>12} {:>3} {:>8} {:>8} {:>6} {:>6} {other}{:>7.1e} {:>6} {pick} {}",
            row.op,
            row.variant,
            row.dtype.name(),
            number("count", 0),
            number("us_median", 2),
            timing.repeats,
            number("tflops", 4),
            number("gbps", 2),
            percent(share),
            number("over_best", 2),
            row.error,
            percent(Some(100.0 * row.used)),
            case.key(),
        ));
        let verdict = match row.passed() {
            true => "ok",
            false => "failed",
        };
        if row.passed() {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.ui.line(format!("    FAILED: {}", row.worst));
        }
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        self.rows
            .push(COLUMNS.iter().map(|name| text(&fields[*name])).collect());
        let mut record = fields.clone();
        record.insert("verdict".into(), json!(verdict));
        self.ui.record("item", Value::Object(record));
    }

    /// The sums of a step, and the verdicts.
    fn finish(&self, is_a_step: bool) {
        let predicts = is_a_step && !is_emulated(self.cx.rt());
        let mut all = Sum::default();
        for sum in self.sums.values() {
            all.launches += sum.launches;
            all.missing += sum.missing;
            all.best += sum.best;
            all.pick += sum.pick;
        }
        if predicts {
            self.predict(&all);
        }
        let (passed, failed, name) = (self.passed, self.failed, self.cx.rt().name());
        self.ui.line(format!(
            "{passed} passed, {failed} failed; runtimes exercised: {name}"
        ));
        let of = |sum: &Sum| {
            let time = |seconds: f64| predicts.then_some(1e3 * seconds);
            json!({
                "launches": sum.launches, "missing": sum.missing,
                "best_ms": time(sum.best), "pick_ms": time(sum.pick),
            })
        };
        let ops: BTreeMap<&str, Value> = self.sums.iter().map(|(op, sum)| (*op, of(sum))).collect();
        self.ui.record(
            "summary",
            json!({
                "passed": passed, "failed": failed, "runtimes": [name],
                "step": of(&all), "ops": ops,
            }),
        );
    }

    fn predict(&self, all: &Sum) {
        self.ui.line(format!(
            "\n{:<22}{:>9}{:>14}{:>14}",
            "op, one step", "launches", "best, ms", "taken, ms"
        ));
        let line = |name: &str, sum: &Sum| {
            let (best, pick) = (1e3 * sum.best, 1e3 * sum.pick);
            let launches = sum.launches;
            self.ui
                .line(format!("{name:<22}{launches:>9}{best:>14.3}{pick:>14.3}"));
        };
        for (op, sum) in &self.sums {
            line(op, sum);
        }
        line("predicted step", all);
        if all.missing > 0 {
            let text = format!("{} launches that were not timed", all.missing);
            self.ui.line(format!("the step is without {text}"));
        }
    }
}

fn tera(rate: f64) -> f64 {
    rate / 1e12
}

fn giga(rate: f64) -> f64 {
    rate / 1e9
}

fn micro(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

/// A number, or a dash.
fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".into(), |v| format!("{v:.digits$}"))
}

fn percent(value: Option<f64>) -> String {
    value.map_or("-".into(), |v| format!("{v:.0}%"))
}
