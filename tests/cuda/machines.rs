//! What is said of machines whose GPU cannot be used: the reason, and one thing to do.

use super::{Machine, Ran, libraries, machine};

const DOCTOR: &str = "doctor --device cuda";

#[test]
fn no_driver() {
    let machine = Machine::with(&libraries().join("none"));
    let seen = machine.run(DOCTOR);
    if !seen.stdout.contains("there is no CUDA driver") {
        return; // This machine has a real one.
    }
    seen.expect(4, &[]);
    machine
        .run("doctor")
        .expect(0, &["there is no CUDA driver"]);
    machine
        .run("check --runtime cuda --op add")
        .expect(4, &["cuda:0", "no CUDA driver", "--device cpu"]);
}

#[test]
fn unusable_drivers_and_gpus() {
    for (faults, reason, fix) in [
        ("driver=12040", "the driver is for CUDA 12.4", "update"),
        ("no_device", "NO_DEVICE", "CUDA_VISIBLE_DEVICES"),
        ("arch=75", "sm_75", "wanted sm_80 or newer"),
    ] {
        let machine = machine().fault(faults);
        let check = machine.run("check --runtime cuda --op add");
        check.expect(4, &["cuda:0", reason, fix, "--device cpu"]);
        let Ran { code, stdout, .. } = machine.run(DOCTOR);
        let told = stdout.contains(reason) && stdout.contains(fix);
        assert!(code == 4 && told, "{code}: {stdout}");
        machine.run("doctor").expect(0, &[reason, fix]);
    }
    let old = Machine::with(&libraries().join("old"));
    old.run("check --runtime cuda --op add")
        .expect(4, &["no `cuFuncGetParamInfo`; update"]);
    machine()
        .run("check --runtime cuda:3 --op add")
        .expect(4, &["cuda:3", "no GPU of this number"]);
}

#[test]
fn auto_takes_a_usable_gpu_only() {
    let which = |machine: &Machine| {
        let line = "generate --model nowhere --output x --json";
        machine.run(line).expect(1, &["nowhere"])
    };
    which(&machine());
    which(&machine().fault("no_device"));
}

#[test]
fn doctor_on_a_sound_machine() {
    let sound = machine().compiling();
    let named = [
        "Fake GPU (an emulator), sm_90",
        "libcuda.so",
        "CUDA 13.0",
        "NVRTC 13.0",
        "the loader's search path",
        "compiled now",
        "within their bounds",
    ];
    sound.run(DOCTOR).expect(0, &named);
    sound.run(DOCTOR).expect(0, &["from the cache"]);
}
