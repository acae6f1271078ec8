//! The record in a PNG file.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use posteriori::io::image::read_text;
use posteriori_fuzz::{Folder, told};

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

fuzz_target!(|input: &[u8]| {
    let file = FOLDER.put("image.png", input);
    told(read_text(file));
});
