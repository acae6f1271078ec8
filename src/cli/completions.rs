//! `completions`: a script that teaches a shell the commands and flags.

use clap::CommandFactory;
use clap_complete::Shell;

use super::exit::DONE;
use super::ui::Ui;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    shell: Shell,
}

pub(super) fn run(args: Args, ui: &Ui) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    let mut command = super::Cli::command();
    clap_complete::generate(args.shell, &mut command, "posteriori", &mut script);
    ui.write(&String::from_utf8_lossy(&script));
    Ok(DONE)
}
