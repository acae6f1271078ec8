//! `diagnose` as people run it.

use std::fs;

use posteriori::io::csv;

use super::{picture, run, tree};
use crate::report::{pictures, whole};

/// The page of a folder, which holds together and has every cell of these tables.
#[track_caller]
fn report(folder: &std::path::Path, tables: &[&str]) -> String {
    let html = fs::read_to_string(folder.join("report.html")).unwrap();
    whole(&html);
    for table in tables {
        let (rows, _) = csv::read(&fs::read_to_string(folder.join(table)).unwrap());
        assert!(rows.len() > 1, "{table}");
        for row in rows.iter().skip(1) {
            let cells = row.iter().enumerate().map(|(i, cell)| match i {
                0 => format!("<td>{cell}</td>"),
                _ => format!(">{cell}</td>"),
            });
            let cells: Vec<String> = cells.collect();
            let found = html
                .lines()
                .any(|line| cells.iter().all(|c| line.contains(c)));
            assert!(found, "{table}: {row:?}");
        }
    }
    html
}

#[test]
fn the_toy() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(
        dir.path(),
        "diagnose toy -o out --samples 300 --steps 20 --report --json",
    )
    .expect(0, &[]);
    let out = dir.path().join("out");
    assert_eq!(tree(&out), ["report.html", "toy.csv", "toy.svg"]);
    let html = report(&out, &["toy.csv"]);
    assert!(html.contains("<dt>noise levels</dt>\n<dd>20</dd>") && html.contains("<svg"));
    let rows = ran.records("toy");
    let of = |name: &str| rows.iter().find(|row| row["sampler"] == name).unwrap();
    assert!((of("true posterior")["upper"].as_f64().unwrap() - 0.999985).abs() < 1e-6);
    for name in [
        "unconditional",
        "DPS, zeta 0.05",
        "DMAP, K 3, zeta 0.5",
        "DSG, rate 1",
        "FreeDoM, K 2, zeta 0.05",
    ] {
        assert!(of(name)["upper"].as_f64().unwrap() > 0.3, "{name}");
    }
    // All of the gradient and nothing of the noise leads to the one mode.
    assert_eq!(of("DSG, rate 1")["upper"], 1.0);
    let csv = fs::read_to_string(dir.path().join("out/toy.csv")).unwrap();
    assert_eq!(csv.lines().count(), rows.len() + 1);
    run(dir.path(), "diagnose toy -o out --std 0").expect(2, &["--std", "above 0"]);
    run(dir.path(), "diagnose toy -o out --steps 1").expect(2, &["--steps", "at least 2"]);
    run(dir.path(), "diagnose toy -o out --samples 0").expect(2, &["samples", "at least 1"]);
    for count in ["--samples", "--steps"] {
        let line = format!("diagnose toy -o out {count} 99999999999");
        run(dir.path(), &line).expect(2, &[count, "at most 65536"]);
    }
    for count in ["--scenes", "--steps"] {
        let line = format!("demo {count} 99999999999");
        run(dir.path(), &line).expect(2, &[count, "at most 65536"]);
    }
}

#[test]
fn scores_and_samples_of_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let of = "--model PIXEL --task sr4 --scene 3 --size 32x32 --steps 3 --device cpu";
    let line = format!(
        "diagnose score-mean {of} -o mean --draws 3 --zetas 0.1,2 --batch 2 --report --json"
    );
    let ran = run(dir.path(), &line).expect(0, &[]);
    let names: Vec<String> = ran
        .records("score-mean")
        .iter()
        .map(|row| row["estimate"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["unconditional", "DPS zeta 0.1", "DPS zeta 2"]);
    let mean = dir.path().join("mean");
    let files = ["report.html", "score-mean.csv", "score-mean.svg"];
    assert_eq!(tree(&mean), files);
    let csv = fs::read_to_string(mean.join("score-mean.csv")).unwrap();
    assert_eq!(csv.lines().count(), 4);
    let html = report(&mean, &["score-mean.csv"]);
    assert!(html.contains("<dt>image</dt>\n<dd>scene 3 of seed 0, 32x32</dd>"));
    assert!(html.contains("<dt>steps</dt>\n<dd>3 (flag)</dd>"));
    let svg = fs::read_to_string(mean.join("score-mean.svg")).unwrap();
    assert_eq!(svg.matches("fill=\"#1f5fbf\"/>").count(), 3);

    let line = format!(
        "diagnose diversity {of} -o div --samples 3 --method dps --zeta 0.3 --batch 2 --report --json"
    );
    let ran = run(dir.path(), &line).expect(0, &[]);
    let files = [
        "diversity.csv",
        "diversity.png",
        "report.html",
        "sample-000.png",
        "sample-001.png",
        "sample-002.png",
        "samples.csv",
    ];
    let div = dir.path().join("div");
    assert_eq!(tree(&div), files);
    let std = ran.records("diversity")[0]["std"].as_f64().unwrap();
    assert!(std > 0.0);
    let csv = fs::read_to_string(div.join("diversity.csv")).unwrap();
    assert_eq!(csv, format!("method,samples,std\ndps,3,{std}\n"));
    let csv = fs::read_to_string(div.join("samples.csv")).unwrap();
    assert!(csv.starts_with("sample,psnr,ssim,residual\n0,"), "{csv}");
    let html = report(&div, &["diversity.csv", "samples.csv"]);
    let sizes: Vec<_> = pictures(&html).iter().map(|p| p.width).collect();
    assert_eq!(sizes, [32, 8, 32, 32, 32, 32]);

    let sd = "--model SD2 --task sr8 --scene 3 --size 64x64 --steps 2 --device cpu";
    let controlnet = crate::oracle::checkpoint("tiny-sd2").join("controlnet");
    let reference = controlnet.display();
    let line = format!(
        "diagnose score-error {sd} --reference {reference} --cse {reference} -o err --zetas 1 --report --json"
    );
    let ran = run(dir.path(), &line).expect(0, &[]);
    let cse = &ran.records("score-error")[1];
    assert_eq!(
        (cse["estimate"].as_str(), cse["start"].as_f64()),
        (Some("CSE"), Some(0.0))
    );
    let err = dir.path().join("err");
    assert_eq!(
        tree(&err),
        ["report.html", "score-error.csv", "score-error.svg"]
    );
    let html = report(&err, &["score-error.csv"]);
    assert!(html.contains("<dt>reference</dt>") && html.contains("<svg"));

    run(
        dir.path(),
        "diagnose diversity --model PIXEL --task sr4 -o d",
    )
    .expect(2, &["--input", "--scene N"]);
    run(
        dir.path(),
        "diagnose diversity --model PIXEL --scene 1 --size 32x32 -o d",
    )
    .expect(2, &["--task"]);
    run(
        dir.path(),
        &format!("diagnose diversity {of} --samples 1 -o d"),
    )
    .expect(2, &["at least 2"]);
    run(
        dir.path(),
        &format!("diagnose score-mean {of} --draws 0 -o d"),
    )
    .expect(2, &["--draws"]);
    run(
        dir.path(),
        &format!("diagnose score-mean {of} --draws 99999999999 -o d"),
    )
    .expect(2, &["--draws", "at most 65536"]);
}

#[test]
fn what_diagnostics_take_and_what_they_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let of = "--model PIXEL --task sr4 --scene 3 --size 32x32 --device cpu -o out";
    let line = |words: &str| format!("diagnose {words} {of}");
    let score_error = "score-error --reference embedded";
    for words in [
        "score-mean --method dps",
        "score-mean --zeta 1",
        "score-mean --prompt x",
        "score-mean --tile never",
        "score-mean --solver ddim",
        "score-mean --spacing trailing",
        "score-mean --cse-scale 2",
        "score-mean --variant add=plain",
        &format!("{score_error} --batch 2"),
    ] {
        run(dir.path(), &line(words)).expect(2, &["unexpected argument"]);
    }
    run(dir.path(), &line("score-mean --set zeta=1")).expect(2, &["--set", "`zeta`"]);
    for zetas in ["nan", "-3", "1,inf"] {
        for words in ["score-mean", score_error] {
            let words = format!("{words} --zetas={zetas}");
            run(dir.path(), &line(&words)).expect(2, &["error: --zetas: wanted a number"]);
        }
    }
    // They are printed, no others, and nothing is done.
    for (words, keys) in [
        (
            "score-mean",
            &["batch", "device", "model", "seed", "steps", "task"][..],
        ),
        (score_error, &["device", "model", "seed", "steps", "task"]),
    ] {
        let words = format!("{words} --print-config --json");
        let ran = run(dir.path(), &line(&words)).expect(0, &[]);
        let settings = &ran.records("settings")[0]["settings"];
        let names: Vec<&String> = settings.as_object().unwrap().keys().collect();
        assert_eq!(names, keys, "{words}");
        assert_eq!(settings["steps"]["value"], "500");
        assert_eq!(settings["steps"]["from"], "preset dps");
    }
    let words = "diversity --method dsg --print-config";
    let ran = run(dir.path(), &line(words)).expect(0, &[]);
    assert!(ran.stdout.contains("zeta = "), "{}", ran.stdout);
    assert_eq!(tree(dir.path()), [""; 0]);
}

#[test]
fn names_in_a_report_are_escaped() {
    let dir = tempfile::tempdir().unwrap();
    let name = "a<&\"'>.png";
    picture(32, 32, 1).save(dir.path().join(name)).unwrap();
    let line = format!(
        "diagnose diversity --model PIXEL --task sr4 -i {name} -o out --samples 2 --steps 1 --device cpu --report"
    );
    run(dir.path(), &line).expect(0, &[]);
    let html = report(&dir.path().join("out"), &["samples.csv"]);
    assert!(html.contains("<dd>a&lt;&amp;&quot;&#39;&gt;.png</dd>"));
}
