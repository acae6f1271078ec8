//! The command line: it parses, prints and chooses exit codes; everything else is the library's.
//!
//! To add a command: its file here, with its arguments and `run`, and its lines in [`Command`] and [`run`].

mod bench;
mod check;
mod completions;
mod config;
mod degrade;
mod demo;
mod diagnose;
mod doctor;
mod evaluate;
mod exit;
mod files;
mod generate;
mod info;
#[cfg(feature = "cuda")]
mod kernels;
mod methods;
mod plan;
mod predict;
mod record;
mod report;
mod repro;
mod restore;
mod run;
mod settings;
mod step;
mod study;
mod train;
mod ui;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::json;

use ui::Ui;

/// Image restoration by diffusion posterior sampling.
#[derive(Debug, Parser)]
#[command(name = "posteriori", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print JSON lines on stdout, each with a `schema`
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing on stderr but errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Say more on stderr
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed outside items; 2 usage or config; \
3 some items failed; 4 no usable device; 5 the plan does not fit; 130 interrupted, what is done is done.";

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Restore(restore::Args),
    Degrade(degrade::Args),
    Generate(generate::Args),
    Info(info::Args),
    Repro(repro::Args),
    Plan(plan::Args),
    Check(check::Args),
    Bench(bench::Args),
    Doctor(doctor::Args),
    #[cfg(feature = "cuda")]
    Kernels(kernels::Args),
    Evaluate(evaluate::Args),
    Verify(verify::Args),
    Train(train::Args),
    Study(study::Args),
    Diagnose(diagnose::Args),
    Completions(completions::Args),
}

/// Runs the command of the process's arguments.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => return ExitCode::from(unparsed(&said)),
    };
    let ui = Ui::new(cli.json, cli.quiet, cli.verbose);
    let code = match run(cli.command, &ui) {
        Ok(code) => code,
        Err(error) => {
            ui.end_bar();
            let text = format!("{error:#}");
            ui.record("error", json!({ "item": null, "error": text }));
            ui.complain(format!("error: {text}"));
            exit::code(&error)
        }
    };
    ExitCode::from(ui.code(code))
}

/// Prints what clap has to say in place of a command: help and the version, or what is wrong with the arguments.
fn unparsed(said: &clap::Error) -> u8 {
    let words = std::env::args_os().skip(1);
    let json = words.take_while(|w| w != "--").any(|w| w == "--json");
    let ui = Ui::new(json, false, false);
    if said.use_stderr() {
        let text = said.render().to_string();
        let (what, _) = text.split_once("\n\nUsage:").unwrap_or((&text, ""));
        let what = what.trim_start_matches("error: ").trim_end();
        ui.record("error", json!({ "item": null, "error": what }));
    }
    match (said.print(), said.use_stderr()) {
        // When stderr is gone there is nobody left to tell.
        (_, true) => exit::USAGE,
        (Ok(()), false) => exit::DONE,
        (Err(e), false) => {
            ui.lose(&e);
            ui.code(exit::DONE)
        }
    }
}

fn run(command: Command, ui: &Ui) -> anyhow::Result<u8> {
    match command {
        Command::Demo(args) => demo::run(args, ui),
        Command::Restore(args) => restore::run(args, ui),
        Command::Degrade(args) => degrade::run(args, ui),
        Command::Generate(args) => generate::run(args, ui),
        Command::Info(args) => info::run(args, ui),
        Command::Repro(args) => repro::run(args, ui),
        Command::Plan(args) => plan::run(args, ui),
        Command::Check(args) => check::run(args, ui),
        Command::Bench(args) => bench::run(args, ui),
        Command::Doctor(args) => doctor::run(args, ui),
        #[cfg(feature = "cuda")]
        Command::Kernels(args) => kernels::run(args, ui),
        Command::Evaluate(args) => evaluate::run(args, ui),
        Command::Verify(args) => verify::run(args, ui),
        Command::Train(args) => train::run(args, ui),
        Command::Study(args) => study::run(args, ui),
        Command::Diagnose(args) => diagnose::run(args, ui),
        Command::Completions(args) => completions::run(args, ui),
    }
}

/// Prints the settings; `--print-config` does this and stops.
fn print_settings(settings: &settings::Settings, ui: &Ui) {
    ui.line(settings.to_toml().trim_end());
    ui.record("settings", json!({ "settings": settings.to_json() }));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_tree_is_sound() {
        super::Cli::command().debug_assert();
    }
}
