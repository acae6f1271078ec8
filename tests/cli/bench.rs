//! `bench`, and variants by choice.

use std::collections::BTreeMap;
use std::fs;

use posteriori::DType;
use posteriori::io::image::read;
use posteriori::operators::Task;
use posteriori::pipeline::job::{Method, Restore};
use posteriori::pipeline::plan::{Batch, Engine, Plan};
use posteriori::runtime::kernel::Target;
use posteriori::runtime::native::Products;
use serde_json::Value;

use super::{folder, run};
use crate::oracle;

#[test]
fn every_variant_is_verified_timed_and_written_down() {
    let dir = folder(&[]);
    let line = "bench --runtime native --op add --variant add.forward=plain --csv rows.csv --json";
    let ran = run(dir.path(), line).expect(0, &[]);
    let rows = ran.records("item");
    let text = fs::read_to_string(dir.path().join("rows.csv")).unwrap();
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(lines.clone().count(), rows.len());
    for (line, row) in lines.zip(&rows) {
        // The key alone has commas in it, and stands between quotes.
        let [before, key, after] = line.split('"').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let before = before.trim_end_matches(',').split(',');
        let after = after.trim_start_matches(',').split(',');
        let cells: Vec<&str> = before.chain([key]).chain(after).collect();
        assert_eq!(cells.len(), columns.len(), "{line}");
        for (column, cell) in columns.iter().zip(cells) {
            match &row[*column] {
                Value::String(text) => assert_eq!(text, cell),
                Value::Number(number) => assert_eq!(number.as_f64(), cell.parse().ok()),
                other => assert_eq!(other.to_string(), cell, "{column}"),
            }
        }
        assert!(row["us_median"].as_f64() >= row["us_min"].as_f64());
        assert!(row["bound"].as_f64().unwrap() <= 1.0 && row["tflops"].as_f64().unwrap() > 0.0);
        assert_eq!(row["pick"], row["variant"] == "plain");
    }
    let picks = rows.iter().filter(|row| row["pick"] == true);
    assert_eq!(2 * picks.count(), rows.len());
    assert_eq!(ran.records("summary")[0]["failed"], 0);

    let ran = run(dir.path(), "bench --runtime native --op add --only plain").expect(0, &[]);
    let last = ran.stdout.lines().last().unwrap();
    assert_eq!(last, "6 passed, 0 failed; runtimes exercised: native");
}

/// As many launches of each op as `plan` counts; those of the ops that are asked for are timed.
#[test]
fn a_step_of_a_model_is_walked_whole() {
    let dir = folder(&[]);
    let line = "bench --runtime native --model SD2 --method dps --size 32x32 --batch 2";
    let (job, work, engine) = (
        Restore::new(Task::super_resolution(8), Method::dps()),
        Batch {
            measured: true,
            size: [32, 32],
            batch: 2,
        },
        Engine {
            target: Target::Native,
            dtype: DType::F32,
            products: Products::F32,
            forced: Vec::new(),
        },
    );
    let plan = Plan::of(&oracle::checkpoint("tiny-sd2"), None, &job, work, &engine).unwrap();
    let planned = plan.step.ops.iter();
    let planned: BTreeMap<_, _> = planned.map(|(op, sum)| (*op, sum.launches)).collect();

    // Of all launches one has a variant of that name, so nothing else is run.
    let ran = run(dir.path(), &format!("{line} --only wide_sum --json")).expect(0, &[]);
    let summary = &ran.records("summary")[0];
    let walked = summary["ops"].as_object().unwrap().iter();
    let walked = walked.map(|(op, sum)| (op.as_str(), sum["launches"].as_u64().unwrap()));
    let walked: BTreeMap<_, _> = walked.collect();
    assert_eq!(walked, planned);
    let of_step = |key| summary["step"][key].as_u64().unwrap();
    assert_eq!(of_step("missing") + 1, of_step("launches"));

    let ran = run(dir.path(), &format!("{line} --op residual")).expect(0, &[]);
    let step = ran.stdout.lines().find(|l| l.starts_with("predicted step"));
    assert_eq!(step.unwrap().split_whitespace().nth(2), Some("1"));
}

#[test]
fn a_variant_can_be_chosen_wherever_a_model_runs() {
    let dir = folder(&["a.png"]);
    let line = |output: &str, more: &str| {
        let line = format!("restore -i y/a.png -o {output} --model PIXEL --task sr8 --method dps");
        run(dir.path(), &format!("{line} --steps 2 {more} --json"))
    };
    let choice = "linear.forward=plain,conv2d.forward=plain";
    fs::write(
        dir.path().join("run.toml"),
        format!("variant = \"{choice}\""),
    )
    .unwrap();
    line("taken.png", "").expect(0, &[]);
    line(
        "flags.png",
        "--variant linear.forward=plain --variant conv2d.forward=plain",
    )
    .expect(0, &[]);
    line("file.png", "--config run.toml").expect(0, &[]);
    let pixels = |name: &str| read(dir.path().join(name)).unwrap().pixels;
    assert_eq!(pixels("flags.png"), pixels("file.png"));
    let levels = pixels("taken.png").into_iter().zip(pixels("flags.png"));
    assert!(levels.fold(0.0, |most, (a, b)| f32::max(most, (a - b).abs())) < 0.02);
    let ran = line("x.png", "--config run.toml --print-config").expect(0, &[]);
    let variant = &ran.records("settings")[0]["settings"]["variant"];
    assert_eq!(variant["value"], choice);

    for command in ["bench", "plan --model PIXEL", "generate --model PIXEL -o g"] {
        let with = |choice: &str| run(dir.path(), &format!("{command} --variant {choice}"));
        with("lin=plain").expect(2, &["--variant", "`lin`", "linear.forward"]);
        with("linear.forward=fast").expect(2, &["--variant", "`fast`", "tiled, gemm, plain"]);
        with("linear.forward").expect(2, &["--variant", "OP=VARIANT"]);
    }
    let line = "verify --model PIXEL --goldens none.safetensors --variant add.forward=quick";
    run(dir.path(), line).expect(2, &["--variant", "`quick`", "plain"]);
    run(dir.path(), "bench --op nothing").expect(2, &["--op", "nothing"]);
    run(dir.path(), "bench --runtime tpu").expect(2, &["--runtime"]);
    run(dir.path(), "bench --runtime native --precision bf16").expect(4, &["bf16"]);
}

/// The counts are those of `plan`; no kernel is faster than the floor.
#[test]
fn a_step_is_predicted_from_its_counts() {
    let dir = folder(&[]);
    let of = |command: &str| {
        let line =
            format!("{command} --model SD2 --method dps --precision bf16 --size 64x64 --json");
        run(dir.path(), &line).expect(0, &[])
    };
    let predictions = of("bench --predict=1,3").records("prediction");
    assert_eq!(predictions.len(), 2);
    for (prediction, batch) in predictions.iter().zip([1, 3]) {
        let step = &prediction["step"];
        let plan = &of(&format!("plan --batch {batch}")).records("plan")[0]["step"];
        assert_eq!(prediction["batch"], batch);
        assert_eq!(step["flops"], plan["flops"]);
        assert_eq!(step["bytes"], plan["bytes"]);
        let [floor, predicted] =
            ["floor_ms", "predicted_ms"].map(|key| step[key].as_f64().unwrap());
        // The least that the bytes and the launches take, by the figures of the GPU.
        let launches = step["launches"].as_f64().unwrap();
        assert!(launches >= plan["launches"].as_f64().unwrap());
        assert!(floor >= plan["bytes"].as_f64().unwrap() / 4.3e12 * 1e3);
        assert!(predicted >= floor + 1.5e-3 * launches);
    }
    run(dir.path(), "bench --predict=0 --model SD2").expect(2, &["`0`"]);
}

#[test]
fn whole_steps_are_timed() {
    let dir = folder(&[]);
    let line = "bench --model PIXEL --method dps --runtime native --step=1,2 --json";
    let steps = run(dir.path(), line).expect(0, &[]).records("step");
    assert_eq!(steps.len(), 2);
    for (step, batch) in steps.iter().zip([1.0, 2.0]) {
        let of = |key: &str| step[key].as_f64().unwrap();
        assert!((of("ms") - batch * of("ms_per_image")).abs() < 1e-9 * of("ms"));
        let line = format!("plan --model PIXEL --method dps --batch {batch} --json");
        let plan = &run(dir.path(), &line).expect(0, &[]).records("plan")[0];
        let tflop = plan["step"]["flops"].as_f64().unwrap() / 1e12;
        assert!((of("tflops") * of("ms") / 1e3 - tflop).abs() < 1e-9 * tflop);
        assert_eq!(step["slab"], plan["slab"]);
    }
    let line = "bench --model PIXEL --runtime native --step=1 --steps 5";
    run(dir.path(), line).expect(2, &["--steps", "got 5"]);
}

/// What a model runs in elsewhere, its launches are timed in.
#[test]
fn a_model_is_timed_in_every_precision_of_its_device() {
    let dir = folder(&[]);
    let line = "bench --runtime native --model PIXEL --method dps --json --op";
    let ran = run(dir.path(), &format!("{line} add --precision f64")).expect(0, &[]);
    let items = ran.records("item");
    assert!(!items.is_empty() && items.iter().all(|item| item["dtype"] == "f64"));
    let half = format!("{line} linear --precision bf16");
    if posteriori::runtime::product::has_bf16() {
        let items = run(dir.path(), &half).expect(0, &[]).records("item");
        // That is what operands are rounded to; results are f32, and as good as that allows.
        assert!(items.iter().all(|item| item["dtype"] == "f32"));
        let error = |item: &Value| item["error"].as_f64().unwrap();
        assert!(items.iter().any(|item| error(item) > 1e-4));
    } else {
        run(dir.path(), &half).expect(4, &["bf16", "--precision f32"]);
    }
}

#[test]
fn settings_are_printed_in_place_of_what_they_are_of() {
    let dir = folder(&[]);
    for kind in ["", "--step", "--predict"] {
        let line = format!("bench --model PIXEL --steps 9 {kind} --print-config");
        let ran = run(dir.path(), &line).expect(0, &[]);
        let lines: Vec<&str> = ran.stdout.lines().collect();
        assert!(lines.iter().all(|line| line.contains(" = ")), "{lines:?}");
        let steps = lines.iter().filter(|line| line.starts_with("steps = 9 "));
        assert_eq!(steps.count(), 1, "{lines:?}");
    }
}
