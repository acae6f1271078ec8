//! The config file of a study: read, and laid out.

#![no_main]

#[path = "../cli/mod.rs"]
mod cli;

use libfuzzer_sys::fuzz_target;
use posteriori_fuzz::told;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(Some(cells)) = told(cli::study::cells("study.toml", text)) {
        assert!(cells > 0);
    }
});
