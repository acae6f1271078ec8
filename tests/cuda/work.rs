//! Work on the GPU: steps as graphs, and what fails on the way.

use std::fs;

use posteriori::io::image::{Format, Image, read, read_text, save};

use super::{Machine, count, machine};
use crate::oracle;

const RESTORE: &str =
    "restore -i y.png --model tiny-pixel --task sr8 --method dps --steps 6 --precision bf16 -q";

/// A machine with a measurement and a model.
fn with_work(machine: Machine) -> Machine {
    let pixels = (0..4 * 4 * 3).map(|i| (i as f32 * 0.7).sin()).collect();
    let y = Image::new(4, 4, pixels).unwrap();
    save(machine.path("y.png"), &y, Format::Png, &[]).unwrap();
    let model = oracle::checkpoint("tiny-pixel");
    std::os::unix::fs::symlink(model, machine.path("tiny-pixel")).unwrap();
    machine
}

#[test]
fn a_job_has_the_same_bits_as_graphs_launch_by_launch_and_on_the_emulator() {
    let graphs = with_work(machine());
    graphs
        .run(&format!("{RESTORE} -o cuda.png --device cuda"))
        .expect(0, &[]);
    let log = graphs.log();
    assert_eq!(count(&log, "graph"), 6);
    // The first step, those between, and the last.
    assert!(count(&log, "instantiate") <= 3, "steps are not the same");
    let eager = graphs.set("POSTERIORI_GRAPHS", "off");
    eager
        .run(&format!("{RESTORE} -o eager.png --device cuda"))
        .expect(0, &[]);
    assert_eq!(count(&eager.log(), "graph"), 0);
    eager
        .run(&format!("{RESTORE} -o emu.png --device emu"))
        .expect(0, &[]);
    let pixels = |name| read(eager.path(name)).unwrap().pixels;
    assert!(pixels("cuda.png") == pixels("eager.png"));
    assert!(pixels("cuda.png") == pixels("emu.png"));
}

#[test]
fn a_batch_that_does_not_fit_names_one_that_does() {
    let machine = with_work(machine().fault("memory=8000000"));
    let many = format!("{RESTORE} -o x --samples 64 --batch 64 --device cuda");
    let ran = machine
        .run(&many)
        .expect(5, &["64 images of 32 x 32", "use --batch "]);
    let (_, batch) = ran.stderr.trim().rsplit_once(' ').unwrap();
    let batch: usize = batch.parse().unwrap();
    assert!((1..64).contains(&batch), "{batch}");
    machine
        .run(&format!("{many} --dry-run"))
        .expect(5, &["64 images of 32 x 32", "use --batch "]);
    // It was refused before any work.
    let written = fs::read_dir(machine.path("x")).into_iter().flatten();
    assert_eq!(written.count(), 0);
}

#[test]
fn an_image_that_does_not_fit_whole_is_restored_in_tiles_and_its_record_says_so() {
    let machine = with_work(machine().fault("memory=6500000"));
    let pixels = (0..8 * 6 * 3).map(|i| (i as f32 * 0.1).sin()).collect();
    let y = Image::new(6, 8, pixels).unwrap();
    save(machine.path("y.png"), &y, Format::Png, &[]).unwrap();
    let line = RESTORE.replace("--steps 6", "--steps 2");
    machine
        .run(&format!("{line} -o x.png --device cuda --tile never"))
        .expect(3, &["64 x 48", "or tiles"]);
    // In a folder, the others go on.
    fs::create_dir(machine.path("in")).unwrap();
    fs::copy(machine.path("y.png"), machine.path("in/large.png")).unwrap();
    let small = Image::new(4, 4, vec![0.5; 48]).unwrap();
    save(machine.path("in/small.png"), &small, Format::Png, &[]).unwrap();
    let folder = line.replace("y.png", "in");
    machine
        .run(&format!("{folder} -o out --device cuda --tile never"))
        .expect(3, &["failed: large.png: memory plan: 1 images of 64 x 48"]);
    assert!(machine.path("out/small.png").is_file());
    machine
        .run(&format!("{line} -o x.png --device cuda"))
        .expect(0, &[]);
    // The model was trained at 32 x 32.
    machine
        .run(&format!("{line} -o tiles.png --device emu --tile 32"))
        .expect(0, &[]);
    let pixels = |name| read(machine.path(name)).unwrap().pixels;
    assert!(pixels("x.png") == pixels("tiles.png"));
    let record = &read_text(machine.path("x.png")).unwrap()[1].1;
    assert!(record.contains(r#""tile":32,"#), "{record}");
}

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
fn tensor_maps_are_the_drivers() {
    let machine = machine();
    machine.inside("tensor_maps");
    let log = machine.log();
    assert!(
        log.iter()
            .any(|line| line == "capture conv2d_fwd_8_tma_128_bf16"),
        "{log:?}"
    );
}

#[test]
fn values_are_read_after_a_step() {
    machine().inside("no_reading_inside_a_step");
}

#[test]
fn values_are_those_of_their_step() {
    machine().inside("reading_while_the_next_step_is_at_work");
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
        .expect(1, &["memory plan", "cuda:0", "smaller batch or image"]);
}
