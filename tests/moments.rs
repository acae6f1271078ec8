//! Norms by the moments that the convolution before them leaves, norms that the convolution after them applies, and their
//! backward passes by the sums that its own leaves, by the convolution before them, or as a part of its own.

use std::collections::BTreeMap;

#[cfg(feature = "emu")]
use posteriori::Shape;
use posteriori::models::vae::{Vae, VaeConfig};
use posteriori::nn::param::Weights;
#[cfg(feature = "emu")]
use posteriori::ops::check::bounds;
#[cfg(feature = "emu")]
use posteriori::ops::conv2d::{self, Epilogue, Geometry};
#[cfg(feature = "emu")]
use posteriori::ops::group_norm;
use posteriori::pipeline::prior::Prior;
use posteriori::rng::Philox;
use posteriori::runtime::Runtime;
#[cfg(feature = "emu")]
use posteriori::runtime::emu::Schedule;
use posteriori::runtime::kernel::{Arch, Target};
use posteriori::{Cx, DType, Tensor};

use crate::oracle;

/// Launches of each op.
type Counts = BTreeMap<&'static str, u64>;

/// Runs `body` in a context that counts.
fn counted(cx: &Cx, body: impl FnOnce(&Cx)) -> Counts {
    let (cx, launches) = cx.counted();
    body(&cx);
    let mut counts = Counts::new();
    for ((op, _), launched) in launches.borrow().iter() {
        *counts.entry(*op).or_default() += launched.count;
    }
    counts
}

/// What the tiny autoencoder's decoder makes of latents, and their cotangent.
struct Decoded {
    y: Vec<f64>,
    dz: Vec<f64>,
    counts: Counts,
}

/// Decodes the samples from number `first` on of two, whose images have 64 x 128 pixels.
fn decode(rt: Runtime, dtype: DType, forced: &[(&str, &str)], first: usize) -> Decoded {
    let forcing = |cx: Cx, (op, variant): &(&str, &str)| cx.forcing(op, variant);
    let cx = forced.iter().fold(Cx::new(rt, dtype).unwrap(), forcing);
    let prior = Prior::open(&cx, oracle::checkpoint("tiny-sd2")).unwrap();
    let vae = prior.vae.as_ref().unwrap();
    let mut random = Philox::new(3);
    // Eighths, which every type holds.
    let mut draw = |dims: [usize; 4]| {
        let values = (0..dims.iter().product()).map(|_| (8.0 * random.normal()).round() / 8.0);
        let all = Tensor::rounded(cx.rt(), values, dims, dtype).unwrap();
        all.samples(first..2).unwrap()
    };
    let (z, dy) = (draw([2, 8, 16, 4]), draw([2, 64, 128, 3]));
    let (mut y, mut dz) = (Vec::new(), Vec::new());
    let counts = counted(&cx, |cx| {
        let (image, saved) = vae.decode(cx, &z).unwrap();
        y = image.to_f64().unwrap();
        dz = vae.decode_vjp(cx, saved, &dy).unwrap().to_f64().unwrap();
    });
    Decoded { y, dz, counts }
}

/// By products and norms that take moments, and leave them.
#[cfg(feature = "emu")]
const BY_MOMENTS: [(&str, &str); 5] = [
    ("conv2d.forward", "tma_128"),
    ("conv2d.forward_moments", "tma_128"),
    ("conv2d.vjp", "tma_128"),
    ("conv2d.vjp_moments", "tma_128"),
    ("group_norm.forward", "chunks"),
];

/// The norms of the tiny decoder: two of each of ten residual blocks, that of the attention and the last. The first and
/// that after the attention read what no convolution wrote that has moments.
const NORMS: u64 = 2 * 10 + 2;

/// By convolutions of pairs of patches, which apply norms too.
#[cfg(feature = "emu")]
const BY_HALOS: [(&str, &str); 11] = [
    ("conv2d.forward", "halo_128"),
    ("conv2d.forward_moments", "halo_128"),
    ("conv2d.forward_normed", "halo_128"),
    ("conv2d.forward_normed_moments", "halo_128"),
    ("conv2d.vjp", "halo_128"),
    ("conv2d.vjp_moments", "halo_128"),
    ("conv2d.vjp_summed", "halo_128"),
    ("conv2d.vjp_through", "halo_128"),
    ("conv2d.vjp_through_summed", "halo_128"),
    ("group_norm.forward", "chunks"),
    ("group_norm.vjp", "chunks"),
];

/// Norms that make their own statistics, norms by moments, and norms that are statistics alone.
fn norms(counts: &Counts) -> [u64; 3] {
    let ops = [
        "group_norm.forward",
        "group_norm.from_moments",
        "group_norm.statistics",
    ];
    ops.map(|op| counts.get(op).copied().unwrap_or(0))
}

/// Backward passes of norms that make their own sums, those by sums, those that the convolution before takes over, and those
/// that are a part of a convolution's.
fn backward_norms(counts: &Counts) -> [u64; 4] {
    let ops = [
        "group_norm.vjp",
        "group_norm.vjp_from_sums",
        "group_norm.vjp_coefficients",
        "conv2d.vjp_normed",
    ];
    ops.map(|op| counts.get(op).copied().unwrap_or(0))
}

/// In f64 the ways differ by roundings.
#[test]
fn all_ways_are_one_function() {
    let applied = [
        ("conv2d.forward", "gathered_gemm"),
        ("conv2d.vjp", "gathered_gemm"),
        ("group_norm.forward", "plain"),
    ];
    let by_moments = [&applied[..], &[("conv2d.forward_normed", "plain")]].concat();
    let want = decode(Runtime::native(), DType::F64, &[], 0);
    assert_eq!(norms(&want.counts), [NORMS, 0, 0]);
    let ways: [(&[_], _); 2] = [
        (&by_moments, [2, NORMS - 2, 0]),
        (&applied, [0, 1, NORMS - 1]),
    ];
    for (forced, expected) in ways {
        let got = decode(Runtime::native(), DType::F64, forced, 0);
        assert_eq!(norms(&got.counts), expected);
        assert_eq!(backward_norms(&got.counts), [NORMS, 0, 0, 0]);
        agrees(&want, &got);
    }
    let by_sums = [&applied[..], &[("group_norm.vjp", "plain")]].concat();
    let got = decode(Runtime::native(), DType::F64, &by_sums, 0);
    assert_eq!(backward_norms(&got.counts), [NORMS - 13, 6, 6, 1]);
    agrees(&want, &got);
}

/// To roundings of f64.
fn agrees(want: &Decoded, got: &Decoded) {
    for (want, got) in [(&want.y, &got.y), (&want.dz, &got.dz)] {
        let largest = want.iter().fold(0.0f64, |most, v| most.max(v.abs()));
        let errors = want.iter().zip(got).map(|(w, g)| (w - g).abs());
        let error = errors.fold(0.0, f64::max) / largest;
        assert!(error <= 1e-12, "off by {error:e}");
    }
}

/// Hopper's kernels on the emulator: no further from the f64 decoder than the bound of the checks allows, with what the
/// norms make by themselves in the textbook's place; and of the last sample alone, under another schedule, the same bits.
#[cfg(feature = "emu")]
#[test]
fn a_decoder_by_moments_is_as_near_the_truth() {
    is_as_near(
        DType::F16,
        &BY_MOMENTS,
        [2, NORMS - 2, 0],
        [NORMS, 0, 0, 0],
        3,
    );
}

/// The same where convolutions apply the norms before them, and on the way back leave their sums, and take cotangents through
/// the second norm of each block; the last one goes on through its norm.
#[cfg(feature = "emu")]
#[test]
fn a_decoder_by_halos_is_as_near_the_truth() {
    is_as_near(DType::Bf16, &BY_HALOS, [9, 1, 12], [NORMS - 13, 6, 6, 1], 2);
}

#[cfg(feature = "emu")]
fn is_as_near(
    dtype: DType,
    forced: &[(&str, &str)],
    expected: [u64; 3],
    backward: [u64; 4],
    upsamplers: u64,
) {
    let oracle = decode(Runtime::native(), DType::F64, &[], 0);
    let apart = [
        ("conv2d.forward", "wgmma_128"),
        ("conv2d.vjp", "phases_wgmma_128"),
        ("group_norm.forward", "chunks"),
    ];
    let run = |schedule, forced: &[_], first| decode(Runtime::emu(schedule), dtype, forced, first);
    let got = run(Schedule::InOrder, forced, 0);
    let plain = run(Schedule::InOrder, &apart, 0);
    assert_eq!(norms(&plain.counts), [NORMS, 0, 0]);
    assert_eq!(norms(&got.counts), expected);
    assert_eq!(backward_norms(&got.counts), backward);
    assert_eq!(got.counts["conv2d.vjp_moments"], upsamplers);
    let outputs = [
        ("y", DType::F32, &got.y, &plain.y, &oracle.y),
        ("dz", dtype, &got.dz, &plain.dz, &oracle.dz),
    ];
    for (name, stored, got, plain, oracle) in outputs {
        is_within_bounds(stored, got, plain, oracle, name);
    }
    let alone = run(Schedule::Random(1), forced, 1);
    for (all, alone) in [(&got.y, &alone.y), (&got.dz, &alone.dz)] {
        assert!(
            all[all.len() - alone.len()..] == alone[..],
            "{dtype}: other bits"
        );
    }
}

/// As the checks want it.
#[cfg(feature = "emu")]
fn is_within_bounds(stored: DType, got: &[f64], plain: &[f64], oracle: &[f64], name: &str) {
    let (most, mean) = bounds(stored, plain, oracle);
    let errors = || got.iter().zip(oracle).map(|(g, o)| (g - o).abs());
    let largest = errors().fold(0.0, f64::max);
    let square = errors().map(|e| e * e).sum::<f64>() / got.len() as f64;
    assert!(
        largest <= most && square.sqrt() <= mean,
        "{name} in {stored}: {largest:e} of {most:e}, {:e} of {mean:e}",
        square.sqrt()
    );
}

/// By convolutions of three outputs, which apply norms too.
#[cfg(feature = "emu")]
const BY_THREE: [(&str, &str); 4] = [
    ("conv2d.forward", "three_outputs"),
    ("conv2d.forward_normed", "three_outputs"),
    ("group_norm.forward", "chunks"),
    ("group_norm.vjp", "chunks"),
];

/// What a convolution makes of a norm's input has the bits of what it makes of the norm's output, in groups of ten channels
/// and of eight.
#[cfg(feature = "emu")]
#[test]
fn a_norm_that_is_applied_late_gives_the_same_bits() {
    for dtype in [DType::Bf16, DType::F16] {
        is_applied_late(dtype, &BY_HALOS, [2, 16, 32, 40], 24, 4);
        is_applied_late(dtype, &BY_THREE, [2, 17, 33, 64], 3, 8);
    }
}

#[cfg(feature = "emu")]
fn is_applied_late(
    dtype: DType,
    forced: &[(&str, &str)],
    image: [usize; 4],
    outputs: usize,
    groups: usize,
) {
    let cx = Cx::new(Runtime::emu(Schedule::InOrder), dtype).unwrap();
    let cx = forced.iter().fold(cx, |cx, (op, v)| cx.forcing(op, v));
    let mut random = Philox::new(4);
    let mut draw = |dims: [usize; 4], to| {
        let values = (0..dims.iter().product()).map(|_| random.normal());
        Tensor::rounded(cx.rt(), values, dims, to).unwrap()
    };
    let [.., inputs] = image;
    let (x, w) = (draw(image, dtype), draw([3, 3, inputs, outputs], dtype));
    let mut channels = |c| {
        let values = (0..c).map(|_| random.normal());
        Tensor::rounded(cx.rt(), values, [c], DType::F32).unwrap()
    };
    let params = group_norm::Params {
        w: &channels(inputs),
        b: &channels(inputs),
        groups,
        eps: 1e-5,
        silu: true,
    };
    let add = Epilogue {
        bias: Some(&channels(outputs)),
        wide: outputs == 3,
        ..Default::default()
    };
    let same = Geometry::same(3);
    let measured = x.clone().into();
    assert!(conv2d::takes_norm(&cx, &x, &w, same, add).unwrap());
    assert!(group_norm::leaves_the_rest(&cx, &measured, params).unwrap());
    let (normed, _) = group_norm::statistics(&cx, &measured, params).unwrap();
    let late = conv2d::forward_normed(&cx, &normed, &w, same, add, None).unwrap();
    let (u, _) = group_norm::forward(&cx, &x, params).unwrap();
    let first = conv2d::forward(&cx, &u, &w, same, add).unwrap();
    assert!(
        late.x.to_f64().unwrap() == first.to_f64().unwrap(),
        "{dtype}"
    );
}

/// What makes `dx` of what a norm has saved.
#[cfg(feature = "emu")]
type Backward<'a> = &'a dyn Fn(group_norm::Saved, group_norm::Params<'_>) -> Tensor;

/// The backward pass of a norm of `x` by its scale and shift.
#[cfg(feature = "emu")]
fn backward(
    cx: &Cx,
    [x, w, b]: [&Tensor; 3],
    groups: usize,
    silu: bool,
    body: Backward<'_>,
) -> Vec<f64> {
    let eps = 1e-5;
    let params = group_norm::Params {
        w,
        b,
        groups,
        eps,
        silu,
    };
    let (_, saved) = group_norm::forward(cx, x, params).unwrap();
    body(saved, params).to_f64().unwrap()
}

/// What a tensor holds, in a context of f64.
#[cfg(feature = "emu")]
fn widened(exact: &Cx, t: &Tensor) -> Tensor {
    let values = t.to_f64().unwrap().into_iter();
    Tensor::rounded(exact.rt(), values, t.shape(), DType::F64).unwrap()
}

/// A convolution that leaves sums makes the bits of one that leaves none; by them the norm's `dx` is as near the truth as
/// by its own. In groups of 4, 8 and 16 channels, with and without a SiLU; beyond 16 the norm makes its own.
#[cfg(feature = "emu")]
#[test]
fn sums_are_those_of_the_norm() {
    let sizes = [(32, 8, true), (40, 5, true), (48, 3, false), (64, 2, true)];
    for dtype in [DType::Bf16, DType::F16] {
        for (channels, groups, silu) in sizes {
            let cx = Cx::new(Runtime::emu(Schedule::InOrder), dtype).unwrap();
            let cx = BY_HALOS.iter().fold(cx, |cx, (op, v)| cx.forcing(op, v));
            let mut random = Philox::new(5);
            let mut draw = |dims: Shape, to, mean: f64| {
                let values = (0..dims.elements()).map(|_| mean + random.normal());
                Tensor::rounded(cx.rt(), values, dims, to).unwrap()
            };
            let image = [2, 32, 48, channels].into();
            let (x, past) = (draw(image, dtype, 1.0), draw(image, dtype, 0.0));
            let dy = draw([2, 32, 48, 24].into(), dtype, 0.0);
            let w = draw([3, 3, channels, 24].into(), dtype, 0.0);
            let [scale, shift] = [1.0, 0.0].map(|mean| draw([channels].into(), DType::F32, mean));

            let (same, size) = (Geometry::same(3), [32, 48]);
            let apart = conv2d::vjp(&cx, &w, same, size, &dy).unwrap();
            let given = [&x, &scale, &shift];
            let got = backward(&cx, given, groups, silu, &|saved, params| {
                let takes = group_norm::takes_sums(&cx, &saved, params).unwrap();
                assert!(takes.is_some());
                let dh = conv2d::vjp_summed(&cx, &w, same, size, &dy, takes).unwrap();
                assert!(
                    dh.dy.to_f64().unwrap() == apart.to_f64().unwrap(),
                    "{dtype}"
                );
                assert_eq!(dh.sums.is_some(), channels <= 16 * groups);
                group_norm::vjp_summed(&cx, saved, params, &dh, Some(&past)).unwrap()
            });
            let plain = backward(&cx, given, groups, silu, &|saved, params| {
                group_norm::vjp(&cx, saved, params, &apart, Some(&past)).unwrap()
            });
            let exact = Cx::new(Runtime::native(), DType::F64).unwrap();
            let all = [&x, &scale, &shift, &apart, &past];
            let [x, scale, shift, dh, past] = all.map(|t| widened(&exact, t));
            let given = [&x, &scale, &shift];
            let oracle = backward(&exact, given, groups, silu, &|saved, params| {
                group_norm::vjp(&exact, saved, params, &dh, Some(&past)).unwrap()
            });
            is_within_bounds(dtype, &got, &plain, &oracle, "dx");
        }
    }
}

/// A convolution that takes a cotangent through the norm behind it makes the bits of what it makes of the norm's own result,
/// and so are the sums for the norm before it, if there is one. In groups of 4 and 8 channels.
#[cfg(feature = "emu")]
#[test]
fn a_cotangent_that_goes_through_late_gives_the_same_bits() {
    for (dtype, groups) in [(DType::Bf16, 10), (DType::F16, 5)] {
        let cx = Cx::new(Runtime::emu(Schedule::InOrder), dtype).unwrap();
        let cx = BY_HALOS.iter().fold(cx, |cx, (op, v)| cx.forcing(op, v));
        let mut random = Philox::new(6);
        let mut draw = |dims: Shape, to| {
            let values = (0..dims.elements()).map(|_| random.normal());
            Tensor::rounded(cx.rt(), values, dims, to).unwrap()
        };
        let image = [2, 32, 48, 40].into();
        let [x1, x2, dy] = [0; 3].map(|_| draw(image, dtype));
        let [w1, w2] = [0; 2].map(|_| draw([3, 3, 40, 40].into(), dtype));
        let [w, b] = [0; 2].map(|_| draw([40].into(), DType::F32));
        let params = group_norm::Params {
            w: &w,
            b: &b,
            groups,
            eps: 1e-5,
            silu: true,
        };
        let (same, size) = (Geometry::same(3), [32, 48]);
        let saved = |x| group_norm::forward(&cx, x, params).unwrap().1;
        let (before, behind) = (saved(&x1), saved(&x2));
        let takes = group_norm::takes_sums(&cx, &behind, params).unwrap();
        let dh = conv2d::vjp_summed(&cx, &w2, same, size, &dy, takes).unwrap();
        assert!(conv2d::takes_through(&cx, &w1, same, size, &dh.dy).unwrap());
        assert!(group_norm::leaves_the_rest_of_vjp(&cx, &behind, params, &dh).unwrap());
        let d = group_norm::vjp_summed(&cx, behind, params, &dh, None).unwrap();
        let sums = dh.sums.as_ref().unwrap();
        let late = group_norm::coefficients(&cx, saved(&x2), params, dh.dy, sums).unwrap();
        for norm in [None, group_norm::takes_sums(&cx, &before, params).unwrap()] {
            let first = conv2d::vjp_summed(&cx, &w1, same, size, &d, norm).unwrap();
            let got = conv2d::vjp_through(&cx, &w1, same, size, &late, norm).unwrap();
            let bits = |t: &Tensor| t.to_f64().unwrap();
            assert!(bits(&got.dy) == bits(&first.dy), "{dtype}");
            assert_eq!(got.sums.is_some(), norm.is_some());
            assert!(got.sums.as_ref().map(bits) == first.sums.as_ref().map(bits));
        }
    }
}

/// A convolution's backward pass that goes on through the norm before it is as near the truth as the two apart, in groups
/// of all sizes; never where the norm has no SiLU.
#[cfg(feature = "emu")]
#[test]
fn a_backward_pass_goes_on_through_the_norm() {
    for dtype in [DType::Bf16, DType::F16] {
        for (channels, groups, outputs) in [(64, 8, 3), (32, 32, 1), (96, 1, 2)] {
            let cx = Cx::new(Runtime::emu(Schedule::InOrder), dtype).unwrap();
            let cx = BY_THREE.iter().fold(cx, |cx, (op, v)| cx.forcing(op, v));
            let mut random = Philox::new(6);
            let mut draw = |dims: Shape, to, mean: f64| {
                let values = (0..dims.elements()).map(|_| mean + random.normal());
                Tensor::rounded(cx.rt(), values, dims, to).unwrap()
            };
            let x = draw([2, 19, 21, channels].into(), dtype, 1.0);
            let dy = draw([2, 19, 21, outputs].into(), dtype, 0.0);
            let w = draw([3, 3, channels, outputs].into(), dtype, 0.0);
            let [scale, shift] = [1.0, 0.0].map(|mean| draw([channels].into(), DType::F32, mean));
            let (same, size) = (Geometry::same(3), [19, 21]);
            let apart = conv2d::vjp(&cx, &w, same, size, &dy).unwrap();
            let given = [&x, &scale, &shift];
            let through = |silu| {
                backward(&cx, given, groups, silu, &|saved, params| {
                    let takes = group_norm::takes_sums(&cx, &saved, params).unwrap();
                    let dx = conv2d::vjp_normed(&cx, &w, same, takes.unwrap(), &dy).unwrap();
                    assert_eq!(dx.is_some(), silu);
                    dx.unwrap_or_else(|| x.clone())
                })
            };
            through(false);
            let plain = backward(&cx, given, groups, true, &|saved, params| {
                group_norm::vjp(&cx, saved, params, &apart, None).unwrap()
            });
            let exact = Cx::new(Runtime::native(), DType::F64).unwrap();
            let all = [&x, &scale, &shift, &apart];
            let [x64, scale, shift, dh] = all.map(|t| widened(&exact, t));
            let given = [&x64, &scale, &shift];
            let oracle = backward(&exact, given, groups, true, &|saved, params| {
                group_norm::vjp(&exact, saved, params, &dh, None).unwrap()
            });
            is_within_bounds(dtype, &through(true), &plain, &oracle, "dx");
        }
    }
}

/// Stable Diffusion's autoencoder at 512 x 512 on Hopper: norms of 64 x 64 pixels are by clusters. From 128 x 128 on the
/// convolutions after them apply them, and leave the sums of their backward passes, of which every second is made by the
/// convolution before it; the decoder's last one, on every GPU, goes on through its norm. On other GPUs none of the others.
#[test]
fn stable_diffusion_norms_by_moments() {
    let config = VaeConfig {
        in_channels: 3,
        latent_channels: 4,
        block_out_channels: vec![128, 256, 512, 512],
        layers_per_block: 2,
        groups: 32,
        scaling_factor: 0.18215,
    };
    for (arch, decoder, encoder) in [
        (90, [11, 0, 18, 1], [10, 0, 12, 0]),
        (80, [29, 0, 0, 1], [22, 0, 0, 0]),
    ] {
        let rt = Runtime::dry_for(Target::Kernels(Arch(arch)));
        let cx = Cx::new(rt, DType::Bf16).unwrap();
        let vae = Vae::new(&Weights::planned(&cx, None), config.clone()).unwrap();
        let image = cx.empty([1, 512, 512, 3]).unwrap();
        let latent = cx.empty([1, 64, 64, 4]).unwrap();
        let forward = |[own, given, applied, last]: [u64; 4]| [own, given, applied + last];
        let backward =
            |[own, given, applied, last]: [u64; 4]| [own + given, applied / 2, applied / 2, last];
        let decoded = counted(&cx, |cx| {
            let (_, saved) = vae.decode(cx, &latent).unwrap();
            vae.decode_vjp(cx, saved, &image).unwrap();
        });
        let encoded = counted(&cx, |cx| {
            let (_, _, saved) = vae.encode(cx, &image).unwrap();
            vae.encode_vjp(cx, saved, &latent, &latent).unwrap();
        });
        for (counts, expected, of) in [(decoded, decoder, "decoder"), (encoded, encoder, "encoder")]
        {
            assert_eq!(norms(&counts), forward(expected), "{of}, sm_{arch}");
            assert_eq!(
                backward_norms(&counts),
                backward(expected),
                "{of}, sm_{arch}"
            );
        }
    }
}
