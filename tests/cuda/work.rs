//! Work on the GPU: steps as graphs, and what fails on the way.

use super::{count, machine};

#[test]
fn steps_that_are_the_same_are_one_graph() {
    let machine = machine();
    machine.inside("steps");
    let log = machine.log();
    // The state begins in a place of its own, then moves between two.
    assert_eq!(count(&log, "instantiate"), 3, "{log:?}");
    assert_eq!(count(&log, "graph"), 12, "{log:?}");
}

#[test]
fn graphs_that_are_not_used_are_given_up() {
    let machine = machine();
    machine.inside("many_kinds_of_steps");
    let log = machine.log();
    // Seven kinds, and the first once more: only the last four are kept.
    assert_eq!(count(&log, "instantiate"), 8, "{log:?}");
    assert_eq!(count(&log, "destroy"), 8, "{log:?}");
}

#[test]
fn values_are_read_after_a_step() {
    machine().inside("no_reading_inside_a_step");
}

#[test]
fn timing_and_memory() {
    machine().inside("timing_and_memory");
}

#[test]
fn a_kernel_that_fails_is_an_error() {
    let machine = machine().fault("fail_launch=1");
    let named = ["cuda:0", "CUDA_ERROR_ILLEGAL_ADDRESS"];
    machine
        .run("check --runtime cuda --op add")
        .expect(4, &named);
}

#[test]
fn memory_that_is_not_to_be_had_is_an_error() {
    let machine = machine().fault("fail_alloc=2");
    machine
        .run("check --runtime cuda --op add")
        .expect(5, &["memory plan", "cuda:0", "smaller batch or image"]);
}
