//! `restore`: measurements in, restored images out. Reading, computing and writing overlap: a thread reads, one for each
//! device computes, one writes, and this one tells. Images of one size and task are sampled together; a bad one is reported
//! and the others go on.

mod dry;
mod input;
mod output;
mod report;
mod tell;
mod work;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::Value;

use posteriori::batch::NOTES;
use posteriori::batch::claims::Claims;
use posteriori::batch::journal::{Done, Failed, Journal, Line};
use posteriori::batch::shard::Shard;
use posteriori::io::atomic::sweep;
use posteriori::io::image::Format;
use posteriori::pipeline::cancel::Cancel;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::queue::BatchSize;
use posteriori::runtime::kernel::Target;
use posteriori::{Error, rng};

use super::exit::DONE;
use super::files::{self, Entry, Exists};
use super::methods::tasks_and_methods_help;
use super::record;
use super::run::{MOST, Run, Writing, whole};
use super::settings::{Flags, Origin, RESTORE, Settings};
use super::ui::Ui;
pub(super) use input::read_measurement;
use report::{Pair, Report, SHOWN};
use tell::Teller;

/// Restore images
///
/// A measurement file beside an image, as `degrade` writes it, says how it was measured; other images
/// need --task. A run over a folder keeps a journal in OUT/.posteriori: stopped at any moment, the same command goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = tasks_and_methods_help())]
pub(super) struct Args {
    /// An image or a folder of images
    #[arg(short, long, value_name = "PATH")]
    input: PathBuf,
    /// Where the results go: a folder, or a file for a single image
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    #[command(flatten)]
    settings: Flags<RESTORE>,
    /// The part of the folder that this process does, from 0/N; */N takes the index from the scheduler's environment, which
    /// decides alone when this is not given
    #[arg(long, value_name = "I/N", allow_hyphen_values = true)]
    shard: Option<String>,
    /// Share the folder with other processes that come and go: each takes what no other has. One that has not been heard of
    /// for this long has lost what it had
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "120")]
    claim: Option<String>,
    /// Also write OUT/report.html: every image beside its measurement, what failed and why, settings and speed in one page
    /// that needs no other file
    #[arg(long)]
    report: bool,
    /// Print what would be done, its plan, and its time by two measured steps; write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let mut settings = Settings::gather(&args.settings, None)?;
    let run = &Run::read(&mut settings)?;
    let writing = Writing::read(&settings, None)?;
    let samples = settings.need("samples", |t| whole(t, 1..=MOST))? as u32;
    let lease = lease(args.claim.as_deref(), writing.exists)?;
    if lease.is_some() && !args.input.is_dir() {
        let why = "wanted a folder as input: a single image is not shared";
        return Err(Error::argument("--claim", why).into());
    }
    if args.report && !args.input.is_dir() {
        let why = "wanted a folder as input: the page is for many images; `posteriori info` tells of a single one";
        return Err(Error::argument("--report", why).into());
    }
    let env = |name: &str| std::env::var(name).ok();
    let (shard, from) = match (args.input.is_dir(), args.shard.as_deref()) {
        // Whatever scheduler started this: an image is not shared.
        (false, None) => (Shard::WHOLE, String::new()),
        (_, text) => Shard::find(text, &env)?,
    };
    if !shard.is_whole() && !args.input.is_dir() {
        let why = "wanted a folder as input: a single image is in no shard but 0/1";
        return Err(Error::argument("--shard", why).into());
    }
    if args.settings.print {
        super::print_settings(&settings, ui);
        return Ok(DONE);
    }
    let mut entries = files::entries(&args.input, &args.output, writing.recursive, writing.format)?;
    for entry in &entries {
        files::expect_picture(&entry.output, entry.format, writing.format.is_some())?;
    }
    if !shard.is_whole() {
        let all = entries.len();
        entries.retain(|entry| shard.takes(rng::image_key(&entry.name)));
        let mine = entries.len();
        ui.note(format!(
            "shard {shard}, from {from}: {mine} of {all} images"
        ));
    }
    run.warn(ui);
    if args.dry_run {
        let journal = args.output.join(NOTES).join(journal(shard, lease));
        let dry = dry::Dry {
            run,
            writing: &writing,
            samples,
            claimed: lease.is_some(),
            ui,
        };
        let journal = args.input.is_dir().then_some(journal);
        return dry.run(settings, &entries, journal);
    }
    let devices = run.devices()?;
    let [device, ..] = &devices[..] else {
        let why = "wanted at least one, got none";
        return Err(Error::argument("--device", why).into());
    };
    settings.fill("precision", device.precision().to_string(), Origin::Default);
    let cancel = Cancel::new();
    let journal_name = journal(shard, lease);
    let mut teller = Teller::new(ui, &cancel, &writing, run, entries.len() * samples as usize)?;
    if args.report {
        teller = teller.reporting(Report::new(&args.output, &journal_name));
    }
    let begin = |events| {
        let head = record::head(run, &settings, device)?;
        let mut shared = Shared {
            record: record::of_run(run, &head, &settings, writing.seed),
            run,
            seed: writing.seed,
            samples,
            exists: writing.exists,
            unshown: AtomicUsize::new(if args.report { SHOWN } else { 0 }),
            output: &args.output,
            journal: None,
            claims: None,
            cancel: cancel.clone(),
            events,
        };
        let Some(first) = entries.first() else {
            return Ok(shared);
        };
        files::prepare(&args.input, &args.output, first)?;
        if args.input.is_dir() {
            let notes = args.output.join(NOTES);
            files::make_folder(&notes)?;
            let anew = writing.exists == Exists::Overwrite;
            let journal = Journal::open(&notes.join(&journal_name), &head, anew)?;
            if anew && shard.is_whole() {
                journal.alone()?;
            }
            shared.journal = Some(Mutex::new(journal));
            match lease {
                Some(lease) => {
                    shared.claims = Some(Claims::join(&notes.join("claims"), lease)?);
                }
                // Only shards may be at work beside this, and what they write stays.
                None if shard.is_whole() => {
                    let folders = entries.iter().filter_map(|entry| entry.output.parent());
                    BTreeSet::from_iter(folders).into_iter().for_each(sweep);
                    sweep(&notes);
                }
                None => {}
            }
        }
        Ok(shared)
    };
    let claimed = lease.is_some();
    flow(run, &devices, &entries, claimed, &cancel, begin, teller)
}

/// Opens the models, begins, and passes every entry through reading, computing and writing.
fn flow<'a>(
    run: &Run,
    devices: &[Device],
    entries: &[Entry],
    claimed: bool,
    cancel: &Cancel,
    begin: impl FnOnce(Sender<Event>) -> posteriori::Result<Shared<'a>>,
    mut teller: Teller<'_>,
) -> Result<u8> {
    let targets: Vec<Target> = devices.iter().map(|d| d.rt().target()).collect();
    let room = Flow::of(run.batch, &targets, claimed);
    let shared: &OnceLock<Shared<'_>> = &OnceLock::new();
    let (requests, queue) = sync_channel(room.before);
    let queue = Arc::new(Mutex::new(queue));
    let (finished, results) = sync_channel(room.after);
    let (events, told) = channel();
    thread::scope(|scope| {
        let (opened, open) = channel();
        let mut starts = Vec::new();
        for (worker, device) in devices.iter().enumerate() {
            let (start, started) = channel::<()>();
            starts.push(start);
            let (opened, queue, finished) = (opened.clone(), Arc::clone(&queue), finished.clone());
            scope.spawn(move || {
                let pipeline = match run.open_on(device.clone()) {
                    Ok(pipeline) => pipeline.stopped_by(cancel.clone()),
                    Err(e) => return drop(opened.send(Err(e))),
                };
                drop(opened.send(Ok(pipeline.unread().to_vec())));
                drop(opened);
                if let (Ok(()), Some(shared)) = (started.recv(), shared.get()) {
                    work::restore_all(shared, worker, &pipeline, &queue, &finished);
                }
            });
        }
        drop((opened, queue, finished));
        for unread in open {
            teller.unread(&unread?);
        }
        let shared = shared.get_or_init({
            let begun = begin(events)?;
            || begun
        });
        teller.begins(&shared.record);
        for start in starts {
            // A worker that is gone has told why.
            start.send(()).ok();
        }
        scope.spawn(move || output::write_all(shared, &results));
        scope.spawn(move || input::read_all(shared, entries, &requests));
        teller.tell_all(&told)
    })
}

/// How many images a run has in its hands, so that nobody waits for a disk.
#[derive(Clone, Copy)]
struct Flow {
    /// Those that wait for the workers, beside one that is read.
    before: usize,
    workers: usize,
    /// Those that wait behind them, beside one that is written.
    after: usize,
}

impl Flow {
    /// That of batches of this size, by workers on these kinds of devices. What is claimed is kept from other processes, so that only
    /// as many wait as a batch has, with the one that is read.
    fn of(batch: BatchSize, targets: &[Target], claimed: bool) -> Self {
        let most = targets.iter().map(|target| batch.most_on(*target));
        let most = most.max().unwrap_or(1);
        Flow {
            before: if claimed { most - 1 } else { 2 * most },
            workers: targets.len(),
            after: 2 * most,
        }
    }
}

/// What the threads of a run have in common.
struct Shared<'a> {
    run: &'a Run,
    seed: u64,
    samples: u32,
    exists: Exists,
    /// How many more pictures the page shows, if there is one.
    unshown: AtomicUsize,
    output: &'a Path,
    /// What the record of every picture begins with.
    record: Value,
    /// Of runs over a folder.
    journal: Option<Mutex<Journal>>,
    claims: Option<Claims>,
    /// Used when nothing more is to be begun.
    cancel: Cancel,
    events: Sender<Event>,
}

/// One restoration on its way.
#[derive(Clone, Debug)]
struct Ticket {
    /// The input's, below the input folder.
    name: String,
    input: PathBuf,
    output: PathBuf,
    format: Format,
    sample: u32,
}

/// What the threads tell.
enum Event {
    /// The first batch of its kind begins.
    Plan { text: String, fields: Value },
    /// A worker's batch has come so many steps, over its images.
    Step {
        worker: usize,
        steps: usize,
        loss: Option<f64>,
        fields: Value,
    },
    /// The output is there already; and what the journal knows and a page shows of it.
    Skipped(Ticket, Option<(Done, Option<Pair>)>),
    /// Another process has claimed it.
    Elsewhere,
    /// Written; and what a page shows of it.
    Done(Ticket, Done, Option<Pair>),
    /// An item failed.
    Failed { name: String, why: String },
    /// Nothing more can be done.
    Fatal(Arc<Error>),
    /// A worker has no more to do, and computed for so long.
    Left { busy: Duration },
    /// Everything is written.
    Over,
}

impl Shared<'_> {
    fn tell(&self, event: Event) {
        // Nobody listens after the end.
        drop(self.events.send(event));
    }

    fn is_over(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Whether the page shows one more picture, which has its place then.
    fn shows(&self) -> bool {
        let less = |unshown: usize| unshown.checked_sub(1);
        let order = Ordering::Relaxed;
        self.unshown.fetch_update(order, order, less).is_ok()
    }

    /// Ends the run: what is being written is still written.
    fn end(&self, error: impl Into<Arc<Error>>) {
        self.cancel.cancel();
        let error = error.into();
        if !matches!(*error, Error::Cancelled) {
            self.tell(Event::Fatal(error));
        }
    }

    /// Writes a line into the journal, where there is one.
    fn note(&self, line: &Line) -> posteriori::Result<()> {
        match &self.journal {
            Some(journal) => lock(journal).add(line),
            None => Ok(()),
        }
    }

    /// An item failed, for the journal and for people.
    fn fail(&self, item: &str, sample: Option<u32>, error: &Error) {
        let failed = Failed {
            item: item.to_owned(),
            sample,
            error: error.to_string(),
        };
        self.tell(Event::Failed {
            name: item.to_owned(),
            why: failed.error.clone(),
        });
        if let Err(e) = self.note(&Line::Error(failed)) {
            self.end(e);
        }
    }

    /// Notes an output that a killed run wrote last, so that the journal knows all of its own.
    fn adopt(&self, ticket: &Ticket) -> posteriori::Result<()> {
        let Ticket {
            name,
            sample,
            output,
            ..
        } = ticket;
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        // Among claims it may be another's, who notes it.
        if self.claims.is_some() {
            return Ok(());
        }
        if lock(journal).done(name, *sample).is_some() {
            return Ok(());
        }
        // Another's picture, or one of a format without a record: skipped all the same.
        let Ok(record) = record::of_file(output) else {
            return Ok(());
        };
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        let mut ours = self.record.as_object().into_iter().flatten();
        let (Some(residual), true) = (
            record["residual"].as_f64(),
            ours.all(|(key, value)| record[key] == *value),
        ) else {
            return Ok(());
        };
        lock(journal).add(&Line::Item(Done {
            item: name.clone(),
            sample: *sample,
            output: self.below_the_output(output),
            task: text("task"),
            residual,
            verdict: text("verdict"),
            seconds: 0.0,
        }))
    }

    /// What the journal says of a restoration that is done.
    fn noted(&self, ticket: &Ticket) -> Option<Done> {
        let journal = lock(self.journal.as_ref()?);
        journal.done(&ticket.name, ticket.sample).cloned()
    }

    fn release(&self, ticket: &Ticket) {
        if let Some(claims) = &self.claims {
            claims.release(&ticket.claim());
        }
    }

    fn below_the_output(&self, path: &Path) -> String {
        files::slashed(path.strip_prefix(self.output).unwrap_or(path))
    }
}

impl Ticket {
    /// The name of its claim.
    fn claim(&self) -> String {
        format!("{:016x}-{}", rng::image_key(&self.name), self.sample)
    }
}

/// The name of this process's journal: no two processes write one.
fn journal(shard: Shard, lease: Option<Duration>) -> String {
    match (lease, shard.is_whole()) {
        (None, true) => "journal.jsonl".into(),
        (None, false) => format!("journal-{}.jsonl", shard.name()),
        (Some(_), _) => {
            // Machines that share a folder may have neither a name nor process numbers of their own.
            let host = std::env::var("HOSTNAME").unwrap_or_default();
            let began = SystemTime::now().duration_since(UNIX_EPOCH);
            let began = began.map_or(0, |since| since.as_nanos());
            let key = rng::image_key(&format!("{host} {} {began}", std::process::id()));
            format!("journal-{key:016x}.jsonl")
        }
    }
}

/// The lease of claims.
fn lease(text: Option<&str>, exists: Exists) -> posteriori::Result<Option<Duration>> {
    let Some(text) = text else {
        return Ok(None);
    };
    if exists != Exists::Skip {
        let why = "wanted --exists skip: what others have finished is known by its output";
        return Err(Error::argument("--claim", why));
    }
    match whole(text, 1..=86_400) {
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
        Err(_) => {
            let why = format!("wanted a lease of 1 to 86400 seconds, got `{text}`");
            Err(Error::argument("--claim", why))
        }
    }
}

fn lock(journal: &Mutex<Journal>) -> std::sync::MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}
