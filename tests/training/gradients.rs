//! Weight gradients of whole models in f64: against central differences of the loss along directions in the space of
//! the parameters; what is summed over micro-batches; what is left alone.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use posteriori::cx::Gradients;
use posteriori::diffusion::schedule::Schedule;
use posteriori::io::image::Image;
use posteriori::models::config::Config;
use posteriori::models::controlnet::{ControlNet, ControlNetConfig};
use posteriori::models::unet::{UNet, UNetConfig};
use posteriori::models::vae::{Vae, VaeConfig};
use posteriori::nn::param::{Parameter, Weights};
use posteriori::ops::ema;
use posteriori::pipeline::prior::Prior;
use posteriori::rng::Philox;
use posteriori::runtime::Runtime;
use posteriori::train::autoencoder::Autoencoding;
use posteriori::train::cse::Conditioning;
use posteriori::train::denoiser::Denoising;
use posteriori::train::{Loss, Objective};
use posteriori::{Cx, DType, Result, Task};
use serde_json::{Value, json};

use super::{MODEL_FILE, configure, drawn, is_norm_weight, normals, spread, write_drawn};
use super::{controlnet, pixel_unet, unet, vae};
use crate::oracle::assert_close;

pub(super) fn cx() -> Cx {
    Cx::new(Runtime::native(), DType::F64).unwrap()
}

/// The gradients that `loss` leaves, against its differences along random directions: over all parameters at once,
/// and over those of each module alone, so that no small one hides behind a large one.
///
/// `loss` returns itself and what the gradients are to be multiplied by. The difference is of fourth order: its
/// truncation error is of order h^4 = 1e-12 times a fifth derivative, its rounding error of order 1e-16 / h = 1e-13
/// times the loss over the gradient. 1e-7 leaves room for modules whose gradient is small, and catches any wrong term.
pub(super) fn agree(
    what: &str,
    cx: &Cx,
    parameters: &[Parameter],
    loss: impl Fn(&Cx) -> Result<(f64, f64)>,
) {
    const H: f64 = 1e-3;
    let (training, gradients) = cx.training(parameters.iter().map(Parameter::held));
    let (_, scale) = loss(&training).unwrap();
    let gradients = taken(what, parameters, &gradients, scale);
    for p in parameters {
        let left = training.kept_input(p.held());
        assert!(left.is_err(), "{what}: the backward pass left {}", p.name);
    }
    let start: Vec<Vec<f64>> = parameters
        .iter()
        .map(|p| p.value.to_f64().unwrap())
        .collect();
    let module = |p: &Parameter| p.name.rsplit_once('.').unwrap().0.to_owned();
    let modules: BTreeSet<Option<String>> = parameters.iter().map(|p| Some(module(p))).collect();
    for only in [None].into_iter().chain(modules) {
        let mut random = Philox::new(11);
        let chosen = |p: &Parameter| only.as_ref().is_none_or(|only| *only == module(p));
        let v: Vec<Vec<f64>> = parameters
            .iter()
            .zip(&start)
            .map(|(p, start)| {
                let size = if chosen(p) { spread(p) } else { 0.0 };
                start.iter().map(|_| size * random.normal()).collect()
            })
            .collect();
        let at = |h: f64| {
            for ((p, start), v) in parameters.iter().zip(&start).zip(&v) {
                let moved = start.iter().zip(v).map(|(w, v)| w + h * v).collect();
                set(cx, p, moved);
            }
            loss(cx).unwrap().0
        };
        let near = at(H) - at(-H);
        let far = at(2.0 * H) - at(-2.0 * H);
        let want = (8.0 * near - far) / (12.0 * H);
        let pairs = || gradients.iter().flatten().zip(v.iter().flatten());
        let got: f64 = pairs().map(|(g, v)| g * v).sum();
        let size = parameters
            .iter()
            .zip(&gradients)
            .filter(|(p, _)| chosen(p))
            .map(|(p, g)| g.iter().map(|g| g * g).sum::<f64>() * spread(p) * spread(p))
            .sum::<f64>()
            .sqrt();
        let error = (got - want).abs() / size;
        let name = only.as_deref().unwrap_or("all parameters");
        assert!(
            error < 1e-7,
            "{what}, {name}: gradient {got:e}, difference {want:e}, error {error:e}"
        );
    }
    for (p, start) in parameters.iter().zip(start) {
        set(cx, p, start);
    }
}

/// Gives a parameter these values, in the place where its layer holds it.
fn set(cx: &Cx, p: &Parameter, values: Vec<f64>) {
    let values = cx.upload(&values, p.value.shape()).unwrap();
    let all = cx.upload(&[1.0], [1]).unwrap();
    ema::update(cx, &p.value, &values, &all).unwrap();
}

/// The gradients of all parameters in the order of their layers, each of which must be there.
fn taken(
    what: &str,
    parameters: &[Parameter],
    gradients: &RefCell<Gradients>,
    scale: f64,
) -> Vec<Vec<f64>> {
    let take = |p: &Parameter| {
        let g = gradients.borrow_mut().take(p.held());
        let g = g.unwrap_or_else(|| panic!("{what}: {} has no gradient", p.name));
        let g = g.to_f64().unwrap();
        assert_eq!(g.len(), p.shape().iter().product::<usize>(), "{}", p.name);
        g.into_iter().map(|g| scale * g).collect()
    };
    parameters.iter().map(take).collect()
}

const SEED: u64 = 5;

fn images(n: usize, side: usize) -> Vec<Image> {
    let image = |seed| {
        let mut random = Philox::new(seed);
        let pixels = (0..side * side * 3).map(|_| 2.0 * random.uniform() as f32 - 1.0);
        Image::new(side, side, pixels.collect()).unwrap()
    };
    (0..n as u64).map(image).collect()
}

fn schedule(prediction: &str) -> Value {
    json!({
        "_class_name": "DDPMScheduler",
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "num_train_timesteps": 1000,
        "prediction_type": prediction,
    })
}

fn config(value: &Value) -> Config {
    Config::parse("config.json", &value.to_string()).unwrap()
}

fn new_vae(w: &Weights<'_>) -> Result<Vae> {
    Vae::new(w, VaeConfig::read(&config(&vae()))?)
}

fn new_unet(w: &Weights<'_>, of: &Value) -> Result<UNet> {
    UNet::new(w, UNetConfig::read(&config(of))?)
}

fn new_controlnet(w: &Weights<'_>) -> Result<ControlNet> {
    ControlNet::new(w, &ControlNetConfig::read(&config(&controlnet()))?)
}

/// An objective over `micro` images at a time, its parameters, and images for it.
struct Case {
    what: &'static str,
    parameters: Vec<Parameter>,
    objective: Box<dyn Objective>,
    images: Vec<Image>,
}

impl Case {
    fn backward(&self, cx: &Cx, first: usize, n: usize) -> Loss {
        let images = &self.images[first..first + n];
        self.objective.backward(cx, first as u64, images).unwrap()
    }
}

fn cases(cx: &Cx, micro: usize) -> [Case; 4] {
    let context = |seed| {
        let one = normals(cx, seed, [1, 5, 8]).to_f64().unwrap();
        Some(cx.upload(&one.repeat(micro), [micro, 5, 8]).unwrap())
    };
    let (vae, of_vae) = drawn(cx, new_vae);
    let autoencoding = Autoencoding {
        vae,
        kl_weight: 0.3,
        seed: SEED,
    };
    let (unet, of_unet) = drawn(cx, |w| new_unet(w, &unet()));
    let noise = |prediction| {
        let text = schedule(prediction).to_string();
        Schedule::from_json("schedule", &text).unwrap()
    };
    let latent = Denoising {
        unet,
        vae: Some(drawn(cx, new_vae).0),
        schedule: noise("epsilon"),
        context: context(6),
        seed: SEED,
    };
    let (unet, of_pixel_unet) = drawn(cx, |w| new_unet(w, &pixel_unet()));
    let pixel = Denoising {
        unet,
        vae: None,
        schedule: noise("v_prediction"),
        context: None,
        seed: SEED,
    };
    let (controlnet, of_controlnet) = drawn(cx, new_controlnet);
    let folder = tempfile::tempdir().unwrap();
    write_prior(folder.path());
    let conditioning = Conditioning {
        controlnet,
        prior: Prior::open(cx, folder.path()).unwrap(),
        context: context(7),
        operator: Task::super_resolution(4).build(cx, [8, 8]).unwrap(),
        seed: SEED,
    };
    let case = |what, parameters, objective: Box<dyn Objective>| Case {
        what,
        parameters,
        objective,
        images: images(4, 8),
    };
    [
        case("autoencoder", of_vae, Box::new(autoencoding)),
        case("denoiser of latents", of_unet, Box::new(latent)),
        case("denoiser of pixels", of_pixel_unet, Box::new(pixel)),
        case("cse", of_controlnet, Box::new(conditioning)),
    ]
}

/// A model folder of drawn weights in f64.
fn write_prior(folder: &Path) {
    configure(folder);
    let schedule = schedule("epsilon");
    super::write(&folder.join("scheduler/scheduler_config.json"), &schedule);
    write_drawn(&folder.join("vae").join(MODEL_FILE), new_vae);
    write_drawn(&folder.join("unet").join(MODEL_FILE), |w| {
        new_unet(w, &unet())
    });
}

#[test]
fn of_models_agree_with_differences() {
    // The tensors are too small to be shared among threads.
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    alone.unwrap().install(|| {
        let cx = &cx();
        for case in cases(cx, 2) {
            agree(case.what, cx, &case.parameters, |cx| {
                let Loss { value, scale, .. } = case.backward(cx, 0, 2);
                Ok((value, scale))
            });
        }
    });
}

#[test]
fn of_two_micro_batches_are_those_of_one() {
    let cx = &cx();
    for (whole, halves) in cases(cx, 4).iter().zip(cases(cx, 2)) {
        let gradients = |case: &Case, n: usize| {
            let (training, gradients) = cx.training(case.parameters.iter().map(Parameter::held));
            let (mut value, mut scale) = (0.0, 0.0);
            let share = n as f64 / 4.0;
            for first in (0..4).step_by(n) {
                let loss = case.backward(&training, first, n);
                value += share * loss.value;
                scale = share * loss.scale;
            }
            let all = taken(case.what, &case.parameters, &gradients, scale).concat();
            (value, all)
        };
        let (value, want) = gradients(whole, 4);
        let (sum, got) = gradients(&halves, 2);
        // The same products, summed in another order.
        let norm = want.iter().map(|g| g * g).sum::<f64>().sqrt();
        assert_close(whole.what, &[sum], &[value], 1e-14, 0.0);
        assert_close(whole.what, &got, &want, 0.0, 1e-14 * norm);
    }
}

/// What is frozen costs nothing: as many weight gradients are launched as weights are trained. Those are the same
/// bits whatever else is trained.
#[test]
fn frozen_parameters_get_none() {
    let cx = &cx();
    for case in cases(cx, 2) {
        let run = |trained: &[&Parameter]| -> Vec<Vec<f64>> {
            let (counting, launches) = cx.counted();
            let (training, gradients) = counting.training(trained.iter().map(|p| p.held()));
            case.backward(&training, 0, 2);
            let launches = launches.borrow();
            let launched = |op: &str| -> u64 {
                let of_op = launches.iter().filter(|((name, _), _)| *name == op);
                of_op.map(|(_, launched)| launched.count).sum()
            };
            let rank = |rank| trained.iter().filter(|p| p.shape().len() == rank).count() as u64;
            assert_eq!(launched("conv2d.wgrad"), rank(4), "{}", case.what);
            assert_eq!(launched("linear.wgrad"), rank(2), "{}", case.what);
            let norms = trained.iter().filter(|p| is_norm_weight(p)).count() as u64;
            let got = launched("group_norm.wgrad") + launched("layer_norm.wgrad");
            assert_eq!(got, norms, "{}", case.what);
            let take = |p: &Parameter| gradients.borrow_mut().take(p.held());
            let all = case.parameters.iter().filter_map(take);
            all.map(|g| g.to_f64().unwrap()).collect()
        };
        let all: Vec<&Parameter> = case.parameters.iter().collect();
        let (some, of_some): (Vec<&Parameter>, Vec<Vec<f64>>) = all
            .iter()
            .zip(run(&all))
            .filter(|(p, _)| p.name.contains("resnets"))
            .unzip();
        assert!(!some.is_empty() && some.len() < all.len());
        assert!(run(&some) == of_some, "{}", case.what);
        assert!(run(&[]).is_empty());
    }
}

#[test]
fn a_forward_only_run_keeps_nothing() {
    let cx = &cx();
    let (unet, parameters) = drawn(cx, |w| new_unet(w, &pixel_unet()));
    let (training, _) = cx.training(parameters.iter().map(Parameter::held));
    let x = normals(cx, 1, [1, 8, 8, 3]);
    let t = cx.upload(&[321.0], [1]).unwrap();
    let kept = |training: &Cx| {
        let all = parameters.iter().filter(|p| !is_norm_weight(p));
        all.filter(|p| training.kept_input(p.held()).is_ok())
            .count()
    };
    unet.forward(&training.forward_only(), &x, &t, None, None)
        .unwrap();
    assert_eq!(kept(&training), 0);
    unet.forward(&training, &x, &t, None, None).unwrap();
    let weights = parameters.iter().filter(|p| p.shape().len() > 1).count();
    assert_eq!(kept(&training), weights);
}
