//! A checkpoint folder without weights: every configuration, read and planned as `posteriori plan` does.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use posteriori::pipeline::plan::{Batch, Engine, Plan};
use posteriori::runtime::kernel::Target;
use posteriori::{DType, Method, Restore, Task};
use posteriori_fuzz::{Folder, files, told};

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

fuzz_target!(|input: &[u8]| {
    let [unet, vae, schedule, controlnet, index] = files(input);
    FOLDER.put("unet/config.json", unet);
    FOLDER.put_some("vae/config.json", vae);
    FOLDER.put("scheduler/scheduler_config.json", schedule);
    FOLDER.put_some("controlnet/config.json", controlnet);
    FOLDER.put_some("model_index.json", index);
    let engine = Engine {
        target: Target::Native,
        dtype: DType::F32,
        forced: Vec::new(),
    };
    let work = Batch {
        measured: true,
        size: [64, 64],
        batch: 1,
    };
    let job = Restore::new(Task::super_resolution(2), Method::dps().steps(2));
    let folder = FOLDER.path().join("controlnet");
    let cse = (!controlnet.is_empty()).then_some(&*folder);
    told(Plan::of(FOLDER.path(), cse, &job, work, &engine));
});
