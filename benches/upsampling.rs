//! The upsamplers of SD 2's UNet and decoder, forward and backward: nearest neighbour and a 3x3 convolution one after
//! the other, and folded into one transposed convolution.
//!
//! `cargo bench --bench upsampling [-- FILTER]`; FILTER is a regular expression over `size/form`.
//! `RAYON_NUM_THREADS` sets the threads.

use std::time::Duration;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use posteriori::ops::conv2d::{self, Epilogue, Geometry};
use posteriori::ops::{upsample, upsample_conv};
use posteriori::rng::Philox;
use posteriori::{Cx, Tensor};

/// Side of the small image, channels: three of the UNet, three of the decoder.
const SIZES: [[usize; 2]; 6] = [
    [8, 1280],
    [16, 1280],
    [32, 640],
    [64, 512],
    [128, 512],
    [256, 256],
];
const SAME: Geometry = Geometry::same(3);
const HALVING: Geometry = Geometry {
    stride: 2,
    before: 1,
    after: 1,
};

fn normals<const N: usize>(cx: &Cx, seed: u64, dims: [usize; N]) -> Tensor
where
    [usize; N]: Into<posteriori::Shape>,
{
    let mut random = Philox::new(seed);
    let len = dims.iter().product();
    let values: Vec<f32> = (0..len).map(|_| random.normal() as f32).collect();
    cx.upload(&values, dims).expect("memory for the inputs")
}

fn upsampling(c: &mut Criterion) {
    let cx = &Cx::native();
    for [side, channels] in SIZES {
        let x = normals(cx, 1, [1, side, side, channels]);
        let dy = normals(cx, 2, [1, 2 * side, 2 * side, channels]);
        let w = normals(cx, 3, [3, 3, channels, channels]);
        // Other weights than `w`: times do not depend on their values.
        let file = normals(cx, 3, [channels, channels, 9]);
        let folded = upsample_conv::fold(cx, &file, cx.dtype()).expect("3x3 weights");
        let size = [2 * side; 2];
        let mut group = c.benchmark_group(format!("{side}x{side}x{channels}"));
        group.sampling_mode(SamplingMode::Flat);
        group.bench_function("apart", |b| {
            b.iter(|| {
                let large = upsample::forward(cx, &x)?;
                conv2d::forward(cx, &large, &w, SAME, Epilogue::default())
            })
        });
        group.bench_function("folded", |b| {
            b.iter(|| conv2d::transposed(cx, &folded, HALVING, size, &x, None))
        });
        group.bench_function("apart_vjp", |b| {
            b.iter(|| upsample::vjp(cx, &conv2d::vjp(cx, &w, SAME, size, &dy)?))
        });
        group.bench_function("folded_vjp", |b| {
            b.iter(|| conv2d::forward(cx, &dy, &folded, HALVING, Epilogue::default()))
        });
        group.finish();
    }
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = quick(); targets = upsampling }
criterion_main!(benches);
