//! An upsampling and a 3x3 convolution are the transposed convolution that they are folded into.

use posteriori::ops::check::bounds;
use posteriori::ops::conv2d::{self, Epilogue, Geometry};
use posteriori::ops::{upsample, upsample_conv};
use posteriori::rng::Philox;
use posteriori::runtime::Runtime;
use posteriori::{Cx, DType, Tensor};

/// The geometry of the folded kernel, from the large image to the small one.
const HALVING: Geometry = Geometry {
    stride: 2,
    before: 1,
    after: 1,
};

/// Sizes `[n, h, w, i]` of the small image and the channels of the large one.
const CASES: [([usize; 4], usize); 6] = [
    ([1, 1, 1, 3], 2),
    ([1, 1, 5, 4], 7),
    ([2, 2, 1, 8], 8),
    ([3, 5, 7, 24], 40),
    ([1, 9, 8, 33], 5),
    ([2, 13, 11, 72], 136),
];

/// Numbers that every storage type holds, or that f32 holds; of one case, in `f64`.
struct Given {
    x: Vec<f64>,
    dy: Vec<f64>,
    bias: Vec<f64>,
    /// `[o, i, 3, 3]`
    w: Vec<f32>,
}

impl Given {
    fn draw(dtype: DType, ([n, h, w, i], o): ([usize; 4], usize)) -> Self {
        let mut random = Philox::new(29);
        let mut normals =
            |len: usize, dtype| rounded(dtype, (0..len).map(|_| random.normal()).collect());
        let scale = 1.0 / (9.0 * i as f64).sqrt();
        let w9 = normals(9 * i * o, DType::F32);
        Given {
            x: normals(n * h * w * i, dtype),
            dy: normals(n * 4 * h * w * o, dtype),
            bias: normals(o, DType::F32),
            w: w9.iter().map(|w| (w * scale) as f32).collect(),
        }
    }
}

fn rounded(dtype: DType, values: Vec<f64>) -> Vec<f64> {
    let len = values.len();
    let tensor = Tensor::rounded(&Runtime::native(), values.into_iter(), [len], dtype);
    tensor.unwrap().to_f64().unwrap()
}

/// `[y, dx]` of the upsampling and the convolution, one after the other, with these weights `[o, i, 3, 3]`.
fn apart(
    cx: &Cx,
    ([n, h, w, i], o): ([usize; 4], usize),
    given: &Given,
    w9: &[f64],
) -> [Vec<f64>; 2] {
    let weights: Vec<f64> = (0..9 * i * o)
        .map(|at| w9[(at % o * i + at / o % i) * 9 + at / o / i])
        .collect();
    let weights = cx.upload(&weights, [3, 3, i, o]).unwrap();
    let x = cx.upload(&given.x, [n, h, w, i]).unwrap();
    let dy = cx.upload(&given.dy, [n, 2 * h, 2 * w, o]).unwrap();
    let bias = cx.upload(&given.bias, [o]).unwrap();
    let add = Epilogue {
        bias: Some(&bias),
        ..Default::default()
    };
    let large = upsample::forward(cx, &x).unwrap();
    let y = conv2d::forward(cx, &large, &weights, Geometry::same(3), add).unwrap();
    let dx = conv2d::vjp(cx, &weights, Geometry::same(3), [2 * h, 2 * w], &dy).unwrap();
    [y, upsample::vjp(cx, &dx).unwrap()].map(|t| t.to_f64().unwrap())
}

/// `[y, dx]` of the transposed convolution with the folded weights.
fn folded(
    cx: &Cx,
    ([n, h, w, i], o): ([usize; 4], usize),
    given: &Given,
    weights: &Tensor,
) -> [Vec<f64>; 2] {
    let x = cx.upload(&given.x, [n, h, w, i]).unwrap();
    let dy = cx.upload(&given.dy, [n, 2 * h, 2 * w, o]).unwrap();
    let bias = cx.upload_wide(&given.bias, [o]).unwrap();
    let y = conv2d::transposed(cx, weights, HALVING, [2 * h, 2 * w], &x, Some(&bias)).unwrap();
    let dx = conv2d::forward(cx, &dy, weights, HALVING, Epilogue::default()).unwrap();
    [y, dx].map(|t| t.to_f64().unwrap())
}

/// Every phase, every border, several samples: in f64 the two forms differ by roundings.
#[test]
fn both_forms_are_one_function() {
    let cx = Cx::new(Runtime::native(), DType::F64).unwrap();
    for case @ ([.., i], o) in CASES {
        let given = Given::draw(DType::F64, case);
        let w9: Vec<f64> = given.w.iter().map(|&w| w.into()).collect();
        let weights = cx
            .upload(&upsample_conv::folded(&w9), [4, 4, o, i])
            .unwrap();
        let (want, got) = (
            apart(&cx, case, &given, &w9),
            folded(&cx, case, &given, &weights),
        );
        for (want, got) in want.iter().zip(&got) {
            let largest = want.iter().fold(0.0f64, |most, v| most.max(v.abs()));
            let error = want.iter().zip(got).map(|(w, g)| (w - g).abs());
            let error = error.fold(0.0, f64::max) / largest;
            assert!(error <= 1e-13, "{case:?}: off by {error:e}");
        }
    }
}

/// Folding and then rounding costs no more than the checks allow: the folded form from f32 weights, in every storage
/// type, is within the bound of the checks, of which the oracle is the unfolded form in f64 with those weights, and the
/// plain variant the unfolded form by the textbook loops in f32 with weights of the storage type.
fn is_within_the_bound(rt: &Runtime, dtype: DType) {
    let f64s = Cx::new(Runtime::native(), DType::F64).unwrap();
    let textbook = Cx::native()
        .forcing("conv2d.forward", "plain")
        .forcing("conv2d.vjp", "plain");
    let cx = Cx::new(rt.clone(), dtype).unwrap();
    for case @ ([.., i], o) in CASES {
        let given = Given::draw(dtype, case);
        let w9: Vec<f64> = given.w.iter().map(|&w| w.into()).collect();
        let oracle = apart(&f64s, case, &given, &w9);
        let plain = apart(&textbook, case, &given, &rounded(dtype, w9));
        let file = Tensor::from_slice(rt, &given.w, [o, i, 9]).unwrap();
        let weights = upsample_conv::fold(&cx, &file, dtype).unwrap();
        let got = folded(&cx, case, &given, &weights);
        for ((got, plain), oracle) in got.iter().zip(plain).zip(&oracle) {
            let (most, mean) = bounds(dtype, &rounded(dtype, plain), oracle);
            let errors = || got.iter().zip(oracle).map(|(g, o)| (g - o).abs());
            let largest = errors().fold(0.0, f64::max);
            let root = (errors().map(|e| e * e).sum::<f64>() / oracle.len() as f64).sqrt();
            assert!(
                largest <= most && root <= mean,
                "{dtype} {case:?}: {:.2} and {:.2} of the bounds",
                largest / most,
                root / mean
            );
        }
    }
}

#[test]
fn folded_weights_are_within_the_bound() {
    is_within_the_bound(&Runtime::native(), DType::F32);
}

#[cfg(feature = "emu")]
#[test]
fn folded_weights_of_every_type_are_within_the_bound() {
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        is_within_the_bound(&Runtime::emu(Default::default()), dtype);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let cx = Cx::native();
    let zeros = |dims: [usize; 3]| {
        cx.upload(&vec![0.0f32; dims.iter().product()], dims)
            .unwrap()
    };
    assert!(upsample_conv::fold(&cx, &zeros([2, 3, 4]), DType::F32).is_err());
    let ids = Tensor::from_slice(cx.rt(), &[0i32; 54], [2, 3, 9]).unwrap();
    assert!(upsample_conv::fold(&cx, &ids, DType::F32).is_err());
}
