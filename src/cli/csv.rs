//! Tables as files of comma-separated values.

use std::path::Path;

use posteriori::Result;
use posteriori::io::atomic::{failed, write_atomic};

/// Writes a table, all of it or nothing.
pub(super) fn write(path: &Path, columns: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let mut text = columns.join(",") + "\n";
    for row in rows {
        let cells: Vec<String> = row.iter().map(|text| cell(text)).collect();
        text += &(cells.join(",") + "\n");
    }
    write_atomic(path, |w| w.write_all(text.as_bytes()).map_err(failed(path)))
}

fn cell(text: &str) -> String {
    match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.into(),
    }
}
