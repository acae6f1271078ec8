//! Where kernels' code comes from: the build, the cache, NVRTC.

use std::fs;

use super::{Machine, count, libraries, machine};

const CHECK: &str = "check --runtime cuda --op lookup.forward";

#[test]
fn compiled_once_then_cached() {
    let machine = machine().compiling();
    machine.run(CHECK).expect(0, &["0 failed"]);
    assert_eq!(
        machine.log()[0],
        "nvrtc kernels/lookup/fwd_1_plain.cu sm_90a"
    );
    machine.run(CHECK).expect(0, &["0 failed"]);
    assert_eq!(count(&machine.log(), "nvrtc"), 0);
}

#[test]
fn a_damaged_cache_is_made_anew() {
    let machine = machine().compiling();
    machine.run(CHECK).expect(0, &[]);
    for damage in [&b""[..], b"short", b"long enough, but its sum is wrong"] {
        machine.log();
        for entry in fs::read_dir(machine.path("cache")).unwrap() {
            fs::write(entry.unwrap().path(), damage).unwrap();
        }
        machine.run(CHECK).expect(0, &["0 failed"]);
        assert_eq!(count(&machine.log(), "nvrtc"), 1);
        machine.run(CHECK).expect(0, &["0 failed"]);
        assert_eq!(count(&machine.log(), "nvrtc"), 0);
    }
}

#[test]
fn a_cache_that_cannot_be_written_stops_nothing() {
    let machine = machine()
        .compiling()
        .set("POSTERIORI_CACHE", "/dev/null/no/folder");
    machine.run(CHECK).expect(0, &["0 failed"]);
    let said = ["cannot be kept", "/dev/null", "set POSTERIORI_CACHE"];
    machine.run("doctor").expect(0, &said);
}

#[test]
fn another_gpu_has_code_of_its_own() {
    let machine = machine().compiling();
    machine.run(CHECK).expect(0, &[]);
    let machine = machine.fault("arch=86");
    machine.log();
    machine.run(CHECK).expect(0, &[]);
    // The fake NVRTC knows sm_80 and sm_89.
    assert!(machine.log()[0].ends_with("sm_80"));
}

#[test]
fn no_nvrtc() {
    let fixes = ["nvcc on the PATH", "POSTERIORI_NVRTC"];
    let machine = machine()
        .compiling()
        .set("POSTERIORI_NVRTC", "/nowhere/libnvrtc.so");
    machine.run(CHECK).expect(1, &fixes);
    let machine = Machine::with(&libraries().join("driver")).compiling();
    if machine
        .run("doctor")
        .stdout
        .contains("libnvrtc was not found")
    {
        machine.run(CHECK).expect(1, &fixes);
    }
}

#[test]
fn nvrtc_that_fails_is_quoted() {
    let machine = machine().compiling().fault("fail_nvrtc");
    let named = ["kernels/lookup/fwd_1_plain.cu", "error: as FAKE_CUDA wants"];
    machine.run(CHECK).expect(1, &named);
}

#[test]
fn code_that_the_driver_refuses_is_compiled_instead() {
    let machine = machine().fault("refuse_fatbins");
    machine.run(CHECK).expect(0, &["0 failed"]);
    assert_eq!(count(&machine.log(), "nvrtc"), 1);
}
