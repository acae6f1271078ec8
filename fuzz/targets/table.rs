//! A CSV file: what is read, written and read again is the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use posteriori::io::csv;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let (rows, whole) = csv::read(text);
    assert!(whole <= text.len() && text.is_char_boundary(whole));
    let written: String = rows.iter().map(|row| csv::line(row)).collect();
    assert_eq!(csv::read(&written), (rows, written.len()));
});
