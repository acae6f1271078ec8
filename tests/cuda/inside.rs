//! What runs in a process that has the fake driver: called by the tests of `work`, one at a time.

use std::time::Duration;

use posteriori::error::Result;
use posteriori::ops::conv2d::{self, Epilogue, Geometry};
use posteriori::ops::{add, combine};
use posteriori::reading::Reading;
use posteriori::rng::Philox;
use posteriori::runtime::Runtime;
use posteriori::runtime::emu::Schedule;
use posteriori::{Cx, DType, Error, Tensor};

const LEN: usize = 5000;

fn cx() -> Cx {
    let cx = Cx::new(Runtime::cuda(0).unwrap(), DType::F32).unwrap();
    cx.rt().reserve(1 << 20).unwrap();
    cx
}

/// `x + sum_i (step + i)` for i below `terms`: each term is an upload that differs from step to step.
fn step(cx: &Cx, x: &Tensor, step: usize, terms: usize) -> Result<Tensor> {
    let mut y = x.clone();
    for i in 0..terms {
        let term = Tensor::from_slice(cx.rt(), &[(step + i) as f32; LEN], [LEN])?;
        y = add::forward(cx, &y, &term)?;
    }
    Ok(y)
}

#[track_caller]
fn expect(x: &Tensor, want: f32) {
    let got: Vec<f32> = x.to_vec().unwrap();
    assert!(got.iter().all(|v| *v == want), "{} is not {want}", got[0]);
}

/// Nobody waits between the steps: each must find its own uploads, not those of the next.
#[test]
#[ignore = "run by work::steps_that_are_the_same_are_one_graph"]
fn steps() {
    let cx = &cx();
    let mut x = Tensor::from_slice(cx.rt(), &[0.5f32; LEN], [LEN]).unwrap();
    let mut want = 0.5;
    for at in 0..12 {
        x = cx.rt().record(|| step(cx, &x, at, 3)).unwrap();
        want += (3 * at + 3) as f32;
    }
    expect(&x, want);
    let eager = step(cx, &x, 7, 3).unwrap();
    expect(&eager, want + 24.0);
}

#[test]
#[ignore = "run by work::graphs_that_are_not_used_are_given_up"]
fn many_kinds_of_steps() {
    let cx = &cx();
    let zero = Tensor::from_slice(cx.rt(), &[0.0f32; LEN], [LEN]).unwrap();
    for terms in (1..=7).chain([7, 6, 1]) {
        let y = cx.rt().record(|| step(cx, &zero, 10, terms)).unwrap();
        expect(&y, (0..terms).map(|i| (10 + i) as f32).sum());
    }
}

#[test]
#[ignore = "run by work::values_are_read_after_a_step"]
fn no_reading_inside_a_step() {
    let cx = &cx();
    let x = Tensor::from_slice(cx.rt(), &[1.0f32; LEN], [LEN]).unwrap();
    let read = cx.rt().record(|| step(cx, &x, 0, 1)?.to_vec::<f32>());
    assert!(matches!(read, Err(Error::Plan { .. })));
    // Nothing of it has happened, and what comes next is as if it had not been.
    let y = step(cx, &x, 0, 2).unwrap();
    expect(&y, 2.0);
}

#[test]
#[ignore = "run by work::timing_and_memory"]
fn timing_and_memory() {
    let cx = &cx();
    let rt = cx.rt();
    let free = rt.free_memory().unwrap().unwrap();
    assert_eq!(free, (1 << 30) - (1 << 20));
    let x = Tensor::from_slice(rt, &[1.0f32; LEN], [LEN]).unwrap();
    rt.flush_cache().unwrap();
    let took = rt.time(|| step(cx, &x, 0, 3).map(drop)).unwrap();
    assert!(took > Duration::ZERO);
    drop(x);
    rt.unreserve();
    assert!(rt.peak() > 0 && rt.peak() < 1 << 20);
    let free = rt.free_memory().unwrap().unwrap();
    assert_eq!(
        free,
        (1 << 30) - (2 << 20),
        "the slab is back, the cache's buffer stays"
    );
    let huge = rt.reserve(2 << 30).unwrap_err();
    assert!(matches!(&huge, Error::Plan { why } if why.contains("cuda:0")));
}

#[test]
#[ignore = "run by work::values_are_those_of_their_step"]
fn reading_while_the_next_step_is_at_work() {
    let cx = cx();
    let state = Tensor::from_slice(cx.rt(), &[0.0f32; LEN], [LEN]).unwrap();
    let one = Tensor::from_slice(cx.rt(), &[1.0f32; LEN], [LEN]).unwrap();
    let step = || {
        let record = || combine::assign(&cx, &state, &add::forward(&cx, &state, &one)?);
        cx.rt().record(record).unwrap();
        Reading::begin(cx.rt(), &[&one, &state]).unwrap()
    };
    let mut before = step();
    for i in 1..6 {
        let next = step();
        assert!(!before.is_here());
        let seen = std::mem::replace(&mut before, next).values().unwrap();
        assert_eq!(seen, [vec![1.0; LEN], vec![f64::from(i); LEN]]);
    }
}

/// Twice as one graph, from the driver's tensor maps; and on the emulator, by threads that gather the same pixels.
#[test]
#[ignore = "run by work::tensor_maps_are_the_drivers"]
fn tensor_maps() {
    let values = |seed: u64, len: usize| {
        let mut random = Philox::new(seed);
        (0..len).map(|_| random.normal() as f32).collect::<Vec<_>>()
    };
    let convolve = |rt: Runtime, variant: &'static str| {
        let cx = Cx::new(rt, DType::Bf16).unwrap();
        let cx = cx.forcing("conv2d.forward", variant);
        cx.rt().reserve(1 << 20).unwrap();
        let x = cx
            .upload(&values(1, 2 * 16 * 32 * 24), [2, 16, 32, 24])
            .unwrap();
        let w = cx.upload(&values(2, 9 * 24 * 72), [3, 3, 24, 72]).unwrap();
        let none = Epilogue::default();
        let step = || conv2d::forward(&cx, &x, &w, Geometry::same(3), none);
        drop(cx.rt().record(step).unwrap());
        cx.rt().record(step).unwrap().to_f64().unwrap()
    };
    let got = convolve(Runtime::cuda(0).unwrap(), "tma_128");
    assert_eq!(got, convolve(Runtime::emu(Schedule::InOrder), "wgmma_128"));
}
