//! A component folder: an index of shards, and two of them.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use posteriori::io::weights::Checkpoint;
use posteriori_fuzz::{Folder, files, told};

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

fuzz_target!(|input: &[u8]| {
    let [index, a, b] = files(input);
    FOLDER.put("model.safetensors.index.json", index);
    FOLDER.put_some("a", a);
    FOLDER.put_some("b", b);
    if let Some(weights) = told(Checkpoint::open(FOLDER.path())) {
        for name in weights.names() {
            told(weights.need(name));
        }
    }
});
