//! A golden file and its index, as `posteriori verify` opens them.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use posteriori::Cx;
use posteriori::verify::verify;
use posteriori_fuzz::{Folder, files, told};

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

fuzz_target!(|input: &[u8]| {
    let [index, file] = files(input);
    FOLDER.put("g.index.json", index);
    let file = FOLDER.put("g.safetensors", file);
    // There is no model: what is reached is all before it.
    let model = FOLDER.path().join("none");
    told(verify(&model, None, &file, &[], &Cx::native(), &mut |_| ()));
});
