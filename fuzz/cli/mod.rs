//! What the program reads config files with: its own sources, since they are not the library's.

#![allow(dead_code, unused_imports)]

#[path = "../../src/cli/config.rs"]
pub(crate) mod config;
#[path = "../../src/cli/exit.rs"]
pub(crate) mod exit;
#[path = "../../src/cli/files.rs"]
pub(crate) mod files;
#[path = "../../src/cli/methods.rs"]
pub(crate) mod methods;
#[path = "../../src/cli/run.rs"]
pub(crate) mod run;
#[path = "../../src/cli/settings/mod.rs"]
pub(crate) mod settings;
pub(crate) mod study;
#[path = "../../src/cli/ui.rs"]
pub(crate) mod ui;
