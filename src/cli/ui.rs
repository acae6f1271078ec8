//! What is printed, and where: data on stdout, words for people and the progress bar on stderr.
//! With `--json`, stdout carries one JSON object a line, each with a `schema`.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

/// The two streams and how much goes to them.
pub(crate) struct Ui {
    pub(crate) json: bool,
    quiet: bool,
    verbose: bool,
    /// Stdout takes no more. The work goes on: the files are still wanted.
    closed: Cell<bool>,
    /// And not because its reader has left: what it was to say is lost.
    lost: Cell<bool>,
    bar: RefCell<Option<ProgressBar>>,
}

impl Ui {
    pub(crate) fn new(json: bool, quiet: bool, verbose: bool) -> Self {
        Ui {
            json,
            quiet,
            verbose,
            closed: Cell::new(false),
            lost: Cell::new(false),
            bar: RefCell::new(None),
        }
    }

    /// A line of data for people's eyes or other programs; with `--json` there are only records.
    pub(crate) fn line(&self, text: impl Display) {
        if !self.json {
            self.write(&format!("{text}\n"));
        }
    }

    /// A JSON line: `fields` with its schema. Without `--json` there is none.
    pub(crate) fn record(&self, schema: &str, fields: Value) {
        if self.json {
            let mut record = json!({ "schema": schema });
            if let (Value::Object(record), Value::Object(fields)) = (&mut record, fields) {
                record.extend(fields);
            }
            self.write(&format!("{record}\n"));
        }
    }

    /// Data as it is, `--json` or not.
    pub(crate) fn write(&self, text: &str) {
        if self.closed.get() {
            return;
        }
        let written = self.beside_the_bar(|| {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        });
        if let Err(e) = written {
            self.lose(&e);
        }
    }

    /// Stdout could not be written; not an error when its reader has left.
    pub(crate) fn lose(&self, e: &io::Error) {
        self.closed.set(true);
        if e.kind() != io::ErrorKind::BrokenPipe {
            self.lost.set(true);
            self.complain(format!("error: stdout cannot be written: {e}"));
        }
    }

    /// The exit code of what ended with `code`: not that of success when stdout could not be written.
    pub(crate) fn code(&self, code: u8) -> u8 {
        match (code, self.lost.get()) {
            (super::exit::DONE, true) => super::exit::FAILED,
            _ => code,
        }
    }

    /// Something a person may want to know; not with `-q`.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            self.complain(text);
        }
    }

    /// Something only a curious person wants to know: with `-v`.
    pub(crate) fn detail(&self, text: impl Display) {
        if self.verbose {
            self.complain(text);
        }
    }

    /// Something a person must know.
    pub(crate) fn complain(&self, text: impl Display) {
        // When stderr is gone there is nobody left to tell.
        self.beside_the_bar(|| drop(writeln!(io::stderr(), "{text}")));
    }

    /// Starts a bar of this length on stderr; none with `--json`, `-q`, or when stderr is no terminal.
    pub(crate) fn start_bar(&self, length: u64) {
        if self.json || self.quiet {
            return;
        }
        // A target that is no terminal draws nothing.
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        let template = "{elapsed_precise} [{bar:30}] {percent}% {msg} (eta {eta})";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        *self.bar.borrow_mut() = Some(bar);
    }

    /// Moves the bar.
    pub(crate) fn advance(&self, position: u64, text: impl Display) {
        if let Some(bar) = &*self.bar.borrow() {
            bar.set_position(position);
            bar.set_message(text.to_string());
        }
    }

    /// Takes the bar away.
    pub(crate) fn end_bar(&self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }

    fn beside_the_bar<R>(&self, print: impl FnOnce() -> R) -> R {
        match &*self.bar.borrow() {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

/// A number with so many decimal places; one beyond all measure by its exponent, not by hundreds of digits.
pub(crate) fn number(value: f64, places: usize) -> String {
    match value.is_finite() && value.abs() >= 1e15 {
        true => format!("{value:.places$e}"),
        false => format!("{value:.places$}"),
    }
}

/// Counts of items, for the last line and the exit code.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) done: usize,
    pub(crate) skipped: usize,
    pub(crate) failed: usize,
}

impl Tally {
    /// An item failed.
    pub(crate) fn fail(&mut self, ui: &Ui, item: &str, error: &dyn Display) {
        self.failed += 1;
        ui.record("error", json!({ "item": item, "error": error.to_string() }));
        ui.complain(format!("failed: {item}: {error}"));
    }

    /// An item was there already.
    pub(crate) fn skip(&mut self, ui: &Ui, item: &str, output: &str) {
        self.skipped += 1;
        ui.record(
            "item",
            json!({ "item": item, "output": output, "verdict": "skipped" }),
        );
        ui.note(format!(
            "skipped: {output} exists; --exists overwrite replaces it"
        ));
    }

    /// The last line, and the exit code.
    pub(crate) fn finish(self, ui: &Ui) -> u8 {
        self.finish_with(ui, json!({}))
    }

    /// The same, with more fields in the summary.
    pub(crate) fn finish_with(self, ui: &Ui, more: Value) -> u8 {
        let Tally {
            done,
            skipped,
            failed,
        } = self;
        ui.end_bar();
        let mut fields = json!({ "done": done, "skipped": skipped, "failed": failed });
        if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
            fields.extend(more);
        }
        ui.record("summary", fields);
        ui.note(format!("{done} done, {skipped} skipped, {failed} failed"));
        if failed > 0 {
            super::exit::ITEMS
        } else {
            super::exit::DONE
        }
    }
}
