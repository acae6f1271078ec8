//! One safetensors file: header, offsets, every tensor in every form.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use posteriori::io::weights::Checkpoint;
use posteriori_fuzz::{Folder, told};

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

fuzz_target!(|input: &[u8]| {
    let file = FOLDER.put("w.safetensors", input);
    let Some(weights) = told(Checkpoint::open_file(file)) else {
        return;
    };
    assert_eq!(weights.names().count(), weights.len());
    for name in weights.names() {
        let view = weights.get(name).expect("a name that it lists");
        assert_eq!(view.bytes.len(), view.range.len());
        let elements: usize = view.shape.iter().product();
        if let Some(dtype) = view.dtype.dtype() {
            assert_eq!(view.bytes.len(), elements * dtype.size());
        }
        let finite = view.not_finite().is_none();
        if let Some(values) = told(view.to_f32()) {
            assert_eq!(values.len(), elements);
            let wide = view.dtype.name() == "F64";
            assert!(!finite || wide || values.iter().all(|v| v.is_finite()));
        }
        told(view.to_f64());
        told(weights.need(name));
    }
});
