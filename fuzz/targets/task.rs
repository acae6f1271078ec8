//! A task as people write it: what parses prints as it parses again, and has sizes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use posteriori::Task;
use posteriori::io::image::Format;
use posteriori_fuzz::told;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    told(Format::parse(text));
    let Some(task) = told(Task::parse(text)) else {
        return;
    };
    let again = Task::parse(&task.to_string()).expect("what prints can be read");
    assert_eq!(again.to_string(), task.to_string());
    let size = task.image_size([7, 9]);
    told(task.check_size(size));
});
