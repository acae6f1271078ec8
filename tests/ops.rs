//! Every variant of every op against the textbook loops in f64.

use posteriori::ops::activation::{self, Activation};
use posteriori::ops::check::Scope;
use posteriori::ops::{self, add, attention, concat, embed, geglu, layer_norm, softmax, upsample};
use posteriori::runtime::Runtime;
use posteriori::{Cx, DType, Tensor};

#[test]
fn every_native_variant_is_within_the_computed_bound() {
    all_pass(&Runtime::native());
}

#[cfg(feature = "emu")]
#[test]
fn every_kernel_is_within_the_computed_bound_and_gives_the_same_bits_under_every_schedule() {
    all_pass(&Runtime::emu(Default::default()));
}

fn all_pass(rt: &Runtime) {
    for op in ops::ALL {
        for row in op.check(rt, Scope::default()).unwrap() {
            assert!(
                row.passed(),
                "{} {} in {} on {}: {:.2} of the bound, {}",
                row.op,
                row.variant,
                row.dtype,
                row.case,
                row.used,
                row.worst
            );
        }
    }
}

/// The kernels of attention in tiles, in bf16: the last of three samples, and that one alone.
#[cfg(feature = "emu")]
#[test]
fn attention_gives_a_sample_the_same_bits_in_any_batch() {
    for variant in ["wgmma", "flash"] {
        let cx = Cx::new(Runtime::emu(Default::default()), DType::Bf16).unwrap();
        let cx = cx
            .forcing("attention.forward", variant)
            .forcing("attention.vjp", variant)
            .forcing("attention.vjp_kv", variant);
        let mut random = posteriori::rng::Philox::new(5);
        let mut draw = || crate::gradients::normals(&cx, &mut random, &[3, 150, 128]);
        let all = [draw(), draw(), draw(), draw()];
        let last = |t: &Tensor| t.samples(t.dims()[0] - 1..t.dims()[0]).unwrap();
        let run = |[q, k, v, dy]: &[Tensor; 4], kv| {
            let (o, saved) = attention::forward(&cx, q, k, v, 2, false).unwrap();
            let (dq, keys) = attention::vjp(&cx, saved, dy, kv).unwrap();
            let mut outputs = vec![o, dq];
            outputs.extend(keys.into_iter().flat_map(<[Tensor; 2]>::from));
            let values = outputs.iter().map(|t| last(t).to_f64().unwrap());
            values.collect::<Vec<_>>()
        };
        for kv in [false, true] {
            let alone = all.each_ref().map(last);
            assert!(run(&all, kv) == run(&alone, kv), "{variant}, kv {kv}");
        }
    }
}

/// Wrong shapes, types and values come back as errors, never as panics.
#[test]
fn what_does_not_fit_is_an_error() {
    let cx = Cx::native();
    let f64s = Cx::new(Runtime::native(), DType::F64).unwrap();
    let zeros = |cx: &Cx, dims: [usize; 3]| cx.upload(&vec![0.0f32; dims.iter().product()], dims);
    let (x, y) = (
        zeros(&cx, [2, 3, 8]).unwrap(),
        zeros(&cx, [2, 3, 6]).unwrap(),
    );
    let (empty, one) = (
        zeros(&cx, [2, 0, 8]).unwrap(),
        zeros(&cx, [1, 3, 8]).unwrap(),
    );
    let none = zeros(&cx, [2, 3, 0]).unwrap();
    let wide = zeros(&f64s, [2, 3, 8]).unwrap();
    let w = cx.upload(&[1.0f32; 8], [8]).unwrap();
    for x in [&empty, &none, &wide] {
        assert!(activation::forward(&cx, x, Activation::Silu).is_err());
        assert!(geglu::forward(&cx, x).is_err());
        assert!(softmax::forward(&cx, x).is_err());
        assert!(add::forward(&cx, x, x).is_err());
        assert!(concat::forward(&cx, x, x).is_err());
        assert!(layer_norm::forward(&cx, x, &w, &w, 1e-5).is_err());
        assert!(attention::forward(&cx, x, x, x, 2, false).is_err());
    }
    assert!(add::forward(&cx, &x, &y).is_err() && upsample::vjp(&cx, &x).is_err());
    assert!(concat::vjp(&cx, &x, 8).is_err() && concat::vjp(&cx, &x, 9).is_err());
    for (q, k, heads, causal) in [(&x, &y, 2, false), (&x, &x, 0, false), (&x, &x, 3, false)] {
        assert!(attention::forward(&cx, q, k, k, heads, causal).is_err());
    }
    let (_, saved) = attention::forward(&cx, &x, &one, &one, 2, false).unwrap();
    assert!(attention::vjp(&cx, saved, &x, true).is_err());
    let (_, saved) = attention::forward(&cx.forward_only(), &x, &x, &x, 2, true).unwrap();
    assert!(attention::vjp(&cx, saved, &x, true).is_err());
    let table = cx.upload(&[0.0f32; 20], [5, 4]).unwrap();
    for id in [-1, 5, i32::MAX] {
        let ids = Tensor::from_slice(cx.rt(), &[0, id], [1, 2]).unwrap();
        assert!(embed::tokens(&cx, &ids, &table, &table).is_err());
    }
    assert!(embed::tokens(&cx, &table, &table, &table).is_err());
    for (dim, freq_shift) in [(0, 0.0), (2, 1.0), (32, f64::NAN)] {
        let wave = embed::Wave {
            flip_sin_to_cos: true,
            freq_shift,
        };
        assert!(embed::timestep(&cx, &w, dim, wave).is_err());
    }
}

/// Products whose depth is cut give a sample the same bits alone, and last of three: the cut is that of one sample, whose
/// rows lie elsewhere in the tiles.
#[cfg(feature = "emu")]
#[test]
fn a_sample_of_a_cut_product_has_the_same_bits_in_any_batch() {
    use posteriori::Shape;
    use posteriori::ops::bench::cases;
    use posteriori::ops::conv2d::{self, Epilogue, Geometry};
    use posteriori::ops::linear;
    use posteriori::rng::Stream;

    type Run = fn(&Cx, &Tensor, &Tensor) -> Tensor;
    let ops: [(&str, Shape, Shape, Run); 4] = [
        (
            "conv2d.forward",
            [3, 3, 3, 424].into(),
            [3, 3, 424, 16].into(),
            |cx, x, w| conv2d::forward(cx, x, w, Geometry::same(3), Epilogue::default()).unwrap(),
        ),
        (
            "conv2d.vjp",
            [3, 3, 3, 424].into(),
            [3, 3, 16, 424].into(),
            |cx, dy, w| conv2d::vjp(cx, w, Geometry::same(3), [3, 3], dy).unwrap(),
        ),
        (
            "linear.forward",
            [3, 5, 3720].into(),
            [16, 3720].into(),
            |cx, x, w| linear::forward(cx, x, w, None, None).unwrap(),
        ),
        (
            "linear.vjp",
            [3, 5, 3720].into(),
            [3720, 16].into(),
            |cx, dy, w| linear::vjp(cx, w, dy).unwrap(),
        ),
    ];
    let normals = |cx: &Cx, arg, shape: Shape| {
        let mut values = vec![0.0f32; shape.elements()];
        Stream::new(5, 0, 0).normals_from(0, arg, 0, &mut values);
        cx.upload(&values, shape).unwrap()
    };
    for (op, x, w, run) in ops {
        for variant in ["split_wgmma_128", "split_128", "split_64"] {
            let cx = Cx::new(Runtime::emu(Default::default()), DType::Bf16).unwrap();
            let (cx, launches) = cx.forcing(op, variant).counted();
            let (x, w) = (normals(&cx, 0, x), normals(&cx, 1, w));
            let of = |x: &Tensor| run(&cx, x, &w).to_f64().unwrap();
            let (all, alone) = (of(&x), of(&x.samples(2..3).unwrap()));
            assert!(
                alone[..] == all[all.len() - alone.len()..],
                "{op} {variant}"
            );
            for (case, _) in cases(&launches.borrow()) {
                let plan = case.plan(&cx).unwrap().unwrap();
                assert_eq!((case.pick(&cx).unwrap(), plan.launches.len()), (variant, 2));
            }
        }
    }
}
