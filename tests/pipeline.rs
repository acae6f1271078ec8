//! Whole restorations: the same bits in any batch, the plan against the run, guidance that guides.

use posteriori::DType;
use posteriori::diffusion::schedule::{Coordinates, Spacing};
use posteriori::io::image::Image;
use posteriori::operators::Task;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::job::{Algorithm, Method, Restore};
use posteriori::pipeline::plan::{Batch, Engine, Plan};
use posteriori::pipeline::{Item, Own, Pipeline, Restored};
use posteriori::rng::{Philox, Stream};
use posteriori::runtime::kernel::{Arch, Target};
use posteriori::runtime::native::Products;
use posteriori::samplers::Follow;
use posteriori::samplers::resample::{Blend, Descent, Solve, Stages};

use crate::oracle;

/// A measurement of smooth colour with a little noise.
fn measurement(seed: u64, side: usize) -> Image {
    let mut random = Philox::new(seed);
    let [a, b, c] = [(); 3].map(|()| random.uniform());
    let pixel = |i: usize| {
        let (x, y, channel) = ((i / 3 % side) as f64, (i / 3 / side) as f64, (i % 3) as f64);
        ((a * x + b * y + c * channel).sin() * 0.7 + 0.05 * random.normal()) as f32
    };
    Image::new(side, side, (0..side * side * 3).map(pixel).collect()).unwrap()
}

/// Every algorithm, short, and every way to follow a gradient.
fn methods() -> Vec<Method> {
    let resample = |stages, descent| {
        let algorithm = Algorithm::Resample {
            every: Some(2),
            solve: Solve {
                stages,
                iterations: 2,
                rate: 0.02,
                descent,
                strength: 40.0,
                blend: Blend::Original,
            },
        };
        Method {
            algorithm,
            ..Method::resample()
        }
    };
    vec![
        Method::dps().steps(3).zeta(0.5),
        Method::dmap().steps(2).zeta(0.5),
        Method::dsg().steps(3),
        Method::psld().steps(3).zeta(0.5),
        Method::freedom().steps(5).zeta(0.5),
        resample(Stages::Latent, Descent::Adam).steps(4).zeta(0.5),
        resample(Stages::Pixel, Descent::Gradient)
            .steps(4)
            .zeta(0.5),
        Method::dps().steps(3).zeta(0.5).follow(Follow::Norm),
        Method::dps()
            .steps(3)
            .zeta(0.5)
            .follow(Follow::Momentum { beta: 0.9 }),
        Method::dmap().steps(3).zeta(0.01).follow(Follow::Adam {
            beta1: 0.9,
            beta2: 0.999,
        }),
        Method::ancestral().steps(2),
    ]
}

fn jobs() -> Vec<Restore> {
    let job = |method| Restore::new(Task::super_resolution(4), method).seed(9);
    methods().into_iter().map(job).collect()
}

#[test]
fn an_image_is_the_same_alone_in_three_and_last_of_five() {
    let pipeline = Pipeline::open(oracle::checkpoint("tiny-pixel"), Device::cpu()).unwrap();
    let images: Vec<Image> = (0..5).map(|seed| measurement(seed, 8)).collect();
    let item = |i: usize| Item {
        y: &images[i],
        key: 100 + i as u64,
        sample: 0,
    };
    for job in jobs() {
        let run = |items: &[Item<'_>]| -> Vec<Image> {
            let all = pipeline.restore_batch(&job, items, |_| ()).unwrap();
            all.into_iter().map(|r| r.unwrap().image).collect()
        };
        let alone = run(&[item(4)]).remove(0);
        let three = run(&[item(0), item(4), item(2)]).remove(1);
        let five = run(&[item(0), item(1), item(2), item(3), item(4)]).remove(4);
        assert!(
            alone.pixels == three.pixels && alone.pixels == five.pixels,
            "{:?}",
            job.method
        );
        let one_thread = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        assert!(alone.pixels == one_thread.install(|| run(&[item(4)]).remove(0)).pixels);
        let other_key = run(&[Item { key: 7, ..item(4) }]).remove(0);
        assert!(
            alone.pixels != other_key.pixels,
            "noise must depend on the image's key"
        );
    }
}

#[test]
fn latent_models_give_the_same_bits_in_a_batch() {
    let folder = oracle::checkpoint("tiny-sd1");
    let pipeline = Pipeline::open(&folder, Device::cpu()).unwrap();
    let pipeline = pipeline.with_controlnet(folder.join("controlnet")).unwrap();
    let images: Vec<Image> = (0..3).map(|seed| measurement(seed, 8)).collect();
    let items: Vec<Item<'_>> = images
        .iter()
        .map(|y| Item {
            y,
            key: 1,
            sample: 2,
        })
        .collect();
    let job = Restore::new(Task::super_resolution(8), Method::dmap().steps(2).zeta(0.5));
    let together = pipeline.restore_batch(&job, &items, |_| ()).unwrap();
    for (item, together) in items.iter().zip(together) {
        let alone = pipeline
            .restore_batch(&job, &[*item], |_| ())
            .unwrap()
            .remove(0)
            .unwrap();
        assert!(alone.image.pixels == together.unwrap().image.pixels);
    }
}

/// The `.cu` kernels, on the emulator, in 16 bits: the same bits alone, and last in a batch of three.
#[cfg(feature = "emu")]
#[test]
fn kernels_give_the_same_bits_in_a_batch() {
    for (model, side, precision) in [("tiny-pixel", 8, "bf16"), ("tiny-sd1", 8, "f16")] {
        let device = Device::parse("emu").unwrap().with_precision(precision);
        let pipeline = Pipeline::open(oracle::checkpoint(model), device.unwrap()).unwrap();
        let images: Vec<Image> = (0..3).map(|seed| measurement(seed, side)).collect();
        let item = |i: usize| Item {
            y: &images[i],
            key: i as u64,
            sample: 0,
        };
        let job = Restore::new(Task::super_resolution(4), Method::dmap().steps(2).zeta(0.5));
        let run = |items: &[Item<'_>]| {
            let mut all = pipeline.restore_batch(&job, items, |_| ()).unwrap();
            all.pop().unwrap().unwrap().image.pixels
        };
        assert!(
            run(&[item(2)]) == run(&[item(0), item(1), item(2)]),
            "{model}"
        );
    }
}

#[test]
fn the_plan_is_what_the_run_takes() {
    for (model, side) in [("tiny-sd2", 16), ("tiny-pixel", 8)] {
        let longer =
            [8, 9].map(|steps| Restore::new(Task::super_resolution(4), Method::dps().steps(steps)));
        for (job, batch) in jobs()
            .into_iter()
            .chain(longer)
            .zip([1, 2, 3].into_iter().cycle())
        {
            let device = Device::cpu();
            let pipeline = Pipeline::open(oracle::checkpoint(model), device.clone()).unwrap();
            let y = measurement(1, side);
            let items = vec![
                Item {
                    y: &y,
                    key: 0,
                    sample: 0
                };
                batch
            ];
            let plan = pipeline.plan(&job, [4 * side, 4 * side], batch).unwrap();
            pipeline.restore_batch(&job, &items, |_| ()).unwrap();
            assert_eq!(device.rt().peak(), plan.slab, "{model} {:?}", job.method);
            assert!(plan.live <= plan.slab && plan.saved <= plan.live);
        }
    }
}

#[test]
fn sd2_saves_at_most_1_6_gb_an_image() {
    let folder = oracle::data("sd2-base");
    let job = Restore::new(Task::super_resolution(8), Method::dps());
    let engine = Engine {
        target: Target::Kernels(Arch(90)),
        dtype: DType::Bf16,
        products: Products::F32,
        forced: Vec::new(),
    };
    let plan = |batch| {
        let work = Batch {
            measured: true,
            size: [512, 512],
            batch,
        };
        Plan::of(&folder, None, &job, work, &engine).unwrap()
    };
    for batch in [1, 4] {
        let plan = plan(batch);
        assert!(plan.saved <= batch * 1_600_000_000, "{plan}");
        // PERFORMANCE: UNet .8043 + .9858, decoder 2.5145 + 2.5661 TFLOP, of which the upsamplers' convolutions were .0679 and
        // .6958 in each direction and are 4/9 of that; the rest is elementwise.
        let tflop = plan.step.flops as f64 / 1e12 / batch as f64;
        assert!((6.0..6.2).contains(&tflop), "{plan}");
    }
    // 865,910,724 + 83,653,863 parameters of two bytes, the 443,844 + 65,943 in biases and norms of four; an upsampler's 9 weights
    // are folded into 16.
    let (all, vectors) = (865_910_724 + 83_653_863, 443_844 + 65_943);
    let folded: u64 = [1280, 1280, 640, 512, 512, 256]
        .map(|c| 7 * c * c)
        .iter()
        .sum();
    assert_eq!(plan(1).weights, 2 * (all + vectors + folded));
}

#[test]
fn guidance_lowers_the_residual() {
    let pipeline = Pipeline::open(oracle::checkpoint("tiny-pixel"), Device::cpu()).unwrap();
    let y = measurement(3, 8);
    let residual = |mut method: Method| {
        // The settings of the goldens' trajectories, at which this random network is a crude denoiser.
        (method.coordinates, method.spacing) = (Coordinates::Vp, Spacing::Leading);
        let job = Restore::new(Task::super_resolution(4), method.steps(8)).seed(1);
        pipeline.restore(&job, &y, |_| ()).unwrap().residual
    };
    let free = residual(Method::ancestral());
    for method in methods() {
        let guided = match (method.algorithm, method.follow) {
            (Algorithm::Ancestral, _) => continue,
            (Algorithm::Dsg { .. }, _) => residual(method.zeta(0.2)),
            (_, Follow::Plain | Follow::Momentum { .. }) => residual(method.zeta(1.5)),
            (_, Follow::Norm) => residual(method.zeta(8.0)),
            (_, Follow::Adam { .. }) => residual(method.zeta(0.1)),
        };
        assert!(guided < 0.8 * free, "{method:?}: {free} {guided}");
    }
}

#[test]
fn zeta_zero_is_ancestral_sampling() {
    let pipeline = Pipeline::open(oracle::checkpoint("tiny-pixel"), Device::cpu()).unwrap();
    let y = measurement(3, 8);
    let pixels = |method: Method| {
        let job = Restore::new(Task::super_resolution(4), method.steps(4)).seed(1);
        pipeline.restore(&job, &y, |_| ()).unwrap().image.pixels
    };
    let ancestral = pixels(Method::ancestral());
    for method in methods() {
        let mut without = method.zeta(0.0);
        if let Algorithm::Resample { solve, .. } = &mut without.algorithm {
            // What it solves for does not depend on zeta.
            solve.iterations = 0;
        }
        assert!(pixels(without) == ancestral, "{method:?}");
    }
}

#[test]
fn both_coordinates_draw_the_same_prior_samples() {
    let pipeline = Pipeline::open(oracle::checkpoint("tiny-pixel"), Device::cpu()).unwrap();
    let pixels = |coordinates| {
        let mut method = Method::ancestral().steps(6).coordinates(coordinates);
        method.spacing = Spacing::Leading;
        let job = Restore::new(Task::super_resolution(4), method);
        let streams = [Stream::new(4, 5, 0)];
        pipeline
            .generate(&job, [32, 32], &streams, |_| ())
            .unwrap()
            .remove(0)
            .unwrap()
            .image
            .pixels
    };
    let (ve, vp) = (pixels(Coordinates::Ve), pixels(Coordinates::Vp));
    let worst = ve
        .iter()
        .zip(&vp)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    // The same function of the same noise, rounded in other places: six steps of f32 networks.
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn a_diverging_sample_is_an_error_of_its_own() {
    let pipeline = Pipeline::open(oracle::checkpoint("tiny-pixel"), Device::cpu()).unwrap();
    let good = measurement(1, 8);
    let mut bad = good.clone();
    bad.pixels[0] = f32::NAN;
    let job = Restore::new(Task::super_resolution(4), Method::dps().steps(3).zeta(0.5));
    let items = [
        Item {
            y: &bad,
            key: 1,
            sample: 0,
        },
        Item {
            y: &good,
            key: 2,
            sample: 0,
        },
    ];
    let results = pipeline.restore_batch(&job, &items, |_| ()).unwrap();
    assert!(
        results[0]
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("diverged at step 0")
    );
    let alone = pipeline
        .restore_batch(&job, &items[1..], |_| ())
        .unwrap()
        .remove(0)
        .unwrap();
    assert!(results[1].as_ref().unwrap().image.pixels == alone.image.pixels);
}

/// The crate's operator and sampler, brought from outside, do what they do inside; others are what counts then.
#[test]
fn what_an_embedder_brings_takes_the_place_of_the_job_s_own() {
    let folder = oracle::checkpoint("tiny-sd1");
    let pipeline = Pipeline::open(&folder, Device::cpu()).unwrap();
    let pipeline = pipeline.with_controlnet(folder.join("controlnet")).unwrap();
    let images: Vec<Image> = (0..2).map(|seed| measurement(seed, 8)).collect();
    let items: Vec<Item<'_>> = images
        .iter()
        .map(|y| Item {
            y,
            key: 3,
            sample: 1,
        })
        .collect();
    let pixels = |all: Vec<posteriori::Result<Restored>>| -> Vec<(Vec<f32>, f64)> {
        let one =
            |r: posteriori::Result<Restored>| r.map(|r| (r.image.pixels, r.residual)).unwrap();
        all.into_iter().map(one).collect()
    };
    let task = Task::super_resolution(4);
    let method = Method::dps().steps(3).zeta(0.5);
    let job = Restore::new(task.clone(), method).seed(9);
    let want = pixels(pipeline.restore_batch(&job, &items, |_| ()).unwrap());

    let size = [32, 32];
    let operator = task.build(&pipeline.cx().unwrap(), size).unwrap();
    let sampler = job.sampler();
    let brought =
        |job: &Restore, own| pixels(pipeline.restore_with(job, own, &items, |_| ()).unwrap());
    let own = Own {
        operator: Some((&*operator, size)),
        sampler: Some(&*sampler),
    };
    assert!(brought(&job, Own::default()) == want);
    let other = Restore::new(
        Task::parse("color").unwrap(),
        Method {
            algorithm: Algorithm::Ancestral,
            ..method
        },
    );
    assert!(brought(&other.clone().seed(9), own) == want);
    // Each counts: without one of them it is another restoration.
    let alone = Own {
        operator: own.operator,
        ..Own::default()
    };
    assert!(brought(&other.seed(9), alone) != want);
    // A measurement of another size is refused by name.
    let wrong = Own {
        operator: Some((&*operator, [64, 64])),
        ..own
    };
    assert!(pipeline.restore_with(&job, wrong, &items, |_| ()).is_err());
}
