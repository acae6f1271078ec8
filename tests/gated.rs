//! The backward pass of a linear map through the GEGLU that made its input: one launch for two.

use std::collections::BTreeMap;

use posteriori::nn::param::Weights;
use posteriori::nn::transformer::{Transformer2d, TransformerConfig};
use posteriori::ops::check::bounds;
use posteriori::ops::{geglu, linear};
use posteriori::rng::Philox;
use posteriori::runtime::Runtime;
use posteriori::runtime::kernel::{Arch, Target};
use posteriori::{Cx, DType, Shape, Tensor};

/// `[n, rows, k, m]`: edges of all tiles, more steps than stages, and a depth that `linear.vjp` cuts.
const SIZES: [[usize; 4]; 4] = [
    [3, 5, 8, 16],
    [2, 70, 136, 88],
    [2, 130, 264, 280],
    [2, 5, 8, 5544],
];

/// `w`, `x`, `dy`.
type Given = [Tensor; 3];

/// The same numbers, which `stored` holds, for all of that type.
fn draw(cx: &Cx, [n, rows, k, m]: [usize; 4], stored: DType) -> Given {
    let mut random = Philox::new(31);
    let mut normals = |dims: Shape, scale: f64| {
        let values = (0..dims.elements()).map(|_| scale * random.normal());
        let values = Tensor::rounded(&Runtime::native(), values, dims, stored).unwrap();
        let values = values.to_f64().unwrap().into_iter();
        Tensor::rounded(cx.rt(), values, dims, cx.dtype()).unwrap()
    };
    [
        normals([m, k].into(), 1.0 / (k as f64).sqrt()),
        normals([n, rows, 2 * k].into(), 1.0),
        normals([n, rows, m].into(), 1.0),
    ]
}

/// By one launch, and by two.
fn one(cx: &Cx, [w, x, dy]: &Given) -> Vec<f64> {
    let dx = linear::vjp_geglu(cx, w, x, dy).unwrap();
    dx.to_f64().unwrap()
}

fn two(cx: &Cx, [w, x, dy]: &Given) -> Vec<f64> {
    let (_, saved) = geglu::forward(cx, x).unwrap();
    let dh = linear::vjp(cx, w, dy).unwrap();
    geglu::vjp(cx, saved, &dh).unwrap().to_f64().unwrap()
}

/// The largest error, and the root of the mean square.
fn errors(got: &[f64], oracle: &[f64]) -> (f64, f64) {
    let errors = || got.iter().zip(oracle).map(|(g, o)| (g - o).abs());
    let square = errors().map(|e| e * e).sum::<f64>() / got.len() as f64;
    (errors().fold(0.0, f64::max), square.sqrt())
}

fn truth(size: [usize; 4], stored: DType) -> Vec<f64> {
    let cx = Cx::new(Runtime::native(), DType::F64).unwrap();
    two(&cx, &draw(&cx, size, stored))
}

#[test]
fn one_launch_is_two_on_processors() {
    for size in SIZES {
        for dtype in [DType::F64, DType::F32] {
            let cx = Cx::new(Runtime::native(), dtype).unwrap();
            let given = draw(&cx, size, DType::F32);
            let (got, plain) = (one(&cx, &given), two(&cx, &given));
            let oracle = truth(size, DType::F32);
            let of_f64 = || 1e-12 * oracle.iter().fold(0.0f64, |most, v| most.max(v.abs()));
            let (most, mean) = match dtype {
                DType::F32 => bounds(dtype, &plain, &oracle),
                _ => (of_f64(), of_f64()),
            };
            let (largest, square) = errors(&got, &oracle);
            assert!(largest <= most && square <= mean, "{size:?} in {dtype}");
        }
    }
}

/// In one launch the product is not rounded: it is nearer the truth than two. The last sample alone has the same bits.
#[cfg(feature = "emu")]
#[test]
fn one_launch_is_nearer_the_truth_than_two() {
    let variants = [
        "tma_256",
        "wgmma_256",
        "tma_128",
        "wgmma_128",
        "tensor_cores_128",
        "tensor_cores_64",
        "plain",
    ];
    for size in SIZES {
        for dtype in [DType::Bf16, DType::F16] {
            let oracle = truth(size, dtype);
            for variant in variants {
                let cx = Cx::new(Runtime::emu(Default::default()), dtype).unwrap();
                let cx = cx
                    .forcing("linear.vjp", variant)
                    .forcing("linear.vjp_geglu", variant);
                let given = draw(&cx, size, dtype);
                assert!(linear::takes_geglu(&cx, &given[0], &given[2]).unwrap());
                let (got, plain) = (one(&cx, &given), two(&cx, &given));
                let (most, _) = bounds(dtype, &plain, &oracle);
                let (largest, square) = errors(&got, &oracle);
                let (_, of_two) = errors(&plain, &oracle);
                assert!(
                    largest <= most && square < of_two,
                    "{variant} in {dtype}, {size:?}: {largest:e} of {most:e}, {square:e} of {of_two:e}"
                );
                let [w, x, dy] = &given;
                let last = |t: &Tensor| t.samples(size[0] - 1..size[0]).unwrap();
                let alone = one(&cx, &[w.clone(), last(x), last(dy)]);
                assert!(got[got.len() - alone.len()..] == alone[..], "{variant}");
            }
        }
    }
}

/// In f32 nothing is rounded between the two, which take the same steps.
#[cfg(feature = "emu")]
#[test]
fn one_launch_has_the_bits_of_two_where_nothing_is_rounded_between() {
    let cx = Cx::new(Runtime::emu(Default::default()), DType::F32).unwrap();
    for size in SIZES {
        let given = draw(&cx, size, DType::F32);
        assert!(one(&cx, &given) == two(&cx, &given), "{size:?}");
    }
}

/// What the product alone would take decides: a cut depth, or another variant that someone wants, is left apart.
#[test]
fn what_two_launches_are_better_at_is_left_to_them() {
    let rt = || Runtime::dry_for(Target::Kernels(Arch(90)));
    let takes = |cx: &Cx, [n, rows, k, m]: [usize; 4]| {
        let [w, dy] = [[m, k].into(), Shape::from([n, rows, m])].map(|s: Shape| cx.empty(s));
        linear::takes_geglu(cx, &w.unwrap(), &dy.unwrap()).unwrap()
    };
    let cx = Cx::new(rt(), DType::Bf16).unwrap();
    assert!(takes(&cx, [1, 130, 264, 280]));
    assert!(!takes(&cx, [1, 512, 1152, 5544]));
    let cx = cx.forcing("linear.vjp", "wgmma_128");
    assert!(!takes(&cx, [1, 130, 264, 280]));
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let cx = Cx::new(Runtime::native(), DType::F32).unwrap();
    let [w, x, dy] = draw(&cx, [2, 5, 8, 16], DType::F32);
    let narrow = cx.upload(&[0.0f32; 80], [2, 5, 8]).unwrap();
    assert!(linear::vjp_geglu(&cx, &w, &narrow, &dy).is_err());
    assert!(linear::vjp_geglu(&cx, &w, &x.samples(0..1).unwrap(), &dy).is_err());
    assert!(linear::vjp_geglu(&cx, &w, &x, &narrow).is_err());
}

/// All transformers of Stable Diffusion's UNet at 512 x 512 take it, on every GPU.
#[test]
fn stable_diffusion_takes_one_launch() {
    for arch in [80, 90, 100, 120] {
        for (side, c) in [(64, 320), (32, 640), (16, 1280), (8, 1280)] {
            let rt = Runtime::dry_for(Target::Kernels(Arch(arch)));
            let (cx, launches) = Cx::new(rt, DType::Bf16).unwrap().counted();
            let config = TransformerConfig {
                c,
                heads: c / 64,
                context: 1024,
                groups: 32,
                layers: 1,
            };
            let layer = Transformer2d::new(&Weights::planned(&cx, None), config).unwrap();
            let x = cx.empty([1, side, side, c]).unwrap();
            let context = cx.empty([1, 77, 1024]).unwrap();
            let (y, saved) = layer.forward(&cx, &x, &context).unwrap();
            layer.vjp(&cx, saved, &y).unwrap();
            let mut counts = BTreeMap::<_, u64>::new();
            for ((op, _), launched) in launches.borrow().iter() {
                *counts.entry(*op).or_default() += launched.count;
            }
            let of = |op| counts.get(op).copied().unwrap_or(0);
            let ops = ["geglu.forward", "geglu.vjp", "linear.vjp_geglu"];
            assert_eq!(ops.map(of), [1, 0, 1], "sm_{arch}, {side} x {side}");
        }
    }
}
