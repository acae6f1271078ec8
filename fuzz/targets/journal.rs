//! A journal of a folder: read, written, read again, and read when its last line is torn.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use posteriori::batch::journal::parse;
use posteriori_fuzz::told;

fuzz_target!(|input: &[u8]| {
    let path = Path::new("journal.jsonl");
    let Some((lines, whole)) = told(parse(path, input)) else {
        return;
    };
    let whole = &input[..whole as usize];
    assert!(whole.is_empty() || whole.ends_with(b"\n"));
    let mut written = Vec::new();
    for line in &lines {
        serde_json::to_writer(&mut written, line).expect("what was read can be written");
        written.push(b'\n');
    }
    let (again, length) = parse(path, &written).expect("what was written can be read");
    assert_eq!((again.len(), length), (lines.len(), written.len() as u64));
    assert_eq!(format!("{again:?}"), format!("{lines:?}"));
    // A killed run leaves the beginning of a line, which is none.
    written.extend_from_slice(b"{\"schema\":");
    let (torn, length) = parse(path, &written).expect("the rest of a line is left out");
    assert_eq!(
        (torn.len() as u64, length),
        (lines.len() as u64, written.len() as u64 - 10)
    );
});
