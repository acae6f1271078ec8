//! The trainer with gradients that are given, where AdamW, clipping, averages and the checks of a step have closed
//! forms.

use posteriori::io::image::Image;
use posteriori::io::weights::Checkpoint;
use posteriori::nn::linear::Linear;
use posteriori::nn::param::{Parameter, accumulate};
use posteriori::train::{Loss, Objective, Settings, Trainer};
use posteriori::{Cx, Error, Result};

use super::gradients::cx;
use super::{drawn, normals};
use crate::oracle::assert_close;

/// Leaves these gradients, each times one plus the number of its first sample in its batch, and a loss by that sample.
struct Given {
    parameters: Vec<Parameter>,
    gradients: Vec<Option<Vec<f64>>>,
    batch: u64,
    scale: f64,
    loss: fn(u64) -> f64,
}

impl Objective for Given {
    fn backward(&self, cx: &Cx, first: u64, _: &[Image]) -> Result<Loss> {
        let factor = (1 + first % self.batch) as f64;
        for (p, g) in self.parameters.iter().zip(&self.gradients) {
            if let Some(g) = g {
                let g: Vec<f64> = g.iter().map(|g| factor * g).collect();
                accumulate(cx, p.held(), cx.upload(&g, p.value.shape())?)?;
            }
        }
        let value = (self.loss)(first);
        Ok(Loss {
            value,
            parts: vec![("half", value / 2.0)],
            scale: self.scale,
        })
    }
}

/// A linear layer `[2, 3]` with a bias, whose gradients are given; and settings under which nothing is clipped,
/// averaged or decayed.
fn given(cx: &Cx) -> (Given, Settings) {
    let (_, parameters) = drawn(cx, |w| Linear::new(&w.at("layer"), 3, 2, true));
    let gradient = |p: &Parameter| Some(normals(cx, 9, p.value.shape()).to_f64().unwrap());
    let objective = Given {
        gradients: parameters.iter().map(gradient).collect(),
        parameters,
        batch: 1,
        scale: 1.0,
        loss: |_| 1.0,
    };
    let settings = Settings {
        steps: 100,
        batch: 1,
        micro: 1,
        lr: 0.01,
        weight_decay: 0.0,
        clip: None,
        ..Settings::default()
    };
    (objective, settings)
}

fn images(n: usize) -> Vec<Image> {
    vec![Image::new(1, 1, vec![0.0; 3]).unwrap(); n]
}

fn values(parameters: &[Parameter]) -> Vec<f64> {
    let value = |p: &Parameter| p.value.to_f64().unwrap();
    parameters.iter().flat_map(value).collect()
}

fn trainer(cx: &Cx, objective: &Given, settings: &Settings) -> Trainer {
    Trainer::new(
        cx,
        objective.parameters.clone(),
        settings.clone(),
        &[],
        None,
    )
    .unwrap()
}

/// Averages of a constant are that constant once their bias is corrected: every step of AdamW is the same.
#[test]
fn steps_along_a_constant_gradient() {
    let cx = &cx();
    let (objective, settings) = given(cx);
    let g = objective
        .gradients
        .clone()
        .into_iter()
        .flatten()
        .flatten()
        .collect::<Vec<_>>();
    let start = values(&objective.parameters);
    let mut trainer = trainer(cx, &objective, &settings);
    for step in 0..5 {
        let record = trainer.step(&objective, &images(1)).unwrap();
        assert_eq!((record.step, record.loss, record.lr), (step, 1.0, 0.01));
        assert_eq!(record.parts, [("half", 0.5)]);
        let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
        assert_close("norm", &[record.norm], &[norm], 1e-14, 0.0);
    }
    let moved = start
        .iter()
        .zip(&g)
        .map(|(w, g)| w - 5.0 * 0.01 * g / (g.abs() + 1e-8));
    let want: Vec<f64> = moved.collect();
    assert_close("AdamW", &values(&objective.parameters), &want, 0.0, 1e-13);
    assert_eq!((trainer.next(), trainer.losses()), (5, &[1.0; 5][..]));
}

/// With `eps = 1` a step is `lr g / (|g| + 1)` and shows how long the gradient was.
#[test]
fn clipping_is_by_the_norm_over_all_parameters() {
    let cx = &cx();
    for clip in [None, Some(1e-3), Some(0.7), Some(1e6)] {
        let (mut objective, settings) = given(cx);
        objective.scale = 0.5;
        let settings = Settings {
            clip,
            eps: 1.0,
            ..settings
        };
        let g = objective
            .gradients
            .iter()
            .flatten()
            .flatten()
            .map(|g| 0.5 * g)
            .collect::<Vec<_>>();
        let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
        let start = values(&objective.parameters);
        let record = trainer(cx, &objective, &settings)
            .step(&objective, &images(1))
            .unwrap();
        assert_close("norm", &[record.norm], &[norm], 1e-14, 0.0);
        // torch.nn.utils.clip_grad_norm_ adds 1e-6 to the norm.
        let kept = clip.map_or(1.0, |clip| (clip / (norm + 1e-6)).min(1.0));
        let step = |g: &f64| 0.01 * kept * g / ((kept * g).abs() + 1.0);
        let want: Vec<f64> = start.iter().zip(&g).map(|(w, g)| w - step(g)).collect();
        assert_close("clipped", &values(&objective.parameters), &want, 0.0, 1e-15);
    }
}

/// Micro-batches from samples 0, 2 and 4 of a batch leave 1, 3 and 5 times the gradient: 3 times on the mean.
#[test]
fn a_step_takes_the_mean_over_its_micro_batches() {
    let cx = &cx();
    let (mut objective, settings) = given(cx);
    (objective.batch, objective.loss) = (6, |first| (first % 6) as f64);
    let settings = Settings {
        batch: 6,
        micro: 2,
        eps: 1.0,
        ..settings
    };
    let start = values(&objective.parameters);
    let mut trainer = trainer(cx, &objective, &settings);
    for _ in 0..2 {
        let record = trainer.step(&objective, &images(6)).unwrap();
        assert_close(
            "loss",
            &[record.loss, record.parts[0].1],
            &[2.0, 1.0],
            1e-15,
            0.0,
        );
    }
    let g = objective.gradients.iter().flatten().flatten();
    let step = |g: &f64| 2.0 * 0.01 * 3.0 * g / ((3.0 * g).abs() + 1.0);
    let want: Vec<f64> = start.iter().zip(g).map(|(w, g)| w - step(g)).collect();
    assert_close("mean", &values(&objective.parameters), &want, 0.0, 1e-14);

    let error = trainer
        .step(&objective, &images(5))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("6 images") && error.contains("got 5"),
        "{error}"
    );
}

#[test]
fn what_the_loss_does_not_depend_on_only_decays() {
    let cx = &cx();
    let (mut objective, settings) = given(cx);
    objective.gradients[0] = None;
    let settings = Settings {
        weight_decay: 0.1,
        ..settings
    };
    let before: Vec<Vec<f64>> = objective
        .parameters
        .iter()
        .map(|p| p.value.to_f64().unwrap())
        .collect();
    let mut trainer = trainer(cx, &objective, &settings);
    for _ in 0..3 {
        trainer.step(&objective, &images(1)).unwrap();
    }
    let decay = 1.0 - 0.01 * 0.1;
    let want: Vec<f64> = before[0]
        .iter()
        .map(|w| decay * decay * decay * w)
        .collect();
    assert_close(
        "alone",
        &values(&objective.parameters[..1]),
        &want,
        1e-15,
        0.0,
    );
    // The other decays before each step.
    let g = objective.gradients[1].as_ref().unwrap();
    let steps = |w: &f64, g: &f64| (0..3).fold(*w, |w, _| decay * w - 0.01 * g / (g.abs() + 1e-8));
    let want: Vec<f64> = before[1].iter().zip(g).map(|(w, g)| steps(w, g)).collect();
    assert_close(
        "beside a step",
        &values(&objective.parameters[1..]),
        &want,
        0.0,
        1e-14,
    );
}

#[test]
fn the_average_is_exported_and_saved_beside_the_parameters() {
    let cx = &cx();
    let (objective, settings) = given(cx);
    let settings = Settings {
        ema: Some(0.75),
        ..settings
    };
    let mut average = values(&objective.parameters);
    let mut trainer = trainer(cx, &objective, &settings);
    // At most (1 + step) / (10 + step) is kept: 0.1, 2/11, 0.25, 4/13 at first, 0.75 from step 26 on.
    for step in 0..30 {
        trainer.step(&objective, &images(1)).unwrap();
        let keep = f64::min(0.75, (1 + step) as f64 / (10 + step) as f64);
        for (average, w) in average.iter_mut().zip(values(&objective.parameters)) {
            *average = keep * *average + (1.0 - keep) * w;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let [model, state] = ["model", "state"].map(|name| folder.path().join(name));
    trainer.export(&model, None).unwrap();
    trainer.save(&state).unwrap();
    let [model, state] = [model, state].map(|path| Checkpoint::open_file(path).unwrap());
    let stored = |file: &Checkpoint, kind: &str| -> Vec<f64> {
        let value = |p: &Parameter| {
            file.need(&format!("{kind}{}", p.name))
                .unwrap()
                .to_f64()
                .unwrap()
        };
        objective.parameters.iter().flat_map(value).collect()
    };
    assert_close("exported", &stored(&model, ""), &average, 0.0, 1e-14);
    assert_eq!(stored(&state, "ema."), stored(&model, ""));
    assert_eq!(stored(&state, ""), values(&objective.parameters));
    assert_eq!(model.len(), 2);
}

/// What diverges is told with its step, and leaves the parameters as they were.
#[test]
fn a_step_that_cannot_be_is_not_taken() {
    let cx = &cx();
    for (loss, infinite, named) in [
        ((|_| f64::NAN) as fn(u64) -> f64, false, "the loss is NaN"),
        (|_| f64::INFINITY, false, "the loss is inf"),
        (|_| 1.0, true, "norm is inf"),
    ] {
        let (mut objective, settings) = given(cx);
        let mut trainer = trainer(cx, &objective, &settings);
        trainer.step(&objective, &images(1)).unwrap();
        let before = values(&objective.parameters);
        objective.loss = loss;
        if infinite {
            objective.gradients[1].as_mut().unwrap()[0] = f64::INFINITY;
        }
        let error = trainer.step(&objective, &images(1)).unwrap_err();
        assert!(matches!(error, Error::Training { step: 1, .. }), "{error}");
        let message = error.to_string();
        assert!(
            message.contains("step 1") && message.contains(named),
            "{message}"
        );
        assert_eq!((values(&objective.parameters), trainer.next()), (before, 1));
    }
}

/// After 20 losses of 1 come losses of 10, which may be, or of 11, which have grown out of all proportion.
#[test]
fn a_loss_that_grows_out_of_proportion_has_diverged() {
    let cx = &cx();
    type Losses = fn(u64) -> f64;
    let grown: [(Losses, Option<usize>); 2] = [
        (|step| if step < 20 { 1.0 } else { 10.0 }, None),
        (|step| if step < 20 { 1.0 } else { 11.0 }, Some(40)),
    ];
    for (loss, at) in grown {
        let (mut objective, settings) = given(cx);
        objective.loss = loss;
        let mut trainer = trainer(cx, &objective, &settings);
        let outcome = (0..50)
            .map(|_| trainer.step(&objective, &images(1)))
            .find_map(Result::err);
        match (outcome, at) {
            (None, None) => {}
            (Some(Error::Training { step, .. }), Some(at)) => assert_eq!(step, at),
            (outcome, at) => panic!("wanted an error at {at:?}, got {outcome:?}"),
        }
    }
}
