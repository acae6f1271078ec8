//! A config file of `restore`: read, checked, printed as `--print-config` does, and read again.

#![no_main]

#[path = "../cli/mod.rs"]
mod cli;

use std::path::Path;
use std::sync::LazyLock;

use clap::{Args, Command, FromArgMatches};
use cli::run::{Run, Writing};
use cli::settings::{Flags, RESTORE, Settings};
use libfuzzer_sys::fuzz_target;
use posteriori::Result;
use posteriori_fuzz::{Folder, told};

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

fuzz_target!(|input: &[u8]| {
    let Some(mut settings) = told(gather(&FOLDER.put("run.toml", input))) else {
        return;
    };
    let again = gather(&FOLDER.put("again.toml", settings.to_toml().as_bytes()));
    let again = again.expect("what is printed can be read");
    let texts = |settings: &Settings| {
        let texts = settings.texts().map(|(key, text)| (key, text.to_owned()));
        Vec::from_iter(texts)
    };
    assert_eq!(texts(&again), texts(&settings));
    let Some(run) = told(Run::read(&mut settings)) else {
        return;
    };
    told(Writing::read(&settings, None));
    if let Some(task) = &run.task {
        told(run.job(task, 0));
    }
});

/// The settings of `restore --config FILE`.
fn gather(file: &Path) -> Result<Settings> {
    let command = Flags::<RESTORE>::augment_args(Command::new("restore").no_binary_name(true));
    let words = ["--config".as_ref(), file.as_os_str()];
    let matches = command.try_get_matches_from(words).expect("two words");
    let flags = Flags::<RESTORE>::from_arg_matches(&matches).expect("flags");
    Settings::gather(&flags, None)
}
