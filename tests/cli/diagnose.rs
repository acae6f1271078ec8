//! `diagnose` as people run it.

use std::fs;

use super::{run, tree};

#[test]
fn the_toy() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(
        dir.path(),
        "diagnose toy -o out --samples 300 --steps 20 --json",
    )
    .expect(0, &[]);
    assert_eq!(tree(&dir.path().join("out")), ["toy.csv", "toy.svg"]);
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
}

#[test]
fn scores_and_samples_of_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let of = "--model PIXEL --task sr4 --scene 3 --size 32x32 --steps 3 --device cpu";
    let line = format!("diagnose score-mean {of} -o mean --draws 3 --zetas 0.1,2 --batch 2 --json");
    let ran = run(dir.path(), &line).expect(0, &[]);
    let names: Vec<String> = ran
        .records("score-mean")
        .iter()
        .map(|row| row["estimate"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["unconditional", "DPS zeta 0.1", "DPS zeta 2"]);
    assert_eq!(
        fs::read_to_string(dir.path().join("mean/score-mean.csv"))
            .unwrap()
            .lines()
            .count(),
        4
    );

    let line = format!(
        "diagnose diversity {of} -o div --samples 3 --method dps --zeta 0.3 --batch 2 --json"
    );
    let ran = run(dir.path(), &line).expect(0, &[]);
    let files = [
        "diversity.png",
        "sample-000.png",
        "sample-001.png",
        "sample-002.png",
    ];
    assert_eq!(tree(&dir.path().join("div")), files);
    assert!(ran.records("diversity")[0]["std"].as_f64().unwrap() > 0.0);

    let sd = "--model SD2 --task sr8 --scene 3 --size 64x64 --steps 2 --device cpu";
    let controlnet = crate::oracle::checkpoint("tiny-sd2").join("controlnet");
    let reference = controlnet.display();
    let line = format!(
        "diagnose score-error {sd} --reference {reference} --cse {reference} -o err --zetas 1 --json"
    );
    let ran = run(dir.path(), &line).expect(0, &[]);
    let cse = &ran.records("score-error")[1];
    assert_eq!(
        (cse["estimate"].as_str(), cse["start"].as_f64()),
        (Some("CSE"), Some(0.0))
    );
    assert_eq!(
        tree(&dir.path().join("err")),
        ["score-error.csv", "score-error.svg"]
    );

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
}
