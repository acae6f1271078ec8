//! What works: whole jobs, their outputs and records.

use std::fs;

use posteriori::io::image::{Format, Image, read, read_text, save};
use serde_json::Value;

use super::{folder, picture, run, tree};
use crate::oracle;

#[test]
fn a_bad_image_does_not_stop_the_good_ones() {
    let dir = folder(&["a.png", "sub/b.jpg", "c.png"]);
    fs::write(dir.path().join("y/bad.png"), "no image").unwrap();
    let line =
        "restore -i y -o x --model PIXEL --task sr8 --method dps --steps 2 --recursive --json";
    let ran = run(dir.path(), line).expect(3, &["bad.png"]);
    assert_eq!(tree(&dir.path().join("x")), ["a.png", "c.png", "sub/b.jpg"]);
    let items = ran.records("item");
    assert_eq!(items.len(), 3);
    for item in &items {
        assert!(item["residual"].as_f64().unwrap() > 0.0);
        assert!(["ok", "far"].contains(&item["verdict"].as_str().unwrap()));
    }
    assert_eq!(ran.records("error")[0]["item"], "bad.png");
    assert_eq!(ran.records("progress").len(), 3 * 2);
    // the plan of one task and size is told once
    assert_eq!(ran.records("plan").len(), 1);
    let summary = &ran.records("summary")[0];
    assert_eq!(
        (&summary["done"], &summary["failed"]),
        (&3.into(), &1.into())
    );

    let text = read_text(dir.path().join("x/a.png")).unwrap();
    let (_, record) = text.iter().find(|(key, _)| key == "posteriori").unwrap();
    let record: Value = serde_json::from_str(record).unwrap();
    assert_eq!(record["task"], "sr8");
    assert_eq!(record["settings"]["steps"]["value"], "2");
    assert_eq!(record["settings"]["zeta"]["value"], "4.8");
    assert_eq!(
        (&record["image"], &record["seed"]),
        (&"a.png".into(), &0.into())
    );

    // what is there is skipped, and that is no failure
    fs::remove_file(dir.path().join("y/bad.png")).unwrap();
    let before = fs::read(dir.path().join("x/a.png")).unwrap();
    run(dir.path(), line).expect(0, &[]);
    assert_eq!(fs::read(dir.path().join("x/a.png")).unwrap(), before);
    run(dir.path(), &format!("{line} --exists error")).expect(3, &["x/c.png", "exists already"]);
}

#[test]
fn the_batch_does_not_change_a_picture() {
    let dir = folder(&["a.png", "b.png", "c.png", "d.png"]);
    for batch in [1, 3] {
        let line = format!(
            "restore -i y -o x{batch} --model PIXEL --task sr8 --method dmap --steps 2 --batch {batch} -q"
        );
        let ran = run(dir.path(), &line).expect(0, &[]);
        assert_eq!((ran.stdout.lines().count(), ran.stderr.as_str()), (4, ""));
    }
    for name in ["a.png", "b.png", "c.png", "d.png"] {
        let [one, three] = ["x1", "x3"].map(|x| read(dir.path().join(x).join(name)).unwrap());
        assert_eq!(one, three, "{name}");
    }
}

#[test]
fn degrade_restore_evaluate() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("clean/sub")).unwrap();
    for (seed, name) in ["a.png", "sub/b.png"].iter().enumerate() {
        let path = dir.path().join("clean").join(name);
        save(path, &picture(32, 32, seed), Format::Png, &[]).unwrap();
    }
    let line = "degrade -i clean -o y --task sr4 --noise 0.1 --seed 5 --recursive";
    run(dir.path(), line).expect(0, &[]);
    assert_eq!(
        tree(&dir.path().join("y")),
        [
            "a.png",
            "a.png.measurement.json",
            "sub/b.png",
            "sub/b.png.measurement.json"
        ]
    );
    let line = "restore -i y -o x --model PIXEL --method dps --steps 2 --samples 2 --recursive";
    let ran = run(dir.path(), &format!("{line} --task sr8")).expect(3, &["contradicts", "sr4"]);
    assert!(ran.stdout.is_empty());
    run(dir.path(), line).expect(0, &[]);
    assert_eq!(
        tree(&dir.path().join("x")),
        ["a-s0.png", "a-s1.png", "sub/b-s0.png", "sub/b-s1.png"]
    );
    let pixels = |name: &str| read(dir.path().join("x").join(name)).unwrap();
    assert_ne!(pixels("a-s0.png"), pixels("a-s1.png"));

    fs::write(
        dir.path().join("x/stray.png"),
        fs::read(dir.path().join("x/a-s0.png")).unwrap(),
    )
    .unwrap();
    let line = "evaluate --restored x --truth clean --measurements y --csv v.csv --json";
    let ran = run(dir.path(), line).expect(3, &["stray.png", "no image in clean"]);
    let mean = ran
        .records("item")
        .into_iter()
        .find(|r| r["item"].is_null())
        .unwrap();
    assert_eq!(mean["mean_of"], 4);
    for column in ["psnr", "ssim", "residual"] {
        assert!(mean[column].is_number(), "{mean}");
    }
    let csv = fs::read_to_string(dir.path().join("v.csv")).unwrap();
    assert_eq!(csv.lines().next(), Some("item,psnr,ssim,residual"));
    assert_eq!(csv.lines().count(), 5);
}

#[test]
fn a_latent_model_one_file_to_one_file() {
    let dir = tempfile::tempdir().unwrap();
    save(
        dir.path().join("y.png"),
        &picture(16, 16, 1),
        Format::Png,
        &[],
    )
    .unwrap();
    let line = "restore -i y.png -o out/x.webp --model SD2 --task sr8 --steps 2";
    run(dir.path(), line).expect(0, &[]);
    let image = read(dir.path().join("out/x.webp")).unwrap();
    assert_eq!((image.height, image.width), (128, 128));
    // a folder as output keeps the name
    run(
        dir.path(),
        "restore -i y.png -o out --model SD2 --task sr8 --steps 1 --method ancestral",
    )
    .expect(0, &[]);
    assert_eq!(tree(&dir.path().join("out")), ["x.webp", "y.png"]);
}

#[test]
fn generate_plan_and_dry_run() {
    let dir = folder(&["a.png"]);
    let line = "generate -o g --model PIXEL --count 3 --batch 2 --steps 2 --seed 4";
    run(dir.path(), line).expect(0, &[]);
    let names = ["sample-00000.png", "sample-00001.png", "sample-00002.png"];
    assert_eq!(tree(&dir.path().join("g")), names);
    let image = read(dir.path().join("g/sample-00002.png")).unwrap();
    assert_eq!((image.height, image.width), (32, 32));

    let ran = run(
        dir.path(),
        "plan --model SD2 --method dps --precision bf16 --json",
    )
    .expect(0, &[]);
    let plan = &ran.records("plan")[0];
    assert_eq!(
        (&plan["dtype"], &plan["task"]),
        (&"bf16".into(), &"sr8".into())
    );
    assert!(plan["slab"].as_u64().unwrap() > plan["saved"].as_u64().unwrap());

    let line = "restore -i y -o x --model PIXEL --task sr8 --dry-run --json";
    let ran = run(dir.path(), line).expect(0, &[]);
    assert_eq!(ran.records("item")[0]["verdict"], "planned");
    assert_eq!(ran.records("plan")[0]["steps"], 250);
    // The measurement and the image, in f32.
    let image = &read(dir.path().join("y/a.png")).unwrap();
    let pixels = image.height * image.width * 3;
    assert_eq!(ran.records("plan")[0]["host"], 4 * (1 + 64) * pixels);
    assert!(!dir.path().join("x").exists());
}

/// Where the device is at hand, what is planned is what would run.
#[test]
fn a_dry_run_plans_for_the_device_that_it_times() {
    let dir = folder(&["a.png"]);
    let line = "restore -i y -o x --model PIXEL --task sr8 --method dps --steps 2 --precision bf16";
    let dry = run(dir.path(), &format!("{line} --dry-run --json")).expect(0, &[]);
    let dry = &dry.records("plan")[0];
    if !posteriori::runtime::product::has_bf16() {
        assert!(dry["seconds"].is_null() && dry["dtype"] == "bf16", "{dry}");
        return;
    }
    assert!(dry["seconds"].is_number());
    let ran = run(dir.path(), &format!("{line} --json")).expect(0, &[]);
    for (key, value) in ran.records("plan")[0].as_object().unwrap() {
        assert_eq!(dry[key], *value, "{key}");
    }
}

#[test]
fn a_dry_run_of_what_does_not_fit_says_what_would() {
    let dir = folder(&[]);
    let side = 1024;
    let y = Image::new(side, side, vec![0.0; side * side * 3]).unwrap();
    save(dir.path().join("y/large.png"), &y, Format::Png, &[]).unwrap();
    let line =
        "restore -i y -o x --model PIXEL --task sr8 --samples 8 --batch 8 --tile never --dry-run";
    run(dir.path(), line).expect(5, &["8 images of 8192 x 8192", "GB are free; "]);
    assert!(!dir.path().join("x").exists());
}

#[test]
fn print_config_says_where_values_come_from() {
    let dir = folder(&[]);
    fs::write(
        dir.path().join("run.toml"),
        "method = \"dmap-full\"\nseed = 7\n",
    )
    .unwrap();
    let line = "restore -i y -o x --model M --task sr8 --config run.toml --set zeta=2 --steps 9 --print-config";
    let ran = run(dir.path(), line).expect(0, &[]);
    for (key, value, origin) in [
        ("steps", "9", "flag; T"),
        ("zeta", "2", "--set"),
        ("ascents", "3", "preset dmap-full; K"),
        ("zeta-space", "\"ve\"", "preset dmap-full"),
        ("seed", "7", "from run.toml"),
        ("batch", "\"auto\"", "default"),
    ] {
        let start = format!("{key} = {value} ");
        let line = ran.stdout.lines().find(|l| l.starts_with(&start));
        assert!(line.unwrap().ends_with(&format!("# {origin}")), "{line:?}");
    }
    let ran = run(
        dir.path(),
        "restore -i y -o x --model M --task sr8 --method dmap --print-config",
    );
    assert!(ran.stdout.contains("zeta = 9.6 "), "{}", ran.stdout);
}

#[test]
fn check_doctor_verify_completions() {
    let dir = folder(&[]);
    let ran = run(dir.path(), "check --op residual").expect(0, &[]);
    assert!(
        ran.stdout
            .lines()
            .last()
            .unwrap()
            .contains("runtimes exercised: native")
    );
    run(dir.path(), "check --op nothing").expect(2, &["--op", "nothing"]);

    let line = "check --runtime native --op linear.f --variant gem --json";
    let ran = run(dir.path(), line).expect(0, &[]);
    let items = ran.records("item");
    assert!(!items.is_empty() && items.iter().all(|item| item["variant"] == "gemm"));
    run(dir.path(), "check --op linear.f --variant nothing").expect(2, &["--variant", "nothing"]);
    let line = "check --runtime native --op linear.f --except gemm --json";
    let ran = run(dir.path(), line).expect(0, &[]);
    let items = ran.records("item");
    assert!(!items.is_empty() && items.iter().all(|item| item["variant"] != "gemm"));
    run(dir.path(), "check --op linear.f --except a --variant plain").expect(2, &["--except"]);
    // Where no kernels run, there are none.
    let line = "check --runtime native --op linear.f --variant tma";
    run(dir.path(), line).expect(2, &["gemm, plain, tiled"]);

    let ran = run(dir.path(), "doctor --model PIXEL").expect(0, &[]);
    assert!(ran.stdout.contains("gpu"));
    assert!(
        ran.stdout
            .contains("unet/diffusion_pytorch_model.safetensors")
    );
    let ran = run(dir.path(), "doctor --model nowhere").expect(1, &[]);
    assert!(ran.stdout.contains("nowhere") && ran.stdout.contains("fix:"));

    let goldens = oracle::data("fixtures/tiny-pixel.safetensors");
    let line = format!(
        "verify --model PIXEL --goldens {} --json",
        goldens.display()
    );
    let ran = run(dir.path(), &line);
    let summary = &ran.records("summary")[0];
    assert_eq!(
        (&summary["failed"], &summary["runtime"]),
        (&0.into(), &"native".into())
    );
    let unknown = summary["unknown"].as_u64().unwrap();
    assert_eq!(ran.code, if unknown > 0 { 3 } else { 0 });
    // On processors bf16 is what products are of, if they have instructions for it.
    let line = format!("{line} --device cpu --precision bf16");
    if posteriori::runtime::product::has_bf16() {
        let summary = &run(dir.path(), &line).records("summary")[0];
        assert_eq!(
            (&summary["failed"], &summary["precision"]),
            (&0.into(), &"bf16".into())
        );
    } else {
        run(dir.path(), &line).expect(4, &["bf16", "--precision f32"]);
    }

    let ran = run(dir.path(), "completions bash").expect(0, &[]);
    assert!(ran.stdout.contains("posteriori"));
}
