//! What a person and other programs are told of a run, by the thread that waits for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use posteriori::Error;
use posteriori::batch::journal::Done;
use posteriori::pipeline::cancel::Cancel;

use super::Event;
use super::report::{End, Report};
use crate::cli::exit::INTERRUPTED;
use crate::cli::run::{Run, Writing};
use crate::cli::ui::{Tally, Ui, number};

/// Counts, and the bar.
pub(super) struct Teller<'a> {
    ui: &'a Ui,
    cancel: Cancel,
    /// Whether the first failure ends the run.
    stop: bool,
    steps: usize,
    tally: Tally,
    elsewhere: usize,
    /// For each worker, how far its batch is.
    under_way: Vec<usize>,
    begun: Instant,
    busy: Duration,
    left: usize,
    interrupted: Arc<AtomicBool>,
    report: Option<Report>,
}

impl<'a> Teller<'a> {
    /// Starts the bar of so many restorations, and listens to Ctrl-C and to the signal that asks a program to end: the first
    /// ends the run after the steps that are being computed, another ends the program at once.
    pub(super) fn new(
        ui: &'a Ui,
        cancel: &Cancel,
        writing: &Writing,
        run: &Run,
        restorations: usize,
    ) -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let (seen, cancel) = (Arc::clone(&interrupted), cancel.clone());
        let on_signal = {
            let cancel = cancel.clone();
            move || {
                if seen.swap(true, Ordering::Relaxed) {
                    std::process::exit(i32::from(INTERRUPTED));
                }
                cancel.cancel();
            }
        };
        ctrlc::set_handler(on_signal)?;
        ui.start_bar((restorations * run.steps()) as u64);
        Ok(Teller {
            ui,
            cancel,
            stop: writing.stop,
            steps: run.steps(),
            tally: Tally::default(),
            elsewhere: 0,
            under_way: Vec::new(),
            begun: Instant::now(),
            busy: Duration::ZERO,
            left: 0,
            interrupted,
            report: None,
        })
    }

    /// The same, which also fills this page.
    pub(super) fn reporting(self, report: Report) -> Self {
        Teller {
            report: Some(report),
            ..self
        }
    }

    /// The run begins: its pictures' records begin like this.
    pub(super) fn begins(&mut self, record: &Value) {
        if let Some(report) = &mut self.report {
            report.begins(record);
        }
    }

    /// Tensors that no model asked for.
    pub(super) fn unread(&self, names: &[String]) {
        for name in names {
            self.ui.detail(format!("not used: {name}"));
        }
    }

    /// Tells everything until the end, and that; the exit code.
    pub(super) fn tell_all(mut self, events: &Receiver<Event>) -> Result<u8> {
        let mut fatal: Option<Arc<Error>> = None;
        for event in events {
            match event {
                Event::Plan { text, fields } => {
                    self.ui.record("plan", fields);
                    self.ui.detail(text);
                }
                Event::Step {
                    worker,
                    steps,
                    loss,
                    fields,
                } => {
                    if self.under_way.len() <= worker {
                        self.under_way.resize(worker + 1, 0);
                    }
                    self.under_way[worker] = steps;
                    self.ui.record("progress", fields);
                    self.advance(loss);
                }
                Event::Skipped(ticket, known) => {
                    let output = ticket.output.display().to_string();
                    self.tally.skip(self.ui, &ticket.name, &output);
                    if let Some((done, pair)) = known {
                        self.add(&mut fatal, |report| report.earlier(&done, pair));
                    }
                }
                Event::Elsewhere => self.elsewhere += 1,
                Event::Done(ticket, done, pair) => {
                    // The batch that it is of counts by its images now.
                    for steps in &mut self.under_way {
                        *steps = 0;
                    }
                    self.done(&ticket.output.display().to_string(), &done);
                    self.add(&mut fatal, |report| report.done(&done, pair));
                    self.advance(None);
                }
                Event::Failed { name, why } => {
                    self.tally.fail(self.ui, &name, &why);
                    self.add(&mut fatal, |report| report.failed(&name, &why));
                    if self.stop {
                        self.cancel.cancel();
                    }
                }
                Event::Fatal(error) => {
                    fatal.get_or_insert(error);
                }
                Event::Left { busy } => {
                    self.busy += busy;
                    self.left += 1;
                }
                Event::Over => break,
            }
        }
        self.finish(fatal)
    }

    /// Adds to the page. If it cannot be written, the run ends before it does more that the page does not tell.
    fn add(
        &mut self,
        fatal: &mut Option<Arc<Error>>,
        add: impl FnOnce(&mut Report) -> posteriori::Result<()>,
    ) {
        if let Err(e) = self.report.as_mut().map_or(Ok(()), add) {
            self.report = None;
            self.cancel.cancel();
            fatal.get_or_insert(Arc::new(e));
        }
    }

    fn done(&mut self, output: &str, done: &Done) {
        self.tally.done += 1;
        let Done {
            item,
            sample,
            task,
            residual,
            verdict,
            seconds,
            ..
        } = done;
        let shown = number(*residual, 4);
        self.ui
            .line(format!("{item} -> {output}  residual {shown}  {verdict}"));
        self.ui.record(
            "item",
            json!({
                "item": item, "sample": sample, "output": output, "task": task,
                "residual": residual, "verdict": verdict, "seconds": seconds,
            }),
        );
    }

    fn advance(&self, loss: Option<f64>) {
        let Tally {
            done,
            skipped,
            failed,
        } = self.tally;
        let behind = (done + skipped + failed) * self.steps;
        let at = behind + self.under_way.iter().sum::<usize>();
        let mut text = match loss {
            Some(loss) => format!("loss {loss:.3}"),
            None => String::new(),
        };
        if done > 0 {
            text += &format!("  {:.0} images/h", self.per_hour());
        }
        self.ui.advance(at as u64, text);
    }

    fn per_hour(&self) -> f64 {
        self.tally.done as f64 / self.begun.elapsed().as_secs_f64() * 3600.0
    }

    fn finish(mut self, fatal: Option<Arc<Error>>) -> Result<u8> {
        let interrupted = self.interrupted.load(Ordering::Relaxed);
        let wall = self.begun.elapsed().as_secs_f64();
        let busy = self.busy.as_secs_f64() / (wall * self.left.max(1) as f64);
        let per_hour = self.per_hour();
        if let Some(report) = self.report.take() {
            let how = match &fatal {
                Some(error) => format!("by an error: {error}"),
                None if interrupted => "interrupted; the same command goes on".into(),
                None => "done".into(),
            };
            report.write(&End {
                tally: self.tally,
                elsewhere: self.elsewhere,
                how,
                wall,
                busy,
                per_hour,
            })?;
        }
        if let Some(error) = fatal {
            return Err(error.into());
        }
        if self.elsewhere > 0 {
            let elsewhere = self.elsewhere;
            self.ui.note(format!(
                "{elsewhere} in the hands of other processes; run this again to see them done"
            ));
        }
        let extra = json!({
            "elsewhere": self.elsewhere, "seconds": wall, "busy": busy, "images_per_hour": per_hour,
        });
        if self.tally.done > 0 {
            self.ui.detail(format!(
                "{wall:.1} s, {per_hour:.0} images/h, computing {:.1} % of the time",
                100.0 * busy
            ));
        }
        let code = self.tally.finish_with(self.ui, extra);
        if interrupted {
            let why = "interrupted: what is done is done, and the same command goes on";
            self.ui.complain(why);
            return Ok(INTERRUPTED);
        }
        Ok(code)
    }
}
