//! The config file of a study.

#[path = "../../src/cli/study/config.rs"]
mod config;

use posteriori::Result;

use config::{Config, Images};

/// Reads a config file, and lays out its study where no folder has to be read for that: the number of its cells.
pub(crate) fn cells(path: &str, text: &str) -> Result<Option<usize>> {
    let config = Config::parse(path, text)?;
    match config.images {
        Images::Folder(_) => Ok(None),
        Images::Scenes(_) => Ok(Some(config.study()?.0.cells.len())),
    }
}
