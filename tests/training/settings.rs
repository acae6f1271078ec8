//! The learning rate against closed forms, and settings that cannot be meant.

use posteriori::train::{Decay, Settings};

use crate::oracle::assert_close;

#[test]
fn the_learning_rate_rises_and_falls_as_written() {
    let settings = |decay| Settings {
        steps: 12,
        lr: 2.0,
        warmup: 4,
        decay,
        ..Settings::default()
    };
    let at = |settings: &Settings, steps: &[usize]| -> Vec<f64> {
        steps.iter().map(|&step| settings.lr_at(step)).collect()
    };
    let constant = settings(Decay::Constant);
    let got = at(&constant, &[0, 1, 2, 3, 4, 5, 11, 1000]);
    assert_eq!(got, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0]);

    let cosine = settings(Decay::Cosine);
    assert_eq!(at(&cosine, &[0, 1, 2, 3, 4]), [0.5, 1.0, 1.5, 2.0, 2.0]);
    // A quarter, a half and three quarters of the way, the end, and beyond it.
    let root = 0.5f64.sqrt();
    let want = [1.0 + root, 1.0, 1.0 - root, 0.0, 0.0];
    let got = at(&cosine, &[6, 8, 10, 12, 100]);
    assert_close("cosine", &got, &want, 0.0, 1e-15);
    let all = at(&cosine, &(4..12).collect::<Vec<_>>());
    assert!(
        all.windows(2)
            .all(|pair| pair[0] > pair[1] && pair[1] > 0.0)
    );

    // A warm-up as long as the run, and longer.
    for warmup in [12, 50] {
        let settings = Settings {
            warmup,
            ..cosine.clone()
        };
        let got = at(&settings, &[0, 11]);
        assert_eq!(got, [2.0 / warmup as f64, 24.0 / warmup as f64]);
    }
}

#[test]
fn settings_that_cannot_be_meant_are_refused_by_name() {
    assert!(Settings::default().check().is_ok());
    type Change = fn(&mut Settings);
    let changes: [(Change, &str, &str); 21] = [
        (|s| s.steps = 0, "steps", "0"),
        (|s| s.batch = 0, "batch", "0"),
        (|s| s.micro = 0, "micro", "0"),
        (|s| s.micro = 3, "micro", "divisor of the batch, 64, got 3"),
        (|s| s.micro = 128, "micro", "got 128"),
        (|s| s.lr = 0.0, "lr", "0"),
        (|s| s.lr = -1e-3, "lr", "-0.001"),
        (|s| s.lr = f64::NAN, "lr", "NaN"),
        (|s| s.lr = f64::INFINITY, "lr", "inf"),
        (|s| s.beta1 = 1.0, "beta1", "1"),
        (|s| s.beta1 = -0.1, "beta1", "-0.1"),
        (|s| s.beta2 = f64::NAN, "beta2", "NaN"),
        (|s| s.beta2 = 1.5, "beta2", "1.5"),
        (|s| s.eps = 0.0, "eps", "0"),
        (|s| s.weight_decay = -1.0, "weight-decay", "-1"),
        (|s| s.weight_decay = f64::NAN, "weight-decay", "NaN"),
        (|s| s.clip = Some(0.0), "clip", "0"),
        (|s| s.clip = Some(f64::NAN), "clip", "NaN"),
        (|s| s.clip = Some(-1.0), "clip", "-1"),
        (|s| s.ema = Some(1.0), "ema", "1"),
        (|s| s.ema = Some(f64::NAN), "ema", "NaN"),
    ];
    for (change, name, got) in changes {
        let mut settings = Settings::default();
        change(&mut settings);
        let message = settings.check().unwrap_err().to_string();
        let start = format!("{name}: wanted ");
        assert!(
            message.starts_with(&start) && message.contains(got),
            "{message}"
        );
    }
}
