//! `diagnose`: the paper's diagnostics of samplers.

mod model;
mod toy;

use std::path::Path;

use anyhow::Result;

use posteriori::io::atomic::{failed, write_atomic};
use posteriori::{Error, Result as Fallible};

use super::exit::DONE;
use super::ui::Ui;

/// What samplers do where the truth is known, what guidance makes of the score, how much restorations differ
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Toy(toy::Args),
    ScoreError(model::ScoreError),
    ScoreMean(model::ScoreMean),
    Diversity(model::Diversity),
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    match args.what {
        What::Toy(args) => toy::run(&args, ui)?,
        What::ScoreError(args) => model::score_error(&args, ui)?,
        What::ScoreMean(args) => model::score_mean(&args, ui)?,
        What::Diversity(args) => model::diversity(&args, ui)?,
    }
    Ok(DONE)
}

fn make(output: &Path) -> Fallible<()> {
    let made = std::fs::create_dir_all(output);
    made.map_err(|e| Error::file(output, format!("the output folder cannot be made: {e}")))
}

fn write(path: &Path, text: &str) -> Fallible<()> {
    write_atomic(path, |w| w.write_all(text.as_bytes()).map_err(failed(path)))
}
