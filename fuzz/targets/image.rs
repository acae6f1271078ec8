//! An image file of any kind: what comes is a picture of finite numbers in [-1, 1], or a reason.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use posteriori::io::image::read;
use posteriori_fuzz::{Folder, told};

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

fuzz_target!(|input: &[u8]| {
    let file = FOLDER.put("image", input);
    if let Some(image) = told(read(file)) {
        image.check("image").expect("its sizes agree");
        assert!(image.pixels.iter().all(|v| (-1.0..=1.0).contains(v)));
    }
});
